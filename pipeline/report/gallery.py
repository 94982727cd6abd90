"""Write groups as a page for a browser, those with the most bytes to free first."""

from __future__ import annotations

import html
import os
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isinf
from pathlib import Path, PurePath
from urllib.parse import quote

from indexes.caches.thumbnails import ThumbnailCache
from indexes.durable.files import sync_folder
from indexes.paths import escape_unprintable
from indexes.store import Store
from pipeline.decode.formats import mark_jpeg
from pipeline.decode.pool import DecoderPool
from pipeline.errors import OutputNotWritable
from pipeline.grouping.cluster import Group
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.grouping.match import Match
from pipeline.name_rules import PAGE_MARKER_NAME, PAGE_THUMBNAIL_NAME_PATTERN
from pipeline.report.format import format_bytes, pluralize
from pipeline.report.groups import format_related, sum_reclaimable_bytes
from pipeline.report.matches import format_match
from pipeline.report.output import make_output_error, require_writable_folder
from pipeline.thumbnails import Thumbnails

IMAGES_PER_BATCH = 200  # images whose thumbnails are loaded together
# A page of ours is known by this tag, its folder of thumbnails by PAGE_MARKER_NAME.
GENERATOR_TAG = '<meta name="generator" content="neardup groups">'
MAX_HEAD_BYTES = 1000  # from the start of a page, among which its generator tag is found
MAX_STEM_CHARACTERS = 100  # of the page's name in that of its temporary folder
PAGE_STYLE = """
:root{color-scheme:light dark;--ground:#f6f6f4;--card:#fff;--ink:#1d1d1f;--soft:#6b6b70;
--keep:#1c7c45;--line:#ddd}
@media (prefers-color-scheme:dark){:root{--ground:#161618;--card:#212124;--ink:#ececee;
--soft:#9a9aa0;--keep:#4cc281;--line:#38383c}}
*{box-sizing:border-box}
body{margin:0;padding:2rem clamp(1rem,4vw,3rem);background:var(--ground);color:var(--ink);
font:15px/1.45 system-ui,sans-serif}
h1{font-size:1.5rem;margin:0}
header p{color:var(--soft);margin:.3rem 0 1.6rem}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:1rem 1.2rem;margin:0 0 1.2rem;content-visibility:auto;contain-intrinsic-size:auto 320px}
h2{font-size:1rem;font-weight:600;margin:0 0 .8rem}
h2 span{color:var(--soft);font-weight:400}
ul{list-style:none;display:flex;flex-wrap:wrap;gap:1.1rem;margin:0;padding:0}
li{width:210px;overflow-wrap:anywhere}
a{color:inherit;text-decoration:none}
a:focus-visible{outline:3px solid var(--keep)}
.frame{display:flex;align-items:center;justify-content:center;height:170px;
background:var(--ground);border-radius:6px;overflow:hidden}
.frame img{max-width:100%;max-height:170px}
.keep .frame{outline:4px solid var(--keep)}
b{display:block;margin:.5rem 0 0}
.keep b{color:var(--keep)}
small{display:block;color:var(--soft)}
"""
PAGE_HEAD_TEMPLATE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
{generator}
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
<header><h1>{title}</h1><p>{about}</p></header>
"""

# --- writing ---


def write_gallery(
    groups: Sequence[Group], store: Store, page: Path, warnings: Sequence[str] = ()
) -> None:
    """Write a page of groups, with `warnings` above them, and its folder of thumbnails beside it.

    Both are built in a temporary folder and replace an older page of the same name; nothing else
    is written. Raises OutputNotWritable, also for the reasons of require_writable_page().
    """
    folder = _get_thumbnail_folder(page)
    ordered = sorted(groups, key=lambda group: (-sum_reclaimable_bytes(group), group.keeper.path))
    try:
        require_writable_page(page)
        prefix = f".{page.stem[:MAX_STEM_CHARACTERS]}-"
        with tempfile.TemporaryDirectory(prefix=prefix, dir=page.parent) as temporary:
            new = Path(temporary)
            (new / "pictures").mkdir()
            (new / "pictures" / PAGE_MARKER_NAME).touch()
            written_hashes = _write_thumbnails(ordered, store, new / "pictures")
            text = "".join(
                _render_page(ordered, _PageImages(folder.name, written_hashes), warnings)
            )
            (new / "page").write_text(text, encoding="utf-8", errors="backslashreplace")
            _require_own_folder(folder, page)  # it may have been filled in the meantime
            if folder.exists():
                folder.rename(new / "before")
            (new / "pictures").rename(folder)
            (new / "page").replace(page)
        sync_folder(page.parent)
    except OSError as error:
        raise make_output_error(page, error, "choose a file in a folder that exists") from error


def require_writable_page(page: Path) -> None:
    """Raise OutputNotWritable if a page cannot be written, or would replace anything but a page.

    The same holds for its folder of thumbnails.
    """
    require_writable_folder(page, "choose a file in a folder that exists and is writable")
    try:
        if os.path.lexists(page) and not _is_page(page):
            raise OutputNotWritable(
                f"{page} already exists and is not a page of neardup; choose another file"
            )
        _require_own_folder(_get_thumbnail_folder(page), page)
    except OSError as error:
        raise make_output_error(page, error, "choose another file") from error


def _get_thumbnail_folder(page: Path) -> Path:
    return page.with_name(f"{page.stem}-pictures")


def _is_page(page: Path) -> bool:
    """Return whether a file is a page that neardup wrote."""
    if page.is_symlink() or not page.is_file():
        return False
    with page.open("rb") as opened:
        return GENERATOR_TAG.encode() in opened.read(MAX_HEAD_BYTES)


def _require_own_folder(folder: Path, page: Path) -> None:
    """Raise OutputNotWritable if a folder exists and is not the thumbnail folder of a page."""
    if os.path.lexists(folder) and not _is_thumbnail_folder(folder):
        raise OutputNotWritable(
            f"{folder} holds files that neardup did not write;"
            f" choose another file name than {page.name}"
        )


def _is_thumbnail_folder(folder: Path) -> bool:
    """Return whether a folder has the marker of a page and holds only thumbnails beside it."""
    if folder.is_symlink() or not folder.is_dir() or not (folder / PAGE_MARKER_NAME).is_file():
        return False
    with os.scandir(folder) as entries:
        return all(
            (entry.name == PAGE_MARKER_NAME or PAGE_THUMBNAIL_NAME_PATTERN.fullmatch(entry.name))
            and entry.is_file(follow_symlinks=False)
            for entry in entries
        )


def _write_thumbnails(groups: Sequence[Group], store: Store, folder: Path) -> set[bytes]:
    """Write a thumbnail of each image, named by its hash; return the hashes of those written.

    Images that cannot be read now and have no stored thumbnail are left out.
    """
    wanted = dict.fromkeys(file.image.hash for group in groups for file in group.files)
    id_by_hash = store.catalog.images.get_ids(list(wanted))
    ids = [id_by_hash[hash_] for hash_ in wanted if hash_ in id_by_hash]
    written = set[bytes]()
    with DecoderPool() as decoders, ThumbnailCache(store.folder, write=False) as cache:
        thumbnails = Thumbnails(store, cache, decoders)
        for start in range(0, len(ids), IMAGES_PER_BATCH):
            loaded, _ = thumbnails.load(set(ids[start : start + IMAGES_PER_BATCH]))
            for image, thumbnail in loaded.values():
                (folder / _get_thumbnail_name(image.hash)).write_bytes(mark_jpeg(thumbnail.jpeg))
                written.add(image.hash)
    return written


def _get_thumbnail_name(hash_: bytes) -> str:
    return f"{hash_.hex()[:32]}.jpg"


# --- HTML ---


@dataclass(frozen=True)
class _PageImages:
    """The thumbnails of a page: the name of their folder, and the hashes of those in it."""

    folder_name: str
    hashes: Collection[bytes]

    def render(self, file: LibraryFile) -> str:
        """Render the thumbnail of a file, or a note in its place."""
        hash_ = file.image.hash
        if hash_ not in self.hashes:
            return "<small>no preview</small>"
        source = f"{quote(os.fsencode(self.folder_name))}/{_get_thumbnail_name(hash_)}"
        name = _escape_html(PurePath(file.path).name)
        return f'<img loading="lazy" decoding="async" src="{source}" alt="{name}">'


def _render_page(
    groups: Sequence[Group], images: _PageImages, warnings: Sequence[str]
) -> Iterator[str]:
    title = (
        f"{pluralize(len(groups), 'group')} of near-duplicates" if groups else "No near-duplicates"
    )
    copies = pluralize(sum(len(group.members) for group in groups), "image")
    to_free = format_bytes(sum(map(sum_reclaimable_bytes, groups)))
    about = (
        f"{copies} besides those to keep (in green), {to_free} to free."
        " Nothing was moved or deleted."
    )
    yield PAGE_HEAD_TEMPLATE.format(
        generator=GENERATOR_TAG, title=title, style=PAGE_STYLE, about=about
    )
    related = format_related(groups)
    for note in [*warnings, related] if related else warnings:
        yield f"<p>{_escape_html(note[:1].upper() + note[1:])}.</p>\n"
    for group in groups:
        yield from _render_group(group, images)


def _render_group(group: Group, images: _PageImages) -> Iterator[str]:
    keeper = group.keeper
    to_free = format_bytes(sum_reclaimable_bytes(group))
    folder = _escape_html(os.path.dirname(keeper.path))  # noqa: PTH120 - as the store has it
    yield f"<section><h2>{to_free} to free <span>{folder}</span></h2><ul>\n"
    date = _format_date(keeper)
    yield f'<li class="keep">{_render_item(keeper, f"keep: {group.reason}", date, images)}</li>\n'
    for member in group.members:
        differences = _describe_differences(member, keeper)
        item = _render_item(member.file, format_match(member), differences, images)
        yield f'<li class="">{item}</li>\n'
    yield "</ul></section>\n"


def _render_item(file: LibraryFile, label: str, details: str, images: _PageImages) -> str:
    """Render the thumbnail of a file as a link to it, with its label and details below."""
    image = file.image
    name = _escape_html(PurePath(file.path).name)
    link = f'<a href="file://{quote(os.fsencode(file.path))}" title="{_escape_html(file.path)}">'
    labels = "".join(f", {file_label}" for file_label in file.labels)
    size = f"{image.width} x {image.height}, {format_bytes(image.size)}"
    facts = f"{size}, {_escape_html(image.format)}{labels}"
    return (
        f'{link}<div class="frame">{images.render(file)}</div>'
        f"<b>{_escape_html(label)}</b>{name}</a>"
        f"<small>{facts}</small><small>{_escape_html(details)}</small>"
    )


def _describe_differences(member: Match, keeper: LibraryFile) -> str:
    """Format where a member differs from its keeper beside the pixels: its folder, its date."""
    folder = os.path.dirname(member.file.path)  # noqa: PTH120 - as the store has it
    keeper_folder = os.path.dirname(keeper.path)  # noqa: PTH120 - as the store has it
    date = _format_date(member.file)
    differences = []
    if folder != keeper_folder:
        differences.append(f"in {os.path.relpath(folder, keeper_folder)}")
    if date != _format_date(keeper):
        differences.append(date)
    return ", ".join(differences)


def _format_date(file: LibraryFile) -> str:
    if isinf(file.timestamp_ns):
        return "no date"
    return f"{datetime.fromtimestamp(file.timestamp_ns / 1e9, UTC):%Y-%m-%d}"


def _escape_html(text: str) -> str:
    return html.escape(escape_unprintable(text))

"""Groups as a page that a person looks at: what to keep, what matches it and how, the most to gain first."""

from __future__ import annotations

import html
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePath
from urllib.parse import quote

from indexes.caches.thumbnails import ThumbnailCache
from indexes.durable.files import sync_folder
from indexes.store import Store
from pipeline.decode.pool import DecoderPool
from pipeline.errors import OutputNotWritable
from pipeline.grouping.cluster import Group
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.grouping.match import Match
from pipeline.report.answers import (
    escape_unprintable,
    format_bytes,
    format_match,
    format_related,
    pluralize,
)
from pipeline.thumbnails import Thumbnails

IMAGES_PER_BATCH = 200  # pictures that are read together
GENERATOR_TAG = (
    '<meta name="generator" content="neardup groups">'  # by which a page is known as one of ours
)
MARKER_FILE_NAME = ".neardup-page"  # a file by which its folder is
THUMBNAIL_NAME_PATTERN = re.compile(r"[0-9a-f]{32}\.jpg")  # the name of a small picture
PAGE_STYLE = """
:root{color-scheme:light dark;--ground:#f6f6f4;--card:#fff;--ink:#1d1d1f;--soft:#6b6b70;--keep:#1c7c45;--line:#ddd}
@media (prefers-color-scheme:dark){:root{--ground:#161618;--card:#212124;--ink:#ececee;--soft:#9a9aa0;--keep:#4cc281;--line:#38383c}}
*{box-sizing:border-box}
body{margin:0;padding:2rem clamp(1rem,4vw,3rem);background:var(--ground);color:var(--ink);font:15px/1.45 system-ui,sans-serif}
h1{font-size:1.5rem;margin:0}
header p{color:var(--soft);margin:.3rem 0 1.6rem}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1rem 1.2rem;margin:0 0 1.2rem;
content-visibility:auto;contain-intrinsic-size:auto 320px}
h2{font-size:1rem;font-weight:600;margin:0 0 .8rem}
h2 span{color:var(--soft);font-weight:400}
ul{list-style:none;display:flex;flex-wrap:wrap;gap:1.1rem;margin:0;padding:0}
li{width:210px;overflow-wrap:anywhere}
a{color:inherit;text-decoration:none}
a:focus-visible{outline:3px solid var(--keep)}
.frame{display:flex;align-items:center;justify-content:center;height:170px;background:var(--ground);border-radius:6px;overflow:hidden}
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
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
<header><h1>{title}</h1><p>{about}</p></header>
"""


def write_gallery(
    groups: Sequence[Group], store: Store, page: Path, warnings: Sequence[str] = ()
) -> None:
    """Write the page, and a folder of small pictures beside it, named like it, which it shows as one scrolls; above all, `notes` that a
    person should read with it. What was there is replaced.

    Nothing but these is written, and no photo is changed. Raises BadDestination, also as require_place() does.
    """
    pictures = _get_thumbnail_folder(page)
    ordered = sorted(groups, key=lambda group: (-sum_reclaimable_bytes(group), group.keeper.path))
    try:
        require_writable_page(page)
        with tempfile.TemporaryDirectory(prefix=f".{page.stem[:100]}-", dir=page.parent) as folder:
            part = Path(folder)
            (part / "pictures").mkdir()
            (part / "pictures" / MARKER_FILE_NAME).touch()
            shown = _write_thumbnails(ordered, store, part / "pictures")
            text = "".join(_render_page(ordered, shown, pictures.name, warnings))
            (part / "page").write_text(text, encoding="utf-8", errors="backslashreplace")
            _require_own_folder(pictures, page)  # somebody may have put something there meanwhile
            if pictures.exists():
                pictures.rename(part / "before")
            (part / "pictures").rename(pictures)
            (part / "page").replace(page)
        sync_folder(page.parent)
    except OSError as error:
        raise OutputNotWritable(
            f"{page} cannot be written ({error.strerror or error}); name a file in a folder that is there"
        ) from error


def require_writable_page(page: Path) -> None:
    """Raises BadDestination where a page, or the folder beside it, is there and was not made here, or cannot be written."""
    if not os.access(page.parent, os.W_OK | os.X_OK):
        raise OutputNotWritable(
            f"{page} cannot be written; name a file in a folder that is there and may be written to"
        )
    try:
        if os.path.lexists(page) and not _is_page(page):
            raise OutputNotWritable(f"{page} is there already, and no such page; name another file")
        _require_own_folder(_get_thumbnail_folder(page), page)
    except OSError as error:
        raise OutputNotWritable(
            f"{page} cannot be written ({error.strerror or error}); name another file"
        ) from error


def _get_thumbnail_folder(page: Path) -> Path:
    return page.with_name(f"{page.stem}-pictures")


def _is_page(page: Path) -> bool:
    """Whether a file is such a page."""
    if page.is_symlink() or not page.is_file():
        return False
    with page.open("rb") as opened:
        return GENERATOR_TAG.encode() in opened.read(1000)


def _require_own_folder(folder: Path, page: Path) -> None:
    """Raises BadDestination where a folder is there and holds anything but small pictures of a page, and the mark of one."""
    own = not os.path.lexists(folder)
    if (
        not own
        and not folder.is_symlink()
        and folder.is_dir()
        and (folder / MARKER_FILE_NAME).is_file()
    ):
        with os.scandir(folder) as entries:
            own = all(
                (entry.name == MARKER_FILE_NAME or THUMBNAIL_NAME_PATTERN.fullmatch(entry.name))
                and entry.is_file(follow_symlinks=False)
                for entry in entries
            )
    if not own:
        raise OutputNotWritable(
            f"{folder} holds other things than the small pictures of such a page; name another file than {page.name}"
        )


def sum_reclaimable_bytes(group: Group) -> int:
    """Bytes of the members of a group that are there."""
    return sum(member.file.image.size for member in group.members if member.file.is_present)


def _write_thumbnails(groups: Sequence[Group], store: Store, folder: Path) -> set[bytes]:
    """A small picture of each image, named by its hash; those that could not be read are left out."""
    wanted = dict.fromkeys(photo.image.hash for group in groups for photo in group.files)
    ids, written = store.catalog.images.get_ids(list(wanted)), set[bytes]()
    hashes = [hash_ for hash_ in wanted if hash_ in ids]
    with DecoderPool() as decoders, ThumbnailCache(store.folder, write=False) as thumbs:
        pictures = Thumbnails(store, thumbs, decoders)
        for start in range(0, len(hashes), IMAGES_PER_BATCH):
            for image, thumb in pictures.load(
                {ids[hash_] for hash_ in hashes[start : start + IMAGES_PER_BATCH]}
            )[0].values():
                (folder / f"{image.hash.hex()[:32]}.jpg").write_bytes(thumb.jpeg)
                written.add(image.hash)
    return written


def _render_page(
    groups: Sequence[Group], written_hashes: set[bytes], folder: str, warnings: Sequence[str]
) -> Iterator[str]:
    members = sum(len(group.members) for group in groups)
    title = (
        f"{pluralize(len(groups), 'group')} of near-duplicates" if groups else "No near-duplicates"
    )
    about = f"{pluralize(members, 'photo')} beside those to keep (in green), {format_bytes(sum(map(sum_reclaimable_bytes, groups)))}. Nothing was moved or deleted."
    yield PAGE_HEAD_TEMPLATE.format(
        generator=GENERATOR_TAG, title=title, style=PAGE_STYLE, about=about
    )
    for note in [*warnings, *([related] if (related := format_related(groups)) else [])]:
        yield f"<p>{_escape_html(note[:1].upper() + note[1:])}.</p>\n"
    for group in groups:
        yield f"<section><h2>{format_bytes(sum_reclaimable_bytes(group))} to free <span>{_escape_html(os.path.dirname(group.keeper.path))}</span></h2><ul>\n"  # noqa: PTH120
        yield _render_item(
            group.keeper,
            f"keep: {group.reason}",
            _format_date(group.keeper),
            written_hashes,
            folder,
            "keep",
        )
        for member in group.members:
            yield _render_item(
                member.file,
                format_match(member),
                _describe_differences(member, group.keeper),
                written_hashes,
                folder,
                "",
            )
        yield "</ul></section>\n"


def _render_item(
    file: LibraryFile,
    label: str,
    details: str,
    written_hashes: set[bytes],
    folder: str,
    css_class: str,
) -> str:
    name = PurePath(file.path).name
    image = file.image
    picture = (
        f'<img loading="lazy" decoding="async" src="{quote(os.fsencode(folder))}/{image.hash.hex()[:32]}.jpg" alt="{_escape_html(name)}">'
        if image.hash in written_hashes
        else "<small>not at hand</small>"
    )
    marks = "".join(f", {mark}" for mark in file.labels)
    link = f'<a href="file://{quote(os.fsencode(file.path))}" title="{_escape_html(file.path)}">'
    facts = f"{image.width} x {image.height}, {format_bytes(image.size)}, {_escape_html(image.format)}{marks}"
    return (
        f'<li class="{css_class}">{link}<div class="frame">{picture}</div><b>{_escape_html(label)}</b>{_escape_html(name)}</a>'
        f"<small>{facts}</small><small>{_escape_html(details)}</small></li>\n"
    )


def _describe_differences(member: Match, keeper: LibraryFile) -> str:
    """What else is different from the keeper: the folder, the date."""
    photo = member.file
    folder = os.path.dirname(photo.path)  # noqa: PTH120 - as it was given
    home = os.path.dirname(keeper.path)  # noqa: PTH120
    said = [f"in {os.path.relpath(folder, home)}" if folder != home else ""]
    said.append(_format_date(photo) if _format_date(photo) != _format_date(keeper) else "")
    return ", ".join(words for words in said if words)


def _format_date(file: LibraryFile) -> str:
    return f"{datetime.fromtimestamp(file.timestamp_ns / 1e9, UTC):%Y-%m-%d}"


def _escape_html(text: str) -> str:
    return html.escape(escape_unprintable(text))

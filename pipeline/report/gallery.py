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

from indexes import Store, Thumbs
from indexes.durable.files import sync_folder
from pipeline.decode.pool import Decoders
from pipeline.errors import BadDestination
from pipeline.grouping.cluster import Group, Match
from pipeline.grouping.keep_rules import Photo
from pipeline.report.answers import counted, match_text, printable, related_text, size
from pipeline.thumbnails import Pictures

BLOCK = 200  # pictures that are read together
GENERATOR = '<meta name="generator" content="neardup groups">'  # by which a page is known as one of ours
MARK = ".neardup-page"  # a file by which its folder is
PICTURE = re.compile(r"[0-9a-f]{32}\.jpg")  # the name of a small picture
STYLE = """
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
HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
{generator}
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
<header><h1>{title}</h1><p>{about}</p></header>
"""


def write_gallery(groups: Sequence[Group], store: Store, page: Path, notes: Sequence[str] = ()) -> None:
    """Write the page, and a folder of small pictures beside it, named like it, which it shows as one scrolls; above all, `notes` that a
    person should read with it. What was there is replaced.

    Nothing but these is written, and no photo is changed. Raises BadDestination, also as require_place() does.
    """
    pictures = _pictures_of(page)
    ordered = sorted(groups, key=lambda group: (-gain(group), group.keeper.path))
    try:
        require_place(page)
        with tempfile.TemporaryDirectory(prefix=f".{page.stem[:100]}-", dir=page.parent) as folder:
            part = Path(folder)
            (part / "pictures").mkdir()
            (part / "pictures" / MARK).touch()
            shown = _write_pictures(ordered, store, part / "pictures")
            text = "".join(_page(ordered, shown, pictures.name, notes))
            (part / "page").write_text(text, encoding="utf-8", errors="backslashreplace")
            _require_own(pictures, page)  # somebody may have put something there meanwhile
            if pictures.exists():
                pictures.rename(part / "before")
            (part / "pictures").rename(pictures)
            (part / "page").replace(page)
        sync_folder(page.parent)
    except OSError as error:
        raise BadDestination(f"{page} cannot be written ({error.strerror or error}); name a file in a folder that is there") from error


def require_place(page: Path) -> None:
    """Raises BadDestination where a page, or the folder beside it, is there and was not made here, or cannot be written."""
    if not os.access(page.parent, os.W_OK | os.X_OK):
        raise BadDestination(f"{page} cannot be written; name a file in a folder that is there and may be written to")
    try:
        if os.path.lexists(page) and not _is_page(page):
            raise BadDestination(f"{page} is there already, and no such page; name another file")
        _require_own(_pictures_of(page), page)
    except OSError as error:
        raise BadDestination(f"{page} cannot be written ({error.strerror or error}); name another file") from error


def _pictures_of(page: Path) -> Path:
    return page.with_name(f"{page.stem}-pictures")


def _is_page(page: Path) -> bool:
    """Whether a file is such a page."""
    if page.is_symlink() or not page.is_file():
        return False
    with page.open("rb") as opened:
        return GENERATOR.encode() in opened.read(1000)


def _require_own(pictures: Path, page: Path) -> None:
    """Raises BadDestination where a folder is there and holds anything but small pictures of a page, and the mark of one."""
    own = not os.path.lexists(pictures)
    if not own and not pictures.is_symlink() and pictures.is_dir() and (pictures / MARK).is_file():
        with os.scandir(pictures) as entries:
            own = all((entry.name == MARK or PICTURE.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False) for entry in entries)
    if not own:
        raise BadDestination(f"{pictures} holds other things than the small pictures of such a page; name another file than {page.name}")


def gain(group: Group) -> int:
    """Bytes of the members of a group that are there."""
    return sum(member.photo.image.size for member in group.members if member.photo.is_there)


def _write_pictures(groups: Sequence[Group], store: Store, folder: Path) -> set[bytes]:
    """A small picture of each image, named by its hash; those that could not be read are left out."""
    wanted = dict.fromkeys(photo.image.hash for group in groups for photo in group.photos)
    ids, written = store.catalog.image_ids(list(wanted)), set[bytes]()
    hashes = [hash_ for hash_ in wanted if hash_ in ids]
    with Decoders() as decoders, Thumbs(store.folder, write=False) as thumbs:
        pictures = Pictures(store, thumbs, decoders)
        for start in range(0, len(hashes), BLOCK):
            for image, thumb in pictures.of({ids[hash_] for hash_ in hashes[start : start + BLOCK]})[0].values():
                (folder / f"{image.hash.hex()[:32]}.jpg").write_bytes(thumb.picture)
                written.add(image.hash)
    return written


def _page(groups: Sequence[Group], shown: set[bytes], folder: str, notes: Sequence[str]) -> Iterator[str]:
    members = sum(len(group.members) for group in groups)
    title = f"{counted(len(groups), 'group')} of near-duplicates" if groups else "No near-duplicates"
    about = f"{counted(members, 'photo')} beside those to keep (in green), {size(sum(map(gain, groups)))}. Nothing was moved or deleted."
    yield HEAD.format(generator=GENERATOR, title=title, style=STYLE, about=about)
    for note in [*notes, *([related] if (related := related_text(groups)) else [])]:
        yield f"<p>{_text(note[:1].upper() + note[1:])}.</p>\n"
    for group in groups:
        yield f"<section><h2>{size(gain(group))} to free <span>{_text(os.path.dirname(group.keeper.path))}</span></h2><ul>\n"  # noqa: PTH120
        yield _item(group.keeper, f"keep: {group.reason}", _date(group.keeper), shown, folder, "keep")
        for member in group.members:
            yield _item(member.photo, match_text(member), _differences(member, group.keeper), shown, folder, "")
        yield "</ul></section>\n"


def _item(photo: Photo, what: str, about: str, shown: set[bytes], folder: str, kind: str) -> str:
    name = PurePath(photo.path).name
    image = photo.image
    picture = (
        f'<img loading="lazy" decoding="async" src="{quote(os.fsencode(folder))}/{image.hash.hex()[:32]}.jpg" alt="{_text(name)}">'
        if image.hash in shown
        else "<small>not at hand</small>"
    )
    marks = "".join(f", {mark}" for mark in photo.marks)
    link = f'<a href="file://{quote(os.fsencode(photo.path))}" title="{_text(photo.path)}">'
    facts = f"{image.width} x {image.height}, {size(image.size)}, {_text(image.format)}{marks}"
    return (
        f'<li class="{kind}">{link}<div class="frame">{picture}</div><b>{_text(what)}</b>{_text(name)}</a>'
        f"<small>{facts}</small><small>{_text(about)}</small></li>\n"
    )


def _differences(member: Match, keeper: Photo) -> str:
    """What else is different from the keeper: the folder, the date."""
    photo = member.photo
    folder = os.path.dirname(photo.path)  # noqa: PTH120 - as it was given
    home = os.path.dirname(keeper.path)  # noqa: PTH120
    said = [f"in {os.path.relpath(folder, home)}" if folder != home else ""]
    said.append(_date(photo) if _date(photo) != _date(keeper) else "")
    return ", ".join(words for words in said if words)


def _date(photo: Photo) -> str:
    return f"{datetime.fromtimestamp(photo.moment / 1e9, UTC):%Y-%m-%d}"


def _text(words: str) -> str:
    return html.escape(printable(words))

"""Render groups as a page of HTML, without any script."""

from __future__ import annotations

import html
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isinf
from pathlib import PurePath
from urllib.parse import quote

from indexes.paths import escape_unprintable
from pipeline.grouping.cluster import Group
from pipeline.grouping.decisions import format_decision
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.grouping.lineage import walk_tree
from pipeline.grouping.match import Match
from pipeline.report.format import format_bytes, pluralize
from pipeline.report.groups import format_related, sum_reclaimable_bytes
from pipeline.report.matches import (
    KEEPER,
    PARENT_WORDS,
    describe_match_edits,
    describe_without_counterpart,
    format_name,
    format_parts,
    format_relation,
    get_voucher_words,
)

# A page of ours is known by this tag, its folder of thumbnails by PAGE_MARKER_NAME.
GENERATOR_TAG = '<meta name="generator" content="neardup groups">'
MAX_NESTED_BOXES = 3  # of a tree; a phone has no room for more beside a card

PAGE_STYLE = """
:root{color-scheme:light dark;--ground:#f6f6f4;--card:#fff;--ink:#1d1d1f;--soft:#6b6b70;
--keep:#1c7c45;--line:#ddd;--stem:#b4b4ba}
@media (prefers-color-scheme:dark){:root{--ground:#161618;--card:#212124;--ink:#ececee;
--soft:#9a9aa0;--keep:#4cc281;--line:#3c3c41;--stem:#6a6a72}}
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
li,.card{max-width:100%}
.card{width:210px;overflow-wrap:anywhere}
.card:target .frame{outline:3px solid var(--ink)}
.box{display:flex;flex-wrap:wrap;gap:1.1rem;padding:.7rem;border:1px solid var(--line);
border-left:4px solid var(--stem);border-radius:8px}
.box>ul{flex:1 1 210px}
.box>ul:not(:has(.box)){display:contents}
a{color:inherit;text-decoration:none}
a:focus-visible{outline:3px solid var(--keep)}
.frame{display:flex;align-items:center;justify-content:center;height:170px;
background:var(--ground);border-radius:6px;overflow:hidden}
.frame img{max-width:100%;max-height:170px}
.keep .frame{outline:4px solid var(--keep)}
b{display:block;margin:.5rem 0 0}
.keep b{color:var(--keep)}
small{display:block;color:var(--soft)}
small a{text-decoration:underline}
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


@dataclass(frozen=True)
class PageImages:
    """The thumbnails of a page: the name of their folder, and the hashes of those in it."""

    folder_name: str
    hashes: Collection[bytes]

    def render(self, file: LibraryFile) -> str:
        """Render the thumbnail of a file, or a note in its place."""
        hash_ = file.image.hash
        if hash_ not in self.hashes:
            return "<small>no preview</small>"
        source = f"{quote(os.fsencode(self.folder_name))}/{get_thumbnail_name(hash_)}"
        name = escape_html(PurePath(file.path).name)
        return f'<img loading="lazy" decoding="async" src="{source}" alt="{name}">'


def get_thumbnail_name(hash_: bytes) -> str:
    """Return the file name of the thumbnail of an image, by the hash of the image."""
    return f"{hash_.hex()[:32]}.jpg"


def render_page(
    groups: Sequence[Group], images: PageImages, warnings: Sequence[str]
) -> Iterator[str]:
    """Yield the parts of a page of groups, in their order, with `warnings` above them."""
    title = (
        f"{pluralize(len(groups), 'group')} of near-duplicates" if groups else "No near-duplicates"
    )
    copies = pluralize(sum(len(group.members) for group in groups), "image")
    to_free = format_bytes(sum(map(sum_reclaimable_bytes, groups)))
    about = (
        f"{copies} besides those to keep (in green), {to_free} to free."
        " Nothing was moved or deleted. Scores and edits are relative to the photo to keep."
    )
    if any(member.made_from for group in groups for member in group.members):
        about += " The copies in a box were likely made from its first one."
    related = format_related(groups)
    yield render_head(title, about, [*warnings, related] if related else warnings)
    for group in groups:
        yield from _render_group(group, images)


def render_head(title: str, about: str, notes: Sequence[str]) -> str:
    """Render the beginning of a page; `about` is HTML, `notes` are sentences without an end."""
    head = PAGE_HEAD_TEMPLATE.format(
        generator=GENERATOR_TAG, title=title, style=PAGE_STYLE, about=about
    )
    return head + "".join(f"<p>{escape_html(note[:1].upper() + note[1:])}.</p>\n" for note in notes)


def _render_group(group: Group, images: PageImages) -> Iterator[str]:
    """Yield the keeper and the tree of the members: a list, with a box for each branch of it.

    A branch is a member with those made from it. Boxes lie in boxes up to MAX_NESTED_BOXES; what
    is deeper in the tree lies in the innermost one, in the order of the tree.
    """
    keeper, tree = group.keeper, walk_tree(group.members)
    paths = [keeper.path, *(member.file.path for member, _ in tree)]
    anchors = {path: f"{group.id}-{number}" for number, path in enumerate(paths)}
    to_free = format_bytes(sum_reclaimable_bytes(group))
    folder = escape_html(os.path.dirname(keeper.path))  # noqa: PTH120 - as the store has it
    yield f"<section><h2>{to_free} to free <span>{folder}</span></h2><ul>\n"
    card = render_card(keeper, f"keep: {group.reason}", (), _format_date(keeper), images)
    yield f'<li class="card keep" id="{anchors[keeper.path]}">{card}</li>\n'
    depths = [min(depth, MAX_NESTED_BOXES) for _, depth in tree]
    for (member, _), depth, next_depth in zip(tree, depths, [*depths[1:], 0], strict=True):
        notes = (*_render_origin(member, anchors), *_render_without_counterpart(member))
        differences = _describe_differences(member, keeper)
        card = render_card(member.file, _format_label(member), notes, differences, images)
        anchor = anchors[member.file.path]
        if next_depth > depth:
            yield f'<li class="box"><div class="card" id="{anchor}">{card}</div><ul>\n'
        else:
            ends = "</ul></li>" * (depth - next_depth)
            yield f'<li class="card" id="{anchor}">{card}</li>{ends}\n'
    yield "</ul></section>\n"


def render_card(
    file: LibraryFile, label: str, notes: Iterable[str], details: str, images: PageImages
) -> str:
    """Render the thumbnail of a file as a link to it, with its label, notes and details below.

    The notes are HTML, a line each.
    """
    image = file.image
    name = escape_html(format_name(file))
    link = f'<a href="file://{quote(os.fsencode(file.path))}" title="{escape_html(file.path)}">'
    labels = "".join(f", {file_label}" for file_label in file.labels)
    size = f"{image.width} x {image.height}, {format_bytes(image.size)}"
    facts = f"{size}, {escape_html(image.format)}{labels}{html.escape(format_parts(file))}"
    lines = "".join(
        f"<small>{line}</small>" for line in (*notes, facts, escape_html(details)) if line
    )
    return (
        f'{link}<div class="frame">{images.render(file)}</div>'
        f"<b>{escape_html(label).replace(' %', '&nbsp;%')}</b>{name}</a>{lines}"
    )


def _format_label(member: Match) -> str:
    """Format how a member is related to its keeper, and how it was edited."""
    relation, edits = format_relation(member), ", ".join(describe_match_edits(member, KEEPER))
    return f"{relation}: {edits}" if edits else relation


def _render_origin(member: Match, anchors: Mapping[str, str]) -> Iterator[str]:
    """Yield what binds a member to others of its group: links to their cards, and a decision."""
    voucher_words = get_voucher_words(member)
    for words, file in ((PARENT_WORDS, member.made_from), (voucher_words, member.voucher)):
        if file:
            path, name = escape_html(file.path), escape_html(format_name(file))
            yield f'{words} <a href="#{anchors[file.path]}" title="{path}">{name}</a>'
    if member.decision:
        yield escape_html(format_decision(member.decision))


def _render_without_counterpart(member: Match) -> Iterator[str]:
    yield from map(html.escape, describe_without_counterpart(member.without_counterpart))


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


def escape_html(text: str) -> str:
    """Escape text from outside for HTML, with what no page can show."""
    return html.escape(escape_unprintable(text))

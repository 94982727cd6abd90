"""Cards of a listed group: its files with what is different from the keeper, in words."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import PurePath
from typing import Any

from indexes.decisions import Decision, DecisionKind
from indexes.paths import escape_unprintable
from pipeline.grouping.decisions import format_decision
from pipeline.grouping.lineage import walk_parents
from pipeline.report.format import format_bytes, pluralize
from pipeline.report.matches import (
    DECIDED_VOUCHER_WORDS,
    PARENT_WORDS,
    VOUCHER_WORDS,
    describe_without_counterpart,
)
from pipeline.review.listing import ListedGroup
from pipeline.review.web.credentials import PictureIds
from pipeline.verify.relation import EXACT_RELATIONS

Document = Mapping[str, Any]  # a file of a group, in the schema of `neardup groups --json`

MAX_STRIP_PICTURES = 8  # of a group in the list of groups
MEGAPIXEL = 1_000_000


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact about a file; `delta` is its difference to the keeper, in words, if it has one.

    `value` is empty where the difference says it all.
    """

    name: str
    value: str
    delta: str = ""
    is_worse: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """Words, and the file of the group that they are about: the number of its card."""

    words: str
    number: int
    name: str


@dataclass(frozen=True, slots=True)
class Card:
    """A file of a group as a page shows it; all texts are for people but `path_json`.

    `number` counts from 0, the keeper, in the order of the tree; `depth` is the number of members
    above it there. `path_json` is its path as JSON in ASCII, and `homography` the 9 numbers of the
    matrix that maps the keeper to it, as JSON, or nothing. Members have only the facts in which
    they differ from the keeper, and `equal_facts` names the others.
    """

    number: int
    depth: int
    name: str
    folder: str
    picture: str
    path_json: str
    width: int
    height: int
    homography: str
    relation: str
    score: str
    edits: tuple[str, ...]
    reason: str
    facts: tuple[Fact, ...]
    equal_facts: tuple[str, ...]
    links: tuple[Link, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group in the list of groups; `counts` are its relations in words."""

    id: str
    name: str
    folder: str
    pictures: tuple[str, ...]
    files: int
    bytes_to_free: int
    counts: tuple[str, ...]
    state: str | None


def make_row(group: ListedGroup, ids: PictureIds) -> GroupRow:
    """Make the row of a group."""
    keeper, members = group.document["keeper"], group.document["members"]
    relations = [member["relation"] for member in members]
    pictures = [ids.encode(file.hash) for file in group.files[:MAX_STRIP_PICTURES]]
    return GroupRow(
        group.id,
        _get_name(keeper["path"]),
        escape_unprintable(_get_folder(keeper["path"])),
        tuple(pictures),
        len(group.files),
        group.bytes_to_free,
        tuple(f"{relations.count(name):,} {name}" for name in dict.fromkeys(relations)),
        group.state,
    )


def make_cards(group: ListedGroup, ids: PictureIds) -> list[Card]:
    """Make the cards of a group: the keeper, then the members in the order of the tree."""
    keeper, members = group.document["keeper"], group.document["members"]
    by_path = {member["path"]: member for member in members}
    pictures = {file.path: ids.encode(file.hash) for file in group.files}
    walk = walk_parents({path: item.get("made_from") for path, item in by_path.items()})
    depths = {keeper["path"]: 0} | dict(walk)
    numbers = {path: number for number, path in enumerate(depths)}
    return [
        _make_card(keeper if not number else by_path[path], keeper, pictures[path], numbers, depths)
        for path, number in numbers.items()
    ]


def _make_card(
    file: Document,
    keeper: Document,
    picture: str,
    numbers: Mapping[str, int],
    depths: Mapping[str, int],
) -> Card:
    path = file["path"]
    is_keeper = file is keeper
    facts = list(_list_facts(file, keeper))
    differing = facts if is_keeper else [fact for fact in facts if fact.delta]
    equal = () if is_keeper else tuple(fact.name.lower() for fact in facts if not fact.delta)
    relation = file.get("relation", "")
    matrix = (file.get("verdict") or {}).get("homography") or ()
    return Card(
        numbers[path],
        depths[path],
        _get_name(path),
        escape_unprintable(_get_folder(path)),
        picture,
        json.dumps(path),
        file["width"],
        file["height"],
        json.dumps(list(matrix)) if len(matrix) == 9 and not is_keeper else "",
        relation,
        f"{file['score']:.3f}" if relation and relation not in EXACT_RELATIONS else "",
        tuple(file.get("edits_in_words", ())),
        escape_unprintable(file.get("reason", "")),
        tuple(differing),
        equal,
        tuple(_list_links(file, numbers)),
        tuple(_list_notes(file)),
        tuple(_list_warnings(file)),
        tuple(file.get("flags", ())),
    )


def _list_facts(file: Document, keeper: Document) -> Iterator[Fact]:
    """Yield the facts of a file, each with its difference to the keeper."""
    pixels, keeper_pixels = (item["width"] * item["height"] for item in (file, keeper))
    size = f"{file['width']} x {file['height']}"
    is_equal = (file["width"], file["height"]) == (keeper["width"], keeper["height"])
    change = "" if is_equal else _format_change(pixels, keeper_pixels) or "other shape"
    megapixels = f"{size}, {pixels / MEGAPIXEL:.1f} MP"
    yield Fact("Pixels", megapixels, change, pixels < keeper_pixels)
    bytes_, keeper_bytes = file["bytes"], keeper["bytes"]
    change = "" if bytes_ == keeper_bytes else _format_change(bytes_, keeper_bytes) or "about equal"
    yield Fact("Size", format_bytes(bytes_), change, bytes_ < keeper_bytes)
    taken, keeper_taken = file.get("taken"), keeper.get("taken")
    is_lost = taken is None and keeper_taken is not None
    shown = taken.replace("T", " ") if taken else "" if is_lost else "no date"
    yield Fact("Taken", shown, _format_interval(taken, keeper_taken), is_lost)
    folder, keeper_folder = _get_folder(file["path"]), _get_folder(keeper["path"])
    is_other = folder != keeper_folder
    relative = os.path.relpath(folder, keeper_folder) if is_other else ""
    shown = "" if is_other else escape_unprintable(folder)
    yield Fact("Folder", shown, escape_unprintable(relative))
    kinds, keeper_kinds = (list(item.get("metadata", ())) for item in (file, keeper))
    lacks = [kind for kind in keeper_kinds if kind not in kinds]
    more = [kind for kind in kinds if kind not in keeper_kinds]
    change = "; ".join(
        f"{word} {', '.join(names)}" for word, names in (("no", lacks), ("also", more)) if names
    )
    yield Fact("Metadata", "" if change else ", ".join(kinds) or "none", change, bool(lacks))
    if file.get("parts") or keeper.get("parts"):
        names, keeper_names = (_format_parts(item) for item in (file, keeper))
        change = "" if bool(names) == bool(keeper_names) else ("lacks them" if not names else "has")
        yield Fact("Belonging files", names or "none", change, not names)


def _format_change(value: int, keeper_value: int) -> str:
    """Format a change in per cent or as a factor; nothing if it rounds to none."""
    ratio = value / max(keeper_value, 1)
    if ratio >= 2:
        return f"{ratio:.1f} times"
    percent = round(100 * (ratio - 1))
    if not percent:
        return ""
    return f"{'+' if percent > 0 else '−'}{abs(percent)} %"


def _format_interval(taken: str | None, keeper_taken: str | None) -> str:
    """Format how much later a file was taken than the keeper; nothing if at the same time."""
    if taken == keeper_taken:
        return ""
    if taken is None or keeper_taken is None:
        return "no date" if taken is None else "the keeper has no date"
    interval = datetime.fromisoformat(taken) - datetime.fromisoformat(keeper_taken)
    direction = "later" if interval > timedelta(0) else "earlier"
    interval = abs(interval)
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        if (count := int(interval.total_seconds() // length)) > 0:
            return f"{pluralize(count, unit)} {direction}"
    return direction


def _list_links(file: Document, numbers: Mapping[str, int]) -> Iterator[Link]:
    voucher_words = DECIDED_VOUCHER_WORDS if file.get("decision") else VOUCHER_WORDS
    for words, key in ((PARENT_WORDS, "made_from"), (voucher_words, "voucher")):
        path: str = file.get(key, "")
        if path in numbers:
            yield Link(words, numbers[path], _get_name(path))


def _list_notes(file: Document) -> Iterator[str]:
    if decision := file.get("decision"):
        time = datetime.fromisoformat(decision["time"])
        kind = DecisionKind(decision["kind"])
        yield format_decision(Decision(kind, (), decision["author"], time))
    if file.get("frames", 1) > 1:
        yield pluralize(file["frames"], "frame")


def _list_warnings(file: Document) -> Iterator[str]:
    if file.get("missing"):
        yield "not on disk"
    if file.get("changed"):
        yield "changed since the last ingest"
    yield from describe_without_counterpart(file.get("without_counterpart", ()))


def _format_parts(file: Document) -> str:
    return ", ".join(_get_name(part["path"]) for part in file.get("parts", ()))


def _get_name(path: str) -> str:
    return escape_unprintable(PurePath(path).name)


def _get_folder(path: str) -> str:
    return os.path.dirname(path)  # noqa: PTH120 - as the store has it


def list_tree(cards: Sequence[Card]) -> list[Card]:
    """List the cards of members if any was made from another one, else nothing."""
    members = list(cards[1:])
    return members if any(card.depth for card in members) else []

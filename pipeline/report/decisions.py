"""Decisions of people and rejected files, as JSON and text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from indexes.decisions import DecidedContent, Decision
from indexes.paths import escape_unprintable
from indexes.store import Store
from pipeline.decide.decide import describe_decision
from pipeline.decided import RejectedFile
from pipeline.grouping.decisions import format_origin
from pipeline.report.document import make_document
from pipeline.report.format import MAX_LISTED_ITEMS, pluralize
from pipeline.verify.relation import Relation


@dataclass(frozen=True)
class DecidedPaths:
    """The files that hold a decided content now, and those with other bytes and its pixels."""

    same_bytes: Sequence[str] = ()
    same_pixels: Sequence[str] = ()


PathsByHash = Mapping[bytes, DecidedPaths]  # by the hash of the bytes of the content


def find_decided_paths(store: Store, decisions: Iterable[Decision]) -> PathsByHash:
    """Find the files that hold each decided content or its pixels, within a catalog snapshot."""
    images = store.catalog.images
    found = dict[bytes, DecidedPaths]()
    for content in (content for decision in decisions for content in decision.contents):
        own = set(images.get_ids([content.hash]).values())
        others = set(images.find_by_pixel_hash(content.pixel_hash)) - own
        paths = [
            [file.path for file in store.catalog.files.find_of_images(ids)] for ids in (own, others)
        ]
        found[content.hash] = DecidedPaths(*paths)
    return found


def serialize_decision(decision: Decision) -> dict[str, str]:
    """Serialize a decision where the photos that it is about are known: its id, kind and origin."""
    return {
        "id": decision.id,
        "kind": decision.kind,
        "author": decision.author,
        "time": decision.time.isoformat(timespec="seconds"),
    }


def serialize_decisions(decisions: Iterable[Decision], paths: PathsByHash) -> dict[str, Any]:
    """Serialize the answer of `decide list`."""
    return make_document(
        {
            "decisions": [
                serialize_decision(decision)
                | {"photos": [_serialize_content(content, paths) for content in decision.contents]}
                for decision in decisions
            ]
        }
    )


def _serialize_content(content: DecidedContent, paths: PathsByHash) -> dict[str, Any]:
    found = paths.get(content.hash, DecidedPaths())
    return {
        "name": content.name,
        "blake3": content.hash.hex(),
        "paths": list(found.same_bytes),
        "same_pixels_at": list(found.same_pixels),
    }


def format_decisions(decisions: Sequence[Decision], paths: PathsByHash) -> Iterable[str]:
    """Yield a line for each decision, then one for each photo: where it is, or its former name."""
    if not decisions:
        yield "no decisions"
    for decision in decisions:
        yield f"{decision.id}  {decision.kind}, {format_origin(decision)}"
        for content in decision.contents:
            name = f"{escape_unprintable(content.name)}, in no file now"
            found = paths.get(content.hash, DecidedPaths())
            files = [escape_unprintable(path) for path in found.same_bytes]
            files += [f"{escape_unprintable(path)} (same pixels)" for path in found.same_pixels]
            yield f"    {files[0] if files else name}" + (
                f" and {pluralize(len(files) - 1, 'more file')}" if len(files) > 1 else ""
            )


def format_new_decisions(new: Sequence[Decision], known: Sequence[Decision]) -> Iterable[str]:
    """Yield a line for each decision that was entered, or was there already."""
    for decision in new:
        yield f"decided: {describe_decision(decision)}"
    for decision in known:
        yield f"decided before {format_origin(decision)}: {describe_decision(decision)}"


# --- rejected files ---


def serialize_rejected(rejected: Iterable[RejectedFile]) -> list[dict[str, Any]]:
    """Serialize the files that hold a rejected photo."""
    return [
        {
            "path": item.path,
            "relation": item.relation,
            "decision": serialize_decision(item.decision),
        }
        for item in rejected
    ]


def format_rejected(rejected: Sequence[RejectedFile]) -> Iterable[str]:
    """Yield a count of the files that hold a rejected photo, and a line for each of the first."""
    if not rejected:
        return
    yield f"{pluralize(len(rejected), 'rejected photo is', 'rejected photos are')} in the library:"
    for item in rejected[:MAX_LISTED_ITEMS]:
        rejection = format_rejection(item.relation, item.decision)
        yield f"  {escape_unprintable(item.path)}   {rejection}"
    if len(rejected) > MAX_LISTED_ITEMS:
        yield f"  and {len(rejected) - MAX_LISTED_ITEMS:,} more (listed in --json)"


def format_rejection(relation: Relation, decision: Decision) -> str:
    """Format that a photo was rejected, perhaps as another file, to which it has `relation`."""
    name = escape_unprintable(decision.contents[0].name)
    return f"rejected {format_origin(decision)} as {name}: {relation}"

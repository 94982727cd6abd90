"""Groups of near-duplicates as JSON and text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from indexes.records import Space
from pipeline.grouping.cluster import Group, RelatedFile
from pipeline.grouping.decisions import format_decision
from pipeline.query.thresholds import Thresholds
from pipeline.report.decisions import serialize_decision
from pipeline.report.document import make_document, serialize_space
from pipeline.report.format import MAX_LISTED_ITEMS, format_bytes, pluralize
from pipeline.report.matches import (
    format_featureless_count,
    format_file,
    format_match,
    format_name,
    serialize_file,
    serialize_match,
)
from pipeline.verify.relation import COPY_RELATIONS, REPORTED_RELATIONS, Relation

# How a person reads the relation of a file that is close to a member of a group, where the name of
# the relation leaves open to what.
_RELATED_LABELS = {
    Relation.SAME_PICTURE: "the same picture as a member",
    Relation.DERIVED: "derived from a member",
    Relation.FRAME_OF: "a frame of a member, or the reverse",
    Relation.PAGE_OF: "a page of a member, or the reverse",
}


def serialize_groups(
    groups: Iterable[Group],
    space: Space | None,
    thresholds: Thresholds | None,
    coverage: dict[str, Any],
    relations: Collection[Relation] = COPY_RELATIONS,
) -> dict[str, Any]:
    """Serialize the answer of `groups` and `dedupe`, which holds members of these relations.

    An empty store has no space.
    """
    return make_document(
        {
            "space": serialize_space(space) if space else None,
            "min_score": thresholds.min_score if thresholds else None,
            "threshold": thresholds.similar if thresholds else None,
            "floor": thresholds.search if thresholds else None,
            "min_agreement": thresholds.min_agreement if thresholds else None,
            "relations": [relation for relation in REPORTED_RELATIONS if relation in relations],
            "groups": [serialize_group(group) for group in groups],
            "coverage": coverage,
        }
    )


def serialize_group(group: Group) -> dict[str, Any]:
    """Serialize a group as one of those in the answer of `groups`."""
    return {
        "id": group.id,
        "keeper": serialize_file(group.keeper) | {"reason": group.reason} | _serialize_own(group),
        "members": [
            serialize_file(member.file) | serialize_match(member) for member in group.members
        ],
        "related": [_serialize_related(related) for related in group.related],
    }


def _serialize_own(group: Group) -> dict[str, Any]:
    """Serialize the decision to keep a keeper, if it decided."""
    return {"decision": serialize_decision(group.decision)} if group.decision else {}


def _serialize_related(related: RelatedFile) -> dict[str, Any]:
    document: dict[str, Any] = {
        "path": related.file.path,
        "member": related.member.path,
        "relation": related.relation,
        "score": round(related.score, 6),
    }
    if related.decision:
        document["decision"] = serialize_decision(related.decision)
    return document


def format_groups(groups: Sequence[Group], featureless: int = 0) -> Iterable[str]:
    """Yield a block of lines for each group, the keeper first, then a summary of all groups.

    `featureless` counts the images that were searched and not compared.
    """
    yield from _format_blocks(groups)
    if featureless:
        yield format_featureless_count(featureless)


def _format_blocks(groups: Sequence[Group]) -> Iterable[str]:
    if not groups:
        yield "no near-duplicates"
        return
    for group in groups:
        yield f"keep  {format_file(group.keeper)}   {group.reason}"
        for member in group.members:
            yield f"      {format_file(member.file)}   {format_match(member)}"
        yield from _format_decided_apart(group)
        yield ""
    members = [member for group in groups for member in group.members]
    counts = f"{pluralize(len(groups), 'group')}, {pluralize(len(members), 'near-duplicate')}"
    to_free = format_bytes(sum(map(sum_reclaimable_bytes, groups)))
    yield f"{counts} besides the keepers, {to_free} to free"
    if related := format_related(groups):
        yield related
    if any(member.relation == Relation.SIMILAR for member in members):
        yield "similar is not proof: pixels could not decide, so check before you delete"


def _format_decided_apart(group: Group) -> Iterable[str]:
    """Yield a line for each file that a decision parts from a group, up to MAX_LISTED_ITEMS."""
    apart = [related for related in group.related if related.decision]
    for related in apart[:MAX_LISTED_ITEMS]:
        assert related.decision is not None  # those that have one
        decided = format_decision(related.decision)
        name = format_name(related.member)
        yield f"apart {format_file(related.file)}   from {name}: {decided}"
    if len(apart) > MAX_LISTED_ITEMS:
        yield f"apart {len(apart) - MAX_LISTED_ITEMS:,} more by decisions (listed in --json)"


def sum_reclaimable_bytes(group: Group) -> int:
    """Sum the bytes of the members of a group that are on disk, with those of their parts.

    A member with a part that the keeper lacks is not to be given up, so it frees nothing.
    """
    return sum(
        member.file.image.size + sum(part.bytes_to_free for part in member.file.parts)
        for member in group.members
        if member.file.is_present and not member.without_counterpart
    )


def format_related(groups: Sequence[Group]) -> str | None:
    """Count the files that are close to members but in none of the groups; None without any.

    Each counts once, by its closest relation.
    """
    grouped = {file.path for group in groups for file in group.files}
    closest = dict[str, Relation]()
    for related in (related for group in groups for related in group.related):
        path = related.file.path
        if path not in grouped:
            relations = related.relation, closest.get(path, related.relation)
            closest[path] = min(relations, key=REPORTED_RELATIONS.index)
    if not closest:
        return None
    counts = Counter(closest.values())
    labels = ", ".join(
        f"{counts[relation]:,} {_RELATED_LABELS.get(relation, relation)}"
        for relation in REPORTED_RELATIONS
        if counts[relation]
    )
    are = "photo is" if len(closest) == 1 else "photos are"
    near = f"{len(closest):,} {are} in none of these groups, but close to one"
    return f"{near}: {labels} (listed in --json)"

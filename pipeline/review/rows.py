"""Groups and components as rows of the cache, and components as they come from there."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Iterator

from blake3 import blake3

from indexes.caches.group_rows import ComponentRow, GroupRow, MemberRow
from pipeline.grouping.cluster import Group
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.grouping.match import Match
from pipeline.query.components import Component
from pipeline.report.groups import serialize_group, sum_reclaimable_bytes
from pipeline.review.filters import fold_name, pack_relations
from pipeline.verify.relation import EXACT_RELATIONS

ID_DIGITS = 32  # hexadecimal, of the id of a listed group
VERSION_BYTES = 16
LINK = struct.Struct("<IId")  # the positions of two images of a component, and their cosine


def make_group_row(group: Group) -> GroupRow:
    """Make the row of a group; its id follows from the hashes of its images alone."""
    hashes = sorted({file.image.hash for file in group.files})
    dates = [file.image.taken_at for file in group.files if file.image.taken_at is not None]
    return GroupRow(
        blake3(b"".join(hashes)).hexdigest()[:ID_DIGITS],
        sum_reclaimable_bytes(group),
        os.fsencode(group.keeper.path),
        group.keeper.image.hash,
        compute_version(group),
        pack_relations(frozenset(member.relation for member in group.members)),
        max(dates, default=None),
        min(map(get_confidence, group.members)),
        json.dumps(serialize_group(group)),
        [_make_member_row(file) for file in group.files],
    )


def compute_version(group: Group) -> bytes:
    """Hash the paths and contents of all files of a group, and their relations to the keeper."""
    keeper = [group.keeper.path, group.keeper.image.hash.hex()]
    members = sorted(
        [member.file.path, member.file.image.hash.hex(), member.relation]
        for member in group.members
    )
    return blake3(json.dumps([keeper, members]).encode("ascii")).digest(VERSION_BYTES)


def get_confidence(member: Match) -> float:
    """Return the probability that a member is a copy: 1 by hashes, and 0 if nothing tells."""
    if member.relation in EXACT_RELATIONS:
        return 1.0
    judgement = member.verdict.judgement if member.verdict else None
    return judgement.copy if judgement else 0.0


def _make_member_row(file: LibraryFile) -> MemberRow:
    name = fold_name(file.path.rpartition("/")[2])
    return MemberRow(os.fsencode(file.path), name, file.image.hash, file.image.pixel_hash)


def make_component_row(component: Component) -> ComponentRow:
    """Make the row of a component."""
    positions = {image: position for position, image in enumerate(component.images)}
    links = (
        LINK.pack(positions[left], positions[right], score)
        for left, right, score in component.links
    )
    return ComponentRow(component.images, b"".join(links))


def parse_components(rows: Iterable[ComponentRow]) -> Iterator[Component]:
    """Yield the components of rows."""
    for images, encoded in rows:
        links = (
            (images[left], images[right], score) for left, right, score in LINK.iter_unpack(encoded)
        )
        yield Component(tuple(images), tuple(links))

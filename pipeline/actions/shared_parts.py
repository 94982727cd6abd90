"""Let a sidecar that several photos share go with the last of them, if all of them go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

from indexes.paths import quote
from pipeline.actions.folders import Refused
from pipeline.actions.plan import LeftFile, Part, PlannedGroup, Victim
from pipeline.actions.planned_files import PlannedFiles
from pipeline.grouping.assets import AssetPart
from pipeline.query.assets import LibraryAssets


def add_shared_parts(
    groups: Sequence[PlannedGroup], assets: LibraryAssets, files: PlannedFiles
) -> tuple[list[PlannedGroup], list[LeftFile]]:
    """Return the groups of a plan with the parts that only victims share, and those that stay.

    A shared part goes with the last of its photos, in the order of the groups, and only if the
    asset of the keeper of that one has a copy of it. A rejected photo has no keeper, so its parts
    need no copy.
    """
    paths = [victim.parts[0].path for group in groups for victim in group.victims]
    order = {path: number for number, path in enumerate(paths)}
    planned, left = list[PlannedGroup](), list[LeftFile]()
    for group in groups:
        victims, copies = list[Victim](), list[Part]()
        for victim in group.victims:
            for part, owners in _list_last_shared(victim, order, assets):
                try:
                    if staying := [owner for owner in owners if owner not in order]:
                        raise Refused(f"belongs to {quote(staying[0])}, too, which stays")
                    own = files.read_part(part)
                    copies += _find_copy(own, victim.parts, group, assets, files)
                except Refused as refused:
                    left.append(LeftFile(part.path, group.id, str(refused)))
                else:
                    victim = _add_part(victim, own, owners)
            victims.append(victim)
        planned.append(_add_to_keeper(replace(group, victims=tuple(victims)), copies))
    return planned, left


def _list_last_shared(
    victim: Victim, order: Mapping[str, int], assets: LibraryAssets
) -> list[tuple[AssetPart, Sequence[str]]]:
    """List the shared parts that no later victim has, each with its photos."""
    path = victim.parts[0].path
    found = list[tuple[AssetPart, Sequence[str]]]()
    for part in assets.get_parts(path):
        if part.is_shared and not part.is_missing:
            owners = assets.get_owners(part.path)
            if max(order.get(owner, -1) for owner in owners) == order[path]:
                found.append((part, owners))
    return found


def _add_part(victim: Victim, part: Part, owners: Sequence[str]) -> Victim:
    others = {*victim.shared_with, *owners} - {victim.parts[0].path}
    return replace(victim, parts=(*victim.parts, part), shared_with=tuple(sorted(others)))


def _find_copy(
    part: Part,
    taken: Sequence[Part],
    group: PlannedGroup,
    assets: LibraryAssets,
    files: PlannedFiles,
) -> list[Part]:
    """Find the copy of a sidecar in the asset of the keeper; raises Refused if there is none.

    `taken` are the parts of the victim until now. Each needs a copy of its own.
    """
    if group.keeper is None:
        return []
    copies = [
        files.read_part(other)
        for other in assets.get_parts(group.keeper.parts[0].path)
        if not other.is_missing
        and other.stat.size == part.stat.size
        and PurePath(other.path).suffix.lower() == PurePath(part.path).suffix.lower()
    ]
    equal = [copy for copy in copies if copy.blake3 == part.blake3]
    if any(copy.inode == part.inode for copy in equal):
        raise Refused("a hard link of a file of the keeper: nothing would be freed")
    if len(equal) <= sum(item.blake3 == part.blake3 for item in taken):
        raise Refused("has no copy beside the keeper")
    return equal


def _add_to_keeper(group: PlannedGroup, copies: Sequence[Part]) -> PlannedGroup:
    if group.keeper is None:
        return group
    known = {part.path for part in group.keeper.parts}
    new = {copy.path: copy for copy in copies if copy.path not in known}
    keeper = replace(group.keeper, parts=(*group.keeper.parts, *new.values()))
    return replace(group, keeper=keeper)

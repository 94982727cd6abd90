"""Plan from the JSON of an earlier `neardup groups`, as far as it still holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from indexes.paths import quote
from pipeline.actions.plan import LeftFile
from pipeline.errors import PlanRefused
from pipeline.grouping.cluster import Group
from pipeline.grouping.match import Match

KEEPER_REASON = "its keeper is not that of the file any more: something changed, or other --keep"
MEMBER_REASON = "not the member that the file lists any more: it changed since"


@dataclass(frozen=True)
class EarlierMember:
    """A member as an earlier answer lists it; `size` in bytes."""

    path: str
    relation: str
    size: int


@dataclass(frozen=True)
class EarlierGroup:
    """A group as an earlier answer lists it; `id` depends on the content of the keeper."""

    id: str
    keeper: str
    members: tuple[EarlierMember, ...]


def read_earlier_groups(path: Path) -> list[EarlierGroup]:
    """Read what `neardup groups --json` printed. Raises PlanRefused if it is anything else."""
    try:
        document = json.loads(path.read_bytes())
        return [_parse_group(group) for group in document["groups"]]
    except OSError as error:
        raise PlanRefused(f"{quote(str(path))} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PlanRefused(
            f"{quote(str(path))} is not the answer of `neardup groups --json`"
        ) from error


def _parse_group(group: dict[str, Any]) -> EarlierGroup:
    members = tuple(
        EarlierMember(str(member["path"]), str(member["relation"]), int(member["bytes"]))
        for member in group["members"]
    )
    return EarlierGroup(str(group["id"]), str(group["keeper"]["path"]), members)


def select_groups(
    groups: Sequence[Group], earlier: Sequence[EarlierGroup]
) -> tuple[list[Group], list[LeftFile]]:
    """Return the groups of now with the members that an earlier answer lists in the same way.

    A member is listed in the same way if it has the same keeper, with the same content, and the
    same relation and size. The others are returned with the reason why they are left.
    """
    by_keeper = {group.keeper.path: group for group in groups}
    selected, left = list[Group](), list[LeftFile]()
    for listed in earlier:
        group = by_keeper.get(listed.keeper)
        if group is None or group.id != listed.id:
            left += [LeftFile(member.path, listed.id, KEEPER_REASON) for member in listed.members]
            continue
        matches = {match.file.path: match for match in group.members}
        kept = list[Match]()
        for member in listed.members:
            match = matches.get(member.path)
            if match is None or (match.relation, match.file.image.size) != (
                member.relation,
                member.size,
            ):
                left.append(LeftFile(member.path, listed.id, MEMBER_REASON))
            else:
                kept.append(match)
        if kept:
            selected.append(replace(group, members=tuple(kept)))
    return selected, left

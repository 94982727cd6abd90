"""Plan from the JSON of an earlier `neardup groups`, as far as it still holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from indexes.paths import quote
from pipeline.actions.plan import LeftFile
from pipeline.errors import PlanRefused
from pipeline.grouping.cluster import Group
from pipeline.grouping.match import Match
from pipeline.verify.relation import COPY_RELATIONS, Relation

KEEPER_REASON = "its keeper is not that of the file any more"
MEMBER_REASON = "not the member that the file lists any more"


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


@dataclass(frozen=True)
class EarlierAnswer:
    """The groups of an earlier answer, and what they were made with.

    `min_score` and `min_agreement` are None where the thresholds of the store counted.
    """

    groups: tuple[EarlierGroup, ...]
    relations: frozenset[Relation] = COPY_RELATIONS
    min_score: float | None = None
    min_agreement: float | None = None


def read_earlier_groups(path: Path) -> EarlierAnswer:
    """Read what `neardup groups --json` printed. Raises PlanRefused if it is anything else."""
    try:
        document = json.loads(path.read_bytes())
        relations = frozenset(map(Relation, document.get("relations", COPY_RELATIONS)))
        numbers = [document.get(name) for name in ("min_score", "min_agreement")]
        min_score, min_agreement = (None if item is None else float(item) for item in numbers)
        groups = tuple(_parse_group(group) for group in document["groups"])
        return EarlierAnswer(groups, relations, min_score, min_agreement)
    except OSError as error:
        raise PlanRefused(f"{quote(str(path))} cannot be read: {error.strerror}") from error
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
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
    keepers = {match.file.path: group.keeper.path for group in groups for match in group.members}
    selected, left = list[Group](), list[LeftFile]()
    for listed in earlier:
        group = by_keeper.get(listed.keeper)
        if group is None or group.id != listed.id:
            reason = f"{KEEPER_REASON}: {_explain(listed.keeper, keepers)}, or other --keep"
            left += [LeftFile(member.path, listed.id, reason) for member in listed.members]
            continue
        matches = {match.file.path: match for match in group.members}
        kept = list[Match]()
        for member in listed.members:
            match = matches.get(member.path)
            if match is None:
                reason = _explain(member.path, keepers)
            elif match.file.image.size != member.size:
                reason = "it changed since"
            elif match.relation != member.relation:
                reason = f"its relation to the keeper is {match.relation} now"
            else:
                kept.append(match)
                continue
            left.append(LeftFile(member.path, listed.id, f"{MEMBER_REASON}: {reason}"))
        if kept:
            selected.append(replace(group, members=tuple(kept)))
    return selected, left


def _explain(path: str, keepers: Mapping[str, str]) -> str:
    """Return what became of a file; `keepers` are those of the members of groups now, by path."""
    return f"a copy of {quote(keepers[path])} now" if path in keepers else "it changed since"

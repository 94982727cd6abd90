"""A plan: which files are to be moved or replaced, for which keepers, and which are left alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from indexes.paths import quote
from indexes.records import FileStat
from pipeline.actions.folders import find_root, is_plain_path, split_path
from pipeline.decode.metadata.fields import FieldName, Fields, is_field_value
from pipeline.errors import PlanRefused
from pipeline.grouping.asset_names import XMP_SUFFIX, parse_name
from pipeline.scan import is_below
from pipeline.verify.relation import Relation


class Action(StrEnum):
    """The action of a plan on each victim."""

    QUARANTINE = "quarantine"
    MOVE = "move"
    HARDLINK = "hardlink"
    REFLINK = "reflink"
    SYMLINK = "symlink"
    TRASH = "trash"
    REPORT = "report"  # none: the plan is only to be read


# Something with the bytes of the victim stands in its place afterwards.
REPLACING_ACTIONS = frozenset({Action.HARDLINK, Action.REFLINK, Action.SYMLINK})
# A rejected photo has no keeper, so nothing can stand in its place, and `undo` has to reach it.
REJECTED_ACTIONS = frozenset({Action.QUARANTINE, Action.MOVE})


@dataclass(frozen=True, slots=True)
class Part:
    """A file as it was when the plan was made; `blake3` is the hash of its bytes, in hex."""

    path: str
    stat: FileStat
    blake3: str


@dataclass(frozen=True, slots=True)
class Keeper:
    """The file that stays, and why it is the one to keep. All its parts stay together."""

    parts: tuple[Part, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Victim:
    """A file that a plan acts on, with its relation to the keeper.

    `confidence` is the probability, by the judge, that it is a copy; None where hashes decide.
    `decided_by`: who decided that it may go. All its parts go together, or none. In a plan of
    rejected photos the relation is that to the rejected one, and the first part is the photo.
    `shared_with` are paths of photos that one of its parts belongs to, too: they have to go before.
    """

    parts: tuple[Part, ...]
    relation: Relation
    confidence: float | None
    reason: str
    decided_by: str = "neardup"
    shared_with: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FieldSource:
    """A value of a field, and the file that it comes from."""

    name: FieldName
    value: str
    path: str


@dataclass(frozen=True, slots=True)
class Merge:
    """The fields that a keeper lacks and its victims have, for an XMP sidecar of the keeper.

    `before` is the sidecar as it is, None if there is none yet. `passed_over` are values that
    another victim had first.
    """

    sidecar: str
    before: Part | None
    fields: tuple[FieldSource, ...]
    passed_over: tuple[FieldSource, ...] = ()

    def get_fields(self) -> Fields:
        """Return the values to add, by the names of their fields."""
        names = dict.fromkeys(field.name for field in self.fields)
        return {
            name: tuple(field.value for field in self.fields if field.name is name)
            for name in names
        }

    @property
    def summary(self) -> str:
        """The fields in words: "date, place, 3 keywords"."""
        return ", ".join(
            f"{len(values)} {name}s" if len(values) > 1 else name
            for name, values in self.get_fields().items()
        )


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """A keeper and its victims. `id` is that of the group of near-duplicates.

    In a plan of rejected photos there is no keeper, and `id` is that of the decision. `merge` is
    done before a victim goes.
    """

    id: str
    keeper: Keeper | None
    victims: tuple[Victim, ...]
    merge: Merge | None = None

    @property
    def keeper_parts(self) -> tuple[Part, ...]:
        """The parts of the keeper; none without one."""
        return self.keeper.parts if self.keeper else ()


@dataclass(frozen=True, slots=True)
class LeftFile:
    """A file of a group that the plan does not act on, and why, in words."""

    path: str
    group: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """The content of a plan file.

    `created` is in UTC, ISO 8601. `store_id` and `ingest_run` name the store and its newest run at
    that time. `destination` is the folder of MOVE. `roots` are the folders that all files lie
    below. `library_files` counts the files of the store. `warnings` are for people. `rejected`: the
    victims are rejected photos, and a decision stands for each in place of a keeper.
    """

    created: str
    store_id: str
    ingest_run: str
    action: Action
    destination: str | None
    relations: tuple[Relation, ...]
    min_confidence: float | None
    roots: tuple[str, ...]
    protected: tuple[str, ...]
    library_files: int
    bytes_to_free: int
    groups: tuple[PlannedGroup, ...]
    left: tuple[LeftFile, ...]
    warnings: tuple[str, ...]
    rejected: bool = False

    @property
    def victim_count(self) -> int:
        """The number of files that the plan acts on."""
        return sum(len(victim.parts) for group in self.groups for victim in group.victims)

    def iter_parts(self) -> Iterator[tuple[Part, bool]]:
        """Yield each part of a keeper or victim, and whether it is one of a victim."""
        for group in self.groups:
            yield from ((part, False) for part in group.keeper_parts)
            yield from ((part, True) for victim in group.victims for part in victim.parts)


def require_applicable(
    plan: Plan, store_id: str, roots: Sequence[str], protected: Sequence[str]
) -> None:
    """Raise PlanRefused unless a plan is one of this store, and safe by what it says of itself.

    `roots` are the store's folders. Every path must lie below one of them, no victim in a protected
    folder or be a keeper, by path or by inode. Only identical bytes may be replaced. Groups have a
    keeper, but for those of a plan of rejected photos, which moves and does nothing else.
    """
    if plan.store_id != store_id:
        raise PlanRefused("the plan was made from another store; name that one with --store")
    if plan.action is Action.REPORT:
        raise PlanRefused("the plan is a report, to be read; make one with another --action")
    if plan.action is Action.MOVE and not is_plain_path(plan.destination or ""):
        raise PlanRefused(f"the plan moves to {quote(plan.destination or '')}, which is no path")
    if plan.rejected and plan.action not in REJECTED_ACTIONS:
        raise PlanRefused(f"rejected photos are only moved, and the plan is a {plan.action}")
    keepers, victims = set[str](), set[str]()
    inodes: dict[bool, set[tuple[int, int]]] = {True: set(), False: set()}
    for part, is_victim in plan.iter_parts():
        if find_root(part.path, roots) is None:
            raise PlanRefused(f"the plan names {quote(part.path)}, below none of the store's roots")
        if is_victim and is_below(part.path, protected):
            raise PlanRefused(
                f"{quote(part.path)} is in a folder that was protected since; make a new plan"
            )
        if is_victim and part.path in victims:
            raise PlanRefused(f"the plan names {quote(part.path)} twice")
        (victims if is_victim else keepers).add(part.path)
        inodes[is_victim].add((part.stat.device, part.stat.inode))
    if both := keepers & victims:
        raise PlanRefused(f"the plan keeps {quote(min(both))} and would move it; make a new plan")
    if inodes[True] & inodes[False]:
        raise PlanRefused("a victim of the plan is a hard link of a keeper; make a new plan")
    for group in plan.groups:
        if plan.rejected and group.keeper is not None:
            raise PlanRefused("the plan is one of rejected photos, and has a keeper")
        for victim in group.victims:
            if not victim.parts:
                raise PlanRefused("the plan has a victim without a file")
            if not plan.rejected:
                _require_sound(plan.action, group.keeper_parts, victim)
    _require_sound_merges(plan, protected, victims)


def _require_sound(action: Action, keeper_parts: Sequence[Part], victim: Victim) -> None:
    if not keeper_parts:
        raise PlanRefused("the plan has a group without a keeper")
    kept = {part.blake3 for part in keeper_parts}
    is_identical = all(part.blake3 in kept for part in victim.parts)
    if victim.relation is Relation.IDENTICAL_BYTES and not is_identical:
        path = quote(victim.parts[0].path)
        raise PlanRefused(f"the plan says that {path} has the keeper's bytes, and it has others")
    if action in REPLACING_ACTIONS and not is_identical:
        raise PlanRefused(f"only identical bytes can be replaced by a {action}")


def _require_sound_merges(plan: Plan, protected: Sequence[str], victims: Collection[str]) -> None:
    """Raise PlanRefused unless each merge is into a sidecar of its keeper, and of no other."""
    sidecars = set[str]()
    for group in plan.groups:
        merge = group.merge
        if merge is None:
            continue
        path = merge.sidecar
        keeper = group.keeper_parts[0].path if group.keeper_parts else ""
        if not is_sidecar_of(path, keeper):
            raise PlanRefused(f"the plan writes to {quote(path)}, no XMP sidecar of a keeper")
        if is_below(path, protected):
            raise PlanRefused(f"{quote(path)} is in a folder that is protected; make a new plan")
        if path in sidecars or path in victims or not group.victims:
            raise PlanRefused(f"the plan writes to {quote(path)} and has another use for it")
        sidecars.add(path)
        is_one_value = all(
            name is FieldName.KEYWORD or len(values) == 1
            for name, values in merge.get_fields().items()
        )
        is_sound = all(is_field_value(field.name, field.value) for field in merge.fields)
        if not (merge.fields and is_one_value and is_sound):
            raise PlanRefused(f"the plan writes to {quote(path)} what is no metadata")
        if merge.before is not None and merge.before.path != path:
            raise PlanRefused(f"the plan writes to {quote(path)} and names another sidecar")


def is_sidecar_of(path: str, keeper: str) -> bool:
    """Tell if a path is that of an XMP sidecar of a photo: IMG_1.jpg.xmp or IMG_1.xmp, any case."""
    (folder, name), (keeper_folder, _) = split_path(path), split_path(keeper)
    photo = parse_name(keeper)
    sidecar = parse_name(name)
    return (
        is_plain_path(path)
        and folder == keeper_folder
        and sidecar.suffix == XMP_SUFFIX
        and sidecar.stem in (photo.whole, photo.stem)
    )

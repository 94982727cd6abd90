"""A plan: which files are to be moved or replaced, for which keepers, and which are left alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from indexes.records import FileStat
from pipeline.decode.metadata.fields import FieldName, Fields
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
UNWANTED_REASON = "not among the relations asked for"
TRASH_WARNING = (
    "`neardup undo` cannot take files out of the trash; restore them with the file manager"
)


@dataclass(frozen=True, slots=True)
class Part:
    """A file as it was when the plan was made; `blake3` is the hash of its bytes, in hex."""

    path: str
    stat: FileStat
    blake3: str

    @property
    def inode(self) -> tuple[int, int]:
        """The device and inode: equal for hard links of one file."""
        return self.stat.device, self.stat.inode


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

    @property
    def is_unwanted(self) -> bool:
        """True if it could only be left, because its relation was not asked for."""
        return self.reason.endswith(UNWANTED_REASON)


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

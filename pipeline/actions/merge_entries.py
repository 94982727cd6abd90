"""A merge in a journal: the sidecar of a keeper to which the fields of its victims are added."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from pipeline.actions.folder_times import FolderTimes, parse_times
from pipeline.actions.plan import Part
from pipeline.actions.plan_file import parse_part


class MergeState(StrEnum):
    """The state of a merge: the last event of the journal about it."""

    INTENDED = "merge intended"  # what was done of it is not known
    DONE = "merge done"  # the sidecar has the fields, and was read back
    REVERTED = "merge reverted"  # the sidecar is as it was, or there is none as before
    STUCK = "merge stuck"  # another program wrote the sidecar meanwhile
    UNDO_INTENDED = "merge undo intended"
    UNDONE = "merge undone"
    PURGE_INTENDED = "merge purge intended"
    PURGED = "merge purged"  # the sidecar of before is deleted from quarantine


# States that a kill left.
UNSETTLED_MERGE_STATES = frozenset(
    {MergeState.INTENDED, MergeState.UNDO_INTENDED, MergeState.PURGE_INTENDED}
)
# States in which the sidecar has, or may have, the fields.
MERGED_STATES = UNSETTLED_MERGE_STATES | {MergeState.DONE, MergeState.STUCK}


@dataclass(frozen=True, slots=True)
class MergeEntry:
    """A merge. `number` is that of the first victim that it is for, of `victim_count` parts.

    `before` is the sidecar that was there, None for a new one; `after` the blake3, in hex, of what
    takes its place. `base` is the folder, which exists, below which `target` lies: where the
    sidecar of before is kept. `times` are of the folder of the sidecar and of the base;
    `recorded_ns` is when the state was written.
    """

    number: int
    victim_count: int
    sidecar: str
    before: Part | None
    after: str
    base: str
    target: str
    state: MergeState = MergeState.INTENDED
    detail: str = ""
    times: FolderTimes | None = None
    recorded_ns: int = 0

    @property
    def pending_since_ns(self) -> int | None:
        """The time of an intent without an outcome; None if there is none."""
        return self.recorded_ns if self.state in UNSETTLED_MERGE_STATES else None

    @property
    def bytes_held(self) -> int:
        """The bytes that the merge holds in quarantine."""
        is_held = self.before is not None and self.state in MERGED_STATES
        return self.before.stat.size if self.before and is_held else 0


def serialize_merge(merge: MergeEntry) -> dict[str, Any]:
    """Serialize a merge as an intent."""
    document = asdict(merge)
    del document["state"], document["detail"], document["recorded_ns"]
    return {"event": MergeState.INTENDED.value, **document}


def parse_merge(document: dict[str, Any]) -> MergeEntry:
    """Make a merge of an intent. Raises ValueError, TypeError or KeyError for another form."""
    before = document["before"]
    return MergeEntry(
        int(document["number"]),
        int(document["victim_count"]),
        str(document["sidecar"]),
        None if before is None else parse_part(before),
        str(document["after"]),
        str(document["base"]),
        str(document["target"]),
        times=parse_times(document.get("times")),
    )

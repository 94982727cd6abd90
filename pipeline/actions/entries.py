"""Entries of a journal: the files that a run moves or replaces, and what became of each."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from pipeline.actions.folder_times import FolderTimes, parse_times
from pipeline.actions.folders import split_path
from pipeline.actions.plan import REPLACING_ACTIONS, Action, Part
from pipeline.actions.plan_file import parse_part


class State(StrEnum):
    """The state of an entry: the last event of the journal about it."""

    INTENDED = "intended"  # to be moved or replaced; what was done of it is not known
    DONE = "done"  # done, verified, and the keeper was still there
    REVERTED = "reverted"  # as before, or never changed
    STUCK = "stuck"  # found wrong after it was done, and not reversed: its place was taken
    UNDO_INTENDED = "undo intended"
    UNDONE = "undone"
    PURGE_INTENDED = "purge intended"
    PURGED = "purged"  # the file of before is deleted from quarantine


# States that a kill left: the act may have begun, or be done.
UNSETTLED_STATES = frozenset({State.INTENDED, State.UNDO_INTENDED, State.PURGE_INTENDED})
# States of an entry whose file of before is, or may be, in quarantine.
MOVED_STATES = UNSETTLED_STATES | {State.DONE, State.STUCK}
_MERGE_PREFIX = "merge "  # of the events of merges


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that a run acts on: a part of a victim, or the sidecar of a keeper (a merge).

    `number` is that of the part in the plan; a merge has that of the first part that it is for, of
    `victim_count`. `before` is the file that was at `path`; None for a new sidecar. `base` is the
    folder that exists before the run, below which `target` lies: where the file of before is moved.
    Both are empty for the trash. `keepers` are all parts of the keeper of a victim. `rejected` is
    the blake3, in hex, of the rejected photo that the victim is, or belongs to; then there is no
    keeper, and `group` is the id of the decision. `after` is the blake3, in hex, of what a merge
    writes; None for a victim. `device` is that of the folder of the path then; None in older
    journals. `missing` are the folders of the target below the base that were not there before the
    run moved the file, of MOVE only. `times` are of the folder of the path and of the base;
    `recorded_ns` is when the state was written, `done_ns` when the run was done with it, 0 before.
    """

    number: int
    path: str
    before: Part | None
    action: Action
    base: str
    target: str
    group: str = ""
    keepers: tuple[Part, ...] = ()
    rejected: str | None = None
    after: str | None = None
    victim_count: int = 0
    device: int | None = None
    missing: tuple[str, ...] = ()
    state: State = State.INTENDED
    detail: str = ""
    times: FolderTimes | None = None
    recorded_ns: int = 0
    done_ns: int = 0

    @property
    def is_merge(self) -> bool:
        """True if fields are added to a sidecar, False for a victim."""
        return self.after is not None

    @property
    def is_replaced(self) -> bool:
        """True if something else stands at the path afterwards."""
        return self.is_merge or self.action in REPLACING_ACTIONS

    @property
    def kind(self) -> str:
        """The first word of the failpoints of the entry."""
        return "merge" if self.is_merge else "action"

    @property
    def victim(self) -> Part:
        """The file that was at the path, where there was one."""
        assert self.before is not None
        return self.before

    def stamp(self, moment_ns: int) -> Entry:
        """Return the entry with the time at which its state was written."""
        is_done_now = self.state is State.DONE and not self.done_ns
        done_ns = moment_ns if is_done_now else self.done_ns
        return replace(self, recorded_ns=moment_ns, done_ns=done_ns)

    @property
    def known_device(self) -> int | None:
        """The device of the folder of the path, as far as the journal tells."""
        if self.device is None and self.before is not None:
            return self.before.stat.device
        return self.device

    @property
    def timed_folders(self) -> tuple[str, ...]:
        """The folder of the path, and the base if its times are restored, too: not a user's."""
        folder = split_path(self.path)[0]
        is_restored = self.base and self.action is not Action.MOVE
        return (folder, self.base) if is_restored else (folder,)

    @property
    def pending_since_ns(self) -> int | None:
        """The time of an intent without an outcome; None if there is none."""
        return self.recorded_ns if self.state in UNSETTLED_STATES else None

    @property
    def bytes_held(self) -> int:
        """The bytes that the entry holds in quarantine."""
        is_elsewhere = self.action in (Action.MOVE, Action.TRASH)
        is_held = self.before is not None and self.state in MOVED_STATES and not is_elsewhere
        return self.victim.stat.size if is_held else 0


def name_event(entry: Entry, state: State) -> str:
    """Return the word for a new state of an entry in a journal."""
    return f"{_MERGE_PREFIX}{state}" if entry.is_merge else state.value


def parse_event(event: str) -> tuple[State, bool]:
    """Return the state that an event leads to, and whether it is one of a merge.

    Raises ValueError for another word.
    """
    return State(event.removeprefix(_MERGE_PREFIX)), event.startswith(_MERGE_PREFIX)


def serialize_intent(entry: Entry) -> dict[str, Any]:
    """Serialize an entry as an intent."""
    names: tuple[str, ...] = ("number", "group", "keepers", "base", "target", "rejected", "missing")
    renamed = {"victim": "before"}
    if entry.is_merge:
        names = ("number", "victim_count", "before", "after", "base", "target")
        renamed = {"sidecar": "path"}
    document = asdict(entry)
    fields = {name: document[name] for name in (*names, "device", "times")}
    fields |= {name: document[source] for name, source in renamed.items()}
    return {"event": name_event(entry, State.INTENDED), **fields}


def parse_intent(document: dict[str, Any], action: Action) -> Entry:
    """Make an entry of an intent of a run with an action.

    Raises ValueError, TypeError or KeyError for another form.
    """
    _, is_merge = parse_event(document["event"])
    before = document["before" if is_merge else "victim"]
    part = None if before is None else parse_part(before)
    number, base, target = (document[name] for name in ("number", "base", "target"))
    times, device = parse_times(document.get("times")), document.get("device")
    device = None if device is None else int(device)
    if is_merge:
        return Entry(
            int(number),
            str(document["sidecar"]),
            part,
            Action.QUARANTINE,
            str(base),
            str(target),
            after=str(document["after"]),
            victim_count=int(document["victim_count"]),
            device=device,
            times=times,
        )
    if part is None:
        raise ValueError("a victim without a file")
    return Entry(
        int(number),
        part.path,
        part,
        action,
        str(base),
        str(target),
        str(document["group"]),
        tuple(map(parse_part, document["keepers"])),
        _parse_rejected(document.get("rejected")),
        device=device,
        missing=tuple(map(str, document.get("missing", ()))),
        times=times,
    )


def _parse_rejected(hash_: str | None) -> str | None:
    """Check that a hash is one in hex: a journal can be edited. Raises ValueError or TypeError."""
    return None if hash_ is None else bytes.fromhex(hash_).hex()

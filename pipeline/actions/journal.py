"""The journal of a run: every intent is on disk before its act, and every outcome after it.

A journal is a file of JSON Lines in the store. Lines are only added; each has its number and its
checksum. A process that is killed leaves an intent without an outcome, or half a line at the end.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from indexes.durable.files import sync_folder
from indexes.paths import JOURNAL_NAME, quote
from pipeline.actions.checked_json import parse_checked
from pipeline.actions.checked_lines import CheckedLines, format_line, iter_lines
from pipeline.actions.folder_times import FolderTimes, parse_times
from pipeline.actions.merge_entries import (
    MergeEntry,
    MergeState,
    parse_merge,
    serialize_merge,
)
from pipeline.actions.plan import Action, Part
from pipeline.actions.plan_file import parse_part
from pipeline.errors import ActionRecordDamaged, RunNotFound

JOURNAL_SUFFIX = ".jsonl"
JOURNAL_SCHEMA_VERSION = 1


class State(StrEnum):
    """The state of an entry: the last event of the journal about it."""

    INTENDED = "intended"  # to be moved; what was done of it is not known
    DONE = "done"  # moved, verified, and its keeper was still there
    REVERTED = "reverted"  # back at its path, or never moved
    STUCK = "stuck"  # moved, found wrong, and not moved back: its place was taken
    UNDO_INTENDED = "undo intended"
    UNDONE = "undone"
    PURGE_INTENDED = "purge intended"
    PURGED = "purged"


# States of an entry whose victim is, or may be, in quarantine.
MOVED_STATES = frozenset(
    {State.INTENDED, State.DONE, State.STUCK, State.UNDO_INTENDED, State.PURGE_INTENDED}
)
# States of an entry whose act may have begun, or be done.
INTENT_STATES = frozenset({State.INTENDED, State.UNDO_INTENDED, State.PURGE_INTENDED})


@dataclass(frozen=True, slots=True)
class Entry:
    """A victim, or a part of one, in a journal, with all parts of its keeper.

    `base` is the folder that exists before the run, below which `target` lies: where the victim is
    moved. Both are empty for the trash. `rejected` is the blake3, in hex, of the rejected photo
    that the victim is, or belongs to; then there is no keeper, and `group` is the id of the
    decision. `times` are of its folders; `recorded_ns` is when its state was written.
    """

    number: int
    group: str
    action: Action
    victim: Part
    keepers: tuple[Part, ...]
    base: str
    target: str
    rejected: str | None = None
    state: State = State.INTENDED
    detail: str = ""
    times: FolderTimes | None = None
    recorded_ns: int = 0

    @property
    def pending_since_ns(self) -> int | None:
        """The time of an intent without an outcome; None if there is none."""
        return self.recorded_ns if self.state in INTENT_STATES else None


@dataclass(frozen=True)
class RunHeader:
    """The first line of a journal. `started` is in UTC, ISO 8601."""

    run: str
    started: str
    store_id: str
    action: Action
    roots: tuple[str, ...]
    destination: str | None


@dataclass(frozen=True)
class JournalContent:
    """A journal as it was read: its entries by number, each in its last state, and its merges.

    A merge has the number of the first victim that it is for.
    """

    header: RunHeader
    entries: dict[int, Entry]
    merges: dict[int, MergeEntry]


class Journal:
    """A journal that is open for adding lines; use it as a context manager."""

    def __init__(self, path: Path, content: JournalContent) -> None:
        """Open the file, whose content is `content`."""
        self.header, self.entries, self.merges = content.header, content.entries, content.merges
        self._lines = CheckedLines(path)

    def __enter__(self) -> Journal:
        """Return the journal itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self._lines.close()

    def intend(self, entry: Entry) -> None:
        """Write that a victim will be moved. Raises DiskFull."""
        known = self.entries.get(entry.number)
        assert known is None or known.state not in MOVED_STATES
        self._lines.append(_serialize_entry(entry))
        self.entries[entry.number] = replace(entry, recorded_ns=time.time_ns())

    def record(
        self, entry: Entry, state: State, detail: str = "", times: FolderTimes | None = None
    ) -> None:
        """Write a new state of an entry. Raises DiskFull."""
        self._append_event(state.value, entry.number, detail, times)
        kept, now = times or entry.times, time.time_ns()
        entry = replace(entry, state=state, detail=detail, times=kept, recorded_ns=now)
        self.entries[entry.number] = entry

    def intend_merge(self, merge: MergeEntry) -> None:
        """Write that fields will be added to a sidecar. Raises DiskFull."""
        self._lines.append({**serialize_merge(merge), "time": format_now()})
        self.merges[merge.number] = replace(merge, recorded_ns=time.time_ns())

    def record_merge(
        self,
        merge: MergeEntry,
        state: MergeState,
        detail: str = "",
        times: FolderTimes | None = None,
    ) -> None:
        """Write a new state of a merge. Raises DiskFull."""
        self._append_event(state.value, merge.number, detail, times)
        kept, now = times or merge.times, time.time_ns()
        merge = replace(merge, state=state, detail=detail, times=kept, recorded_ns=now)
        self.merges[merge.number] = merge

    def _append_event(
        self, event: str, number: int, detail: str, times: FolderTimes | None
    ) -> None:
        line: dict[str, Any] = {"event": event, "number": number, "time": format_now()}
        if detail:
            line["detail"] = detail
        if times:
            line["times"] = asdict(times)
        self._lines.append(line)


def format_now() -> str:
    """Format the present moment in UTC, ISO 8601, to the microsecond: it orders runs."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def open_journal(store_folder: Path, header: RunHeader) -> Journal:
    """Open the journal of a run; create it, durably, if the run has none yet."""
    folder = store_folder / JOURNAL_NAME
    path = folder / f"{header.run}{JOURNAL_SUFFIX}"
    if not _has_header(path):
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(store_folder)
        first = {"line": 0, "schema_version": JOURNAL_SCHEMA_VERSION, **asdict(header)}
        # No other process writes here: the caller has the lock of the store's actions.
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(format_line(first))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(folder)
    return reopen_journal(path)


def reopen_journal(path: Path) -> Journal:
    """Open a journal that exists, to add lines. Raises ActionRecordDamaged."""
    return Journal(path, read_whole_journal(path))


def list_journals(store_folder: Path) -> list[Path]:
    """List the journals of a store, the oldest run first. Raises ActionRecordDamaged.

    One without a whole line is left out: its run was killed before it did anything.
    """
    paths = (store_folder / JOURNAL_NAME).glob(f"*{JOURNAL_SUFFIX}")
    return sorted(filter(_has_header, paths), key=lambda path: (_read_start(path), path.name))


def _read_start(path: Path) -> str:
    with path.open("rb") as file:
        try:
            return _parse_header(parse_checked(file.readline()), path).started
        except (ValueError, TypeError, KeyError) as error:
            raise _explain_damage(path, error) from error


def _has_header(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        return file.readline().endswith(b"\n")


def find_journal(store_folder: Path, run: str) -> Path:
    """Return the journal of a run; `last` is the newest. Raises RunNotFound."""
    journals = list_journals(store_folder)
    if run == "last" and journals:
        return journals[-1]
    for path in journals:
        if path.name == f"{run}{JOURNAL_SUFFIX}":
            return path
    raise RunNotFound(f"there is no run {quote(run)}; `neardup runs` lists them")


def read_journal(path: Path) -> tuple[RunHeader, dict[int, Entry]]:
    """Read a journal without its merges: its header and its entries. Raises ActionRecordDamaged."""
    content = read_whole_journal(path)
    return content.header, content.entries


def read_whole_journal(path: Path) -> JournalContent:
    """Read a journal. Half a line at the end is passed over.

    Raises ActionRecordDamaged for anything else that was not written so.
    """
    try:
        documents = list(iter_lines(path.read_bytes()))
        content = JournalContent(_parse_header(documents[0], path), {}, {})
        for document in documents[1:]:
            number, event = document["number"], document["event"]
            moment_ns = int(datetime.fromisoformat(document["time"]).timestamp() * 1e9)
            if event == State.INTENDED:
                entry = _parse_entry(document, content.header.action)
                content.entries[number] = replace(entry, recorded_ns=moment_ns)
            elif event == MergeState.INTENDED:
                content.merges[number] = replace(parse_merge(document), recorded_ns=moment_ns)
            elif event in list(MergeState):
                content.merges[number] = replace(
                    content.merges[number],
                    state=MergeState(event),
                    recorded_ns=moment_ns,
                    **_parse_outcome(document, content.merges[number].times),
                )
            else:
                content.entries[number] = replace(
                    content.entries[number],
                    state=State(event),
                    recorded_ns=moment_ns,
                    **_parse_outcome(document, content.entries[number].times),
                )
    except (OSError, ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise _explain_damage(path, error) from error
    return content


def _parse_outcome(document: dict[str, Any], known: FolderTimes | None) -> dict[str, Any]:
    times = parse_times(document.get("times")) or known
    return {"detail": str(document.get("detail", "")), "times": times}


def _explain_damage(path: Path, error: Exception) -> ActionRecordDamaged:
    return ActionRecordDamaged(
        f"{path} is damaged ({getattr(error, 'strerror', None) or error}); the files of the run are"
        " in folders .neardup-quarantine, each below the folder that it came from; put them where"
        " they belong, and move the journal away"
    )


def _parse_header(document: dict[str, Any], path: Path) -> RunHeader:
    if document["schema_version"] != JOURNAL_SCHEMA_VERSION:
        raise ValueError("it was written by another version of neardup")
    if document["run"] + JOURNAL_SUFFIX != path.name:
        raise ValueError("it is the journal of another run")
    return RunHeader(
        str(document["run"]),
        str(document["started"]),
        str(document["store_id"]),
        Action(document["action"]),
        tuple(map(str, document["roots"])),
        document["destination"],
    )


def _parse_rejected(hash_: str | None) -> str | None:
    """Check that a hash is one in hex: a journal can be edited. Raises ValueError or TypeError."""
    return None if hash_ is None else bytes.fromhex(hash_).hex()


def _serialize_entry(entry: Entry) -> dict[str, Any]:
    document = asdict(entry)
    del document["state"], document["detail"], document["action"], document["recorded_ns"]
    return {"event": State.INTENDED.value, "time": format_now(), **document}


def _parse_entry(document: dict[str, Any], action: Action) -> Entry:
    return Entry(
        int(document["number"]),
        str(document["group"]),
        action,
        parse_part(document["victim"]),
        tuple(map(parse_part, document["keepers"])),
        str(document["base"]),
        str(document["target"]),
        _parse_rejected(document.get("rejected")),
        times=parse_times(document.get("times")),
    )

"""The journal of a run: every intent is on disk before its act, and every outcome after it.

A journal is a file of JSON Lines in the store. Lines are only added; each has its number and its
checksum. A process that is killed leaves an intent without an outcome, or half a line at the end.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from indexes.durable.files import DISK_FULL_ERRNOS, sync_folder
from indexes.errors import DiskFull
from indexes.paths import JOURNAL_NAME, quote
from pipeline.actions.checked_json import add_checksum, parse_checked
from pipeline.actions.folder_times import FolderTimes, parse_times
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


class Journal:
    """A journal that is open for adding lines; use it as a context manager."""

    def __init__(self, path: Path, header: RunHeader, entries: dict[int, Entry]) -> None:
        """Open the file; cut off half a line at its end, which says nothing."""
        self.header, self.entries = header, entries
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        content = path.read_bytes()
        self._line_count = content.count(b"\n")
        os.ftruncate(self._descriptor, content.rfind(b"\n") + 1)

    def __enter__(self) -> Journal:
        """Return the journal itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def intend(self, entry: Entry) -> None:
        """Write that a victim will be moved. Raises DiskFull."""
        known = self.entries.get(entry.number)
        assert known is None or known.state not in MOVED_STATES
        self._append(_serialize_entry(entry))
        self.entries[entry.number] = replace(entry, recorded_ns=time.time_ns())

    def record(
        self, entry: Entry, state: State, detail: str = "", times: FolderTimes | None = None
    ) -> None:
        """Write a new state of an entry. Raises DiskFull."""
        line: dict[str, Any] = {"event": state.value, "number": entry.number, "time": format_now()}
        if detail:
            line["detail"] = detail
        if times:
            line["times"] = asdict(times)
        self._append(line)
        kept, now = times or entry.times, time.time_ns()
        entry = replace(entry, state=state, detail=detail, times=kept, recorded_ns=now)
        self.entries[entry.number] = entry

    def _append(self, document: dict[str, Any]) -> None:
        """Add a line, and return when it is on disk."""
        line = _format_line({"line": self._line_count, **document})
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
            os.fsync(self._descriptor)
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise DiskFull(
                    f"no room for {self._path}: {error.strerror}; free some space and run the same"
                    " command again, no photo is lost"
                ) from error
            raise
        self._line_count += 1


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
            file.write(_format_line(first))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(folder)
    return reopen_journal(path)


def reopen_journal(path: Path) -> Journal:
    """Open a journal that exists, to add lines. Raises ActionRecordDamaged."""
    return Journal(path, *read_journal(path))


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
    """Read a journal: its header, and its entries by number, each in its last state.

    Half a line at the end is passed over. Raises ActionRecordDamaged for anything else that was
    not written so.
    """
    try:
        *lines, _ = path.read_bytes().split(b"\n")
        documents = list(_parse_lines(lines))
        header = _parse_header(documents[0], path)
        entries = dict[int, Entry]()
        for document in documents[1:]:
            moment_ns = int(datetime.fromisoformat(document["time"]).timestamp() * 1e9)
            if document["event"] == State.INTENDED:
                entry = _parse_entry(document, header.action)
            else:
                known = entries[document["number"]]
                state, detail = State(document["event"]), str(document.get("detail", ""))
                times = parse_times(document.get("times")) or known.times
                entry = replace(known, state=state, detail=detail, times=times)
            entries[entry.number] = replace(entry, recorded_ns=moment_ns)
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise _explain_damage(path, error) from error
    return header, entries


def _explain_damage(path: Path, error: Exception) -> ActionRecordDamaged:
    return ActionRecordDamaged(
        f"{path} is damaged ({getattr(error, 'strerror', None) or error}); the files of the run are"
        " in folders .neardup-quarantine, each below the folder that it came from; put them where"
        " they belong, and move the journal away"
    )


def _parse_lines(lines: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines):
        document = parse_checked(line)
        if document["line"] != number:
            raise ValueError(f"line {number + 1} is not the one that was written there")
        yield document


def _format_line(document: dict[str, Any]) -> bytes:
    return json.dumps(add_checksum(document)).encode("ascii") + b"\n"


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

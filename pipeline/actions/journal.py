"""The journal of a run: every intent is on disk before its act, and every outcome after it.

A journal is a file of JSON Lines in the store. Lines are only added; each has its number and its
checksum. A process that is killed leaves an intent without an outcome, or half a line at the end.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from indexes.durable.files import sync_folder
from indexes.paths import JOURNAL_NAME, quote
from pipeline.actions.checked_json import parse_checked
from pipeline.actions.checked_lines import CheckedLines, format_line, iter_lines
from pipeline.actions.entries import (
    MOVED_STATES,
    Entry,
    State,
    name_event,
    parse_event,
    parse_intent,
    serialize_intent,
)
from pipeline.actions.folder_times import FolderHistory, FolderTimes, parse_times
from pipeline.actions.plan import Action
from pipeline.errors import ActionRecordDamaged, RunNotFound

JOURNAL_SUFFIX = ".jsonl"
JOURNAL_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RunHeader:
    """The first line of a journal. `started` is in UTC, ISO 8601."""

    run: str
    started: str
    store_id: str
    action: Action
    roots: tuple[str, ...]
    destination: str | None


@dataclass
class JournalContent:
    """A journal as it was read: its victims and merges by number, each in its last state.

    `former` are entries that were reversed, and acted on again since: their folders changed, too.
    """

    header: RunHeader
    victims: dict[int, Entry]
    merges: dict[int, Entry]
    former: list[Entry] = field(default_factory=list)

    def list_all(self) -> list[Entry]:
        """List victims and merges in the order of the run: a merge before its first victim."""
        both = (*self.merges.values(), *self.victims.values())
        return sorted(both, key=lambda entry: (entry.number, not entry.is_merge))

    def list_victims_of(self, merge: Entry) -> list[Entry]:
        """List the victims that a merge is for, as far as the run came."""
        numbers = range(merge.number, merge.number + merge.victim_count)
        if merge.victim_count > len(self.victims):  # the run was cut off, or the journal edited
            return [victim for number, victim in self.victims.items() if number in numbers]
        return [self.victims[number] for number in numbers if number in self.victims]

    def get_all_by_number(self, entry: Entry) -> dict[int, Entry]:
        """Return the merges if the entry is one, else the victims."""
        return self.merges if entry.is_merge else self.victims


class Journal(JournalContent):
    """A journal that is open for adding lines; use it as a context manager."""

    def __init__(self, path: Path, content: JournalContent) -> None:
        """Open the file, whose content is `content`."""
        super().__init__(content.header, content.victims, content.merges, content.former)
        self._lines = CheckedLines(path)
        self.history = FolderHistory()
        # Folders at the destination that the run made: of MOVE, and others may be of the user.
        self.made_folders = set[str]()
        for entry in self.former:
            self.made_folders.update(entry.missing)
            self.add_times(entry, entry.times)
        for entry in self.list_all():
            self._follow(entry, 1)

    def __enter__(self) -> Journal:
        """Return the journal itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self._lines.close()

    def intend(self, entry: Entry) -> Entry:
        """Write that an entry will be acted on, and return it as it is then. Raises DiskFull."""
        known = self.get_all_by_number(entry).get(entry.number)
        assert known is None or known.state not in MOVED_STATES
        self._lines.append({**serialize_intent(entry), "time": format_now()})
        return self._keep(replace(entry, state=State.INTENDED))

    def record(
        self, entry: Entry, state: State, detail: str = "", times: FolderTimes | None = None
    ) -> Entry:
        """Write a new state of an entry, and return it as it is then. Raises DiskFull."""
        line: dict[str, Any] = {"event": name_event(entry, state), "number": entry.number}
        line["time"] = format_now()
        if detail:
            line["detail"] = detail
        if times:
            line["times"] = asdict(times)
        self._lines.append(line)
        return self._keep(replace(entry, state=state, detail=detail, times=times or entry.times))

    def _keep(self, entry: Entry) -> Entry:
        entry = entry.stamp(time.time_ns())
        by_number = self.get_all_by_number(entry)
        if entry.number in by_number:
            self._follow(by_number[entry.number], -1)
        by_number[entry.number] = entry
        self._follow(entry, 1)
        return entry

    def _follow(self, entry: Entry, change: int) -> None:
        self.made_folders.update(entry.missing)
        if entry.state in MOVED_STATES:
            for path in set(entry.timed_folders):
                self.history.count_away(path, change)
        self.add_times(entry, entry.times)

    def add_times(self, entry: Entry, times: FolderTimes | None) -> None:
        """Add to the history what the times of an entry tell of its folders."""
        pairs = (times.folder, times.base) if times else ()
        for path, pair in zip(entry.timed_folders, pairs, strict=False):
            self.history.add(path, pair)


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
    return Journal(path, read_journal(path))


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
    """Return the journal of a run; `last` is the one that moved a file last. Raises RunNotFound."""
    journals = list_journals(store_folder)
    if run == "last" and journals:
        return max(journals, key=_find_last_move_ns)
    for path in journals:
        if path.name == f"{run}{JOURNAL_SUFFIX}":
            return path
    raise RunNotFound(f"there is no run {quote(run)}; `neardup runs` lists them")


def _find_last_move_ns(path: Path) -> int:
    """Find when a run last moved a file: one that was cut off can be continued after others."""
    moved_ns = 0
    with suppress(ActionRecordDamaged, ValueError, OverflowError):  # named once it is asked for
        moved_ns = _to_ns(_read_start(path))
        done_ns = (entry.done_ns for entry in read_journal(path).list_all())
        moved_ns = max(moved_ns, *done_ns, 0)
    return moved_ns


def _to_ns(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1e9)


def read_journal(path: Path) -> JournalContent:
    """Read a journal. Half a line at the end is passed over.

    Raises ActionRecordDamaged for anything else that was not written so.
    """
    try:
        documents = list(iter_lines(path.read_bytes()))
        content = JournalContent(_parse_header(documents[0], path), {}, {})
        for document in documents[1:]:
            number = document["number"]
            moment_ns = _to_ns(document["time"])
            state, is_merge = parse_event(document["event"])
            known = content.merges if is_merge else content.victims
            if state is State.INTENDED:
                if number in known:
                    content.former.append(known[number])
                entry = parse_intent(document, content.header.action)
            else:
                outcome = _parse_outcome(document, known[number].times)
                entry = replace(known[number], state=state, **outcome)
            known[number] = entry.stamp(moment_ns)
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

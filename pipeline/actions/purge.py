"""Delete what old runs hold in quarantine, each file only while its keeper is there and whole.

In place of a keeper, the decision to reject a photo has to stand still.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from indexes.durable.failpoints import failpoint
from indexes.durable.locks import lock
from indexes.paths import ACTIONS_LOCK_NAME, quote
from pipeline.actions.entries import Entry, State
from pipeline.actions.folders import (
    Refused,
    explain_os_error,
    opened_folder,
    remove_empty_folders,
    split_path,
)
from pipeline.actions.held_files import (
    HeldKeeper,
    hash_descriptor,
    held_keeper,
    identify,
    open_regular,
    stat_name,
)
from pipeline.actions.journal import Journal, list_journals, read_journal, reopen_journal
from pipeline.actions.outcome import Outcome, Status
from pipeline.actions.places import require_known_places, split_target
from pipeline.actions.plan import Action, Part
from pipeline.actions.rejections import Rejections
from pipeline.actions.settle import settle_runs

_UNPURGED_ACTIONS = {Action.MOVE, Action.TRASH}  # their files are where the user wants them


class _KeeperHolder:
    """Holds the keepers of a group while its victims are purged: each is hashed once."""

    def __init__(self) -> None:
        self._stack, self._held = ExitStack(), list[HeldKeeper]()

    def __enter__(self) -> _KeeperHolder:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def hold(self, parts: Sequence[Part]) -> Sequence[HeldKeeper]:
        """Hold the parts of a keeper, and let go of others. Raises Refused."""
        if {keeper.part for keeper in self._held} == set(parts):
            with suppress(Refused):  # touched since, perhaps not changed
                for keeper in self._held:
                    keeper.check()
                return self._held
        self._stack.close()
        self._held = []
        self._held = [self._stack.enter_context(held_keeper(part)) for part in parts]
        return self._held


def purge_runs(
    store_folder: Path,
    roots: Sequence[str],
    min_age: timedelta,
    rejections: Rejections | None = None,
    *,
    dry_run: bool,
) -> Iterator[Outcome]:
    """Delete the victims that were moved at least `min_age` ago; yield the outcome of each.

    A victim stays if its keeper is gone, changed or away, or if it was itself changed: the outcome
    names it. A rejected photo has no keeper, and stays unless the decision still stands; without
    `rejections` none does. With `dry_run`, all is checked and nothing is deleted. Raises
    StoreLocked, ActionRecordDamaged and DiskFull.
    """
    with lock(store_folder / ACTIONS_LOCK_NAME):
        if not dry_run:
            settle_runs(store_folder, roots)
        for path in list_journals(store_folder):
            content, now = read_journal(path), datetime.now(UTC)
            if now - datetime.fromisoformat(content.header.started) < min_age:
                continue
            until_ns = int((now - min_age).timestamp() * 1e9)
            with reopen_journal(path) as journal:
                yield from _purge_run(journal, roots, rejections, until_ns, dry_run)


def _purge_run(
    journal: Journal,
    roots: Sequence[str],
    rejections: Rejections | None,
    until_ns: int,
    dry_run: bool,
) -> Iterator[Outcome]:
    """Purge the victims of a run, then the sidecars of before, whose new ones are their keepers.

    What was moved after `until_ns` stays: a run that was cut off can be continued much later.
    """
    with _KeeperHolder() as holder:
        for entry in (*journal.victims.values(), *journal.merges.values()):
            if _find_moved_ns(journal, entry) <= until_ns:
                yield from _purge_entry(journal, entry, holder, roots, rejections, dry_run)


def _purge_entry(
    journal: Journal,
    entry: Entry,
    holder: _KeeperHolder,
    roots: Sequence[str],
    rejections: Rejections | None,
    dry_run: bool,
) -> Iterator[Outcome]:
    if entry.action in _UNPURGED_ACTIONS or entry.before is None:
        return
    if entry.state is State.STUCK:
        yield Outcome(entry.path, Status.LEFT, entry.detail, entry.target)
    if entry.state is not State.DONE:
        return
    keepers = entry.keepers
    if entry.after is not None:
        keepers = (Part(entry.path, entry.before.stat, entry.after),)
    detail = "the sidecar of before metadata was added" if entry.is_merge else ""
    try:
        require_known_places(journal.header, entry, roots)
        if entry.rejected is not None:
            detail = _require_decision(entry, rejections)
        _delete(journal, entry, holder.hold(keepers), dry_run)
    except Refused as refused:
        yield Outcome(entry.path, Status.LEFT, str(refused), entry.target)
    else:
        status = Status.PLANNED if dry_run else Status.DONE
        yield Outcome(entry.path, status, detail, "", entry.before.stat.size)


def _find_moved_ns(journal: Journal, entry: Entry) -> int:
    """Find when a file was moved; a sidecar of before is needed as long as the last victim."""
    entries = [entry]
    if entry.is_merge:
        entries += journal.list_victims_of(entry)
    return max(each.done_ns or each.recorded_ns for each in entries)


def _require_decision(entry: Entry, rejections: Rejections | None) -> str:
    """Return what to say of a rejected photo that may go; raises Refused if none rejects it now."""
    if rejections is None:
        raise Refused(f"{quote(entry.path)} is not rejected by any decision now")
    rejections.require_standing(entry)
    return "still rejected"


def _delete(journal: Journal, entry: Entry, keepers: Sequence[HeldKeeper], dry_run: bool) -> None:
    """Delete a victim from quarantine if it is what was moved there. Raises Refused."""
    folder_path, name = split_path(entry.target)
    with opened_folder(folder_path) as folder:
        descriptor = open_regular(folder, name, entry.target)
        try:
            identity = identify(os.fstat(descriptor))
            if hash_descriptor(descriptor, entry.target) != entry.victim.blake3:
                raise Refused(f"{quote(entry.target)} was changed since it was moved")
        finally:
            os.close(descriptor)
        is_last = not keepers and entry.rejected is None
        if is_last or identity in {keeper.identity for keeper in keepers}:
            raise Refused(f"{quote(entry.target)} is the last file of its group")
        if dry_run:
            return
        for keeper in keepers:
            keeper.check()
        journal.record(entry, State.PURGE_INTENDED)
        failpoint(f"{entry.kind} purge intended")
        try:
            status = stat_name(folder, name)
            if status is None or identify(status) != identity:
                raise Refused(f"{quote(entry.target)} was replaced by another file")
            os.unlink(name, dir_fd=folder)
            os.fsync(folder)
        except OSError as error:
            journal.record(entry, State.DONE)
            raise explain_os_error(error, entry.target) from error
        except Refused:
            journal.record(entry, State.DONE)
            raise
        failpoint(f"{entry.kind} deleted")
    remove_empty_folders(entry.base, split_target(entry)[0])
    journal.record(entry, State.PURGED)
    failpoint(f"{entry.kind} purged")

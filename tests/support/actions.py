"""Small trees of files with plans for them, and moments of a run at which something happens."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from indexes.durable import failpoints
from indexes.records import FileStat
from pipeline.actions.apply import apply_plan
from pipeline.actions.outcome import Outcome, Status
from pipeline.actions.plan import Action, Keeper, Part, Plan, PlannedGroup, Victim
from pipeline.actions.protection import load_settings
from pipeline.actions.purge import purge_runs
from pipeline.actions.undo import undo_run
from pipeline.verify.relation import Relation

OLD_TIME = 1_500_000_000_123_456_789


def save(path: Path, content: bytes, mode: int = 0o640, mtime_ns: int = OLD_TIME) -> Path:
    """Write a file with a mode and a time, and create its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def make_part(path: Path) -> Part:
    """Make the part of a plan that a file is now."""
    return Part(
        str(path), FileStat.from_os_stat(path.stat()), blake3(path.read_bytes()).hexdigest()
    )


@dataclass(frozen=True)
class Desk:
    """A root with files, and the folder of a store for the journals."""

    root: Path
    store: Path

    def make_plan(
        self,
        groups: Sequence[tuple[Path, Sequence[Path]]],
        action: Action = Action.QUARANTINE,
        **changes: Any,
    ) -> Plan:
        """Plan to act on files, given with the keeper of each group."""
        planned = tuple(
            PlannedGroup(
                str(number),
                Keeper((make_part(keeper),), "first"),
                tuple(
                    Victim((make_part(path),), Relation.IDENTICAL_BYTES, None, "the same")
                    for path in victims
                ),
            )
            for number, (keeper, victims) in enumerate(groups)
        )
        fields: dict[str, Any] = {
            "created": "2026-01-31T10:15:00+00:00",
            "store_id": load_settings(self.store).store_id,
            "ingest_run": "1",
            "action": action,
            "destination": None,
            "relations": (Relation.IDENTICAL_BYTES,),
            "min_confidence": None,
            "roots": (str(self.root),),
            "protected": (),
            "library_files": 100,
            "bytes_to_free": 0,
            "groups": planned,
            "left": (),
            "warnings": (),
        }
        return Plan(**(fields | changes))

    def apply(self, plan: Plan) -> list[Outcome]:
        """Apply a plan to the end."""
        return list(apply_plan(plan, self.store, [str(self.root)]))

    def undo(self, run: str = "last") -> list[Outcome]:
        """Undo a run to the end."""
        return list(undo_run(self.store, run, [str(self.root)]))

    def purge(self, hours: float = 0, *, dry_run: bool = False) -> list[Outcome]:
        """Purge runs of an age to the end."""
        age = timedelta(hours=hours)
        return list(purge_runs(self.store, [str(self.root)], age, dry_run=dry_run))


def make_desk(folder: Path) -> Desk:
    """Make a desk with an empty root."""
    desk = Desk(folder / "photos", folder / "store")
    desk.root.mkdir(parents=True)
    (desk.store / "tmp").mkdir(parents=True)
    return desk


def read_tree(folder: Path) -> dict[str, Any]:
    """Read all that a person has in a folder: names, kinds, bytes, modes, owners, times, inodes.

    Folders have their names and modes only: what comes and goes in them changes their times.
    """
    tree = dict[str, Any]()
    for path in folder.rglob("*"):
        status = path.lstat()
        kept: tuple[Any, ...] = (oct(status.st_mode), status.st_uid)
        if stat.S_ISLNK(status.st_mode):
            kept += (path.readlink(),)
        elif stat.S_ISREG(status.st_mode):
            kept += (path.read_bytes(), status.st_mtime_ns, status.st_ino)
        tree[str(path.relative_to(folder))] = kept
    return tree


def read_folder_times(folder: Path) -> dict[str, int]:
    """Read the times of a folder and of all folders in it."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    return {str(path): path.stat().st_mtime_ns for path in folders}


def read_contents(*folders: Path) -> set[bytes]:
    """Read the contents of all files in folders, wherever they lie now."""
    return {
        path.read_bytes()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def get_statuses(outcomes: Sequence[Outcome]) -> dict[str, Status]:
    """Get the status of each file by its name."""
    return {Path(outcome.path).name: outcome.status for outcome in outcomes}


class Killed(BaseException):
    """A process that was killed at a failpoint, where a test plays it in its own process.

    No handler of the code catches it; only descriptors are closed, as the kernel does.
    """


@contextmanager
def at_failpoint(name: str, act: Callable[[], None]) -> Iterator[None]:
    """Have `act` run at a failpoint ("action moved:2" for the second time) during the block."""
    is_done = False

    def kill(pid: int, number: int) -> None:
        nonlocal is_done
        assert (pid, number) == (os.getpid(), signal.SIGKILL)
        if not is_done:
            is_done = True
            act()

    failpoints._hit_counts.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARDUP_FAILPOINT", name)
        patch.setattr(os, "kill", kill)
        yield


@contextmanager
def killed_at(name: str) -> Iterator[None]:
    """Stop the block at a failpoint as a kill does; the block may end before."""

    def kill() -> None:
        raise Killed

    with at_failpoint(name, kill):
        try:
            yield
        except Killed:
            return


@contextmanager
def killed_at_scratch_name() -> Iterator[None]:
    """Stop the block, as a kill does, before the last name of a renamed file is removed."""
    unlink = os.unlink

    def kill(path: Any, *, dir_fd: int | None = None) -> None:  # noqa: ANN401 - as os.unlink()
        if str(path).startswith(".neardup-"):
            raise Killed
        unlink(path, dir_fd=dir_fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "unlink", kill)
        with pytest.raises(Killed):
            yield

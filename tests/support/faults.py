"""Processes to kill, a store to compare with, and what is in the files of a store."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexes import Store, check
from tests.support import nightly
from tests.support.forks import FORKSERVER

IMAGE_COUNT = nightly.IMAGE_COUNT
REMAINING_NUMBERS = [
    number for number in range(IMAGE_COUNT) if number not in nightly.REMOVED_NUMBERS
]


@dataclass(frozen=True)
class Reference:
    """A store that nothing disturbed, closed, and its contents."""

    folder: Path
    contents: tuple[set[bytes], dict[frozenset[bytes], float]]

    def copy(self, folder: Path) -> Path:
        """Copy the store to `folder`."""
        shutil.copytree(self.folder, folder)
        return folder

    def assert_contents_of(self, folder: Path) -> None:
        """Assert that the store in `folder` has the same contents."""
        with Store(folder) as store:
            assert nightly.read_contents(store) == self.contents


def run_in_process(function: Callable[..., None], *args: Any) -> int:
    """Run a function in a process of its own; returns its exit code, or minus the signal."""
    process = FORKSERVER.Process(target=function, args=args)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def get_segment(folder: Path) -> Path:
    """Get the only segment file of a store."""
    (segment,) = (folder / "segments").iterdir()
    return segment


def list_locations(folder: Path, *, read_all: bool = False) -> list[str]:
    """List the locations of all findings."""
    return [finding.location for finding in check(folder, read_all=read_all)]


def read_files(folder: Path) -> dict[Path, bytes]:
    """Read all files of a store but its locks."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".lock"]
    return {file: file.read_bytes() for file in files}

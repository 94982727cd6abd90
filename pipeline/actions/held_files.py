"""Open files and keep them open: what was hashed is what is acted on, or is what stays."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from blake3 import blake3

from indexes.paths import quote
from indexes.records import FileStat
from pipeline.actions.folders import Refused, explain_os_error, opened_folder, split_path
from pipeline.actions.plan import Part

# O_NONBLOCK: a FIFO may have the name by now.
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_BLOCK_BYTES = 1 << 20  # read at a time


def stat_name(folder: int, name: str) -> os.stat_result | None:
    """Return the status of a name in an open folder, of a link itself; None if there is none."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def identify(status: os.stat_result) -> tuple[int, int]:
    """Return what tells a file from all others that are there now: its device and inode."""
    return status.st_dev, status.st_ino


def open_regular(folder: int, name: str, path: str) -> int:
    """Open a regular file in an open folder for reading; `path` is for the message of Refused."""
    try:
        descriptor = os.open(name, _OPEN_FLAGS, dir_fd=folder)
    except OSError as error:
        status = None
        try:
            status = stat_name(folder, name)
        except OSError:
            pass
        if status is not None and stat.S_ISLNK(status.st_mode):
            raise Refused(f"{quote(path)} is a symbolic link now") from error
        if isinstance(error, FileNotFoundError):
            raise Refused(f"{quote(path)} is not there any more") from error
        raise explain_os_error(error, path) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused(f"{quote(path)} is not a regular file")
    return descriptor


def hash_descriptor(descriptor: int, path: str) -> str:
    """Return the blake3, in hex, of a file that is open; raises Refused if it cannot be read."""
    hasher, position = blake3(), 0
    try:
        while block := os.pread(descriptor, _BLOCK_BYTES, position):
            hasher.update(block)
            position += len(block)
    except OSError as error:
        raise explain_os_error(error, path) from error
    return hasher.hexdigest()


def hash_name(folder: int, name: str, path: str) -> str:
    """Return the blake3, in hex, of a regular file in an open folder. Raises Refused."""
    descriptor = open_regular(folder, name, path)
    try:
        return hash_descriptor(descriptor, path)
    finally:
        os.close(descriptor)


def hash_if_there(folder: int | None, name: str, path: str) -> str | None:
    """Return the blake3, in hex, of a regular file; None if there is none. Raises Refused."""
    if folder is None or stat_name(folder, name) is None:
        return None
    return hash_name(folder, name, path)


def is_same_but_for_ctime(now: FileStat, planned: FileStat) -> bool:
    """Tell if a file may have the bytes of before: a rename and a new link change the ctime."""
    return replace(now, ctime_ns=planned.ctime_ns).is_unchanged_since(planned)


@contextmanager
def opened_victim(part: Part) -> Iterator[tuple[int, str, int]]:
    """Open a victim; yield the descriptor of its folder, its name there, and its own descriptor.

    Raises Refused unless its size, mtime and inode are those of the plan, and its ctime or its
    bytes. Its bytes are hashed once more when it lies where no other program looks for it.
    """
    folder_path, name = split_path(part.path)
    with opened_folder(folder_path) as folder:
        descriptor = open_regular(folder, name, part.path)
        try:
            now = FileStat.from_os_stat(os.fstat(descriptor))
            if not now.is_unchanged_since(part.stat):
                is_same = is_same_but_for_ctime(now, part.stat)
                if not is_same or hash_descriptor(descriptor, part.path) != part.blake3:
                    raise Refused(f"{quote(part.path)} has changed since the plan was made")
            yield folder, name, descriptor
        finally:
            os.close(descriptor)


def require_kept(part: Part) -> None:
    """Raise Refused unless a keeper is that of the plan: by its stat, or else by its bytes."""
    try:
        with opened_victim(part):
            return
    except Refused:
        with held_keeper(part):
            return


class HeldKeeper:
    """A keeper that was hashed, and is kept open while its victims are acted on.

    Its bytes cannot be lost while it is open, even if all its names are deleted.
    """

    def __init__(self, part: Part, descriptor: int) -> None:
        """Take over `descriptor`, which was opened at the path of `part`."""
        self.part, self.descriptor = part, descriptor
        self._status = os.fstat(descriptor)
        self._require_bytes()
        self.check()

    def _require_bytes(self) -> None:
        if hash_descriptor(self.descriptor, self.part.path) != self.part.blake3:
            raise Refused(f"the keeper {quote(self.part.path)} has other bytes than the plan says")

    @property
    def identity(self) -> tuple[int, int]:
        """The device and inode of the keeper."""
        return identify(self._status)

    def check(self) -> None:
        """Raise Refused unless the keeper is still at its path, and untouched since it was hashed.

        The time of the last change (ctime) is one that no program can set.
        """
        now, path = os.fstat(self.descriptor), self.part.path
        if not FileStat.from_os_stat(now).is_unchanged_since(FileStat.from_os_stat(self._status)):
            raise Refused(f"the keeper {quote(path)} was changed in this moment")
        folder_path, name = split_path(path)
        with opened_folder(folder_path) as folder:
            status = stat_name(folder, name)
        if status is None or identify(status) != self.identity:
            raise Refused(f"the keeper {quote(path)} is not at its path any more")

    def accept_link(self) -> None:
        """Accept a new ctime, which a new hard link gave it, if its bytes are the same.

        Raises Refused.
        """
        self._status = os.fstat(self.descriptor)
        self._require_bytes()


@contextmanager
def held_keeper(part: Part) -> Iterator[HeldKeeper]:
    """Open and hash a keeper, and keep it open during the block. Raises Refused."""
    folder_path, name = split_path(part.path)
    try:
        with opened_folder(folder_path) as folder:
            descriptor = open_regular(folder, name, part.path)
    except Refused as refused:
        path, reason = quote(part.path), str(refused)
        is_named = reason.startswith(path)  # else it is about its folder, or about the disk
        raise Refused(f"its keeper {reason if is_named else f'{path}: {reason}'}") from refused
    try:
        yield HeldKeeper(part, descriptor)
    finally:
        os.close(descriptor)

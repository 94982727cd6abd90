"""Rename without replacing, and swap two names: what Python's os module lacks."""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress

from indexes.durable.failpoints import failpoint
from pipeline.actions.folders import Refused

RENAME_NOREPLACE = 1  # see renameat2(2)
RENAME_EXCHANGE = 2
_UNSUPPORTED_ERRNOS = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}

_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def rename_exclusive(
    from_folder: int, from_name: str, to_folder: int, to_name: str, scratch_folder: int
) -> None:
    """Rename a file between two open folders; never replace anything.

    Where the filesystem has no such rename, the file is linked, and then its old name is taken
    away by way of `scratch_folder`, one of the two, to which no other program writes. Raises
    FileExistsError, Refused where the filesystem has neither, and OSError.
    """
    if _call(from_folder, from_name, to_folder, to_name, RENAME_NOREPLACE):
        return
    scratch_name = _free_scratch_name(from_folder, from_name, scratch_folder)
    try:
        os.link(
            from_name,
            to_name,
            src_dir_fd=from_folder,
            dst_dir_fd=to_folder,
            follow_symlinks=False,
        )
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in _UNSUPPORTED_ERRNOS | {errno.EMLINK}:
            raise Refused(
                "the filesystem can neither rename without replacing nor make hard links"
            ) from error
        raise
    failpoint("action linked")
    linked = os.stat(to_name, dir_fd=to_folder, follow_symlinks=False)
    # Another file may have taken the old name in this moment. So what has it is renamed to a
    # private place first, and deleted only if it is the file that was linked.
    os.rename(from_name, scratch_name, src_dir_fd=from_folder, dst_dir_fd=scratch_folder)
    taken = os.stat(scratch_name, dir_fd=scratch_folder, follow_symlinks=False)
    if (taken.st_dev, taken.st_ino) == (linked.st_dev, linked.st_ino):
        os.unlink(scratch_name, dir_fd=scratch_folder)
        return
    os.link(
        scratch_name,
        from_name,
        src_dir_fd=scratch_folder,
        dst_dir_fd=from_folder,
        follow_symlinks=False,
    )
    os.unlink(scratch_name, dir_fd=scratch_folder)
    os.unlink(to_name, dir_fd=to_folder)
    raise Refused("another file took its place in this moment")


def exchange(first_folder: int, first_name: str, second_folder: int, second_name: str) -> None:
    """Swap two names between open folders, in one step. Raises Refused where that is impossible."""
    if not _call(first_folder, first_name, second_folder, second_name, RENAME_EXCHANGE):
        raise Refused("the filesystem cannot swap two names in one step")


def _call(from_folder: int, from_name: str, to_folder: int, to_name: str, flags: int) -> bool:
    """Call renameat2(2); return False if it is missing here. Raises OSError."""
    if _renameat2 is None:
        return False
    names = os.fsencode(from_name), os.fsencode(to_name)
    if _renameat2(from_folder, names[0], to_folder, names[1], flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED_ERRNOS - {errno.EPERM}:
        return False
    raise OSError(code, os.strerror(code), from_name)


def remove_scratch_name(folder: int, name: str, scratch_folder: int) -> None:
    """Remove the name that rename_exclusive() left of a file when it was killed, if there is one.

    The file has a name in an open folder, and keeps that.
    """
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    scratch_name = _make_scratch_name(status)
    with suppress(FileNotFoundError):
        scratch = os.stat(scratch_name, dir_fd=scratch_folder, follow_symlinks=False)
        if (scratch.st_dev, scratch.st_ino) == (status.st_dev, status.st_ino):
            os.unlink(scratch_name, dir_fd=scratch_folder)


def _free_scratch_name(folder: int, name: str, scratch_folder: int) -> str:
    """Return the scratch name of a file, which no file has. Raises Refused if another one has it.

    A kill left it there when it had taken the place of the file.
    """
    remove_scratch_name(folder, name, scratch_folder)
    scratch_name = _make_scratch_name(os.stat(name, dir_fd=folder, follow_symlinks=False))
    with suppress(FileNotFoundError):
        os.stat(scratch_name, dir_fd=scratch_folder, follow_symlinks=False)
        raise Refused(f"{scratch_name} is in quarantine, and has to be moved where it belongs")
    return scratch_name


def _make_scratch_name(status: os.stat_result) -> str:
    """Make a name that can be found again without listing the folder."""
    return f".neardup-{status.st_ino}"

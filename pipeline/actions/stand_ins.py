"""Stand-ins for files that are replaced: a link or a reflink for a victim, a new sidecar."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from indexes.paths import quote
from pipeline.actions.entries import Entry
from pipeline.actions.folders import Refused, explain_os_error, split_path
from pipeline.actions.held_files import HeldKeeper, hash_descriptor, hash_name, identify, stat_name
from pipeline.actions.plan import Action

FICLONE = 0x40049409  # ioctl_ficlone(2)
_CANNOT_CLONE_ERRNOS = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS}


def make_stand_in(entry: Entry, keeper: HeldKeeper, victim: int, folder: int, name: str) -> None:
    """Make, in an open folder, what is to stand in the place of a victim, and verify it.

    `victim` is the descriptor of the victim: a reflink gets its mode, owner, times and extended
    attributes, while a hard link has those of the keeper. Raises Refused, and DiskFull.
    """
    try:
        if entry.action is Action.HARDLINK:
            _link(keeper, folder, name)
        elif entry.action is Action.REFLINK:
            _clone(entry, keeper, victim, folder, name)
        else:
            os.symlink(_make_link_target(entry), name, dir_fd=folder)
    except FileExistsError as error:
        raise Refused(f"a file is at {quote(entry.target)} already") from error
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise Refused("the keeper is on another filesystem") from error
        raise explain_os_error(error, entry.target) from error


def is_stand_in(entry: Entry, folder: int, name: str) -> bool:
    """Tell if a name in an open folder is what the run put at a path: nothing is lost without it.

    A link leads to the keeper, and a merge wrote its bytes; anything else has those of the victim.
    """
    status = stat_name(folder, name)
    if status is None:
        return False
    if stat.S_ISLNK(status.st_mode) or entry.action is Action.SYMLINK:
        is_link = stat.S_ISLNK(status.st_mode) and entry.action is Action.SYMLINK
        return is_link and os.readlink(name, dir_fd=folder) == _make_link_target(entry)
    with suppress(Refused):
        return hash_name(folder, name, entry.path) == (entry.after or entry.victim.blake3)
    return False


def is_link_to_keeper(entry: Entry, folder: int, name: str) -> bool:
    """Tell if a name in an open folder is a symbolic or hard link that the run made of the keeper.

    Whatever bytes the keeper has by now, they stay without the link.
    """
    status = stat_name(folder, name)
    if status is None or not entry.keepers:
        return False
    if entry.action is Action.SYMLINK:
        return is_stand_in(entry, folder, name)
    with suppress(OSError):
        keeper = os.lstat(entry.keepers[0].path)
        is_same = identify(keeper) == identify(status) and status.st_nlink > 1
        return entry.action is Action.HARDLINK and is_same
    return False


def require_sound_stand_in(
    entry: Entry, keepers: Sequence[HeldKeeper], folder: int, name: str
) -> None:
    """Raise Refused unless a link leads to the keeper, and a sidecar has what a merge wrote."""
    if entry.is_merge:
        if not is_stand_in(entry, folder, name):
            raise Refused(f"{quote(entry.path)} was written by another program in this moment")
    elif entry.action is not Action.REFLINK:
        with suppress(OSError):
            if identify(os.stat(name, dir_fd=folder)) == keepers[0].identity:
                return
        raise Refused("the link does not lead to the keeper")


def _link(keeper: HeldKeeper, folder: int, name: str) -> None:
    # By the descriptor: another file may have the keeper's path by now.
    os.link(f"/proc/self/fd/{keeper.descriptor}", name, dst_dir_fd=folder, follow_symlinks=True)


def _make_link_target(entry: Entry) -> str:
    """Return the way from the victim's folder to the keeper; both are real paths."""
    return os.path.relpath(entry.keepers[0].path, split_path(entry.path)[0])


def _clone(entry: Entry, keeper: HeldKeeper, victim: int, folder: int, name: str) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    clone = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        try:
            fcntl.ioctl(clone, FICLONE, keeper.descriptor)
        except OSError as error:
            if error.errno in _CANNOT_CLONE_ERRNOS:
                raise Refused("the filesystem cannot share blocks between files") from error
            raise
        copy_metadata(victim, clone)
        if hash_descriptor(clone, entry.target) != entry.victim.blake3:
            raise Refused("the reflink has other bytes than the keeper")
        os.fsync(clone)
    except BaseException:
        os.unlink(name, dir_fd=folder)
        raise
    finally:
        os.close(clone)


def copy_metadata(source: int, target: int) -> None:
    """Give an open file the owner, mode, extended attributes and times of another."""
    status = os.fstat(source)
    owner = status.st_uid, status.st_gid
    if owner != (os.fstat(target).st_uid, os.fstat(target).st_gid):
        os.fchown(target, *owner)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    with suppress(OSError):  # a filesystem without them; those of the system are not ours to set
        for attribute in os.listxattr(source):
            if attribute.startswith("user."):
                os.setxattr(target, attribute, os.getxattr(source, attribute))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

"""Open folders step by step, so that no link on the way leads to another place.

Paths come from plans and journals, which anyone may have written. A path is only a start: what is
renamed is renamed relative to the descriptors of folders that were opened here.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from indexes.durable.files import DISK_FULL_ERRNOS
from indexes.errors import DiskFull
from indexes.paths import quote
from pipeline.scan import is_below

_SEARCH_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOUNT_ID = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)
PRIVATE_MODE = 0o700  # of folders in quarantine: they hold what other users could not read before
SHARED_MODE = 0o777  # of folders that a user would make; the umask counts


class Refused(Exception):
    """A file is left as it is; the message says why. It becomes the outcome of that file."""


def explain_os_error(error: OSError, path: str) -> Refused:
    """Turn an error of the operating system into words; raises DiskFull for a full disk."""
    if error.errno in DISK_FULL_ERRNOS:
        raise DiskFull(
            f"no room for {quote(path)}: {error.strerror}; free some space and run again, nothing"
            " is lost"
        ) from error
    return Refused(f"{quote(path)}: {error.strerror or error}")


def is_plain_path(path: str) -> bool:
    """Tell if a path is absolute, and has no NUL, no empty step, and neither . nor .. in it."""
    steps = path.split("/")
    return (
        len(steps) > 1
        and steps[0] == ""
        and "\0" not in path
        and not any(step in ("", ".", "..") for step in steps[1:])
    )


def find_root(path: str, roots: Sequence[str]) -> str | None:
    """Return the innermost of `roots` that a plain path lies below; None if there is none."""
    if not is_plain_path(path):
        return None
    return max((root for root in roots if is_below(path, [root])), key=len, default=None)


def split_path(path: str) -> tuple[str, str]:
    """Split a plain path into its folder and its name."""
    folder, _, name = path.rpartition("/")
    return folder or "/", name


@contextmanager
def opened_folder(path: str) -> Iterator[int]:
    """Open a folder from / on, following no link; yield its descriptor.

    Raises Refused if a step is a link, is no folder, or is not there.
    """
    descriptor = _open_folder(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_if_there(stack: ExitStack, path: str) -> int | None:
    """Open a folder until `stack` is closed; None if nothing is at its path. Raises Refused."""
    return stack.enter_context(opened_folder(path)) if os.path.lexists(path) else None


def _open_folder(path: str) -> int:
    if path != "/" and not is_plain_path(path):
        raise Refused(f"{quote(path)} is not a plain path")
    steps = [step for step in path.split("/") if step]
    descriptor = os.open("/", _SEARCH_FLAGS if steps else _READ_FLAGS)
    reached = ""
    for position, step in enumerate(steps):
        reached += f"/{step}"
        flags = _READ_FLAGS if position == len(steps) - 1 else _SEARCH_FLAGS
        try:
            inner = os.open(step, flags, dir_fd=descriptor)
        except OSError as error:
            refused = _explain_no_folder(error, reached, step, descriptor)
            os.close(descriptor)
            raise refused from error
        os.close(descriptor)
        descriptor = inner
    return descriptor


def _explain_no_folder(error: OSError, path: str, step: str, parent: int) -> Refused:
    with suppress(OSError):
        if stat.S_ISLNK(os.stat(step, dir_fd=parent, follow_symlinks=False).st_mode):
            return Refused(f"{quote(path)} is a symbolic link; folders on the way must be real")
    return explain_os_error(error, path)


def find_mount_top(root: str, folder: str) -> str:
    """Return the uppermost folder, at or below `root`, on the mount of `folder`, which is below.

    A file can be renamed from `folder` to below that one. Raises Refused.
    """
    top, top_mount = root, None
    with opened_folder(root) as descriptor:
        top_mount = _identify_mount(descriptor)
    reached = root.rstrip("/")
    for step in folder[len(reached) :].split("/"):
        if step:
            reached += f"/{step}"
            with opened_folder(reached) as descriptor:
                mount = _identify_mount(descriptor)
            if mount != top_mount:
                top, top_mount = reached, mount
    return top


def _identify_mount(descriptor: int) -> tuple[int, str]:
    """Identify the mount that an open folder is on: device, and number of the mount if known.

    A folder that is mounted at a second place has one device and two mounts; no rename crosses.
    """
    number = ""
    with suppress(OSError):
        info = Path(f"/proc/self/fdinfo/{descriptor}").read_text("ascii")
        match = _MOUNT_ID.search(info)
        number = match[1] if match else ""
    return os.fstat(descriptor).st_dev, number


@contextmanager
def made_folders(base: str, steps: Sequence[str], mode: int) -> Iterator[int]:
    """Open the folder `steps` below `base`, which exists; make those that are missing, durably.

    Raises Refused, and DiskFull.
    """
    descriptor, reached = _open_folder(base), base.rstrip("/")
    try:
        for step in steps:
            reached += f"/{step}"
            try:
                with suppress(FileExistsError):
                    os.mkdir(step, mode, dir_fd=descriptor)
                    os.fsync(descriptor)
                inner = os.open(step, _READ_FLAGS, dir_fd=descriptor)
            except OSError as error:
                raise _explain_no_folder(error, reached, step, descriptor) from error
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def remove_empty_folders(
    base: str, steps: Sequence[str], own: Collection[str] | None = None
) -> None:
    """Remove the folders `steps` below `base`, innermost first, up to one that is not empty.

    Given the paths of `own` ones, any other stays as well.
    """
    for count in range(len(steps), 0, -1):
        parent_path = "/".join([base.rstrip("/"), *steps[: count - 1]])
        if own is not None and f"{parent_path}/{steps[count - 1]}" not in own:
            return
        try:
            with opened_folder(parent_path or "/") as parent:
                os.rmdir(steps[count - 1], dir_fd=parent)
        except FileNotFoundError:
            continue
        except (OSError, Refused):
            return

"""Read the XMP sidecars of keepers, and write new ones; nothing is followed, all is bounded."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass

from blake3 import blake3

from indexes.paths import quote
from indexes.records import FileStat
from pipeline.actions.folders import Refused, explain_os_error
from pipeline.actions.held_files import is_same_but_for_ctime, open_regular, stat_name
from pipeline.actions.plan import Merge, Part
from pipeline.actions.stand_ins import copy_metadata
from pipeline.actions.xmp_extension import extend_xmp
from pipeline.decode.metadata.fields import MetadataUnreadable
from pipeline.decode.metadata.xmp import MAX_XMP_BYTES

_NEW_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_MODE_BITS = 0o666  # a sidecar is no program, as a photo on some drives is


@dataclass(frozen=True)
class SidecarFile:
    """A sidecar that was read: as the part of a plan, and its bytes."""

    part: Part
    content: bytes


def read_sidecar(folder: int, name: str, path: str, max_bytes: int = MAX_XMP_BYTES) -> SidecarFile:
    """Read a regular file in an open folder. Raises Refused, also for more than `max_bytes`."""
    descriptor = open_regular(folder, name, path)
    try:
        before = os.fstat(descriptor)
        if before.st_size > max_bytes:
            raise Refused(f"{quote(path)} has more than {max_bytes >> 20} MB")
        content = b""
        while block := os.pread(descriptor, max_bytes + 1 - len(content), len(content)):
            content += block
        read_stat = FileStat.from_os_stat(before)
        if not FileStat.from_os_stat(os.fstat(descriptor)).is_unchanged_since(read_stat):
            raise Refused(f"{quote(path)} was changed in this moment")
    except OSError as error:
        raise explain_os_error(error, path) from error
    finally:
        os.close(descriptor)
    return SidecarFile(Part(path, read_stat, blake3(content).hexdigest()), content)


def make_content(merge: Merge, folder: int, name: str) -> bytes:
    """Make the new content of a sidecar in an open folder, as it is now.

    Raises Refused unless it is what the plan says, and may be written.
    """
    path, before = merge.sidecar, merge.before
    status = stat_name(folder, name)
    if before is None:
        if status is not None:
            raise Refused(f"{quote(path)} came after the plan was made; make a new plan")
        held = None
    elif status is None:
        raise Refused(f"{quote(path)} is not there any more; make a new plan")
    else:
        held = read_sidecar(folder, name, path)
        is_same = is_same_but_for_ctime(held.part.stat, before.stat)
        if not is_same or held.part.blake3 != before.blake3:
            raise Refused(f"{quote(path)} has changed since the plan was made")
        if not status.st_mode & 0o222 or not os.access(name, os.W_OK, dir_fd=folder):
            raise Refused(f"{quote(path)} is read-only")
    try:
        return extend_xmp(held.content if held else None, merge.get_fields())
    except MetadataUnreadable as error:
        raise Refused(f"{quote(path)} cannot be extended: {error}") from error


def write_sidecar(
    places: tuple[int, str], content: bytes, model: tuple[int, str], is_new: bool, path: str
) -> None:
    """Write a file, durably, to a name that is free, with the mode and owner of a model.

    Both are open folders with names in them. The model is the sidecar of before, whose extended
    attributes are taken over, too; or, of a new one, the keeper. `path` is for messages. Raises
    Refused and DiskFull.
    """
    folder, name = places
    try:
        descriptor = os.open(name, _NEW_FLAGS, 0o600, dir_fd=folder)
    except OSError as error:
        raise explain_os_error(error, path) from error
    try:
        written = 0
        while written < len(content):
            written += os.pwrite(descriptor, content[written:], written)
        if is_new:
            _take_mode(descriptor, os.stat(model[1], dir_fd=model[0], follow_symlinks=False))
        else:
            source = open_regular(*model, path)
            try:
                copy_metadata(source, descriptor)
            finally:
                os.close(source)
            os.utime(descriptor)  # programs read a sidecar again whose time is another
        os.fsync(descriptor)
        os.fsync(folder)
    except OSError as error:
        _remove(folder, name)
        raise explain_os_error(error, path) from error
    except Refused:
        _remove(folder, name)
        raise
    finally:
        os.close(descriptor)


def _take_mode(descriptor: int, model: os.stat_result) -> None:
    with suppress(PermissionError):  # only root may give files away
        if (model.st_uid, model.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, model.st_uid, model.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(model.st_mode) & _FILE_MODE_BITS | 0o600)


def _remove(folder: int, name: str) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)

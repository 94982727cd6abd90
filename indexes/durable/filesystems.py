"""Find the filesystem that a folder is on."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

MOUNTS_FILE = Path("/proc/self/mounts")
# Filesystems on which SQLite's write-ahead log does not work: its index is shared memory, which two
# machines do not share.
NETWORK_FILESYSTEMS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "fuse.sshfs",
    "fuse.glusterfs",
    "fuse.rclone",
    "fuse.s3fs",
}


def find_network_filesystem(folder: Path) -> str | None:
    """Return the type of the network filesystem that `folder` is on.

    The longest mount point above the folder decides. None for a local filesystem, and where the
    system does not list its mounts.
    """
    path = os.fsencode(os.path.realpath(folder))
    with suppress(OSError):
        mounts = [line.split()[1:3] for line in MOUNTS_FILE.read_bytes().splitlines()]
        above = [
            (len(mount_point), filesystem)
            for mount_point, filesystem in (
                (_unescape(escaped), filesystem) for escaped, filesystem in mounts
            )
            if path == mount_point or path.startswith(mount_point.rstrip(b"/") + b"/")
        ]
        if above and (filesystem := max(above)[1].decode()) in NETWORK_FILESYSTEMS:
            return filesystem
    return None


def _unescape(mount_point: bytes) -> bytes:
    r"""Replace octal escapes, such as \040 for a space, by their bytes."""
    return re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8) & 0xFF]), mount_point)

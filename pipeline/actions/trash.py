"""Put a victim in the trash of the desktop, by send2trash; neardup cannot take it out again."""

from __future__ import annotations

import os
from pathlib import Path

from indexes.paths import quote
from pipeline.actions.entries import Entry
from pipeline.actions.folders import Refused, explain_os_error
from pipeline.actions.held_files import hash_descriptor
from pipeline.errors import MissingExtra


def require_trash() -> None:
    """Raise MissingExtra unless send2trash is installed."""
    try:
        import send2trash  # noqa: F401 - only to know
    except ImportError as error:
        raise MissingExtra(
            "the action trash needs another package: pip install 'neardup[trash]'"
        ) from error


def put_in_trash(entry: Entry, folder: int, descriptor: int) -> None:
    """Verify a victim, which is open, and put it in the trash of its own device. Raises Refused.

    send2trash takes a path, so a file that takes this place in the same moment goes in its stead.
    """
    from send2trash import send2trash

    path = entry.path
    if hash_descriptor(descriptor, path) != entry.victim.blake3:
        raise Refused(f"{quote(path)} has other bytes than the plan says")
    if not _has_trash_on_device(os.fstat(folder).st_dev, path):
        raise Refused(f"the trash of {quote(path)} is on another device, so it would be copied")
    try:
        send2trash(path)
    except OSError as error:
        raise explain_os_error(error, path) from error
    if os.path.lexists(path):
        raise Refused(f"{quote(path)} is still there after it was put in the trash")


def _has_trash_on_device(device: int, path: str) -> bool:
    """Tell if the trash of the user, or one at the top of the mount, is on a device.

    See the trash specification of freedesktop.org, version 1.0: $XDG_DATA_HOME/Trash, then
    .Trash or .Trash-UID at the top of the mount.
    """
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    home = next((folder for folder in (data, *data.parents) if folder.exists()), Path("/"))
    if home.stat().st_dev == device:
        return True
    top = Path(path).parent
    while not top.is_mount():
        top = top.parent
    trashes = (top / ".Trash", top / f".Trash-{os.getuid()}")
    return any(trash.is_dir() for trash in trashes) or os.access(top, os.W_OK)

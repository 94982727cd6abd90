"""Where the victims of a run are moved, and which places in a journal are believed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from indexes.paths import quote
from pipeline.actions.folders import Refused, find_mount_top, find_root, is_plain_path, split_path
from pipeline.actions.journal import Entry, RunHeader
from pipeline.actions.merge_entries import MergeEntry
from pipeline.actions.plan import Action
from pipeline.grouping.asset_names import XMP_SUFFIX, parse_name
from pipeline.name_rules import QUARANTINE_FOLDER_NAME
from pipeline.scan import is_below


def choose_target(header: RunHeader, path: str, roots: Sequence[str]) -> tuple[str, str]:
    """Choose where a victim is moved: a folder that exists, and the path of the target below it.

    In quarantine that is the top of the victim's root, or of the mount inside it. Raises Refused.
    """
    root = find_root(path, roots)
    if root is None:
        raise Refused(f"{quote(path)} is below none of the store's folders")
    if header.action is Action.TRASH:
        return "", ""
    if header.action is Action.MOVE:
        base = header.destination or ""
    else:
        base = find_mount_top(root, split_path(path)[0])
    return base, _make_target(header, base, path, root)


def _make_target(header: RunHeader, base: str, path: str, root: str) -> str:
    if header.action is Action.MOVE:
        relative = path[len(split_path(root)[0].rstrip("/")) + 1 :]
        return f"{base.rstrip('/')}/{relative}"
    relative = path[len(base.rstrip("/")) + 1 :]
    return f"{base.rstrip('/')}/{QUARANTINE_FOLDER_NAME}/{header.run}/{relative}"


def split_target(entry: Entry | MergeEntry) -> tuple[list[str], str]:
    """Split the target of an entry into the folders below its base, and its name."""
    *steps, name = entry.target[len(entry.base.rstrip("/")) + 1 :].split("/")
    return steps, name


def choose_sidecar_target(header: RunHeader, path: str, roots: Sequence[str]) -> tuple[str, str]:
    """Choose where the sidecar of before is kept: in quarantine, whatever the action of the run.

    As choose_target().
    """
    return choose_target(replace(header, action=Action.QUARANTINE), path, roots)


def require_known_sidecar(header: RunHeader, merge: MergeEntry, roots: Sequence[str]) -> None:
    """Raise Refused unless a merge names the places that its run would have chosen."""
    path, base = merge.sidecar, merge.base
    root = find_root(path, roots)
    if root is None or parse_name(path).suffix != XMP_SUFFIX:
        raise Refused(f"{quote(path)} is no sidecar below the store's folders")
    is_known = (base == root or is_below(base, [root])) and is_below(path, [base])
    quarantine = replace(header, action=Action.QUARANTINE)
    if not is_known or merge.target != _make_target(quarantine, base, path, root):
        raise Refused(f"the journal names {quote(merge.target)}, where the run moved nothing")


def is_away(entry: Entry | MergeEntry) -> bool:
    """Tell if the folder that a file was moved below is not there: its drive is not mounted.

    The mount point of a drive that is away is an empty folder on another device.
    """
    if not entry.base:
        return False
    try:
        device = os.stat(entry.base).st_dev  # noqa: PTH116 - may be no UTF-8
        with os.scandir(entry.base) as found:
            is_empty = next(found, None) is None
    except OSError:
        return True
    held = entry.victim if isinstance(entry, Entry) else entry.before
    return is_empty and held is not None and device != held.stat.device


def require_known_places(header: RunHeader, entry: Entry, roots: Sequence[str]) -> None:
    """Raise Refused unless an entry names the places that its run would have chosen.

    `roots` are those of the store now: a journal can be edited.
    """
    path = entry.victim.path
    root = find_root(path, roots)
    if root is None:
        raise Refused(
            f"{quote(path)} is below none of the store's folders; ingest its folder again"
        )
    if header.action is Action.TRASH:
        return
    base = entry.base
    if header.action is Action.MOVE:
        is_known = base == header.destination and is_plain_path(base)
    else:
        is_known = (base == root or is_below(base, [root])) and is_below(path, [base])
    if not is_known or entry.target != _make_target(header, base, path, root):
        raise Refused(f"the journal names {quote(entry.target)}, where the run moved nothing")

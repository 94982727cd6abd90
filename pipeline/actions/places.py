"""Where the victims of a run are moved, and which places in a journal are believed."""

from __future__ import annotations

import os
from collections.abc import Sequence

from indexes.paths import quote
from pipeline.actions.entries import Entry
from pipeline.actions.folders import Refused, find_mount_top, find_root, is_plain_path, split_path
from pipeline.actions.journal import RunHeader
from pipeline.actions.plan import Action
from pipeline.grouping.asset_names import XMP_SUFFIX, parse_name
from pipeline.name_rules import QUARANTINE_FOLDER_NAME
from pipeline.scan import is_below


def choose_target(
    header: RunHeader, path: str, roots: Sequence[str], action: Action
) -> tuple[str, str]:
    """Choose where a file is moved: a folder that exists, and the path of the target below it.

    In quarantine that is the top of the file's root, or of the mount inside it. Raises Refused.
    """
    root = find_root(path, roots)
    if root is None:
        raise Refused(f"{quote(path)} is below none of the store's folders")
    if action is Action.TRASH:
        return "", ""
    if action is Action.MOVE:
        base = header.destination or ""
    else:
        base = find_mount_top(root, split_path(path)[0])
    return base, _make_target(header, base, path, root, action)


def require_free(target: str) -> None:
    """Raise Refused if there is a file at a target already; in the trash there is none."""
    if target and os.path.lexists(target):
        raise Refused(f"a file is at {quote(target)} already")


def _make_target(header: RunHeader, base: str, path: str, root: str, action: Action) -> str:
    if action is Action.MOVE:
        relative = path[len(split_path(root)[0].rstrip("/")) + 1 :]
        return f"{base.rstrip('/')}/{relative}"
    relative = path[len(base.rstrip("/")) + 1 :]
    return f"{base.rstrip('/')}/{QUARANTINE_FOLDER_NAME}/{header.run}/{relative}"


def split_target(entry: Entry) -> tuple[list[str], str]:
    """Split the target of an entry into the folders below its base, and its name."""
    *steps, name = entry.target[len(entry.base.rstrip("/")) + 1 :].split("/")
    return steps, name


def is_away(header: RunHeader, entry: Entry) -> bool:
    """Tell if the folder that a file was moved below is not there: its drive is not mounted.

    The mount point of a drive that is away is an empty folder on another device. For the trash it
    is the innermost folder of the file that is there.
    """
    place = entry.base or _find_reached_folder(header, entry.path)
    if place is None:
        return True
    try:
        if os.stat(place).st_dev == entry.known_device:  # noqa: PTH116 - may be no UTF-8
            return False
        with os.scandir(place) as found:
            return next(found, None) is None
    except OSError:
        return True


def _find_reached_folder(header: RunHeader, path: str) -> str | None:
    """Find the innermost folder of a path that is there, at or below its root; None if none is."""
    root, folder = find_root(path, header.roots), split_path(path)[0]
    while root is not None and (folder == root or is_below(folder, [root])):
        if os.path.isdir(folder):  # noqa: PTH112 - may be no UTF-8
            return folder
        folder = split_path(folder)[0]
    return None


def require_known_places(header: RunHeader, entry: Entry, roots: Sequence[str]) -> None:
    """Raise Refused unless an entry names the places that its run would have chosen.

    `roots` are those of the store now: a journal can be edited. Since the run, a root may have come
    inside another one, so each root that the path lies below counts, and one of then that lies in
    a root of now.
    """
    path, base = entry.path, entry.base
    if find_root(path, roots) is None:
        raise Refused(
            f"{quote(path)} is below none of the store's folders; ingest its folder again"
        )
    if entry.is_merge and parse_name(path).suffix != XMP_SUFFIX:
        raise Refused(f"{quote(path)} is no sidecar")
    if entry.before is not None and entry.before.path != path:
        raise Refused(f"the journal names {quote(entry.before.path)} for {quote(path)}")
    if entry.action is Action.TRASH:
        return
    former = [root for root in header.roots if is_plain_path(root) and is_below(root, roots)]
    around = [root for root in (*roots, *former) if is_below(path, [root])]
    if entry.action is Action.MOVE:
        is_known = base == header.destination and is_plain_path(base)
    else:
        is_known = (base in around or is_below(base, around)) and is_below(path, [base])
    targets = {_make_target(header, base, path, root, entry.action) for root in around}
    if not is_known or entry.target not in targets:
        raise Refused(f"the journal names {quote(entry.target)}, where the run moved nothing")

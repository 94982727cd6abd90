"""Folders of photos that the catalog of another program knows by their paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from indexes.paths import quote
from pipeline.actions.folders import find_root, split_path

_MARKERS = {
    "digikam4.db": "digiKam finds tags and albums by the paths of photos: let it scan for new items"
    " afterwards, or tags of the photos that were moved are lost",
    ".immich": "Immich owns this folder: photos moved out of it stay in its database as broken"
    " assets; remove duplicates in Immich instead",
    ".ppstorage": "PhotoPrism keeps its cache and sidecar files here: index again afterwards",
    ".ppignore": "PhotoPrism indexes this folder: index again afterwards, or photos that were moved"
    " are shown as missing",
}
_LIGHTROOM_SUFFIX = ".lrcat"
_LIGHTROOM_ADVICE = (
    "Lightroom keeps edits, ratings and collections by the paths of photos: those that were moved"
    " are shown as missing, and their edits are lost to them"
)


def find_catalog_warnings(paths: Iterable[str], roots: Sequence[str]) -> list[str]:
    """Return a warning for each folder above `paths`, up to its root, that a catalog lies in.

    It names the program and what breaks for it. Sorted by folder.
    """
    folders = set[str]()
    for path in paths:
        root = find_root(path, roots)
        folder = split_path(path)[0]
        while root is not None and folder not in folders and len(folder) >= len(root):
            folders.add(folder)
            folder = split_path(folder)[0]
    return [warning for folder in sorted(folders) for warning in _inspect(folder)]


def _inspect(folder: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - may be no UTF-8
    except OSError:
        return []
    advice = [_MARKERS[name] for name in names if name in _MARKERS]
    if any(name.lower().endswith(_LIGHTROOM_SUFFIX) for name in names):
        advice.append(_LIGHTROOM_ADVICE)
    return [f"{quote(folder)}: {words}" for words in advice]

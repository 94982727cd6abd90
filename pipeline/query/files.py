"""The files of an answer: on disk as a user names them, and in the catalog."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Sequence

from indexes.records import CatalogFile, FileStat
from indexes.store import Store
from pipeline.decode.formats import FailureReason
from pipeline.decode.read import Failure
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.scan import SourceFile, is_below


def resolve_source(file: str) -> SourceFile | Failure:
    """Resolve links in a path and stat the file; a Failure if it is not a readable regular file."""
    path = file
    try:
        path = os.path.realpath(file)
        status = os.stat(path)  # noqa: PTH116 - the path may not be valid UTF-8
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        detail = getattr(error, "strerror", None) or str(error)
        return Failure(SourceFile(path), FailureReason.UNREADABLE, detail)
    source = SourceFile(path, FileStat.from_os_stat(status))
    if not stat.S_ISREG(status.st_mode):
        return Failure(source, FailureReason.NOT_A_PHOTO, "not a regular file")
    return source


def load_files(
    store: Store, image_ids: Sequence[int], folders: Sequence[str] = ()
) -> dict[int, list[LibraryFile]]:
    """Load the files that hold each of these images; with `folders`, only files below these.

    A file with several paths (hard links, links to folders) is listed once, by a path that is
    present if possible, then by the shortest. Images without such a file are left out.
    """
    images = dict(store.catalog.images.get(image_ids))
    files: dict[int, dict[tuple[int, int], CatalogFile]] = defaultdict(dict)
    for file in store.catalog.files.find_of_images(image_ids):
        if file.image_id is None or (folders and not is_below(file.path, folders)):
            continue
        by_inode = files[file.image_id]
        inode = (file.stat.device, file.stat.inode)
        if inode not in by_inode or _make_path_rank_key(file) < _make_path_rank_key(
            by_inode[inode]
        ):
            by_inode[inode] = file
    return {
        image_id: [
            LibraryFile(file.path, file.stat, images[image_id], file.is_missing)
            for file in by_inode.values()
        ]
        for image_id, by_inode in files.items()
    }


def _make_path_rank_key(file: CatalogFile) -> tuple[bool, int, str]:
    return file.is_missing, len(file.path), file.path

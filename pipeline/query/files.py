"""The files of an answer: on disk as a user names them, and in the catalog."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Mapping, Sequence

from indexes.records import CatalogFile, FileStat, Image
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

    A file with several paths (hard links, links to it or to a folder) is listed once, by the
    shortest that leads through no link, and a file that was moved since by its new path. Images
    without such a file are left out.
    """
    images = dict(store.catalog.images.get(image_ids))
    frame_counts = _load_frame_counts(store, images)
    # Paths of one file were of one inode when they were read; whether they still are, disks know.
    paths: dict[int, dict[int, list[CatalogFile]]] = defaultdict(lambda: defaultdict(list))
    for file in store.catalog.files.find_of_images(image_ids):
        if file.image_id is not None:
            paths[file.image_id][file.stat.inode].append(file)
    loaded = {
        image_id: [
            LibraryFile(
                file.path,
                file.stat,
                images[image_id],
                file.is_missing,
                frame_count=frame_counts.get(image_id, 1),
            )
            for of_one_inode in by_inode.values()
            for file in _select_paths(of_one_inode, folders)
        ]
        for image_id, by_inode in paths.items()
    }
    return {image_id: files for image_id, files in loaded.items() if files}


def _select_paths(files: Sequence[CatalogFile], folders: Sequence[str]) -> list[CatalogFile]:
    """Return one path of each file, below `folders` if there are any.

    `files` have one image and had one inode number. It tells little: a number is used again once
    a file is deleted or a drive is unmounted. Paths are of one file only if all of them exist now
    and are of one inode.
    """
    if len(files) == 1:
        return [file for file in files if not folders or is_below(file.path, folders)]
    statuses = [_stat(file.path) for file in files]
    present = [status for status in statuses if status is not None]
    selected: dict[object, CatalogFile] = {}
    for file, status in zip(files, statuses, strict=True):
        if folders and not is_below(file.path, folders):
            continue
        if status is None:
            if not any(_was_moved(file, there) for there in present):
                selected[file.path] = file
            continue
        inode = status.st_dev, status.st_ino
        if inode not in selected or _make_path_rank_key(file) < _make_path_rank_key(
            selected[inode]
        ):
            selected[inode] = file
    return list(selected.values())


def _was_moved(gone: CatalogFile, status: os.stat_result) -> bool:
    """Tell if a path is gone and its file is the one of this status.

    The drive of the path has to be there: the nearest folder that exists is on the same device.
    """
    is_same = (gone.stat.inode, gone.stat.mtime_ns) == (status.st_ino, status.st_mtime_ns)
    if not is_same or not _is_gone(gone.path):
        return False
    folder, above = None, gone.path
    while folder is None and above not in ("", "/"):
        above = os.path.dirname(above)  # noqa: PTH120 - the path may not be valid UTF-8
        folder = _stat(above)
    return folder is not None and folder.st_dev == status.st_dev


def _stat(path: str) -> os.stat_result | None:
    """Return the status of a path; None if it is not there, or does not answer."""
    try:
        return os.stat(path)  # noqa: PTH116 - the path may not be valid UTF-8
    except (OSError, ValueError):
        return None


def _is_gone(path: str) -> bool:
    """Tell if nothing is at a path; a path that does not answer may still be there."""
    try:
        os.stat(path)  # noqa: PTH116 - the path may not be valid UTF-8
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def is_file_at(path: str, stat: FileStat) -> bool:
    """Tell if a path is there now and is the file that has this stat."""
    status = _stat(path)
    return status is not None and (status.st_ino, status.st_dev) == (stat.inode, stat.device)


def _load_frame_counts(store: Store, images: Mapping[int, Image]) -> dict[int, int]:
    """Load how many images the file of each image has, of those that can have more than one."""
    several = [id_ for id_, image in images.items() if image.has_frames or image.format == "MPO"]
    return {
        image_id: metadata.frames.count
        for image_id, metadata in store.catalog.metadata.get(several)
        if metadata.frames
    }


def _make_path_rank_key(file: CatalogFile) -> tuple[bool, bool, int, str]:
    """Return what sorts the best path of a file first: its own, which leads through no link."""
    leads_through_link = os.path.realpath(file.path) != file.path
    return file.is_missing, leads_through_link, len(file.path), file.path

"""Find the second paths of files of groups: hard links, and paths that lead through a link."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from indexes.store import Store
from pipeline.actions.plan import LeftFile
from pipeline.grouping.cluster import Group


def find_second_paths(store: Store, groups: Sequence[Group]) -> Iterator[LeftFile]:
    """Yield the paths by which files of groups are reached a second time: they stay as well."""
    inodes, listed, group_by_hash = set[tuple[int, int]](), set[str](), dict[bytes, str]()
    for group in groups:
        for file in group.files:
            inodes.update(_find_inode(file.path))
            listed.add(file.path)
            group_by_hash[file.image.hash] = group.id
    ids = store.catalog.images.get_ids(list(group_by_hash))
    group_by_image = {ids[hash_]: id_ for hash_, id_ in group_by_hash.items() if hash_ in ids}
    for other in store.catalog.files.find_of_images(group_by_image):
        is_other = other.path not in listed and other.image_id is not None
        if is_other and not inodes.isdisjoint(_find_inode(other.path)):
            reason = "another path of a file that is listed: a hard link, or by a link"
            yield LeftFile(other.path, group_by_image[other.image_id or 0], reason)


def _find_inode(path: str) -> set[tuple[int, int]]:
    """Return the device and inode of the file that a path leads to; empty if it leads to none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - may be no UTF-8
    except (OSError, ValueError):
        return set()
    return {(status.st_dev, status.st_ino)}

"""Read files into a plan, as they are on disk now."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence

from indexes.paths import quote
from indexes.records import FileStat
from pipeline.actions.folders import Refused, find_root, opened_folder, split_path
from pipeline.actions.held_files import hash_name
from pipeline.actions.plan import Part
from pipeline.errors import PlanRefused
from pipeline.grouping.assets import AssetPart
from pipeline.grouping.keep_rules import LibraryFile

CHANGED = "changed since the last ingest; run `neardup ingest`"


class PlannedFiles:
    """Reads files into a plan, and remembers how many links each has."""

    def __init__(self, roots: Sequence[str], destination: str | None) -> None:
        """Read files below `roots`, to be moved to `destination` if that is given.

        Raises PlanRefused if that folder cannot be moved to.
        """
        self._roots = roots
        self._link_counts = dict[tuple[int, int], int]()
        self._read = dict[str, Part]()  # parts of assets, by path
        self._destination_device: int | None = None
        if destination is not None:
            self._destination_device = _stat_destination(destination)

    def require_device(self, part: Part) -> None:
        """Raise Refused unless a part is on the device of the folder to move to, if any."""
        if self._destination_device not in (None, part.stat.device):
            raise Refused("on another device than the folder to move to")

    def read_parts(self, parts: Iterable[AssetPart]) -> list[Part]:
        """Take parts of assets that are there into the plan, and hash them. Raises Refused."""
        return [self.read_part(part) for part in parts if not part.is_missing]

    def read_part(self, part: AssetPart) -> Part:
        """Take a part of an asset into the plan, and hash it once. Raises Refused."""
        if part.path not in self._read:
            now = self._stat(part.path, part.stat)
            folder_path, name = split_path(part.path)
            with opened_folder(folder_path) as folder:
                self._read[part.path] = Part(part.path, now, hash_name(folder, name, part.path))
        return self._read[part.path]

    def require_no_hard_link(self, parts: Iterable[AssetPart], kept: Sequence[AssetPart]) -> None:
        """Raise Refused if one of the parts of a victim is a hard link of one that is kept."""
        for part in parts:
            for other in kept:
                # Devices of two ingests can differ, so that inodes alone are compared first.
                is_same = part.stat.inode == other.stat.inode and not other.is_missing
                if is_same and self.read_part(part).inode == self.read_part(other).inode:
                    raise Refused(f"{quote(part.path)} is a hard link of a file of the keeper")

    def inspect(self, file: LibraryFile) -> Part:
        """Take a file into the plan as it is on disk now. Raises Refused."""
        now = self._stat(file.path, file.stat)
        if not file.is_present:
            raise Refused(CHANGED)
        return Part(file.path, now, file.image.hash.hex())

    def _stat(self, path: str, known: FileStat) -> FileStat:
        """Read the stat of a file that is as the store knows it. Raises Refused if it is not."""
        if find_root(path, self._roots) is None:
            raise Refused("below none of the store's folders")
        if os.path.realpath(path) != path:
            raise Refused("reached by a symbolic link")
        try:
            status = os.stat(path, follow_symlinks=False)  # noqa: PTH116 - may be no UTF-8
        except OSError as error:
            raise Refused(f"missing ({error.strerror})") from error
        if not stat.S_ISREG(status.st_mode):
            raise Refused("not a regular file")
        now = FileStat.from_os_stat(status)
        if not now.is_unchanged_since(known):
            raise Refused(CHANGED)
        self._link_counts[status.st_dev, status.st_ino] = status.st_nlink
        return now

    def sum_bytes_to_free(self, victims: Sequence[Part]) -> int:
        """Sum the bytes of files all of whose hard links are victims, each file once."""
        sizes = {part.inode: part.stat.size for part in victims}
        counts = Counter(part.inode for part in victims)
        return sum(
            sizes[inode] for inode, count in counts.items() if count >= self._link_counts[inode]
        )


def _stat_destination(folder: str) -> int:
    try:
        return os.stat(folder).st_dev  # noqa: PTH116 - may be no UTF-8
    except OSError as error:
        raise PlanRefused(f"{quote(folder)} cannot be moved to: {error.strerror}") from error

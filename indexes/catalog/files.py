"""Files with what they held when they were last read, and why some have no image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from indexes.catalog.database import Database
from indexes.catalog.images import ImageTable
from indexes.errors import StoreError
from indexes.records import (
    CatalogFile,
    Counts,
    FileStat,
    NewFile,
)


class FileTable:
    """Files with what they held when they were last read, and why some have no image."""

    def __init__(self, database: Database, images: ImageTable) -> None:
        """Use the tables of `database`; files refer to `images`."""
        self._database, self._images = database, images

    def get_by_path(self, path: str) -> CatalogFile | None:
        """What is held of `path`."""
        for known in self._stream("WHERE path = ?", os.fsencode(path)):
            return known
        return None

    def find_under(self, folder: str) -> Iterator[CatalogFile]:
        """All files held below the folder `root`, by path."""
        return self._stream(
            "WHERE path >= ? AND path < ? ORDER BY path", *_compute_path_range(folder)
        )

    def put(self, files: Iterable[NewFile]) -> None:
        """Write what `files` are now; their images must be there."""
        for file in files:
            stat = file.stat
            image = (
                self._images.get_ids([file.image_hash]).get(file.image_hash)
                if file.image_hash
                else None
            )
            if (image is None) == (file.reason is None):
                raise StoreError(
                    f"{ascii(file.path)} has neither a known image nor a reason for having none; add its image first"
                )
            (id_,) = self._database.write(
                "INSERT INTO files (path, size, mtime_ns, ctime_ns, inode, device, image)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (path) DO UPDATE SET size = excluded.size, mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns,"
                " inode = excluded.inode, device = excluded.device, missing = 0, image = excluded.image RETURNING id",
                os.fsencode(file.path),
                *(stat.size, stat.mtime_ns, stat.ctime_ns, stat.inode, stat.device, image),
            ).fetchone()
            if file.reason is None:
                self._database.write("DELETE FROM failures WHERE file = ?", id_)
            else:
                self._database.write(
                    "INSERT OR REPLACE INTO failures VALUES (?, ?, ?)",
                    id_,
                    file.reason,
                    file.detail,
                )

    def mark_present(self, devices: Mapping[int, int]) -> None:
        """Note that files, by id, are there, on these device numbers."""
        self._database.write_many(
            "UPDATE files SET device = ?, missing = 0 WHERE id = ?",
            ((device, id_) for id_, device in devices.items()),
        )

    def mark_missing(self, ids: Iterable[int]) -> None:
        """Note that files are not there now."""
        self._database.write_many(
            "UPDATE files SET missing = 1 WHERE id = ?", ((id_,) for id_ in ids)
        )

    def remove(self, ids: Iterable[int]) -> None:
        """Forget files; their images stay until compaction, so that a file that comes back costs no embedding."""
        self._database.write_many("DELETE FROM files WHERE id = ?", ((id_,) for id_ in ids))

    def find_of_images(self, image_ids: Iterable[int]) -> Iterator[CatalogFile]:
        """Every file that holds one of `images`."""
        columns = "id, path, size, mtime_ns, ctime_ns, inode, device, image, NULL, missing"
        return map(
            _make_catalog_file,
            self._database.stream_rows_in(
                f"SELECT {columns} FROM files WHERE image IN ({{}}) ORDER BY path", image_ids
            ),
        )

    def list_failures(self) -> Iterator[tuple[str, str, str]]:
        """(path, reason, detail) of each file without an image, by path."""
        for path, reason, detail in self._database.fetch_rows(
            "SELECT path, reason, detail FROM failures JOIN files ON file = files.id ORDER BY path"
        ):
            yield os.fsdecode(path), reason, detail or ""

    def get_counts(self, folders: Sequence[str] = ()) -> Counts:
        """What is held below the folders `under`, or everywhere."""
        where = " OR ".join("(path >= ? AND path < ?)" for _ in folders) or "1"
        bounds = [bound for folder in folders for bound in _compute_path_range(folder)]
        scope = f"FROM files WHERE image IS NOT NULL AND ({where})"
        ((files, missing),) = self._database.fetch_rows(
            f"SELECT count(*), ifnull(sum(missing), 0) {scope}", *bounds
        )
        sql = f"SELECT count(*), ifnull(sum(featureless), 0) FROM images WHERE id IN (SELECT image {scope})"
        ((images, featureless),) = self._database.fetch_rows(sql, *bounds)
        reasons = self._database.fetch_rows(
            f"SELECT reason, count(*) FROM failures JOIN files ON file = files.id WHERE {where} GROUP BY reason ORDER BY reason",
            *bounds,
        )
        sql = f"SELECT flags, count(*) FROM images WHERE flags != '' AND id IN (SELECT image {scope}) GROUP BY flags ORDER BY flags"
        noted: Counter[str] = Counter()
        for notes, count in self._database.fetch_rows(sql, *bounds):
            noted.update(dict.fromkeys(notes.split(), count))
        return Counts(files, missing, images, featureless, dict(reasons), dict(noted))

    def _stream(self, where: str, *values: Any) -> Iterator[CatalogFile]:
        sql = (
            "SELECT files.id, path, size, mtime_ns, ctime_ns, inode, device, image, reason, missing"
            " FROM files LEFT JOIN failures ON file = files.id "
        )
        return map(_make_catalog_file, self._database.stream_rows(sql + where, *values))


def _make_catalog_file(row: tuple[Any, ...]) -> CatalogFile:
    id_, path, size, mtime, ctime, inode, device, image, reason, missing = row
    return CatalogFile(
        id_,
        os.fsdecode(path),
        FileStat(size, mtime, ctime, inode, device),
        image,
        reason,
        bool(missing),
    )


def _compute_path_range(folder: str) -> tuple[bytes, bytes]:
    """The range of paths below a folder: "/" is the byte before "0"."""
    path = os.fsencode(folder).rstrip(b"/")
    return path + b"/", path + b"0"

"""The table of files, and why some of them have no image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from indexes.catalog.database import Database
from indexes.catalog.images import ImageTable
from indexes.coverage import UnreadablePath
from indexes.errors import StoreError
from indexes.records import CatalogFile, Counts, FileStat, FolderFile, NewFile


class FileTable:
    """The files of a store, by path, each with its stat and image when it was last read."""

    def __init__(self, database: Database, images: ImageTable) -> None:
        """Use the tables of `database`; files refer to `images`."""
        self._database, self._images = database, images

    def get_by_path(self, path: str) -> CatalogFile | None:
        """Return the file at `path`; None where the catalog has none."""
        for file in self._stream("WHERE path = ?", os.fsencode(path)):
            return file
        return None

    def find_under(self, folder: str) -> Iterator[CatalogFile]:
        """Yield all files below `folder`, ordered by path."""
        return self._stream(
            "WHERE path >= ? AND path < ? ORDER BY path", *_compute_path_range(folder)
        )

    def put(self, files: Iterable[NewFile]) -> None:
        """Write files, in the place of earlier ones with the same path.

        Raises StoreError for a file that has neither an image in the catalog nor a reason.
        """
        for file in files:
            image_id = None
            if file.image_hash:
                image_id = self._images.get_ids([file.image_hash]).get(file.image_hash)
            if (image_id is None) == (file.reason is None):
                raise StoreError(
                    f"{ascii(file.path)} has neither a known image nor a reason for having none;"
                    " add its image first"
                )
            file_id = self._put_file(file, image_id)
            if file.reason is None:
                self._database.write("DELETE FROM failures WHERE file = ?", file_id)
            else:
                self._database.write(
                    "INSERT OR REPLACE INTO failures VALUES (?, ?, ?)",
                    file_id,
                    file.reason,
                    file.detail,
                )

    def _put_file(self, file: NewFile, image_id: int | None) -> int:
        ((file_id,),) = self._database.write(
            "INSERT INTO files (path, size, mtime_ns, ctime_ns, inode, device, image)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (path) DO UPDATE SET size = excluded.size,"
            " mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns, inode = excluded.inode,"
            " device = excluded.device, missing = 0, image = excluded.image RETURNING id",
            os.fsencode(file.path),
            file.stat.size,
            file.stat.mtime_ns,
            file.stat.ctime_ns,
            file.stat.inode,
            file.stat.device,
            image_id,
        ).fetchall()
        return int(file_id)

    def mark_present(self, devices: Mapping[int, int]) -> None:
        """Note that files are there; `devices` has the device number of each, by file id."""
        self._database.write_many(
            "UPDATE files SET device = ?, missing = 0 WHERE id = ?",
            ((device, file_id) for file_id, device in devices.items()),
        )

    def mark_missing(self, ids: Iterable[int]) -> None:
        """Note that files are not there now."""
        self._database.write_many(
            "UPDATE files SET missing = 1 WHERE id = ?", ((file_id,) for file_id in ids)
        )

    def remove(self, ids: Iterable[int]) -> None:
        """Remove files.

        Their images stay until compaction, so that a file that comes back needs no embedding.
        """
        self._database.write_many("DELETE FROM files WHERE id = ?", ((file_id,) for file_id in ids))

    def find_of_images(self, image_ids: Iterable[int]) -> Iterator[CatalogFile]:
        """Yield every file that has one of `image_ids`, in chunks that are ordered by path."""
        columns = "id, path, size, mtime_ns, ctime_ns, inode, device, image, NULL, missing"
        sql = f"SELECT {columns} FROM files WHERE image IN ({{}}) ORDER BY path"
        return map(_make_catalog_file, self._database.stream_rows_in(sql, image_ids))

    def find_in_folder(self, folder: str) -> Iterator[FolderFile]:
        """Yield the files of a folder itself, not those of its folders, ordered by path."""
        start, end = _compute_path_range(folder)
        rows = self._database.stream_rows(
            "SELECT path, files.size, mtime_ns, ctime_ns, inode, device, hash, taken_at, missing,"
            " json_extract(record, '$.capture.content_id'), detail"
            " FROM files LEFT JOIN images ON images.id = files.image"
            " LEFT JOIN metadata ON metadata.image = files.image"
            " LEFT JOIN failures ON file = files.id"
            " WHERE path >= ? AND path < ? AND instr(substr(path, ?), x'2f') = 0 ORDER BY path",
            *(start, end, len(start) + 1),
        )
        for path, size, mtime_ns, ctime_ns, inode, device, *facts in rows:
            hash_, taken_at, missing, content_id, detail = facts
            stat = FileStat(size, mtime_ns, ctime_ns, inode, device)
            yield FolderFile(
                os.fsdecode(path), stat, hash_, taken_at, bool(missing), content_id, detail
            )

    def list_without_image_or_ending(self, suffixes: Iterable[str]) -> list[str]:
        """List the paths of files without an image, and of those that end with one of `suffixes`.

        These have 4 ASCII characters, in lower case; the case of the paths does not matter.
        """
        endings = [suffix.encode("ascii") for suffix in suffixes]
        found = self._database.fetch_rows(
            "SELECT path FROM files WHERE image IS NULL"
            f" OR CAST(lower(substr(path, -4)) AS BLOB) IN ({', '.join('?' * len(endings))})",
            *endings,
        )
        return [os.fsdecode(path) for (path,) in found]

    def list_failures(self) -> Iterator[UnreadablePath]:
        """Yield each file without an image, ordered by path."""
        rows = self._database.fetch_rows(
            "SELECT path, reason, detail FROM failures JOIN files ON file = files.id ORDER BY path"
        )
        for path, reason, detail in rows:
            yield UnreadablePath(os.fsdecode(path), reason, detail or None)

    def get_counts(self, folders: Sequence[str] = ()) -> Counts:
        """Count files and images below `folders`, or everywhere."""
        where = " OR ".join("(path >= ? AND path < ?)" for _ in folders) or "1"
        bounds = [bound for folder in folders for bound in _compute_path_range(folder)]
        scope = f"FROM files WHERE image IS NOT NULL AND ({where})"
        ((files, missing),) = self._database.fetch_rows(
            f"SELECT count(*), ifnull(sum(missing), 0) {scope}", *bounds
        )
        ((images, featureless),) = self._database.fetch_rows(
            "SELECT count(*), ifnull(sum(featureless), 0) FROM images"
            f" WHERE id IN (SELECT image {scope})",
            *bounds,
        )
        failures = self._database.fetch_rows(
            "SELECT reason, count(*) FROM failures JOIN files ON file = files.id"
            f" WHERE {where} GROUP BY reason ORDER BY reason",
            *bounds,
        )
        flagged: Counter[str] = Counter()
        rows = self._database.fetch_rows(
            f"SELECT flags, count(*) FROM images WHERE flags != '' AND id IN (SELECT image {scope})"
            " GROUP BY flags ORDER BY flags",
            *bounds,
        )
        for flags, count in rows:
            flagged.update(dict.fromkeys(flags.split(), count))
        return Counts(files, missing, images, featureless, dict(failures), dict(flagged))

    def _stream(self, where: str, *values: Any) -> Iterator[CatalogFile]:
        sql = (
            "SELECT files.id, path, size, mtime_ns, ctime_ns, inode, device, image, reason, missing"
            " FROM files LEFT JOIN failures ON file = files.id "
        )
        return map(_make_catalog_file, self._database.stream_rows(sql + where, *values))


def _make_catalog_file(row: tuple[Any, ...]) -> CatalogFile:
    file_id, path, size, mtime_ns, ctime_ns, inode, device, image_id, reason, missing = row
    return CatalogFile(
        file_id,
        os.fsdecode(path),
        FileStat(size, mtime_ns, ctime_ns, inode, device),
        image_id,
        reason,
        bool(missing),
    )


def _compute_path_range(folder: str) -> tuple[bytes, bytes]:
    """Return the bounds, first included and second excluded, of the paths below `folder`.

    "/" is the byte before "0".
    """
    path = os.fsencode(folder).rstrip(b"/")
    return path + b"/", path + b"0"

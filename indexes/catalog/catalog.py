"""The SQLite database of a store: what was seen, what it is, and where its vector lies. The one commit point."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from indexes.catalog.schema import SCHEMA_MIGRATIONS
from indexes.catalog.verdicts import VerdictTables
from indexes.errors import StoreDamaged, StoreError
from indexes.paths import format_command
from indexes.records import (
    CatalogFile,
    Counts,
    FileStat,
    Image,
    NewFile,
    Root,
    Run,
    SavedThresholds,
    Space,
)


class Catalog(VerdictTables):
    """What is asked of the database of one store, and what is written to it."""

    def __init__(self, folder: Path, *, write: bool) -> None:
        """Open `folder`/catalog.db; with `write`, make it when it is missing and bring an older one up to date."""
        super().__init__(folder / "catalog.db", SCHEMA_MIGRATIONS, write=write)

    def _parse_json(self, text: str) -> Any:  # noqa: ANN401 - whatever was written
        try:
            return json.loads(text)
        except ValueError as error:
            raise StoreDamaged(
                f"{self.path} is damaged ({error}); see `{format_command(self.path.parent, 'check')}`"
            ) from error

    # --- the space ---

    def get_space_and_model(self) -> tuple[Space, str] | None:
        """The space that the store is bound to and the model's name as it was given; None before the first ingest."""
        rows = self.fetch_rows(
            "SELECT backend, model, weights, preprocess, dim, floor, threshold, model_name FROM space"
        )
        return (Space(*rows[0][:7]), rows[0][7]) if rows else None

    def put_space(self, space: Space, model: str) -> None:
        """Bind the store to `space`, reached as the model `source`."""
        self.write(
            "INSERT OR REPLACE INTO space VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)",
            *astuple(space),
            model,
        )

    def get_saved_thresholds(self) -> SavedThresholds | None:
        """What was chosen to go by; None where nothing was."""
        rows = self.fetch_rows("SELECT threshold, min_agreement FROM saved_thresholds")
        return SavedThresholds(*rows[0]) if rows else None

    def put_saved_thresholds(self, thresholds: SavedThresholds | None) -> None:
        """Go by it from now on, or by none."""
        self.write("DELETE FROM saved_thresholds")
        if thresholds:
            self.write(
                "INSERT INTO saved_thresholds VALUES (1, ?, ?)",
                thresholds.threshold,
                thresholds.min_agreement,
            )

    def is_empty(self) -> bool:
        """Whether it has no image, vector or segment, so that no space has any claim to it."""
        ((some,),) = self.fetch_rows(
            "SELECT EXISTS (SELECT 1 FROM images UNION ALL SELECT 1 FROM vectors UNION ALL SELECT 1 FROM segments)"
        )
        return not some

    # --- roots and files ---

    def list_roots(self) -> list[Root]:
        """All remembered roots, by path."""
        rows = self.fetch_rows("SELECT path, excludes, include_hidden FROM roots ORDER BY path")
        return [
            Root(os.fsdecode(path), tuple(self._parse_json(excludes)), bool(hidden))
            for path, excludes, hidden in rows
        ]

    def put_root(self, root: Root) -> None:
        """Remember `root`, or what is new of it."""
        self.write(
            "INSERT OR REPLACE INTO roots VALUES (?, ?, ?)",
            os.fsencode(root.path),
            json.dumps(root.excludes),
            int(root.include_hidden),
        )

    def get_file_by_path(self, path: str) -> CatalogFile | None:
        """What is held of `path`."""
        for known in self._stream_files("WHERE path = ?", os.fsencode(path)):
            return known
        return None

    def find_files_under(self, folder: str) -> Iterator[CatalogFile]:
        """All files held below the folder `root`, by path."""
        return self._stream_files(
            "WHERE path >= ? AND path < ? ORDER BY path", *_compute_path_range(folder)
        )

    def _stream_files(self, where: str, *values: Any) -> Iterator[CatalogFile]:
        sql = (
            "SELECT files.id, path, size, mtime_ns, ctime_ns, inode, device, image, reason, missing"
            " FROM files LEFT JOIN failures ON file = files.id "
        )
        return map(_make_catalog_file, self.stream_rows(sql + where, *values))

    def put_files(self, files: Iterable[NewFile]) -> None:
        """Write what `files` are now; their images must be there."""
        for file in files:
            stat = file.stat
            image = (
                self.get_image_ids([file.image_hash]).get(file.image_hash)
                if file.image_hash
                else None
            )
            if (image is None) == (file.reason is None):
                raise StoreError(
                    f"{ascii(file.path)} has neither a known image nor a reason for having none; add its image first"
                )
            (id_,) = self.write(
                "INSERT INTO files (path, size, mtime_ns, ctime_ns, inode, device, image)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (path) DO UPDATE SET size = excluded.size, mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns,"
                " inode = excluded.inode, device = excluded.device, missing = 0, image = excluded.image RETURNING id",
                os.fsencode(file.path),
                *(stat.size, stat.mtime_ns, stat.ctime_ns, stat.inode, stat.device, image),
            ).fetchone()
            if file.reason is None:
                self.write("DELETE FROM failures WHERE file = ?", id_)
            else:
                self.write(
                    "INSERT OR REPLACE INTO failures VALUES (?, ?, ?)",
                    id_,
                    file.reason,
                    file.detail,
                )

    def mark_files_present(self, devices: Mapping[int, int]) -> None:
        """Note that files, by id, are there, on these device numbers."""
        self.write_many(
            "UPDATE files SET device = ?, missing = 0 WHERE id = ?",
            ((device, id_) for id_, device in devices.items()),
        )

    def mark_files_missing(self, ids: Iterable[int]) -> None:
        """Note that files are not there now."""
        self.write_many("UPDATE files SET missing = 1 WHERE id = ?", ((id_,) for id_ in ids))

    def remove_root(self, path: str) -> None:
        """Look through the folder `path` no more."""
        self.write("DELETE FROM roots WHERE path = ?", os.fsencode(path))

    def remove_files(self, ids: Iterable[int]) -> None:
        """Forget files; their images stay until compaction, so that a file that comes back costs no embedding."""
        self.write_many("DELETE FROM files WHERE id = ?", ((id_,) for id_ in ids))

    def find_files_of_images(self, image_ids: Iterable[int]) -> Iterator[CatalogFile]:
        """Every file that holds one of `images`."""
        columns = "id, path, size, mtime_ns, ctime_ns, inode, device, image, NULL, missing"
        return map(
            _make_catalog_file,
            self.stream_rows_in(
                f"SELECT {columns} FROM files WHERE image IN ({{}}) ORDER BY path", image_ids
            ),
        )

    # --- images ---

    def get_next_image_id(self) -> int:
        """The id that the next new image gets; ids are never used twice."""
        return self._get_next_id("images")

    def put_image(self, image_id: int, image: Image, vector_id: int | None) -> None:
        """Write a new image; `vector` is None when it has none."""
        self.write(
            "INSERT INTO images (id, hash, pixel_hash, width, height, format, size, featureless, flags, metadata, taken_at, vector)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(
                image_id,
                image.hash,
                image.pixel_hash,
                image.width,
                image.height,
                image.format,
                image.size,
                image.is_featureless,
            ),
            *(" ".join(image.flags), " ".join(image.metadata), image.taken_at, vector_id),
        )

    def update_image(self, image_id: int, image: Image, vector_id: int | None) -> None:
        """Give an image that was embedded again its vector, and what else depends on how the model is shown it."""
        sql = "UPDATE images SET pixel_hash = ?, featureless = ?, flags = ?, metadata = ?, taken_at = ?, vector = ? WHERE id = ?"
        words = " ".join(image.flags), " ".join(image.metadata)
        self.write(
            sql, image.pixel_hash, image.is_featureless, *words, image.taken_at, vector_id, image_id
        )

    def replace_vectors_from(self, attached_name: str) -> None:
        """Put the space, vectors and pairs of a catalog that is `beside`, under the name `other`, in the place of one's own.

        Images are the same by their hash. Those that the other does not have wait to be embedded, unless no file holds them. Segments are
        to be put by the caller.
        """
        self.write("UPDATE images SET vector = NULL, featureless = 0")
        for table in (
            "edges",
            "join_watermark",
            "segments",
            "vectors",
            "space",
            "saved_thresholds",
        ):  # what was chosen was for the other model
            self.write(f"DELETE FROM {table}")
        # Ids of vectors begin anew: nothing that is read outside of one snapshot goes by them.
        for table in ("space", "vectors", "edges", "join_watermark"):
            self.write(f"INSERT INTO {table} SELECT * FROM {attached_name}.{table}")
        self.write(
            "UPDATE images SET pixel_hash = new.pixel_hash, featureless = new.featureless, flags = new.flags, metadata = new.metadata,"
            " taken_at = new.taken_at, vector = new.vector"
            f" FROM {attached_name}.images AS new WHERE new.hash = images.hash"
        )
        self.write(
            "DELETE FROM images WHERE vector IS NULL AND NOT EXISTS (SELECT 1 FROM files WHERE image = images.id)"
        )
        # The pairs are no longer those that the ingests before found.
        now, joined = (
            "strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now')",
            f"(SELECT coverage FROM {attached_name}.runs ORDER BY id DESC LIMIT 1)",
        )
        self.write(
            f"INSERT INTO runs (started, ended, outcome, coverage) SELECT {now}, {now}, 'migrated', ifnull({joined}, '{{}}')"
        )

    def find_unembedded_images(self) -> set[int]:
        """Images that some file holds and whose vector was lost."""
        sql = "SELECT id FROM images WHERE vector IS NULL AND NOT featureless AND EXISTS (SELECT 1 FROM files WHERE image = images.id)"
        return {row[0] for row in self.fetch_rows(sql)}

    def get_image_ids(self, hashes: Sequence[bytes]) -> dict[bytes, int]:
        """The ids of those `hashes` that are known."""
        return dict(self.stream_rows_in("SELECT hash, id FROM images WHERE hash IN ({})", hashes))

    def find_complete_hashes(self, hashes: Iterable[bytes]) -> set[bytes]:
        """Those `hashes` that are known and have all that they need: a vector, or no features."""
        sql = "SELECT hash FROM images WHERE (vector IS NOT NULL OR featureless) AND hash IN ({})"
        return {row[0] for row in self.stream_rows_in(sql, hashes)}

    def get_images(self, ids: Iterable[int]) -> Iterator[tuple[int, Image]]:
        """(id, image) of each of `ids`."""
        sql = "SELECT id, hash, pixel_hash, width, height, format, size, featureless, flags, metadata, taken_at FROM images WHERE id IN ({})"
        for (
            id_,
            hash_,
            pixels,
            width,
            height,
            format_,
            size,
            featureless,
            notes,
            metadata,
            taken,
        ) in self.stream_rows_in(sql, ids):
            words = tuple(notes.split()), tuple(metadata.split())
            yield (
                id_,
                Image(
                    hash_, pixels, width, height, format_, size, bool(featureless), *words, taken
                ),
            )

    def find_images_by_pixel_hash(self, pixel_hash: bytes) -> list[int]:
        """Ids of the images with these upright pixels that some file holds."""
        sql = "SELECT id FROM images WHERE pixel_hash = ? AND EXISTS (SELECT 1 FROM files WHERE image = images.id) ORDER BY id"
        return [row[0] for row in self.fetch_rows(sql, pixel_hash)]

    def find_images_with_copies(self) -> list[tuple[int, int | None]]:
        """List (image, vector) of images that share their vector with another image or have several files, and (image, None) of images
        without a vector.
        """
        shared = (
            "SELECT id, vector FROM images WHERE vector IN (SELECT vector FROM images GROUP BY vector HAVING count(*) > 1)"
            " OR vector IS NOT NULL AND id IN (SELECT image FROM files GROUP BY image HAVING count(*) > 1)"
        )
        return self.fetch_rows(shared) + self.fetch_rows(
            "SELECT id, NULL FROM images WHERE vector IS NULL ORDER BY id"
        )

    def list_images_in_use(self) -> list[int]:
        """Ids of the images that a file holds, in order."""
        return [
            row[0]
            for row in self.fetch_rows(
                "SELECT id FROM images WHERE EXISTS (SELECT 1 FROM files WHERE image = images.id) ORDER BY id"
            )
        ]

    def stream_hashes_in_use(self) -> Iterator[bytes]:
        """Hashes of the images that a file holds."""
        for (hash_,) in self.stream_rows(
            "SELECT hash FROM images WHERE EXISTS (SELECT 1 FROM files WHERE image = images.id)"
        ):
            yield hash_

    def get_counts(self, folders: Sequence[str] = ()) -> Counts:
        """What is held below the folders `under`, or everywhere."""
        where = " OR ".join("(path >= ? AND path < ?)" for _ in folders) or "1"
        bounds = [bound for folder in folders for bound in _compute_path_range(folder)]
        scope = f"FROM files WHERE image IS NOT NULL AND ({where})"
        ((files, missing),) = self.fetch_rows(
            f"SELECT count(*), ifnull(sum(missing), 0) {scope}", *bounds
        )
        sql = f"SELECT count(*), ifnull(sum(featureless), 0) FROM images WHERE id IN (SELECT image {scope})"
        ((images, featureless),) = self.fetch_rows(sql, *bounds)
        reasons = self.fetch_rows(
            f"SELECT reason, count(*) FROM failures JOIN files ON file = files.id WHERE {where} GROUP BY reason ORDER BY reason",
            *bounds,
        )
        sql = f"SELECT flags, count(*) FROM images WHERE flags != '' AND id IN (SELECT image {scope}) GROUP BY flags ORDER BY flags"
        noted: Counter[str] = Counter()
        for notes, count in self.fetch_rows(sql, *bounds):
            noted.update(dict.fromkeys(notes.split(), count))
        return Counts(files, missing, images, featureless, dict(reasons), dict(noted))

    def list_failures(self) -> Iterator[tuple[str, str, str]]:
        """(path, reason, detail) of each file without an image, by path."""
        for path, reason, detail in self.fetch_rows(
            "SELECT path, reason, detail FROM failures JOIN files ON file = files.id ORDER BY path"
        ):
            yield os.fsdecode(path), reason, detail or ""

    # --- runs ---

    def begin_run(self, started: str) -> int:
        """Note that an ingest began; returns its number. A run that was cut off stays marked as running until the next one begins."""
        self.write("UPDATE runs SET outcome = 'interrupted' WHERE outcome = 'running'")
        done = self.write(
            "INSERT INTO runs (started, outcome, coverage) VALUES (?, 'running', '{}')", started
        )
        assert done.lastrowid is not None
        return done.lastrowid

    def get_newest_run_key(self) -> str:
        """What names the newest run, whatever became of it; "" before the first."""
        return next(
            (
                name
                for (name,) in self.fetch_rows(
                    "SELECT id || ' ' || started FROM runs ORDER BY id DESC LIMIT 1"
                )
            ),
            "",
        )

    def has_run(self, run_key: str) -> bool:
        """Whether there was a run that newest_run() named so."""
        return bool(self.fetch_rows("SELECT 1 FROM runs WHERE id || ' ' || started = ?", run_key))

    def end_run(self, run_id: int, ended: str, outcome: str, coverage: dict[str, Any]) -> None:
        """Note how a run ended and what it saw."""
        self.write(
            "UPDATE runs SET ended = ?, outcome = ?, coverage = ? WHERE id = ?",
            ended,
            outcome,
            json.dumps(coverage),
            run_id,
        )

    def get_last_join(self) -> dict[str, Any] | None:
        """How the newest ingest that joined anything, or the migration after it, did so; None where nothing was joined since."""
        sql = "SELECT coverage FROM runs WHERE outcome = 'migrated' OR json_extract(coverage, '$.join') IS NOT NULL ORDER BY id DESC LIMIT 1"
        for (coverage,) in self.fetch_rows(sql):
            found: dict[str, Any] | None = self._parse_json(coverage).get("join")
            return found
        return None

    def get_last_run(self) -> Run | None:
        """The newest ingest."""
        sql = "SELECT started, ended, outcome, coverage FROM runs WHERE outcome != 'migrated' ORDER BY id DESC LIMIT 1"
        for started, ended, outcome, coverage in self.fetch_rows(sql):
            return Run(started, ended, outcome, self._parse_json(coverage))
        return None


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

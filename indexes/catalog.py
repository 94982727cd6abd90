"""The SQLite database of a store: what was seen, what it is, and where its vector lies. The one commit point."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from indexes import durable
from indexes.errors import NoSpace, StoreDamaged, StoreError, StoreMissing, StoreVersion

APPLICATION = 0x6E647570  # "ndup", so that `file` and we can tell our database from another
CHUNK = 500  # host parameters in one statement; SQLite's own limit is far higher, its planner's patience is not
WRITE_WAIT = 60.0  # seconds to wait for the milliseconds that another writer's transaction takes


@dataclass(frozen=True)
class Space:
    """The vector space of a store; two vectors compare only inside one space.

    `floor` and `threshold` are the scores that were calibrated for the space: no answer goes below the floor, and the
    threshold is the default. They do not tell two spaces apart.
    """

    backend: str
    model: str
    weights: str
    preprocess: str
    dim: int
    floor: float = field(compare=False)
    threshold: float = field(compare=False)

    def __str__(self) -> str:
        """The space in a few words, for messages."""
        return f"{self.model} ({self.dim} dimensions, weights {self.weights[:12]}, {self.preprocess})"


@dataclass(frozen=True, slots=True)
class Stat:
    """What the filesystem says of a file; times in nanoseconds."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    def unchanged(self, before: Stat) -> bool:
        """Whether the content can be taken as the same. The device number is left out: it may differ after each mount."""
        return (self.size, self.mtime_ns, self.ctime_ns, self.inode) == (before.size, before.mtime_ns, before.ctime_ns, before.inode)


@dataclass(frozen=True, slots=True)
class Image:
    """One distinct content. `hash` is the blake3 of its bytes, `pixels` a hash that equals another's only if the upright pixels do."""

    hash: bytes
    pixels: bytes
    width: int
    height: int
    format: str
    size: int
    featureless: bool


@dataclass(frozen=True, slots=True)
class File:
    """A path, what it was when it was read, and either the hash of its image or the reason why there is none."""

    path: str
    stat: Stat
    image: bytes | None
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What the catalog holds of a path that was seen before."""

    id: int
    path: str
    stat: Stat
    image: int | None
    reason: str | None
    missing: bool  # not there when it was last looked for, but perhaps only its drive is away


@dataclass(frozen=True)
class Root:
    """A folder that `ingest` looks through every time."""

    path: str
    excludes: tuple[str, ...] = ()
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """Photos and those of them that are missing, distinct images and those that are featureless, files without an image by reason."""

    files: int
    missing: int
    images: int
    featureless: int
    without_picture: dict[str, int]


@dataclass(frozen=True, slots=True)
class Run:
    """An ingest: when (UTC, ISO 8601), how it ended ("running", "complete" or "interrupted"), and what it saw."""

    started: str
    ended: str | None
    outcome: str
    coverage: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """An immutable file of vectors: its blake3 is its name, and what is committed is that hash."""

    id: int
    blake3: str
    rows: int
    size: int


def _first_schema(db: sqlite3.Connection) -> None:
    db.execute(
        "CREATE TABLE space (one INTEGER PRIMARY KEY CHECK (one = 1), backend TEXT NOT NULL, model TEXT NOT NULL, weights TEXT NOT NULL,"
        " preprocess TEXT NOT NULL, dim INTEGER NOT NULL, floor REAL NOT NULL, threshold REAL NOT NULL, source TEXT NOT NULL) STRICT"
    )
    db.execute("CREATE TABLE roots (path BLOB PRIMARY KEY, excludes TEXT NOT NULL, hidden INTEGER NOT NULL) STRICT, WITHOUT ROWID")
    db.execute(
        "CREATE TABLE segments (id INTEGER PRIMARY KEY, blake3 TEXT NOT NULL UNIQUE, rows INTEGER NOT NULL, size INTEGER NOT NULL) STRICT"
    )
    # AUTOINCREMENT: an id that was once in a segment never comes to mean another image.
    db.execute(
        "CREATE TABLE images (id INTEGER PRIMARY KEY AUTOINCREMENT, hash BLOB NOT NULL UNIQUE, pixels BLOB NOT NULL,"
        " width INTEGER NOT NULL, height INTEGER NOT NULL, format TEXT NOT NULL, size INTEGER NOT NULL, featureless INTEGER NOT NULL,"
        " segment INTEGER REFERENCES segments (id)) STRICT"
    )
    db.execute("CREATE INDEX images_by_pixels ON images (pixels)")
    db.execute(
        "CREATE TABLE files (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,"
        " ctime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, device INTEGER NOT NULL,"
        " missing INTEGER NOT NULL DEFAULT 0, image INTEGER REFERENCES images (id)) STRICT"
    )
    db.execute("CREATE INDEX files_by_image ON files (image)")
    db.execute(
        "CREATE TABLE failures (file INTEGER PRIMARY KEY REFERENCES files (id) ON DELETE CASCADE, reason TEXT NOT NULL, detail TEXT) STRICT"
    )
    db.execute(
        "CREATE TABLE runs (id INTEGER PRIMARY KEY, started TEXT NOT NULL, ended TEXT, outcome TEXT NOT NULL,"
        " coverage TEXT NOT NULL) STRICT"
    )


MIGRATIONS = (_first_schema,)  # run in order; user_version counts those done. Append only.


class Catalog:
    """The database of one store. One process writes at a time; readers see the last commit and are never blocked."""

    def __init__(self, folder: Path, *, write: bool) -> None:
        """Open `folder`/catalog.db; with `write`, make it when it is missing and bring an older one up to date."""
        self.path = folder / "catalog.db"
        self._write_lock = folder / "write.lock"
        self._writable = write
        if not write and not os.path.lexists(self.path) and (os.access(folder, os.X_OK) or not os.path.lexists(folder)):
            raise StoreMissing(f"there is no store in {folder}; make one with `neardup ingest FOLDER`, or name another with --store")
        mode = "rwc" if write else "ro"
        try:
            # Several threads may ask whether an image is known; SQLite itself takes care that they do so one at a time.
            uri = f"file:{quote(os.fsencode(self.path))}?mode={mode}"
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30.0, check_same_thread=False)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be opened: {error}; check the folder's permissions") from error
        try:
            self._prepare(write)
        except sqlite3.OperationalError as error:
            self._db.close()
            raise StoreError(f"{self.path} cannot be read: {error}; check the folder's permissions") from error
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise StoreVersion(f"{self.path} is no neardup store ({error}); name another folder with --store") from error
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, write: bool) -> None:
        self._db.execute("PRAGMA foreign_keys = ON")
        if write:
            with durable.lock(self._write_lock, WRITE_WAIT):
                self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
        version = self._version()
        if write and version < len(MIGRATIONS):
            with self.transaction():
                for number in range(self._version(), len(MIGRATIONS)):
                    MIGRATIONS[number](self._db)
                self._db.execute(f"PRAGMA application_id = {APPLICATION}")
                self._db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        elif version == 0:
            raise StoreMissing(f"{self.path} is an empty store; fill it with `neardup ingest FOLDER`")
        elif version < len(MIGRATIONS):
            raise StoreVersion(f"{self.path} has the older format {version}; `neardup ingest` brings it up to date")

    def _version(self) -> int:
        application: int = self._db.execute("PRAGMA application_id").fetchone()[0]
        version: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        tables: int = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != APPLICATION and (version or tables):
            raise StoreVersion(f"{self.path} is a database of another program; name another folder with --store")
        if version > len(MIGRATIONS):
            raise StoreVersion(
                f"{self.path} has format {version}, this neardup reads up to {len(MIGRATIONS)}; upgrade neardup, or name another --store"
            )
        return version

    def close(self) -> None:
        """Let go of the database."""
        if self._writable:
            with durable.lock(self._write_lock, WRITE_WAIT):  # the last one out moves the log into the database
                self._db.close()
        else:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all that the block writes visible at once, or none of it."""
        with durable.lock(self._write_lock, WRITE_WAIT):
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError) and ("full" in str(error) or "disk I/O" in str(error)):
                    raise NoSpace(f"no room to write {self.path} ({error}); free some space and run again, nothing is lost") from error
                raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all that the block reads come from one commit, however many others follow meanwhile."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            with suppress(sqlite3.DatabaseError):  # nothing was written; what was wrong with reading has been raised
                self._db.execute("ROLLBACK")

    def _stream(self, sql: str, *values: Any) -> Iterator[Any]:
        try:
            with closing(self._db.execute(sql, values)) as cursor:
                yield from cursor
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise StoreDamaged(f"{self.path} is damaged ({error}); restore it from a backup, or ingest into a new --store") from error
            raise

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        return list(self._stream(sql, *values))

    def _rows_for(self, sql: str, values: Iterable[Any]) -> Iterator[Any]:
        """Rows of `sql`, whose {} stands for a list of values, asked for in chunks."""
        wanted = list(values)
        for start in range(0, len(wanted), CHUNK):
            chunk = wanted[start : start + CHUNK]
            yield from self._rows(sql.format(",".join("?" * len(chunk))), *chunk)

    # --- the space ---

    def space(self) -> tuple[Space, str] | None:
        """The space that the store is bound to and the model's name as it was given; None before the first ingest."""
        rows = self._rows("SELECT backend, model, weights, preprocess, dim, floor, threshold, source FROM space")
        return (Space(*rows[0][:7]), rows[0][7]) if rows else None

    def put_space(self, space: Space, source: str) -> None:
        """Bind the store to `space`, reached as the model `source`."""
        self._db.execute("INSERT OR REPLACE INTO space VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)", (*astuple(space), source))

    # --- roots and files ---

    def roots(self) -> list[Root]:
        """All remembered roots, by path."""
        rows = self._rows("SELECT path, excludes, hidden FROM roots ORDER BY path")
        return [Root(os.fsdecode(path), tuple(json.loads(excludes)), bool(hidden)) for path, excludes, hidden in rows]

    def put_root(self, root: Root) -> None:
        """Remember `root`, or what is new of it."""
        self._db.execute(
            "INSERT OR REPLACE INTO roots VALUES (?, ?, ?)", (os.fsencode(root.path), json.dumps(root.excludes), int(root.hidden))
        )

    def known(self, path: str) -> Known | None:
        """What is held of `path`."""
        for known in self._known("WHERE path = ?", os.fsencode(path)):
            return known
        return None

    def known_under(self, root: str) -> Iterator[Known]:
        """All files held below the folder `root`, by path."""
        return self._known("WHERE path >= ? AND path < ? ORDER BY path", *_below(root))

    def _known(self, where: str, *values: Any) -> Iterator[Known]:
        sql = (
            "SELECT files.id, path, size, mtime_ns, ctime_ns, inode, device, image, reason, missing"
            " FROM files LEFT JOIN failures ON file = files.id "
        )
        return map(_known, self._stream(sql + where, *values))

    def put_files(self, files: Iterable[File]) -> None:
        """Write what `files` are now; their images must be there."""
        for file in files:
            stat = file.stat
            image = self.image_ids([file.image]).get(file.image) if file.image else None
            if (image is None) == (file.reason is None):
                raise StoreError(f"{ascii(file.path)} has neither a known image nor a reason for having none; add its image first")
            (id_,) = self._db.execute(
                "INSERT INTO files (path, size, mtime_ns, ctime_ns, inode, device, image)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (path) DO UPDATE SET size = excluded.size, mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns,"
                " inode = excluded.inode, device = excluded.device, missing = 0, image = excluded.image RETURNING id",
                (os.fsencode(file.path), stat.size, stat.mtime_ns, stat.ctime_ns, stat.inode, stat.device, image),
            ).fetchone()
            if file.reason is None:
                self._db.execute("DELETE FROM failures WHERE file = ?", (id_,))
            else:
                self._db.execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?)", (id_, file.reason, file.detail))

    def put_found(self, devices: Mapping[int, int]) -> None:
        """Note that files, by id, are there, on these device numbers."""
        self._db.executemany("UPDATE files SET device = ?, missing = 0 WHERE id = ?", ((device, id_) for id_, device in devices.items()))

    def put_missing(self, ids: Iterable[int]) -> None:
        """Note that files are not there now."""
        self._db.executemany("UPDATE files SET missing = 1 WHERE id = ?", ((id_,) for id_ in ids))

    def remove_root(self, path: str) -> None:
        """Look through the folder `path` no more."""
        self._db.execute("DELETE FROM roots WHERE path = ?", (os.fsencode(path),))

    def remove_files(self, ids: Iterable[int]) -> None:
        """Forget files; their images stay until compaction, so that a file that comes back costs no embedding."""
        self._db.executemany("DELETE FROM files WHERE id = ?", ((id_,) for id_ in ids))

    def files_of(self, images: Iterable[int]) -> Iterator[Known]:
        """Every file that holds one of `images`."""
        columns = "id, path, size, mtime_ns, ctime_ns, inode, device, image, NULL, missing"
        return map(_known, self._rows_for(f"SELECT {columns} FROM files WHERE image IN ({{}}) ORDER BY path", images))

    # --- images and segments ---

    def put_segment(self, blake3: str, rows: int, size: int) -> int:
        """Name a segment that is on disk; returns its id."""
        done = self._db.execute("INSERT INTO segments (blake3, rows, size) VALUES (?, ?, ?)", (blake3, rows, size))
        assert done.lastrowid is not None
        return done.lastrowid

    def segments(self) -> list[SegmentRow]:
        """All segments, oldest first."""
        return [SegmentRow(*row) for row in self._rows("SELECT id, blake3, rows, size FROM segments ORDER BY id")]

    def next_image(self) -> int:
        """The id that the next new image gets; ids are never used twice."""
        rows = self._rows("SELECT seq FROM sqlite_sequence WHERE name = 'images'")
        return int(rows[0][0]) + 1 if rows else 1

    def put_image(self, id_: int, image: Image, segment: int | None) -> None:
        """Write a new image; `segment` holds its vector, None when it has none."""
        self._db.execute(
            "INSERT INTO images (id, hash, pixels, width, height, format, size, featureless, segment) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (id_, *astuple(image), segment),
        )

    def image_ids(self, hashes: Sequence[bytes]) -> dict[bytes, int]:
        """The ids of those `hashes` that are known."""
        return dict(self._rows_for("SELECT hash, id FROM images WHERE hash IN ({})", hashes))

    def images(self, ids: Iterable[int]) -> Iterator[tuple[int, Image]]:
        """(id, image) of each of `ids`."""
        sql = "SELECT id, hash, pixels, width, height, format, size, featureless FROM images WHERE id IN ({})"
        for id_, hash_, pixels, width, height, format_, size, featureless in self._rows_for(sql, ids):
            yield id_, Image(hash_, pixels, width, height, format_, size, bool(featureless))

    def images_with_pixels(self, pixels: bytes) -> list[int]:
        """Ids of the images with these upright pixels that some file holds."""
        sql = "SELECT id FROM images WHERE pixels = ? AND EXISTS (SELECT 1 FROM files WHERE image = images.id) ORDER BY id"
        return [row[0] for row in self._rows(sql, pixels)]

    def images_with_many_files(self) -> list[int]:
        """Ids of the images that more than one file holds."""
        return [row[0] for row in self._rows("SELECT image FROM files WHERE image IS NOT NULL GROUP BY image HAVING count(*) > 1")]

    def live(self, under: Sequence[str] = ()) -> list[tuple[int, bytes]]:
        """(id, pixels) of each image that a file holds, below the folders `under` when any are given, in the order of their hashes."""
        where = " OR ".join("(path >= ? AND path < ?)" for _ in under) or "1"
        bounds = [bound for folder in under for bound in _below(folder)]
        sql = f"SELECT id, pixels FROM images WHERE id IN (SELECT image FROM files WHERE {where}) ORDER BY hash"
        return self._rows(sql, *bounds)

    def counts(self, under: Sequence[str] = ()) -> Counts:
        """What is held below the folders `under`, or everywhere."""
        where = " OR ".join("(path >= ? AND path < ?)" for _ in under) or "1"
        bounds = [bound for folder in under for bound in _below(folder)]
        scope = f"FROM files WHERE image IS NOT NULL AND ({where})"
        ((files, missing),) = self._rows(f"SELECT count(*), ifnull(sum(missing), 0) {scope}", *bounds)
        sql = f"SELECT count(*), ifnull(sum(featureless), 0) FROM images WHERE id IN (SELECT image {scope})"
        ((images, featureless),) = self._rows(sql, *bounds)
        reasons = self._rows(
            f"SELECT reason, count(*) FROM failures JOIN files ON file = files.id WHERE {where} GROUP BY reason ORDER BY reason", *bounds
        )
        return Counts(files, missing, images, featureless, dict(reasons))

    def failures(self) -> Iterator[tuple[str, str, str]]:
        """(path, reason, detail) of each file without an image, by path."""
        for path, reason, detail in self._rows("SELECT path, reason, detail FROM failures JOIN files ON file = files.id ORDER BY path"):
            yield os.fsdecode(path), reason, detail or ""

    # --- runs ---

    def begin_run(self, started: str) -> int:
        """Note that an ingest began; returns its number. A run that was cut off stays marked as running until the next one begins."""
        self._db.execute("UPDATE runs SET outcome = 'interrupted' WHERE outcome = 'running'")
        done = self._db.execute("INSERT INTO runs (started, outcome, coverage) VALUES (?, 'running', '{}')", (started,))
        assert done.lastrowid is not None
        return done.lastrowid

    def end_run(self, run: int, ended: str, outcome: str, coverage: dict[str, Any]) -> None:
        """Note how a run ended and what it saw."""
        self._db.execute("UPDATE runs SET ended = ?, outcome = ?, coverage = ? WHERE id = ?", (ended, outcome, json.dumps(coverage), run))

    def last_run(self) -> Run | None:
        """The newest ingest."""
        for started, ended, outcome, coverage in self._rows("SELECT started, ended, outcome, coverage FROM runs ORDER BY id DESC LIMIT 1"):
            return Run(started, ended, outcome, json.loads(coverage))
        return None


def _known(row: tuple[Any, ...]) -> Known:
    id_, path, size, mtime, ctime, inode, device, image, reason, missing = row
    return Known(id_, os.fsdecode(path), Stat(size, mtime, ctime, inode, device), image, reason, bool(missing))


def _below(folder: str) -> tuple[bytes, bytes]:
    """The range of paths below a folder: "/" is the byte before "0"."""
    path = os.fsencode(folder).rstrip(b"/")
    return path + b"/", path + b"0"

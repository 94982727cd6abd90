"""The SQLite file of a store: opened, brought up to date, locked while it is written, and sealed so that damage is noticed.

SQLite knows when its pages do not fit together, not when a bit of a row is another one, and it takes a damaged log for one that ends
early. So a seal lies beside the database: how many transactions were acknowledged, and, while the log is empty, the blake3 of the file.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from blake3 import blake3

from indexes.durable import files as durable
from indexes.errors import DiskFull, StoreDamaged, StoreError, StoreMissing, StoreVersionMismatch
from indexes.paths import format_command, repair_hint

APPLICATION_ID = 0x6E647570  # "ndup", so that `file` and we can tell our database from another
MAX_SQL_PARAMETERS = 500  # host parameters in one statement; SQLite's own limit is far higher, its planner's patience is not
# Contents are known by hashes, which fall on pages at random: a commit writes as many pages as it has images, to the log and again to
# the file. Measured on 300,000 images, bytes for each of 3,000 more: 27,050 with pages of 4,096 bytes, moved from the log every 1,000
# pages; 23,050 moved once; 9,800 with pages of 1,024 bytes; 660 without any index by content.
PAGE_BYTES, WAL_CHECKPOINT_PAGES = 1024, 1 << 14
WRITE_LOCK_TIMEOUT_SECONDS = (
    60.0  # seconds to wait for the milliseconds that another writer's transaction takes
)
# Filesystems on which SQLite's log does not work: its index is shared memory, which two machines do not share.
NETWORK_FILESYSTEMS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "fuse.sshfs",
    "fuse.glusterfs",
    "fuse.rclone",
    "fuse.s3fs",
}
MIN_SEALED_SCHEMA_VERSION = 2  # the version that brought generations
MOUNTS_FILE = Path("/proc/self/mounts")

SchemaMigration = Callable[[sqlite3.Connection], None]


IMAGE_IN_USE = (
    "EXISTS (SELECT 1 FROM files WHERE image = images.id)"  # an image that some file holds
)


@dataclass(frozen=True)
class Seal:
    """What must be found: at least `generation` transactions, and, when `blake3` is given, that file, which had this stat then."""

    generation: int
    blake3: str | None = None
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0

    def matches_stat(self, stat: os.stat_result) -> bool:
        """Whether a file can be taken for the sealed one unread."""
        return (self.size, self.mtime_ns, self.ctime_ns, self.inode) == (
            stat.st_size,
            stat.st_mtime_ns,
            stat.st_ctime_ns,
            stat.st_ino,
        )


class Database:
    """One SQLite file. One process writes at a time; readers see the last commit and are never blocked."""

    def __init__(
        self, path: Path, schema_migrations: Sequence[SchemaMigration], *, write: bool
    ) -> None:
        """Open `path`; with `write`, make it when it is missing and run those `migrations` that it has not seen.

        Raises StoreMissing, StoreVersion for a file of another program or a newer version, StoreDamaged for one that is not what was
        written.
        """
        self.path = path
        self._schema_migrations = schema_migrations
        self._can_write = write
        self._write_lock_path = path.with_name("write.lock")
        self._seal_path = path.with_suffix(".seal")
        self._wal_path = path.with_name(path.name + "-wal")
        folder = path.parent
        gone = not os.path.lexists(path) and (
            os.access(folder, os.X_OK) or not os.path.lexists(folder)
        )
        if gone and self._seal_path.exists():
            raise StoreDamaged(
                f"{path} is gone, and what belongs to it is still there; {repair_hint(self.path.parent)}"
            )
        if gone and not write:
            raise StoreMissing(
                f"there is no store in {folder}; make one with `{format_command(folder, 'ingest', 'FOLDER')}`, or name another with --store"
            )
        if kind := _find_network_filesystem(folder):
            raise StoreError(
                f"{folder} is on a network filesystem ({kind}), where SQLite can lose data; put it on a local disk with --store"
            )
        self._is_immutable = (
            not write
            and not os.access(folder, os.W_OK)
            and not (self._wal_path.exists() and self._wal_path.stat().st_size)
        )
        seal = self._seal_at_open = self._verify_seal()
        self._db = self._connect()
        try:
            self._prepare(write, seal)
        except BaseException:
            self._db.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        # Where this process cannot write there is no room for SQLite's shared memory. Others may write there all the same.
        mode = "rwc" if self._can_write else "ro&immutable=1" if self._is_immutable else "ro"
        try:
            # Several threads may ask whether an image is known; SQLite itself takes care that they do so one at a time.
            uri = f"file:{quote(os.fsencode(self.path))}?mode={mode}"
            return sqlite3.connect(
                uri, uri=True, isolation_level=None, timeout=30.0, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.path} cannot be opened: {error}; check the folder's permissions"
            ) from error

    def _prepare(self, write: bool, seal: Seal | None) -> None:
        try:
            self._db.execute("PRAGMA foreign_keys = ON")
            version = self._read_version()
            if write:
                with durable.lock(self._write_lock_path, WRITE_LOCK_TIMEOUT_SECONDS):
                    self._db.execute(
                        f"PRAGMA page_size = {PAGE_BYTES}"
                    )  # of a new file; one that has pages keeps them
                    self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute(f"PRAGMA wal_autocheckpoint = {WAL_CHECKPOINT_PAGES}")
        except sqlite3.OperationalError as error:
            if (
                error.sqlite_errorcode == sqlite3.SQLITE_READONLY_ROLLBACK and not write
            ):  # before the log there is SQLite's journal
                ingest = format_command(self.path.parent, "ingest", "FOLDER")
                raise StoreError(
                    f"{self.path} was left half made by a process that was killed; `{ingest}` puts it in order"
                ) from error
            if _is_disk_full(error):
                raise DiskFull(
                    f"no room beside {self.path} ({error}); free some space and run again, nothing is lost"
                ) from error
            raise StoreError(
                f"{self.path} cannot be used: {error}; check the folder's permissions"
            ) from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if seal:
                raise StoreDamaged(
                    f"{self.path} is damaged ({error}); {repair_hint(self.path.parent)}"
                ) from error
            raise StoreVersionMismatch(
                f"{self.path} is no neardup store ({error}); name another folder with --store"
            ) from error
        if (
            seal
            and (self.get_generation() if version >= MIN_SEALED_SCHEMA_VERSION else 0)
            < seal.generation
        ):
            raise StoreDamaged(
                f"{self.path} lost its last commits: {self._wal_path} is damaged or was removed; {repair_hint(self.path.parent)}"
            )
        if write and version < len(self._schema_migrations):
            with self.transaction():
                for number in range(self._read_version(), len(self._schema_migrations)):
                    self._schema_migrations[number](self._db)
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {len(self._schema_migrations)}")
        elif version == 0:
            raise StoreMissing(
                f"{self.path} is an empty store; fill it with `{format_command(self.path.parent, 'ingest', 'FOLDER')}`"
            )
        elif version < len(self._schema_migrations):
            newer = format_command(self.path.parent, "ingest")
            raise StoreVersionMismatch(
                f"{self.path} has the older format {version}; `{newer}` brings it up to date"
            )

    def _read_version(self) -> int:
        with self.snapshot():  # another writer may be making it
            application: int = self._db.execute("PRAGMA application_id").fetchone()[0]
            version: int = self._db.execute("PRAGMA user_version").fetchone()[0]
            tables: int = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != APPLICATION_ID and (version or tables):
            raise StoreVersionMismatch(
                f"{self.path} is a database of another program; name another folder with --store"
            )
        if version > len(self._schema_migrations):
            newest = len(self._schema_migrations)
            raise StoreVersionMismatch(
                f"{self.path} has format {version}, this neardup reads up to {newest}; upgrade neardup, or name another --store"
            )
        return version

    def close(self) -> None:
        """Let go of the database; a writer seals it when nobody reads an older state."""
        if self._can_write:
            # The last one out moves the log into the database; a full disk then is no loss, for the log stays.
            with (
                suppress(DiskFull),
                durable.lock(self._write_lock_path, WRITE_LOCK_TIMEOUT_SECONDS),
            ):
                with suppress(sqlite3.Error, StoreError):
                    self._db.execute("PRAGMA busy_timeout = 0")  # whoever still reads may go on
                    busy, *_ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                    if not busy:
                        self._write_seal(is_closed=True)
                self._db.close()
        else:
            self._db.close()

    # --- the seal ---

    def get_generation(self) -> int:
        """How many transactions were committed."""
        rows = self.fetch_rows("SELECT number FROM generation")
        if not rows:
            raise StoreDamaged(
                f"{self.path} is damaged (it does not say how often it was written); {repair_hint(self.path.parent)}"
            )
        return int(rows[0][0])

    def read_seal(self) -> Seal | None:
        """What was sealed last; None where there is no seal, or one that is damaged itself."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            line, digest, rest = self._seal_path.read_bytes().split(b"\n")
            if blake3(line).hexdigest().encode() == digest and not rest:
                return Seal(**json.loads(line))
        return None

    def _write_seal(self, *, is_closed: bool) -> None:
        seal = Seal(self.get_generation())
        if is_closed:
            status = self.path.stat()
            digest = _hash_file(self.path)
            seal = Seal(
                seal.generation,
                digest,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
                status.st_ino,
            )
        durable.replace(self._seal_path, _encode_seal(seal), self.path.with_name("tmp"))

    def _verify_seal(self, *, read_all: bool = False) -> Seal | None:
        """The seal, after the file was found to be what was sealed: by its stat, else by its bytes, and by those always with `read`."""
        seal = self.read_seal()
        while seal is not None and seal.blake3 is not None:
            try:
                log = self._wal_path.stat().st_size if self._wal_path.exists() else 0
                if not log and seal.matches_stat(self.path.stat()) and not read_all:
                    return seal
                sound = not log and _hash_file(self.path) == seal.blake3
            except FileNotFoundError as error:
                raise StoreDamaged(
                    f"{self.path} is gone, and what belongs to it is still there; {repair_hint(self.path.parent)}"
                ) from error
            except OSError as error:
                raise StoreError(
                    f"{self.path} cannot be read: {error.strerror or error}; check its permissions, and the disk"
                ) from error
            before, seal = seal, self.read_seal()
            if seal == before:  # otherwise a writer came meanwhile
                if not sound:
                    raise StoreDamaged(
                        f"{self.path} is not what was written; {repair_hint(self.path.parent)}"
                    )
                return seal
        return seal

    @property
    def was_closed_cleanly(self) -> bool:
        """Whether the last writer had closed the database when it was opened here, so that every byte of it was checked."""
        return self._seal_at_open is None or self._seal_at_open.blake3 is not None

    def verify(self) -> None:
        """Read every byte of a sealed file, and let SQLite look at all of its pages and indexes. Raises StoreDamaged."""
        self._verify_seal(read_all=True)
        for pragma in ("integrity_check", "foreign_key_check"):
            for row in self.fetch_rows(f"PRAGMA {pragma}"):
                if row[0] != "ok":
                    raise StoreDamaged(
                        f"{self.path} is damaged ({' '.join(map(str, row))}); {repair_hint(self.path.parent)}"
                    )

    # --- reading and writing ---

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all that the block writes visible at once, or none of it. Raises NoSpace on a full disk."""
        with (
            durable.lock(self._write_lock_path, WRITE_LOCK_TIMEOUT_SECONDS),
            self._translate_errors(),
        ):
            try:
                seal = self.read_seal()
                if seal and seal.blake3:  # from here on the file may change
                    self._write_seal(is_closed=False)
                self._db.execute("BEGIN IMMEDIATE")
                durable.failpoint("commit begun")
                yield
                self._db.execute("UPDATE generation SET number = number + 1")
                durable.failpoint("commit filled")
                self._db.execute("COMMIT")
                durable.failpoint("commit done")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._write_seal(is_closed=False)
            durable.failpoint("commit sealed")

    @contextmanager
    def attach(self, path: Path, name: str) -> Iterator[None]:
        """Let statements read the tables of the database at `path` as `name`.table. Not inside a transaction."""
        with self._translate_errors():
            self._db.execute(f"ATTACH ? AS {name}", (f"file:{quote(os.fsencode(path))}?mode=ro",))
        try:
            yield
        finally:
            self._db.execute(f"DETACH {name}")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all that the block reads come from one commit, however many others follow meanwhile."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            with suppress(
                sqlite3.DatabaseError
            ):  # nothing was written; what was wrong with reading has been raised
                self._db.execute("ROLLBACK")

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # a mistake of ours
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            self._check_unchanged()
            if _is_disk_full(error):
                raise DiskFull(
                    f"no room to write {self.path} ({error}); free some space and run again, nothing is lost"
                ) from error
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                raise StoreError(
                    f"{self.path} cannot be used ({error}); check the folder's permissions and who else has it open"
                ) from error
            raise StoreDamaged(
                f"{self.path} is damaged ({error}); {repair_hint(self.path.parent)}"
            ) from error
        except UnicodeDecodeError as error:  # in SQLite's own message
            raise StoreDamaged(
                f"{self.path} is damaged ({error}); {repair_hint(self.path.parent)}"
            ) from error

    def _check_unchanged(self) -> None:
        """Without shared memory nothing tells a reader that the file is being written, but the seal, which goes first."""
        if self._is_immutable and self.read_seal() != self._seal_at_open:
            raise StoreError(
                f"{self.path} was written to by somebody else while it was read; ask again"
            )

    def stream_rows(self, sql: str, *values: Any) -> Iterator[Any]:
        """Rows, one at a time. Raises StoreDamaged."""
        with self._translate_errors(), closing(self._db.execute(sql, values)) as cursor:
            yield from cursor
            self._check_unchanged()

    def fetch_rows(self, sql: str, *values: Any) -> list[Any]:
        """All rows. Raises StoreDamaged."""
        return list(self.stream_rows(sql, *values))

    def stream_rows_in(self, sql: str, values: Iterable[Any]) -> Iterator[Any]:
        """Rows of `sql`, whose {} stands for a list of values, asked for in chunks."""
        wanted = list(values)
        for start in range(0, len(wanted), MAX_SQL_PARAMETERS):
            chunk = wanted[start : start + MAX_SQL_PARAMETERS]
            yield from self.fetch_rows(sql.format(",".join("?" * len(chunk))), *chunk)

    def write(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Run a statement inside a transaction; the cursor has its rows and the id that was given."""
        assert self._db.in_transaction, "writing needs a transaction"
        return self._db.execute(sql, values)

    def write_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each of some rows inside a transaction."""
        assert self._db.in_transaction, "writing needs a transaction"
        self._db.executemany(sql, rows)

    def parse_json(self, text: str) -> Any:  # noqa: ANN401 - whatever was written
        """Parse JSON that the database holds. Raises StoreDamaged."""
        try:
            return json.loads(text)
        except ValueError as error:
            raise StoreDamaged(
                f"{self.path} is damaged ({error}); see `{format_command(self.path.parent, 'check')}`"
            ) from error

    def get_next_id(self, table: str) -> int:
        """Return the id that the next row of `table` gets; ids are never used twice."""
        rows = self.fetch_rows("SELECT seq FROM sqlite_sequence WHERE name = ?", table)
        return int(rows[0][0]) + 1 if rows else 1

    def back_up(self, path: Path) -> None:
        """Copy the last commit into a new database at `path`, whole, and on disk when this returns. Raises NoSpace."""
        part = self.path.with_name("tmp") / path.name
        with self._translate_errors(), closing(sqlite3.connect(part)) as copy:
            self._db.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        durable.sync_file(part)
        part.replace(path)
        durable.sync_folder(path.parent)


def _encode_seal(seal: Seal) -> bytes:
    line = json.dumps(asdict(seal)).encode()
    return line + b"\n" + blake3(line).hexdigest().encode() + b"\n"


def invalid_seal() -> bytes:
    """The content of a seal that no database has: beside it, any is damaged."""
    return _encode_seal(Seal(0, "condemned"))


def _is_disk_full(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR) or "disk I/O" in str(error)


def _hash_file(path: Path) -> str:
    return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()


def _find_network_filesystem(folder: Path) -> str | None:
    """The kind of network filesystem that a folder is on, by the longest mount point above it."""
    place = os.fsencode(os.path.realpath(folder))
    with suppress(OSError):
        points = [line.split()[1:3] for line in MOUNTS_FILE.read_bytes().splitlines()]
        # The system writes blanks in names as \040.
        named = [
            (re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8) & 255]), point), kind)
            for point, kind in points
        ]
        above = [
            (len(point), kind)
            for point, kind in named
            if place == point or place.startswith(point.rstrip(b"/") + b"/")
        ]
        if above and (kind := max(above)[1].decode()) in NETWORK_FILESYSTEMS:
            return kind
    return None

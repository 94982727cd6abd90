"""One SQLite file: open it, migrate its schema, lock it while it is written, seal every commit."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from indexes.catalog.seal import Seal, SealFile, make_missing_error
from indexes.durable import files, sqlite_files
from indexes.durable.failpoints import failpoint
from indexes.durable.filesystems import find_network_filesystem
from indexes.durable.locks import lock
from indexes.durable.sqlite import (
    OpenMode,
    connect,
    format_uri,
    get_primary_code,
    is_disk_full,
    split_values,
)
from indexes.errors import DiskFull, StoreDamaged, StoreError, StoreMissing, StoreVersionMismatch
from indexes.paths import (
    SCRATCH_NAME,
    WAL_SUFFIX,
    WRITE_LOCK_NAME,
    format_command,
    format_repair_hint,
)

APPLICATION_ID = 0x6E647570  # "ndup", by which neardup and `file` recognise the database
# Hashes are keys of the catalog and fall on random pages, so a commit writes as many pages as it
# has images, to the WAL and again to the file. Measured on 300,000 images, bytes for each of 3,000
# more: 27,050 with pages of 4,096 bytes, checkpointed every 1,000 pages; 23,050 checkpointed once;
# 9,800 with pages of 1,024 bytes; 660 without any index by content.
PAGE_BYTES = 1024  # the page size of a new database
WAL_CHECKPOINT_PAGES = 1 << 14  # length of the WAL at which SQLite moves it into the database
# How long a writer waits for the write lock; another writer's transaction takes milliseconds.
WRITE_LOCK_TIMEOUT_SECONDS = 60.0
CATALOG_BUSY_TIMEOUT_SECONDS = 30.0  # how long a statement waits for SQLite's own locks
MIN_SEALED_SCHEMA_VERSION = 2  # the first schema with a generation

Parsed = TypeVar("Parsed")
SchemaMigration = Callable[[sqlite3.Connection], None]


class Database:
    """One SQLite file.

    One process writes at a time. Readers see the last commit and are never blocked.
    """

    def __init__(
        self, path: Path, schema_migrations: Sequence[SchemaMigration], *, write: bool
    ) -> None:
        """Open `path`; with `write`, create it if it is missing and run the migrations it lacks.

        Raises StoreMissing, StoreVersionMismatch for a file of another program or a newer version,
        StoreDamaged for a file that is not what was written, DiskFull, and StoreError for a file
        that cannot be opened or is on a network filesystem.
        """
        self.path = path
        self._schema_migrations = schema_migrations
        self._can_write = write
        self._is_closed = False
        self._write_lock_path = path.with_name(WRITE_LOCK_NAME)
        self._wal_path = path.with_name(path.name + WAL_SUFFIX)
        self._seal_file = SealFile(path)
        self._require_usable_folder()
        # A folder without write access has no room for SQLite's shared memory. Other processes may
        # write there all the same, so `_require_unchanged` compares the seal.
        self._is_immutable = (
            not write
            and not os.access(path.parent, os.W_OK)
            and not (self._wal_path.exists() and self._wal_path.stat().st_size)
        )
        sqlite_files.begin_use()
        try:
            self._seal_at_open = self._seal_file.verify()
            self._db = self._connect()
            try:
                version = self._configure()
                self._require_sealed_generation(version)
                self._migrate(version)
            except BaseException:
                self._db.close()
                raise
        except BaseException:
            sqlite_files.end_use()
            raise

    # --- opening and closing ---

    def _require_usable_folder(self) -> None:
        folder = self.path.parent
        is_missing = not os.path.lexists(self.path) and (
            os.access(folder, os.X_OK) or not os.path.lexists(folder)
        )
        if is_missing and self._seal_file.path.exists():
            raise make_missing_error(self.path)
        if is_missing and not self._can_write:
            raise StoreMissing(
                f"there is no store in {folder}; make one with"
                f" `{format_command(folder, 'ingest', 'FOLDER')}`, or name another with --store"
            )
        if filesystem := find_network_filesystem(folder):
            raise StoreError(
                f"{folder} is on a network filesystem ({filesystem}), where SQLite can lose data;"
                " put it on a local disk with --store"
            )

    def _connect(self) -> sqlite3.Connection:
        if self._can_write:
            mode = OpenMode.READ_WRITE_CREATE
        else:
            mode = OpenMode.IMMUTABLE if self._is_immutable else OpenMode.READ_ONLY
        try:
            # Several threads may ask if an image is known; SQLite itself serialises their queries.
            return connect(self.path, mode, CATALOG_BUSY_TIMEOUT_SECONDS, check_same_thread=False)
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.path} cannot be opened: {error}; check the folder's permissions"
            ) from error

    def _configure(self) -> int:
        """Set up the connection and return the schema version of the file."""
        try:
            self._db.execute("PRAGMA foreign_keys = ON")
            version = self._read_version()
            if self._can_write:
                with lock(self._write_lock_path, WRITE_LOCK_TIMEOUT_SECONDS):
                    # A file that has pages keeps their size.
                    self._db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                    self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute(f"PRAGMA wal_autocheckpoint = {WAL_CHECKPOINT_PAGES}")
            return version
        except sqlite3.OperationalError as error:
            raise self._translate_open_error(error) from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if self._seal_at_open:
                raise self._make_damage_error(error) from error
            raise StoreVersionMismatch(
                f"{self.path} is not a neardup store ({error}); name another folder with --store"
            ) from error

    def _translate_open_error(self, error: sqlite3.OperationalError) -> StoreError:
        # Until the WAL exists, SQLite's rollback journal protects the file, and only a process with
        # write access can roll it back.
        if error.sqlite_errorcode == sqlite3.SQLITE_READONLY_ROLLBACK and not self._can_write:
            ingest = format_command(self.path.parent, "ingest", "FOLDER")
            return StoreError(
                f"{self.path} was left half made by a process that was killed;"
                f" `{ingest}` puts it in order"
            )
        if is_disk_full(error):
            return DiskFull(
                f"no room beside {self.path} ({error}); free some space and run again, nothing is"
                " lost"
            )
        return StoreError(f"{self.path} cannot be used: {error}; check the folder's permissions")

    def _read_version(self) -> int:
        with self.snapshot():  # another writer may be creating the tables
            application: int = self._db.execute("PRAGMA application_id").fetchone()[0]
            version: int = self._db.execute("PRAGMA user_version").fetchone()[0]
            tables: int = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != APPLICATION_ID and (version or tables):
            raise StoreVersionMismatch(
                f"{self.path} is a database of another program; name another folder with --store"
            )
        newest = len(self._schema_migrations)
        if version > newest:
            raise StoreVersionMismatch(
                f"{self.path} has format {version}, this neardup reads up to {newest}; upgrade"
                " neardup, or name another --store"
            )
        return version

    def _require_sealed_generation(self, version: int) -> None:
        """Raise StoreDamaged if the database has fewer transactions than its seal."""
        seal = self._seal_at_open
        generation = self.get_generation() if seal and version >= MIN_SEALED_SCHEMA_VERSION else 0
        if seal and generation < seal.generation:
            raise StoreDamaged(
                f"{self.path} lost its last commits: {self._wal_path} is damaged or was removed;"
                f" {format_repair_hint(self.path.parent)}"
            )

    def _migrate(self, version: int) -> None:
        newest = len(self._schema_migrations)
        if self._can_write and version < newest:
            with self.transaction():
                # Another writer may have migrated the file before this one got the lock.
                for migration in self._schema_migrations[self._read_version() :]:
                    migration(self._db)
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {newest}")
        elif version == 0:
            raise StoreMissing(
                f"{self.path} is an empty store; fill it with"
                f" `{format_command(self.path.parent, 'ingest', 'FOLDER')}`"
            )
        elif version < newest:
            ingest = format_command(self.path.parent, "ingest")
            raise StoreVersionMismatch(
                f"{self.path} has the older format {version}; `{ingest}` brings it up to date"
            )

    def close(self) -> None:
        """Close the database. A writer seals the file unless another process reads an older state.

        A full disk then costs nothing: the WAL stays. Closing it again does nothing.
        """
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._close()
        finally:
            self._db.close()
            sqlite_files.end_use()

    def _close(self) -> None:
        if not self._can_write:
            return
        with suppress(DiskFull), lock(self._write_lock_path, WRITE_LOCK_TIMEOUT_SECONDS):
            with suppress(sqlite3.Error, StoreError):
                self._db.execute("PRAGMA busy_timeout = 0")  # readers are not waited for
                is_busy, *_ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if not is_busy:
                    self._seal_file.write_closed(self.get_generation())
            self._db.close()

    # --- checking ---

    def get_generation(self) -> int:
        """Return the number of committed transactions. Raises StoreDamaged if it is missing."""
        rows = self.fetch_rows("SELECT number FROM generation")
        if not rows:
            raise self._make_damage_error("it does not say how often it was written")
        return int(rows[0][0])

    def read_seal(self) -> Seal | None:
        """Read the seal; None where it is missing or damaged itself."""
        return self._seal_file.read()

    @property
    def was_closed_cleanly(self) -> bool:
        """True if the last writer had closed the database, so opening it checked every byte."""
        return self._seal_at_open is None or self._seal_at_open.file is not None

    def verify(self) -> None:
        """Read every byte of a sealed file and let SQLite check all pages, indexes and references.

        Raises StoreDamaged.
        """
        self._seal_file.verify(read_all=True)
        for pragma in ("integrity_check", "foreign_key_check"):
            for row in self.fetch_rows(f"PRAGMA {pragma}"):
                if row[0] != "ok":
                    raise self._make_damage_error(" ".join(map(str, row)))

    def _require_unchanged(self) -> None:
        """Raise StoreError if the file changed under a reader that has no shared memory.

        A writer changes the seal before it changes the file.
        """
        if self._is_immutable and self.read_seal() != self._seal_at_open:
            raise StoreError(
                f"{self.path} was written by another process while it was read; try again"
            )

    def _make_damage_error(self, problem: object) -> StoreDamaged:
        return StoreDamaged(
            f"{self.path} is damaged ({problem}); {format_repair_hint(self.path.parent)}"
        )

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Turn SQLite's errors into store errors."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # a bug in neardup
        except sqlite3.Error as error:
            self._require_unchanged()
            if is_disk_full(error):
                raise DiskFull(
                    f"no room to write {self.path} ({error}); free some space and run again,"
                    " nothing is lost"
                ) from error
            unusable = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
            if get_primary_code(error) in unusable:
                raise StoreError(
                    f"{self.path} cannot be used ({error}); check the folder's permissions and who"
                    " else has it open"
                ) from error
            raise self._make_damage_error(error) from error
        except UnicodeDecodeError as error:  # in the text of SQLite's own error
            raise self._make_damage_error(error) from error

    # --- transactions ---

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all that the block writes visible at once, or none of it.

        Raises DiskFull; also after the commit, if its seal cannot be written. The block is then
        visible, and the next open accepts a seal that is one commit behind.
        """
        with lock(self._write_lock_path, WRITE_LOCK_TIMEOUT_SECONDS), self._translate_errors():
            try:
                seal = self.read_seal()
                if seal and seal.file:  # from here on the file may change
                    self._seal_file.write_open(self.get_generation())
                self._db.execute("BEGIN IMMEDIATE")
                failpoint("commit begun")
                yield
                self._db.execute("UPDATE generation SET number = number + 1")
                failpoint("commit written")
                self._db.execute("COMMIT")
                failpoint("commit done")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._seal_file.write_open(self.get_generation())
            failpoint("commit sealed")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read everything in the block from one commit, however many others follow meanwhile."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            # Nothing was written, and an error in reading has been raised already.
            with suppress(sqlite3.DatabaseError):
                self._db.execute("ROLLBACK")

    @contextmanager
    def attach(self, path: Path, name: str) -> Iterator[None]:
        """Let statements read the tables of the database at `path` as `name`.table.

        Not inside a transaction.
        """
        with self._translate_errors():
            self._db.execute(f"ATTACH ? AS {name}", (format_uri(path, OpenMode.READ_ONLY),))
        try:
            yield
        finally:
            self._db.execute(f"DETACH {name}")

    # --- reading and writing ---

    def stream_rows(self, sql: str, *values: Any) -> Iterator[Any]:
        """Yield the rows of a query. Raises StoreDamaged."""
        with self._translate_errors(), closing(self._db.execute(sql, values)) as cursor:
            yield from cursor
            self._require_unchanged()

    def fetch_rows(self, sql: str, *values: Any) -> list[Any]:
        """Return all rows of a query. Raises StoreDamaged."""
        return list(self.stream_rows(sql, *values))

    def stream_rows_in(self, sql: str, values: Iterable[Any]) -> Iterator[Any]:
        """Yield the rows of a query whose `({})` stands for a list of any number of values.

        The rows of each part of `values` are read before the first of them is yielded.
        """
        for statement, chunk in split_values(sql, values):
            yield from self.fetch_rows(statement, *chunk)

    def write(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Run a statement inside a transaction; the cursor has its rows and the id of a new row."""
        assert self._db.in_transaction, "writing needs a transaction"
        return self._db.execute(sql, values)

    def write_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each of `rows` inside a transaction."""
        assert self._db.in_transaction, "writing needs a transaction"
        self._db.executemany(sql, rows)

    def parse_json(self, text: str) -> Any:  # noqa: ANN401 - any JSON
        """Parse JSON that the database holds. Raises StoreDamaged."""
        return self.parse(text, json.loads)

    def parse(self, text: str, parser: Callable[[str], Parsed]) -> Parsed:
        """Parse text that the database holds; StoreDamaged where `parser` raises ValueError."""
        try:
            return parser(text)
        except (ValueError, RecursionError) as error:
            raise StoreDamaged(
                f"{self.path} is damaged ({error}); see"
                f" `{format_command(self.path.parent, 'check')}`"
            ) from error

    def get_next_id(self, table: str) -> int:
        """Return the id that the next row of `table` gets; ids are never used twice."""
        rows = self.fetch_rows("SELECT seq FROM sqlite_sequence WHERE name = ?", table)
        return int(rows[0][0]) + 1 if rows else 1

    def back_up(self, path: Path) -> None:
        """Copy the last commit into a new database at `path`, durably. Raises DiskFull."""
        temporary = self.path.with_name(SCRATCH_NAME) / path.name
        with self._translate_errors(), closing(sqlite3.connect(temporary)) as copy:
            self._db.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        files.sync_file(temporary)
        temporary.replace(path)
        files.sync_folder(path.parent)

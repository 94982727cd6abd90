"""The seal of a database: a small file beside it by which damage and lost commits are noticed.

SQLite notices pages that do not fit together, but not a bit that flipped in a row, and it takes a
damaged WAL for one that ends early. So the seal has the number of transactions that were
acknowledged and, while the WAL is empty, the blake3 of the database file.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from indexes.durable import files
from indexes.durable.sqlite_files import hash_database
from indexes.errors import StoreDamaged, StoreError
from indexes.paths import SCRATCH_NAME, WAL_SUFFIX, format_repair_hint
from indexes.records import FileStat

# The keys of a seal without a file; a seal has all keys at all times.
NO_FILE = {"blake3": None, "size": 0, "mtime_ns": 0, "ctime_ns": 0, "inode": 0}
MATCHES_NO_FILE = {"generation": 0, **NO_FILE, "blake3": "condemned"}


@dataclass(frozen=True)
class SealedFile:
    """The database file as its last writer left it: its blake3 in hex, and its stat."""

    blake3: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True)
class Seal:
    """The content of a seal: the least number of transactions, and the file if it is known.

    `file` is None from the first commit of a writer until the writer closes the database.
    """

    generation: int
    file: SealedFile | None


class SealFile:
    """The file that holds the seal of the database at `database_path`."""

    def __init__(self, database_path: Path) -> None:
        """Use the seal beside `database_path`, which need not exist."""
        self.path = database_path.with_suffix(".seal")
        self._database_path = database_path
        self._wal_path = database_path.with_name(database_path.name + WAL_SUFFIX)
        self._scratch = database_path.with_name(SCRATCH_NAME)

    def read(self) -> Seal | None:
        """Read the seal; None where it is missing or damaged itself."""
        line = files.read_checked(self.path)
        if line is None:
            return None
        with suppress(ValueError, TypeError, KeyError):
            values = json.loads(line)
            generation = values.pop("generation")
            return Seal(generation, SealedFile(**values) if values["blake3"] is not None else None)
        return None

    def write_open(self, generation: int) -> None:
        """Seal `generation` transactions and not the file, which changes from now on.

        Raises DiskFull.
        """
        self._write({"generation": generation, **NO_FILE})

    def write_closed(self, generation: int) -> None:
        """Seal `generation` transactions and the file, whose log is empty. Raises DiskFull."""
        stat = FileStat.from_os_stat(self._database_path.stat())
        digest = hash_database(self._database_path)
        sealed = SealedFile(digest, stat.size, stat.mtime_ns, stat.ctime_ns, stat.inode)
        self._write({"generation": generation, **asdict(sealed)})

    def write_invalid(self) -> None:
        """Write a seal that no database matches, so that any beside it counts as damaged."""
        self._write(MATCHES_NO_FILE)

    def _write(self, values: dict[str, Any]) -> None:
        files.write_checked(self.path, json.dumps(values).encode(), self._scratch)

    def verify(self, *, read_all: bool = False) -> Seal | None:
        """Return the seal after checking that the database file is the sealed one.

        The file's stat decides, or else its bytes; with `read_all`, its bytes in any case. A seal
        without a file passes, and so does no seal. Raises StoreDamaged, and StoreError for a file
        that cannot be read.
        """
        seal = self.read()
        while seal is not None and seal.file is not None:
            is_intact = self._is_intact(seal.file, read_all=read_all)
            seal_before, seal = seal, self.read()
            if seal == seal_before:  # otherwise a writer changed the file meanwhile
                if not is_intact:
                    raise StoreDamaged(
                        f"{self._database_path} is not what was written;"
                        f" {format_repair_hint(self._database_path.parent)}"
                    )
                return seal
        return seal

    def _is_intact(self, sealed: SealedFile, *, read_all: bool) -> bool:
        path = self._database_path
        try:
            if self._wal_path.exists() and self._wal_path.stat().st_size:
                return False
            stat = FileStat.from_os_stat(path.stat())
            if not read_all and stat.is_unchanged_since(sealed):
                return True
            return hash_database(path) == sealed.blake3
        except FileNotFoundError as error:
            raise make_missing_error(path) from error
        except OSError as error:
            raise StoreError(
                f"{path} cannot be read: {error.strerror or error}; check its permissions, and the"
                " disk"
            ) from error


def make_missing_error(database_path: Path) -> StoreDamaged:
    """Make the error for a database that is missing although its seal is there."""
    return StoreDamaged(
        f"{database_path} is gone, and what belongs to it is still there;"
        f" {format_repair_hint(database_path.parent)}"
    )

"""The names in a store's folder, the default store, and commands to copy into a shell."""

from __future__ import annotations

import os
import re
import shlex
from contextlib import suppress
from pathlib import Path

SEGMENTS_NAME = "segments"
SCRATCH_NAME = "tmp"
CACHES_NAME = "caches"
FORMER_CACHES_NAME = "thumbs"  # of stores up to format 6
VERIFYING_MARKER_NAME = "verifying"  # in the folder of caches; see pipeline.ingest.verify_pairs
BACKUP_NAME = "backup"
QUARANTINE_NAME = "quarantine"
RECOVERY_NAME = "store.json"
JOURNAL_NAME = "journal"  # the folder of the journals of file actions; see pipeline.actions
ACTIONS_NAME = "actions.json"  # the store's id and the protected folders
ACTIONS_LOCK_NAME = "actions.lock"
DECISIONS_NAME = "decisions.jsonl"
REVIEW_TOKEN_NAME = "review.token"  # of programs that ask the server of `neardup review`
PLANS_NAME = "plans"  # the folder of the plans of what was reviewed
REVIEW_NAME = "review.db"  # what a person chose for groups; see indexes.review
# The second store, inside the first, of a migration to another space.
NEXT_STORE_NAME = "next"
CATALOG_NAME = "catalog.db"
WAL_SUFFIX = "-wal"  # SQLite's write-ahead log beside a database
SHARED_MEMORY_SUFFIX = "-shm"  # the index of the WAL
CATALOG_SIDE_FILE_NAMES = (CATALOG_NAME + WAL_SUFFIX, CATALOG_NAME + SHARED_MEMORY_SUFFIX)
SEAL_NAME = "catalog.seal"
REVIEW_FILE_NAMES = (REVIEW_NAME, REVIEW_NAME + WAL_SUFFIX, REVIEW_NAME + SHARED_MEMORY_SUFFIX)
CATALOG_FILE_NAMES = (CATALOG_NAME, *CATALOG_SIDE_FILE_NAMES, SEAL_NAME)
INGEST_LOCK_NAME = "ingest.lock"
WRITE_LOCK_NAME = "write.lock"
READERS_LOCK_NAME = "readers.lock"
# Names that may be in a folder without a catalog: its store was cut off while it was created, or
# lost its catalog.
STORE_ENTRY_NAMES = {
    SEGMENTS_NAME,
    SCRATCH_NAME,
    CACHES_NAME,
    FORMER_CACHES_NAME,
    BACKUP_NAME,
    QUARANTINE_NAME,
    NEXT_STORE_NAME,
    INGEST_LOCK_NAME,
    WRITE_LOCK_NAME,
    READERS_LOCK_NAME,
    RECOVERY_NAME,
    JOURNAL_NAME,
    ACTIONS_NAME,
    ACTIONS_LOCK_NAME,
    DECISIONS_NAME,
    REVIEW_TOKEN_NAME,
    PLANS_NAME,
    *REVIEW_FILE_NAMES,
    *CATALOG_FILE_NAMES,
}
STORE_MARKER_NAMES = {CATALOG_NAME, SEGMENTS_NAME}  # a folder with these is a store

RESTORE_BACKUP_HINT = "restore the store from a backup, or see "


def get_default_store_folder() -> Path:
    """Return the folder of the store that is used when none is named."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "neardup" / "default"


def format_command(folder: Path, *args: str) -> str:
    """Format `neardup` with `args` for the store in `folder`, quoted for a shell.

    --store is left out only for the default store. NEARDUP_STORE does not count: the command may be
    copied into another shell, or a crontab.
    """
    path = _make_absolute(folder)
    store_option = ["--store", path]
    with suppress(RuntimeError):  # there is no home folder
        if path == _make_absolute(get_default_store_folder()):
            store_option = []
    return " ".join(["neardup", *map(_quote_for_shell, [*args, *store_option])])


def format_repair_hint(folder: Path) -> str:
    """Format what to do about a damaged store in `folder`."""
    check, repair = format_command(folder, "check"), format_command(folder, "repair")
    return f"{RESTORE_BACKUP_HINT}`{check}` and `{repair}`"


def escape_bytes(text: str) -> str:
    """Escape bytes of a path that are not UTF-8 as \\xNN, which a shell reads within $'...'."""
    return re.sub("[\udc80-\udcff]", lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", text)


def escape_unprintable(text: str) -> str:
    """Escape control characters and bytes that are not UTF-8, which could disturb a terminal."""
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in escape_bytes(text)
    )


def quote(text: str) -> str:
    """Quote a path, or another word of a user, for a message; escaped for a terminal."""
    return f"'{escape_unprintable(text)}'"


def _make_absolute(folder: Path) -> str:
    return os.path.abspath(folder)  # noqa: PTH100 - Path.absolute() keeps ".."


def _quote_for_shell(word: str) -> str:
    """Quote `word` for a shell; as $'...' if it has characters that a terminal does not show."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = (
        chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}"
        for byte in os.fsencode(word)
    )
    return f"$'{''.join(escaped)}'"

"""The default store, and commands for a store that can be copied into a shell."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from pathlib import Path

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
    return " ".join(["neardup", *map(_quote, [*args, *store_option])])


def format_repair_hint(folder: Path) -> str:
    """Format what to do about a damaged store in `folder`."""
    check, repair = format_command(folder, "check"), format_command(folder, "repair")
    return f"{RESTORE_BACKUP_HINT}`{check}` and `{repair}`"


def _make_absolute(folder: Path) -> str:
    return os.path.abspath(folder)  # noqa: PTH100 - Path.absolute() keeps ".."


def _quote(word: str) -> str:
    """Quote `word` for a shell; as $'...' if it has characters that a terminal does not show."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = (
        chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}"
        for byte in os.fsencode(word)
    )
    return f"$'{''.join(escaped)}'"

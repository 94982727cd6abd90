"""Where a store lies when nobody says, and commands for a store as they can be copied into a shell."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from pathlib import Path

RESTORE_BACKUP_HINT = "restore the store from a backup, or see "


def get_default_store_folder() -> Path:
    """The folder of the store that is used when none is named."""
    return (
        Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
        / "neardup"
        / "default"
    )


def format_command(folder: Path, *args: str) -> str:
    """`neardup` with `words`, for the store in `folder`: --store is left out only where that is the default one.

    NEARDUP_STORE does not count: what was printed may be copied into another shell, or a crontab.
    """
    place = os.path.abspath(folder)  # noqa: PTH100 - Path.absolute() keeps ".."
    named = ["--store", place]
    with suppress(RuntimeError):  # whoever runs this has no home
        named = [] if place == os.path.abspath(get_default_store_folder()) else named  # noqa: PTH100 - as above
    return " ".join(["neardup", *map(_quote, [*args, *named])])


def repair_hint(folder: Path) -> str:
    """What to do about a store in `folder` that is damaged."""
    return f"{RESTORE_BACKUP_HINT}`{format_command(folder, 'check')}` and `{format_command(folder, 'repair')}`"


def _quote(word: str) -> str:
    """The word as a shell takes it; in bash's own way where it has what a terminal does not show."""
    if word.isprintable():
        return shlex.quote(word)
    shown = (
        chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}"
        for byte in os.fsencode(word)
    )
    return f"$'{''.join(shown)}'"

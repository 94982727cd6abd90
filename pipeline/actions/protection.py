"""The id of a store, and the folders in which nothing is ever moved."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from indexes.durable import files as durable
from indexes.durable.locks import lock
from indexes.paths import (
    ACTIONS_LOCK_NAME,
    ACTIONS_NAME,
    SCRATCH_NAME,
    format_command,
)
from pipeline.errors import ActionRecordDamaged

_ID_BYTES = 16  # random, so that no two stores have one id


@dataclass(frozen=True)
class ActionSettings:
    """The memory of a store for plans: its own id, and the protected folders by real path."""

    store_id: str
    protected: tuple[str, ...] = ()


def load_settings(store_folder: Path) -> ActionSettings:
    """Load the settings of a store; give it an id at the first call.

    Raises ActionRecordDamaged: without the list, nothing would be protected.
    """
    path = store_folder / ACTIONS_NAME
    line = durable.read_checked(path)
    if line is None and not path.exists():
        return _save(store_folder, ActionSettings(secrets.token_hex(_ID_BYTES)))
    try:
        settings = json.loads(line or b"")
        return ActionSettings(str(settings["store_id"]), tuple(map(str, settings["protected"])))
    except (ValueError, TypeError, KeyError) as error:
        protect = format_command(store_folder, "plan", "--protect", "FOLDER")
        raise ActionRecordDamaged(
            f"{path}, the list of protected folders, is damaged; remove it and protect the folders"
            f" again: `{protect}`"
        ) from error


def change_protection(
    store_folder: Path, protect: tuple[str, ...], unprotect: tuple[str, ...]
) -> ActionSettings:
    """Remember real paths of folders as protected, and forget others; return the settings."""
    with lock(store_folder / ACTIONS_LOCK_NAME):
        settings = load_settings(store_folder)
        protected = tuple(sorted({*settings.protected, *protect} - set(unprotect)))
        if protected == settings.protected:
            return settings
        return _save(store_folder, ActionSettings(settings.store_id, protected))


def _save(store_folder: Path, settings: ActionSettings) -> ActionSettings:
    document = {"store_id": settings.store_id, "protected": settings.protected}
    line = json.dumps(document).encode("ascii")
    durable.write_checked(store_folder / ACTIONS_NAME, line, store_folder / SCRATCH_NAME)
    return settings

"""Check that a file that a person asked for can be written, before the work that it needs."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import OutputNotWritable


def require_writable_folder(file: Path, advice: str) -> None:
    """Raise OutputNotWritable, ending in `advice`, unless the folder of a file is writable."""
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise OutputNotWritable(f"{file} cannot be written; {advice}")


def make_output_error(file: Path, error: Exception, advice: str) -> OutputNotWritable:
    """Make the error for a file whose writing failed, with `advice` on what to do."""
    reason = getattr(error, "strerror", None) or error
    return OutputNotWritable(f"{file} cannot be written ({reason}); {advice}")

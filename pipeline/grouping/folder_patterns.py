"""Patterns of folders in keep rules: folder:PATTERN."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase

FOLDER_PREFIX = "folder:"


def is_folder_rule(name: str) -> bool:
    """Tell if the name of a keep rule has the form of a folder rule."""
    return name.startswith(FOLDER_PREFIX) and bool(name.removeprefix(FOLDER_PREFIX).strip("/"))


def parse_folder_pattern(name: str) -> str:
    """Return the pattern of a folder rule.

    A pattern with a slash matches the end of a folder's path, or the whole path if it starts with
    a slash or a star; one without matches a folder's name.
    """
    pattern = name.removeprefix(FOLDER_PREFIX)
    pattern = os.path.expanduser(pattern).rstrip("/")  # noqa: PTH111 - a pattern is not a path
    return f"*/{pattern}" if "/" in pattern and not pattern.startswith(("/", "*")) else pattern


def is_in_folder(path: str, pattern: str) -> bool:
    """Check whether a folder above `path` matches the pattern by its path or by its name."""
    folder_names = path.split("/")[:-1]
    if "/" not in pattern:
        return any(fnmatchcase(name, pattern) for name in folder_names if name)
    folder_paths = ("/".join(folder_names[:end]) for end in range(1, len(folder_names) + 1))
    return any(fnmatchcase(folder_path, pattern) for folder_path in folder_paths)

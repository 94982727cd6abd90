"""Status of the files of an answer on disk: the catalog knows only that of the last ingest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from pipeline.grouping.keep_rules import DiskStatus, LibraryFile
from pipeline.grouping.match import Match, make_match_rank_key
from pipeline.query.matches import Answer


def refresh_status(file: LibraryFile) -> LibraryFile:
    """Return the file with its present status on disk; unchanged if it cannot be checked."""
    try:
        status = os.stat(file.path)  # noqa: PTH116 - the path may not be valid UTF-8
    except (FileNotFoundError, NotADirectoryError):
        return file if file.is_missing else replace(file, disk_status=DiskStatus.GONE)
    except (OSError, ValueError):
        return file
    # Inode and device are not compared: they change if a drive is mounted again or restored.
    if (status.st_size, status.st_mtime_ns) == (file.stat.size, file.stat.mtime_ns):
        return file
    return replace(file, disk_status=DiskStatus.CHANGED)


def refresh_answer(answer: Answer) -> Answer:
    """Return the answer with the present status of its files; those that are away come later."""
    return replace(
        answer,
        matches=_refresh_matches(answer.matches),
        identical=_refresh_matches(answer.identical),
    )


def _refresh_matches(matches: Sequence[Match]) -> tuple[Match, ...]:
    refreshed = [replace(match, file=refresh_status(match.file)) for match in matches]
    return tuple(sorted(refreshed, key=make_match_rank_key))

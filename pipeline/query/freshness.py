"""What has become of files since they were ingested: the store alone does not know."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

from pipeline.grouping.keep_rules import CHANGED_ON_DISK, GONE_FROM_DISK, LibraryFile
from pipeline.query.matches import Answer


def refresh_status(file: LibraryFile) -> LibraryFile:
    """The same photo, marked where it is gone or another by now; as the store has it where that cannot be told."""
    try:
        status = os.stat(file.path)  # noqa: PTH116 - a path that may be no UTF-8, as it was given
    except (FileNotFoundError, NotADirectoryError):
        return file if file.is_missing else replace(file, disk_status=GONE_FROM_DISK)
    except (OSError, ValueError):
        return file
    # Not by its inode or device: these change where a drive is mounted again, or was restored.
    same = (status.st_size, status.st_mtime_ns) == (file.stat.size, file.stat.mtime_ns)
    return file if same else replace(file, disk_status=CHANGED_ON_DISK)


def refresh_answer(answer: Answer) -> Answer:
    """The same answer, with what is gone or changed marked so."""
    return replace(
        answer,
        matches=tuple(replace(match, file=refresh_status(match.file)) for match in answer.matches),
    )


def format_stale_warning(files: Iterable[LibraryFile]) -> str | None:
    """How many photos are gone or changed since the last ingest; None where none is."""
    since = [photo.disk_status for photo in files]
    counts = [
        (since.count(GONE_FROM_DISK), "not there any more"),
        (since.count(CHANGED_ON_DISK), "changed"),
    ]
    listed = " and ".join(f"{number:,} {what}" for number, what in counts if number)
    return (
        f"of the photos named here {listed} since the last ingest, marked so; ingest again before you go by this"
        if listed
        else None
    )

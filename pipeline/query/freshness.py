"""What has become of files since they were ingested: the store alone does not know."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

from pipeline.grouping.keep_rules import CHANGED, GONE, Photo
from pipeline.query.matches import Answer


def as_now(photo: Photo) -> Photo:
    """The same photo, marked where it is gone or another by now; as the store has it where that cannot be told."""
    try:
        status = os.stat(photo.path)  # noqa: PTH116 - a path that may be no UTF-8, as it was given
    except (FileNotFoundError, NotADirectoryError):
        return photo if photo.missing else replace(photo, since=GONE)
    except (OSError, ValueError):
        return photo
    # Not by its inode or device: these change where a drive is mounted again, or was restored.
    same = (status.st_size, status.st_mtime_ns) == (photo.stat.size, photo.stat.mtime_ns)
    return photo if same else replace(photo, since=CHANGED)


def answer_now(answer: Answer) -> Answer:
    """The same answer, with what is gone or changed marked so."""
    return replace(answer, matches=tuple(replace(match, photo=as_now(match.photo)) for match in answer.matches))


def since_text(photos: Iterable[Photo]) -> str | None:
    """How many photos are gone or changed since the last ingest; None where none is."""
    since = [photo.since for photo in photos]
    counts = [(since.count(GONE), "not there any more"), (since.count(CHANGED), "changed")]
    listed = " and ".join(f"{number:,} {what}" for number, what in counts if number)
    return f"of the photos named here {listed} since the last ingest, marked so; ingest again before you go by this" if listed else None

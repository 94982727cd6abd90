"""What has become of the files that an answer names, since they were ingested: an answer comes from the store alone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

from pipeline.ask import Answer
from pipeline.cluster import Group, Match
from pipeline.keep import Photo


def groups_now(groups: Iterable[Group]) -> list[Group]:
    """The same groups, with what is gone or changed marked so."""
    return [replace(group, keeper=_now(group.keeper), members=_matches_now(group.members)) for group in groups]


def answer_now(answer: Answer) -> Answer:
    """The same answer, with what is gone or changed marked so."""
    return replace(answer, matches=_matches_now(answer.matches))


def since_text(before: Iterable[Photo], now: Iterable[Photo]) -> str | None:
    """How many photos are gone or changed now that were not before; None where none is."""
    pairs = list(zip(before, now, strict=True))
    gone, changed = (sum(getattr(new, what) and not getattr(old, what) for old, new in pairs) for what in ("missing", "changed"))
    if not gone and not changed:
        return None
    listed = " and ".join(f"{number:,} {what}" for number, what in ((gone, "not there any more"), (changed, "changed")) if number)
    return f"of the photos named here {listed} since the last ingest, marked so; ingest again before you go by this"


def _matches_now(matches: Iterable[Match]) -> tuple[Match, ...]:
    return tuple(replace(match, photo=_now(match.photo)) for match in matches)


def _now(photo: Photo) -> Photo:
    try:
        status = os.stat(photo.path)  # noqa: PTH116 - a path that may be no UTF-8, as it was given
    except (OSError, ValueError):
        return replace(photo, missing=True)
    # Not by its inode or device: these change where a drive is mounted again, or was restored.
    return replace(photo, missing=False, changed=(status.st_size, status.st_mtime_ns) != (photo.stat.size, photo.stat.mtime_ns))

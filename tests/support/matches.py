"""Members of groups as records, without any file."""

from __future__ import annotations

from indexes.records import FileStat, Image
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.grouping.match import Match
from pipeline.verify.relation import Relation
from pipeline.verify.verdict import Verdict


def make_file(path: str) -> LibraryFile:
    """Make a file of 1,000 bytes with an image of its own."""
    hash_ = path.encode(errors="surrogateescape")
    image = Image(hash_, hash_, 100, 100, "JPEG", 1000, False)
    return LibraryFile(path, FileStat(1000, 1_600_000_000 * 10**9, 0, 1, 1), image)


def make_member(path: str, made_from: Match | None = None, verdict: Verdict | None = None) -> Match:
    """Make a member that is derived from its keeper and was made from another member, or None."""
    parent = made_from.file if made_from else None
    return Match(make_file(path), Relation.DERIVED, 0.9, verdict, made_from=parent)

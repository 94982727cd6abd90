"""Standing of a file to the library: what a program that takes photos in asks of each."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from indexes.decisions import DecisionKind
from indexes.metadata import NO_METADATA, ImageMetadata
from indexes.records import FileStat, Image
from pipeline.grouping.cluster import select_best_files, trace_files
from pipeline.grouping.copy_views import list_views
from pipeline.grouping.edges import Edge, list_neighbors
from pipeline.grouping.exposures import Exposures
from pipeline.grouping.keep_rules import KeepRules, LibraryFile
from pipeline.grouping.match import Match
from pipeline.query.identify import Query
from pipeline.verify.relation import COPY_RELATIONS, Relation

UNKNOWN_STAT = FileStat(0, 0, 0, 0, 0)  # quality does not ask for it


class Standing(StrEnum):
    """A standing of a file to the library; the values are printed as they are."""

    NEW = "new"  # nothing matches
    IDENTICAL = "identical"  # the library has its bytes or its pixels
    BETTER = "better than"  # it holds more of its photo than every copy in the library
    WORSE = "worse than"  # a copy in the library holds as much of its photo, or more
    NEAR = "near"  # what matches is no copy, or was decided to be different


def find_standing(
    query: Query, matches: Sequence[Match], exposures: Exposures, *, is_identical: bool
) -> Standing:
    """Find how the file of a query stands to the library.

    `is_identical`: the library has its bytes or pixels. Of copies, the rules by which groups choose
    what holds most of a photo decide: the original, then pixels, format and bytes.
    """
    if is_identical:
        return Standing.IDENTICAL
    copies = [match for match in matches if _is_copy(match)]
    if copies:
        return Standing.BETTER if _holds_most(query, copies, exposures) else Standing.WORSE
    return Standing.NEAR if matches else Standing.NEW


def _is_copy(match: Match) -> bool:
    """Tell if a match is a copy by its pixels, or by a decision; a decision comes first."""
    if match.decision:
        return match.decision.kind is DecisionKind.SAME
    return match.relation in COPY_RELATIONS


def _holds_most(query: Query, copies: Sequence[Match], exposures: Exposures) -> bool:
    """Tell if the file of a query holds more of its photo than each of its copies."""
    own = _make_library_file(query)
    files = {own.image.pixel_hash: [own]}
    edges = dict[bytes, Edge]()
    for match in copies:
        other = match.file.image.pixel_hash
        files.setdefault(other, []).append(match.file)
        edges[other] = Edge(
            own.image.pixel_hash, other, _get_relation(match), match.score, match.verdict
        )
    rules = KeepRules()
    neighbors = list_neighbors(edges.values(), files)
    best_files = select_best_files(files, rules)
    views = list_views(best_files, neighbors, COPY_RELATIONS)
    provenance = trace_files(views, best_files, neighbors, exposures)

    def make_key(file: LibraryFile) -> tuple[Any, ...]:
        return rules.make_quality_key(file, provenance[file.image.pixel_hash])

    return all(make_key(own) < make_key(match.file) for match in copies)


def _get_relation(match: Match) -> Relation:
    is_decided = match.relation is Relation.SAME_BY_DECISION
    return Relation.SAME_PICTURE if is_decided else match.relation


def _make_library_file(query: Query) -> LibraryFile:
    """Make the record that the file of a query would have in the library."""
    image, source = query.image, query.source
    frame_count = _count_frames(image, image.metadata or NO_METADATA)
    return LibraryFile(source.path, source.stat or UNKNOWN_STAT, image, frame_count=frame_count)


def _count_frames(image: Image, metadata: ImageMetadata) -> int:
    has_several = image.has_frames or image.format == "MPO"
    return metadata.frames.count if has_several and metadata.frames else 1

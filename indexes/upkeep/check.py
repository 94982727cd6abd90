"""Check a store for damage, piece by piece."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from indexes.catalog import schema
from indexes.catalog.catalog import Catalog
from indexes.catalog.vectors import SegmentRow
from indexes.errors import StoreDamaged
from indexes.folder import StoreFolder
from indexes.paths import (
    CATALOG_NAME,
    DECISIONS_NAME,
    RESTORE_BACKUP_HINT,
    SEGMENTS_NAME,
    format_command,
)
from indexes.upkeep.recovery import load_decisions
from indexes.vectors import segments
from indexes.vectors.rows import VectorRows
from indexes.vectors.scores import STORED_PRODUCT_MARGIN, ScoredPairs, compute_cosines
from indexes.vectors.segments import Segment

# Vectors, or edges, that are checked at a time.
CHECK_BLOCK_ROWS = 1 << 16
# The location of a finding that the next ingest resolves.
UNEMBEDDED_LOCATION = "pictures"
# Below every score, so that all edges are read.
MIN_ANY_SCORE = -2.0

VECTOR_IN_NO_SEGMENT = "NOT EXISTS (SELECT 1 FROM segments WHERE vectors.id BETWEEN first AND last)"
VERDICTS_WITHOUT_IMAGE = (
    "verdicts WHERE first NOT IN (SELECT id FROM images) OR second NOT IN (SELECT id FROM images)"
)


@dataclass(frozen=True)
class Finding:
    """A damaged file, or a wrong part of the catalog.

    `location` is the path of the file or the name of a table; `segment` is set if a segment is
    damaged.
    """

    location: str
    problem: str
    segment: SegmentRow | None = None


@dataclass(frozen=True)
class ConsistencyRule:
    """A rule that the tables of a catalog obey: no row of `table` is selected by `violations`."""

    table: str
    violations: str  # what follows SELECT ... FROM
    problem: str


CONSISTENCY_RULES = (
    ConsistencyRule(
        "vectors",
        f"vectors WHERE {VECTOR_IN_NO_SEGMENT}",
        "vectors are in no segment",
    ),
    ConsistencyRule(
        "images",
        "images WHERE vector IS NOT NULL AND vector NOT IN (SELECT id FROM vectors)",
        "images refer to a missing vector",
    ),
    ConsistencyRule(
        "files",
        "files WHERE image IS NOT NULL AND image NOT IN (SELECT id FROM images)",
        "files refer to a missing image",
    ),
    ConsistencyRule(
        "edges",
        "edges WHERE left NOT IN (SELECT id FROM vectors) OR right NOT IN (SELECT id FROM vectors)",
        "pairs refer to a missing vector",
    ),
    ConsistencyRule(
        "verdicts",
        VERDICTS_WITHOUT_IMAGE,
        "verified pairs refer to a missing image",
    ),
)


def check(folder: Path, *, read_all: bool = False) -> list[Finding]:
    """Find all damage to the store in `folder`: files that changed since they were written.

    With `read_all`, every byte is read and every score computed again. A catalog that cannot be
    relied on is the only finding: segments are then not checked. Raises StoreMissing and
    StoreVersionMismatch.
    """
    try:
        with closing(StoreFolder(folder)) as opened:
            return list(find_damage(folder, opened.catalog, read_all=read_all))
    except StoreDamaged as error:
        return [Finding(os.fspath(folder / CATALOG_NAME), str(error))]


def find_damage(folder: Path, catalog: Catalog, *, read_all: bool) -> Iterator[Finding]:
    """Find everything that is wrong with a store whose catalog could be opened."""
    try:
        if not _has_expected_schema(catalog):
            problem = f"{catalog.path} has other tables than neardup creates"
            yield Finding(os.fspath(catalog.path), problem)
            return
        yield from _find_seal_damage(catalog)
        # After a kill there is no hash of the file: only SQLite's own check can find damage.
        if read_all or not catalog.was_closed_cleanly:
            catalog.verify()
        with catalog.snapshot():
            yield from _find_damage_behind_seal(folder, catalog, read_all=read_all)
    except StoreDamaged as error:
        yield Finding(os.fspath(catalog.path), _strip_backup_hint(error))


def _has_expected_schema(catalog: Catalog) -> bool:
    return set(catalog.fetch_rows(schema.SCHEMA_QUERY)) == schema.build_expected_schema()


def _find_seal_damage(catalog: Catalog) -> Iterator[Finding]:
    seal = catalog.path.with_suffix(".seal")
    has_seal_file = os.path.lexists(seal)
    # The first commit is visible a moment before there is a seal.
    if catalog.read_seal() is None and (has_seal_file or catalog.get_generation() > 1):
        problem = "has changed since it was written" if has_seal_file else "is missing"
        yield Finding(os.fspath(seal), f"{seal} {problem}; the next ingest writes it again")


def _find_damage_behind_seal(
    folder: Path, catalog: Catalog, *, read_all: bool
) -> Iterator[Finding]:
    catalog.roots.list()
    catalog.runs.get_last()
    bound = catalog.settings.get_space_and_model()
    rows = catalog.vectors.list_segments() if bound else []
    for before, row in zip(rows, rows[1:], strict=False):
        if before.last_id >= row.first_id:
            yield Finding("segments", f"{before.blake3} and {row.blake3} overlap", row)
    sound_segments = []
    for row in rows:
        try:
            dim = bound[0].dim if bound else 0
            segment = _load_segment(folder / SEGMENTS_NAME, row, dim, read_all=read_all)
            if not np.array_equal(segment.ids, catalog.vectors.list_ids(row.first_id, row.last_id)):
                raise StoreDamaged(f"{row.blake3} holds other vectors than the catalog says")
            sound_segments.append(segment)
        except StoreDamaged as error:
            path = segments.get_path(folder / SEGMENTS_NAME, row)
            yield Finding(os.fspath(path), _strip_backup_hint(error), row)
    for rule in CONSISTENCY_RULES:
        ((violation_count,),) = catalog.fetch_rows(f"SELECT count(*) FROM {rule.violations}")
        if violation_count:
            yield Finding(rule.table, f"{violation_count:,} {rule.problem}")
    yield from _find_unembedded(folder, catalog)
    yield from _find_uncopied_decisions(folder, catalog)
    if read_all and len(sound_segments) == len(rows):
        yield from _find_wrong_scores(catalog, VectorRows(sound_segments))


def _strip_backup_hint(error: StoreDamaged) -> str:
    return str(error).partition(f"; {RESTORE_BACKUP_HINT}")[0]


def _load_segment(folder: Path, row: SegmentRow, dim: int, *, read_all: bool) -> Segment:
    """Map a segment; with `read_all`, first check every byte, then the length of every vector.

    Raises StoreDamaged.
    """
    if read_all:
        segments.verify(row, folder)
    segment = Segment(folder, row, dim)
    for start in range(0, len(segment.ids) if read_all else 0, CHECK_BLOCK_ROWS):
        block = segment.vectors[start : start + CHECK_BLOCK_ROWS].astype(np.float32)
        norms = np.linalg.norm(block, axis=1)
        if not (np.abs(norms - 1.0) < STORED_PRODUCT_MARGIN).all():  # False for NaN too
            raise StoreDamaged(f"{row.blake3} holds vectors that are not of length 1")
    return segment


def _find_unembedded(folder: Path, catalog: Catalog) -> Iterator[Finding]:
    count = len(catalog.images.find_unembedded())
    if count:
        images = "image has no vector and is" if count == 1 else "images have no vector and are"
        ingest = format_command(folder, "ingest")
        problem = f"{count:,} {images} not compared; run `{ingest}` to embed again"
        yield Finding(UNEMBEDDED_LOCATION, problem)


def _find_uncopied_decisions(folder: Path, catalog: Catalog) -> Iterator[Finding]:
    copied = {decision.id for decision in load_decisions(folder)}
    count = sum(decision.id not in copied for decision in catalog.decisions.list())
    if count:
        path = folder / DECISIONS_NAME
        decisions = "decision" if count == 1 else "decisions"
        problem = f"{path} lacks {count:,} {decisions}; the next ingest writes it again"
        yield Finding(os.fspath(path), problem)


def _find_wrong_scores(catalog: Catalog, vectors: VectorRows) -> Iterator[Finding]:
    edges = catalog.pairs.stream(MIN_ANY_SCORE)
    wrong_count = 0
    while len((stored := ScoredPairs.from_edges(islice(edges, CHECK_BLOCK_ROWS))).left):
        has_vectors = np.isin(stored.left, vectors.ids) & np.isin(stored.right, vectors.ids)
        stored = stored.select(has_vectors)
        if len(stored.left):
            left = vectors.gather(vectors.find_rows(stored.left))
            right = vectors.gather(vectors.find_rows(stored.right))
            wrong_count += int((compute_cosines(left, right) != stored.score).sum())
    if wrong_count:
        yield Finding("edges", f"{wrong_count:,} pairs have another score than their vectors")

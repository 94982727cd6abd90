"""Merge segments and drop tombstones: few files, no dead weight, few copies of each vector."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from indexes.caches.crops import CropCache
from indexes.caches.thumbnails import ThumbnailCache
from indexes.catalog.catalog import Catalog
from indexes.catalog.vectors import Ids, SegmentRow
from indexes.coverage import CompactionReport
from indexes.durable.failpoints import failpoint
from indexes.folder import StoreFolder
from indexes.records import Space
from indexes.upkeep.sweep import sweep
from indexes.vectors import segments
from indexes.vectors.mapped import MappedSegments

# Tombstones that a segment may carry: if their images come back, they need no embedding.
MIN_TOMBSTONES_TO_REWRITE = 4096
# The share of tombstones from which a segment is rewritten.
MIN_TOMBSTONE_SHARE_TO_REWRITE = 0.5
# Segments of one tier that are merged. Those of a tier are 2 ** TIER_BITS times as large as those
# of the tier below.
MIN_SEGMENTS_PER_MERGE = 8
TIER_BITS = 3
# Bytes of vectors in a segment that compaction writes; it needs twice as much memory.
MAX_COMPACTED_SEGMENT_BYTES = 1 << 29
BYTES_PER_DIMENSION = 2  # float16


def compact(
    opened: StoreFolder, mapped: MappedSegments, space: Space, *, full: bool = False
) -> CompactionReport:
    """Merge segments and drop tombstones where that is due; with `full`, as far as possible.

    Each merge is a commit, so finished merges survive a crash. Answers do not change. Call it
    with the ingest lock held.
    """
    catalog = opened.catalog
    rows = catalog.vectors.list_segments()
    tombstones = {row.blake3: _find_tombstones(catalog, row) for row in rows}
    tombstone_counts = {name: len(ids) for name, ids in tombstones.items()}
    max_vector_id = catalog.vectors.get_next_id() - 1
    vectors_dropped = bytes_written = 0
    for merge in plan_merges(rows, tombstone_counts, max_vector_id, space.dim, full=full):
        merged = _merge_segments(merge, tombstones, opened, mapped)
        with catalog.transaction():
            catalog.vectors.remove_segments([row.blake3 for row in merge])
            dead_ids = np.concatenate([tombstones[row.blake3] for row in merge])
            catalog.vectors.delete_tombstones(dead_ids)
            if merged:
                catalog.vectors.put_segment(merged)
        failpoint("compaction committed")
        vectors_dropped += len(dead_ids)
        bytes_written += merged.size if merged else 0
    mapped.refresh()
    sweep(opened)
    if vectors_dropped:
        _trim_caches(opened, space)
    failpoint("compaction swept")
    segments_after = len(catalog.vectors.list_segments())
    return CompactionReport(len(rows), segments_after, vectors_dropped, bytes_written)


def _find_tombstones(catalog: Catalog, row: SegmentRow) -> Ids:
    return np.setdiff1d(
        catalog.vectors.list_ids(row.first_id, row.last_id),
        catalog.vectors.list_needed(row.first_id, row.last_id),
        assume_unique=True,
    )


def _merge_segments(
    rows: Sequence[SegmentRow],
    tombstones: Mapping[str, Ids],
    opened: StoreFolder,
    mapped: MappedSegments,
) -> SegmentRow | None:
    """Write the live vectors of neighboring segments as one; None if there are none."""
    live_rows = [row for row in rows if len(tombstones[row.blake3]) < row.vector_count]
    if not live_rows:
        return None
    segment_rows = opened.catalog.vectors.list_segments()
    segment_of = dict(zip((row.blake3 for row in segment_rows), mapped.refresh(), strict=True))

    def read_live_vectors() -> Iterator[tuple[Ids, NDArray[np.float16]]]:
        for row in live_rows:
            segment = segment_of[row.blake3]
            is_live = np.isin(segment.ids, tombstones[row.blake3], invert=True)
            yield segment.ids[is_live], segment.vectors[is_live]

    rewrites = max(row.rewrites for row in live_rows) + 1
    return segments.write(opened.segments, opened.scratch, read_live_vectors(), rewrites)


def _trim_caches(opened: StoreFolder, space: Space) -> None:
    """Drop thumbnails and crop vectors of images that are not needed."""
    images = opened.catalog.images
    with (
        ThumbnailCache(opened.path, write=True) as thumbnails,
        CropCache(opened.path, space, write=True) as crops,
    ):
        thumbnails.keep_only(images.stream_needed_hashes())
        crops.keep_only(images.stream_needed_hashes())


def compute_tier(row: SegmentRow) -> int:
    """Compute the tier of a segment: 0 for up to 7 vectors, 1 for up to 63, and so on."""
    return (row.vector_count.bit_length() - 1) // TIER_BITS


def plan_merges(
    rows: Sequence[SegmentRow],
    tombstone_counts: Mapping[str, int],
    max_vector_id: int,
    dim: int,
    *,
    full: bool = False,
) -> list[Sequence[SegmentRow]]:
    """Plan which neighboring segments become one each.

    By itself: MIN_SEGMENTS_PER_MERGE segments of a tier with none of a higher tier between them,
    and a large segment that is half tombstones. With `full`: all, and every tombstone goes.

    A merge of MIN_SEGMENTS_PER_MERGE lifts its vectors to a higher tier, so that happens to each at
    most log8(n) times. Whatever the reason, no vector is copied more often than log2 of
    `max_vector_id`, the number of all vectors there ever were, and none into more than
    MAX_COMPACTED_SEGMENT_BYTES. A segment of tombstones only goes without being copied.
    """
    spans = [range(len(rows))] if full else _find_due_spans(rows, tombstone_counts)
    max_rewrites = math.log2(max(max_vector_id, 1))
    can_rewrite = [
        row.rewrites + 1 <= max_rewrites or tombstone_counts[row.blake3] == row.vector_count
        for row in rows
    ]
    merges: list[Sequence[SegmentRow]] = []
    for span in sorted(spans, key=lambda span: span.start):
        for merge in _split_span(rows, span, can_rewrite, dim):
            if len(merge) > 1 or any(tombstone_counts[row.blake3] for row in merge):
                merges.append(merge)
    return merges


def _find_due_spans(rows: Sequence[SegmentRow], tombstone_counts: Mapping[str, int]) -> list[range]:
    """Find the spans of segments whose merge is due, from the highest tier down."""
    spans: list[range] = []
    max_tier = max((compute_tier(row) for row in rows), default=-1)
    for tier in range(max_tier, -1, -1):
        spans += _find_tier_spans(rows, tier, spans)
    claimed = {index for span in spans for index in span}
    for index, row in enumerate(rows):
        min_tombstones = max(
            MIN_TOMBSTONES_TO_REWRITE, row.vector_count * MIN_TOMBSTONE_SHARE_TO_REWRITE
        )
        if index not in claimed and tombstone_counts[row.blake3] >= min_tombstones:
            spans.append(range(index, index + 1))
    return spans


def _find_tier_spans(
    rows: Sequence[SegmentRow], tier: int, claimed: Sequence[range]
) -> list[range]:
    """Find spans of a tier: from its first to its last segment in each stretch.

    A stretch ends at a segment of a higher tier or of a claimed span. It must have
    MIN_SEGMENTS_PER_MERGE segments of the tier; smaller ones between them are merged too.
    """
    spans: list[range] = []
    stretch_start = 0
    claimed_indexes = {index for span in claimed for index in span}
    for index in range(len(rows) + 1):
        is_end = index == len(rows) or compute_tier(rows[index]) > tier or index in claimed_indexes
        if not is_end:
            continue
        of_tier = [at for at in range(stretch_start, index) if compute_tier(rows[at]) == tier]
        if len(of_tier) >= MIN_SEGMENTS_PER_MERGE:
            spans.append(range(of_tier[0], of_tier[-1] + 1))
        stretch_start = index + 1
    return spans


def _split_span(
    rows: Sequence[SegmentRow], span: range, can_rewrite: Sequence[bool], dim: int
) -> list[Sequence[SegmentRow]]:
    """Split a span where a segment may not be copied, or where a merge would grow too large."""
    max_vectors = MAX_COMPACTED_SEGMENT_BYTES // (BYTES_PER_DIMENSION * dim)
    merges: list[list[SegmentRow]] = [[]]
    for index in span:
        if not can_rewrite[index]:
            merges.append([])
            continue
        vector_count = sum(row.vector_count for row in merges[-1]) + rows[index].vector_count
        if vector_count > max_vectors:
            merges.append([])
        merges[-1].append(rows[index])
    return [merge for merge in merges if merge]

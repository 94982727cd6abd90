"""Plans of compaction, by the rows of segments alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes.catalog.vectors import SegmentRow
from indexes.upkeep.compaction import plan_merges


def make_row(name: str, count: int, first_id: int, last_id: int, rewrites: int = 0) -> SegmentRow:
    return SegmentRow(name, count, count, first_id, last_id, rewrites, 0, 0, 0)


def apply_merge(
    rows: list[SegmentRow],
    merge: Sequence[SegmentRow],
    tombstone_counts: Mapping[str, int],
    name: str,
) -> SegmentRow:
    """Replace the rows of a merge by the merged one, or by none if only tombstones were left."""
    index = rows.index(merge[0])
    assert rows[index : index + len(merge)] == list(merge)
    live_rows = [row for row in merge if tombstone_counts[row.blake3] < row.vector_count]
    count = sum(row.vector_count - tombstone_counts[row.blake3] for row in merge)
    rewrites = max((row.rewrites for row in live_rows), default=-1) + 1
    merged = make_row(name, count, merge[0].first_id, merge[-1].last_id, rewrites)
    rows[index : index + len(merge)] = [merged] if count else []
    return merged


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_compaction_copies_no_vector_more_than_log2_n_times(data: st.DataObject) -> None:
    rows: list[SegmentRow] = []
    tombstone_counts: dict[str, int] = {}
    total = 0  # vectors that there ever were
    for step in range(data.draw(st.integers(1, 120))):
        count = data.draw(st.sampled_from([1, 5, 60, 1000, 9000]))
        rows.append(make_row(str(step), count, total + 1, total + count))
        total += count
        for row in rows:
            if step % 7 == 0:
                drawn = st.sampled_from([0, 0, row.vector_count // 2, row.vector_count])
                tombstone_counts[row.blake3] = data.draw(drawn)
            else:
                tombstone_counts.setdefault(row.blake3, 0)
        full = data.draw(st.integers(0, 9)) == 0
        for merge in plan_merges(rows, tombstone_counts, total, 16, full=full):
            name = f"{step}-{rows.index(merge[0])}"
            merged = apply_merge(rows, merge, tombstone_counts, name)
            tombstone_counts[name] = 0
            assert merged.rewrites <= np.log2(total)
    # Segments of tombstones only are dropped, however often they were copied.
    tombstone_counts |= {row.blake3: row.vector_count for row in rows}
    merges = plan_merges(rows, tombstone_counts, total, 16, full=True)
    assert sum(len(merge) for merge in merges) == len(rows)
    if all(row.rewrites + 1 <= np.log2(total) for row in rows):
        assert len(rows) <= 8 * 7 * 6


def test_compaction_keeps_a_year_of_nights_in_few_segments() -> None:
    rows: list[SegmentRow] = []
    max_segments = 0
    for night in range(365):
        rows.append(make_row(str(night), 150, 150 * night + 1, 150 * night + 150))
        tombstone_counts = {row.blake3: 0 for row in rows}
        for merge in plan_merges(rows, tombstone_counts, rows[-1].last_id, 256):
            apply_merge(rows, merge, tombstone_counts, f"{night} {rows.index(merge[0])}")
        max_segments = max(max_segments, len(rows))
    assert max_segments <= 24
    assert max(row.rewrites for row in rows) <= 4

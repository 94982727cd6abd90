"""Exact search of query vectors in a segment.

FAISS scores in float32 and keeps what is strictly above a min_product. So FAISS proposes, down to a
margin below the threshold, and the float64 cosine of the stored vectors decides with >=.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexes.catalog.vectors import Ids
from indexes.vectors.scores import (
    STORED_PRODUCT_MARGIN,
    ScoredPairs,
    compute_cosines,
    compute_min_product,
    concat_pairs,
    find_pairs_above,
    score_candidates,
)
from indexes.vectors.segments import Segment

# Up to this many queries FAISS scans the stored codes; more are multiplied with widened blocks,
# which is faster from here on (measured: equal at about 24).
MAX_SCANNED_QUERIES = 24
# Neighbors that a scan asks for at first. While the last of them is above the threshold, it asks
# for SEARCH_K_GROWTH times as many.
INITIAL_SEARCH_K = 64
SEARCH_K_GROWTH = 8


def find_within(queries: NDArray[np.float16], segment: Segment, min_score: float) -> ScoredPairs:
    """Find every pair of a query row and a row of the segment with score >= min_score.

    Nothing is capped; left is a query row, right a row of the segment, in no particular order.
    """
    if len(queries) > MAX_SCANNED_QUERIES:
        return find_pairs_above(queries, segment.vectors, min_score)
    candidates = _scan(queries, segment, compute_min_product(min_score))
    return score_candidates(queries, segment.vectors, candidates, min_score)


def _scan(
    queries: NDArray[np.float16], segment: Segment, min_product: np.float32
) -> tuple[Ids, Ids]:
    # FAISS's range search of these codes is ten times slower than its search for the nearest
    # (measured).
    query_blocks, row_blocks = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    pending, search_k = np.arange(len(queries)), INITIAL_SEARCH_K
    while len(pending):
        scores, rows = segment.search(queries[pending], search_k)
        is_cut = (scores[:, -1] >= min_product) & (search_k < len(segment.ids))
        for position, query in enumerate(pending):
            if not is_cut[position]:
                near = rows[position][scores[position] >= min_product]
                query_blocks.append(np.full(len(near), query, np.int64))
                row_blocks.append(near)
        pending, search_k = pending[is_cut], search_k * SEARCH_K_GROWTH
    return np.concatenate(query_blocks), np.concatenate(row_blocks)


def find_nearest(queries: NDArray[np.float16], segment: Segment, count: int) -> ScoredPairs:
    """Find at least the `count` nearest rows of the segment to each query row.

    Every further row with the score of the last of them is included, so ties are never cut.
    """
    pair_sets: list[ScoredPairs] = []
    pending = np.arange(len(queries))
    search_k = min(count + INITIAL_SEARCH_K, len(segment.ids))
    while len(pending):
        faiss_scores, rows = segment.search(queries[pending], search_k)
        unresolved = []
        for position, query in enumerate(pending):
            repeated_query = np.broadcast_to(queries[query], (search_k, queries.shape[1]))
            scores = compute_cosines(repeated_query, segment.vectors[rows[position]])
            last_score = np.sort(scores)[-min(count, search_k)]
            # A row beyond the search_k proposed ones may be as near as the last of the `count`.
            if (
                search_k < len(segment.ids)
                and faiss_scores[position, -1] >= last_score - STORED_PRODUCT_MARGIN
            ):
                unresolved.append(query)
                continue
            pairs = ScoredPairs(np.full(search_k, query, np.int64), rows[position], scores)
            pair_sets.append(pairs.select(scores >= last_score))
        pending = np.array(unresolved, np.int64)
        search_k = min(search_k * SEARCH_K_GROWTH, len(segment.ids))
    return concat_pairs(pair_sets)

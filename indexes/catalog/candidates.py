"""Choose the candidates among all pairs of near vectors: how many a vector has is bounded.

In a cluster of n images near each other, n (n - 1) / 2 pairs are above any floor. Each image is
compared with its nearest ones, and with a few hubs: the images that are likeliest to be originals,
because all copies should meet these, and a few of arbitrary contents, which show how an image
differs from the others on the whole. So each image has a bounded number of candidates of its own.

The choice depends on contents alone. So it is the same for any order of adds, and a pair that was
compared while the library was smaller does not count once it is no candidate any more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexes.catalog.database import Database
from indexes.catalog.images import IMAGE_IN_USE

# Candidates of a vector. With these, four libraries of ten photos with 67 copies each are grouped
# as with all pairs, and have a fifth fewer; without hubs they fall into twice the groups. Of 4,610
# pairs of copies in 7,780 mixed images none is lost by 48 nearest alone, and 33 by 32.
MAX_NEAREST = 32
MAX_LARGEST = 8
MAX_ARBITRARY = 8

# (vector, rank, rank): the first rank is that of a likely original, with the most kinds of
# metadata, then the most pixels, then the most bytes; the second that of the pixel hash.
HUB_RANKS = f"""
    SELECT vector,
        row_number() OVER (
            ORDER BY max(length(metadata) - length(replace(metadata, ' ', '')) + (metadata != ''))
            DESC, max(width * height) DESC, max(size) DESC, min(pixel_hash)
        ),
        row_number() OVER (ORDER BY min(pixel_hash))
    FROM images WHERE vector IS NOT NULL AND {IMAGE_IN_USE}
    GROUP BY vector"""


def select_candidates(
    database: Database, pairs: NDArray[np.int64], scores: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Select the candidates among pairs of vectors in use (n, 2), each once, as a mask (n,).

    A pair is one if it is among the MAX_NEAREST of one of its vectors, or if one of its vectors is
    a hub of the other. `scores` (n,) are cosines; of equal ones, all count as the nearest.
    """
    is_candidate = np.ones(len(pairs), dtype=bool)
    vectors, positions = np.unique(pairs, return_inverse=True)
    positions = positions.reshape(pairs.shape)
    is_crowded = np.bincount(positions.ravel(), minlength=len(vectors)) > MAX_NEAREST
    doubtful = np.flatnonzero(is_crowded[positions].all(axis=1))
    if not len(doubtful):
        return is_candidate
    is_candidate[doubtful] = False
    ranks = np.fromiter(database.stream_rows(HUB_RANKS), np.dtype((np.int64, 3)))
    ranks = ranks[np.argsort(ranks[:, 0])]
    hub_ranks = ranks[np.searchsorted(ranks[:, 0], vectors), 1:]
    # Each pair once from either end, where that end is crowded.
    owners, others = positions.T.ravel(), positions[:, ::-1].T.ravel()
    of_crowded = np.flatnonzero(is_crowded[owners])
    owners, others, rows = owners[of_crowded], others[of_crowded], of_crowded % len(pairs)
    for keys, count in (
        (-scores[rows], MAX_NEAREST),
        (hub_ranks[others, 0], MAX_LARGEST),
        (hub_ranks[others, 1], MAX_ARBITRARY),
    ):
        is_candidate[rows[_select_first(owners, keys, count)]] = True
    return is_candidate


def _select_first(
    owners: NDArray[np.int64], keys: NDArray[np.floating | np.integer], count: int
) -> NDArray[np.bool_]:
    """Select the rows of each owner with its `count` lowest keys, and those equal to the last.

    Each owner has more than `count` rows.
    """
    order = np.lexsort((keys, owners))
    sorted_owners = owners[order]
    starts = np.searchsorted(sorted_owners, owners)
    last_keys = keys[order[starts + count - 1]]
    return np.asarray(keys <= last_keys)

"""Choose the candidates among all pairs of near vectors: how many a vector has is bounded.

In a cluster of n images near each other, n (n - 1) / 2 pairs are above any floor. So each image is
compared with its nearest ones first. Only if one of these shows its scene, it is compared with
more: with further near ones, and with a few hubs. Those are the images that are likeliest to be
originals, because all copies should meet these, and a few of arbitrary contents, which show how an
image differs from the others on the whole.

The choice depends on contents and verdicts alone, and a verdict on its two images. So it is the
same for any order of adds, and a pair that was compared while the library was smaller does not
count once it is no candidate any more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from indexes.catalog.database import Database
from indexes.catalog.images import IMAGE_IN_USE

# Relations of two images that do not show one scene; many images share a template.
OTHER_SCENE_RELATIONS = ("unrelated", "not verifiable", "same template")

# That a vector is compared with in any case. Of 7,747 mixed images 36,434 pairs are among the
# MAX_NEAREST or hubs; with the first 8 nearest 26,240 are left, and with them all 4,226 pairs of
# copies and all but 43 others that are related.
FIRST_NEAREST = 8
# Candidates of a vector with one of its scene among its first nearest. With these, four libraries
# of ten photos with 67 copies each are grouped as with all pairs, and have a fifth fewer; without
# hubs they fall into twice the groups.
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
# (vector, vector) of each two images whose newest verdict has no relation that is listed, the
# smaller first. An image that is not in use counts if one with its pixels is.
RELATED_VECTORS = f"""
    WITH in_use AS (
        SELECT DISTINCT pixel_hash FROM images WHERE vector IS NOT NULL AND {IMAGE_IN_USE}
    ), newest AS (
        -- SQLite takes the other columns from the row with the maximum.
        SELECT left_image.vector AS left_vector, right_image.vector AS right_vector, relation,
            max(2 * version - provisional)
        FROM verdicts
        JOIN images AS left_image ON left_image.id = first
        JOIN images AS right_image ON right_image.id = second
        WHERE left_image.pixel_hash IN in_use AND right_image.pixel_hash IN in_use
        GROUP BY min(left_image.pixel_hash, right_image.pixel_hash),
            max(left_image.pixel_hash, right_image.pixel_hash)
    )
    SELECT DISTINCT min(left_vector, right_vector), max(left_vector, right_vector)
    FROM newest WHERE relation NOT IN ({{}})"""


def select_candidates(
    database: Database, pairs: NDArray[np.int64], scores: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Select the candidates among pairs of vectors in use (n, 2), each once, as a mask (n,).

    A pair is one if it is among the FIRST_NEAREST of one of its vectors. A vector that shows the
    scene of one of these, by a verdict, has more: its MAX_NEAREST, and the hubs. `scores` (n,) are
    cosines; of equal ones, all count as the nearest.
    """
    is_candidate = np.ones(len(pairs), dtype=bool)
    vectors, positions = np.unique(pairs, return_inverse=True)
    positions = positions.reshape(pairs.shape)
    is_crowded = np.bincount(positions.ravel(), minlength=len(vectors)) > FIRST_NEAREST
    doubtful = np.flatnonzero(is_crowded[positions].all(axis=1))
    if not len(doubtful):
        return is_candidate
    is_candidate[doubtful] = False
    # Each pair once from either end, where that end is crowded.
    owners, others = positions.T.ravel(), positions[:, ::-1].T.ravel()
    of_crowded = np.flatnonzero(is_crowded[owners])
    owners, others, rows = owners[of_crowded], others[of_crowded], of_crowded % len(pairs)
    distances = -scores[rows]
    is_candidate[rows[_select_first(owners, distances, FIRST_NEAREST)]] = True
    related = pack_pairs(find_related_vectors(database, OTHER_SCENE_RELATIONS))
    is_related = is_candidate & np.isin(pack_pairs(pairs), related)
    has_related = np.zeros(len(vectors), dtype=bool)
    has_related[positions[is_related]] = True
    of_related = has_related[owners]
    owners, others, rows = owners[of_related], others[of_related], rows[of_related]
    hub_ranks = _rank_hubs(database, vectors)
    for keys, count in (
        (distances[of_related], MAX_NEAREST),
        (hub_ranks[others, 0], MAX_LARGEST),
        (hub_ranks[others, 1], MAX_ARBITRARY),
    ):
        is_candidate[rows[_select_first(owners, keys, count)]] = True
    return is_candidate


def find_related_vectors(
    database: Database, excluded_relations: Sequence[str]
) -> NDArray[np.int64]:
    """Find the vector pairs (n, 2) of images in use whose relation is not an excluded one.

    The smaller id comes first; each pair is there once, in no order.
    """
    placeholders = ",".join("?" * len(excluded_relations))
    rows = database.stream_rows(RELATED_VECTORS.format(placeholders), *excluded_relations)
    return np.asarray(np.fromiter(rows, np.dtype((np.int64, 2))))


def _rank_hubs(database: Database, vectors: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank vectors (n,) among all in use as HUB_RANKS does, (n, 2)."""
    ranks = np.fromiter(database.stream_rows(HUB_RANKS), np.dtype((np.int64, 3)))
    ranks = ranks[np.argsort(ranks[:, 0])]
    return np.asarray(ranks[np.searchsorted(ranks[:, 0], vectors), 1:], np.int64)


def _select_first(
    owners: NDArray[np.int64], keys: NDArray[np.floating | np.integer], count: int
) -> NDArray[np.bool_]:
    """Select the rows of each owner with its `count` lowest keys, and those equal to the last."""
    order = np.lexsort((keys, owners))
    sorted_owners = owners[order]
    starts = np.searchsorted(sorted_owners, owners)
    ends = np.searchsorted(sorted_owners, owners, side="right")
    last_keys = keys[order[np.minimum(starts + count, ends) - 1]]
    return np.asarray(keys <= last_keys)


def pack_pairs(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pack (first, second), each below 2^31, into one number that orders by second, then first."""
    return pairs[:, 1] << 32 | pairs[:, 0]

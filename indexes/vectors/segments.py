"""Segment files: FAISS inner-product indexes of unit vectors with the ids of their images. Written once, never changed.

A score is a cosine; larger is closer; a threshold means >=. FAISS knows neither: it keeps what is strictly above a radius, in float32.
So FAISS proposes, a little below the threshold, and the float64 cosine of the stored vectors decides.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from indexes.catalog.vectors import Ids, SegmentRow
from indexes.durable import files as durable
from indexes.errors import InvalidVector, StoreDamaged, StoreError
from indexes.paths import repair_hint
from indexes.records import FileStat

SUFFIX = ".faiss"
# FAISS multiplies what is stored: a row may be off length 1 by LENGTH, and float16 rounds each number by up to 2^-11 of itself, so a
# product differs from the cosine by up to 3e-3; and float32 products differ between libraries and tile shapes by up to 9e-7 (measured).
MAX_NORM_ERROR = 1e-3
STORED_PRODUCT_MARGIN = 3.1e-3
STORED_BLOCK_ROWS = 4096  # rows widened to float32 at a time, in the product with many queries
MAX_SCANNED_QUERIES = 24  # up to so many queries FAISS scans the stored codes; more are multiplied with widened blocks (measured: equal at about 24)
INITIAL_SEARCH_K = 64  # neighbours that a scan asks for at first; as long as the last of them is above the threshold, eight times as many
COSINE_BLOCK_PAIRS = 1 << 15  # pairs scored in float64 at a time
MAX_COMPACTED_SEGMENT_BYTES = (
    1 << 29
)  # bytes of vectors in a segment that compaction makes: what it needs twice of memory

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs of a left and a right row with their scores: three arrays of one length (int64, int64, float64)."""

    left: Ids
    right: Ids
    score: NDArray[np.float64]

    def to_dict(self) -> dict[tuple[int, int], float]:
        """The score of each pair, (left, right)."""
        return dict(
            zip(
                zip(self.left.tolist(), self.right.tolist(), strict=True),
                self.score.tolist(),
                strict=True,
            )
        )


def concat_pairs(pair_sets: Sequence[ScoredPairs]) -> ScoredPairs:
    """Several sets of pairs as one."""
    left, right, score = (
        np.concatenate([getattr(part, name) for part in pair_sets] or [[]])
        for name in ("left", "right", "score")
    )
    return ScoredPairs(left.astype(np.int64), right.astype(np.int64), score)


@cache
def _load_faiss() -> Any:  # noqa: ANN401 - faiss has no types
    """The library, loaded when the first vector is touched."""
    import faiss

    if tuple(int(part) for part in faiss.__version__.split(".")[:2]) < (1, 15):
        raise StoreError(
            f"faiss {faiss.__version__} can crash on damaged files; run `pip install 'faiss-cpu>=1.15'`"
        )
    # A file is parsed only after its hash was found right; should one get past that, it cannot ask for all memory, or for ever.
    faiss.set_deserialization_vector_byte_limit(1 << 36)
    faiss.set_deserialization_loop_limit(1 << 20)
    return faiss


def to_stored_vectors(vectors: NDArray[np.floating[Any]], dim: int) -> NDArray[np.float16]:
    """Rows as they are kept, float16: a score moves by at most 3.3e-4. Raises BadVector for what cosine cannot compare."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise InvalidVector(
            f"vectors of shape {vectors.shape}, the store holds {dim} dimensions; embed with the store's own model"
        )
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.linalg.norm(vectors, axis=1)
        bad = int((~(np.abs(norms - 1.0) < MAX_NORM_ERROR)).sum())  # also catches NaN
    if bad:
        raise InvalidVector(
            f"{bad} of {len(vectors)} vectors are not of length 1; pass them through embed() first"
        )
    return vectors.astype(np.float16)


def write(
    folder: Path,
    scratch: Path,
    blocks: Iterable[tuple[Ids, NDArray[np.float16]]],
    rewrites: int = 0,
) -> SegmentRow:
    """Put vectors and their ids, ascending, on disk as one segment; durable when this returns, visible when its row is committed."""
    faiss = _load_faiss()
    index: Any = None
    first = last = 0
    for ids, vectors in blocks:
        if index is None:
            # Plain IDMap: IDMap2 also builds a table of all ids each time a file is opened, 88 ms instead of 18 for a million (measured).
            index = faiss.index_factory(
                vectors.shape[1], "IDMap,SQfp16", faiss.METRIC_INNER_PRODUCT
            )
        assert len(ids) and ids[0] > last and (np.diff(ids) > 0).all(), "ids ascend"
        first, last = first or int(ids[0]), int(ids[-1])
        for start in range(0, len(ids), STORED_BLOCK_ROWS):
            some = slice(start, start + STORED_BLOCK_ROWS)
            index.add_with_ids(vectors[some].astype(np.float32), np.ascontiguousarray(ids[some]))
    assert index is not None, "a segment holds vectors"

    def fill(file: durable.HashingFile) -> None:
        writer = faiss.PyCallbackIOWriter(
            file.write
        )  # FAISS's own file writer can report success on a full disk
        faiss.write_index(index, writer)
        del writer  # flushes

    name, size = durable.write(folder, SUFFIX, fill, scratch)
    return with_file_stat(
        SegmentRow(name, index.ntotal, size, first, last, rewrites, 0, 0, 0), folder
    )


def with_file_stat(row: SegmentRow, folder: Path) -> SegmentRow:
    """The row with what the filesystem says of its file now."""
    stat = FileStat.from_os_stat((folder / f"{row.blake3}{SUFFIX}").stat())
    return replace(row, mtime_ns=stat.mtime_ns, ctime_ns=stat.ctime_ns, inode=stat.inode)


def is_untouched(row: SegmentRow, folder: Path) -> bool:
    """Whether the file is untouched since its hash was known to be right, by what the filesystem says."""
    try:
        status = (folder / f"{row.blake3}{SUFFIX}").stat()
    except OSError:
        return False
    return FileStat.from_os_stat(status).is_unchanged_since(row)


def verify(row: SegmentRow, folder: Path) -> None:
    """Read every byte of a segment. Raises StoreDamaged when they are not what was written."""
    path = folder / f"{row.blake3}{SUFFIX}"
    try:
        if (
            path.stat().st_size != row.size
            or blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest() != row.blake3
        ):
            raise StoreDamaged(f"{path} is not what was written: {_describe_loss(row, folder)}")
    except FileNotFoundError as error:
        raise StoreDamaged(f"{path} is gone: {_describe_loss(row, folder)}") from error
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read: {error.strerror or error}; check its permissions, and the disk"
        ) from error


@contextmanager
def _utf8_path(path: Path) -> Iterator[str]:
    """A name by which FAISS, which takes only UTF-8, finds the file meanwhile."""
    name = os.fspath(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        with path.open("rb") as file:
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        yield name


class Segment:
    """One segment file, mapped into memory: `ids` (rows,) ascending, `vectors` (rows, dim) as they are stored."""

    def __init__(self, folder: Path, row: SegmentRow, dim: int) -> None:
        """Map the file, after its bytes were verified unless it is untouched. Raises StoreDamaged."""
        path = folder / f"{row.blake3}{SUFFIX}"
        if not is_untouched(row, folder):
            verify(row, folder)
        faiss = _load_faiss()
        try:
            with _utf8_path(path) as name:
                self._index = faiss.read_index(name, faiss.IO_FLAG_MMAP_IFC)
            codes = faiss.downcast_index(self._index.index)
            found = (self._index.ntotal, self._index.d, codes.code_size)
        except (RuntimeError, AttributeError) as error:
            raise StoreDamaged(
                f"{path} cannot be read ({error}): {_describe_loss(row, folder)}"
            ) from error
        if (
            found != (row.vector_count, dim, 2 * dim)
            or self._index.metric_type != faiss.METRIC_INNER_PRODUCT
        ):
            raise StoreDamaged(
                f"{path} holds {found[0]} vectors of {found[1]} dimensions, expected {row.vector_count} of {dim}: {_describe_loss(row, folder)}"
            )
        raw = faiss.rev_swig_ptr(codes.codes.data(), row.vector_count * 2 * dim)
        self.vectors: NDArray[np.float16] = raw.view(np.float16).reshape(row.vector_count, dim)
        self.ids: Ids = faiss.vector_to_array(self._index.id_map)
        if (self.ids[0], self.ids[-1]) != (row.first_id, row.last_id):
            raise StoreDamaged(
                f"{path} holds vectors {self.ids[0]} to {self.ids[-1]}, expected {row.first_id} to {row.last_id}: {_describe_loss(row, folder)}"
            )

    def search(
        self, queries: NDArray[np.float16], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """FAISS's own scores and rows of the `count` nearest to each query, best first; they are off by up to MARGIN."""
        scores, ids = self._index.search(queries.astype(np.float32), min(count, len(self.ids)))
        return scores, np.searchsorted(self.ids, ids)


def _describe_loss(row: SegmentRow, folder: Path) -> str:
    return f"{row.vector_count:,} {'picture has' if row.vector_count == 1 else 'pictures have'} no vector; {repair_hint(folder.parent)}"


def cosines(
    left: NDArray[np.floating[Any]], right: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """The cosine of each row of `left` with the same row of `right`, in float64, the same to the last bit however rows are batched.

    Rounded to 12 decimals, so that a vector's score with itself is 1 and not the number next to it.
    """
    scores = np.empty(len(left))
    for start in range(0, len(left), COSINE_BLOCK_PAIRS):
        some = slice(start, start + COSINE_BLOCK_PAIRS)
        a, b = left[some].astype(np.float64), right[some].astype(np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
        scores[some] = np.einsum("ij,ij->i", a, b) / lengths
    np.clip(scores, -1.0, 1.0, out=scores)
    return np.round(scores, 12, out=scores)


def train_centroids(rows: NDArray[np.float32], count: int, iterations: int) -> NDArray[np.float32]:
    """Unit vectors (count, dim) that part the space among `rows`, by FAISS's spherical k-means; the same for the same rows."""
    faiss = _load_faiss()
    means = faiss.Kmeans(
        rows.shape[1],
        count,
        niter=iterations,
        spherical=True,
        seed=1,
        min_points_per_centroid=1,
        verbose=False,
    )
    means.train(np.ascontiguousarray(rows))
    made: NDArray[np.float32] = means.centroids
    return made


def nearest_lists(
    rows: NDArray[np.float32], centroids: NDArray[np.float32], count: int
) -> NDArray[np.int32]:
    """The numbers of the `count` centres nearest to each row, nearest first: (n, count)."""
    faiss = _load_faiss()
    _, found = faiss.knn(
        np.ascontiguousarray(rows), centroids, count, metric=faiss.METRIC_INNER_PRODUCT
    )
    return np.asarray(found, dtype=np.int32)


def find_within(queries: NDArray[np.float16], segment: Segment, min_score: float) -> ScoredPairs:
    """Every pair of a query row and a stored row with score >= min_score, nothing capped; rows are numbered from 0 on each side."""
    if len(queries) > MAX_SCANNED_QUERIES:
        return pairs_above(queries, segment.vectors, min_score)
    return _score_candidates(
        queries,
        segment.vectors,
        *_find_by_scan(queries, segment, np.float32(min_score - STORED_PRODUCT_MARGIN)),
        min_score,
    )


def pairs_above(
    left: NDArray[np.float16], right: NDArray[np.float16], min_score: float
) -> ScoredPairs:
    """Every pair of a row of `left` and a row of `right`, both as they are stored, with score >= min_score, by the numbers of both."""
    return _score_candidates(
        left,
        right,
        *_find_by_product(left, right, np.float32(min_score - STORED_PRODUCT_MARGIN)),
        min_score,
    )


def _score_candidates(
    left: NDArray[np.float16],
    right: NDArray[np.float16],
    left_rows: Ids,
    right_rows: Ids,
    min_score: float,
) -> ScoredPairs:
    score = cosines(left[left_rows], right[right_rows])
    keep = score >= min_score
    return ScoredPairs(left_rows[keep], right_rows[keep], score[keep])


def _find_by_scan(
    queries: NDArray[np.float16], segment: Segment, radius: np.float32
) -> tuple[Ids, Ids]:
    # FAISS's range search of these codes is ten times slower than its search for the nearest (measured).
    lefts, rights = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    waiting, asked = np.arange(len(queries)), INITIAL_SEARCH_K
    while len(waiting):
        scores, rows = segment.search(queries[waiting], asked)
        more = (scores[:, -1] >= radius) & (asked < len(segment.ids))
        for number, query in enumerate(waiting):
            if not more[number]:
                near = rows[number][scores[number] >= radius]
                lefts.append(np.full(len(near), query, np.int64))
                rights.append(near)
        waiting, asked = waiting[more], asked * 8
    return np.concatenate(lefts), np.concatenate(rights)


def _find_by_product(
    queries: NDArray[np.float16], vectors: NDArray[np.float16], radius: np.float32
) -> tuple[Ids, Ids]:
    rows = queries.astype(np.float32)
    lefts, rights = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for first in range(0, len(vectors), STORED_BLOCK_ROWS):
        block = vectors[first : first + STORED_BLOCK_ROWS].astype(np.float32)
        for start in range(0, len(rows), STORED_BLOCK_ROWS):
            products = rows[start : start + STORED_BLOCK_ROWS] @ block.T
            flat = np.flatnonzero(products.ravel() >= radius)
            lefts.append(flat // len(block) + start)
            rights.append(flat % len(block) + first)
    return np.concatenate(lefts), np.concatenate(rights)


def find_nearest(queries: NDArray[np.float16], segment: Segment, count: int) -> ScoredPairs:
    """At least the `count` stored rows nearest to each query row, and every other that is as near as the last of them."""
    lefts, rights, kept = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
    waiting, asked = np.arange(len(queries)), min(count + INITIAL_SEARCH_K, len(segment.ids))
    while len(waiting):
        scores, rows = segment.search(queries[waiting], asked)
        again = []
        for number, query in enumerate(waiting):
            score = cosines(
                np.broadcast_to(queries[query], (asked, queries.shape[1])),
                segment.vectors[rows[number]],
            )
            last = np.sort(score)[-min(count, asked)]
            if asked < len(segment.ids) and scores[number, -1] >= last - STORED_PRODUCT_MARGIN:
                again.append(query)  # one that was not asked for may be as near
                continue
            keep = score >= last
            lefts.append(np.full(int(keep.sum()), query, np.int64))
            rights.append(rows[number][keep])
            kept.append(score[keep])
        waiting, asked = np.array(again, np.int64), min(asked * 8, len(segment.ids))
    return ScoredPairs(np.concatenate(lefts), np.concatenate(rights), np.concatenate(kept))

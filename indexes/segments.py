"""Segment files: FAISS inner-product indexes of unit vectors with the ids of their images. Written once, never changed.

A score is a cosine; larger is closer; a threshold means >=. FAISS knows neither: it keeps what is strictly above a radius, in float32.
So FAISS proposes, a little below the threshold, and the float64 cosine of the stored vectors decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from indexes import durable
from indexes.catalog import SegmentRow
from indexes.errors import BadVector, StoreDamaged, StoreError

SUFFIX = ".faiss"
# FAISS multiplies what is stored: float16 rounds each number by up to 2^-11 of itself, so a product may be 9.8e-4 below the cosine; and
# float32 products differ between libraries and tile shapes by up to 9e-7 (measured).
MARGIN = 1.1e-3
QUERY_BLOCK = 4096  # rows in one range search: its result lists take about 40 bytes for each query and 1,024 rows
STORED_BLOCK = 1 << 16  # rows widened to float32 at a time: 128 MB at 512 dimensions
DECIDED_BLOCK = 1 << 15  # pairs scored in float64 at a time

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Scored:
    """Pairs of a left and a right row with their scores: three arrays of one length (int64, int64, float64)."""

    left: Ids
    right: Ids
    score: NDArray[np.float64]


def _faiss() -> Any:  # noqa: ANN401 - faiss has no types
    """The library, loaded when the first vector is touched."""
    import faiss

    if tuple(int(part) for part in faiss.__version__.split(".")[:2]) < (1, 15):
        raise StoreError(f"faiss {faiss.__version__} can crash on damaged files; run `pip install 'faiss-cpu>=1.15'`")
    return faiss


def write(folder: Path, scratch: Path, ids: Ids, vectors: Vectors) -> SegmentRow:
    """Put unit rows and the ids of their images on disk as one segment; durable when this returns, visible when its row is committed.

    Vectors are kept as float16: a score moves by at most 3.3e-4. The row's id is 0 until the catalog gives it one.
    Raises BadVector for a row that is not finite or not of length 1.
    """
    if vectors.ndim != 2 or len(ids) != len(vectors) or not len(ids):
        raise BadVector(f"{len(ids)} ids for vectors of shape {vectors.shape}; give one id for each row")
    norms = np.linalg.norm(vectors, axis=1)
    if not (np.abs(norms - 1.0) < 1e-3).all():  # also catches NaN
        raise BadVector(f"{int((~(np.abs(norms - 1.0) < 1e-3)).sum())} of {len(vectors)} vectors are not of length 1; normalise them first")
    faiss = _faiss()
    index = faiss.index_factory(vectors.shape[1], "IDMap2,SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), np.ascontiguousarray(ids, dtype=np.int64))

    def fill(file: durable.HashingFile) -> None:
        writer = faiss.PyCallbackIOWriter(file.write)
        faiss.write_index(index, writer)
        del writer  # flushes

    name, size = durable.write(folder, SUFFIX, fill, scratch)
    return SegmentRow(0, name, len(ids), size)


class Segment:
    """One segment file, mapped into memory."""

    def __init__(self, folder: Path, row: SegmentRow, dim: int) -> None:
        """Verify the file against its hash, then map it. Raises StoreDamaged."""
        path = folder / f"{row.blake3}{SUFFIX}"
        try:
            if path.stat().st_size != row.size or blake3().update_mmap(path).hexdigest() != row.blake3:
                raise StoreDamaged(f"{path} is not what was written: {_lost(row)}")
        except OSError as error:
            raise StoreDamaged(f"{path} cannot be read ({error.strerror}): {_lost(row)}") from error
        faiss = _faiss()
        self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        codes = faiss.downcast_index(self._index.index)
        if (self._index.ntotal, self._index.d, codes.code_size) != (row.rows, dim, 2 * dim):
            raise StoreDamaged(f"{path} holds {self._index.ntotal} vectors of {self._index.d} dimensions, expected {row.rows} of {dim}")
        raw = faiss.rev_swig_ptr(codes.codes.data(), row.rows * 2 * dim)
        self.vectors: NDArray[np.float16] = raw.view(np.float16).reshape(row.rows, dim)
        self.ids: Ids = faiss.vector_to_array(self._index.id_map)


def _lost(row: SegmentRow) -> str:
    return f"{row.rows} pictures have no vector; restore the file from a backup, or ingest the folders into a new --store"


def cosines(left: NDArray[np.floating[Any]], right: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The cosine of each row of `left` with the same row of `right`, in float64, the same to the last bit however rows are batched.

    Rounded to 12 decimals, so that a vector's score with itself is 1 and not the number next to it.
    """
    scores = np.empty(len(left))
    for start in range(0, len(left), DECIDED_BLOCK):
        some = slice(start, start + DECIDED_BLOCK)
        a, b = left[some].astype(np.float64), right[some].astype(np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
        scores[some] = np.einsum("ij,ij->i", a, b) / lengths
    np.clip(scores, -1.0, 1.0, out=scores)
    return np.round(scores, 12, out=scores)


def range_search(queries: NDArray[np.floating[Any]], stored: NDArray[np.float16], min_score: float) -> Scored:
    """Every pair of a query row and a stored row with score >= min_score, nothing capped; rows are numbered from 0 on each side."""
    faiss = _faiss()
    lefts, rights, scores = [], [], []
    radius = float(np.float32(min_score - MARGIN))
    for first in range(0, len(stored), STORED_BLOCK):
        block = np.ascontiguousarray(stored[first : first + STORED_BLOCK], dtype=np.float32)
        index = faiss.IndexFlatIP(block.shape[1])
        index.add(block)
        for start in range(0, len(queries), QUERY_BLOCK):
            some = np.ascontiguousarray(queries[start : start + QUERY_BLOCK], dtype=np.float32)
            ends, _, found = index.range_search(some, radius)
            left = np.repeat(np.arange(len(some), dtype=np.int64), np.diff(ends.astype(np.int64))) + start
            right = found.astype(np.int64) + first
            score = cosines(queries[left], stored[right])
            keep = score >= min_score
            lefts.append(left[keep])
            rights.append(right[keep])
            scores.append(score[keep])
    if not lefts:
        return Scored(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    return Scored(np.concatenate(lefts), np.concatenate(rights), np.concatenate(scores))

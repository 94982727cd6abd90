"""Segment files: FAISS inner-product indexes of unit vectors with their ids.

A segment is written once and never changed. Its name is the blake3 of its bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from indexes.catalog.vectors import Ids, SegmentRow
from indexes.durable import files as durable
from indexes.errors import StoreDamaged, StoreError
from indexes.paths import format_repair_hint
from indexes.records import FileStat
from indexes.vectors.faiss_library import load_faiss

SUFFIX = ".faiss"
# Rows widened from float16 to float32 at a time while a segment is written.
WRITE_BLOCK_ROWS = 4096


def get_path(folder: Path, row: SegmentRow) -> Path:
    """Get the path of a segment in the folder of segments."""
    return folder / f"{row.blake3}{SUFFIX}"


def write(
    folder: Path,
    scratch: Path,
    blocks: Iterable[tuple[Ids, NDArray[np.float16]]],
    rewrites: int = 0,
) -> SegmentRow:
    """Write blocks of ids (n,) and vectors (n, dim) as a segment; ids ascend across all blocks.

    The file is durable when this returns, and visible once its row is committed. `rewrites` is how
    often compaction has copied these vectors. Raises DiskFull.
    """
    faiss = load_faiss()
    index: Any = None
    first_id = last_id = 0
    for ids, vectors in blocks:
        if index is None:
            # Plain IDMap, not IDMap2, which builds a table of all ids each time a file is opened:
            # 88 ms instead of 18 for a million vectors (measured).
            index = faiss.index_factory(
                vectors.shape[1], "IDMap,SQfp16", faiss.METRIC_INNER_PRODUCT
            )
        assert len(ids) and ids[0] > last_id and (np.diff(ids) > 0).all(), "ids ascend"
        first_id, last_id = first_id or int(ids[0]), int(ids[-1])
        for start in range(0, len(ids), WRITE_BLOCK_ROWS):
            block = slice(start, start + WRITE_BLOCK_ROWS)
            index.add_with_ids(vectors[block].astype(np.float32), np.ascontiguousarray(ids[block]))
    assert index is not None, "a segment holds vectors"

    def fill(file: durable.HashingFile) -> None:
        # FAISS's own file writer can report success on a full disk.
        writer = faiss.PyCallbackIOWriter(file.write)
        faiss.write_index(index, writer)
        del writer  # flushes

    name, size = durable.write(folder, SUFFIX, fill, scratch)
    row = SegmentRow(name, index.ntotal, size, first_id, last_id, rewrites, 0, 0, 0)
    return add_file_stat(row, folder)


def add_file_stat(row: SegmentRow, folder: Path) -> SegmentRow:
    """Copy the row with the times and the inode that its file has now."""
    stat = FileStat.from_os_stat(get_path(folder, row).stat())
    return replace(row, mtime_ns=stat.mtime_ns, ctime_ns=stat.ctime_ns, inode=stat.inode)


def is_untouched(row: SegmentRow, folder: Path) -> bool:
    """Compare the file's size, times and inode with those it had when its hash was verified."""
    try:
        stat = FileStat.from_os_stat(get_path(folder, row).stat())
    except OSError:
        return False
    return stat.is_unchanged_since(row)


def verify(row: SegmentRow, folder: Path) -> None:
    """Read and hash every byte of a segment.

    Raises StoreDamaged if it differs from what was written or is missing, StoreError if it is not
    readable.
    """
    path = get_path(folder, row)
    try:
        is_intact = path.stat().st_size == row.size and _hash_file(path) == row.blake3
    except FileNotFoundError as error:
        raise StoreDamaged(f"{path} is missing: {_describe_loss(row, folder)}") from error
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read: {error.strerror or error}; check its permissions, and the disk"
        ) from error
    if not is_intact:
        raise StoreDamaged(
            f"{path} has changed since it was written: {_describe_loss(row, folder)}"
        )


def _hash_file(path: Path) -> str:
    return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()


class Segment:
    """A segment file, mapped into memory.

    `ids` (n,) ascend; `vectors` (n, dim) are float16, as stored.
    """

    def __init__(self, folder: Path, row: SegmentRow, dim: int) -> None:
        """Map the file of `row`, and verify its bytes first unless it is untouched.

        Raises StoreDamaged.
        """
        path = get_path(folder, row)
        if not is_untouched(row, folder):
            verify(row, folder)
        faiss = load_faiss()
        try:
            with _utf8_path(path) as name:
                self._index = faiss.read_index(name, faiss.IO_FLAG_MMAP_IFC)
            codes = faiss.downcast_index(self._index.index)
            shape = (self._index.ntotal, self._index.d, codes.code_size)
        except (RuntimeError, AttributeError) as error:
            raise StoreDamaged(
                f"{path} cannot be read ({error}): {_describe_loss(row, folder)}"
            ) from error
        if (
            shape != (row.vector_count, dim, 2 * dim)
            or self._index.metric_type != faiss.METRIC_INNER_PRODUCT
        ):
            raise StoreDamaged(
                f"{path} holds {shape[0]} vectors of {shape[1]} dimensions,"
                f" expected {row.vector_count} of {dim}: {_describe_loss(row, folder)}"
            )
        code_bytes = faiss.rev_swig_ptr(codes.codes.data(), row.vector_count * 2 * dim)
        self.vectors: NDArray[np.float16] = code_bytes.view(np.float16).reshape(
            row.vector_count, dim
        )
        self.ids: Ids = faiss.vector_to_array(self._index.id_map)
        if (self.ids[0], self.ids[-1]) != (row.first_id, row.last_id):
            raise StoreDamaged(
                f"{path} holds vectors {self.ids[0]} to {self.ids[-1]}, expected {row.first_id}"
                f" to {row.last_id}: {_describe_loss(row, folder)}"
            )

    def search(
        self, queries: NDArray[np.float16], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Search the `count` nearest rows to each query, best first, with FAISS's own scores.

        Both results are (queries, count), with fewer columns if the segment is smaller. Scores are
        off by up to STORED_PRODUCT_MARGIN.
        """
        scores, ids = self._index.search(queries.astype(np.float32), min(count, len(self.ids)))
        return scores, np.searchsorted(self.ids, ids)


@contextmanager
def _utf8_path(path: Path) -> Iterator[str]:
    """Yield a name by which FAISS, which takes only UTF-8, can open the file during the block."""
    name = os.fspath(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        with path.open("rb") as file:
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        yield name


def _describe_loss(row: SegmentRow, folder: Path) -> str:
    images = "image has" if row.vector_count == 1 else "images have"
    return f"{row.vector_count:,} {images} no vector; {format_repair_hint(folder.parent)}"

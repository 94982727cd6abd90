"""Decide which vector each image of a batch gets: one that is stored already, or a new one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from indexes.catalog.catalog import Catalog
from indexes.catalog.vectors import Ids
from indexes.errors import InvalidVector
from indexes.records import Image
from indexes.vectors.mapped import MappedSegments
from indexes.vectors.scores import Vector, convert_to_stored_vectors


@dataclass
class Placement:
    """The vector id of each image, None for a featureless one, and the new vectors by their ids."""

    vector_ids: list[int | None] = field(default_factory=list)
    new_vectors: dict[int, NDArray[np.float16]] = field(default_factory=dict)

    def stack_new_vectors(self) -> tuple[Ids, NDArray[np.float16]]:
        """Stack the new vectors: ids (n,), ascending, and rows (n, dim). There must be one."""
        ids = np.array(list(self.new_vectors), np.int64)
        return ids, np.stack(list(self.new_vectors.values()))

    def compute_digests(self) -> dict[int, int]:
        """Compute the digest of each new vector, by its id."""
        return {id_: compute_digest(vector) for id_, vector in self.new_vectors.items()}


def compute_digest(vector: NDArray[np.float16]) -> int:
    """Compute 64 bits of the blake3 of a stored vector, signed, as SQLite keeps integers."""
    return int.from_bytes(blake3(vector.tobytes()).digest(8), "little", signed=True)


def place_vectors(
    images: Sequence[tuple[Image, Vector | None]],
    dim: int,
    catalog: Catalog,
    mapped: MappedSegments,
) -> Placement:
    """Choose a vector for each image, given with its own vector (dim,) or None.

    Images with the same pixels share a vector, and so do images with equal vectors. Raises
    InvalidVector for vectors that are not unit vectors of `dim` numbers, and for an image with
    features for which there is no vector.
    """
    stored_vectors = _round_vectors([vector for _, vector in images], dim)
    id_by_pixel_hash = catalog.vectors.find_by_pixel_hash([image.pixel_hash for image, _ in images])
    equals = _EqualVectors(
        [vector for vector in stored_vectors if vector is not None], catalog, mapped
    )
    new_ids = count(catalog.vectors.get_next_id())
    placement = Placement()
    for (image, _), vector in zip(images, stored_vectors, strict=True):
        id_ = None if image.is_featureless else id_by_pixel_hash.get(image.pixel_hash)
        if id_ is None and vector is not None:
            id_ = equals.find(vector)
            if id_ is None:
                id_ = next(new_ids)
                placement.new_vectors[id_] = vector
            equals.put(vector, id_)
            id_by_pixel_hash[image.pixel_hash] = id_
        if id_ is None and not image.is_featureless:
            raise InvalidVector(
                f"image {image.hash.hex()} has features but no vector; embed it first"
            )
        placement.vector_ids.append(id_)
    return placement


def _round_vectors(vectors: Sequence[Vector | None], dim: int) -> list[NDArray[np.float16] | None]:
    given = [vector for vector in vectors if vector is not None]
    shapes = sorted({vector.shape for vector in given})
    if any(shape != (dim,) for shape in shapes):
        raise InvalidVector(f"vectors of {shapes}, the store holds {dim} dimensions")
    rounded = iter(convert_to_stored_vectors(np.stack(given), dim) if given else ())
    return [None if vector is None else next(rounded) for vector in vectors]


class _EqualVectors:
    """Ids of vectors in the store, or earlier in the batch, that equal given ones."""

    def __init__(
        self, vectors: Sequence[NDArray[np.float16]], catalog: Catalog, mapped: MappedSegments
    ) -> None:
        digests = {compute_digest(vector) for vector in vectors}
        self._id_by_digest = catalog.vectors.find_by_digest(digests)
        self._rows = mapped.get_rows() if self._id_by_digest else None
        self._id_by_bytes: dict[bytes, int] = {}

    def find(self, vector: NDArray[np.float16]) -> int | None:
        """Find the id of an equal vector."""
        id_ = self._id_by_bytes.get(vector.tobytes())
        if id_ is not None or self._rows is None:
            return id_
        candidate = self._id_by_digest.get(compute_digest(vector))
        if candidate is None:
            return None
        stored = self._rows.gather(self._rows.find_rows([candidate]))
        return candidate if (stored == vector).all() else None

    def put(self, vector: NDArray[np.float16], id_: int) -> None:
        """Remember the id of a vector of the batch."""
        self._id_by_bytes[vector.tobytes()] = id_

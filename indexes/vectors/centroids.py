"""Centroids of an IVF join: train them, and find the nearest ones to each row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexes.vectors.faiss_library import load_faiss


def train_centroids(rows: NDArray[np.float32], count: int, iterations: int) -> NDArray[np.float32]:
    """Train unit centroids (count, dim) by FAISS's spherical k-means; deterministically."""
    faiss = load_faiss()
    kmeans = faiss.Kmeans(
        rows.shape[1],
        count,
        niter=iterations,
        spherical=True,
        seed=1,
        min_points_per_centroid=1,
        verbose=False,
    )
    kmeans.train(np.ascontiguousarray(rows))
    centroids: NDArray[np.float32] = kmeans.centroids
    return centroids


def find_nearest_lists(
    rows: NDArray[np.float32], centroids: NDArray[np.float32], count: int
) -> NDArray[np.int32]:
    """Find the lists of the `count` nearest centroids to each row, nearest first: (n, count)."""
    faiss = load_faiss()
    _, lists = faiss.knn(
        np.ascontiguousarray(rows), centroids, count, metric=faiss.METRIC_INNER_PRODUCT
    )
    return np.asarray(lists, dtype=np.int32)

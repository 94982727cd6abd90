"""Calibrate a store: measure recall and precision for its own images at a grid of settings.

Recall is measured on synthetic copies of a sample of images. Precision is estimated from pairs of
images whose EXIF dates are days apart: such pairs are not copies, so those that are accepted as
copies are false positives.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from indexes.caches.crops import CropCache
from indexes.caches.thumbnails import ThumbnailCache
from indexes.store import Store
from indexes.vectors.rows import pick_evenly
from pipeline.calibrate.copy_scores import MIN_SOURCE_SIDE_PX, CopyScorer, make_copies
from pipeline.calibrate.library_pairs import measure_library_pairs
from pipeline.calibrate.measurement import Calibration, ScoredCopy
from pipeline.decode.pool import DecoderPool
from pipeline.embed.embedder import Embedder
from pipeline.ingest.audit import sample_images
from pipeline.query.thresholds import get_effective_floor
from pipeline.thumbnails import Thumbnails
from pipeline.verify.pool import VerifierPool


def calibrate(store: Store, embedder: Embedder, image_ids: Sequence[int]) -> Calibration:
    """Score synthetic copies of `image_ids`, and count the accepted pairs of the whole store.

    Deterministic for a store and `image_ids`. Skips images that are missing, small or
    featureless. Writes nothing to the store. Raises SpaceMismatch for an embedder of another
    space than the store's.
    """
    store.require_space(embedder.space)
    floor = get_effective_floor(store, embedder.space)
    with (
        tempfile.TemporaryDirectory() as folder,
        DecoderPool() as decoders,
        ThumbnailCache(store.folder, write=False) as thumbnail_cache,
        VerifierPool() as verifiers,
    ):
        with CropCache(store.folder, embedder.space, write=False) as crop_cache:
            crop_score = floor if crop_cache.has_compared_images else None
        thumbnails = Thumbnails(store, thumbnail_cache, decoders)
        scorer = CopyScorer(store, embedder, decoders, thumbnails, verifiers, crop_score)
        copies: list[ScoredCopy] = []
        image_count = 0
        for image_id, files in make_copies(store, decoders, image_ids, Path(folder)):
            scored = scorer.score(image_id, files)
            copies += scored
            image_count += bool(scored)
    return Calibration(image_count, floor, tuple(copies), measure_library_pairs(store, floor))


def sample_copyable_images(store: Store, max_count: int) -> list[int]:
    """Pick up to `max_count` images, evenly spread, that are large and textured enough to copy."""
    candidates = sample_images(store, 4 * max_count)
    copyable = [
        image_id
        for image_id, image in store.catalog.images.get(candidates)
        if not image.is_featureless and min(image.width, image.height) >= MIN_SOURCE_SIDE_PX
    ]
    return [copyable[row] for row in pick_evenly(len(copyable), max_count)]

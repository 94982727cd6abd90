"""Find images within images: embed and compare crops and regions of large images."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from indexes.caches.crops import ComparedImage, CropCache
from indexes.coverage import CropReport
from indexes.store import Store
from pipeline.decode.pool import DecoderPool
from pipeline.embed.crop_matches import load_comparable_images, propose_pairs
from pipeline.embed.crops import (
    MAX_IMAGES_FOR_CROPS,
    fill_crop_cache,
    find_images_without_crops,
)
from pipeline.embed.embedder import Embedder
from pipeline.ingest.progress import IngestContext, Progress, Stage
from pipeline.ingest.verify_pairs import verify_and_report
from pipeline.verify.verdict import VERDICT_VERSION


class CropStage:
    """The stage that proposes pairs by crops and regions; a context manager with the crop cache.

    with CropStage(store, embedder, decoders) as stage:
        for done in stage.embed(stage.find_missing()): ...
        images = stage.load_images()
        proposed = np.concatenate(list(stage.propose_pairs(images)))
        # verify the pairs, then:
        stage.save_compared(images, stage.find_pairs_to_retry(proposed, floor))
    """

    def __init__(self, store: Store, embedder: Embedder, decoders: DecoderPool) -> None:
        """Open the crop cache of a store that is bound to a space."""
        assert store.space is not None, "a store without vectors has no crops"
        self._store = store
        self._embedder = embedder
        self._decoders = decoders
        self._cache = CropCache(store.folder, store.space, write=True)

    def __enter__(self) -> CropStage:
        """Return the stage."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the crop cache."""
        self._cache.close()

    def find_missing(self) -> list[int]:
        """List images whose crops and regions are not embedded yet, by id.

        Empty if the embedder has another space.
        """
        if self._embedder.space != self._store.space:
            return []
        return find_images_without_crops(self._store, self._cache, self._embedder)

    def embed(self, missing: list[int]) -> Iterator[int]:
        """Embed crops and regions of images, by id; yields how many images are done.

        Images whose files are away stay missing.
        """
        if missing:
            yield from fill_crop_cache(
                self._store, self._cache, self._embedder, missing, self._decoders
            )

    def load_images(self) -> dict[bytes, ComparedImage]:
        """Load the images to compare, by hash, as the crop cache records them once compared."""
        return load_comparable_images(self._store, self._cache)

    def propose_pairs(self, images: Mapping[bytes, ComparedImage]) -> Iterator[NDArray[np.int64]]:
        """Yield blocks of new pairs of vectors (n, 2), the smaller id first.

        A pair is new if one of its images was not compared yet.

        Compares everything again if the catalog is another one, or an older copy, than the one
        that the compared images were recorded with.
        """
        if not self._store.catalog.runs.has(self._cache.run_key):
            self._cache.replace_compared_images({}, None)
        yield from propose_pairs(self._store, self._cache, images)

    def find_pairs_to_retry(
        self, proposed: NDArray[np.int64], floor: float
    ) -> set[tuple[int, int]]:
        """Return the unverified pairs of images that only crops propose: no score leads to them."""
        verdicts = self._store.catalog.verdicts
        all_pairs = set(verdicts.find_unverified_pairs(floor, VERDICT_VERSION, proposed))
        return all_pairs - set(verdicts.find_unverified_pairs(floor, VERDICT_VERSION))

    def save_compared(
        self,
        images: Mapping[bytes, ComparedImage],
        pairs_to_retry: Collection[tuple[int, int]] = (),
    ) -> None:
        """Record that images were compared, but not those of a pair to retry.

        The next run compares those again, and so proposes their pairs again.
        """
        retried_ids = {id_ for pair in pairs_to_retry for id_ in pair}
        retried = {image.hash for _, image in self._store.catalog.images.get(retried_ids)}
        compared = {hash_: entry for hash_, entry in images.items() if hash_ not in retried}
        self._cache.replace_compared_images(compared, self._store.catalog.runs.get_newest_key())


def verify_crop_pairs(
    context: IngestContext, floor: float, tried_pairs: Collection[tuple[int, int]]
) -> Iterator[Progress]:
    """Propose pairs by crops and regions; verify them, except those that this run has tried."""
    store, coverage = context.store, context.coverage
    assert store.space is not None, "pairs of whole images were joined before"
    if store.catalog.files.get_counts().images > MAX_IMAGES_FOR_CROPS:
        coverage.crops = CropReport()
        coverage.warnings.append(
            f"images within images are only found in stores of up to {MAX_IMAGES_FOR_CROPS:,}"
            " images; these images were compared as a whole"
        )
        return
    with CropStage(store, context.embedder, context.decoders) as stage:
        missing = stage.find_missing()
        yield Progress(Stage.CROPPING, 0, len(missing) or None, coverage)
        for done in stage.embed(missing):
            yield Progress(Stage.CROPPING, done, len(missing), coverage)
        images = stage.load_images()
        blocks = [np.empty((0, 2), np.int64)]
        for block in stage.propose_pairs(images):
            blocks.append(block)
            yield Progress(Stage.CROPPING, 0, None, coverage)
        proposed = np.concatenate(blocks)
        yield from _verify_untried(context, floor, proposed, tried_pairs)
        has_unverified = coverage.verification and coverage.verification.unverified
        stage.save_compared(
            images, stage.find_pairs_to_retry(proposed, floor) if has_unverified else ()
        )
        hashes_with_crops = {hash_ for hash_, image in images.items() if image.has_crops}
        still_missing = [
            id_
            for id_, image in store.catalog.images.get(missing)
            if image.hash not in hashes_with_crops
        ]
        coverage.crops = CropReport(len(hashes_with_crops), len(still_missing))


def _verify_untried(
    context: IngestContext,
    floor: float,
    proposed: NDArray[np.int64],
    tried_pairs: Collection[tuple[int, int]],
) -> Iterator[Progress]:
    unverified = context.store.catalog.verdicts.find_unverified_pairs(
        floor, VERDICT_VERSION, proposed
    )
    untried = [pair for pair in unverified if pair not in tried_pairs]
    if untried:
        yield from verify_and_report(context, untried)

"""Last step of a query: verify new images with the stored images near them.

Modules that load OpenCV are imported only when there is a pair to verify, so that a query of stored
images does without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from indexes.caches.thumbnails import ThumbnailCache
from indexes.records import Image
from indexes.store import Store
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.query.identify import NewQuery, read_thumbnails
from pipeline.query.reread import reread_images
from pipeline.query.search import NearImage, Searched
from pipeline.verify.verdict import Verdict
from pipeline.workers.cpus import count_usable_cores

if TYPE_CHECKING:
    from pipeline.thumbnails import Thumbnails
    from pipeline.verify.features import ImageFeatures
    from pipeline.verify.upscaling import CenterSpectra

MAX_IMAGES_IN_MEMORY = 100  # stored images whose features are held at a time: up to 80 MB

# The hash of a query's image, and the pixel hash of a stored image near it.
_PairKey = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Verified:
    """A searched query with its verdicts, by the pixel hash of the stored image.

    The query is the first image of each pair. A pair without a verdict could not be verified.
    """

    searched: Searched
    verdicts: Mapping[bytes, Verdict]


class QueryVerifier:
    """Verifies new images with stored ones.

    A context manager. The thumbnail cache and threads are opened for the first pair.
    """

    def __init__(self, store: Store, decoders: DecoderPool) -> None:
        """Open nothing yet."""
        self._store, self._decoders = store, decoders
        self._resources = ExitStack()
        self._opened: tuple[Thumbnails, ThreadPoolExecutor] | None = None

    def __enter__(self) -> QueryVerifier:
        """Return the verifier itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the thumbnail cache and end the threads."""
        self._resources.close()

    def verify(self, searched: Sequence[Searched]) -> list[Verified]:
        """Add to each query its verdicts: the stored ones, or those on its unverified images.

        A new file that changed or vanished since it was identified gets none.
        """
        pending = [
            (item.query, item.unverified_images)
            for item in searched
            if isinstance(item.query, NewQuery) and item.unverified_images
        ]
        new_verdicts = self._verify_new(pending) if pending else {}
        return [
            Verified(item, {**item.verdicts, **_select_verdicts(new_verdicts, item.query.image)})
            for item in searched
        ]

    def _verify_new(
        self, pending: Sequence[tuple[NewQuery, Sequence[NearImage]]]
    ) -> dict[_PairKey, Verdict]:
        """Verify each new query with the stored images near it."""
        queries = read_thumbnails([query for query, _ in pending], self._decoders)
        verdicts = {
            (query.image.hash, pixel_hash): verdict
            for query, (_, near_images) in zip(queries, pending, strict=True)
            for pixel_hash, verdict in self._verify_query(query, near_images)
        }
        stored_images = {
            near.image_id: near.image for _, near_images in pending for near in near_images
        }
        return self._check_upscaling(verdicts, queries, stored_images)

    def _verify_query(
        self, query: NewQuery, near_images: Sequence[NearImage]
    ) -> Iterator[tuple[bytes, Verdict]]:
        """Yield (pixel hash, verdict) of each stored image whose features can be loaded."""
        from pipeline.verify.inputs import build_features_from_jpeg
        from pipeline.verify.verify import verify

        if query.thumbnail is None:
            return
        size = query.image.width, query.image.height
        features = build_features_from_jpeg(query.thumbnail, size)
        image_ids = [near.image_id for near in near_images]
        for start in range(0, len(image_ids), MAX_IMAGES_IN_MEMORY):
            block = image_ids[start : start + MAX_IMAGES_IN_MEMORY]
            for image, stored_features in self._load_stored_features(block):
                yield image.pixel_hash, verify(features, stored_features)

    def _load_stored_features(
        self, image_ids: Sequence[int]
    ) -> Iterator[tuple[Image, ImageFeatures]]:
        """Load the features of stored images; those that cannot be read are left out."""
        from pipeline.verify import inputs

        thumbnails, _ = self._open()
        loaded, _ = inputs.load_features(thumbnails, image_ids, self._extract_features)
        for image, thumbnail in loaded.values():
            yield image, inputs.build_features_from_stored_image(image, thumbnail)

    def _extract_features(self, jpegs: Sequence[bytes]) -> list[bytes]:
        """Extract the features of thumbnails, one thread for each core."""
        from pipeline.verify import inputs

        _, threads = self._open()
        return list(threads.map(inputs.extract_from_thumbnail, jpegs))

    def _open(self) -> tuple[Thumbnails, ThreadPoolExecutor]:
        """Open the thumbnail cache and the threads at the first call."""
        if self._opened is None:
            from pipeline.thumbnails import Thumbnails

            cache = self._resources.enter_context(ThumbnailCache(self._store.folder, write=False))
            threads = self._resources.enter_context(ThreadPoolExecutor(count_usable_cores()))
            self._opened = Thumbnails(self._store, cache, self._decoders), threads
        return self._opened

    def _check_upscaling(
        self,
        verdicts: Mapping[_PairKey, Verdict],
        queries: Sequence[NewQuery],
        stored_images: Mapping[int, Image],
    ) -> dict[_PairKey, Verdict]:
        """Check the larger image of each copy for upscaling, as far as its file can be read."""
        from pipeline.verify.upscaling import UpscaleCheck

        check = UpscaleCheck(verdicts)
        larger = check.larger_images
        larger_queries = [query for query in queries if query.image.hash in larger]
        image_ids = {
            image.pixel_hash: image_id
            for image_id, image in stored_images.items()
            if image.pixel_hash in larger
        }
        larger_images = {image_id: stored_images[image_id] for image_id in image_ids.values()}
        spectra = self._compute_query_spectra(larger_queries)
        return check.apply(spectra | self._compute_stored_spectra(larger_images))

    def _compute_query_spectra(self, queries: Sequence[NewQuery]) -> dict[bytes, CenterSpectra]:
        """Compute the spectra of new images, by image hash."""
        from pipeline.verify.upscaling import CENTER_FULL_RES, compute_spectra_from_decoded

        files = {index: (query.source, query.image) for index, query in enumerate(queries)}
        return {
            queries[index].image.hash: compute_spectra_from_decoded(decoded)
            for index, decoded in reread_images(files, CENTER_FULL_RES, self._decoders)
        }

    def _compute_stored_spectra(self, images: Mapping[int, Image]) -> dict[bytes, CenterSpectra]:
        """Compute the spectra of stored images, given by id; by pixel hash."""
        from pipeline import thumbnails
        from pipeline.verify.upscaling import CENTER_FULL_RES, compute_spectra_from_decoded

        results = thumbnails.read_images(self._store, self._decoders, images, CENTER_FULL_RES)
        return {
            images[image_id].pixel_hash: compute_spectra_from_decoded(result)
            for image_id, result in results
            if isinstance(result, Decoded)
        }


def _select_verdicts(verdicts: Mapping[_PairKey, Verdict], image: Image) -> dict[bytes, Verdict]:
    """Return the verdicts on one query, by the pixel hash of the stored image."""
    return {
        pixel_hash: verdict
        for (image_hash, pixel_hash), verdict in verdicts.items()
        if image_hash == image.hash
    }

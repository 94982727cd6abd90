"""Find images within images: by crops of large images, and by regions.

A crop, a screenshot or a collage has a vector of its own that says little about the image in it.
Comparing crops and regions with whole images makes a candidate of such a pair, and comparing
regions with regions one of two hosts of a photo.

Measured on 60 images with neardup-1, as the share of pairs that become candidates by whole images,
by crops also, and by regions also: crops to 40 % .37, .93, .93; photos in a desktop page .63, .87,
.93; in a chat .35, .60, .98; collages of three .18, .63, .95; two hosts of a photo .89, .97, .99.
Of 10,000 pairs of unrelated hosts, whole images propose 9, crops 9 more, regions 7 more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from indexes.caches.crops import CropCache, CropVectors
from indexes.caches.thumbnails import ThumbnailCache
from indexes.records import Image
from indexes.store import Store
from pipeline.decode.pixels.resize import preprocess_image
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import Preprocess
from pipeline.embed.embedder import Embedder, embed_all
from pipeline.regions import Box, find_regions
from pipeline.thumbnails import Thumbnails, decode_thumbnail

# The crops of a large image: its quarters and its center, half as wide and half as high.
FIVE_CROP: tuple[Box, ...] = (
    (0.0, 0.0, 0.5, 0.5),
    (0.5, 0.0, 1.0, 0.5),
    (0.0, 0.5, 0.5, 1.0),
    (0.5, 0.5, 1.0, 1.0),
    (0.25, 0.25, 0.75, 0.75),
)
# Larger stores compare no crops: the work grows with the square of the number of images.
MAX_IMAGES_FOR_CROPS = 100_000
# Images that are embedded at a time: seconds of work, so that an ingest shows how it goes on.
CROP_BLOCK_IMAGES = 64


def is_large(image: Image, preprocess: Preprocess) -> bool:
    """Return True if a crop of `image` has at least about as many pixels as the model's input."""
    return min(image.width, image.height) > 2 * preprocess.size


def is_possible_host(image: Image, preprocess: Preprocess) -> bool:
    """Return True if `image` is large enough for regions; true of large ones, and of screenshots.

    A host is often long and narrow, so its longer side counts.
    """
    return max(image.width, image.height) > 2 * preprocess.size


def crop_image(
    rgb: NDArray[np.uint8], boxes: Iterable[Box], preprocess: Preprocess
) -> list[tuple[NDArray[np.uint8], bool]]:
    """Crop an image (height, width, 3) to each box and preprocess it; also tell if featureless.

    Pixel coordinates are rounded to the nearest integer.
    """
    image = PillowImage.fromarray(rgb)
    return [
        preprocess_image(
            image.crop(
                (
                    round(left * image.width),
                    round(top * image.height),
                    round(right * image.width),
                    round(bottom * image.height),
                )
            ),
            preprocess,
        )
        for left, top, right, bottom in boxes
    ]


def find_images_without_crops(store: Store, crop_cache: CropCache, embedder: Embedder) -> list[int]:
    """Return the ids of images that may have crops or regions but were not searched for them.

    Of images with equal pixels, only the first is considered. Featureless images have neither.
    """
    cached_hashes = crop_cache.list_hashes()
    pixel_hashes = set[bytes]()
    image_ids = []
    for image_id, image in store.catalog.images.get(store.catalog.images.list_in_use()):
        needs_crops = is_possible_host(image, embedder.preprocess) and not image.is_featureless
        if needs_crops and image.pixel_hash not in pixel_hashes:
            pixel_hashes.add(image.pixel_hash)
            if image.hash not in cached_hashes:
                image_ids.append(image_id)
    return image_ids


def fill_crop_cache(
    store: Store,
    crop_cache: CropCache,
    embedder: Embedder,
    image_ids: list[int],
    decoders: DecoderPool,
) -> Iterator[int]:
    """Embed crops and regions of images, cut from thumbnails; yield how many images are done.

    Skips images whose files are not readable now.
    """
    with ThumbnailCache(store.folder, write=True) as thumbnail_cache:
        thumbnails = Thumbnails(store, thumbnail_cache, decoders)
        for start in range(0, len(image_ids), CROP_BLOCK_IMAGES):
            block = image_ids[start : start + CROP_BLOCK_IMAGES]
            loaded, _ = thumbnails.load(block)
            images = (
                (image, decode_thumbnail(thumbnail.jpeg)) for image, thumbnail in loaded.values()
            )
            vectors = _embed_large_images(images, embedder)
            hashes = [image.hash for image, _ in loaded.values()]
            crop_cache.put(dict(zip(hashes, vectors, strict=True)))
            yield start + len(block)


def embed_crops(
    images: Sequence[tuple[Image, NDArray[np.uint8]]], embedder: Embedder
) -> list[CropVectors | None]:
    """Embed crops and regions of images, given with thumbnail pixels (height, width, 3).

    Returns None for an image that is too small for either.
    """
    large = [item for item in images if is_possible_host(item[0], embedder.preprocess)]
    vectors = iter(_embed_large_images(large, embedder))
    return [
        next(vectors) if is_possible_host(image, embedder.preprocess) else None
        for image, _ in images
    ]


def _embed_large_images(
    images: Iterable[tuple[Image, NDArray[np.uint8]]], embedder: Embedder
) -> list[CropVectors]:
    """Embed the crops and regions of images; reads `images` one by one."""
    sizes = list[tuple[int, list[Box]]]()

    def cut_images() -> Iterator[NDArray[np.uint8]]:
        for image, rgb in images:
            boxes = FIVE_CROP if is_large(image, embedder.preprocess) else ()
            crops = crop_image(rgb, boxes, embedder.preprocess)
            found = find_regions(rgb)
            regions = crop_image(rgb, found, embedder.preprocess)
            kept = [
                index for index, (_, is_featureless) in enumerate(regions) if not is_featureless
            ]
            sizes.append((len(crops), [found[index] for index in kept]))
            yield from (pixels for pixels, _ in crops)
            yield from (regions[index][0] for index in kept)

    rows = embed_all(embedder, cut_images()).astype(np.float16)
    vectors, start = [], 0
    for crop_count, boxes in sizes:
        middle, end = start + crop_count, start + crop_count + len(boxes)
        box_array = np.array(boxes, np.float32).reshape(-1, 4)
        vectors.append(CropVectors(rows[start:middle], rows[middle:end], box_array))
        start = end
    return vectors

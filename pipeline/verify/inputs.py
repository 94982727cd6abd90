"""Inputs to verification: the thumbnails and features of stored images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from indexes.caches.thumbnails import Thumbnail
from indexes.records import Image
from pipeline.thumbnails import Thumbnails, decode_thumbnail

if TYPE_CHECKING:
    from pipeline.verify.features import ImageFeatures

# The reason, as stores keep it, for an image or pair whose worker process crashed.
CRASHED_VERIFIER_REASON = "poisoned its verifier"


class VerifyInput(NamedTuple):
    """An image as the verification workers receive it: thumbnail, features and full size.

    `hash` identifies the image; `size` is its (width, height) in pixels.
    """

    hash: bytes
    jpeg: bytes
    features: bytes
    size: tuple[int, int]


def build_verify_input(image: Image, thumbnail: Thumbnail) -> VerifyInput:
    """Combine an image's record with its thumbnail, which must have features."""
    return VerifyInput(image.hash, thumbnail.jpeg, thumbnail.features, (image.width, image.height))


def load_features(
    thumbnails: Thumbnails,
    image_ids: Iterable[int],
    extract: Callable[[Sequence[bytes]], Sequence[bytes | None]],
) -> tuple[dict[int, tuple[Image, Thumbnail]], dict[int, str]]:
    """Load thumbnails with features by image id; also return, by id, why others have none.

    `extract` computes the features of JPEGs where the cache has none; it returns None for a
    thumbnail that crashes it.
    """
    from pipeline.verify.features import has_current_format  # loads OpenCV

    loaded, failed = thumbnails.load(image_ids)
    without_features = {
        id_: thumbnail
        for id_, (_, thumbnail) in loaded.items()
        if not has_current_format(thumbnail.features)
    }
    extracted = extract([thumbnail.jpeg for thumbnail in without_features.values()])
    completed = {
        id_: Thumbnail(thumbnail.jpeg, features)
        for (id_, thumbnail), features in zip(without_features.items(), extracted, strict=True)
        if features is not None
    }
    crashed = dict.fromkeys(without_features.keys() - completed.keys(), CRASHED_VERIFIER_REASON)
    thumbnails.save({loaded[id_][0].hash: thumbnail for id_, thumbnail in completed.items()})
    usable = {
        id_: (image, completed.get(id_, thumbnail))
        for id_, (image, thumbnail) in loaded.items()
        if id_ not in crashed
    }
    return usable, failed | crashed


def extract_from_thumbnail(jpeg: bytes) -> bytes:
    """Extract the features of a stored thumbnail."""
    from pipeline.verify.features import extract_features  # loads OpenCV

    return extract_features(decode_thumbnail(jpeg))


def build_features_from_jpeg(jpeg: bytes, size: tuple[int, int]) -> ImageFeatures:
    """Build the features of a thumbnail that is in no store; `size` is the full (width, height)."""
    from pipeline.verify.features import build_features_from_thumbnail

    return build_features_from_thumbnail(jpeg, extract_from_thumbnail(jpeg), size)


def build_features_from_stored_image(image: Image, thumbnail: Thumbnail) -> ImageFeatures:
    """Build the features of a stored image from its thumbnail, which must have features."""
    from pipeline.verify.features import build_features_from_thumbnail

    return build_features_from_thumbnail(
        thumbnail.jpeg, thumbnail.features, (image.width, image.height)
    )

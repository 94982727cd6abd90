"""Pictures of images and pairs, always encoded here: thumbnails, large ones, what differs."""

from __future__ import annotations

import io
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from PIL import Image as Pillow

from indexes.caches.thumbnails import ThumbnailCache
from indexes.store import Store
from pipeline.decode.decode import Decoded
from pipeline.decode.formats import mark_jpeg
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import PREPROCESS_VERSION, Preprocess
from pipeline.query.compare import Comparison
from pipeline.review.web.problems import Problem
from pipeline.thumbnails import ImageUnavailable, Thumbnails, read_images

MIN_SIDE_PX = 64
DEFAULT_SIDE_PX = 2048
MAX_SIDE_PX = 6000  # all of a photo of 24 megapixels; at most 108 MB of pixels
JPEG_QUALITY = 90
PICTURE_VERSION = 1  # of how pictures are encoded here; part of their tags
CACHE_CONTROL = "private, max-age=31536000, immutable"  # an id is that of a content


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture."""

    content: bytes
    media_type: str = "image/jpeg"


def make_tag(*parts: object) -> str:
    """Make the entity tag of a picture from what it shows and how; it needs no picture."""
    text = repr((PICTURE_VERSION, PREPROCESS_VERSION, *parts))
    return f'"{blake3(text.encode()).hexdigest()[:32]}"'


def load_stored_thumbnail(folder: Path, image_hash: bytes) -> Picture | None:
    """Load the thumbnail of an image from the cache of a store; None if it is not there."""
    with ThumbnailCache(folder, write=False) as cache:
        found = cache.get([image_hash]).get(image_hash)
    return Picture(mark_jpeg(found.jpeg)) if found else None


def make_thumbnail(store: Store, image_hash: bytes, decoders: DecoderPool) -> Picture:
    """Make a thumbnail that is not in the cache from a file. Raises Problem without one."""
    image_id = _get_image_id(store, image_hash)
    with ThumbnailCache(store.folder, write=False) as cache:
        loaded, failed = Thumbnails(store, cache, decoders).load([image_id])
    if image_id not in loaded:
        raise _make_unavailable(failed.get(image_id, "away"))
    return Picture(mark_jpeg(loaded[image_id][1].jpeg))


def make_large_picture(
    store: Store, image_hash: bytes, side_px: int, decoders: DecoderPool
) -> Picture:
    """Decode an image from a file, its long side at most `side_px`. Raises Problem without one."""
    image_id = _get_image_id(store, image_hash)
    images = dict(store.catalog.images.get([image_id]))
    preprocess = Preprocess(side_px, "within")
    ((_, result),) = list(read_images(store, decoders, images, preprocess))
    if isinstance(result, ImageUnavailable):
        raise _make_unavailable(result.reason)
    assert isinstance(result, Decoded)
    return Picture(_encode_jpeg(result.pixels))


def draw_pair(comparison: Comparison, view: str) -> Picture:
    """Draw what was compared of two images: a panel by its name, or all as a `sheet`.

    Raises Problem for a view that there is not, of these two or at all.
    """
    from pipeline.report.comparison_image import Panel, draw_comparison, draw_panels  # OpenCV

    if view == "sheet":
        sheet = draw_comparison(comparison)
        pixels = None if sheet is None else np.asarray(sheet)
    else:
        names = {panel.value for panel in Panel}
        if view not in names:
            raise Problem(HTTPStatus.BAD_REQUEST, f"view is sheet, {', '.join(sorted(names))}")
        pixels = draw_panels(comparison).get(Panel(view))
    if pixels is None:
        raise Problem(HTTPStatus.NOT_FOUND, "there is no such view of these two photos")
    return Picture(_encode_png(pixels), "image/png")


def _get_image_id(store: Store, image_hash: bytes) -> int:
    ids = store.catalog.images.get_ids([image_hash])
    if image_hash not in ids:
        raise Problem(HTTPStatus.NOT_FOUND, "the library does not have this photo any more")
    return ids[image_hash]


def _make_unavailable(reason: str) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, f"no file gives this photo now: {reason}")


def _encode_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return mark_jpeg(buffer.getvalue())


def _encode_png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()

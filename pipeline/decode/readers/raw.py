"""Raw files, by LibRaw: the camera's preview, or the sensor's pixels. Needs the extra `raw`."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image as Pillow

from indexes.records import FLAG_PREVIEW
from pipeline.decode.formats import ExtractedImage, FailureReason
from pipeline.decode.memory import MemoryBudget
from pipeline.decode.read import Rejected

RAW_FORMAT = "RAW"
ORIENTATION_BY_LIBRAW_FLIP = {3: 3, 5: 8, 6: 6}  # EXIF orientations; without an entry: 1


class NotRaw(Rejected):
    """A file with the suffix of a raw file that LibRaw does not know."""


def extract_from_raw(data: bytes, budget: MemoryBudget, min_side: int) -> ExtractedImage:
    """Extract the largest preview that the camera made, or the sensor's pixels at half size.

    The sensor's pixels are taken where there is no preview, or where they fit into `budget` and
    the preview's shorter side is less than both `min_side` pixels and theirs. Raises NotRaw where
    LibRaw knows no camera that writes such a file.
    """
    import rawpy

    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            orientation = ORIENTATION_BY_LIBRAW_FLIP.get(raw.sizes.flip, 1)
            size = raw.sizes.width, raw.sizes.height
            if orientation >= 5:
                size = size[1], size[0]
            preview = _extract_preview(raw)
            wanted_side = min(min_side, size[0] // 2, size[1] // 2)
            if preview is None or min(_read_size(preview)) < wanted_side:
                try:
                    return ExtractedImage(RAW_FORMAT, _decode_sensor(raw, budget), full_size=size)
                except (Rejected, rawpy.LibRawError):
                    if preview is None:
                        raise
    except rawpy.LibRawFileUnsupportedError as error:
        raise NotRaw(
            FailureReason.NO_PICTURE_INSIDE, "LibRaw knows no camera that writes this"
        ) from error
    except rawpy.LibRawUnsufficientMemoryError as error:
        raise MemoryError from error
    return ExtractedImage(RAW_FORMAT, preview, orientation, size, (FLAG_PREVIEW,))


def _decode_sensor(raw: Any, budget: MemoryBudget) -> Pillow.Image:  # noqa: ANN401 - untyped
    """Decode the sensor's pixels, upright, at half the width and height."""
    with budget.reserve(raw.sizes.raw_width, raw.sizes.raw_height):
        pixels = raw.postprocess(half_size=True, use_camera_wb=True, output_bps=8)
    return Pillow.fromarray(pixels)


def _extract_preview(raw: Any) -> bytes | Pillow.Image | None:  # noqa: ANN401 - rawpy is untyped
    """Return the preview as a JPEG stream or as pixels, not turned; None if there is none."""
    import rawpy

    try:
        preview = raw.extract_thumb().data
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return None
    return preview if isinstance(preview, bytes) else Pillow.fromarray(preview)


def _read_size(preview: bytes | Pillow.Image) -> tuple[int, int]:
    """Read width and height of a preview; (0, 0) if it is no JPEG."""
    if not isinstance(preview, bytes):
        return preview.size
    try:
        with Pillow.open(io.BytesIO(preview), formats=("JPEG",)) as opened:
            return opened.size
    except Exception:  # a broken file can make a decoder raise anything, see decode_image()
        return 0, 0

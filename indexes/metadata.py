"""Metadata of images, as their files state it: camera, exposure, dates, encoding.

A catalog keeps one record an image, as JSON without the fields that are None. This module imports
no database and no numpy.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

Record = TypeVar("Record")

# The version of the metadata record. Raise it when a field is added or read differently: the
# next ingest then reads the metadata of all images again.
METADATA_VERSION = 2
# Bounds of what a file may claim.
MAX_TEXT_CHARS = 80
MAX_NUMBER = (1 << 53) - 1  # JSON holds larger ones, floats do not
MAX_DIGESTS = 128
# Kinds of frames: of an animation, and of a document.
FRAMES, PAGES = "frames", "pages"
MAX_DIGEST_CHARS = 256
MAX_COUNTED_COLORS = 768  # more are counted as one more than these


@dataclass(frozen=True, slots=True)
class Capture:
    """The moment of an exposure and the settings of its camera, as EXIF and maker notes say.

    `taken` is the date of the exposure by the camera's own clock, "YYYY-MM-DD HH:MM:SS";
    `subseconds` are the decimal digits after it, `utc_offset` its time zone, "+HH:MM". Exposure
    time in seconds, exposure bias in EV, focal length in millimeters. `image_number` counts the
    exposures of a body: its shutter count, or the number of its file. `burst_id` is equal for the
    frames of one burst, `content_id` for the photo and the film of a live photo.
    """

    make: str | None = None
    model: str | None = None
    body_serial: str | None = None
    taken: str | None = None
    subseconds: str | None = None
    utc_offset: str | None = None
    exposure_time: float | None = None
    exposure_bias: float | None = None
    aperture: float | None = None
    iso: int | None = None
    focal_length: float | None = None
    unique_id: str | None = None
    image_number: int | None = None
    burst_id: str | None = None
    content_id: str | None = None


@dataclass(frozen=True, slots=True)
class JpegEncoding:
    """The encoding of a JPEG.

    `quality` is that of libjpeg whose quantization tables come closest, 1 to 100;
    `has_standard_tables`: they are libjpeg's at that quality. `subsampling` of the chroma is
    "4:4:4", "4:2:2", "4:2:0" or "other". `origin` is the kind of program that writes such files:
    "camera", "messenger" or "editor", None if nothing tells.
    """

    quality: int
    has_standard_tables: bool
    subsampling: str
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """The thumbnail inside EXIF: the digest and the number of its bytes."""

    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Frames:
    """The images in one file.

    `count` them. `kind` is "frames" for those of an animation, "pages" for those of a document, and
    None if only the first counts: in a still, or a photo with its preview. `duration_ms` is that of
    the whole animation, None if it is not known. `digests` are small gray versions, of all frames
    or of some that are evenly placed, in order; empty text stands for a frame that is broken.
    `checksums` are of the pixels of the same pages of a document.
    """

    count: int
    kind: str | None = None
    duration_ms: int | None = None
    digests: tuple[str, ...] = ()
    checksums: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fidelity:
    """The fidelity of an image: its colors, its depth, traces of strong compression.

    `color_count`: the distinct colors in a sample of rows, 1 to MAX_COUNTED_COLORS + 1; `is_gray`:
    they are all gray. `even_share`: the share of neighboring pixels that are equal, in a small
    version. `bit_depth`: the bits of a sample, 8 for fewer, too; None if that is not known.
    `blockiness`: how far the best grid of 8 x 8 pixels stands out, from 0; None if that was not
    measured, as of a JPEG, whose quality tells more, and if the pixels do not tell.
    """

    color_count: int
    is_gray: bool
    even_share: float
    bit_depth: int | None = None
    blockiness: float | None = None


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """The metadata of an image, as its file states it, and the fidelity of its pixels.

    `software` wrote the file, at `modified`, "YYYY-MM-DD HH:MM:SS". `source` is EXIF's file source,
    "camera" or "scanner". `orientation` is that of EXIF, 1 to 8; `latitude` and `longitude` are in
    degrees; `stated_width` and `stated_height` are the size that EXIF claims. `damage_start` is
    where the damage of a damaged image begins, as a share of its height as it is stored, before it
    is turned upright; None if that is not known. `fidelity` is None for a raw photo, whose pixels
    are not those of its preview.
    """

    capture: Capture = field(default_factory=Capture)
    software: str | None = None
    modified: str | None = None
    source: str | None = None
    orientation: int | None = None
    latitude: float | None = None
    longitude: float | None = None
    stated_width: int | None = None
    stated_height: int | None = None
    jpeg: JpegEncoding | None = None
    thumbnail: Thumbnail | None = None
    frames: Frames | None = None
    damage_start: float | None = None
    fidelity: Fidelity | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record without fields that are None."""
        return _drop_none(asdict(self))

    @classmethod
    def from_json(cls, record: object) -> ImageMetadata:
        """Parse what to_json() returned, from a source that is not trusted.

        Raises ValueError for anything else.
        """
        return _parse(cls, record)


NO_METADATA = ImageMetadata()


def encode_metadata(metadata: ImageMetadata) -> str:
    """Return the record as compact JSON text."""
    return json.dumps(metadata.to_json(), separators=(",", ":"))


def decode_metadata(text: str) -> ImageMetadata:
    """Parse the text of encode_metadata(); raises ValueError if it is none."""
    return ImageMetadata.from_json(json.loads(text))


_RECORD_CLASSES = {
    "Capture": Capture,
    "JpegEncoding": JpegEncoding,
    "Thumbnail": Thumbnail,
    "Frames": Frames,
    "Fidelity": Fidelity,
}


def _drop_none(record: dict[str, Any]) -> dict[str, Any]:
    cleaned = {
        key: _drop_none(value) if isinstance(value, dict) else value
        for key, value in record.items()
    }
    return {key: value for key, value in cleaned.items() if value is not None and value != {}}


def _parse(record_class: type[Record], record: object) -> Record:
    """Build a record of a class from JSON, field by field, by the types of its fields."""
    if not isinstance(record, dict):
        raise ValueError(f"{record_class.__name__} is no object")
    known = fields(record_class)  # type: ignore[arg-type]  # a dataclass
    types = {field_.name: str(field_.type) for field_ in known}
    unknown = record.keys() - types.keys()
    if unknown:
        raise ValueError(f"{record_class.__name__} has no field {min(unknown)!a}")
    values = {name: _parse_value(types[name], value) for name, value in record.items()}
    try:
        return record_class(**values)
    except TypeError as error:  # a field without a default is lacking
        raise ValueError(str(error)) from error


def _parse_value(type_name: str, value: Any) -> Any:  # noqa: ANN401 - anything that JSON can hold
    type_name = type_name.removesuffix(" | None")
    if record_class := _RECORD_CLASSES.get(type_name):
        return _parse(record_class, value)
    if type_name == "tuple[str, ...]":
        if not isinstance(value, list | tuple) or len(value) > MAX_DIGESTS:
            raise ValueError("no valid list of digests")
        if not all(_is_text(text, MAX_DIGEST_CHARS) for text in value):
            raise ValueError("no valid digest")
        return tuple(value)
    if type_name == "str":
        is_valid = _is_text(value, MAX_TEXT_CHARS)
    elif type_name == "bool":
        is_valid = isinstance(value, bool)
    elif type_name == "int":
        is_valid = type(value) is int and abs(value) <= MAX_NUMBER
    else:
        is_valid = type(value) in (int, float) and abs(value) <= MAX_NUMBER  # nor NaN
    if not is_valid:
        raise ValueError(f"no valid {type_name}")
    return value


def _is_text(value: Any, max_chars: int) -> bool:  # noqa: ANN401 - anything that JSON can hold
    return isinstance(value, str) and len(value) <= max_chars and value.isprintable()

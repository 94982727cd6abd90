"""Messages between a decoder pool and its workers, beside the bytes and pixels that they share.

What a worker says is checked, because a process that has decoded hostile bytes is not trusted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from indexes.metadata import NO_METADATA, ImageMetadata
from indexes.records import IMAGE_FLAGS, Image
from pipeline.decode.formats import METADATA_KINDS, REJECTION_REASONS
from pipeline.decode.preprocess import VERIFY_INPUT, DecodedImage, Preprocess
from pipeline.decode.read import Rejected

# Limits of what a worker may claim about an image.
MAX_SIDE_PIXELS = (1 << 31) - 1  # SQLite holds more
MAX_FORMAT_NAME_CHARS = 20
MIN_TAKEN_TIMESTAMP = -5_000_000_000  # seconds since 1970: in 1811
MAX_TAKEN_TIMESTAMP = 253_402_300_800  # the year 10000


class DecodeRequest(NamedTuple):
    """A file for a worker: its bytes, their blake3, and the arguments of decode_image()."""

    data: bytes
    digest: bytes
    preprocess: Preprocess
    is_raw: bool


@dataclass(frozen=True)
class DecodedHeader:
    """A worker's answer for a decoded image; its pixels and thumbnail are in shared memory."""

    width: int
    height: int
    format: str
    pixel_hash: bytes
    is_featureless: bool
    flags: tuple[str, ...]
    metadata_kinds: tuple[str, ...]
    taken_at: int | None
    metadata: ImageMetadata
    shape: tuple[int, int]  # height and width of the pixels
    thumbnail_shape: tuple[int, int] | None  # of those of the thumbnail, if there is one

    @classmethod
    def from_decoded(cls, decoded: DecodedImage) -> DecodedHeader:
        """Describe a decoded image."""
        image, pixels, thumbnail = decoded
        return cls(
            width=image.width,
            height=image.height,
            format=image.format,
            pixel_hash=image.pixel_hash,
            is_featureless=image.is_featureless,
            flags=image.flags,
            metadata_kinds=image.metadata_kinds,
            taken_at=image.taken_at,
            metadata=image.metadata or NO_METADATA,
            shape=pixels.shape[:2],
            thumbnail_shape=None if thumbnail is None else thumbnail.shape[:2],
        )

    def to_json(self) -> dict[str, Any]:
        """Return the answer as a worker sends it."""
        return asdict(self) | {
            "pixel_hash": self.pixel_hash.hex(),
            "metadata": self.metadata.to_json(),
        }

    @classmethod
    def from_json(
        cls, answer: dict[str, Any], preprocess: Preprocess, hash_bytes: int
    ) -> DecodedHeader:
        """Parse an answer of a worker that is not trusted.

        Raises ValueError, TypeError, KeyError or AttributeError if it cannot be right for an image
        at `preprocess`, whose hashes have `hash_bytes` bytes.
        """
        thumbnail_shape = answer["thumbnail_shape"]
        header = cls(
            width=_check_side(answer["width"]),
            height=_check_side(answer["height"]),
            format=_check_format(answer["format"]),
            pixel_hash=bytes.fromhex(answer["pixel_hash"]),
            is_featureless=answer["is_featureless"],
            flags=tuple(answer["flags"]),
            metadata_kinds=tuple(answer["metadata_kinds"]),
            taken_at=answer["taken_at"],
            metadata=ImageMetadata.from_json(answer["metadata"]),
            shape=_check_shape(answer["shape"]),
            thumbnail_shape=thumbnail_shape and _check_shape(thumbnail_shape),
        )
        if not isinstance(header.is_featureless, bool):
            raise TypeError("is_featureless")
        if len(header.pixel_hash) != hash_bytes:
            raise ValueError("pixel_hash")
        flags, kinds = set(header.flags), set(header.metadata_kinds)
        if len(flags) < len(header.flags) or not flags <= set(IMAGE_FLAGS):
            raise ValueError("flags")
        if list(header.metadata_kinds) != sorted(kinds) or not kinds <= set(METADATA_KINDS):
            raise ValueError("metadata_kinds")
        if header.taken_at is not None and not (
            type(header.taken_at) is int
            and MIN_TAKEN_TIMESTAMP < header.taken_at < MAX_TAKEN_TIMESTAMP
        ):
            raise ValueError("taken_at")
        if preprocess.fit in ("within", "middle"):
            has_right_shape = max(header.shape) <= preprocess.size
        else:
            has_right_shape = header.shape == (preprocess.size, preprocess.size)
        if not has_right_shape:
            raise ValueError("shape")
        if header.thumbnail_shape and max(header.thumbnail_shape) > VERIFY_INPUT.size:
            raise ValueError("thumbnail_shape")
        return header

    def to_image(self, request: DecodeRequest) -> Image:
        """Return the record that the store keeps of the image."""
        return Image(
            hash=request.digest,
            pixel_hash=self.pixel_hash,
            width=self.width,
            height=self.height,
            format=self.format,
            size=len(request.data),
            is_featureless=self.is_featureless,
            flags=self.flags,
            metadata_kinds=self.metadata_kinds,
            taken_at=self.taken_at,
            metadata=self.metadata,
        )


def parse_rejection(answer: dict[str, Any]) -> Rejected:
    """Parse the reason why there is no image; raises ValueError or KeyError if it is none."""
    reason, detail = answer["reason"], answer["detail"]
    if reason not in REJECTION_REASONS or not isinstance(detail, str):
        raise ValueError("reason")
    return Rejected(reason, detail)


def _check_shape(shape: Any) -> tuple[int, int]:  # noqa: ANN401 - anything that JSON can hold
    height, width = shape
    return _check_side(height), _check_side(width)


def _check_side(side: Any) -> int:  # noqa: ANN401 - anything that JSON can hold
    if type(side) is not int or not 0 < side <= MAX_SIDE_PIXELS:
        raise ValueError("side")
    return side


def _check_format(name: Any) -> str:  # noqa: ANN401 - anything that JSON can hold
    if not isinstance(name, str) or not 0 < len(name) <= MAX_FORMAT_NAME_CHARS:
        raise ValueError("format")
    if not (name.isascii() and name.isprintable()):
        raise ValueError("format")
    return name

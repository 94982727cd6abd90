"""Plain records of files, images and runs. This module imports no database and no numpy."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from indexes.coverage import Coverage
from indexes.metadata import ImageMetadata

# Flags of an image.
FLAG_ANIMATED = "animated"  # one frame is decoded, and the digests of some
FLAG_DAMAGED = "damaged"  # a part of the image is missing or wrong
FLAG_PAGES = "pages"  # one page is decoded, and the digests of some
FLAG_PREVIEW = "preview"  # the camera's preview stands for a raw file
IMAGE_FLAGS = (FLAG_ANIMATED, FLAG_DAMAGED, FLAG_PAGES, FLAG_PREVIEW)


@dataclass(frozen=True)
class Space:
    """The vector space of a store. Vectors compare only inside one space.

    `weights` is the sha256 of the model's weights, `dim` the length of a vector. `floor` is the
    lowest score that the space gives answers for, and `threshold` the default for answers; both
    were calibrated for the space and do not tell two spaces apart.
    """

    backend: str
    model: str
    weights: str
    preprocess: str
    dim: int
    floor: float = field(compare=False)
    threshold: float = field(compare=False)

    def __str__(self) -> str:
        """Describe the space in a few words, for messages."""
        return (
            f"{self.model} ({self.dim} dimensions, weights {self.weights[:12]}, {self.preprocess})"
        )


@dataclass(frozen=True)
class SavedThresholds:
    """The defaults that `calibrate --save` gave a store.

    `threshold` is the least score of two images, `min_agreement` the least share of compared tiles
    that agree in a copy.
    """

    threshold: float
    min_agreement: float


class RecordedStat(Protocol):
    """A record that has the stat of a file at the time when its content was known."""

    @property
    def size(self) -> int:
        """The size in bytes."""

    @property
    def mtime_ns(self) -> int:
        """The time of the last write to the content, in nanoseconds."""

    @property
    def ctime_ns(self) -> int:
        """The time of the last change to content or metadata, in nanoseconds."""

    @property
    def inode(self) -> int:
        """The inode number."""


@dataclass(frozen=True, slots=True)
class FileStat:
    """The stat of a file; times in nanoseconds."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    @classmethod
    def from_os_stat(cls, status: os.stat_result) -> FileStat:
        """Take what a store keeps from the answer of the operating system."""
        return cls(
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_ino,
            status.st_dev,
        )

    def is_unchanged_since(self, earlier: RecordedStat) -> bool:
        """Tell if the file has the content of `earlier`, as far as its stat shows.

        The device number is left out: it can differ after each mount.
        """
        return (
            self.size == earlier.size
            and self.mtime_ns == earlier.mtime_ns
            and self.ctime_ns == earlier.ctime_ns
            and self.inode == earlier.inode
        )


@dataclass(frozen=True, slots=True)
class Image:
    """One distinct content.

    `hash` is the blake3 of its bytes; `pixel_hash` is equal for two images only if their upright
    pixels are. `width` and `height` are those of the upright image. `flags` are words for what a
    person should know of the image: "damaged", "animated"; `metadata_kinds` are words for the EXIF
    data of its file: "date", "place". `taken_at` is the time of the shot, in seconds since 1970 by
    the camera's own clock, without a time zone. `metadata` is None where it was not read, or not
    loaded from the catalog.
    """

    hash: bytes
    pixel_hash: bytes
    width: int
    height: int
    format: str
    size: int
    is_featureless: bool
    flags: tuple[str, ...] = ()
    metadata_kinds: tuple[str, ...] = ()
    taken_at: int | None = None
    metadata: ImageMetadata | None = None

    @property
    def has_frames(self) -> bool:
        """True if the file is an animation, or a document of several pages."""
        return FLAG_ANIMATED in self.flags or FLAG_PAGES in self.flags

    def is_read_as(self, known: Image) -> bool:
        """Tell if another reading of this content gave the same pixels, as far as records show."""
        return (self.pixel_hash, self.width, self.height, self.is_featureless) == (
            known.pixel_hash,
            known.width,
            known.height,
            known.is_featureless,
        )

    @property
    def pixel_count(self) -> int:
        """The number of pixels, at full size."""
        return self.width * self.height

    @property
    def is_damaged(self) -> bool:
        """True if a part of the image could not be decoded."""
        return FLAG_DAMAGED in self.flags


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to write to the catalog.

    `stat` is that of the moment when the file was read. The file has either the hash of an image
    or a reason why it has none, with an optional detail.
    """

    path: str
    stat: FileStat
    image_hash: bytes | None
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """A file as the catalog has it.

    `is_missing`: the file was not there at the last scan; perhaps only its drive is away.
    """

    id: int
    path: str
    stat: FileStat
    image_id: int | None
    reason: str | None
    is_missing: bool


@dataclass(frozen=True, slots=True)
class FolderFile:
    """A file as the catalog has it, with what tells which files of a folder belong together.

    `hash`, `taken_at` and `content_id` are those of its image and its metadata; None if it has
    none, or if that does not say. `detail` is that of the failure of a file without an image.
    """

    path: str
    stat: FileStat
    hash: bytes | None = None
    taken_at: int | None = None
    is_missing: bool = False
    content_id: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Root:
    """A folder that every `ingest` scans, without the names that match a pattern of `excludes`."""

    path: str
    excludes: tuple[str, ...] = ()
    include_hidden: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of the files and images in a catalog.

    `files` are those with an image, `missing` those of them that were not there at the last scan;
    `images` counts distinct contents, `featureless` those without features. `failed_by_reason`
    counts files without an image, `flagged` images by flag.
    """

    files: int
    missing: int
    images: int
    featureless: int
    failed_by_reason: dict[str, int]
    flagged: dict[str, int]


class RunOutcome(StrEnum):
    """The outcome of a run, by its name in the catalog."""

    RUNNING = "running"  # also of a run that was killed, until the next one begins
    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    MIGRATED = "migrated"  # of a migration; ingests have the others


@dataclass(frozen=True, slots=True)
class Run:
    """One ingest.

    `started` and `ended` are in UTC, ISO 8601. `coverage` is None until it ends.
    """

    started: str
    ended: str | None
    outcome: RunOutcome
    coverage: Coverage | None

"""What a store keeps of files, pictures and runs, as plain records: who only describes a picture imports this, and no database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Space:
    """The vector space of a store; two vectors compare only inside one space.

    `floor` and `threshold` are the scores that were calibrated for the space: no answer goes below the floor, and the
    threshold is the default. They do not tell two spaces apart.
    """

    backend: str
    model: str
    weights: str
    preprocess: str
    dim: int
    floor: float = field(compare=False)
    threshold: float = field(compare=False)

    def __str__(self) -> str:
        """The space in a few words, for messages."""
        return (
            f"{self.model} ({self.dim} dimensions, weights {self.weights[:12]}, {self.preprocess})"
        )


@dataclass(frozen=True)
class SavedThresholds:
    """What answers of a store go by unless more is said: the least cosine of two pictures, and the least share of their tiles that agree
    in a copy.
    """

    threshold: float
    min_agreement: float


@dataclass(frozen=True, slots=True)
class FileStat:
    """What the filesystem says of a file; times in nanoseconds."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    def is_unchanged_since(self, earlier: FileStat) -> bool:
        """Whether the content can be taken as the same. The device number is left out: it may differ after each mount."""
        return (self.size, self.mtime_ns, self.ctime_ns, self.inode) == (
            earlier.size,
            earlier.mtime_ns,
            earlier.ctime_ns,
            earlier.inode,
        )


@dataclass(frozen=True, slots=True)
class Image:
    """One distinct content. `hash` is the blake3 of its bytes, `pixels` a hash that equals another's only if the upright pixels do.

    `notes` are words for what a person should know of it: "damaged", "animated"; `metadata`, for what its file tells beside the pixels:
    "date", "place". `taken` is when it was taken, in seconds since 1970 by the camera's own clock.
    """

    hash: bytes
    pixel_hash: bytes
    width: int
    height: int
    format: str
    size: int
    is_featureless: bool
    flags: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    taken_at: int | None = None

    @property
    def is_damaged(self) -> bool:
        """Whether a part of it is missing."""
        return "damaged" in self.flags


@dataclass(frozen=True, slots=True)
class NewFile:
    """A path, what it was when it was read, and either the hash of its image or the reason why there is none."""

    path: str
    stat: FileStat
    image_hash: bytes | None
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """What the catalog holds of a path that was seen before."""

    id: int
    path: str
    stat: FileStat
    image_id: int | None
    reason: str | None
    is_missing: bool  # not there when it was last looked for, but perhaps only its drive is away


@dataclass(frozen=True)
class Root:
    """A folder that `ingest` looks through every time."""

    path: str
    excludes: tuple[str, ...] = ()
    include_hidden: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """Photos and those of them that are missing, distinct images, those that are featureless and those with each note, files without an
    image by reason.
    """

    files: int
    missing: int
    images: int
    featureless: int
    failed_by_reason: dict[str, int]
    flagged: dict[str, int]


@dataclass(frozen=True, slots=True)
class Run:
    """An ingest: when (UTC, ISO 8601), how it ended ("running", "complete" or "interrupted"), and what it saw."""

    started: str
    ended: str | None
    outcome: str
    coverage: dict[str, Any]

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
        return f"{self.model} ({self.dim} dimensions, weights {self.weights[:12]}, {self.preprocess})"


@dataclass(frozen=True)
class Choice:
    """What answers of a store go by unless more is said: the least cosine of two pictures, and the least share of their tiles that agree
    in a copy.
    """

    threshold: float
    strictness: float


@dataclass(frozen=True, slots=True)
class Stat:
    """What the filesystem says of a file; times in nanoseconds."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    def unchanged(self, before: Stat) -> bool:
        """Whether the content can be taken as the same. The device number is left out: it may differ after each mount."""
        return (self.size, self.mtime_ns, self.ctime_ns, self.inode) == (before.size, before.mtime_ns, before.ctime_ns, before.inode)


@dataclass(frozen=True, slots=True)
class Image:
    """One distinct content. `hash` is the blake3 of its bytes, `pixels` a hash that equals another's only if the upright pixels do.

    `notes` are words for what a person should know of it: "damaged", "animated"; `metadata`, for what its file tells beside the pixels:
    "date", "place". `taken` is when it was taken, in seconds since 1970 by the camera's own clock.
    """

    hash: bytes
    pixels: bytes
    width: int
    height: int
    format: str
    size: int
    featureless: bool
    notes: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    taken: int | None = None

    @property
    def damaged(self) -> bool:
        """Whether a part of it is missing."""
        return "damaged" in self.notes


@dataclass(frozen=True, slots=True)
class File:
    """A path, what it was when it was read, and either the hash of its image or the reason why there is none."""

    path: str
    stat: Stat
    image: bytes | None
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What the catalog holds of a path that was seen before."""

    id: int
    path: str
    stat: Stat
    image: int | None
    reason: str | None
    missing: bool  # not there when it was last looked for, but perhaps only its drive is away


@dataclass(frozen=True)
class Root:
    """A folder that `ingest` looks through every time."""

    path: str
    excludes: tuple[str, ...] = ()
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """Photos and those of them that are missing, distinct images, those that are featureless and those with each note, files without an
    image by reason.
    """

    files: int
    missing: int
    images: int
    featureless: int
    without_picture: dict[str, int]
    noted: dict[str, int]


@dataclass(frozen=True, slots=True)
class Run:
    """An ingest: when (UTC, ISO 8601), how it ended ("running", "complete" or "interrupted"), and what it saw."""

    started: str
    ended: str | None
    outcome: str
    coverage: dict[str, Any]

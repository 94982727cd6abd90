"""Rules, in an order that a user can choose, that decide which of several copies to keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from math import inf
from typing import Any

from indexes.decisions import Decision
from indexes.paths import quote
from indexes.records import FileStat, Image
from pipeline.errors import InvalidKeepRule
from pipeline.grouping.assets import AssetPart, PartRole
from pipeline.grouping.decisions import NO_DECISIONS, KeptImages
from pipeline.grouping.folder_patterns import (
    FOLDER_PREFIX,
    is_folder_rule,
    is_in_folder,
    parse_folder_pattern,
)
from pipeline.grouping.losses import LOSSLESS_FORMATS
from pipeline.grouping.provenance import Provenance

# Rank of a format by how much of the camera's data it holds, best first, where their content does
# not decide. Formats that are not listed are raw files: rank 0. A PNG of a photograph is usually
# a re-saved JPEG and ranks beside it.
FORMAT_RANK = {
    "TIFF": 1,
    **dict.fromkeys(("JPEG", "MPO", "PNG", "BMP", "PPM", "JPEG2000", "JXL"), 2),
    **dict.fromkeys(("HEIF", "AVIF", "WEBP"), 3),
    "GIF": 4,
}
# Cameras write these formats, and say so. Without a camera in its metadata, such a file was made
# from another one, or lost what tells.
CAMERA_FORMATS = {"HEIF", "AVIF"}
CAMERA_FORMAT_RANK = 1
LOSSLESS_COPY_REASON = "not a lossless copy"
# Files were not modified before 1990: copying programs and archives set 0, or FAT's 1980.
MIN_MTIME_NS = 631_152_000 * 1_000_000_000


class DiskStatus(StrEnum):
    """A difference between a file on disk and the catalog; the values are printed as they are."""

    GONE = "gone"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class LibraryFile:
    """A file of the library and the image that it holds.

    `is_missing`: the last ingest did not find the file, perhaps only because its drive was away.
    `disk_status`: the difference found since the last ingest; None if there is none, or if nothing
    has checked the file. `frame_count` counts the images in the file. `parts` are the other files
    of its asset.
    """

    path: str
    stat: FileStat
    image: Image
    is_missing: bool = False
    disk_status: DiskStatus | None = None
    frame_count: int = 1
    parts: tuple[AssetPart, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The flags of the image, then words for the state of the file."""
        return (*self.image.flags, *self.state_labels)

    @property
    def state_labels(self) -> tuple[str, ...]:
        """Words for the state of the file on disk; none if it is as it was ingested."""
        missing = ["missing"] if self.is_missing else []
        since_ingest = [f"{self.disk_status} since"] if self.disk_status else []
        return (*missing, *since_ingest)

    @property
    def is_present(self) -> bool:
        """True if, as far as is known, the file exists and holds this image."""
        return not self.is_missing and self.disk_status is None

    @property
    def is_away(self) -> bool:
        """True if, as far as is known, the file is not at its path: deleted, or on a drive."""
        return self.is_missing or self.disk_status is DiskStatus.GONE

    @property
    def timestamp_ns(self) -> float:
        """When the image was taken, else when its file was modified; nanoseconds since 1970.

        Infinite if neither is known.
        """
        if self.image.taken_at is None:
            return self.modified_ns
        return self.image.taken_at * 1_000_000_000

    @property
    def modified_ns(self) -> float:
        """When the file was modified; infinite if a program set its time to an epoch."""
        return self.stat.mtime_ns if self.stat.mtime_ns >= MIN_MTIME_NS else inf


@dataclass(frozen=True, slots=True)
class Criterion:
    """One comparison of two files: `key` sorts the better file first, `reason` says why it won.

    `is_provenance`: it tells which of the two was made from the other.
    """

    reason: str
    key: Callable[[LibraryFile, Provenance], Any]
    is_provenance: bool = False


def _negate_pixel_count(file: LibraryFile, provenance: Provenance) -> float:
    return -min(file.image.pixel_count, provenance.max_pixel_count)


def _rank_format(file: LibraryFile, provenance: Provenance) -> int:
    """Rank the format of a file; a JPEG with its raw file holds as much as that."""
    if any(part.role is PartRole.RAW and not part.is_missing for part in file.parts):
        return 0
    image = file.image
    if image.format in CAMERA_FORMATS and "camera" in image.metadata_kinds:
        return CAMERA_FORMAT_RANK
    return FORMAT_RANK.get(image.format, 0)


def _negate_part_counts(file: LibraryFile, provenance: Provenance) -> list[int]:
    """Count the parts that are there, negated: raw files first, then films, then sidecars."""
    roles = [part.role for part in file.parts if not part.is_missing]
    return [-roles.count(role) for role in PartRole]


# The rules by name, in their default order. A new rule goes before `path`, which breaks every tie.
KEEP_RULES: dict[str, tuple[Criterion, ...]] = {
    "original": (
        Criterion("not altered", lambda file, provenance: bool(provenance.alterations), True),
        Criterion(
            "as the camera wrote it", lambda file, provenance: not provenance.is_from_camera, True
        ),
        Criterion("not derived from another", lambda file, provenance: provenance.is_derived, True),
        Criterion("nearest to all copies", lambda file, provenance: provenance.is_secondhand, True),
    ),
    "resolution": (
        Criterion("not upscaled", lambda file, provenance: provenance.is_upscaled, True),
        Criterion("no added border", lambda file, provenance: provenance.is_padded, True),
        Criterion("most pixels", _negate_pixel_count),
    ),
    "format": (
        Criterion(
            "not compressed more strongly",
            lambda file, provenance: provenance.losses.is_strongly_compressed,
        ),
        Criterion("not saved from a JPEG", lambda file, provenance: provenance.losses.is_resaved),
        Criterion("more colors", lambda file, provenance: provenance.losses.has_lost_colors),
        Criterion("more bits per color", lambda file, provenance: provenance.losses.lost_bits),
        Criterion("richest format", _rank_format),
    ),
    "parts": (Criterion("most parts", _negate_part_counts),),
    "metadata": (
        Criterion("most metadata", lambda file, provenance: -len(file.image.metadata_kinds)),
    ),
    "date": (Criterion("oldest", lambda file, provenance: (file.timestamp_ns, file.modified_ns)),),
    "lossy": (
        Criterion(
            LOSSLESS_COPY_REASON, lambda file, provenance: provenance.losses.is_lossless_copy
        ),
    ),
    "bytes": (Criterion("most bytes", lambda file, provenance: -file.image.size),),
    "path": (
        Criterion("shortest path", lambda file, provenance: len(file.path)),
        Criterion("first by its path", lambda file, provenance: file.path),
    ),
}
# Criteria before all rules, and before them a decision to keep an image, but for a missing one.
PRESENT_CRITERION = Criterion(
    "not missing or changed", lambda file, provenance: not file.is_present
)
DECISION_POSITION = 1  # in a rank key, of the negative number of the latest such decision
BASE_CRITERIA = (
    Criterion("not damaged", lambda file, provenance: file.image.is_damaged),
    Criterion("most frames", lambda file, provenance: -file.frame_count),
)
# Of files with equal pixels, the lossless one was re-saved from the lossy one.
LOSSY_FIRST_CRITERION = Criterion(
    LOSSLESS_COPY_REASON, lambda file, provenance: file.image.format in LOSSLESS_FORMATS
)
# Rules that compare pixels; they decide nothing between files with equal pixels.
PIXEL_RULES = {"original", "resolution", "format", "lossy"}
# Rules that tell how much a file holds of its photo. Bytes count last: of two files of one size and
# format, the smaller one is compressed more.
QUALITY_RULES = ("original", "resolution", "format", "lossy", "bytes")
OVERRULED_PROVENANCE = "although another is likely the original"


class KeepRules:
    """An order of keep rules.

    A present file comes first, of these one that a person decided to keep, then an undamaged one
    with the most frames. The named rules follow in their order, then the rest of KEEP_RULES in
    theirs. `original` is the first rule unless it is named.
    """

    def __init__(self, names: Iterable[str] = (), kept: KeptImages = NO_DECISIONS.kept) -> None:
        """Use the rules `names`: keys of KEEP_RULES, or folder:PATTERN.

        folder:PATTERN prefers files below a folder whose name or whole path matches the pattern.
        `kept` are the images that a person decided to keep. Raises InvalidKeepRule for other names
        and for a name given twice.
        """
        named = list(names)
        for name in named:
            if name not in KEEP_RULES and not is_folder_rule(name):
                raise InvalidKeepRule(
                    f"{quote(name)} is not a keep rule; use {', '.join(KEEP_RULES)}"
                    f" or {FOLDER_PREFIX}PATTERN"
                )
            if named.count(name) > 1:
                raise InvalidKeepRule(
                    f"the keep rule {quote(name)} is given twice; name each rule once, the most"
                    " important first"
                )
        if "original" not in named:
            named.insert(0, "original")
        self.names = (*named, *(name for name in KEEP_RULES if name not in named))
        self.kept = kept

    def with_kept(self, kept: KeptImages) -> KeepRules:
        """Return the same rules after the decisions to keep `kept`."""
        return KeepRules(self.names, kept)

    def find_unused(self, paths: Iterable[str]) -> list[str]:
        """Return the folder rules that match none of these paths."""
        paths = list(paths)
        patterns = {
            name: parse_folder_pattern(name)
            for name in self.names
            if name.startswith(FOLDER_PREFIX)
        }
        return [
            name
            for name, pattern in patterns.items()
            if not any(is_in_folder(path, pattern) for path in paths)
        ]

    @cached_property
    def _criteria(self) -> tuple[Criterion, ...]:
        rule_criteria = [criterion for name in self.names for criterion in _get_criteria(name)]
        decided = Criterion("", lambda file, provenance: -self.kept.get_order(file.image))
        return (PRESENT_CRITERION, decided, *BASE_CRITERIA, *rule_criteria)

    @cached_property
    def _equal_pixels_criteria(self) -> tuple[Criterion, ...]:
        names = [name for name in self.names if name not in PIXEL_RULES]
        rule_criteria = [criterion for name in names for criterion in _get_criteria(name)]
        decided = Criterion("", lambda file, provenance: -self.kept.get_order_of_bytes(file.image))
        first = (PRESENT_CRITERION, decided, *BASE_CRITERIA)
        return (*first, LOSSY_FIRST_CRITERION, *rule_criteria)

    def make_rank_key(self, file: LibraryFile, provenance: Provenance) -> tuple[Any, ...]:
        """Make a sort key that puts the file to keep first, among files of different pixels.

        No two files have the same key, because the path is part of it.
        """
        return tuple(criterion.key(file, provenance) for criterion in self._criteria)

    def make_equal_pixels_rank_key(self, file: LibraryFile) -> tuple[Any, ...]:
        """Make a sort key that puts the file to keep first, among files with equal pixels."""
        provenance = Provenance()
        return tuple(criterion.key(file, provenance) for criterion in self._equal_pixels_criteria)

    def make_quality_key(self, file: LibraryFile, provenance: Provenance) -> tuple[Any, ...]:
        """Make a sort key of what a file holds of its photo, most first; equal ones are as good."""
        rule_criteria = (criterion for name in QUALITY_RULES for criterion in _get_criteria(name))
        criteria = (*BASE_CRITERIA, *rule_criteria)
        return tuple(criterion.key(file, provenance) for criterion in criteria)

    def explain_choice(
        self,
        keeper_key: tuple[Any, ...],
        other_keys: Iterable[tuple[Any, ...]],
        equal_pixels: bool = False,
    ) -> str:
        """Name the criteria by which a keeper won against each other file, in their order.

        Says so if a rule of the user decided against the original, and describes a decision to keep
        the keeper, with those that it wins against. The keys are those of
        make_rank_key(), or with `equal_pixels` of make_equal_pixels_rank_key().
        """
        criteria = self._equal_pixels_criteria if equal_pixels else self._criteria
        others = list(other_keys)
        decisive = {_find_first_difference(keeper_key, other_key) for other_key in others}
        reasons = [
            criteria[position].reason or self._describe_decision(keeper_key, others)
            for position in sorted(decisive)
        ]
        if any(_overrules_provenance(criteria, keeper_key, other_key) for other_key in others):
            reasons.append(OVERRULED_PROVENANCE)
        return ", ".join(reasons)

    def find_decision(
        self, keeper_key: tuple[Any, ...], other_keys: Iterable[tuple[Any, ...]]
    ) -> Decision | None:
        """Return the decision by which a keeper won against another file, if one did."""
        position = DECISION_POSITION
        is_decisive = any(_find_first_difference(keeper_key, key) == position for key in other_keys)
        return self.kept.get(-keeper_key[position]) if is_decisive else None

    def _describe_decision(
        self, keeper_key: tuple[Any, ...], other_keys: Iterable[tuple[Any, ...]]
    ) -> str:
        order, *others = (-key[DECISION_POSITION] for key in (keeper_key, *other_keys))
        return self.kept.describe(order, others)


def _overrules_provenance(
    criteria: Sequence[Criterion], keeper_key: tuple[Any, ...], other_key: tuple[Any, ...]
) -> bool:
    """Tell if a keeper won by a rule that the user put before those of provenance, which it loses.

    Only what the user named can come before them, but for the criteria before all rules. A member
    in doubt by itself can rank before its keeper; then no rule decided between the two.
    """
    is_by_rule = _find_first_difference(keeper_key, other_key) > DECISION_POSITION + len(
        BASE_CRITERIA
    )
    if not is_by_rule or other_key < keeper_key:
        return False
    for position, criterion in enumerate(criteria):
        if criterion.is_provenance and keeper_key[position] != other_key[position]:
            return bool(other_key[position] < keeper_key[position])
    return False


def _find_first_difference(first: tuple[Any, ...], second: tuple[Any, ...]) -> int:
    pairs = enumerate(zip(first, second, strict=True))
    return next(position for position, (left, right) in pairs if left != right)


def _get_criteria(name: str) -> tuple[Criterion, ...]:
    if name in KEEP_RULES:
        return KEEP_RULES[name]
    pattern = parse_folder_pattern(name)
    return (
        Criterion(f"in {pattern}", lambda file, provenance: not is_in_folder(file.path, pattern)),
    )

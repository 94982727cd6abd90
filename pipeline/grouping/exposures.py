"""Tell by their metadata whether two files are two exposures: other shots, however alike they look.

A copy can lose what a camera wrote, but it does not get other values. So two files of one camera
are two exposures if a field that both have differs: the settings of the exposure, the date, the
sub-seconds, the number of the image. A field that one of them lacks is no difference, and metadata
never proves that two files are one exposure.

The exceptions are what programs and people do to metadata:

| metadata                                              | what happened                           |
|-------------------------------------------------------|-----------------------------------------|
| values that differ by less than SETTINGS allows       | a program rounded them                  |
| equal dates, another aperture alone                   | the depth of a portrait was edited      |
| another bias alone                                    | no other light: a program wrote it      |
| other dates, equal settings and image numbers         | a clock was corrected                   |
| other dates by more than an hour, equal settings and  | a clock was corrected                   |
| sub-seconds                                           |                                         |
| a later date that equals the date of the file,        | an editor wrote the date of its edit    |
| by other software, equal settings                     |                                         |
| another unique id, by Google's or Picasa's software   | they write an id of their own           |
| a scanner                                             | dates and settings are of the scans     |

Some differences are only a hint, as two names of one burst are; a hint decides where pixels differ
in places:

- other settings than the exposure time at equal dates and sub-seconds, which an editor can write;
- other dates within an hour at equal settings and sub-seconds, as of a timer or a corrected clock;
- other dates at equal settings without sub-seconds or numbers, by more than an hour or by full
  quarters of it: a corrected clock, or another shot. Within an hour they are another shot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product, starmap

from indexes.metadata import Capture, ImageMetadata
from pipeline.grouping.burst_names import are_of_one_burst, has_burst_name

# The differences that rounding makes. The steps of cameras are a third of a stop: 26 % in time and
# sensitivity, 12 % in aperture, 0.33 EV in bias. Programs write 1/60 s as 0.017, f/2.8 as 2.83.
MAX_TIME_ROUNDING = 0.1  # relative
MAX_APERTURE_ROUNDING = 0.05
MAX_ISO_ROUNDING = 0.05
MAX_FOCAL_LENGTH_ROUNDING = 0.05
MAX_BIAS_ROUNDING_EV = 0.1
# Clocks are corrected by hours, and time zones differ by quarters of an hour.
CLOCK_CORRECTION_STEP = timedelta(minutes=15)
# Of two shots with equal settings; at a longer interval the light has changed.
MAX_SERIES_INTERVAL = timedelta(hours=1)
# With fewer digits, one in ten pairs of exposures has equal sub-seconds.
MIN_SUBSECOND_DIGITS = 2
MIN_UNIQUE_ID_CHARS = 16  # a shorter one is that of a sensor or a model
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"
SCANNER_WORDS = ("scan", "epson", "perfection", "plustek", "opticfilm", "reflecta", "pakon")
UNIQUE_ID_WRITERS = ("google", "picasa")


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of an exposure: its name for people, how to get it, and what rounding can change.

    `is_relative`: `max_rounding` is a share of the larger value.
    """

    name: str
    get: Callable[[Capture], float | None]
    max_rounding: float
    is_relative: bool = True

    def differs(self, first: Capture, second: Capture) -> bool:
        """Tell if both captures have the setting, and it differs by more than rounding."""
        left, right = self.get(first), self.get(second)
        if left is None or right is None:
            return False
        scale = max(abs(left), abs(right)) if self.is_relative else 1.0
        return abs(left - right) > self.max_rounding * scale


EXPOSURE_TIME = Setting("exposure time", lambda capture: capture.exposure_time, MAX_TIME_ROUNDING)
APERTURE = Setting("aperture", lambda capture: capture.aperture, MAX_APERTURE_ROUNDING)
SENSITIVITY = Setting("sensitivity", lambda capture: capture.iso, MAX_ISO_ROUNDING)
EXPOSURE_BIAS = Setting(
    "exposure bias", lambda capture: capture.exposure_bias, MAX_BIAS_ROUNDING_EV, is_relative=False
)
SETTINGS = (
    EXPOSURE_TIME,
    EXPOSURE_BIAS,
    APERTURE,
    SENSITIVITY,
    Setting("focal length", lambda capture: capture.focal_length, MAX_FOCAL_LENGTH_ROUNDING),
)


@dataclass(frozen=True, slots=True)
class ExposureDifference:
    """The field that tells two exposures apart; a hint alone unless `is_certain`."""

    field: str
    is_certain: bool = True


def find_exposure_difference(
    first: ImageMetadata, second: ImageMetadata
) -> ExposureDifference | None:
    """Return what tells that two files are two exposures; None if nothing does.

    The order of the two does not matter. Equal bytes or equal pixels prove more than this does.
    """
    left, right = first.capture, second.capture
    if _is_scan(first) or _is_scan(second) or not _can_be_one_camera(left, right):
        return None
    has_equal_date = _have_equal_dates(first, second)
    has_equal_subseconds = _compare_subseconds(left, right)
    is_one_instant = has_equal_date and has_equal_subseconds is True
    if setting := _find_other_setting(left, right, has_equal_date=has_equal_date):
        # An editor may write settings of its own, but not another exposure time.
        return ExposureDifference(
            setting.name, is_certain=setting is EXPOSURE_TIME or not is_one_instant
        )
    if is_one_instant:
        return None
    if left.model is None or right.model is None:
        return None  # whatever wrote the dates, it need not have been a camera
    if has_equal_date and has_equal_subseconds is False:
        return ExposureDifference("sub-seconds")
    if difference := _find_other_number(first, second):
        return difference
    return _find_other_date(first, second, has_equal_subseconds)


def is_same_exposure(first: ImageMetadata, second: ImageMetadata) -> bool:
    """Tell if one camera took both at the same date and at the same sub-seconds."""
    left, right = first.capture, second.capture
    return (
        _have_equal_dates(first, second)
        and _can_be_one_camera(left, right)
        and _compare_subseconds(left, right) is True
    )


def _is_scan(metadata: ImageMetadata) -> bool:
    """Tell if a scanner made the file."""
    device = f"{metadata.capture.make or ''} {metadata.capture.model or ''}".casefold()
    return metadata.source == "scanner" or any(word in device for word in SCANNER_WORDS)


def _can_be_one_camera(first: Capture, second: Capture) -> bool:
    """Tell if no field says that two files are of two cameras.

    Programs write the model with the maker's name before it, or without.
    """
    if first.body_serial and second.body_serial and first.body_serial != second.body_serial:
        return False
    if first.model is None or second.model is None:
        return True
    left, right = first.model.casefold(), second.model.casefold()
    return left.endswith(right) or right.endswith(left)


def _have_equal_dates(first: ImageMetadata, second: ImageMetadata) -> bool:
    return first.capture.taken is not None and first.capture.taken == second.capture.taken


def _compare_subseconds(first: Capture, second: Capture) -> bool | None:
    """Tell if sub-seconds are equal as far as both are known; None if that says nothing.

    Programs cut off digits or leading zeros. Some cameras always write zeros.
    """
    left, right = first.subseconds, second.subseconds
    if left is None or right is None or not (left.strip("0") or right.strip("0")):
        return None
    digits = min(len(left), len(right))
    if left[:digits] != right[:digits] and left.lstrip("0") != right.lstrip("0"):
        return False
    return True if digits >= MIN_SUBSECOND_DIGITS else None


def _find_other_setting(first: Capture, second: Capture, *, has_equal_date: bool) -> Setting | None:
    """Return a setting that tells two exposures apart, or None."""
    differing = [setting for setting in SETTINGS if setting.differs(first, second)]
    if differing == [EXPOSURE_BIAS] and _have_equal_light(first, second):
        return None
    if has_equal_date and differing == [APERTURE]:
        return None
    return differing[0] if differing else None


def _have_equal_light(first: Capture, second: Capture) -> bool:
    """Tell if both have all settings that let in and amplify light, and these are equal."""
    return all(
        setting.get(first) is not None
        and setting.get(second) is not None
        and not setting.differs(first, second)
        for setting in (EXPOSURE_TIME, APERTURE, SENSITIVITY)
    )


def _find_other_date(
    first: ImageMetadata, second: ImageMetadata, has_equal_subseconds: bool | None
) -> ExposureDifference | None:
    """Return that the dates of two files of equal settings differ, unless a program did that."""
    left, right = _parse_date(first.capture.taken), _parse_date(second.capture.taken)
    if left is None or right is None or left == right:
        return None
    earlier, later = (first, second) if left < right else (second, first)
    if _has_date_of_edit(later, earlier):
        return None
    if has_equal_subseconds is False:
        return ExposureDifference("date")
    if first.capture.image_number and first.capture.image_number == second.capture.image_number:
        return None
    interval = abs(right - left)
    has_exposure = first.capture.exposure_time or second.capture.exposure_time
    if has_equal_subseconds and has_exposure:
        # A timer fires at equal sub-seconds, and a corrected clock keeps them.
        is_series = interval <= MAX_SERIES_INTERVAL
        return ExposureDifference("date", is_certain=False) if is_series else None
    if not _have_equal_light(first.capture, second.capture):
        return ExposureDifference("date")  # that the settings are equal is not known
    is_correction = interval > MAX_SERIES_INTERVAL or not interval % CLOCK_CORRECTION_STEP
    return ExposureDifference("date", is_certain=not is_correction)


def _has_date_of_edit(later: ImageMetadata, earlier: ImageMetadata) -> bool:
    """Tell if an editor wrote the moment when it saved the later file as that of the exposure."""
    return (
        later.software is not None
        and later.software != earlier.software
        and later.modified == later.capture.taken
    )


def _parse_date(text: str | None) -> datetime | None:
    try:
        return datetime.strptime(text, DATE_FORMAT) if text else None
    except ValueError:
        return None


def _find_other_number(first: ImageMetadata, second: ImageMetadata) -> ExposureDifference | None:
    """Return the kind of number that differs though it never does for one exposure, or None."""
    left, right = first.capture, second.capture
    if left.image_number and right.image_number and left.image_number != right.image_number:
        return ExposureDifference("image number")
    ids = [capture.unique_id for capture in (left, right)]
    if any(id_ is None or len(id_) < MIN_UNIQUE_ID_CHARS for id_ in ids) or ids[0] == ids[1]:
        return None
    software = f"{first.software} {second.software}".casefold()
    is_rewritten = any(writer in software for writer in UNIQUE_ID_WRITERS)
    return None if is_rewritten else ExposureDifference("unique id")


@dataclass(frozen=True, slots=True)
class NamedMetadata:
    """The metadata of an image, and the paths of its files."""

    metadata: ImageMetadata
    paths: Sequence[str] = ()


def compare_files(first: NamedMetadata, second: NamedMetadata) -> ExposureDifference | None:
    """Return what tells two files apart by their metadata, else by their names in a burst."""
    if difference := find_exposure_difference(first.metadata, second.metadata):
        return difference
    # Programs and people write names; a date with sub-seconds proves more.
    if is_same_exposure(first.metadata, second.metadata):
        return None
    if are_of_one_burst(first.paths, second.paths):
        return ExposureDifference("name in a burst", is_certain=False)
    return None


def _say_one_date(first: NamedMetadata, second: NamedMetadata) -> bool:
    """Tell if two files have equal dates, and no other metadata that tells them apart."""
    return (
        _have_equal_dates(first.metadata, second.metadata)
        and find_exposure_difference(first.metadata, second.metadata) is None
    )


class Exposures:
    """Metadata and names of images, by pixel hash; tells which of them are two exposures.

    The files of one image can say different things: one was stripped, or its date was corrected.
    """

    def __init__(self, images: Mapping[bytes, Sequence[NamedMetadata]]) -> None:
        """Use the metadata of all contents of each image; an image without any is no exposure."""
        self._images = images
        self._captures = {
            image: frozenset(
                (
                    file.metadata.capture,
                    file.metadata.software,
                    file.metadata.modified,
                    file.metadata.source,
                )
                for file in files
            )
            for image, files in images.items()
        }
        self._differences: dict[tuple[bytes, bytes], ExposureDifference | None] = {}

    @property
    def metadata(self) -> dict[bytes, list[ImageMetadata]]:
        """The metadata of all contents of each image."""
        return {image: [file.metadata for file in files] for image, files in self._images.items()}

    def find_difference(self, left: bytes, right: bytes) -> ExposureDifference | None:
        """Return what tells that two images are two exposures, rather a proof than a hint.

        Two files with equal dates prove more than two others with other metadata. Names of one
        burst count even then, unless the sub-seconds are equal, too.
        """
        pair = (left, right) if left < right else (right, left)
        if pair not in self._differences:
            self._differences[pair] = self._compare(*pair)
        return self._differences[pair]

    def are_apart(self, left: bytes, right: bytes) -> bool:
        """Tell if two images are two exposures for certain."""
        difference = self.find_difference(left, right)
        return difference is not None and difference.is_certain

    def select_distinct(self, images: Iterable[bytes]) -> list[bytes]:
        """Return one of each set of images that say the same, for what are_apart() compares."""
        return list({self._captures.get(image): image for image in images}.values())

    def _compare(self, left: bytes, right: bytes) -> ExposureDifference | None:
        captures = self._captures.get(left), self._captures.get(right)
        has_names = self._has_burst_name(left) and self._has_burst_name(right)
        if captures[0] == captures[1] and not has_names:
            return None  # as for the many copies that lost their metadata
        pairs = list(product(self._images.get(left, ()), self._images.get(right, ())))
        of_one_date = [pair for pair in pairs if _say_one_date(*pair)]
        if any(is_same_exposure(first.metadata, second.metadata) for first, second in of_one_date):
            return None
        found = filter(None, starmap(compare_files, of_one_date or pairs))
        return max(found, key=lambda item: item.is_certain, default=None)

    def _has_burst_name(self, image: bytes) -> bool:
        return any(
            has_burst_name(path) for file in self._images.get(image, ()) for path in file.paths
        )

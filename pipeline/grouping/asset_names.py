"""The names of files that belong together: suffixes, and what sidecars are named after."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from pipeline.decode.formats import IMAGE_SUFFIXES, RAW_SUFFIXES
from pipeline.decode.live_photos import LIVE_VIDEO_SUFFIXES, PIXEL_VIDEO_SUFFIX


class FileKind(StrEnum):
    """The kind of a file in an asset, by its suffix and by whether it holds an image."""

    PHOTO = "photo"
    RAW = "raw"
    VIDEO = "video"
    SIDECAR = "sidecar"
    OTHER = "other"  # in no asset


HEIC_SUFFIXES = {".heic", ".heif", ".hif"}
# Photos that cameras write beside a raw file, or a phone beside the film of a live photo. A PNG or
# a TIFF with the name of a raw file is an export, a photo of its own.
CAMERA_SUFFIXES = HEIC_SUFFIXES | {".jpg", ".jpeg", ".jpe"}
VIDEO_SUFFIXES = LIVE_VIDEO_SUFFIXES | {
    *(".3g2", ".3gp", ".avi", ".m2ts", ".m4v", ".mkv", ".mpeg", ".mpg", ".mts", ".webm", ".wmv"),
}
AAE_SUFFIX, JSON_SUFFIX, THM_SUFFIX, XMP_SUFFIX = ".aae", ".json", ".thm", ".xmp"
SIDECAR_SUFFIXES = {AAE_SUFFIX, JSON_SUFFIX, THM_SUFFIX, XMP_SUFFIX}
MEDIA_SUFFIXES = IMAGE_SUFFIXES | RAW_SUFFIXES | VIDEO_SUFFIXES

# Google Takeout names the JSON of a file by its name and this, cut off at so many characters, and
# puts the number of a second file of that name at the end: IMG_1.jpg(1).json of IMG_1(1).jpg.
TAKEOUT_MARK = ".supplemental-metadata"
MAX_TAKEOUT_STEM_CHARS = 46
_NUMBERED_NAME = re.compile(r"(?P<stem>.*)(?P<number>\(\d+\))(?P<suffix>\.[^.]*)")
_NUMBER_AT_END = re.compile(r"\(\d+\)$")
# Apple keeps the recipe of an edit of IMG_1 in IMG_1.AAE, that of the photo as it was taken in
# IMG_O1.AAE, and the edited photo in IMG_E1.
_APPLE_STEM = re.compile(r"(?P<prefix>.*_)(?P<letter>[eo])(?P<number>\d+)")
# darktable writes the second edit of IMG_1.CR3 to IMG_1_01.CR3.xmp.
_DARKTABLE_NAME = re.compile(r"(?P<stem>.*)_\d\d(?P<suffix>\.[^.]+)")
# A Pixel writes PXL_1.RAW-01.COVER.jpg beside PXL_1.RAW-02.ORIGINAL.dng, and PXL_1.MP beside
# PXL_1.MP.jpg, where Google Takeout splits them.
_PIXEL_STEM = re.compile(r"(?P<stem>.*)\.raw-\d\d(?:\.mp)?\.(?:cover|original)")


@dataclass(frozen=True, slots=True)
class AssetName:
    """The name of a file in lower case, in two parts: names are compared without case."""

    stem: str
    suffix: str

    @property
    def whole(self) -> str:
        """The whole name."""
        return self.stem + self.suffix


def parse_name(path: str) -> AssetName:
    """Parse the name of the file at a path."""
    name = path.rpartition("/")[2].lower()
    stem, dot, ending = name.rpartition(".")
    return AssetName(stem, dot + ending) if stem else AssetName(name, "")


def get_kind(name: AssetName, *, has_image: bool) -> FileKind:
    """Return the kind of a file in an asset; `has_image`: a photo was read from it."""
    if name.suffix == THM_SUFFIX or (name.suffix in SIDECAR_SUFFIXES and not has_image):
        return FileKind.SIDECAR
    if name.suffix in RAW_SUFFIXES:
        return FileKind.RAW
    if has_image or name.suffix in IMAGE_SUFFIXES:
        return FileKind.PHOTO
    return FileKind.VIDEO if name.suffix in VIDEO_SUFFIXES else FileKind.OTHER


def get_shared_stem(name: AssetName) -> str:
    """Return the stem that the photos and films of one asset share."""
    if name.suffix == PIXEL_VIDEO_SUFFIX:
        return name.whole
    match = _PIXEL_STEM.fullmatch(name.stem)
    return match["stem"] if match else name.stem


def iter_owner_names(sidecar: AssetName) -> Iterator[str]:
    """Yield the whole names of what an XMP, AAE or THM file can belong to, the likeliest first.

    IMG_1.CR3.xmp belongs to IMG_1.CR3, IMG_1.xmp to what iter_owner_stems() yields.
    """
    yield sidecar.stem
    if match := _DARKTABLE_NAME.fullmatch(sidecar.stem):
        yield match["stem"] + match["suffix"]


def iter_owner_stems(sidecar: AssetName) -> Iterator[str]:
    """Yield the stems of what a sidecar can belong to, the likeliest first."""
    yield sidecar.stem
    match = _APPLE_STEM.fullmatch(sidecar.stem)
    if sidecar.suffix == AAE_SUFFIX and match:
        yield match["prefix"] + match["number"]
        yield f"{match['prefix']}e{match['number']}"


def iter_json_stems(owner: AssetName) -> Iterator[str]:
    """Yield the stems of the JSON files that Google Takeout can have written of a photo or film."""
    match = _NUMBERED_NAME.fullmatch(owner.whole)
    base, number = (
        (match["stem"] + match["suffix"], match["number"]) if match else (owner.whole, "")
    )
    for stem in (base, base + TAKEOUT_MARK):
        yield stem[:MAX_TAKEOUT_STEM_CHARS] + number
    if number:  # other programs leave the number where it is
        yield from (owner.whole, owner.whole + TAKEOUT_MARK)


def is_json_of_media(sidecar: AssetName) -> bool:
    """Tell if a JSON file has the name of one of a photo or film, whether that is there or not.

    Other programs keep JSON files of their own beside photos.
    """
    whole = _NUMBER_AT_END.sub("", sidecar.stem)
    name, dot, ending = whole.rpartition(".")
    is_marked = dot and TAKEOUT_MARK.startswith(dot + ending)
    return parse_name(name if is_marked else whole).suffix in MEDIA_SUFFIXES

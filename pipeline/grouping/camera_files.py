"""Tell if a file is as a camera wrote it, by its metadata."""

from __future__ import annotations

from indexes.metadata import ImageMetadata
from indexes.records import Image

# Words in the software field of programs that edit photos. Cameras write their firmware there.
EDITOR_WORDS = (
    "acdsee",
    "affinity",
    "aperture",
    "camera raw",
    "canva",
    "capture one",
    "darktable",
    "digikam",
    "dxo",
    "facebook",
    "gimp",
    "imagemagick",
    "instagram",
    "irfanview",
    "lightroom",
    "luminar",
    "meitu",
    "paint",
    "photofiltre",
    "photoscape",
    "photoshop",
    "picasa",
    "picsart",
    "pixelmator",
    "pixlr",
    "polarr",
    "rawtherapee",
    "snapseed",
    "vsco",
    "xnview",
)


def is_camera_file(metadata: ImageMetadata, image: Image) -> bool:
    """Tell if a file is as a camera wrote it, as far as its metadata says.

    It has the model and the settings of the exposure, no sign of an editor, and the size that its
    EXIF states, if it states one.
    """
    capture, software = metadata.capture, (metadata.software or "").casefold()
    has_settings = any((capture.exposure_time, capture.aperture, capture.iso))
    is_edited = any(word in software for word in EDITOR_WORDS) or (
        metadata.jpeg is not None and metadata.jpeg.origin == "editor"
    )
    stated = {metadata.stated_width, metadata.stated_height}
    has_stated_size = None in stated or stated == {image.width, image.height}
    return bool(capture.model) and has_settings and not is_edited and has_stated_size

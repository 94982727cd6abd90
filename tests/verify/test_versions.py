"""The two version constants that are raised by hand, held by what they stand for.

Verdicts and vectors in a store are valid as long as VERDICT_VERSION and PREPROCESS_VERSION are. A
change that moves one without a new number leaves stores with a mix of old and new answers, and no
other test would notice.

golden/verdicts.json has the verdicts and thumbnails of its version. Its numbers are compared to
within more than another CPU or build of OpenCV moves them, and far less than an edit does.
`WRITE_GOLDEN=1 pytest tests/verify/test_versions.py` rewrites it; read its diff.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFilter, ImageOps, JpegImagePlugin

from pipeline import thumbnails
from pipeline.decode.pixels import resize
from pipeline.decode.preprocess import PREPROCESS_VERSION, VERIFY_INPUT, Preprocess
from pipeline.thumbnails import decode_thumbnail, encode_thumbnail
from pipeline.verify import (
    alignment,
    colors,
    edits,
    matching,
    outlines,
    resampling,
    tiles,
    upscaling,
)
from pipeline.verify.features import build_features_from_thumbnail
from pipeline.verify.inputs import extract_from_thumbnail
from pipeline.verify.upscaling import CENTER_SIDE_PX, UpscaleCheck, compute_center_spectra
from pipeline.verify.verdict import VERDICT_VERSION, Verdict
from pipeline.verify.verify import verify
from tests.support.images import decode_file, draw_textured_image, save_image

GOLDEN_FILE = Path(__file__).parent / "golden" / "verdicts.json"
# The version with the hash of the pixels that it stands for.
EXPECTED_PIXELS = ("decode-2", "0419e8d09c4fd92c")
# How far a number may be from the recorded one. A tile is about 0.06 of a side.
TOLERANCES = {
    "tiles": 4,
    "agreeing_share": 0.03,
    "displaced_share": 0.03,
    "changed_regions": 0.07,
    "rotation_deg": 0.3,
    # A number near a threshold of a tree takes the other way on another CPU.
    "copy": 0.15,
    "shot": 0.3,
    "template": 0.3,
    "noise_ncc": 0.05,
}
DEFAULT_TOLERANCE = 0.01  # of all others: shares, factors, gray levels

BICUBIC = Image.Resampling.BICUBIC
LANCZOS = Image.Resampling.LANCZOS
MODEL_INPUT = Preprocess(160)  # of the default model, neardup-1
THUMBNAIL_SIZE = (VERIFY_INPUT.size, VERIFY_INPUT.size)

ImagePair = tuple[Image.Image, Image.Image]
Edit = Callable[[Image.Image], Image.Image]


def test_verdicts_and_thumbnails_of_drawn_pairs_match_verdict_version() -> None:
    present = {
        "version": VERDICT_VERSION,
        "thumbnails": {name: _describe_thumbnail(*draw()) for name, draw in PAIRS.items()},
        "verdicts": {
            name: _describe_verdict(_verify_pair(*draw())) for name, draw in PAIRS.items()
        },
    }
    if os.environ.get("WRITE_GOLDEN"):
        GOLDEN_FILE.write_text(json.dumps(present, indent=1) + "\n")
    differences = _list_differences(present, json.loads(GOLDEN_FILE.read_text()))
    assert not differences, (
        "verification answers otherwise than it did: raise VERDICT_VERSION in"
        " pipeline/verify/verdict.py, and run this test with WRITE_GOLDEN=1"
    )


# Each constant with the pair whose verdict it moves.
@pytest.mark.parametrize(
    ("module", "constant", "value", "pair"),
    [
        (alignment, "MIN_TILE_NCC", 0.9995, "embedded"),
        (alignment, "MIN_JUDGED_SHARE", 0.99, "covered"),
        (alignment, "MIN_NCC_GAIN", 0.3, "burst"),
        (matching, "MIN_INLIERS", 1000, "cropped"),
        (tiles, "MIN_TEXTURE_TO_NOISE", 5.0, "resized"),
        (colors, "MIN_COLOR_CHROMA_LEVELS", 99.0, "grayscale"),
        (outlines, "MIN_SEAM_CONTRAST_LEVELS", 99.0, "embedded"),
        (edits, "MIN_ROTATION_DEG", 20.0, "rotated"),
        (upscaling, "MAX_UPSCALED_ENERGY_RATIO", 0.0, "upscaled"),
        (upscaling, "MIN_REAL_ENERGY_RATIO", 0.0, "upscaled and sharpened"),
        (resampling, "MIN_PEAK_RATIO", 99.0, "upscaled and sharpened"),
    ],
)
def test_changed_constant_changes_the_verdict_of_a_drawn_pair(
    module: Any,  # noqa: ANN401 - any module
    constant: str,
    value: float,
    pair: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded = json.loads(GOLDEN_FILE.read_text())["verdicts"][pair]
    assert not _list_differences(_describe_verdict(_verify_pair(*PAIRS[pair]())), recorded)
    monkeypatch.setattr(module, constant, value)
    assert _list_differences(_describe_verdict(_verify_pair(*PAIRS[pair]())), recorded)


def test_changed_quality_changes_the_thumbnail_of_each_drawn_pair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded = json.loads(GOLDEN_FILE.read_text())["thumbnails"]
    monkeypatch.setattr(thumbnails, "THUMBNAIL_JPEG_QUALITY", 87)
    for name, draw in PAIRS.items():
        assert _list_differences(_describe_thumbnail(*draw()), recorded[name]), name


def test_pixels_of_drawn_images_match_preprocess_version(tmp_path: Path) -> None:
    assert (PREPROCESS_VERSION, _hash_pixels(tmp_path)) == EXPECTED_PIXELS, (
        "decoding yields other pixels than it did: raise PREPROCESS_VERSION in"
        " pipeline/decode/preprocess.py, and put the new version and hash into EXPECTED_PIXELS"
    )


def test_changed_orientation_changes_pixel_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resize, "TRANSPOSE_BY_ORIENTATION", {})
    assert _hash_pixels(tmp_path) != EXPECTED_PIXELS[1]


def _draw_photo(seed: int, size: tuple[int, int] = (480, 320)) -> Image.Image:
    """Draw an image with detail in every wavelength, as a photo has that was not upscaled."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    grain = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(0.7))
    return Image.blend(draw_textured_image(seed, size), grain, 0.2)


def _draw_copy(seed: int, edit: Edit, size: tuple[int, int] = (480, 320)) -> ImagePair:
    photo = _draw_photo(seed, size)
    return photo, edit(photo)


def _cover(photo: Image.Image) -> Image.Image:
    covered = photo.copy()
    covered.paste(draw_textured_image(3, (200, 100)), (120, 90))
    return covered


def _embed(photo: Image.Image) -> Image.Image:
    host = draw_textured_image(2, (640, 480))
    host.paste(photo.resize((300, 200)), (200, 130))
    return host


def _draw_burst() -> ImagePair:
    """Draw two shots of a scene whose near part moves three times as far as the far part."""
    far, near = draw_textured_image(8, (700, 320)), draw_textured_image(9, (900, 320))
    shots = []
    for offset in (0, 2):
        shot = far.crop((100 + offset, 0, 580 + offset, 320))
        for left in range(20, 480, 120):
            near_part = near.crop((left + 100, 90, left + 170, 300))
            shot.paste(near_part, (left - 3 * offset, 90))
        shots.append(shot)
    return shots[0], shots[1]


def _draw_collages() -> ImagePair:
    """Draw two collages that share their left half."""
    pair = []
    for seed in (4, 5):
        collage = Image.new("RGB", (800, 400))
        collage.paste(ImageOps.fit(draw_textured_image(3), (400, 400)), (0, 0))
        collage.paste(ImageOps.fit(draw_textured_image(seed), (400, 400)), (400, 0))
        pair.append(collage)
    return pair[0], pair[1]


# Without text, whose shapes depend on the version of FreeType.
PAIRS: dict[str, Callable[[], ImagePair]] = {
    "resized": lambda: _draw_copy(11, lambda photo: photo.resize((240, 160))),
    # Too small for a trace of resampling.
    "upscaled": lambda: _draw_copy(12, lambda photo: photo.resize((272, 187), LANCZOS), (160, 110)),
    "upscaled and sharpened": lambda: _draw_copy(
        12, lambda photo: photo.resize((816, 544), BICUBIC).filter(ImageFilter.SHARPEN)
    ),
    "grayscale": lambda: _draw_copy(13, ImageOps.grayscale),
    "mirrored": lambda: _draw_copy(14, ImageOps.mirror),
    "cropped": lambda: _draw_copy(15, lambda photo: photo.crop((90, 60, 690, 460)), (960, 640)),
    "rotated": lambda: _draw_copy(
        16, lambda photo: photo.rotate(10, Image.Resampling.BICUBIC, expand=True)
    ),
    "quarter turn": lambda: _draw_copy(
        21, lambda photo: photo.transpose(Image.Transpose.ROTATE_90)
    ),
    "stretched": lambda: _draw_copy(22, lambda photo: photo.resize((480, 400))),
    "bordered": lambda: _draw_copy(17, lambda photo: ImageOps.expand(photo, 20, "white")),
    "covered": lambda: _draw_copy(18, _cover),
    "embedded": lambda: _draw_copy(19, _embed),
    "recolored": lambda: _draw_copy(20, ImageOps.equalize),
    "collages": _draw_collages,
    "burst": _draw_burst,
    "other image": lambda: (_draw_photo(23), _draw_photo(24)),
    "without texture": lambda: _draw_copy(25, lambda photo: Image.new("RGB", photo.size, "gray")),
}


def _encode_thumbnail(image: Image.Image) -> bytes:
    return encode_thumbnail(np.asarray(ImageOps.contain(image.convert("RGB"), THUMBNAIL_SIZE)))


def _verify_pair(first: Image.Image, second: Image.Image) -> Verdict:
    """Verify two images as ingest does: by stored thumbnails and features, then by full detail."""
    images = [image.convert("RGB") for image in (first, second)]
    jpegs = [_encode_thumbnail(image) for image in images]
    features = [
        build_features_from_thumbnail(jpeg, extract_from_thumbnail(jpeg), image.size)
        for jpeg, image in zip(jpegs, images, strict=True)
    ]
    check = UpscaleCheck({(0, 1): verify(*features)})
    spectra = {
        number: compute_center_spectra(_crop_center(images[number]), images[number].size)
        for number in check.larger_images
    }
    return check.apply(spectra)[0, 1]


def _crop_center(image: Image.Image) -> NDArray[np.uint8]:
    width, height = (min(side, CENTER_SIDE_PX) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return np.asarray(image.crop((left, top, left + width, top + height)))


def _describe_verdict(verdict: Verdict) -> dict[str, Any]:
    """Describe a verdict as JSON: all it states, but the number of inliers.

    A few keypoints more or less, as another build of OpenCV may find, decide nothing. Of a pair
    that is no copy, the alignment is one of many that are equally wrong, and is not stored.
    """
    described = json.loads(json.dumps(verdict.to_dict()))
    del described["inliers"]
    if verdict.edits is None:
        del described["homography"]
    return dict(described)


def _describe_thumbnail(first: Image.Image, second: Image.Image) -> dict[str, Any]:
    """Describe the stored thumbnail of the second image: its form, and what encoding it lost."""
    jpeg = _encode_thumbnail(second)
    with Image.open(io.BytesIO(jpeg)) as opened:
        assert isinstance(opened, JpegImagePlugin.JpegImageFile)
        sampling, tables = JpegImagePlugin.get_sampling(opened), opened.quantization
    pixels = np.asarray(ImageOps.contain(second.convert("RGB"), THUMBNAIL_SIZE)).astype(np.int16)
    return {
        "shape": list(pixels.shape),
        "subsampling": sampling,
        "table_sums": [sum(table) for table in tables.values()],
        "lost_levels": round(float(np.abs(decode_thumbnail(jpeg) - pixels).mean()), 2),
    }


def _list_differences(present: Any, recorded: Any, name: str = "") -> list[str]:  # noqa: ANN401
    """List where a description differs from the recorded one by more than its tolerance."""
    if isinstance(present, dict) and isinstance(recorded, dict):
        keys = dict.fromkeys([*present, *recorded])
        return [
            difference
            for key in keys
            for difference in _list_differences(present.get(key), recorded.get(key), key)
        ]
    if isinstance(present, list) and isinstance(recorded, list) and len(present) == len(recorded):
        return [
            difference
            for new, old in zip(present, recorded, strict=True)
            for difference in _list_differences(new, old, name)
        ]
    if isinstance(present, float) or name in TOLERANCES:
        if isinstance(recorded, int | float):
            tolerance = TOLERANCES.get(name, DEFAULT_TOLERANCE)
            return [] if abs(present - recorded) <= tolerance else [f"{name}: {present}"]
    return [] if present == recorded else [f"{name}: {present} instead of {recorded}"]


def _save_images(folder: Path) -> list[Path]:
    """Save six images that take six ways through the decoder."""
    photo = _draw_photo(1)
    alpha = Image.linear_gradient("L").resize(photo.size)
    deep_gray = np.asarray(photo.convert("L")).astype(np.uint16) * 250
    swapped_primaries = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"????"), (b"bXYZ", b"rXYZ"), (b"????", b"bXYZ")):
        swapped_primaries = swapped_primaries.replace(old, new)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees clockwise
    return [
        save_image(folder / "reduced_while_decoded.jpg", _draw_photo(2, (1800, 1200)), quality=90),
        save_image(folder / "oriented.jpg", photo, quality=90, exif=exif),
        save_image(folder / "transparent.png", Image.merge("RGBA", (*photo.split(), alpha))),
        save_image(folder / "gray_16_bits.png", Image.fromarray(deep_gray)),
        save_image(folder / "profiled.png", photo, icc_profile=swapped_primaries),
        save_image(folder / "smaller_than_thumbnail.gif", photo.quantize(64).resize((300, 200))),
    ]


def _hash_pixels(folder: Path) -> str:
    hasher = blake3()
    for path in _save_images(folder):
        for preprocess in (VERIFY_INPUT, MODEL_INPUT):
            pixels = decode_file(path, preprocess).pixels
            hasher.update(repr(pixels.shape).encode())
            hasher.update(pixels.tobytes())
    return hasher.hexdigest()[:16]

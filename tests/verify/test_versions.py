"""The two version constants that are raised by hand, held by what they stand for.

Verdicts and vectors in a store are valid as long as VERDICT_VERSION and PREPROCESS_VERSION are. A
change that moves one without a new number leaves stores with a mix of old and new answers, and no
other test would notice.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFilter, ImageOps

from pipeline.decode import resize
from pipeline.decode.preprocess import PREPROCESS_VERSION, VERIFY_INPUT, Preprocess
from pipeline.verify import verify as verify_module
from pipeline.verify.features import build_features_from_pixels
from pipeline.verify.upscaling import CENTER_SIDE_PX, UpscaleCheck, compute_radial_spectrum
from pipeline.verify.verdict import VERDICT_VERSION, Verdict
from tests.support.images import decode_file, draw_textured_image, save_image

# Each version with the hash of what it stands for.
EXPECTED_VERDICTS = (9, "d1b3a2aca79e21b1")
EXPECTED_PIXELS = ("decode-2", "0419e8d09c4fd92c")

LANCZOS = Image.Resampling.LANCZOS
MODEL_INPUT = Preprocess(160)  # of the default model, neardup-1
THUMBNAIL_SIZE = (VERIFY_INPUT.size, VERIFY_INPUT.size)

ImagePair = tuple[Image.Image, Image.Image]
Edit = Callable[[Image.Image], Image.Image]


def test_verdicts_of_drawn_pairs_match_verdict_version() -> None:
    assert (VERDICT_VERSION, _hash_verdicts()) == EXPECTED_VERDICTS, (
        "verification answers otherwise than it did: raise VERDICT_VERSION in"
        " pipeline/verify/verdict.py, and put the new version and hash into EXPECTED_VERDICTS"
    )


@pytest.mark.parametrize(
    ("constant", "value"), [("MIN_TILE_NCC", 0.9), ("MIN_COPY_SHARE", 0.4), ("MIN_NCC_GAIN", 0.3)]
)
def test_changed_threshold_changes_verdict_hash(
    constant: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_module, constant, value)
    assert _hash_verdicts() != EXPECTED_VERDICTS[1]


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
    "upscaled": lambda: _draw_copy(12, lambda photo: photo.resize((816, 544), LANCZOS)),
    "grayscale": lambda: _draw_copy(13, ImageOps.grayscale),
    "mirrored": lambda: _draw_copy(14, ImageOps.mirror),
    "cropped": lambda: _draw_copy(15, lambda photo: photo.crop((90, 60, 690, 460)), (960, 640)),
    "rotated": lambda: _draw_copy(
        16, lambda photo: photo.rotate(10, Image.Resampling.BICUBIC, expand=True)
    ),
    "bordered": lambda: _draw_copy(17, lambda photo: ImageOps.expand(photo, 20, "white")),
    "covered": lambda: _draw_copy(18, _cover),
    "embedded": lambda: _draw_copy(19, _embed),
    "recolored": lambda: _draw_copy(20, ImageOps.equalize),
    "collages": _draw_collages,
    "burst": _draw_burst,
}


def _verify_pair(first: Image.Image, second: Image.Image) -> Verdict:
    """Verify two images as ingest does: by their thumbnails, then by the detail of the larger."""
    images = [image.convert("RGB") for image in (first, second)]
    thumbnails = [ImageOps.contain(image, THUMBNAIL_SIZE) for image in images]
    features = [
        build_features_from_pixels(np.asarray(thumbnail), image.size)
        for thumbnail, image in zip(thumbnails, images, strict=True)
    ]
    check = UpscaleCheck({(0, 1): verify_module.verify(*features)})
    spectra = {
        number: compute_radial_spectrum(_crop_center(images[number]), images[number].size)
        for number in check.larger_images
    }
    return check.apply(spectra)[0, 1]


def _crop_center(image: Image.Image) -> NDArray[np.uint8]:
    width, height = (min(side, CENTER_SIDE_PX) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return np.asarray(image.crop((left, top, left + width, top + height)))


def _summarize(verdict: Verdict) -> dict[str, Any]:
    """Return what a verdict states, as coarse as another CPU or build of OpenCV cannot move it."""
    summary: dict[str, Any] = {
        "relation": verdict.relation.value,
        "tens of tiles": round(verdict.tiles / 10),
        "agreeing": round(verdict.agreeing_share, 1),
        "displaced": round(verdict.displaced_share, 1),
    }
    if edits := verdict.edits:
        summary |= {
            "mirrored": edits.mirrored,
            "quarter_turn_deg": edits.quarter_turn_deg,
            "rotation_deg": round(edits.rotation_deg),
            "anisotropic": edits.anisotropic,
            "overlap": [round(share, 2) for share in edits.overlap],
            "sides": [
                edits.embedded_side,
                edits.grayscale_side,
                edits.derived_side,
                edits.upscaled_side,
            ],
            "plain_background": edits.plain_background,
            "recolored": edits.recolored,
            "changed_regions": len(edits.changed_regions),
        }
    return summary


def _hash_verdicts() -> str:
    summaries = {name: _summarize(_verify_pair(*draw())) for name, draw in PAIRS.items()}
    return blake3(json.dumps(summaries, sort_keys=True).encode()).hexdigest()[:16]


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

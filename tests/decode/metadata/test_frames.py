"""Read the frames of animations and the pages of documents."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image, ImageDraw

from indexes.metadata import Frames
from pipeline.decode.image import decode_image
from pipeline.decode.metadata.frame_digest import parse_digest
from pipeline.decode.metadata.frames import (
    MAX_DECODED_FRAMES,
    MAX_FRAME_DIGESTS,
    make_digest,
    place_digests,
)
from pipeline.decode.preprocess import VERIFY_INPUT, Preprocess
from pipeline.decode.readers.pillow import load_format_plugins
from tests.support.images import draw_scene

INPUT = Preprocess(64)
DIGEST = b"0" * 32


def save_frames(frames: Sequence[Image.Image], format_: str, **options: object) -> bytes:
    """Save images as the frames of one file."""
    file = io.BytesIO()
    frames[0].save(file, format_, save_all=True, append_images=frames[1:], **options)
    return file.getvalue()


def read_frames(data: bytes, preprocess: Preprocess = INPUT) -> Frames:
    """Decode an image, and return what its file says of its frames."""
    image = decode_image(data, DIGEST, preprocess).image
    assert image.metadata is not None and image.metadata.frames is not None
    return image.metadata.frames


def draw_frames(count: int) -> list[Image.Image]:
    """Draw different scenes."""
    return [draw_scene(seed, (96, 72)) for seed in range(count)]


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "AVIF"])
def test_frames_of_an_animation_are_counted_timed_and_digested(format_: str) -> None:
    frames = read_frames(save_frames(draw_frames(5), format_, duration=200))
    assert (frames.count, frames.kind, frames.duration_ms) == (5, "frames", 1000)
    assert len(set(frames.digests)) == 5


def test_digests_are_equal_up_to_a_few_levels_whatever_the_format_and_size() -> None:
    drawn = draw_frames(4)
    half = [frame.resize((48, 36)) for frame in drawn]
    expected = [parse_digest(digest) for digest in read_frames(save_frames(drawn, "PNG")).digests]
    for data in (save_frames(drawn, "GIF"), save_frames(half, "WEBP", quality=70)):
        for digest, levels in zip(read_frames(data).digests, expected, strict=True):
            found = parse_digest(digest)
            assert found is not None and levels is not None
            assert (found - levels).std() < 4


def test_pages_of_a_document_are_counted_and_digested() -> None:
    frames = read_frames(save_frames(draw_frames(3), "TIFF"))
    assert (frames.count, frames.kind, frames.duration_ms) == (3, "pages", None)
    assert len(set(frames.digests)) == 3


def test_previews_in_a_tiff_are_no_pages() -> None:
    photo = draw_scene(1, (320, 240))
    pyramid = [photo, photo.resize((160, 120)), photo.resize((80, 60))]
    frames = read_frames(save_frames(pyramid, "TIFF"))
    assert (frames.count, frames.kind, len(frames.digests)) == (1, None, 1)
    with_page = read_frames(save_frames([*pyramid, draw_scene(2, (100, 80))], "TIFF"))
    assert (with_page.count, with_page.kind, len(with_page.digests)) == (2, "pages", 2)


def test_second_eye_of_an_mpo_is_counted_alone() -> None:
    frames = read_frames(save_frames(draw_frames(2), "MPO"))
    assert (frames.count, frames.kind, len(frames.digests)) == (2, None, 1)


def test_further_images_of_a_heic_are_counted_alone() -> None:
    load_format_plugins()
    frames = read_frames(save_frames(draw_frames(3), "HEIF", quality=60))
    assert (frames.count, frames.kind, len(frames.digests)) == (3, "pages", 1)


def test_still_has_one_digest_whatever_the_preprocessing() -> None:
    file = io.BytesIO()
    draw_scene(1, (320, 240)).save(file, "PNG")
    digests = set[str]()
    for preprocess in (INPUT, VERIFY_INPUT, Preprocess(64, "shortest")):
        frames = read_frames(file.getvalue(), preprocess)
        assert (frames.count, frames.kind) == (1, None)
        digests.update(frames.digests)
    levels = [parse_digest(digest) for digest in digests]
    assert all(np.abs(found - levels[0]).max() <= 8 for found in levels)  # type: ignore[operator]


def test_first_frame_with_features_stands_for_an_animation() -> None:
    drawn = [Image.new("RGB", (96, 72), "black"), *draw_frames(2)]
    for preprocess in (INPUT, VERIFY_INPUT):
        image, pixels, _ = decode_image(save_frames(drawn, "PNG"), DIGEST, preprocess)
        expected, _ = preprocess_alone(drawn[1], preprocess)
        assert not image.is_featureless
        np.testing.assert_array_equal(pixels, expected)


def preprocess_alone(frame: Image.Image, preprocess: Preprocess) -> tuple[np.ndarray, bool]:
    """Decode a frame that is a file of its own."""
    file = io.BytesIO()
    frame.save(file, "PNG")
    image, pixels, _ = decode_image(file.getvalue(), DIGEST, preprocess)
    return pixels, image.is_featureless


def test_digests_of_many_frames_are_evenly_placed_and_bounded() -> None:
    assert place_digests(3) == [0, 1, 2]
    for count in (MAX_FRAME_DIGESTS + 1, 500, MAX_DECODED_FRAMES, 10_000):
        positions = place_digests(count)
        assert len(positions) == MAX_FRAME_DIGESTS == len(set(positions))
        assert positions[0] == 0 and positions[-1] == min(count, MAX_DECODED_FRAMES) - 1


def test_ten_thousand_frames_take_little_time() -> None:
    frames = [Image.new("P", (40, 30), color=index % 200) for index in range(10_000)]
    for index, frame in enumerate(frames):
        ImageDraw.Draw(frame).line((index % 40, 0, 20, 29), fill=255)
    data = save_frames(frames, "GIF", duration=20, optimize=False)
    found = read_frames(data)
    assert found.count == 10_000 and len(found.digests) == MAX_FRAME_DIGESTS
    assert found.duration_ms is None  # not all of them were decoded


def test_broken_frames_are_not_counted_and_broken_pages_have_no_digest() -> None:
    drawn = draw_frames(6)
    png = save_frames(drawn, "PNG")
    assert read_frames(png[: len(png) * 2 // 3]).count < 6
    tiff = bytearray(save_frames(drawn, "TIFF", compression="tiff_deflate"))
    pages = read_frames(bytes(tiff))
    broken_at = len(tiff) * 9 // 10
    tiff[broken_at : broken_at + 40] = bytes(40)
    broken = read_frames(bytes(tiff))
    assert broken.count <= pages.count and broken.digests[0] == pages.digests[0]


@pytest.mark.parametrize("seed", range(40))
def test_damaged_animation_is_decoded_or_rejected(seed: int) -> None:
    from pipeline.decode.read import Rejected

    rng = np.random.default_rng(seed)
    format_ = ("GIF", "WEBP", "PNG", "TIFF")[seed % 4]
    data = bytearray(save_frames(draw_frames(3), format_))
    for position in rng.integers(20, len(data), 6):
        data[position] = rng.integers(256)
    try:
        read_frames(bytes(data))
    except Rejected:
        pass


@pytest.mark.parametrize("text", ["", "AAA", "A" * 63 + "!", "\u00e9" * 64])
def test_text_that_is_no_digest_is_none(text: str) -> None:
    assert parse_digest(text) is None


def test_digest_has_the_gray_levels_of_the_image() -> None:
    rgb = np.zeros((30, 50, 3), np.uint8)
    rgb[15:] = 200
    levels = parse_digest(make_digest(rgb, 8))
    assert levels is not None
    assert np.abs(levels[:3]).max() <= 4 and np.abs(levels[5:] - 200).max() <= 4

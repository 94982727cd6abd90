"""Compare animations and documents by the digests of their frames."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from PIL import Image, ImageDraw, ImageEnhance

from indexes.metadata import Frames
from pipeline.decode.image import decode_image
from pipeline.decode.preprocess import Preprocess
from pipeline.grouping.frames import Sharing, compare_frames, have_same_changes, relate_frames
from pipeline.verify.relation import Relation
from tests.support.images import draw_scene

SCENES = [draw_scene(seed, (160, 120)) for seed in range(8)]
PAGE_LINES = 40


def read_frames(images: Sequence[Image.Image], format_: str, **options: object) -> Frames:
    """Save images as the frames of one file, and return what its decoder says of them."""
    file = io.BytesIO()
    save_all = {"save_all": True, "append_images": images[1:]} if len(images) > 1 else {}
    images[0].save(file, format_, **save_all, **options)
    image = decode_image(file.getvalue(), b"0" * 32, Preprocess(64)).image
    assert image.metadata and image.metadata.frames
    return image.metadata.frames


def draw_page(seed: int) -> Image.Image:
    """Draw a page of text that differs from other pages in its words alone."""
    page = Image.new("L", (640, 830), "white")
    for line in range(PAGE_LINES):
        words = "".join(
            "abcdefghij klm"[(seed * 37 + line * 11 + k * k * (seed + 3)) % 14] for k in range(90)
        )
        ImageDraw.Draw(page).text((40, 30 + line * 19), words, fill="black")
    return page


@pytest.mark.parametrize("format_", ["WEBP", "PNG", "AVIF", "TIFF"])
def test_one_animation_in_two_formats_has_the_same_frames(format_: str) -> None:
    small = [scene.resize((80, 60)) for scene in SCENES]
    assert compare_frames(read_frames(SCENES, "GIF"), read_frames(small, format_)) is Sharing.ALL


def test_other_endings_other_orders_and_parts_are_told_apart() -> None:
    whole = read_frames(SCENES[:6], "PNG")
    other_ending = read_frames([*SCENES[:5], SCENES[7]], "WEBP")
    reversed_frames = read_frames(SCENES[:6][::-1], "GIF")
    beginning = read_frames(SCENES[:3], "GIF")
    every_other = read_frames(SCENES[:6:2], "WEBP")
    assert compare_frames(whole, other_ending) is Sharing.SOME
    assert compare_frames(whole, reversed_frames) is Sharing.SOME
    assert compare_frames(whole, read_frames(SCENES[6:8], "GIF")) is Sharing.NONE_KNOWN
    for part in (beginning, every_other, read_frames(SCENES[4:5], "JPEG")):
        assert compare_frames(part, whole) is Sharing.FIRST_IN_SECOND
        assert compare_frames(whole, part) is Sharing.SECOND_IN_FIRST


def test_repeated_frames_that_a_program_merged_make_no_difference() -> None:
    repeated = [SCENES[0], SCENES[0], SCENES[1], SCENES[2], SCENES[2], SCENES[2]]
    merged = read_frames(SCENES[:3], "GIF")
    file = read_frames(repeated, "AVIF")
    assert (file.count, merged.count) == (6, 3)
    assert compare_frames(merged, file) is Sharing.ALL


def test_documents_with_one_cover_have_other_pages() -> None:
    pages = [draw_page(seed) for seed in range(4)]
    cover = SCENES[0].convert("L").resize((640, 830))
    first = read_frames([cover, *pages[:3]], "TIFF")
    second = read_frames([cover, pages[0], pages[3]], "TIFF")
    assert compare_frames(first, second) is Sharing.SOME
    shorter = read_frames([cover, *pages[:2]], "TIFF", compression="jpeg", quality=60)
    assert compare_frames(shorter, first) is Sharing.FIRST_IN_SECOND
    assert compare_frames(read_frames([pages[1]], "JPEG"), first) is Sharing.FIRST_IN_SECOND
    assert compare_frames(read_frames([pages[3]], "JPEG"), first) is Sharing.NONE_KNOWN


def test_long_animations_are_compared_at_the_same_positions() -> None:
    frames = [SCENES[index // 20] for index in range(120)]
    long = read_frames(frames, "AVIF", speed=10)
    assert len(long.digests) < long.count == 120
    assert compare_frames(long, read_frames(frames, "AVIF", speed=10, quality=40)) is Sharing.ALL
    cut = read_frames([*frames[:110], *[SCENES[7]] * 10], "AVIF", speed=10)
    assert compare_frames(long, cut) is Sharing.SOME


def test_edited_animation_changes_like_the_original_and_others_do_not() -> None:
    whole = read_frames(SCENES[:5], "PNG")
    for edited_scenes in (
        [ImageEnhance.Brightness(scene).enhance(0.7) for scene in SCENES[:5]],
        [ImageEnhance.Contrast(scene).enhance(0.7) for scene in SCENES[:5]],
        [paste_watermark(scene) for scene in SCENES[:5]],
    ):
        edited = read_frames(edited_scenes, "WEBP", quality=90)
        assert have_same_changes(whole, edited) and have_same_changes(edited, whole)
        assert relate_frames(Relation.DERIVED, whole, edited) == Relation.DERIVED
        assert relate_frames(Relation.UNRELATED, whole, edited) != Relation.DERIVED
    for others in (SCENES[:5][::-1], [*SCENES[:4], SCENES[6]], SCENES[:4], SCENES[1:6]):
        other = read_frames(others, "WEBP", quality=90)
        assert not have_same_changes(whole, other) and not have_same_changes(other, whole)
        assert relate_frames(Relation.DERIVED, whole, other) != Relation.DERIVED


def paste_watermark(scene: Image.Image) -> Image.Image:
    """Write a mark into the corner of an image, half transparent."""
    mark = Image.new("RGB", scene.size, "white")
    mask = Image.new("L", scene.size, 0)
    ImageDraw.Draw(mask).rectangle((100, 95, 155, 110), fill=90)
    return Image.composite(mark, scene, mask)


def test_blank_still_is_no_frame() -> None:
    blank = Image.new("RGB", (160, 120), "black")
    fade = read_frames([blank, *SCENES[:2]], "PNG")
    assert compare_frames(read_frames([blank], "PNG"), fade) is Sharing.NONE_KNOWN


@pytest.mark.parametrize("digests", [(), ("",), ("x",), ("A" * 255,), ("!" * 64,), ("A" * 9,) * 3])
def test_digests_of_any_length_are_compared(digests: tuple[str, ...]) -> None:
    whole = read_frames(SCENES[:3], "PNG")
    for kind in (None, "frames", "pages", "?"):
        hostile = Frames(3, kind, None, digests)
        assert compare_frames(hostile, whole) is Sharing.NONE_KNOWN
        assert compare_frames(whole, hostile) is Sharing.NONE_KNOWN


def test_relation_of_animations_is_that_of_all_their_frames() -> None:
    whole, copy = read_frames(SCENES[:6], "PNG"), read_frames(SCENES[:6], "WEBP")
    part, other = read_frames(SCENES[:3], "GIF"), read_frames([*SCENES[:5], SCENES[7]], "GIF")
    poster, stranger = read_frames(SCENES[4:5], "JPEG"), read_frames(SCENES[7:8], "JPEG")
    same, unrelated = Relation.SAME_PICTURE, Relation.UNRELATED
    for first, second, verdict, expected in (
        (whole, copy, same, same),
        (whole, copy, unrelated, unrelated),
        (part, whole, same, Relation.FRAME_OF),
        (other, whole, same, Relation.OVERLAPS),
        (other, whole, unrelated, Relation.OVERLAPS),
        (poster, whole, unrelated, Relation.FRAME_OF),
        (stranger, whole, same, Relation.FRAME_OF),  # an edited copy of the frame that is shown
        (stranger, whole, unrelated, unrelated),
        (stranger, poster, same, same),
        (read_frames(SCENES[:2], "TIFF"), poster, same, Relation.PAGE_OF),
        (None, whole, same, same),
    ):
        assert relate_frames(verdict, first, second) == expected
        assert relate_frames(verdict, second, first) == expected

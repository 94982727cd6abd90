"""The evidence of a pair: which side is altered, whether things moved, tones and noise."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from pipeline.verify.alignment import align_and_compare
from pipeline.verify.evidence import Evidence
from pipeline.verify.matching import propose_alignments
from pipeline.verify.relation import Side
from pipeline.verify.verify import verify
from tests.support.images import draw_textured_image
from tests.support.verification import PHOTO, extract

BOX = (150, 90, 270, 190)


def measure(first: Image.Image, second: Image.Image) -> Evidence:
    images = extract(first), extract(second)
    aligned = align_and_compare(next(iter(propose_alignments(*images))), *images)
    assert aligned is not None
    assert aligned.is_judged
    return aligned.measure_evidence()


def cover(photo: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    covered = photo.copy()
    draw = ImageDraw.Draw(covered)
    draw.rectangle(box, fill="white", outline="black", width=4)
    draw.line(box, fill="red", width=6)
    return covered


def test_clean_copy_has_no_changed_area() -> None:
    areas = measure(PHOTO, PHOTO.resize((400, 267))).areas
    assert (areas.changed, areas.areas, areas.seams_more) == (0.0, 0.0, 0.0)


def test_sticker_lies_on_one_side_alone() -> None:
    areas = measure(PHOTO, cover(PHOTO, BOX)).areas
    share = (BOX[2] - BOX[0]) * (BOX[3] - BOX[1]) / (PHOTO.width * PHOTO.height)
    assert share < areas.changed < share + 0.05  # the window of a local NCC reaches over its edges
    assert areas.area_fill > 0.7
    assert areas.one_sided > 0.2
    assert areas.photographic_less < 0.5 < areas.photographic_more
    assert areas.minority_areas == 0.0


def write_number(photo: Image.Image, number: str) -> Image.Image:
    """Write digits on a white panel, as a ticket has them."""
    page = photo.copy()
    draw = ImageDraw.Draw(page)
    draw.rectangle(BOX, fill="white")
    draw.text((BOX[0] + 8, BOX[1] + 20), number, fill="black", font=ImageFont.load_default(52))
    return page


def test_two_texts_are_hard_on_both_sides() -> None:
    smooth = PHOTO.filter(ImageFilter.GaussianBlur(2))
    first, second = write_number(smooth, "4711"), write_number(smooth, "2305")
    texts, caption = measure(first, second).areas, measure(smooth, first).areas
    assert texts.both_hard > 0.15
    assert caption.both_hard < 0.05
    pasted = smooth.copy()
    pasted.paste(draw_textured_image(7).crop(BOX), BOX[:2])
    assert measure(smooth, pasted).areas.palette_more < 0.7 < caption.palette_more


def test_thing_that_moved_has_edges_on_both_sides() -> None:
    smooth = draw_textured_image(7).filter(ImageFilter.GaussianBlur(2))
    first, second = cover(smooth, (40, 60, 140, 160)), cover(smooth, (300, 60, 400, 160))
    moved = measure(first, second).areas
    assert moved.minority_areas > 0.3
    assert moved.minority_seam > 0.3
    assert moved.one_sided < measure(smooth, second).areas.one_sided


def test_blurred_area_agrees_at_low_frequencies() -> None:
    blurred = PHOTO.copy()
    blurred.paste(PHOTO.crop(BOX).filter(ImageFilter.GaussianBlur(6)), BOX[:2])
    evidence = measure(PHOTO, blurred)
    assert evidence.areas.smoothed > 0.8
    assert evidence.areas.low_pass_ncc > 0.8
    for first, second, side in ((PHOTO, blurred, Side.SECOND), (blurred, PHOTO, Side.FIRST)):
        edits = verify(extract(first), extract(second)).edits
        assert edits and edits.derived_side is side
    assert measure(PHOTO, cover(PHOTO, BOX)).areas.smoothed < 0.2


def test_lettering_alters_the_image_that_it_lies_on() -> None:
    lettered = PHOTO.copy()
    font = ImageFont.load_default(48)
    ImageDraw.Draw(lettered).text((160, 130), "SOLD OUT", fill="red", font=font)
    assert measure(PHOTO, lettered).areas.smoothed > 0.8
    for first, second, side in ((PHOTO, lettered, Side.SECOND), (lettered, PHOTO, Side.FIRST)):
        edits = verify(extract(first), extract(second)).edits
        assert edits and edits.derived_side is side


def test_two_exposures_lose_other_tones() -> None:
    levels = np.asarray(PHOTO.convert("L"), np.float64)
    levels = (levels - levels.min()) / np.ptp(levels)
    dark, bright = (
        Image.fromarray(np.clip(255 * (levels * gain - offset), 0, 255).astype(np.uint8))
        for gain, offset in ((1.6, 0.55), (1.6, 0.05))
    )
    brackets = measure(dark.convert("RGB"), bright.convert("RGB")).tones
    assert brackets.lost_less > 0.01
    # An edit clips one end, and has nothing that the other lacks.
    original = Image.fromarray((50 + 150 * levels).astype(np.uint8)).convert("RGB")
    edited = measure(original, bright.convert("RGB")).tones
    assert edited.lost_less == 0.0 < edited.lost_more


def test_copy_shares_the_noise_of_its_own_shot() -> None:
    scene = np.asarray(PHOTO.filter(ImageFilter.GaussianBlur(3)), np.float64)
    shots = [
        Image.fromarray(
            np.clip(scene + np.random.default_rng(seed).normal(0, 5, scene.shape), 0, 255).astype(
                np.uint8
            )
        )
        for seed in (1, 2)
    ]
    copy = shots[0].point([min(255, level + 12) for level in range(256)] * 3)
    own, other = (measure(copy, shot).agreement.noise_ncc for shot in shots)
    assert own > 0.8
    assert other < 0.2

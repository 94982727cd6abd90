"""What two pictures are to each other, by their pixels: copies of every kind, other shots, frames that strangers share."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from pipeline.calibrate.synthetic_copies import EVERYDAY_EDITS, HARD_EDITS, reencode
from pipeline.verify.features import (
    ImageFeatures,
    estimate_noise,
    extract_features,
    features_from_pixels,
)
from pipeline.verify.matching import propose_alignments
from pipeline.verify.relation import Relation, Side
from pipeline.verify.residual import compute_residual
from pipeline.verify.verdict import Edits, Verdict
from pipeline.verify.verify import verify
from tests.support.images import draw_scene, draw_textured_image

COPIED = {Relation.SAME_PICTURE, Relation.DERIVED}


def drawn(picture: Image.Image) -> ImageFeatures:
    small = picture.convert("RGB")
    small.thumbnail((448, 448), Image.Resampling.BICUBIC)
    return features_from_pixels(np.asarray(small), picture.size)


def copied(one: Image.Image, other: Image.Image) -> Edits:
    evidence = verify(drawn(one), drawn(other))
    assert evidence.relation in COPIED, evidence
    assert evidence.edits is not None
    return evidence.edits


PHOTO, OTHER = draw_textured_image(1), draw_textured_image(2)


@pytest.mark.parametrize("kind", EVERYDAY_EDITS)
def test_what_people_do_to_photos_every_day_is_a_copy(kind: str) -> None:
    made = [draw_textured_image(seed) for seed in (3, 4, 5)]
    found = [
        verify(drawn(one), drawn(EVERYDAY_EDITS[kind](one, OTHER, random.Random(kind)))).relation
        for one in made
    ]
    assert sum(relation in COPIED for relation in found) >= (
        3 if kind != "watermark" else 1
    )  # it covers a third of these small ones


@pytest.mark.parametrize("kind", HARD_EDITS)
def test_what_is_done_to_hide_a_photo_is_mostly_a_copy(kind: str) -> None:
    made = [
        (draw_scene if kind == "posterised" else draw_textured_image)(seed) for seed in (3, 4, 5)
    ]  # of noise, posterising leaves nothing
    found = [
        verify(drawn(one), drawn(HARD_EDITS[kind](one, OTHER, random.Random(kind)))).relation
        for one in made
    ]
    assert sum(relation in COPIED for relation in found) >= 2


@pytest.mark.parametrize("kind", EVERYDAY_EDITS | HARD_EDITS)
def test_two_photos_to_which_the_same_was_done_are_no_copies(kind: str) -> None:
    edit = (EVERYDAY_EDITS | HARD_EDITS)[kind]
    one, other = (
        drawn(edit(draw_textured_image(seed), draw_textured_image(10 * seed), random.Random(7)))
        for seed in (3, 4)
    )
    assert verify(one, other).relation not in COPIED


def test_the_same_picture_is_the_same_in_all_ways() -> None:
    evidence = verify(drawn(PHOTO), drawn(PHOTO.resize((960, 640))))
    assert evidence.relation == Relation.SAME_PICTURE
    assert (evidence.agreeing_share, evidence.displaced_share) == (1.0, 0.0)
    assert np.allclose(np.array(evidence.homography).reshape(3, 3), np.eye(3), atol=2e-3)
    assert evidence.edits is not None
    assert evidence.edits.derived_side is None
    assert evidence.as_dict()["edits"]["overlap"] == (1.0, 1.0)


@pytest.mark.parametrize("turn", list(Image.Transpose))
def test_a_turned_picture_is_told_by_its_turn(turn: Image.Transpose) -> None:
    found = copied(PHOTO, PHOTO.transpose(turn))
    again = ImageOps.mirror(PHOTO) if found.mirrored else PHOTO
    clockwise = {
        0: again,
        90: again.transpose(Image.Transpose.ROTATE_270),
        180: again.transpose(Image.Transpose.ROTATE_180),
    }
    clockwise[270] = again.transpose(Image.Transpose.ROTATE_90)
    assert clockwise[found.quarter_turn_deg].tobytes() == PHOTO.transpose(turn).tobytes()
    assert found.overlap == (1.0, 1.0)


def test_a_crop_is_told_by_what_it_shows() -> None:
    box = (96, 40, 416, 280)
    first, second = drawn(PHOTO), drawn(PHOTO.crop(box))
    evidence = verify(first, second)
    assert evidence.relation == Relation.DERIVED
    assert evidence.edits is not None
    assert (evidence.edits.derived_side, evidence.edits.embedded_side) == (Side.SECOND, None)
    assert evidence.edits.overlap == pytest.approx((0.5, 1.0), abs=0.02)
    corner = np.array(evidence.homography).reshape(3, 3) @ [96 / 480, 40 / 320, 1.0]
    assert np.allclose(corner[:2] / corner[2], 0.0, atol=5e-3)
    back = verify(second, first)
    assert back.edits is not None
    assert (back.edits.derived_side, back.edits.overlap[0]) == (Side.FIRST, 1.0)


@pytest.mark.parametrize("kind", ["crop 40 %", "crop 80 %", "border", "screenshot"])
def test_what_was_only_cropped_or_framed_has_its_tones(kind: str) -> None:
    """Also where there is a bright margin around it, and most of what it shows is small."""
    for seed in range(6):
        small = (
            Image.fromarray(np.random.default_rng(seed).integers(0, 256, (54, 80), np.uint8))
            .resize((480, 320))
            .convert("RGB")
        )
        picture = ImageOps.expand(Image.blend(draw_textured_image(seed), small, 0.6), 24, "white")
        assert not copied(
            picture, (EVERYDAY_EDITS | HARD_EDITS)[kind](picture, OTHER, random.Random(seed))
        ).recolored
        lighter = ImageEnhance.Brightness(picture).enhance(0.75)
        assert copied(
            picture, (EVERYDAY_EDITS | HARD_EDITS)[kind](lighter, OTHER, random.Random(seed))
        ).recolored


def test_a_rotated_picture_is_told_by_its_angle() -> None:
    found = copied(PHOTO, PHOTO.rotate(-12, Image.Resampling.BICUBIC, expand=True))
    assert (found.mirrored, found.quarter_turn_deg) == (False, 0)
    assert found.rotation_deg == pytest.approx(12, abs=0.3)


@pytest.mark.parametrize(
    ("kind", "plain"),
    [("border", True), ("meme", True), ("screenshot", True), ("laid over another", False)],
)
def test_a_picture_in_a_picture_is_told_from_one_that_was_cut_out(kind: str, plain: bool) -> None:
    found = copied(PHOTO, (EVERYDAY_EDITS | HARD_EDITS)[kind](PHOTO, OTHER, random.Random(1)))
    assert (found.embedded_side, found.plain_background, found.derived_side) == (
        Side.FIRST,
        plain,
        Side.SECOND,
    )
    back = copied((EVERYDAY_EDITS | HARD_EDITS)[kind](PHOTO, OTHER, random.Random(1)), PHOTO)
    assert (back.embedded_side, back.derived_side) == (Side.SECOND, Side.FIRST)


def night(size: tuple[int, int]) -> Image.Image:
    """A photo that is black all along its edges."""
    dark = Image.new("L", size, 0)
    dark.paste(255, (60, 60, size[0] - 60, size[1] - 60))
    return Image.composite(
        draw_textured_image(7, size),
        Image.new("RGB", size),
        dark.filter(ImageFilter.GaussianBlur(12)),
    )


def test_a_margin_that_a_picture_runs_into_is_bare_where_nothing_else_is_in_it() -> None:
    """Whether it was added or cut off, nobody can tell."""
    picture = night((480, 320))
    screen = Image.new("RGB", (480, 800))
    screen.paste(picture, (0, 200))
    ImageDraw.Draw(screen).text((20, 20), "12:30", fill="white", font_size=20)
    found = copied(picture, screen)
    assert (found.embedded_side, found.derived_side, found.plain_background) == (None, None, True)
    assert "on a plain ground" in found.describe()
    screen.paste(
        night((480, 320)).resize((300, 200)), (90, 560)
    )  # another thing on the same ground, which a cut would lose
    assert not copied(picture, screen).plain_background


def test_tones_are_told() -> None:
    assert copied(PHOTO, ImageOps.grayscale(PHOTO)).grayscale_side == Side.SECOND
    assert copied(ImageOps.grayscale(PHOTO), PHOTO).derived_side == Side.FIRST
    assert copied(PHOTO, ImageEnhance.Brightness(PHOTO).enhance(0.7)).recolored
    assert not copied(PHOTO, PHOTO.resize((240, 160))).recolored


def test_what_lies_on_a_picture_is_told_by_its_place() -> None:
    covered = PHOTO.copy()
    ImageDraw.Draw(covered).ellipse((300, 60, 420, 180), fill=(250, 210, 60))
    (box,) = copied(PHOTO, covered).changed_regions
    assert np.allclose(box, (300 / 480, 60 / 320, 420 / 480, 180 / 320), atol=0.08)


def test_a_soft_copy_agrees_with_its_sharp_original() -> None:
    evidence = verify(drawn(PHOTO), drawn(PHOTO.filter(ImageFilter.GaussianBlur(4))))
    assert evidence.relation == Relation.SAME_PICTURE
    assert evidence.agreeing_share > 0.95


def shot(offset: int) -> Image.Image:
    """A scene with a near part and a far one, from a place further to the side."""
    far, near = draw_textured_image(8, (700, 320)), draw_textured_image(9, (900, 320))
    done = far.crop((100 + offset, 0, 580 + offset, 320))
    mask = Image.new("L", done.size, 0)
    for left in range(20, 480, 120):
        ImageDraw.Draw(mask).ellipse((left - 3 * offset, 90, left + 70 - 3 * offset, 300), fill=255)
    done.paste(near.crop((100 + 3 * offset, 0, 580 + 3 * offset, 320)), (0, 0), mask)
    return done


def test_another_shot_of_a_scene_is_no_copy() -> None:
    assert verify(drawn(shot(0)), drawn(shot(4))).relation == Relation.SAME_SCENE


def seen_aside(place: Image.Image, left: float, lean: float) -> Image.Image:
    """What a camera sees of a place that turns to the right: two thirds of its width from `left` on, the far side smaller."""
    width, height = place.size
    right, off = left + width * 2 / 3, lean * height
    corners = [(left, off), (left, height - off), (right, height), (right, 0.0)]
    flat = [number for corner in corners for number in corner]
    return place.transform((480, 480), Image.Transform.QUAD, flat, Image.Resampling.BICUBIC)


def test_two_views_that_agree_are_one_scene_and_no_copies() -> None:
    """A camera that turns about itself sees what one transform takes home, to the last pixel; but nobody makes such a copy."""
    place = draw_textured_image(5, (960, 640))
    straight, aside = (
        place.crop((0, 0, 640, 640)).resize((480, 480)),
        seen_aside(place, 300.0, 0.08),
    )
    evidence = verify(drawn(straight), drawn(aside))
    assert (evidence.relation, evidence.edits) == (Relation.SAME_SCENE, None)
    assert evidence.agreeing_share > 0.9  # or this would show nothing
    leaning = seen_aside(place, 0.0, 0.0).transform(
        (480, 480),
        Image.Transform.QUAD,
        (40, 10, 10, 460, 470, 440, 440, 30),
        Image.Resampling.BICUBIC,
    )
    assert copied(straight, leaning).anisotropic
    part = place.crop((300, 0, 940, 640)).resize((480, 480))
    assert not copied(straight, part).anisotropic  # two crops of one photo have its angles


def beside(one: Image.Image, other: Image.Image) -> Image.Image:
    """Two pictures side by side, each cut to fill its half."""
    done = Image.new("RGB", (1000, 340), "white")
    for number, picture in enumerate((one, other)):
        done.paste(ImageOps.fit(picture, (470, 340)), (530 * number, 0))
    return done


def test_what_was_cut_to_fit_beside_another_is_inside_it() -> None:
    """Though neither shows all of the other."""
    one, other = draw_textured_image(3, (470, 400)), draw_textured_image(4, (470, 400))
    both = beside(one, other)
    for picture in (one, other):
        changes = copied(picture, both)
        assert max(changes.overlap) < 0.97
        assert (changes.embedded_side, changes.derived_side) == (Side.FIRST, Side.SECOND)
        assert "partly inside another picture" in changes.describe()
        assert "partly cut out of it" in copied(both, picture).describe()
    whole = draw_textured_image(6, (960, 640))
    left, right = whole.crop((0, 0, 640, 640)), whole.crop((320, 0, 960, 640))
    assert (copied(left, right).embedded_side, copied(left, right).derived_side) == (None, None)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.6])
def test_two_collages_with_a_half_in_common_are_no_copies(share: float, stacked: bool) -> None:
    def made(other: Image.Image) -> Image.Image:
        done = Image.new("RGB", (400, 800) if stacked else (800, 400))
        edge = round(800 * share)
        done.paste(
            ImageOps.fit(draw_textured_image(3), (400, edge) if stacked else (edge, 400)), (0, 0)
        )
        done.paste(
            ImageOps.fit(other, (400, 800 - edge) if stacked else (800 - edge, 400)),
            (0, edge) if stacked else (edge, 0),
        )
        return done

    assert (
        verify(drawn(made(draw_textured_image(4))), drawn(made(draw_textured_image(5)))).relation
        not in COPIED
    )


def test_other_pictures_are_unrelated() -> None:
    assert verify(drawn(PHOTO), drawn(OTHER)).relation == Relation.UNRELATED


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("RGB", (300, 200), "white"),
        Image.linear_gradient("L"),
        Image.new("RGB", (1, 448), "red"),
        draw_textured_image(6).resize((16, 12)),
        draw_textured_image(6).resize((448, 1)),
    ],
    ids=["blank", "graded", "a strip", "tiny", "a line"],
)
def test_what_shows_too_little_is_not_verified(picture: Image.Image) -> None:
    for one, other in ((picture, picture), (picture, PHOTO), (PHOTO, picture)):
        assert verify(drawn(one), drawn(other)).relation == Relation.NOT_VERIFIABLE


@pytest.mark.parametrize("level", [0, 5, 20, 40])
def test_noise_is_measured(level: int) -> None:
    smooth = np.asarray(
        draw_textured_image(8)
        .resize((24, 16))
        .resize((448, 300), Image.Resampling.BICUBIC)
        .convert("L"),
        np.float64,
    )
    grains = np.random.default_rng(0).normal(0, level, smooth.shape)
    assert estimate_noise(
        (smooth * 0.3 + 90 + grains).clip(0, 255).astype(np.uint8)
    ) == pytest.approx(level, abs=max(1, 0.1 * level))


def test_what_is_drowned_in_noise_is_not_taken_for_a_spot() -> None:
    for seed in (2, 3):
        faint = ImageEnhance.Contrast(draw_textured_image(seed)).enhance(0.6)
        noisy = HARD_EDITS["noise"](faint, OTHER, random.Random(seed))
        assert verify(drawn(faint), drawn(noisy)).relation == Relation.SAME_PICTURE
        assert verify(drawn(draw_textured_image(seed + 50)), drawn(noisy)).relation not in COPIED


def test_what_shows_nothing_agrees_with_nothing() -> None:
    """Of a tile without any variance, rounding alone would say how it agrees, and say so loudly."""
    one = features_from_pixels(np.asarray(PHOTO.resize((448, 300))), PHOTO.size)
    flat = np.full_like(one.gray, 250)
    flat[:48, :48] = one.gray[:48, :48]
    found = compute_residual(one.gray, flat, np.eye(3), 0.0)
    assert found is not None
    assert np.abs(found.ncc).max() <= 1.0
    assert found.ncc[found.valid].max() > 0.99
    assert (found.ncc[3:, 3:] < 0.5).all()
    assert not found.textured_in_both[3:, 3:].any()


def test_a_border_spoils_no_tile() -> None:
    """What lies beyond an outline is blurred into the tiles next to it, in one picture and not in the other."""
    for seed in range(6):
        soft = ImageEnhance.Contrast(
            draw_textured_image(seed, (240, 168)).filter(ImageFilter.GaussianBlur(3))
        ).enhance(0.5)
        bordered = ImageOps.expand(soft, 12, "white")
        evidence = verify(drawn(soft), drawn(bordered))
        assert evidence.relation in COPIED
        assert evidence.agreeing_share == 1.0, evidence


def test_a_picture_that_is_like_its_mirror_is_found_mirrored() -> None:
    """Enough of it agrees upright to stop there, if that made a copy."""
    shown = np.asarray(draw_textured_image(1, (448, 300))).astype(np.float32) * 0.6 + 50
    rng = np.random.default_rng(0)
    for x, y in zip(rng.integers(20, 215, 70), rng.integers(20, 280, 70), strict=True):
        level = rng.choice([0.0, 255.0])
        for place in (x, 447 - x):
            shown[y - 3 : y + 4, place - 3 : place + 4] = level
    picture = Image.fromarray(shown.astype(np.uint8))
    one, other = drawn(picture), drawn(ImageOps.mirror(picture))
    ways = list(propose_alignments(one, other))
    assert [np.linalg.det(way.homography) > 0 for way in ways] == [True, False]
    changes = copied(picture, ImageOps.mirror(picture))
    assert changes.mirrored


def test_two_photos_in_one_frame_that_show_little_are_no_copies() -> None:
    """The frame agrees, on more than half of the tiles; but where something else is shown, both show something."""

    def framed(seed: int) -> Image.Image:
        screen = draw_textured_image(50, (224, 448))
        screen.paste(draw_textured_image(seed, (224, 190)), (0, 130))
        return screen

    for seed in range(1, 9):
        evidence = verify(drawn(framed(seed)), drawn(framed(seed + 20)))
        assert evidence.relation not in COPIED, evidence
        assert evidence.agreeing_share > 0.5


def form(entries: int) -> Image.Image:
    """A page of ten boxes with the same labels and other entries."""
    page, rng = Image.new("RGB", (1000, 1400), "white"), random.Random(entries)
    draw = ImageDraw.Draw(page)
    draw.text((100, 80), "ACME INSURANCE COMPANY", fill="black", font_size=48)
    for number, label in enumerate(
        ("Name", "Street", "Town", "Born", "Policy", "Since", "Amount", "Bank", "Phone", "Date")
    ):
        top = 220 + 110 * number
        draw.rectangle((100, top, 900, top + 80), outline="black", width=2)
        draw.text((112, top + 22), label, fill="black", font_size=28)
        draw.text(
            (350, top + 18),
            "".join(rng.choice("abcdefghkmnorstuvwxz0123456789 ") for _ in range(24)),
            fill=(20, 20, 120),
            font_size=32,
        )
    return page


def test_two_forms_of_one_layout_are_not_guessed_at() -> None:
    for entries in (1, 2, 3):
        evidence = verify(drawn(form(entries)), drawn(form(entries + 10)))
        assert evidence.relation == Relation.NOT_VERIFIABLE
        assert evidence.agreeing_share > 0.5
    one, other = form(1), form(1)
    ImageDraw.Draw(other).rectangle((350, 338, 600, 372), fill="white")
    ImageDraw.Draw(other).text((350, 338), "9,412.07", fill=(20, 20, 120), font_size=32)
    assert verify(drawn(one), drawn(other)).relation == Relation.NOT_VERIFIABLE


def letter(total: str) -> Image.Image:
    """A page full of small words, and a total."""
    page, rng = Image.new("RGB", (1000, 1400), "white"), random.Random(1)
    draw = ImageDraw.Draw(page)
    for top in range(60, 1340, 28):
        words = (
            "".join(rng.choice("abcdefghilmnoprstu") for _ in range(rng.randint(2, 9)))
            for _ in range(12)
        )
        draw.text(
            (60, top),
            " ".join(words)[:72] + (f"   {total}" if top == 284 else ""),
            fill="black",
            font_size=18,
        )
    return page


@pytest.mark.parametrize("other", ["250,00", "100,80", "170,00"])
def test_a_letter_with_another_total_is_no_copy(other: str) -> None:
    """Its words agree as they do with themselves, and of each tile more than .98."""
    page = drawn(letter("100,00"))
    assert page.is_line_art
    for quality in (95, 60):
        assert verify(page, drawn(reencode(letter("100,00"), "jpeg", quality))).relation in COPIED
        assert (
            verify(page, drawn(reencode(letter(other), "jpeg", quality))).relation
            == Relation.NOT_VERIFIABLE
        )


def test_a_page_that_was_saved_or_scanned_again_is_a_copy() -> None:
    page = form(1)
    grain = np.random.default_rng(1).normal(0, 4, (1120, 800, 1))
    scanned = (
        page.rotate(0.6, Image.Resampling.BICUBIC, fillcolor="white")
        .resize((800, 1120))
        .filter(ImageFilter.GaussianBlur(0.8))
    )
    for again in (
        page.resize((500, 700)),
        Image.fromarray((np.asarray(scanned) + grain).clip(0, 255).astype(np.uint8)),
    ):
        assert verify(drawn(page), drawn(again)).relation in COPIED


def test_photos_are_not_lines() -> None:
    assert drawn(form(1)).is_line_art
    assert drawn(ImageOps.invert(form(1))).is_line_art
    assert not any(drawn(draw_textured_image(seed)).is_line_art for seed in range(20))
    assert not drawn(Image.new("RGB", (400, 300), "grey")).is_line_art


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(EVERYDAY_EDITS | HARD_EDITS)))
def test_either_order_says_the_same(seed: int, kind: str) -> None:
    one = draw_textured_image(seed, (320, 240))
    other = (EVERYDAY_EDITS | HARD_EDITS)[kind](one, OTHER, random.Random(seed))
    there, back = verify(drawn(one), drawn(other)), verify(drawn(other), drawn(one))
    assert there == back.swap_sides() or back == there.swap_sides()


def test_strangers_are_told_apart_without_their_pixels() -> None:
    def unpacked() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        raise AssertionError("a stranger's picture was unpacked")

    strangers = [
        ImageFeatures(unpacked, extract_features(np.asarray(draw_textured_image(seed))), (640, 480))
        for seed in (1, 2, 3)
    ]
    for one, other in combinations(strangers, 2):
        assert verify(one, other).relation == verify(other, one).relation == Relation.UNRELATED


def test_either_order_says_the_same_of_what_features_cannot_tell_apart() -> None:
    flat, dot = Image.new("RGB", (448, 300), "grey"), Image.new("RGB", (448, 300), "grey")
    dot.putpixel((200, 150), (129, 128, 128))
    one, other = drawn(flat), drawn(dot)
    assert extract_features(one.rgb) == extract_features(other.rgb)
    assert (one <= other) != (other <= one)
    assert verify(one, other) == verify(other, one)


def test_an_answer_depends_on_nothing_that_was_asked_before() -> None:
    pairs = [
        (
            drawn(draw_textured_image(seed)),
            drawn(HARD_EDITS["perspective"](draw_textured_image(seed), OTHER, random.Random(seed))),
        )
        for seed in (11, 12)
    ]
    first: list[Verdict] = [verify(*pair) for pair in pairs]
    assert [verify(*pair) for pair in reversed(pairs)] == first[::-1]

"""Relations of pairs: copies of every kind, other shots, collages, pages, unrelated images."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from pipeline.calibrate.synthetic_copies import EVERYDAY_EDITS, HARD_EDITS, reencode
from pipeline.verify import alignment as alignment_module
from pipeline.verify.features import ImageFeatures
from pipeline.verify.homography import Homography
from pipeline.verify.matching import Alignment, propose_alignments
from pipeline.verify.relation import Relation
from pipeline.verify.verify import verify
from tests.support.images import draw_scene, draw_textured_image
from tests.support.pages import draw_form, draw_letter
from tests.support.verification import (
    ALL_EDITS,
    COPIES,
    OTHER_PHOTO,
    PHOTO,
    edit_photo,
    edits_of,
    extract,
    load_photos,
)


@pytest.mark.parametrize("kind", EVERYDAY_EDITS)
def test_everyday_edit_makes_a_copy(kind: str) -> None:
    images = [draw_textured_image(seed) for seed in (3, 4, 5)]
    relations = [
        verify(extract(image), extract(edit_photo(image, kind, kind))).relation for image in images
    ]
    # A watermark covers a third of these small images.
    least = 3 if kind != "watermark" else 1
    assert sum(relation in COPIES for relation in relations) >= least


@pytest.mark.parametrize("kind", HARD_EDITS)
def test_hard_edit_mostly_makes_a_copy(kind: str) -> None:
    # Posterizing leaves nothing of a texture.
    draw = draw_scene if kind == "posterised" else draw_textured_image
    images = [draw(seed) for seed in (3, 4, 5)]
    verdicts = [verify(extract(image), extract(edit_photo(image, kind, kind))) for image in images]
    if kind in ("perspective", "posterised"):
        # The judge is fitted on photos; such drawings are aligned, and stay in doubt.
        assert all(verdict.agreeing_share > 0.8 for verdict in verdicts)
    else:
        assert sum(verdict.relation in COPIES for verdict in verdicts) >= 2


def test_photo_in_perspective_is_a_copy() -> None:
    flower = load_photos()[1]
    for seed in "abc":
        assert (
            verify(extract(flower), extract(edit_photo(flower, "perspective", seed))).relation
            in COPIES
        )


@pytest.mark.parametrize("kind", ALL_EDITS)
def test_same_edit_of_two_images_makes_no_copies(kind: str) -> None:
    edit = ALL_EDITS[kind]
    first, second = (
        extract(edit(draw_textured_image(seed), draw_textured_image(10 * seed), random.Random(7)))
        for seed in (3, 4)
    )
    assert verify(first, second).relation not in COPIES


def test_enlarged_copy_is_the_same_picture_with_identity_homography() -> None:
    verdict = verify(extract(PHOTO), extract(PHOTO.resize((960, 640))))
    assert verdict.relation == Relation.SAME_PICTURE
    assert (verdict.agreeing_share, verdict.displaced_share) == (1.0, 0.0)
    assert np.allclose(np.array(verdict.homography).reshape(3, 3), np.eye(3), atol=2e-3)
    assert verdict.edits is not None
    assert verdict.edits.derived_side is None
    assert verdict.to_dict()["edits"]["overlap"] == (1.0, 1.0)


def draw_shot(offset: int) -> Image.Image:
    """Draw a scene with a near and a far part, from a viewpoint further to the side."""
    far, near = draw_textured_image(8, (700, 320)), draw_textured_image(9, (900, 320))
    shot = far.crop((100 + offset, 0, 580 + offset, 320))
    mask = Image.new("L", shot.size, 0)
    for left in range(20, 480, 120):
        ImageDraw.Draw(mask).ellipse((left - 3 * offset, 90, left + 70 - 3 * offset, 300), fill=255)
    shot.paste(near.crop((100 + 3 * offset, 0, 580 + 3 * offset, 320)), (0, 0), mask)
    return shot


def test_shot_with_parallax_is_another_shot() -> None:
    assert verify(extract(draw_shot(0)), extract(draw_shot(4))).relation == Relation.ANOTHER_SHOT


def draw_oblique_view(wall: Image.Image, left: float, lean: float) -> Image.Image:
    """Draw two thirds of a wall's width from `left` on, its far side smaller by `lean`."""
    width, height = wall.size
    right, inset = left + width * 2 / 3, lean * height
    corners = [(left, inset), (left, height - inset), (right, height), (right, 0.0)]
    coordinates = [coordinate for corner in corners for coordinate in corner]
    return wall.transform((480, 480), Image.Transform.QUAD, coordinates, Image.Resampling.BICUBIC)


def test_two_viewpoints_that_a_homography_aligns_are_two_shots() -> None:
    """A camera that rotates about itself; no edit makes such a copy."""
    wall = draw_textured_image(5, (960, 640))
    straight = wall.crop((0, 0, 640, 640)).resize((480, 480))
    oblique = draw_oblique_view(wall, 300.0, 0.08)
    verdict = verify(extract(straight), extract(oblique))
    assert (verdict.relation, verdict.edits) == (Relation.ANOTHER_SHOT, None)
    assert verdict.agreeing_share > 0.9  # or the pair would be a scene anyway
    leaning = draw_oblique_view(wall, 0.0, 0.0).transform(
        (480, 480),
        Image.Transform.QUAD,
        (40, 10, 10, 460, 470, 440, 440, 30),
        Image.Resampling.BICUBIC,
    )
    assert edits_of(straight, leaning).anisotropic
    crop = wall.crop((300, 0, 940, 640)).resize((480, 480))
    # Two crops of one photo keep its angles, but each has what the other lacks.
    assert verify(extract(straight), extract(crop)).relation == Relation.OVERLAPS


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.6])
def test_collages_with_one_half_in_common_are_no_copies(share: float, stacked: bool) -> None:
    def make_collage(other_half: Image.Image) -> Image.Image:
        edge = round(800 * share)
        if stacked:
            collage = Image.new("RGB", (400, 800))
            collage.paste(ImageOps.fit(draw_textured_image(3), (400, edge)), (0, 0))
            collage.paste(ImageOps.fit(other_half, (400, 800 - edge)), (0, edge))
        else:
            collage = Image.new("RGB", (800, 400))
            collage.paste(ImageOps.fit(draw_textured_image(3), (edge, 400)), (0, 0))
            collage.paste(ImageOps.fit(other_half, (800 - edge, 400)), (edge, 0))
        return collage

    first, second = (extract(make_collage(draw_textured_image(seed))) for seed in (4, 5))
    assert verify(first, second).relation not in COPIES


def test_two_photos_in_one_frame_are_no_copies() -> None:
    """The frame agrees, on more than half of the tiles; both show texture where they differ."""

    def frame_photo(seed: int) -> Image.Image:
        screen = draw_textured_image(50, (224, 448))
        screen.paste(draw_textured_image(seed, (224, 190)), (0, 130))
        return screen

    for seed in range(1, 9):
        verdict = verify(extract(frame_photo(seed)), extract(frame_photo(seed + 20)))
        assert verdict.relation not in COPIES, verdict
        assert verdict.agreeing_share > 0.5


def test_different_images_are_unrelated() -> None:
    assert verify(extract(PHOTO), extract(OTHER_PHOTO)).relation == Relation.UNRELATED


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (300, 200), "white"),
        Image.linear_gradient("L"),
        Image.new("RGB", (1, 448), "red"),
        draw_textured_image(6).resize((16, 12)),
        draw_textured_image(6).resize((448, 1)),
    ],
    ids=["blank", "gradient", "strip", "tiny", "one pixel high"],
)
def test_image_without_enough_texture_is_not_verifiable(image: Image.Image) -> None:
    for first, second in ((image, image), (image, PHOTO), (PHOTO, image)):
        assert verify(extract(first), extract(second)).relation == Relation.NOT_VERIFIABLE


def test_forms_of_one_layout_are_not_verifiable() -> None:
    for seed in (1, 2, 3):
        verdict = verify(extract(draw_form(seed)), extract(draw_form(seed + 10)))
        assert verdict.relation == Relation.NOT_VERIFIABLE
        assert verdict.agreeing_share > 0.5
    form, changed = draw_form(1), draw_form(1)
    ImageDraw.Draw(changed).rectangle((350, 338, 600, 372), fill="white")
    ImageDraw.Draw(changed).text((350, 338), "9,412.07", fill=(20, 20, 120), font_size=32)
    assert verify(extract(form), extract(changed)).relation == Relation.NOT_VERIFIABLE


@pytest.mark.parametrize("other_total", ["250,00", "100,80", "170,00"])
def test_letter_with_another_total_is_no_copy(other_total: str) -> None:
    """Its words agree as in a copy, with an NCC above 0.98 in each tile."""
    letter = draw_letter("100,00")
    features = extract(letter)
    assert features.is_line_art
    for quality in (95, 60):
        copy = reencode(letter, "jpeg", quality)
        changed = reencode(draw_letter(other_total), "jpeg", quality)
        assert verify(features, extract(copy)).relation in COPIES
        assert verify(features, extract(changed)).relation == Relation.NOT_VERIFIABLE


def test_resized_or_scanned_page_is_a_copy() -> None:
    page = draw_form(1)
    resized = page.resize((500, 700))
    noise = np.random.default_rng(1).normal(0, 4, (1120, 800, 1))
    printed = (
        page.rotate(0.6, Image.Resampling.BICUBIC, fillcolor="white")
        .resize((800, 1120))
        .filter(ImageFilter.GaussianBlur(0.8))
    )
    scanned = Image.fromarray((np.asarray(printed) + noise).clip(0, 255).astype(np.uint8))
    for copy in (resized, scanned):
        assert verify(extract(page), extract(copy)).relation in COPIES


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(ALL_EDITS)))
def test_order_of_a_pair_does_not_change_its_verdict(seed: int, kind: str) -> None:
    image = draw_textured_image(seed, (320, 240))
    copy = edit_photo(image, kind, seed)
    forward, backward = verify(extract(image), extract(copy)), verify(extract(copy), extract(image))
    assert forward == backward.swap_sides() or backward == forward.swap_sides()


@pytest.mark.parametrize(
    "homography",
    [
        np.ones((3, 3)),
        np.full((3, 3), np.nan),
        np.diag([np.inf, 1.0, 1.0]),
        np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]),
    ],
    ids=["singular", "not a number", "infinite", "singular affine part"],
)
def test_singular_alignment_does_not_hide_the_next(
    homography: Homography, monkeypatch: pytest.MonkeyPatch
) -> None:
    likeliest = Alignment(homography, 100)

    def propose(*images: ImageFeatures) -> Iterator[Alignment]:
        yield from (likeliest, *propose_alignments(*images))

    pairs = [(extract(PHOTO), extract(PHOTO.resize((400, 267))))]
    pairs.append((extract(draw_shot(0)), extract(draw_shot(4))))
    verdicts = [verify(*pair) for pair in pairs]
    monkeypatch.setattr(alignment_module, "propose_alignments", propose)
    assert [verify(*pair) for pair in pairs] == verdicts
    monkeypatch.setattr(alignment_module, "propose_alignments", lambda *images: [likeliest])
    assert {verify(*pair).relation for pair in pairs} == {Relation.NOT_VERIFIABLE}


def test_verdict_does_not_depend_on_pairs_verified_before() -> None:
    pairs = []
    for seed in (11, 12):
        image = draw_textured_image(seed)
        pairs.append((extract(image), extract(edit_photo(image, "perspective", seed))))
    verdicts = [verify(*pair) for pair in pairs]
    assert [verify(*pair) for pair in reversed(pairs)] == verdicts[::-1]

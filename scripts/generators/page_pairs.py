"""Pairs of pages: a photo and a screen with it, two photos on one screen, one template twice."""

from __future__ import annotations

import random
from functools import partial

from PIL import Image

from pipeline.calibrate.synthetic_copies import Edit
from scripts.generators.layout import Render
from scripts.generators.screens import SCREENS, LayOutScreen
from scripts.generators.templates import TEMPLATES, TEMPLATES_WITH_PORTRAIT, LayOutTemplate
from scripts.generators.truth import MadeImages, MakeImages, Truth, adapt_edits


def show_on_screen(
    photo: Image.Image,
    other: Image.Image,
    rng: random.Random,
    lay_out: LayOutScreen,
    render: Render,
) -> Image.Image:
    """Show a photo on a screen."""
    page, words = random.Random(rng.random()), random.Random(rng.random())
    return render(lay_out(page, words, photo.width / photo.height), [photo, other])


def pair_two_photos(
    photo: Image.Image,
    other: Image.Image,
    rng: random.Random,
    lay_out: LayOutScreen,
    render: Render,
) -> MadeImages:
    """Pair two screens that differ in their photo only; in half of all cases also in the words.

    Where a screen has more photos, both show the placeholder of one that is still loading.
    """
    page, words, aspect = rng.random(), rng.random(), photo.width / photo.height
    second_words = rng.choice([words, rng.random()])
    placeholder = photo.resize((3, 3)).resize((120, 120), Image.Resampling.BICUBIC)
    first, second = (
        render(lay_out(random.Random(page), random.Random(text), aspect), [shown, placeholder])
        for shown, text in ((photo, words), (other, second_words))
    )
    return Truth.OTHER, first, second


def repeat_screen(
    photo: Image.Image,
    other: Image.Image,
    rng: random.Random,
    lay_out: LayOutScreen,
    render: Render,
) -> MadeImages:
    """Pair a screen with itself."""
    screen = show_on_screen(photo, other, rng, lay_out, render)
    return Truth.COPY, screen, screen


def fill_twice(
    photo: Image.Image,
    other: Image.Image,
    rng: random.Random,
    lay_out: LayOutTemplate,
    render: Render,
    *,
    has_portrait: bool,
) -> MadeImages:
    """Pair two fillings of one template: with two portraits, or with the photos that it has."""
    page, words = rng.random(), [rng.random(), rng.random()]
    photos = [[photo], [other]] if has_portrait else [[photo, other]] * 2
    first, second = (
        render(lay_out(random.Random(page), random.Random(text)), shown)
        for text, shown in zip(words, photos, strict=True)
    )
    return Truth.OTHER, first, second


def repeat_template(
    photo: Image.Image,
    other: Image.Image,
    rng: random.Random,
    lay_out: LayOutTemplate,
    render: Render,
) -> MadeImages:
    """Pair a filled template with itself."""
    page, words = random.Random(rng.random()), random.Random(rng.random())
    filled = render(lay_out(page, words), [photo, other])
    return Truth.COPY, filled, filled


def make_screen_edits(render: Render) -> dict[str, Edit]:
    """Make the edits that show a photo on each of the screens."""
    return {
        name: partial(show_on_screen, lay_out=lay_out, render=render)
        for name, lay_out in SCREENS.items()
    }


def make_screen_makers(render: Render) -> dict[str, MakeImages]:
    """Make the makers of pairs of screens, in three kinds for each screen."""
    makers = adapt_edits(make_screen_edits(render))
    for name, lay_out in SCREENS.items():
        makers[f"{name}, two photos"] = partial(pair_two_photos, lay_out=lay_out, render=render)
        makers[f"{name} again"] = partial(repeat_screen, lay_out=lay_out, render=render)
    return makers


def make_template_makers(render: Render) -> dict[str, MakeImages]:
    """Make the makers of pairs of templates, in two kinds for each template."""
    makers: dict[str, MakeImages] = {}
    for name, lay_out in TEMPLATES.items():
        has_portrait = name in TEMPLATES_WITH_PORTRAIT
        makers[f"{name}, two fillings"] = partial(
            fill_twice, lay_out=lay_out, render=render, has_portrait=has_portrait
        )
        makers[f"{name} again"] = partial(repeat_template, lay_out=lay_out, render=render)
    return makers

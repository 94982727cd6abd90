"""Pairs of pages: a photo and a screen with it, two photos on one screen, one template twice."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from PIL import Image

from pipeline.calibrate.synthetic_copies import Edit
from scripts.generators.fonts import LATIN
from scripts.generators.layout import Layout, Render, Text
from scripts.generators.screens import SCREENS, LayOutScreen
from scripts.generators.templates import (
    TEMPLATES,
    TEMPLATES_WITH_PORTRAIT,
    TEMPLATES_WITHOUT_WORDS,
    LayOutTemplate,
)
from scripts.generators.truth import MadeImages, MadeTruth, MakeImages, adapt_edits

LayOut = Callable[[random.Random, random.Random], Layout]
WORDS_ASPECT = 1.5  # width over height of the photo on a page with other words
DIGITS = "0123456789"
MIN_LETTER_SHARE = 0.03  # size of letters over the longer side of a page: 13 of 448 pixels


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
    return MadeTruth.OTHER, first, second


def change_word(
    photo: Image.Image, other: Image.Image, rng: random.Random, lay_out: LayOut, render: Render
) -> MadeImages:
    """Pair two pages that differ in a word or a number, in letters that can still be read."""
    layout = lay_out(random.Random(rng.random()), random.Random(rng.random()))
    texts = [element for element in layout.elements if isinstance(element, Text) and element.text]
    min_size = MIN_LETTER_SHARE * max(layout.size)
    largest = max(texts, key=lambda text: text.size)
    chosen = rng.choice([text for text in texts if text.size >= min_size] or [largest])
    changed = replace(chosen, text=change_text(chosen, rng))
    elements = (changed if element is chosen else element for element in layout.elements)
    layouts = layout, replace(layout, elements=tuple(elements))
    first, second = (render(shown, [photo, other]) for shown in layouts)
    return MadeTruth.OTHER, first, second


def _fix_aspect(lay_out: LayOutScreen, page: random.Random, words: random.Random) -> Layout:
    return lay_out(page, words, WORDS_ASPECT)


def change_text(text: Text, rng: random.Random) -> str:
    """Replace one word of a text by another one, or the digits in it by others."""
    script = text.lettering.script if text.lettering else LATIN
    parts = text.text.split(" ")
    index = rng.choice([number for number, part in enumerate(parts) if part])
    if any(letter in DIGITS for letter in parts[index]):
        parts[index] = "".join(
            rng.choice(DIGITS.replace(letter, "")) if letter in DIGITS else letter
            for letter in parts[index]
        )
    else:
        former = parts[index].lower()
        parts[index] = rng.choice([word for word in script.words if word.lower() != former])
    return " ".join(parts)


def repeat_screen(
    photo: Image.Image,
    other: Image.Image,
    rng: random.Random,
    lay_out: LayOutScreen,
    render: Render,
) -> MadeImages:
    """Pair a screen with itself."""
    screen = show_on_screen(photo, other, rng, lay_out, render)
    return MadeTruth.COPY, screen, screen


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
    return MadeTruth.OTHER, first, second


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
    return MadeTruth.COPY, filled, filled


def make_screen_edits(render: Render) -> dict[str, Edit]:
    """Make the edits that show a photo on each of the screens."""
    return {
        name: partial(show_on_screen, lay_out=lay_out, render=render)
        for name, lay_out in SCREENS.items()
    }


def make_screen_makers(render: Render) -> dict[str, MakeImages]:
    """Make the makers of pairs of screens, in four kinds for each screen."""
    makers = adapt_edits(make_screen_edits(render))
    for name, lay_out in SCREENS.items():
        makers[f"{name}, two photos"] = partial(pair_two_photos, lay_out=lay_out, render=render)
        makers[f"{name}, one word"] = partial(
            change_word, lay_out=partial(_fix_aspect, lay_out), render=render
        )
        makers[f"{name} again"] = partial(repeat_screen, lay_out=lay_out, render=render)
    return makers


def make_template_makers(render: Render) -> dict[str, MakeImages]:
    """Make the makers of pairs of templates, in three kinds for each template."""
    makers: dict[str, MakeImages] = {}
    for name, lay_out in TEMPLATES.items():
        has_portrait = name in TEMPLATES_WITH_PORTRAIT
        makers[f"{name}, two fillings"] = partial(
            fill_twice, lay_out=lay_out, render=render, has_portrait=has_portrait
        )
        if name not in TEMPLATES_WITHOUT_WORDS:
            makers[f"{name}, one word"] = partial(change_word, lay_out=lay_out, render=render)
        makers[f"{name} again"] = partial(repeat_template, lay_out=lay_out, render=render)
    return makers

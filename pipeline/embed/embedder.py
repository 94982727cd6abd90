"""Pixels in, unit vectors out, behind one Protocol; the only place that normalises."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexes import Space
from pipeline.decode.preprocess import View
from pipeline.errors import BadOutput, MissingExtra, Unanswered, UnknownModel

DEFAULT = "neardup-1"
OWN = (DEFAULT, "neardup-0")  # in the package; the second for stores that were made with it
UNASKED = 1000  # paid requests that are made without a word from the person who pays


class Embedder(Protocol):
    """What turns pictures into vectors. Making one is cheap; libraries and weights are loaded by the first use of what needs them."""

    @property
    def name(self) -> str:
        """The name that load() knows it by."""

    @property
    def space(self) -> Space:
        """The vector space of its rows."""

    @property
    def view(self) -> View:
        """How pictures must be fitted for it."""

    @property
    def batch(self) -> int:
        """How many pictures it likes to be given at a time."""

    def encode(self, views: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """One raw row for each picture of `views` (height, width, 3), in order, as (n, dim); need not be of length 1.

        Raises Unanswered, with the rows that came, where a service stops answering.
        """

    def calls(self, pictures: int) -> int:
        """How many requests that somebody pays for so many pictures take at most; 0 for a model that runs here."""


def load(model: str = DEFAULT, threads: int | None = None) -> Embedder:
    """The embedder called `model`, which computes with so many threads, one for each core by default.

    Those of OWN are in the package. onnx:PATH: an ONNX file with its card, a JSON of the same name, beside it. open_clip:ARCH/PRETRAINED:
    weights that open_clip downloads. open_clip:ARCH@PATH: weights in a local file. google:MODEL: a service that is paid for, and sees the
    pictures; google alone: its model of today. google-describe:VISION_MODEL+TEXT_MODEL: the same, by way of words.
    Raises UnknownModel for any other name, and for one that is no UTF-8; and later, at first use, MissingExtra, MissingKey or BadModel.
    """
    try:
        model.encode()
    except UnicodeEncodeError:  # a store keeps the name as text
        raise UnknownModel(f"{ascii(model)} is no UTF-8, as a model's name must be; give its file another path") from None
    backend, _, rest = model.partition(":")
    if model in OWN:
        from pipeline.embed.backends.onnx import Onnx

        return Onnx(Path(__file__).parent / "backends" / f"{model}.json", threads)
    if backend == "onnx" and rest:
        from pipeline.embed.backends.onnx import Onnx

        path = Path(rest).absolute()
        return Onnx(path, threads, f"onnx:{path}")
    if backend == "open_clip" and rest:
        from pipeline.embed.backends.openclip import OpenClip

        return OpenClip(rest, threads)
    if backend == "google" and (rest or model == "google"):
        from pipeline.embed.backends.google import DEFAULT as STANDARD
        from pipeline.embed.backends.google import Google

        return Google(rest or STANDARD)
    if backend == "google-describe" and rest:
        from pipeline.embed.backends.google import Described

        return Described(rest)
    raise UnknownModel(
        f"no model is called {model!r}; use {', '.join(OWN)}, onnx:PATH, open_clip:ARCH/PRETRAINED, open_clip:ARCH@WEIGHTS_FILE,"
        " google, google:MODEL or google-describe:VISION_MODEL+TEXT_MODEL"
    )


@dataclass(frozen=True)
class Model:
    """A model that load() knows: numbers in a vector, and the side of the pictures that it looks at, in pixels."""

    name: str
    dim: int
    size: int


@dataclass(frozen=True)
class Models:
    """Models that can be named without a file of one's own; and what says which others there are no packages for, and how to get them."""

    found: list[Model]
    missing: list[MissingExtra]


def models() -> Models:
    """The models that load() knows here; those of open_clip are among what is missing where it is not installed."""
    known = Models([Model(own.name, own.space.dim, own.view.size) for own in map(load, OWN)], [])
    from pipeline.embed.backends import openclip

    try:
        known.found.extend(Model(*about) for about in openclip.available())
    except MissingExtra as missing:
        known.missing.append(missing)
    return known


def is_agreed(calls: int, max_calls: int | None, yes: bool) -> bool:
    """Whether somebody who pays agreed to so many requests: by `yes`, by a limit, which is kept to elsewhere, or because they are few."""
    return yes or max_calls is not None or calls <= UNASKED


def embed(embedder: Embedder, views: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Rows of length 1 (n, dim), float32, in the order of `views`. Raises BadOutput for what cosine cannot compare, and Unanswered, with
    the rows that came, brought to length 1, where a service stops answering.
    """
    if not views:
        return np.empty((0, embedder.space.dim), np.float32)
    try:
        rows = embedder.encode(views)
    except Unanswered as unanswered:
        known = list(unanswered.rows)
        rows = np.stack([unanswered.rows[at] for at in known]) if known else np.empty((0, embedder.space.dim), np.float32)
        unit = _unit(embedder, rows, len(known))
        raise Unanswered(str(unanswered), dict(zip(known, unit, strict=True))) from unanswered
    return _unit(embedder, rows, len(views))


def embed_all(embedder: Embedder, views: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """As embed(), of any number of pictures, as many at a time as the embedder likes; no more of `views` are asked for before."""
    waiting = iter(views)
    rows = [embed(embedder, some) for some in iter(lambda: list(islice(waiting, embedder.batch)), [])]
    return np.concatenate(rows) if rows else embed(embedder, [])


def _unit(embedder: Embedder, raw: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    rows = np.asarray(raw, dtype=np.float32)
    expected = (count, embedder.space.dim)
    if rows.shape != expected:
        raise BadOutput(f"{embedder.name} returned {rows.shape} for {count} pictures, expected {expected}")
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise BadOutput(f"{embedder.name} returned a row that is zero or not finite; its weights are damaged, or its precision is too low")
    unit: NDArray[np.float32] = (rows / norms).astype(np.float32)
    return unit

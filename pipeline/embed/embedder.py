"""Pixels in, unit vectors out, behind one Protocol; the only place that normalises."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexes.records import Space
from pipeline.decode.preprocess import Preprocess
from pipeline.errors import InvalidEmbedding, MissingExtra, ServiceUnavailable, UnknownModel

DEFAULT_MODEL = "neardup-1"
BUNDLED_MODELS = (
    DEFAULT_MODEL,
    "neardup-0",
)  # in the package; the second for stores that were made with it


class Embedder(Protocol):
    """What turns pictures into vectors. Making one is cheap; libraries and weights are loaded by the first use of what needs them."""

    @property
    def name(self) -> str:
        """The name that load() knows it by."""

    @property
    def space(self) -> Space:
        """The vector space of its rows."""

    @property
    def preprocess(self) -> Preprocess:
        """How pictures must be fitted for it."""

    @property
    def batch_size(self) -> int:
        """How many pictures it likes to be given at a time."""

    def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """One raw row for each picture of `views` (height, width, 3), in order, as (n, dim); need not be of length 1.

        Raises Unanswered, with the rows that came, where a service stops answering.
        """

    def count_paid_calls(self, image_count: int) -> int:
        """How many requests that somebody pays for so many pictures take at most; 0 for a model that runs here."""


def load_embedder(model: str = DEFAULT_MODEL, threads: int | None = None) -> Embedder:
    """The embedder called `model`, which computes with so many threads, one for each core by default.

    Those of OWN are in the package. onnx:PATH: an ONNX file with its card, a JSON of the same name, beside it. open_clip:ARCH/PRETRAINED:
    weights that open_clip downloads. open_clip:ARCH@PATH: weights in a local file. google:MODEL: a service that is paid for, and sees the
    pictures; google alone: its model of today. google-describe:VISION_MODEL+TEXT_MODEL: the same, by way of words.
    Raises UnknownModel for any other name, and for one that is no UTF-8; and later, at first use, MissingExtra, MissingKey or BadModel.
    """
    try:
        model.encode()
    except UnicodeEncodeError:  # a store keeps the name as text
        raise UnknownModel(
            f"{ascii(model)} is no UTF-8, as a model's name must be; give its file another path"
        ) from None
    backend, _, rest = model.partition(":")
    if model in BUNDLED_MODELS:
        from pipeline.embed.backends.onnx import OnnxEmbedder

        return OnnxEmbedder(Path(__file__).parent / "backends" / f"{model}.json", threads)
    if backend == "onnx" and rest:
        from pipeline.embed.backends.onnx import OnnxEmbedder

        path = Path(rest).absolute()
        return OnnxEmbedder(path, threads, f"onnx:{path}")
    if backend == "open_clip" and rest:
        from pipeline.embed.backends.openclip import OpenClipEmbedder

        return OpenClipEmbedder(rest, threads)
    if backend == "google" and (rest or model == "google"):
        from pipeline.embed.backends.google import DEFAULT_MODEL as STANDARD
        from pipeline.embed.backends.google import GoogleEmbedder

        return GoogleEmbedder(rest or STANDARD)
    if backend == "google-describe" and rest:
        from pipeline.embed.backends.google import GoogleDescribeEmbedder

        return GoogleDescribeEmbedder(rest)
    raise UnknownModel(
        f"no model is called {model!r}; use {', '.join(BUNDLED_MODELS)}, onnx:PATH, open_clip:ARCH/PRETRAINED, open_clip:ARCH@WEIGHTS_FILE,"
        " google, google:MODEL or google-describe:VISION_MODEL+TEXT_MODEL"
    )


@dataclass(frozen=True)
class Model:
    """A model that load() knows: numbers in a vector, and the side of the pictures that it looks at, in pixels."""

    name: str
    dim: int
    input_size: int


@dataclass(frozen=True)
class ModelList:
    """Models that can be named without a file of one's own; and what says which others there are no packages for, and how to get them."""

    available: list[Model]
    missing_extras: list[MissingExtra]


def list_models() -> ModelList:
    """The models that load() knows here; those of open_clip are among what is missing where it is not installed."""
    known = ModelList(
        [
            Model(own.name, own.space.dim, own.preprocess.size)
            for own in map(load_embedder, BUNDLED_MODELS)
        ],
        [],
    )
    from pipeline.embed.backends import openclip

    try:
        known.available.extend(Model(*about) for about in openclip.list_pretrained())
    except MissingExtra as missing:
        known.missing_extras.append(missing)
    return known


def embed(embedder: Embedder, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Rows of length 1 (n, dim), float32, in the order of `views`. Raises BadOutput for what cosine cannot compare, and Unanswered, with
    the rows that came, brought to length 1, where a service stops answering.
    """
    if not inputs:
        return np.empty((0, embedder.space.dim), np.float32)
    try:
        rows = embedder.encode(inputs)
    except ServiceUnavailable as unanswered:
        known = list(unanswered.rows)
        rows = (
            np.stack([unanswered.rows[at] for at in known])
            if known
            else np.empty((0, embedder.space.dim), np.float32)
        )
        unit = _normalize_rows(embedder, rows, len(known))
        raise ServiceUnavailable(
            str(unanswered), dict(zip(known, unit, strict=True))
        ) from unanswered
    return _normalize_rows(embedder, rows, len(inputs))


def embed_all(embedder: Embedder, inputs: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """As embed(), of any number of pictures, as many at a time as the embedder likes; no more of `views` are asked for before."""
    waiting = iter(inputs)
    rows = [
        embed(embedder, some)
        for some in iter(lambda: list(islice(waiting, embedder.batch_size)), [])
    ]
    return np.concatenate(rows) if rows else embed(embedder, [])


def _normalize_rows(
    embedder: Embedder, raw_rows: NDArray[np.float32], count: int
) -> NDArray[np.float32]:
    rows = np.asarray(raw_rows, dtype=np.float32)
    expected = (count, embedder.space.dim)
    if rows.shape != expected:
        raise InvalidEmbedding(
            f"{embedder.name} returned {rows.shape} for {count} pictures, expected {expected}"
        )
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise InvalidEmbedding(
            f"{embedder.name} returned a row that is zero or not finite; its weights are damaged, or its precision is too low"
        )
    unit: NDArray[np.float32] = (rows / norms).astype(np.float32)
    return unit

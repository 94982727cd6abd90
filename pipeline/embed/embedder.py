"""The Embedder protocol: pixels in, vectors out. The vectors of a store are normalized here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexes.paths import quote
from indexes.records import Space
from pipeline.decode.preprocess import Preprocess
from pipeline.errors import InvalidEmbedding, MissingExtra, ServiceUnavailable, UnknownModel

DEFAULT_MODEL = "neardup-1"
# Models that the package contains; neardup-0 for stores that were made with it.
BUNDLED_MODELS = (DEFAULT_MODEL, "neardup-0")


class Embedder(Protocol):
    """A model that maps preprocessed images to vectors.

    Creating one is cheap: libraries and weights are loaded by the first use of what needs them.
    """

    @property
    def name(self) -> str:
        """The name by which `load_embedder` loads this model."""

    @property
    def space(self) -> Space:
        """The vector space of the rows."""

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing that inputs need."""

    @property
    def batch_size(self) -> int:
        """The number of images that one `encode` handles most efficiently."""

    def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Compute a raw row for each uint8 image (height, width, 3), in order: (n, dim).

        Rows need not have unit length. Raises ServiceUnavailable, with the rows that arrived,
        when a service stops answering.
        """

    def count_paid_calls(self, image_count: int) -> int:
        """Return the most paid requests that `image_count` images take; 0 for a local model."""


def load_embedder(model: str = DEFAULT_MODEL, threads: int | None = None) -> Embedder:
    """Load the embedder named `model`, which uses `threads` threads (default: one per core).

    - a name in BUNDLED_MODELS: a model in this package
    - onnx:PATH: an ONNX file with its model card, a JSON file of the same name, beside it
    - open_clip:ARCH/PRETRAINED: weights that open_clip downloads
    - open_clip:ARCH@PATH: weights in a local file
    - google:MODEL: a paid service, to which images are sent; google alone: its current model
    - google-describe:VISION_MODEL+TEXT_MODEL: the same, by embedding descriptions

    Raises UnknownModel for any other name and for one that is not valid UTF-8. The first use of
    the embedder may raise MissingExtra, MissingKey or UnusableModel.
    """
    try:
        model.encode()
    except UnicodeEncodeError:  # a store keeps the name as text
        raise UnknownModel(
            f"the model name {quote(model)} is not valid UTF-8; rename the file that it names"
        ) from None
    backend, _, argument = model.partition(":")
    if model in BUNDLED_MODELS:
        from pipeline.embed.backends.onnx import OnnxEmbedder

        return OnnxEmbedder(Path(__file__).parent / "backends" / f"{model}.json", threads)
    if backend == "onnx" and argument:
        from pipeline.embed.backends.onnx import OnnxEmbedder

        path = Path(argument).absolute()
        return OnnxEmbedder(path, threads, f"onnx:{path}")
    if backend == "open_clip" and argument:
        from pipeline.embed.backends.openclip import OpenClipEmbedder

        return OpenClipEmbedder(argument, threads)
    if backend == "google" and (argument or model == "google"):
        from pipeline.embed.backends.google import DEFAULT_GOOGLE_MODEL, GoogleEmbedder

        return GoogleEmbedder(argument or DEFAULT_GOOGLE_MODEL)
    if backend == "google-describe" and argument:
        from pipeline.embed.backends.google import GoogleDescribeEmbedder

        return GoogleDescribeEmbedder(argument)
    raise UnknownModel(
        f"unknown model {model!r}; use {', '.join(BUNDLED_MODELS)}, onnx:PATH,"
        " open_clip:ARCH/PRETRAINED, open_clip:ARCH@WEIGHTS_FILE, google, google:MODEL"
        " or google-describe:VISION_MODEL+TEXT_MODEL"
    )


@dataclass(frozen=True)
class Model:
    """A model that `load_embedder` knows: its vector dimension and the side of its input in px."""

    name: str
    dim: int
    input_size: int


@dataclass(frozen=True)
class ModelList:
    """Models that can be named without an own file, and the extras that would add more."""

    available: list[Model]
    missing_extras: list[MissingExtra]


def list_models() -> ModelList:
    """List the models that this installation knows, and the extras that it lacks for others."""
    bundled = [
        Model(embedder.name, embedder.space.dim, embedder.preprocess.size)
        for embedder in map(load_embedder, BUNDLED_MODELS)
    ]
    from pipeline.embed.backends import openclip

    try:
        pretrained = [Model(*model) for model in openclip.list_pretrained()]
    except MissingExtra as missing:
        return ModelList(bundled, [missing])
    return ModelList(bundled + pretrained, [])


def embed(embedder: Embedder, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Embed images as unit vectors (n, dim), float32, in the order of `inputs`.

    Raises InvalidEmbedding for rows that a cosine cannot compare. Raises ServiceUnavailable, with
    the rows that arrived as unit vectors, when a service stops answering.
    """
    if not inputs:
        return np.empty((0, embedder.space.dim), np.float32)
    try:
        rows = embedder.encode(inputs)
    except ServiceUnavailable as error:
        if not error.rows:
            raise
        arrived = list(error.rows)
        raw_rows = np.stack([error.rows[index] for index in arrived])
        unit_rows = _normalize_rows(embedder, raw_rows, len(arrived))
        raise ServiceUnavailable(str(error), dict(zip(arrived, unit_rows, strict=True))) from error
    return _normalize_rows(embedder, rows, len(inputs))


def embed_all(embedder: Embedder, inputs: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Embed any number of images in batches, as `embed` does; reads `inputs` batch by batch."""
    remaining = iter(inputs)
    rows = []
    while batch := list(islice(remaining, embedder.batch_size)):
        rows.append(embed(embedder, batch))
    return np.concatenate(rows) if rows else embed(embedder, [])


def _normalize_rows(
    embedder: Embedder, raw_rows: NDArray[np.float32], image_count: int
) -> NDArray[np.float32]:
    rows = np.asarray(raw_rows, dtype=np.float32)
    expected = (image_count, embedder.space.dim)
    if rows.shape != expected:
        raise InvalidEmbedding(
            f"{embedder.name} returned an array of shape {rows.shape} for {image_count} images;"
            f" expected {expected}"
        )
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise InvalidEmbedding(
            f"{embedder.name} returned a vector that is zero or not finite;"
            " its weights are damaged, or its precision is too low"
        )
    unit_rows: NDArray[np.float32] = (rows / norms).astype(np.float32)
    return unit_rows

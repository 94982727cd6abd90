"""Embeddings that Google computes, by the Gemini API or Vertex AI: the only backend that sends pictures away and costs money."""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexes.records import Space
from pipeline.decode.preprocess import Preprocess
from pipeline.embed.backends.google_client import (
    GoogleClient,
    InvalidResponse,
    RequestBatch,
    RequestFailed,
)
from pipeline.errors import ServiceUnavailable, UnknownModel

if TYPE_CHECKING:
    from google.genai.models import AsyncModels
    from google.genai.types import Part

DEFAULT_MODEL, MAX_DIM = "gemini-embedding-2", 3072
JPEG_QUALITY = 90
# Nobody has measured copies in these spaces. The thresholds are high, so that only what is nearly the same to the model is reported.
FLOOR, THRESHOLD = 0.85, 0.97
DESCRIPTION_FLOOR, DESCRIPTION_THRESHOLD = 0.90, 0.98
WEIGHTS_LABEL = "google's own"  # nobody else sees them to hash them; that vectors stay comparable, only the model's name promises
MAX_DESCRIPTION_WORDS = 10
PROMPT = f"Describe this picture in {MAX_DESCRIPTION_WORDS} plain English words: what it shows, how many, where, in which colours. Give the words alone."
REFUSAL_FINISH_REASONS = {
    "SAFETY",
    "RECITATION",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "MODEL_ARMOR",
    "IMAGE_SAFETY",
}  # no faults, but verdicts

log = logging.getLogger(__name__)


class _RemoteEmbedder(ABC):
    """What both embedders share: the view, and asking for groups of pictures, some at once."""

    group_size: int
    batch_size = 48  # whole groups of both, and four at once
    name: str
    space: Space
    preprocess = Preprocess(768, "within")

    def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """One raw row for each picture, in order. Pictures go out as JPEG without metadata.

        Raises MissingExtra or MissingKey before anything is sent, and Unanswered, with the rows that came, after a request failed for
        good: those on their way are then waited for, and no other starts.
        """
        errand, rows = RequestBatch(self._client), dict[int, NDArray[np.float32]]()

        async def fetch(start: int) -> None:
            async with errand.client.request_slots:
                if errand.failure:
                    return
                some = inputs[start : start + self.group_size]
                try:
                    rows.update(enumerate(await self._embed_group(errand, some), start))
                except RequestFailed as failed:
                    errand.failure = (
                        errand.failure
                        or f"no vectors for pictures {start + 1} to {start + len(some)} of {len(inputs)}: {failed}"
                    )

        async def fetch_all() -> None:
            async with asyncio.TaskGroup() as tasks:
                for start in range(0, len(inputs), self.group_size):
                    tasks.create_task(fetch(start))

        errand.client.run(fetch_all())
        if errand.failure:
            # Not BadOutput, even where answers were useless: that would lose the rows that came, and they are paid for.
            raise ServiceUnavailable(f"{self.name}: {errand.failure}", rows)
        return np.array([rows[at] for at in range(len(inputs))], np.float32).reshape(
            -1, self.space.dim
        )

    @abstractmethod
    async def _embed_group(
        self, requests: RequestBatch, inputs: Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float32]:
        """One raw row for each picture of a group; raises Failed."""

    @cached_property
    def _client(self) -> GoogleClient:
        return GoogleClient()


class GoogleEmbedder(_RemoteEmbedder):
    """A multimodal embedding model: `MODEL` or `MODEL@LENGTH`, the length of a row being 3072 unless given."""

    group_size = 6  # in one request; gemini-embedding-2 takes no more

    def __init__(self, model: str) -> None:
        """Note which model; raises UnknownModel for one that sees no pictures."""
        self._model, dim, self.name = _parse_model_name(model, "google")
        # From what is sent to others the client leaves the pictures out.
        if not re.fullmatch(r"gemini-embedding-(?!001|exp)[\w.-]+", self._model):
            raise UnknownModel(
                f"{self.name} sees no pictures; use google:{DEFAULT_MODEL}, or google-describe:VISION_MODEL+TEXT_MODEL"
            )
        self.space = Space(
            "google",
            self._model,
            WEIGHTS_LABEL,
            f"{self.preprocess} jpeg {JPEG_QUALITY}",
            dim,
            FLOOR,
            THRESHOLD,
        )

    def count_paid_calls(self, image_count: int) -> int:
        """One for six pictures of one encode(), so for many the sum over them.

        Those that are asked again are not counted. What was refused costs nothing; an answer that was lost on its way may have been paid.
        """
        return math.ceil(image_count / self.group_size)

    async def _embed_group(
        self, requests: RequestBatch, inputs: Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float32]:
        return await requests.request_embeddings(
            self._model, [_make_image_part(view) for view in inputs], self.space.dim
        )


class GoogleDescribeEmbedder(_RemoteEmbedder):
    """Ten words about each picture by a vision model, then their embedding: `VISION_MODEL+TEXT_MODEL` or with `@LENGTH` behind.

    Weaker than Google: it compares words. Two pictures told in the same words are equal to it, and a model may tell a picture in other
    words the next time. A picture that the vision model refuses gets a row of its own, made from its pixels and far from all others: it
    stops no run and matches nothing, and the log counts it.
    """

    group_size = (
        8  # texts in one request: not more, because a failure loses the descriptions of its group
    )

    def __init__(self, models: str) -> None:
        """Note which models; raises UnknownModel when they are not two."""
        self._model_pair, dim, self.name = _parse_model_name(models, "google-describe")
        self._vision_model, _, self._text_model = self._model_pair.partition("+")
        if not self._vision_model or not self._text_model or "+" in self._text_model:
            raise UnknownModel(
                f"{self.name} is no pair of models; use google-describe:VISION_MODEL+TEXT_MODEL"
            )
        prompt = hashlib.sha256(PROMPT.encode()).hexdigest()[:8]
        preprocess = f"{self.preprocess} jpeg {JPEG_QUALITY} prompt {prompt}"
        self.space = Space(
            "google-describe",
            self._model_pair,
            WEIGHTS_LABEL,
            preprocess,
            dim,
            DESCRIPTION_FLOOR,
            DESCRIPTION_THRESHOLD,
        )

    def count_paid_calls(self, image_count: int) -> int:
        """One for each picture and one for the words of eight of one encode(). Those that are asked again are not counted."""
        return image_count + math.ceil(image_count / self.group_size)

    async def _embed_group(
        self, requests: RequestBatch, inputs: Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float32]:
        words = [await self._describe(requests, view) for view in inputs]
        told = [at for at, text in enumerate(words) if text]
        rows = np.stack([_make_unique_row(view, self.space.dim) for view in inputs])
        if told:
            rows[told] = await requests.request_embeddings(
                self._text_model, [_make_text_part(words[at]) for at in told], self.space.dim
            )
        if len(told) < len(inputs):
            log.warning(
                "%s refused to describe %d of %d pictures; they match nothing",
                self._vision_model,
                len(inputs) - len(told),
                len(inputs),
            )
        return rows

    async def _describe(self, requests: RequestBatch, pixels: NDArray[np.uint8]) -> str:
        """The description of a picture; empty if the model refuses this picture."""
        contents = {"role": "user", "parts": [_make_image_part(pixels), _make_text_part(PROMPT)]}
        # Without the last, the client may send requests that calls() does not count.
        config = {
            "temperature": 0.0,
            "automatic_function_calling": {"disable": True},
            "automatic_continuation": False,
        }

        async def send(models: AsyncModels) -> str:
            answer = await models.generate_content(
                model=self._vision_model, contents=contents, config=config
            )
            if words := (answer.text or "").split()[:MAX_DESCRIPTION_WORDS]:
                return " ".join(words)
            refused = bool(answer.prompt_feedback and answer.prompt_feedback.block_reason)
            refused |= any(
                candidate.finish_reason in REFUSAL_FINISH_REASONS
                for candidate in answer.candidates or []
            )
            if not refused:
                raise InvalidResponse("no words for a picture")
            return ""

        return await requests.call_with_retries(send)


def _parse_model_name(spec: str, backend: str) -> tuple[str, int, str]:
    """The model or models in what was given, the length of a row, and the whole name in its shortest form."""
    form = re.fullmatch(r"([\w.+-]+)(?:@(\d{1,4}))?", spec, re.ASCII)
    dim = int(form[2] or MAX_DIM) if form else 0
    if not form or not 128 <= dim <= MAX_DIM:
        raise UnknownModel(
            f"{backend}:{spec} is no model's name; use MODEL or MODEL@LENGTH, a length being 128 to {MAX_DIM}"
        )
    return form[1], dim, f"{backend}:{form[1]}" + (f"@{dim}" if dim != MAX_DIM else "")


def _make_image_part(pixels: NDArray[np.uint8]) -> Part:
    from google.genai.types import Part

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return Part.from_bytes(data=buffer.getvalue(), mime_type="image/jpeg")


def _make_text_part(text: str) -> Part:
    from google.genai.types import Part

    return Part(text=text)


def _make_unique_row(pixels: NDArray[np.uint8], dim: int) -> NDArray[np.float32]:
    """A row that only the same pixels have: its cosine with any other is 0, give or take 1 / sqrt(dim)."""
    drawn = hashlib.shake_256(repr(pixels.shape).encode() + pixels.tobytes()).digest(dim)
    return np.frombuffer(drawn, np.uint8).astype(np.float32) - 127.5

"""Embeddings by Google's Gemini API or Vertex AI.

The only backend that sends images to a service and costs money.
"""

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

DEFAULT_GOOGLE_MODEL = "gemini-embedding-2"
MIN_DIM = 128
MAX_DIM = 3072
JPEG_QUALITY = 90
# Copies have not been measured in these spaces. The thresholds are high, so that only images that
# are nearly equal to the model are reported.
FLOOR = 0.85
THRESHOLD = 0.97
DESCRIPTION_FLOOR = 0.90
DESCRIPTION_THRESHOLD = 0.98
# In the place of a hash, because only Google has the weights. That vectors stay comparable depends
# on the model name alone.
WEIGHTS_LABEL = "google's own"
MAX_DESCRIPTION_WORDS = 10
PROMPT = (
    f"Describe this picture in {MAX_DESCRIPTION_WORDS} plain English words: what it shows, how"
    " many, where, in which colours. Give the words alone."
)
# The model declines to describe the image; retrying does not help.
REFUSAL_FINISH_REASONS = {
    "SAFETY",
    "RECITATION",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "MODEL_ARMOR",
    "IMAGE_SAFETY",
}

log = logging.getLogger(__name__)


class _RemoteEmbedder(ABC):
    """Base of both embedders: preprocessing, and concurrent requests for groups of images."""

    group_size: int
    batch_size = 48  # a multiple of both group sizes; at least MAX_CONCURRENT_REQUESTS groups
    name: str
    space: Space
    preprocess = Preprocess(768, "within")

    def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Compute a raw row for each image (height, width, 3), in order: (n, dim).

        Images are sent as JPEG without metadata. Raises MissingExtra or MissingKey before
        anything is sent. Raises ServiceUnavailable, with the rows that arrived, after a request
        failed for good: requests in flight are completed, and no further one starts.
        """
        requests = RequestBatch(self._client)
        rows: dict[int, NDArray[np.float32]] = {}

        async def embed_group_at(start: int) -> None:
            async with requests.client.request_slots:
                if requests.failure:
                    return
                group = inputs[start : start + self.group_size]
                try:
                    rows.update(enumerate(await self._embed_group(requests, group), start))
                except RequestFailed as error:
                    images = f"images {start + 1} to {start + len(group)} of {len(inputs)}"
                    requests.failure = requests.failure or f"no vectors for {images}: {error}"

        async def embed_groups() -> None:
            async with asyncio.TaskGroup() as tasks:
                for start in range(0, len(inputs), self.group_size):
                    tasks.create_task(embed_group_at(start))

        requests.client.run(embed_groups())
        if requests.failure:
            # Not InvalidEmbedding, even if answers were unusable: that would lose the rows that
            # arrived, which are paid for.
            raise ServiceUnavailable(f"{self.name}: {requests.failure}", rows)
        ordered_rows = np.array([rows[index] for index in range(len(inputs))], np.float32)
        return ordered_rows.reshape(-1, self.space.dim)

    @abstractmethod
    async def _embed_group(
        self, requests: RequestBatch, inputs: Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float32]:
        """Compute a raw row for each image of a group: (n, dim). Raises RequestFailed."""

    @cached_property
    def _client(self) -> GoogleClient:
        return GoogleClient()


class GoogleEmbedder(_RemoteEmbedder):
    """A multimodal embedding model: `MODEL` or `MODEL@DIM`, 3072 numbers unless DIM is given."""

    group_size = 6  # the most images that gemini-embedding-2 accepts in a request

    def __init__(self, model: str) -> None:
        """Parse the model name. Raises UnknownModel for a model that does not accept images."""
        self._model, dim, self.name = _parse_model_name(model, "google")
        # Google's client drops the images from requests to any other model.
        if not re.fullmatch(r"gemini-embedding-(?!001|exp)[\w.-]+", self._model):
            raise UnknownModel(
                f"{self.name} does not accept images; use google:{DEFAULT_GOOGLE_MODEL},"
                " or google-describe:VISION_MODEL+TEXT_MODEL"
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
        """Return the requests of one `encode`: one for six images.

        Retries are not counted. Refused requests cost nothing, but an answer that was lost on
        the way may be paid for.
        """
        return math.ceil(image_count / self.group_size)

    async def _embed_group(
        self, requests: RequestBatch, inputs: Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float32]:
        parts = [_make_image_part(pixels) for pixels in inputs]
        return await requests.request_embeddings(self._model, parts, self.space.dim)


class GoogleDescribeEmbedder(_RemoteEmbedder):
    """A vision model that describes an image in ten words, and a text model that embeds them.

    Named `VISION_MODEL+TEXT_MODEL` or `VISION_MODEL+TEXT_MODEL@DIM`.

    It is weaker than GoogleEmbedder, because it compares words: two images with the same
    description have equal vectors, and a model may describe an image differently the next time.
    An image that the vision model refuses to describe gets a unique row, made from its pixels and
    far from all others: it matches nothing, does not stop the run, and is counted in the log.
    """

    group_size = 8  # texts in a request; a failure loses the descriptions of its group

    def __init__(self, models: str) -> None:
        """Parse the model names. Raises UnknownModel unless there are two."""
        self._model_pair, dim, self.name = _parse_model_name(models, "google-describe")
        self._vision_model, _, self._text_model = self._model_pair.partition("+")
        if not self._vision_model or not self._text_model or "+" in self._text_model:
            raise UnknownModel(
                f"{self.name} does not name two models; use google-describe:VISION_MODEL+TEXT_MODEL"
            )
        prompt_hash = hashlib.sha256(PROMPT.encode()).hexdigest()[:8]
        self.space = Space(
            "google-describe",
            self._model_pair,
            WEIGHTS_LABEL,
            f"{self.preprocess} jpeg {JPEG_QUALITY} prompt {prompt_hash}",
            dim,
            DESCRIPTION_FLOOR,
            DESCRIPTION_THRESHOLD,
        )

    def count_paid_calls(self, image_count: int) -> int:
        """Return the requests of one `encode`: one an image, and one for eight descriptions.

        Retries are not counted.
        """
        return image_count + math.ceil(image_count / self.group_size)

    async def _embed_group(
        self, requests: RequestBatch, inputs: Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float32]:
        descriptions = [await self._describe(requests, pixels) for pixels in inputs]
        described = [index for index, text in enumerate(descriptions) if text is not None]
        texts = [_make_text_part(text) for text in descriptions if text is not None]
        rows = np.stack([_make_unique_row(pixels, self.space.dim) for pixels in inputs])
        if texts:
            rows[described] = await requests.request_embeddings(
                self._text_model, texts, self.space.dim
            )
        if len(described) < len(inputs):
            log.warning(
                "%s refused to describe %d of %d images; they match nothing",
                self._vision_model,
                len(inputs) - len(described),
                len(inputs),
            )
        return rows

    async def _describe(self, requests: RequestBatch, pixels: NDArray[np.uint8]) -> str | None:
        """Describe an image in at most MAX_DESCRIPTION_WORDS; None if the model refuses it."""
        contents = {"role": "user", "parts": [_make_image_part(pixels), _make_text_part(PROMPT)]}
        config = {
            "temperature": 0.0,
            "automatic_function_calling": {"disable": True},
            # Otherwise the client may send requests that `count_paid_calls` does not count.
            "automatic_continuation": False,
        }

        async def send(models: AsyncModels) -> str | None:
            answer = await models.generate_content(
                model=self._vision_model, contents=contents, config=config
            )
            if words := (answer.text or "").split()[:MAX_DESCRIPTION_WORDS]:
                return " ".join(words)
            is_blocked = bool(answer.prompt_feedback and answer.prompt_feedback.block_reason)
            finish_reasons = {candidate.finish_reason for candidate in answer.candidates or []}
            if not is_blocked and not finish_reasons & REFUSAL_FINISH_REASONS:
                raise InvalidResponse("no description of an image")
            return None

        return await requests.call_with_retries(send)


def _parse_model_name(spec: str, backend: str) -> tuple[str, int, str]:
    """Split "MODEL" or "MODEL@DIM" into the model and the dimension; also return the short name.

    The short name is the shortest full name, such as "google:MODEL". Raises UnknownModel.
    """
    match = re.fullmatch(r"([\w.+-]+)(?:@(\d{1,4}))?", spec, re.ASCII)
    dim = int(match[2] or MAX_DIM) if match else 0
    if not match or not MIN_DIM <= dim <= MAX_DIM:
        raise UnknownModel(
            f"{backend}:{spec} is not a model name; use MODEL or MODEL@LENGTH,"
            f" with a length from {MIN_DIM} to {MAX_DIM}"
        )
    model = match[1]
    suffix = "" if dim == MAX_DIM else f"@{dim}"
    return model, dim, f"{backend}:{model}{suffix}"


def _make_image_part(pixels: NDArray[np.uint8]) -> Part:
    from google.genai.types import Part

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return Part.from_bytes(data=buffer.getvalue(), mime_type="image/jpeg")


def _make_text_part(text: str) -> Part:
    from google.genai.types import Part

    return Part(text=text)


def _make_unique_row(pixels: NDArray[np.uint8], dim: int) -> NDArray[np.float32]:
    """Derive a row from a hash of the pixels; its cosine with others is 0 +- 1 / sqrt(dim)."""
    digest = hashlib.shake_256(repr(pixels.shape).encode() + pixels.tobytes()).digest(dim)
    return np.frombuffer(digest, np.uint8).astype(np.float32) - 127.5

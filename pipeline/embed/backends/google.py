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

from indexes import Space
from pipeline.decode.preprocess import View
from pipeline.embed.backends.google_client import Errand, Failed, Line, Unusable
from pipeline.errors import Unanswered, UnknownModel

if TYPE_CHECKING:
    from google.genai.models import AsyncModels
    from google.genai.types import Part

DEFAULT, LENGTH = "gemini-embedding-2", 3072
QUALITY = 90
# Nobody has measured copies in these spaces. The thresholds are high, so that only what is nearly the same to the model is reported.
FLOOR, THRESHOLD = 0.85, 0.97
FLOOR_OF_WORDS, THRESHOLD_OF_WORDS = 0.90, 0.98
WEIGHTS = "google's own"  # nobody else sees them to hash them; that vectors stay comparable, only the model's name promises
WORDS = 10
PROMPT = f"Describe this picture in {WORDS} plain English words: what it shows, how many, where, in which colours. Give the words alone."
REFUSED = {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "IMAGE_SAFETY"}  # no faults, but verdicts

log = logging.getLogger(__name__)


class _Remote(ABC):
    """What both embedders share: the view, and asking for groups of pictures, some at once."""

    group: int
    batch = 48  # whole groups of both, and four at once
    name: str
    space: Space
    view = View(768, "within")

    def encode(self, views: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """One raw row for each picture, in order. Pictures go out as JPEG without metadata.

        Raises MissingExtra or MissingKey before anything is sent, and Unanswered, with the rows that came, after a request failed for
        good: those on their way are then waited for, and no other starts.
        """
        errand, rows = Errand(self._line), dict[int, NDArray[np.float32]]()

        async def fetch(start: int) -> None:
            async with errand.line.places:
                if errand.failure:
                    return
                some = views[start : start + self.group]
                try:
                    rows.update(enumerate(await self._rows(errand, some), start))
                except Failed as failed:
                    errand.failure = (
                        errand.failure or f"no vectors for pictures {start + 1} to {start + len(some)} of {len(views)}: {failed}"
                    )

        async def fetch_all() -> None:
            async with asyncio.TaskGroup() as tasks:
                for start in range(0, len(views), self.group):
                    tasks.create_task(fetch(start))

        errand.line.run(fetch_all())
        if errand.failure:
            # Not BadOutput, even where answers were useless: that would lose the rows that came, and they are paid for.
            raise Unanswered(f"{self.name}: {errand.failure}", rows)
        return np.array([rows[at] for at in range(len(views))], np.float32).reshape(-1, self.space.dim)

    @abstractmethod
    async def _rows(self, errand: Errand, views: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """One raw row for each picture of a group; raises Failed."""

    @cached_property
    def _line(self) -> Line:
        return Line()


class Google(_Remote):
    """A multimodal embedding model: `MODEL` or `MODEL@LENGTH`, the length of a row being 3072 unless given."""

    group = 6  # in one request; gemini-embedding-2 takes no more

    def __init__(self, model: str) -> None:
        """Note which model; raises UnknownModel for one that sees no pictures."""
        self._model, dim, self.name = _named(model, "google")
        # From what is sent to others the client leaves the pictures out.
        if not re.fullmatch(r"gemini-embedding-(?!001|exp)[\w.-]+", self._model):
            raise UnknownModel(f"{self.name} sees no pictures; use google:{DEFAULT}, or google-describe:VISION_MODEL+TEXT_MODEL")
        self.space = Space("google", self._model, WEIGHTS, f"{self.view} jpeg {QUALITY}", dim, FLOOR, THRESHOLD)

    def calls(self, pictures: int) -> int:
        """One for six pictures of one encode(), so for many the sum over them.

        Those that are asked again are not counted. What was refused costs nothing; an answer that was lost on its way may have been paid.
        """
        return math.ceil(pictures / self.group)

    async def _rows(self, errand: Errand, views: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return await errand.embeddings(self._model, [_picture(view) for view in views], self.space.dim)


class Described(_Remote):
    """Ten words about each picture by a vision model, then their embedding: `VISION_MODEL+TEXT_MODEL` or with `@LENGTH` behind.

    Weaker than Google: it compares words. Two pictures told in the same words are equal to it, and a model may tell a picture in other
    words the next time. A picture that the vision model refuses gets a row of its own, made from its pixels and far from all others: it
    stops no run and matches nothing, and the log counts it.
    """

    group = 8  # texts in one request: not more, because a failure loses the descriptions of its group

    def __init__(self, models: str) -> None:
        """Note which models; raises UnknownModel when they are not two."""
        self._both, dim, self.name = _named(models, "google-describe")
        self._vision, _, self._text = self._both.partition("+")
        if not self._vision or not self._text or "+" in self._text:
            raise UnknownModel(f"{self.name} is no pair of models; use google-describe:VISION_MODEL+TEXT_MODEL")
        prompt = hashlib.sha256(PROMPT.encode()).hexdigest()[:8]
        preprocess = f"{self.view} jpeg {QUALITY} prompt {prompt}"
        self.space = Space("google-describe", self._both, WEIGHTS, preprocess, dim, FLOOR_OF_WORDS, THRESHOLD_OF_WORDS)

    def calls(self, pictures: int) -> int:
        """One for each picture and one for the words of eight of one encode(). Those that are asked again are not counted."""
        return pictures + math.ceil(pictures / self.group)

    async def _rows(self, errand: Errand, views: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        words = [await self._words(errand, view) for view in views]
        told = [at for at, text in enumerate(words) if text]
        rows = np.stack([_row_like_no_other(view, self.space.dim) for view in views])
        if told:
            rows[told] = await errand.embeddings(self._text, [_text(words[at]) for at in told], self.space.dim)
        if len(told) < len(views):
            log.warning("%s refused to describe %d of %d pictures; they match nothing", self._vision, len(views) - len(told), len(views))
        return rows

    async def _words(self, errand: Errand, view: NDArray[np.uint8]) -> str:
        """The description of a picture; empty if the model refuses this picture."""
        contents = {"role": "user", "parts": [_picture(view), _text(PROMPT)]}
        # Without the last, the client may send requests that calls() does not count.
        config = {"temperature": 0.0, "automatic_function_calling": {"disable": True}, "automatic_continuation": False}

        async def send(models: AsyncModels) -> str:
            answer = await models.generate_content(model=self._vision, contents=contents, config=config)
            if words := (answer.text or "").split()[:WORDS]:
                return " ".join(words)
            refused = bool(answer.prompt_feedback and answer.prompt_feedback.block_reason)
            refused |= any(candidate.finish_reason in REFUSED for candidate in answer.candidates or [])
            if not refused:
                raise Unusable("no words for a picture")
            return ""

        return await errand.ask(send)


def _named(given: str, backend: str) -> tuple[str, int, str]:
    """The model or models in what was given, the length of a row, and the whole name in its shortest form."""
    form = re.fullmatch(r"([\w.+-]+)(?:@(\d{1,4}))?", given, re.ASCII)
    dim = int(form[2] or LENGTH) if form else 0
    if not form or not 128 <= dim <= LENGTH:
        raise UnknownModel(f"{backend}:{given} is no model's name; use MODEL or MODEL@LENGTH, a length being 128 to {LENGTH}")
    return form[1], dim, f"{backend}:{form[1]}" + (f"@{dim}" if dim != LENGTH else "")


def _picture(view: NDArray[np.uint8]) -> Part:
    from google.genai.types import Part

    buffer = io.BytesIO()
    Image.fromarray(view).save(buffer, "JPEG", quality=QUALITY)
    return Part.from_bytes(data=buffer.getvalue(), mime_type="image/jpeg")


def _text(text: str) -> Part:
    from google.genai.types import Part

    return Part(text=text)


def _row_like_no_other(view: NDArray[np.uint8], dim: int) -> NDArray[np.float32]:
    """A row that only the same pixels have: its cosine with any other is 0, give or take 1 / sqrt(dim)."""
    drawn = hashlib.shake_256(repr(view.shape).encode() + view.tobytes()).digest(dim)
    return np.frombuffer(drawn, np.uint8).astype(np.float32) - 127.5

"""The line to Google: its client, what is asked again and when, and errors that give no key away."""

from __future__ import annotations

import asyncio
import os
import random
import re
import threading
import weakref
from asyncio import sleep
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MissingExtra, MissingKey

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from google.genai import Client
    from google.genai.errors import APIError
    from google.genai.models import AsyncModels
    from google.genai.types import Part

Answer = TypeVar("Answer")

MAX_CONCURRENT_REQUESTS = 4  # requests on their way
MAX_ATTEMPTS, FIRST_BACKOFF_SECONDS = (
    7,
    1.0,
)  # doubled after each try: together about a minute, which outlasts a quota by the minute
REQUEST_TIMEOUT_SECONDS = 120.0  # seconds for one whole answer
MAX_RETRY_AFTER_SECONDS = (
    120.0  # the longest wait that a refusal may ask for; a quota by the day asks for more
)
RETRYABLE_STATUS_CODES = {408, 429}  # and all from 500
STATUS_HINTS = {
    400: "if one picture is not taken, or the key is not known, the whole request is refused",
    401: "check the key or the credentials",
    403: "check the key, and that its project may use this API",
    404: "check the model's name",
    429: "the quota is used up; run again later",
}


class InvalidResponse(ValueError):
    """An answer that came, but not as it was asked for."""


class RequestFailed(Exception):
    """A request that is not asked again, and why."""


class GoogleClient:
    """Google's client, and an event loop for it in a thread of its own, so that encode() may be called where another loop runs.

    An event loop, because only that ends an answer that drips in for ever: the client's timeout is one for each read.
    """

    def __init__(self) -> None:
        """Take access from the environment; raises MissingExtra or MissingKey."""
        self._client, self._credentials = (
            _create_client()
        )  # kept: the client hangs up when it is collected
        self._loop = asyncio.new_event_loop()
        self.request_slots = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)
        self.models: AsyncModels = self._client.aio.models
        threading.Thread(
            target=_run_loop, args=(self._loop, self._client), name="google", daemon=True
        ).start()
        weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Do `work` in the loop, and give it up on Ctrl-C."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            future.result()
        finally:
            future.cancel()

    def redact(self, message: object) -> str:
        """A message in one line of bearable length, without key or token: servers repeat what they were sent."""
        text = " ".join(str(message).split())
        for secret in (*_read_api_keys(), getattr(self._credentials, "token", None)):
            text = text.replace(secret, "***") if secret else text
        return re.sub(r"(?i)(bearer\s+|[?&]key=)[^\s&'\"]+", r"\1***", text)[:300]


class RequestBatch:
    """What one encode() asks for; `failure`, when there is one, says why nothing more is to be asked."""

    def __init__(self, client: GoogleClient) -> None:
        """Nothing is asked yet."""
        self.client, self.failure = client, ""

    async def call_with_retries(self, send: Callable[[AsyncModels], Awaitable[Answer]]) -> Answer:
        """What `send` makes of an answer. Asks again where that can help; raises Failed where it did not.

        A useless answer may have been cut on its way, so it is asked for again; but it is paid for, so only once.
        """
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.genai.errors import APIError

        useless = 0
        for tries in range(1, MAX_ATTEMPTS + 1):
            asked, again = 0.0, True
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                    return await send(self.client.models)
            except APIError as error:
                reason = self.client.redact(f"{error.code} {error.status}: {error.message}")
                reason += f" ({STATUS_HINTS[error.code]})" if error.code in STATUS_HINTS else ""
                asked, again = (
                    _parse_retry_after(error),
                    error.code in RETRYABLE_STATUS_CODES or error.code >= 500,
                )
            except GoogleAuthError as error:
                reason, again = (
                    f"no token for the credentials: {self.client.redact(error)}",
                    isinstance(error, TransportError),
                )
            except TimeoutError:
                reason = f"no whole answer in {REQUEST_TIMEOUT_SECONDS:g} s"
            except InvalidResponse as error:
                useless += 1
                reason, again = f"a useless answer: {error}", useless < 2
            except (
                ValueError,
                TypeError,
                LookupError,
                AttributeError,
            ) as error:  # the client trips over what is no answer
                useless += 1
                reason, again = (
                    f"an answer that cannot be read ({type(error).__name__})",
                    useless < 2,
                )
            except Exception as error:  # the network's, of whichever HTTP package the client uses
                reason = (
                    f"the connection failed: {self.client.redact(error) or type(error).__name__}"
                )
            # No error is being handled here, so that none, with a key in it, hangs on what is raised.
            if not again or tries == MAX_ATTEMPTS:
                raise RequestFailed(f"{reason}; tried {tries} times" if tries > 1 else reason)
            if asked > MAX_RETRY_AFTER_SECONDS:
                raise RequestFailed(f"{reason}; it asks to wait for {asked:.0f} s")
            await sleep(asked + FIRST_BACKOFF_SECONDS * 2 ** (tries - 1) * random.uniform(0.5, 1.0))
            if self.failure:
                raise RequestFailed(reason)
        raise AssertionError("the last try ends above")

    async def request_embeddings(
        self, model: str, parts: Sequence[Part], dim: int
    ) -> NDArray[np.float32]:
        """A row of `dim` numbers for each part, checked."""
        # Parts of one content become one vector, without a word about it; so each is a content of its own.
        contents = [{"role": "user", "parts": [part]} for part in parts]

        async def send(models: AsyncModels) -> NDArray[np.float32]:
            answer = await models.embed_content(
                model=model, contents=contents, config={"output_dimensionality": dim}
            )
            given = [embedding.values or [] for embedding in answer.embeddings or []]
            if len(given) != len(contents):
                raise InvalidResponse(f"{len(given)} vectors instead of {len(contents)}")
            if other := {len(values) for values in given} - {dim}:
                raise InvalidResponse(
                    f"vectors of {min(other)} numbers instead of {dim}; for a model of that length write {model}@{min(other)}"
                )
            with np.errstate(over="ignore"):
                rows: NDArray[np.float32] = np.array(given, np.float64).astype(np.float32)
            if not np.isfinite(rows).all() or not rows.any(axis=1).all():
                raise InvalidResponse("a vector that is zero or not finite")
            return rows

        return await self.call_with_retries(send)


def _create_client() -> tuple[Client, Credentials | None]:
    """Google's client, and its credentials where it has no key. All that gives access comes from the environment."""
    try:
        import google.auth
        import google.genai
        from google.auth.exceptions import DefaultCredentialsError
    except ImportError as error:
        raise MissingExtra(
            f"Google's models need packages that are not installed ({error.name}); run `pip install 'neardup[google]'`"
        ) from error
    options = {
        "timeout": round(REQUEST_TIMEOUT_SECONDS * 1000),
        "retry_options": {
            "attempts": 1
        },  # ours alone: with some HTTP packages the client tries again unless told not to
    }
    flags = (
        os.environ.get(f"GOOGLE_GENAI_USE_{name}", "").lower()
        for name in ("VERTEXAI", "ENTERPRISE")
    )
    if not any(flag in ("1", "true") for flag in flags):
        if not any(_read_api_keys()):
            raise MissingKey(
                "Google's models need a key in the environment: set GEMINI_API_KEY (from https://aistudio.google.com/apikey);"
                " or, for Vertex AI, GOOGLE_GENAI_USE_VERTEXAI=true and GOOGLE_CLOUD_PROJECT"
            )
        return google.genai.Client(vertexai=False, http_options=options), None
    try:
        credentials, project = google.auth.default(
            scopes=["https://www.googleapis.com/auth/cloud-platform"]
        )
    except DefaultCredentialsError:
        raise MissingKey(
            "Vertex AI finds no credentials; run `gcloud auth application-default login`"
        ) from None
    # Said, not left to the client: where they stand in the environment only, it forgets them beside GOOGLE_VERTEX_BASE_URL.
    project, location = (
        os.environ.get("GOOGLE_CLOUD_PROJECT") or project,
        os.environ.get("GOOGLE_CLOUD_LOCATION") or "global",
    )
    if not project:
        raise MissingKey("Vertex AI needs to know who pays: set GOOGLE_CLOUD_PROJECT")
    return google.genai.Client(
        vertexai=True,
        credentials=credentials,
        project=project,
        location=location,
        http_options=options,
    ), credentials


def _run_loop(loop: asyncio.AbstractEventLoop, client: Client) -> None:
    loop.run_forever()
    loop.run_until_complete(client.aio.aclose())
    loop.close()
    client.close()


def _read_api_keys() -> list[str]:
    return [os.environ.get(name, "").strip() for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY")]


def _parse_retry_after(error: APIError) -> float:
    """Seconds that a refusal asks to wait: in the header for it, a number or a date, or in its details, as Google does; else 0."""
    header = str((getattr(error.response, "headers", None) or {}).get("retry-after", ""))
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)", header) or re.search(
        r"'retryDelay': '(\d+(?:\.\d+)?)s'", str(error.details)
    ):
        return float(found[1])
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0

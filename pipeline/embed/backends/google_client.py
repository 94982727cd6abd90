"""Requests to Google's API: the client, the retry policy, and errors without secrets."""

from __future__ import annotations

import asyncio
import os
import random
import re
import threading
import weakref
from asyncio import sleep, timeout
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
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

MAX_CONCURRENT_REQUESTS = 4
MAX_ATTEMPTS = 7
# Doubled after each attempt: together about a minute, which outlasts a per-minute quota.
FIRST_BACKOFF_SECONDS = 1.0
# Unusable answers to one request; the second ends it, because such answers are paid for too.
MAX_INVALID_ANSWERS = 2
# Bounds one complete answer, from sending the request to its last byte.
REQUEST_TIMEOUT_SECONDS = 120.0
# The longest wait that a refusal may ask for; a daily quota asks for more.
MAX_RETRY_AFTER_SECONDS = 120.0
# Beside these, every status from 500 on is retried.
RETRYABLE_STATUS_CODES = {408, 429}
STATUS_HINTS = {
    400: "an unsupported image or an unknown key makes the API refuse the whole request",
    401: "check the key or the credentials",
    403: "check the key, and that its project may use this API",
    404: "check the model name",
    429: "the quota is used up; run again later",
}
MAX_ERROR_CHARS = 300  # of a message that a server sent


class InvalidResponse(ValueError):
    """An answer that arrived but does not have the requested form."""


class RequestFailed(Exception):
    """A request that is not retried any more; the message says why."""


@dataclass(frozen=True)
class _Fault:
    """Why an attempt failed, and whether and when to repeat it."""

    reason: str
    is_retryable: bool = True
    is_answer: bool = False  # an answer arrived, is unusable, and is probably paid for
    wait_seconds: float = 0.0  # that the server asks for


class GoogleClient:
    """Google's client with an event loop in a thread of its own.

    The thread makes `encode` callable where another event loop runs. The loop is needed because
    only its timeout ends an answer that arrives a byte at a time: the client's own timeout starts
    again at each read.
    """

    def __init__(self) -> None:
        """Read the key or credentials from the environment. Raises MissingExtra or MissingKey."""
        # Kept here, because the client closes its connections when it is garbage collected.
        self._client, self._credentials = _create_client()
        self._loop = asyncio.new_event_loop()
        self.request_slots = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)
        self.models: AsyncModels = self._client.aio.models
        threading.Thread(
            target=_run_loop, args=(self._loop, self._client), name="google", daemon=True
        ).start()
        weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run `coroutine` in the event loop and wait for it; cancel it on Ctrl-C."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            future.result()
        finally:
            future.cancel()

    def redact(self, message: object) -> str:
        """Format a message as one short line without keys and tokens, which servers repeat."""
        text = " ".join(str(message).split())
        for secret in (*_read_api_keys(), getattr(self._credentials, "token", None)):
            text = text.replace(secret, "***") if secret else text
        return re.sub(r"(?i)(bearer\s+|[?&]key=)[^\s&'\"]+", r"\1***", text)[:MAX_ERROR_CHARS]


class RequestBatch:
    """The requests of one `encode`. Once `failure` is set, no further request starts."""

    def __init__(self, client: GoogleClient) -> None:
        """Start without a failure."""
        self.client = client
        self.failure: str | None = None  # the first failure, as a message

    async def call_with_retries(self, send: Callable[[AsyncModels], Awaitable[Answer]]) -> Answer:
        """Call `send` until it returns an answer. Raises RequestFailed when retrying cannot help.

        An unusable answer may have been truncated on the way, so it is requested again, but only
        once, because it is paid for.
        """
        invalid_answers = 0
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                async with timeout(REQUEST_TIMEOUT_SECONDS):
                    return await send(self.client.models)
            except Exception as error:  # any error of the HTTP package that the client uses
                fault = _diagnose(error, self.client)
            # Raised outside the except clause: a chained exception may contain the key.
            invalid_answers += fault.is_answer
            can_retry = fault.is_retryable and invalid_answers < MAX_INVALID_ANSWERS
            if not can_retry or attempt == MAX_ATTEMPTS:
                attempts = f"; tried {attempt} times" if attempt > 1 else ""
                raise RequestFailed(fault.reason + attempts)
            if fault.wait_seconds > MAX_RETRY_AFTER_SECONDS:
                raise RequestFailed(
                    f"{fault.reason}; the service asks to wait {fault.wait_seconds:.0f} s"
                )
            backoff = FIRST_BACKOFF_SECONDS * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
            await sleep(fault.wait_seconds + backoff)
            if self.failure:
                raise RequestFailed(fault.reason)
        raise AssertionError("the last attempt returns or raises")

    async def request_embeddings(
        self, model: str, parts: Sequence[Part], dim: int
    ) -> NDArray[np.float32]:
        """Request a vector of each part and check the answer; returns (parts, dim).

        Each part is a content of its own: the service silently merges the parts of one content
        into one vector.
        """
        contents = [{"role": "user", "parts": [part]} for part in parts]

        async def send(models: AsyncModels) -> NDArray[np.float32]:
            answer = await models.embed_content(
                model=model, contents=contents, config={"output_dimensionality": dim}
            )
            vectors = [embedding.values or [] for embedding in answer.embeddings or []]
            return _check_vectors(vectors, len(contents), model, dim)

        return await self.call_with_retries(send)


def _check_vectors(
    vectors: list[list[float]], count: int, model: str, dim: int
) -> NDArray[np.float32]:
    """Convert `count` vectors of `dim` numbers to an array. Raises InvalidResponse for others."""
    if len(vectors) != count:
        raise InvalidResponse(f"{len(vectors)} vectors instead of {count}")
    if wrong_dims := {len(vector) for vector in vectors} - {dim}:
        wrong_dim = min(wrong_dims)
        raise InvalidResponse(
            f"vectors of {wrong_dim} numbers instead of {dim};"
            f" for a model of that length write {model}@{wrong_dim}"
        )
    with np.errstate(over="ignore"):
        rows: NDArray[np.float32] = np.array(vectors, np.float64).astype(np.float32)
    if not np.isfinite(rows).all() or not rows.any(axis=1).all():
        raise InvalidResponse("a vector that is zero or not finite")
    return rows


def _diagnose(error: Exception, client: GoogleClient) -> _Fault:
    """Explain why an attempt failed, without keys or tokens."""
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.genai.errors import APIError

    if isinstance(error, APIError):
        reason = client.redact(f"{error.code} {error.status}: {error.message}")
        if hint := STATUS_HINTS.get(error.code):
            reason += f" ({hint})"
        is_retryable = error.code in RETRYABLE_STATUS_CODES or error.code >= 500
        return _Fault(reason, is_retryable, wait_seconds=_parse_retry_after(error))
    if isinstance(error, GoogleAuthError):
        reason = f"no token for the credentials: {client.redact(error)}"
        return _Fault(reason, isinstance(error, TransportError))
    if isinstance(error, TimeoutError):
        return _Fault(f"no complete answer within {REQUEST_TIMEOUT_SECONDS:g} s")
    if isinstance(error, InvalidResponse):
        return _Fault(f"unusable answer: {error}", is_answer=True)
    # The client fails in these ways to parse an answer that is not what it expects.
    if isinstance(error, ValueError | TypeError | LookupError | AttributeError):
        return _Fault(f"unreadable answer ({type(error).__name__})", is_answer=True)
    return _Fault(f"the connection failed: {client.redact(error) or type(error).__name__}")


def _create_client() -> tuple[Client, Credentials | None]:
    """Create Google's client from the environment, with its credentials unless it uses a key."""
    try:
        import google.auth
        import google.genai
    except ImportError as error:
        raise MissingExtra(
            f"Google's models need packages that are not installed ({error.name});"
            " run `pip install 'neardup[google]'`"
        ) from error
    options = {
        "timeout": round(REQUEST_TIMEOUT_SECONDS * 1000),
        # With some HTTP packages the client retries by default; only this module should.
        "retry_options": {"attempts": 1},
    }
    if _uses_vertex_ai():
        return _create_vertex_client(options)
    if not any(_read_api_keys()):
        raise MissingKey(
            "Google's models need a key in the environment: set GEMINI_API_KEY"
            " (from https://aistudio.google.com/apikey);"
            " or, for Vertex AI, GOOGLE_GENAI_USE_VERTEXAI=true and GOOGLE_CLOUD_PROJECT"
        )
    return google.genai.Client(vertexai=False, http_options=options), None


def _create_vertex_client(options: dict[str, Any]) -> tuple[Client, Credentials]:
    """Create a client for Vertex AI with the default credentials of the environment."""
    import google.auth
    import google.genai
    from google.auth.exceptions import DefaultCredentialsError

    try:
        credentials, default_project = google.auth.default(
            scopes=["https://www.googleapis.com/auth/cloud-platform"]
        )
    except DefaultCredentialsError:
        raise MissingKey(
            "Vertex AI finds no credentials; run `gcloud auth application-default login`"
        ) from None
    # Passed explicitly: beside GOOGLE_VERTEX_BASE_URL, the client ignores both variables.
    project = os.environ.get("GOOGLE_CLOUD_PROJECT") or default_project
    location = os.environ.get("GOOGLE_CLOUD_LOCATION") or "global"
    if not project:
        raise MissingKey("Vertex AI needs the project that pays; set GOOGLE_CLOUD_PROJECT")
    client = google.genai.Client(
        vertexai=True,
        credentials=credentials,
        project=project,
        location=location,
        http_options=options,
    )
    return client, credentials


def _uses_vertex_ai() -> bool:
    variables = ("GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE")
    return any(os.environ.get(variable, "").lower() in ("1", "true") for variable in variables)


def _run_loop(loop: asyncio.AbstractEventLoop, client: Client) -> None:
    loop.run_forever()
    loop.run_until_complete(client.aio.aclose())
    loop.close()
    client.close()


def _read_api_keys() -> list[str]:
    return [os.environ.get(name, "").strip() for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY")]


def _parse_retry_after(error: APIError) -> float:
    """Return the seconds that a refusal asks to wait; 0 if it does not say.

    They are in the Retry-After header, as a number or a date, or in Google's error details.
    """
    header = str((getattr(error.response, "headers", None) or {}).get("retry-after", ""))
    seconds = re.fullmatch(r"(\d+(?:\.\d+)?)", header) or re.search(
        r"'retryDelay': '(\d+(?:\.\d+)?)s'", str(error.details)
    )
    if seconds:
        return float(seconds[1])
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0

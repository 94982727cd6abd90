"""A local server that answers like Google's two APIs, and faults of such answers.

Vectors depend only on the pixels and texts of a request.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.http import serve_http

API_KEY = "AIza-test-key-that-must-stay-secret"
ACCESS_TOKEN = "ya29.test-token-that-must-stay-secret"
MODEL = "google:gemini-embedding-2@128"
DESCRIBE_MODEL = "google-describe:gemini-3-flash+gemini-embedding-001@128"
Inputs = list[NDArray[np.uint8]]
# Projects 8 x 8 RGB pixels and a constant to vectors.
AXES = np.random.default_rng(0).standard_normal((3 * 8 * 8 + 1, 3072))


@dataclass
class Request:
    """A request that the server received."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def contents(self) -> list[dict[str, Any]]:
        """The contents to embed or describe."""
        if "requests" in self.body:
            return [request["content"] for request in self.body["requests"]]
        return [self.body["content"]] if "content" in self.body else self.body.get("contents", [])

    @property
    def jpegs(self) -> list[bytes]:
        """All images of the request, in order."""
        parts = [part for content in self.contents for part in content["parts"]]
        return [jpeg for part in parts if (jpeg := _decode_jpeg(part))]

    @property
    def dim(self) -> int:
        """The requested dimension."""
        first = self.body.get("requests", [self.body])[0]
        return int(
            first.get("outputDimensionality") or first["embedContentConfig"]["outputDimensionality"]
        )


@dataclass
class FakeGoogle:
    """The server.

    Each request takes the next of `faults`, None for a correct answer. Once these are used up,
    `choose_fault` decides.
    """

    faults: deque[Fault | None] = field(default_factory=deque)
    choose_fault: Callable[[], Fault | None] = lambda: None
    requests: list[Request] = field(default_factory=list)
    # How often each JPEG got a correct answer.
    answered_jpegs: Counter[bytes] = field(default_factory=Counter)
    max_concurrent: int = 0  # requests
    url: str = ""
    refused_jpegs: set[bytes] = field(default_factory=set)  # images not to describe
    _concurrent: int = 0  # requests
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def serve(self) -> Iterator[FakeGoogle]:
        """Answer on a port of this machine meanwhile."""
        google = self

        class Bound(Handler):
            def do_POST(self) -> None:
                google._answer(self)

        with serve_http(Bound) as self.url:
            yield self

    def _answer(self, handler: Handler) -> None:
        content = handler.rfile.read(int(handler.headers["Content-Length"]))
        if handler.path == "/token":
            handler.send(
                json.dumps(
                    {"access_token": ACCESS_TOKEN, "expires_in": 3600, "token_type": "Bearer"}
                ).encode()
            )
            return
        body = json.loads(content)
        request = Request(
            handler.path, {name.lower(): value for name, value in handler.headers.items()}, body
        )
        with self._lock:
            self.requests.append(request)
            self._concurrent += 1
            self.max_concurrent = max(self.max_concurrent, self._concurrent)
            fault = self.faults.popleft() if self.faults else self.choose_fault()
        try:
            if (
                request.headers.get("x-goog-api-key") != API_KEY
                and request.headers.get("authorization") != f"Bearer {ACCESS_TOKEN}"
            ):
                make_refusal(401, "no key")(handler, {})
            elif fault:
                fault(handler, self._make_answer(request))
            else:
                good = self._make_answer(request)
                with self._lock:  # before sending, so that the receiver finds it counted
                    self.answered_jpegs.update(request.jpegs)
                handler.send(json.dumps(good).encode())
        except OSError:
            pass  # the client closed the connection
        finally:
            with self._lock:
                self._concurrent -= 1

    def _make_answer(self, request: Request) -> dict[str, Any]:
        if request.path.endswith(":generateContent"):
            return self._make_description(request)
        rows = [{"values": embed_content(content, request.dim)} for content in request.contents]
        return (
            {"embedding": rows[0]}
            if request.path.endswith(":embedContent")
            else {"embeddings": rows}
        )

    def _make_description(self, request: Request) -> dict[str, Any]:
        (jpeg,) = request.jpegs
        if jpeg in self.refused_jpegs:
            return {"promptFeedback": {"blockReason": "SAFETY"}}
        words = " ".join(
            f"word{number}"
            for number in hashlib.sha256(decode_pixels(jpeg).tobytes()).digest()[:12]
        )
        return {
            "candidates": [
                {
                    "content": {"role": "model", "parts": [{"text": f"{words}\n"}]},
                    "finishReason": "STOP",
                }
            ]
        }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise each answer is delayed by 40 ms

    def send(
        self,
        content: bytes,
        status: int = 200,
        headers: dict[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        """Send an answer whose Content-Length is `length` (default: its true length)."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def decode_pixels(jpeg: bytes) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Scale a JPEG to 8 x 8 px and flatten it to numbers from 0 to 1."""
    return np.asarray(Image.open(io.BytesIO(jpeg)).resize((8, 8)), np.float64).ravel() / 255


def embed_content(content: dict[str, Any], dim: int) -> list[float]:
    """Compute the vector of a content, the mean of those of its parts, as the service does."""
    rows = []
    for part in content["parts"]:
        if jpeg := _decode_jpeg(part):
            rows.append(
                np.einsum("i,ij->j", np.append(decode_pixels(jpeg), 1), AXES[:, :dim])
            )  # not @, which starts threads that slow down the client
        else:
            rows.append(np.random.default_rng(list(part["text"].encode())).standard_normal(dim))
    return [float(number) for number in np.mean(rows, axis=0)]


def _decode_jpeg(part: dict[str, Any]) -> bytes | None:
    """Decode the image of a part, with either spelling of keys and either base64 alphabet."""
    inline = part.get("inlineData") or part.get("inline_data")
    if not inline:
        return None
    assert (inline.get("mimeType") or inline.get("mime_type")) == "image/jpeg"
    return base64.b64decode(inline["data"].replace("-", "+").replace("_", "/"), validate=True)


# A fault answers a request in its own way; it receives the correct answer.

Fault = Callable[[Handler, dict[str, Any]], None]


def make_refusal(
    code: int,
    message: str = "no",
    retry_after: str | None = None,
    details: list[dict[str, str]] | None = None,
) -> Fault:
    """Make a refusal in Google's format."""
    error = {
        "error": {"code": code, "message": message, "status": "REFUSED", "details": details or []}
    }
    headers = {"Retry-After": retry_after} if retry_after else None
    return lambda handler, good: handler.send(json.dumps(error).encode(), code, headers)


def make_changed_answer(change: Callable[[dict[str, Any]], object]) -> Fault:
    """Make an answer that `change` modifies in place."""

    def fault(handler: Handler, good: dict[str, Any]) -> None:
        change(good)
        handler.send(json.dumps(good).encode())

    return fault


def send_broken_json(handler: Handler, good: dict[str, Any]) -> None:
    """Send half of the JSON as a complete answer."""
    content = json.dumps(good).encode()
    handler.send(content[: len(content) // 2])


def cut_connection(handler: Handler, good: dict[str, Any]) -> None:
    """Send half of the announced bytes, then close the connection."""
    content = json.dumps(good).encode()
    handler.send(content[: len(content) // 2], length=len(content))
    handler.close_connection = True


def reset_connection(handler: Handler, good: dict[str, Any]) -> None:
    """Reset the connection."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def make_unfinished_answer(meanwhile: Callable[[], object]) -> Fault:
    """Make an answer that stops after a few bytes; `meanwhile` is called before it goes on.

    It goes on once the client has closed the connection, so it never does.
    """

    def fault(handler: Handler, good: dict[str, Any]) -> None:
        handler.send(b" " * 10, length=1000)
        meanwhile()
        handler.connection.settimeout(10)
        handler.connection.recv(1)

    return fault


def make_late_answer(event: threading.Event) -> Fault:
    """Make a correct answer that is sent once `event` is set."""

    def fault(handler: Handler, good: dict[str, Any]) -> None:
        event.wait(10)
        handler.send(json.dumps(good).encode())

    return fault


def make_noise_inputs(count: int, seed: int = 0) -> Inputs:
    """Make `count` different images of 8 x 8 px."""
    return list(np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8))


def rows_match_requests(
    rows: NDArray[np.float32], requests: Sequence[Request], inputs: Inputs
) -> bool:
    """Return True if row n is the vector of the JPEG of input n."""
    jpegs = [jpeg for request in requests for jpeg in request.jpegs]
    sent_pixels = np.array([decode_pixels(jpeg) for jpeg in jpegs])
    input_pixels = np.array([pixels.ravel() / 255 for pixels in inputs])
    nearest = (
        ((sent_pixels[:, None] - input_pixels[None]) ** 2).sum(axis=2).argmin(axis=1)
    )  # the input of each JPEG
    expected = {
        int(index): content
        for index, content in zip(
            nearest,
            (content for request in requests for content in request.contents),
            strict=True,
        )
    }
    return all(
        np.allclose(rows[index], embed_content(expected[index], 128), atol=1e-3)
        for index in range(len(inputs))
    )

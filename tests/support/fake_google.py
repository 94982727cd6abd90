"""A server on this machine that answers as Google's two APIs do: vectors made from the pixels and texts that it is sent, and faults."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np
from PIL import Image

from tests.support.http import serve_http

API_KEY, ACCESS_TOKEN = "AIza-test-key-that-nobody-may-see", "ya29.test-token-that-nobody-may-see"
AXES = np.random.default_rng(0).standard_normal((3 * 8 * 8 + 1, 3072))


@dataclass
class Request:
    """What came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def contents(self) -> list[dict[str, Any]]:
        """The contents to embed or to describe."""
        if "requests" in self.body:
            return [request["content"] for request in self.body["requests"]]
        return [self.body["content"]] if "content" in self.body else self.body.get("contents", [])

    @property
    def jpegs(self) -> list[bytes]:
        """All pictures in it, in order."""
        found = [_jpeg(part) for content in self.contents for part in content["parts"]]
        return [jpeg for jpeg in found if jpeg]

    @property
    def dim(self) -> int:
        """The length of a row that is asked for."""
        first = self.body.get("requests", [self.body])[0]
        return int(
            first.get("outputDimensionality") or first["embedContentConfig"]["outputDimensionality"]
        )


@dataclass
class FakeGoogle:
    """The server. `faults` are used up by the next requests, None being an answer without fault; then `chance` is asked for one."""

    faults: deque[Fault | None] = field(default_factory=deque)
    choose_fault: Callable[[], Fault | None] = lambda: None
    requests: list[Request] = field(default_factory=list)
    answered_jpegs: Counter[bytes] = field(
        default_factory=Counter
    )  # JPEGs that an answer without fault was given for
    max_concurrent: int = 0  # requests at once
    url: str = ""
    refused_jpegs: set[bytes] = field(default_factory=set)  # JPEGs that will not be described
    _now: int = 0
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
            self._now += 1
            self.max_concurrent = max(self.max_concurrent, self._now)
            fault = self.faults.popleft() if self.faults else self.choose_fault()
        try:
            if (
                request.headers.get("x-goog-api-key") != API_KEY
                and request.headers.get("authorization") != f"Bearer {ACCESS_TOKEN}"
            ):
                make_refusal(401, "no key")(handler, {})
            elif fault:
                fault(handler, self._good(request))
            else:
                good = self._good(request)
                with (
                    self._lock
                ):  # before it is sent, so that whoever has the answer sees it counted
                    self.answered_jpegs.update(request.jpegs)
                handler.send(json.dumps(good).encode())
        except OSError:
            pass  # the other side hung up
        finally:
            with self._lock:
                self._now -= 1

    def _good(self, request: Request) -> dict[str, Any]:
        if request.path.endswith(":generateContent"):
            return self._described(request)
        rows = [{"values": embed_content(content, request.dim)} for content in request.contents]
        return (
            {"embedding": rows[0]}
            if request.path.endswith(":embedContent")
            else {"embeddings": rows}
        )

    def _described(self, request: Request) -> dict[str, Any]:
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
    disable_nagle_algorithm = True  # or each answer waits for 40 ms

    def send(
        self,
        content: bytes,
        status: int = 200,
        headers: dict[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        """An answer, `length` being the bytes that it promises."""
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
    """A JPEG brought down to 8 x 8 colours."""
    return np.asarray(Image.open(io.BytesIO(jpeg)).resize((8, 8)), np.float64).ravel() / 255


def embed_content(content: dict[str, Any], dim: int) -> list[float]:
    """The vector of a content, a function of nothing else: the mean of its parts', as the service merges them."""
    rows = []
    for part in content["parts"]:
        if jpeg := _jpeg(part):
            rows.append(
                np.einsum("i,ij->j", np.append(decode_pixels(jpeg), 1), AXES[:, :dim])
            )  # @ starts threads that crowd out the client's
        else:
            rows.append(np.random.default_rng(list(part["text"].encode())).standard_normal(dim))
    return [float(number) for number in np.mean(rows, axis=0)]


def _jpeg(part: dict[str, Any]) -> bytes | None:
    """The picture in a part; both ways to write names, and both alphabets of base64, are allowed."""
    inline = part.get("inlineData") or part.get("inline_data")
    if not inline:
        return None
    assert (inline.get("mimeType") or inline.get("mime_type")) == "image/jpeg"
    return base64.b64decode(inline["data"].replace("-", "+").replace("_", "/"), validate=True)


# Faults: what is done in the place of a good answer, which is given.

Fault = Callable[[Handler, dict[str, Any]], None]


def make_refusal(
    code: int,
    message: str = "no",
    retry_after: str | None = None,
    details: list[dict[str, str]] | None = None,
) -> Fault:
    """A refusal in the form of Google's, with a Retry-After of `wait`."""
    error = {
        "error": {"code": code, "message": message, "status": "REFUSED", "details": details or []}
    }
    headers = {"Retry-After": retry_after} if retry_after else None
    return lambda handler, good: handler.send(json.dumps(error).encode(), code, headers)


def make_changed_answer(change: Callable[[dict[str, Any]], object]) -> Fault:
    """An answer that `change` was let loose on."""

    def fault(handler: Handler, good: dict[str, Any]) -> None:
        change(good)
        handler.send(json.dumps(good).encode())

    return fault


def send_broken_json(handler: Handler, good: dict[str, Any]) -> None:
    """Half the JSON, as a whole answer."""
    content = json.dumps(good).encode()
    handler.send(content[: len(content) // 2])


def cut_connection(handler: Handler, good: dict[str, Any]) -> None:
    """Half of the bytes that were promised, then the end of the connection."""
    content = json.dumps(good).encode()
    handler.send(content[: len(content) // 2], length=len(content))
    handler.close_connection = True


def reset_connection(handler: Handler, good: dict[str, Any]) -> None:
    """The connection reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def send_slowly(handler: Handler, good: dict[str, Any]) -> None:
    """The right answer, a byte at a time."""
    handler.send(b"", length=1000)
    for _ in range(1000):
        handler.wfile.write(b" ")
        time.sleep(0.02)


def make_late_answer(event: threading.Event) -> Fault:
    """The right answer, a moment after `until`."""

    def fault(handler: Handler, good: dict[str, Any]) -> None:
        event.wait(10)
        time.sleep(0.05)
        handler.send(json.dumps(good).encode())

    return fault

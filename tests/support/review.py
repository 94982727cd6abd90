"""A server of `neardup review` that runs in this process, on a port or a Unix socket of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn

from pipeline.review.web.credentials import Credentials, load_api_token
from pipeline.review.web.guard import CSRF_HEADER, allow_port
from pipeline.review.web.server import BACKLOG, bind_port, make_config
from pipeline.review.web.service import Service

MAX_START_SECONDS = 30.0
AUTHOR = "Ada"


@dataclass(frozen=True)
class RunningReview:
    """A server that accepts connections: its address, secrets and service."""

    address: str
    credentials: Credentials
    service: Service

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def open_program(self) -> httpx.Client:
        """Open a client with the token of programs."""
        token = {"Authorization": f"Bearer {self.credentials.api_token}"}
        return httpx.Client(base_url=self.address, headers=token, timeout=60)

    def open_browser(self) -> httpx.Client:
        """Open a client with the cookie of a browser, and what its pages send."""
        client = httpx.Client(base_url=self.address, timeout=60)
        client.cookies.set(self.credentials.cookie_name, self.credentials.session)
        client.headers.update(
            {
                "Origin": self.address,
                "Sec-Fetch-Site": "same-origin",
                CSRF_HEADER: self.credentials.csrf,
            }
        )
        return client

    def send_raw(self, data: bytes, *, shut: bool = False) -> bytes:
        """Send bytes as they are, close that side if asked to, and return the whole answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(data)
            if shut:
                connection.shutdown(socket.SHUT_WR)
            received = b""
            while chunk := connection.recv(65_536):
                received += chunk
            return received


@contextmanager
def serve_review(
    folder: Path, *, is_read_only: bool = False, with_listing: bool = True
) -> Iterator[RunningReview]:
    """Serve the store in `folder` within the context; with its groups listed, if asked to."""
    token, _ = load_api_token(folder)
    service = Service(folder, Credentials(token), AUTHOR, is_read_only=is_read_only)
    if with_listing:
        service.listing.refresh()
    listener = bind_port(0)
    listener.listen(BACKLOG)
    port = listener.getsockname()[1]
    server = uvicorn.Server(make_config(service, allow_port(port)))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        deadline = time.monotonic() + MAX_START_SECONDS
        while not server.started and thread.is_alive():
            assert time.monotonic() < deadline, "the server did not start"
            thread.join(0.01)  # gives up the processor; nothing depends on how long it takes
        yield RunningReview(f"http://127.0.0.1:{port}", service.credentials, service)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()

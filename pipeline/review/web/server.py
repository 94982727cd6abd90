"""Listen on the loopback or a Unix socket, and serve until a signal."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from indexes.paths import quote
from indexes.store import Store
from pipeline.errors import AddressUnavailable
from pipeline.review.web.app import make_app
from pipeline.review.web.connections import LimitedConnection
from pipeline.review.web.credentials import Credentials, load_api_token
from pipeline.review.web.guard import IsHostAllowed, allow_any_port, allow_port
from pipeline.review.web.service import Service

LOOPBACK = "127.0.0.1"
BACKLOG = 2048  # connections that wait to be accepted
KEEP_ALIVE_SECONDS = 30
STOP_SECONDS = 5  # that requests get to end after a signal
MAX_HEADER_BYTES = 1 << 15
SOCKET_UMASK = 0o177  # only the owner can connect


@dataclass(frozen=True)
class Started:
    """A server that listens: the link for a browser, and the file of the token of programs.

    On a Unix socket the link is for the end of a tunnel, on the port that it has here.
    """

    link: str
    socket_path: Path | None
    token_path: Path | None


@dataclass(frozen=True)
class ServerOptions:
    """Where a server listens, `port` 0 for any that is free; who decides; what it may change."""

    port: int = 0
    socket_path: Path | None = None
    author: str = ""
    is_read_only: bool = False


def serve(folder: Path, options: ServerOptions, announce: Callable[[Started], None]) -> int:
    """Serve the store in `folder` until SIGINT or SIGTERM; returns the number of the signal.

    Calls `announce` once connections are accepted. Call it in the main thread. Raises StoreMissing
    and other errors of a store, and AddressUnavailable.
    """
    Store(folder).close()  # before anything is made in the folder
    with _listen(options) as listener:
        token, token_path = load_api_token(folder)
        credentials = Credentials(token)
        host, is_host_allowed = _name_host(listener)
        service = Service(folder, credentials, options.author, is_read_only=options.is_read_only)
        server = _Server(make_config(service, is_host_allowed))
        link = f"http://{host}/?token={credentials.link_token}"
        announce(Started(link, options.socket_path, token_path))
        try:
            server.run([listener])
        finally:
            service.close()
    return server.signal_number


def make_config(service: Service, is_host_allowed: IsHostAllowed) -> uvicorn.Config:
    """Make the configuration of a server: nothing of a proxy or WebSocket is believed."""
    return uvicorn.Config(
        make_app(service, is_host_allowed),
        http=LimitedConnection,
        ws="none",
        lifespan="on",
        loop="asyncio",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )


class _Server(uvicorn.Server):
    """A server that stops at a signal and keeps its number, instead of raising it once more."""

    signal_number = 0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first SIGINT or SIGTERM, and at once at the second."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.force_exit = self.should_exit
            self.should_exit, self.signal_number = True, number

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _listen(options: ServerOptions) -> Iterator[socket.socket]:
    """Listen within the context. Raises AddressUnavailable."""
    path = options.socket_path
    listener = bind_port(options.port) if path is None else _bind_path(path)
    try:
        listener.listen(BACKLOG)
        yield listener
    finally:
        listener.close()
        if path is not None:
            path.unlink(missing_ok=True)


def bind_port(port: int) -> socket.socket:
    """Bind a port of the loopback, 0 for any that is free. Raises AddressUnavailable."""
    # With the protocol, asyncio sends small answers at once (TCP_NODELAY); without, 40 ms later.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError as error:
        listener.close()
        is_used = error.errno == errno.EADDRINUSE
        reason = "is in use, perhaps by another `neardup review`" if is_used else error.strerror
        raise AddressUnavailable(f"port {port} {reason}; choose another with --port") from error
    return listener


def _bind_path(path: Path) -> socket.socket:
    """Bind a Unix socket that only its owner can use; one that has no server is replaced."""
    advice = "choose another with --socket"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.lexists(path):
            _remove_unused(path)
        mask = os.umask(SOCKET_UMASK)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(mask)
    except OSError as error:  # also a path that is too long
        listener.close()
        reason = error.strerror or error
        raise AddressUnavailable(f"{quote(str(path))}: {reason}; {advice}") from error
    except AddressUnavailable:
        listener.close()
        raise
    return listener


def _remove_unused(path: Path) -> None:
    """Remove a socket that a killed server left. Raises AddressUnavailable for anything else."""
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise AddressUnavailable(
            f"{quote(str(path))} exists and is no socket; choose another with --socket"
        )
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe,
        suppress(ConnectionRefusedError),
    ):
        probe.connect(os.fspath(path))
        raise AddressUnavailable(
            f"{quote(str(path))} is in use, perhaps by another `neardup review`; choose another"
            " with --socket"
        )
    path.unlink()


def _name_host(listener: socket.socket) -> tuple[str, IsHostAllowed]:
    """Return the host of the link, and which hosts are answered."""
    if listener.family == socket.AF_UNIX:
        return "localhost", allow_any_port()
    port = listener.getsockname()[1]
    return f"{LOOPBACK}:{port}", allow_port(port)

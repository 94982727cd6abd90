"""Connections without a request: they end, and leave room for others."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack

import pytest

from pipeline.review.web import connections
from tests.review.web.conftest import Library
from tests.support.review import serve_review

BEGINNINGS = [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"]


@pytest.mark.parametrize("sent", BEGINNINGS)
def test_connection_without_a_request_is_closed(
    library: Library, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.05)
    with serve_review(library.store, with_listing=False) as review:
        with socket.create_connection(("127.0.0.1", review.port), timeout=60) as connection:
            connection.sendall(sent)
            assert read_to_end(connection) == b""
        with review.open_program() as program:  # its connection is kept between requests
            for _ in range(2):
                assert program.get("/api/v1/status").status_code == 200


def test_body_that_never_ends_is_given_up(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.05)
    with serve_review(library.store, with_listing=False) as review:
        head = (
            "POST /api/v1/query HTTP/1.1\r\nContent-Length: 1000\r\n"
            f"Host: 127.0.0.1:{review.port}\r\n"
            f"Authorization: Bearer {review.credentials.api_token}\r\n\r\nsome"
        )
        with socket.create_connection(("127.0.0.1", review.port), timeout=60) as connection:
            connection.sendall(head.encode())
            assert not read_to_end(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", BEGINNINGS)
def test_many_connections_keep_nobody_out(
    library: Library, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    with serve_review(library.store, with_listing=False) as review, ExitStack() as stack:
        opened = []
        for _ in range(60):
            connection = socket.create_connection(("127.0.0.1", review.port), timeout=60)
            opened.append(stack.enter_context(connection))
            connection.sendall(sent)
        with review.open_program() as program:
            assert program.get("/api/v1/status").status_code == 200
        assert read_to_end(opened[0]) == b""  # the first one made room


def test_connections_leave_half_of_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, allowed in ((256, 128), (1024, 512), (1 << 20, 512)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, -1))
        assert connections.count_allowed_connections() == allowed


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the other side closes; a reset is an end, too."""
    received = b""
    try:
        while chunk := connection.recv(65_536):
            received += chunk
    except ConnectionResetError:
        pass
    return received

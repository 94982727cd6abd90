"""Workers apart from the requests of decode and verify, which have tests of their own."""

from __future__ import annotations

import os
import socket

import pytest

from pipeline.workers import shared_memory
from pipeline.workers.pool import RequestAbandoned
from pipeline.workers.process import MAX_LINE_BYTES, describe_exit, receive_line


@pytest.mark.parametrize(
    ("reasons", "message"),
    [
        (["it crashed"], "it crashed"),
        (["it crashed", "it crashed"], "it crashed, 2 times"),
        (["it crashed", "it hung"], "it crashed; then it hung"),
    ],
)
def test_abandoned_request_names_the_reason_of_each_process(
    reasons: list[str], message: str
) -> None:
    assert str(RequestAbandoned(reasons)) == message


@pytest.mark.parametrize(
    ("code", "text"), [(0, "exited with 0"), (3, "exited with 3"), (-9, "was killed by SIGKILL")]
)
def test_exit_is_described_by_code_or_signal(code: int, text: str) -> None:
    assert describe_exit(code) == text


def test_shared_memory_returns_what_was_put() -> None:
    memory_fd = shared_memory.create()
    try:
        shared_memory.put(memory_fd, b"a longer content")
        shared_memory.put(memory_fd, b"content")
        assert shared_memory.get(memory_fd, 7) == b"content"
        with pytest.raises(ValueError, match="7 bytes in shared memory, 8 expected"):
            shared_memory.get(memory_fd, 8)
    finally:
        os.close(memory_fd)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"one\ntwo\n", ValueError),
        (b"x" * (MAX_LINE_BYTES + 1), ValueError),
        (b"half a line", TimeoutError),
    ],
)
def test_receive_line_rejects_all_but_one_line(data: bytes, error: type[Exception]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        with pytest.raises(error):
            receive_line(ours, 0.05)


def test_receive_line_at_end_of_channel_raises() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(b"line\n")
        assert receive_line(ours, 10) == b"line\n"
        theirs.close()
        with pytest.raises(EOFError):
            receive_line(ours, 10)

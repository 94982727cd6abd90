"""Connections that a stranger cannot hold: they end without a request, and there are not too many.

Whoever can reach the port can connect, before any token is asked for. Without limits, as many
connections as the process may have files open would keep everybody else out.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 10.0  # until a request has come after its connection, or after its first bytes
BODY_SECONDS = 600.0  # until its body has come: the largest upload over a slow tunnel
MAX_CONNECTIONS = 512
MAX_SHARE_OF_FILES = 0.5  # that connections may have of the files that the process may open


def count_allowed_connections() -> int:
    """Count the connections that may be open at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_unlimited = soft == resource.RLIM_INFINITY
    return MAX_CONNECTIONS if is_unlimited else min(MAX_CONNECTIONS, int(soft * MAX_SHARE_OF_FILES))


class LimitedConnection(H11Protocol):
    """A connection that is closed if its request takes too long to come.

    One too many takes the place of the one that has waited longest for a request; if all have one,
    it is closed itself. A kept connection that is idle has uvicorn's own time limit.
    """

    _timer: asyncio.TimerHandle | None = None
    _is_body_timed = False
    _waits_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Start the time limit, and make room."""
        super().connection_made(transport)
        self._waits_since = self.loop.time()
        self._set_timer(REQUEST_SECONDS)
        if len(self.connections) > count_allowed_connections():
            waiting = [other for other in self.connections if _waits(other)]
            oldest = min(waiting, key=_get_start, default=self)
            if oldest.transport is not None:
                oldest.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take bytes; a request that has begun has to be complete in time, and so has its body."""
        super().data_received(data)
        if _waits(self):
            if self._timer is None:
                self._set_timer(REQUEST_SECONDS)
        elif self.conn.their_state is not h11.SEND_BODY:
            self._end_timer()
        elif not self._is_body_timed:
            self._end_timer()
            self._set_timer(BODY_SECONDS)
            self._is_body_timed = True

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._end_timer()
        self._waits_since = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the time limit."""
        self._end_timer()
        super().connection_lost(exc)

    def _set_timer(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._give_up)

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._is_body_timed = None, False

    def _give_up(self) -> None:
        self._timer = None
        if _waits(self) or self.conn.their_state is h11.SEND_BODY:
            self.transport.abort()


def _waits(connection: Any) -> bool:  # noqa: ANN401 - uvicorn's set holds any protocol
    """Tell if a connection has no request that is answered now."""
    return connection.cycle is None or connection.cycle.response_complete


def _get_start(connection: Any) -> float:  # noqa: ANN401 - uvicorn's set holds any protocol
    return float(connection._waits_since)

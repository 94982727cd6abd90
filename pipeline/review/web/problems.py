"""Problems of requests: a status and a sentence, as JSON (RFC 9457) or as a page."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from indexes.errors import (
    DiskFull,
    InvalidThreshold,
    SpaceMismatch,
    StoreError,
    StoreLocked,
)
from indexes.paths import escape_bytes
from pipeline.errors import (
    ChoiceRefused,
    DecisionRefused,
    InvalidFilter,
    MissingExtra,
    MissingKey,
    PaidCallLimit,
    PipelineError,
    PlanRefused,
    ReviewFailed,
    RootNotFound,
    RunNotFound,
    ServiceUnavailable,
    UnknownDecision,
    UnknownGroup,
    UnknownPhoto,
    UnusableModel,
)

API_PREFIX = "/api/"
PROBLEM_MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2  # after which a client may ask again

# The status of each error; the class of an error that is not here decides, then its base.
_STATUS_BY_ERROR: dict[type[Exception], HTTPStatus] = {
    InvalidFilter: HTTPStatus.BAD_REQUEST,
    InvalidThreshold: HTTPStatus.BAD_REQUEST,
    UnknownGroup: HTTPStatus.NOT_FOUND,
    UnknownPhoto: HTTPStatus.NOT_FOUND,
    UnknownDecision: HTTPStatus.NOT_FOUND,
    RootNotFound: HTTPStatus.NOT_FOUND,
    RunNotFound: HTTPStatus.NOT_FOUND,
    ChoiceRefused: HTTPStatus.CONFLICT,
    DecisionRefused: HTTPStatus.CONFLICT,
    PlanRefused: HTTPStatus.CONFLICT,
    SpaceMismatch: HTTPStatus.CONFLICT,
    PaidCallLimit: HTTPStatus.TOO_MANY_REQUESTS,
    ServiceUnavailable: HTTPStatus.BAD_GATEWAY,
    MissingExtra: HTTPStatus.SERVICE_UNAVAILABLE,
    MissingKey: HTTPStatus.SERVICE_UNAVAILABLE,
    UnusableModel: HTTPStatus.SERVICE_UNAVAILABLE,
    ReviewFailed: HTTPStatus.SERVICE_UNAVAILABLE,
    StoreLocked: HTTPStatus.SERVICE_UNAVAILABLE,
    DiskFull: HTTPStatus.INSUFFICIENT_STORAGE,
}
_WITH_RETRY = {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}


class Problem(Exception):
    """A request that is refused or failed: a status, a sentence for a person, and headers."""

    def __init__(
        self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Keep what the answer says; `detail` may hold text from outside."""
        super().__init__(status, detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


def make_busy_problem(detail: str) -> Problem:
    """Make the problem of a server that has as much to do as it takes on."""
    headers = {"Retry-After": str(RETRY_SECONDS)}
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers)


def answer_problem(path: str, problem: Problem) -> Response:
    """Make the answer to a request for `path`: JSON below /api/, else a page without a script."""
    title, headers = problem.status.phrase, {"Cache-Control": "no-store", **problem.headers}
    detail = escape_bytes(problem.detail)
    if path.startswith(API_PREFIX):
        document = {"type": "about:blank", "title": title, "status": problem.status}
        content = json.dumps(document | {"detail": detail}).encode()
        return Response(content, problem.status, headers, PROBLEM_MEDIA_TYPE)
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width">'
        f"<title>{html.escape(title)}</title><link rel=stylesheet href=/static/review.css>"
        f"<main><div class=empty><h1>{html.escape(title)}</h1><p>{html.escape(detail)}</p>"
        "<p><a class=button href=/>Continue</a></p></div></main></html>"
    )
    content = page.encode("utf-8", "backslashreplace")
    return Response(content, problem.status, headers, "text/html")


def translate_error(error: Exception) -> Problem:
    """Translate an error to a problem; one that is not ours is a bug: uvicorn prints its trace."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        status = HTTPStatus(error.status_code)
        return Problem(status, _describe_status(status), error.headers)
    if isinstance(error, PipelineError | StoreError):
        statuses = (_STATUS_BY_ERROR.get(base) for base in type(error).__mro__)
        status = next(filter(None, statuses), HTTPStatus.INTERNAL_SERVER_ERROR)
        headers = {"Retry-After": str(RETRY_SECONDS)} if status in _WITH_RETRY else {}
        return Problem(status, str(error), headers)
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "neardup failed; its terminal says where")


def _describe_status(status: HTTPStatus) -> str:
    if status is HTTPStatus.NOT_FOUND:
        return "there is nothing under this address"
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        return "this address does not answer requests of this method"
    return status.description or status.phrase


async def handle_error(request: Request, error: Exception) -> Response:
    """Answer a request that ended with an error."""
    return answer_problem(request.url.path, translate_error(error))

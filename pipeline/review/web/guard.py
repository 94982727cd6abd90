"""The guard before all routes: which hosts, who, how many at a time, and headers of every answer.

A page of another site can make a browser send requests here, also under a name that it has turned
to this machine (DNS rebinding), and with the cookie. So the name of the host, the origin of a
request and a header that only own pages know are checked, beside the token or the cookie.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.review.web.credentials import Credentials
from pipeline.review.web.problems import (
    API_PREFIX,
    Problem,
    answer_problem,
    make_busy_problem,
)

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
HTTP_PORT = 80  # which browsers leave out
MAX_REQUESTS_IN_FLIGHT = 1000  # most of them wait for a thread
CSRF_HEADER = "X-Neardup-Csrf"
TOKEN_PARAMETER = "token"
STATIC_PREFIX = "/static/"  # scripts and styles, which tell nothing and need no token
SAFE_METHODS = {"GET", "HEAD"}
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
# How a browser says that a request comes from the page itself, or was typed.
OWN_FETCH_SITES = {"same-origin", "none"}

IsHostAllowed = Callable[[str], bool]


def allow_port(port: int) -> IsHostAllowed:
    """Allow the names of the loopback with one port."""
    names = {f"{name}:{port}" for name in LOOPBACK_NAMES}
    names |= set(LOOPBACK_NAMES) if port == HTTP_PORT else set()
    return lambda host: host.lower() in names


def allow_any_port() -> IsHostAllowed:
    """Allow the names of the loopback with any port or none: of a Unix socket, to which a tunnel
    leads from a port that the server cannot know.
    """
    pattern = re.compile(rf"({'|'.join(map(re.escape, LOOPBACK_NAMES))})(:[0-9]{{1,5}})?", re.I)
    return lambda host: pattern.fullmatch(host) is not None


class Guard:
    """ASGI middleware that lets only requests of the person and of their programs through."""

    def __init__(
        self, app: ASGIApp, credentials: Credentials, is_host_allowed: IsHostAllowed
    ) -> None:
        """Guard `app`."""
        self._app, self._credentials, self._is_host_allowed = app, credentials, is_host_allowed
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
            await send(message)

        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served")
        refusal = self._check(scope)
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
            return
        self._in_flight += 1
        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            self._in_flight -= 1

    def _check(self, scope: Scope) -> Response | None:
        """Return the answer to a request that is not let through."""
        try:
            if self._in_flight >= MAX_REQUESTS_IN_FLIGHT:
                raise make_busy_problem("too many requests at a time; ask again in a moment")
            headers = Headers(scope=scope)
            self._check_host(headers)
            if scope["path"].startswith(STATIC_PREFIX) and scope["method"] in SAFE_METHODS:
                return None
            self._check_origin(headers, scope["method"])
            if (redirect := self._accept_link(scope)) is not None:
                return redirect
            self._check_caller(headers, scope["method"], scope["path"])
        except Problem as problem:
            return answer_problem(scope["path"], problem)
        return None

    def _check_host(self, headers: Headers) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_host_allowed(hosts[0]):
            raise Problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this server answers only under the name of this machine: localhost, 127.0.0.1 or"
                " [::1], with its port",
            )

    def _check_origin(self, headers: Headers, method: str) -> None:
        """Refuse what a page of another origin sends, but for a link to a page."""
        origins = headers.getlist("origin")
        is_own = not origins or origins == [f"http://{headers['host']}"]
        site = headers.get("sec-fetch-site", "none")
        is_link = method in SAFE_METHODS and headers.get("sec-fetch-mode") == "navigate"
        if not is_own or not (site in OWN_FETCH_SITES or is_link):
            raise Problem(HTTPStatus.FORBIDDEN, "requests of other sites are refused")

    def _accept_link(self, scope: Scope) -> Response | None:
        """Turn the token of the link into a cookie, at the same address without it."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        tokens = [value for name, value in query if name == TOKEN_PARAMETER]
        if not tokens or scope["method"] != "GET" or scope["path"] != "/":
            return None
        if len(tokens) != 1 or not self._credentials.is_link_token(tokens[0]):
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "this link is not that of the server as it runs now; open the one that it printed"
                " last",
            )
        rest = urlencode([(name, value) for name, value in query if name != TOKEN_PARAMETER])
        response = RedirectResponse(f"/?{rest}" if rest else "/", HTTPStatus.SEE_OTHER)
        response.headers["Cache-Control"] = "no-store"
        response.set_cookie(
            self._credentials.cookie_name,
            self._credentials.session,
            path="/",
            httponly=True,
            samesite="strict",
        )
        return response

    def _check_caller(self, headers: Headers, method: str, path: str) -> None:
        """Require the token of programs, or the cookie; to change something, also the header."""
        authorizations = headers.getlist("authorization")
        if authorizations:
            scheme, _, token = authorizations[0].partition(" ")
            is_known = scheme.lower() == "bearer" and self._credentials.is_api_token(token.strip())
            if len(authorizations) == 1 and is_known and path.startswith(API_PREFIX):
                return
            raise _make_unauthorized("the token is not that in the file of the store")
        if not self._has_cookie(headers):
            raise _make_unauthorized(
                "open the link that `neardup review` printed"
                if not path.startswith(API_PREFIX)
                else "send the token of the store: Authorization: Bearer TOKEN"
            )
        if method not in SAFE_METHODS and not self._credentials.is_csrf(
            headers.get(CSRF_HEADER, "")
        ):
            raise Problem(HTTPStatus.FORBIDDEN, f"the header {CSRF_HEADER} is not that of the page")

    def _has_cookie(self, headers: Headers) -> bool:
        cookies = (cookie_parser(line) for line in headers.getlist("cookie"))
        name = self._credentials.cookie_name
        return any(self._credentials.is_session(jar.get(name, "")) for jar in cookies)


def _make_unauthorized(detail: str) -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, detail, {"WWW-Authenticate": "Bearer"})

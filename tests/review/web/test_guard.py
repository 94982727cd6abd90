"""Requests that are not from the person or a program of theirs get no answer but a refusal."""

from __future__ import annotations

import json
from urllib.parse import quote

import httpx
import pytest

from pipeline.review.web import guard, stores
from pipeline.review.web.guard import CSRF_HEADER, SECURITY_HEADERS
from tests.review.web.conftest import Library
from tests.support.review import RunningReview, serve_review

SPOOFED_HOSTS = [
    "evil.example",
    "evil.example:{port}",
    "localhost.evil.example:{port}",
    "127.0.0.1.evil.example:{port}",
    "localhost:1",
    "localhost",
    "127.0.0.1",
    "[::1]",
    "127.0.0.2:{port}",
    "127.1:{port}",
    "2130706433:{port}",
    "0.0.0.0:{port}",
    "[::ffff:127.0.0.1]:{port}",
    "[::]:{port}",
    "localhost:{port}:{port}",
    "localhost:{port}@evil.example",
    "user@localhost:{port}",
    "localhost:0{port}",
    "localhost.:{port}",
    "localhost:{port}/",
    "localhost:{port} evil.example",
    "localhost:{port},evil.example",
    "",
]


def parse_status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("host", SPOOFED_HOSTS)
def test_other_hosts_are_refused_with_the_right_token_too(review: RunningReview, host: str) -> None:
    token = review.credentials.api_token
    answer = review.send_raw(
        f"GET /api/v1/status HTTP/1.1\r\nHost: {host.format(port=review.port)}\r\n"
        f"Authorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode()
    )
    assert parse_status(answer) == 421
    assert b"schema_version" not in answer


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_own_names_are_answered(review: RunningReview, name: str) -> None:
    host = f"{name}:{review.port}"
    with review.open_program() as client:
        assert client.get("/api/v1/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("hosts", ["Host: {own}\r\nHost: evil.example\r\n", ""])
def test_several_hosts_or_none_are_refused(review: RunningReview, hosts: str) -> None:
    lines = hosts.format(own=f"127.0.0.1:{review.port}")
    token = review.credentials.api_token
    request = f"GET /api/v1/status HTTP/1.1\r\n{lines}Authorization: Bearer {token}\r\n"
    answer = review.send_raw(f"{request}Connection: close\r\n\r\n".encode())
    assert parse_status(answer) in (400, 421)
    assert b"schema_version" not in answer


def test_target_of_another_host_is_refused(review: RunningReview) -> None:
    token, own = review.credentials.api_token, f"127.0.0.1:{review.port}"
    answer = review.send_raw(
        f"GET http://evil.example/api/v1/status HTTP/1.1\r\nHost: {own}\r\n"
        f"Authorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode()
    )
    assert parse_status(answer) in (400, 401, 404)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://localhost:{port}"},  # another name is another origin
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {CSRF_HEADER: ""},
        {CSRF_HEADER: "0" * 43},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/decisions"),
        ("POST", "/api/v1/plans"),
        ("POST", "/api/v1/query"),
        ("DELETE", "/api/v1/decisions/0000"),
        ("DELETE", "/api/v1/choices/last"),
    ],
)
def test_writes_of_other_sites_with_the_cookie_are_refused(
    review: RunningReview, headers: dict[str, str], method: str, path: str
) -> None:
    sent = {name: value.format(port=review.port) for name, value in headers.items()}
    body = {"kind": "reject", "paths": ["/a.jpg"]}
    with review.open_browser() as client:
        refused = client.request(method, path, headers=sent, json=body)
        assert refused.status_code == 403
        assert refused.headers["content-type"] == "application/problem+json"
        assert client.get("/api/v1/decisions").json()["decisions"] == []


def test_write_without_the_header_of_pages_is_refused(review: RunningReview) -> None:
    with review.open_browser() as client:
        del client.headers[CSRF_HEADER]
        answer = client.post("/api/v1/decisions", json={"kind": "reject", "paths": ["/a.jpg"]})
    assert answer.status_code == 403


def test_pictures_are_not_for_pages_of_other_sites(review: RunningReview) -> None:
    with review.open_browser() as client:
        refused = client.get("/api/v1/status", headers={"Sec-Fetch-Site": "same-site"})
        assert refused.status_code == 403
        typed = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}
        assert client.get("/", headers=typed).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer " + "A" * 43,
        "Bearer {link}",
        "Bearer {session}",
        "Basic {token}",
        "Bearer {token}x",
        "{token}",
        "Bearer " + "\udc80" * 43,
    ],
)
def test_missing_and_wrong_tokens_are_refused(
    review: RunningReview, authorization: str | None
) -> None:
    known = review.credentials
    headers: dict[bytes, bytes] = {}
    if authorization is not None:
        text = authorization.format(
            link=known.link_token, session=known.session, token=known.api_token
        )
        headers[b"Authorization"] = text.encode("utf-8", "surrogateescape")
    for path in ("/api/v1/status", "/", "/pictures/x/thumb"):
        refused = httpx.get(f"{review.address}{path}", headers=headers)
        assert refused.status_code == 401
        assert "www-authenticate" in refused.headers


def test_token_of_programs_opens_the_api_alone(review: RunningReview) -> None:
    with review.open_program() as client:
        assert client.get("/api/v1/status").status_code == 200
        assert client.get("/").status_code == 401


def test_link_becomes_a_cookie_that_scripts_and_other_sites_cannot_use(
    review: RunningReview,
) -> None:
    link = f"{review.address}/?token={review.credentials.link_token}&undecided=1"
    with httpx.Client() as client:
        redirect = client.get(link)
        assert (redirect.status_code, redirect.headers["location"]) == (303, "/?undecided=1")
        cookie = redirect.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie and "domain" not in cookie
        assert review.credentials.link_token not in cookie
        assert client.get(review.address).status_code == 200
    old = httpx.get(f"{review.address}/?token={'A' * 43}")
    assert old.status_code == 401
    assert "printed" in old.text
    two = httpx.get(f"{link}&token=x")
    assert two.status_code == 401


def make_traversals() -> list[str]:
    climbs = ["..", "%2e%2e", "..%2f", "%2e%2e%2f", "..%5c", "..\\", "....//", "%252e%252e%252f"]
    climbs += ["%c0%ae%c0%ae/", "..;/", "%00/", "./."]
    targets = [
        "etc/passwd",
        "catalog.db",
        "review.token",
        "pipeline/errors.py",
        "proc/self/environ",
    ]
    bases = ["/static/", "/pictures/", "/api/v1/plans/", "/api/v1/groups/", "/"]
    paths = []
    for base in bases:
        for climb in climbs:
            for target in targets[: 2 if base != "/static/" else 5]:
                paths.append(base + f"{climb}/" * 6 + target)
        paths.append(base + "/etc/passwd")
        paths.append(base + quote("/etc/passwd", safe=""))
    return paths


def test_path_traversals_find_nothing(review: RunningReview) -> None:
    paths = make_traversals()
    assert len(paths) >= 100
    credentials = review.credentials
    cookie = f"{credentials.cookie_name}={credentials.session}"
    for path in paths:
        answer = review.send_raw(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{review.port}\r\nCookie: {cookie}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        assert parse_status(answer) in (400, 404), path
        assert b"root:" not in answer and b"SQLite" not in answer, path
        assert credentials.api_token.encode() not in answer, path


def test_every_answer_has_the_headers_of_a_safe_page(review: RunningReview) -> None:
    with review.open_browser() as client:
        answers = [
            client.get("/"),
            client.get("/static/review.css"),
            client.get("/api/v1/openapi.json"),
            client.get("/nothing"),
            client.post("/static/review.css"),
            client.get("/", headers={"Host": "evil.example"}),
            httpx.get(review.address),
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 404, 405, 421, 401]
    for answer in answers:
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value
        assert "server" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
    assert "script" not in httpx.get(review.address).text


def test_problems_of_the_api_are_documents(review: RunningReview) -> None:
    with review.open_program() as client:
        problem = client.get("/api/v1/nothing")
    assert problem.headers["content-type"] == "application/problem+json"
    assert set(json.loads(problem.content)) == {"type", "title", "status", "detail"}
    assert problem.json()["status"] == problem.status_code == 404


def test_cookie_and_link_of_an_earlier_run_are_refused(library: Library) -> None:
    with serve_review(library.store, with_listing=False) as earlier:
        old = earlier.credentials
    with serve_review(library.store, with_listing=False) as running:
        for name in (old.cookie_name, running.credentials.cookie_name):
            cookie = {"Cookie": f"{name}={old.session}"}
            assert httpx.get(running.address, headers=cookie).status_code == 401
        assert httpx.get(f"{running.address}/?token={old.link_token}").status_code == 401
        token = {"Authorization": f"Bearer {old.api_token}"}  # of the store, not of a run
        assert httpx.get(f"{running.address}/api/v1/status", headers=token).status_code == 200


def test_requests_beyond_the_limits_are_asked_to_come_again(
    review: RunningReview, monkeypatch: pytest.MonkeyPatch
) -> None:
    with review.open_program() as client:
        monkeypatch.setattr(stores, "MAX_HEAVY_REQUESTS", 0)
        busy = client.post("/api/v1/query", content=b"photo")
        assert client.get("/api/v1/status").status_code == 200
        monkeypatch.setattr(guard, "MAX_REQUESTS_IN_FLIGHT", 0)
        full = client.get("/api/v1/status")
    for answer in (busy, full):
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0

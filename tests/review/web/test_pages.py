"""The pages of groups: what they show, where they open, and hostile file names as text."""

from __future__ import annotations

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest

from indexes import Root, Store
from pipeline import ingest_roots, load_embedder
from pipeline.review.listing import Listing
from pipeline.review.web import pages
from tests.review.web.conftest import Library
from tests.support.images import draw_textured_image, encode_jpeg
from tests.support.review import RunningReview, serve_review

ALLOWED_TAGS = set(
    "html head meta title link script body header nav main section article div span"
    " h1 h2 h3 p ol ul li dl dt dd figure img figcaption b small bdi mark kbd a"
    " form label input select option fieldset legend button details summary dialog"
    " progress output code".split()
)
MAX_NAME_BYTES = 255


def list_hostile_names() -> list[bytes]:
    texts = [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        '"><svg onload=alert(1)>',
        "' onmouseover='alert(1)",
        "</title><script>alert(1)",
        "--><script>alert(1)",
        "{{ 7 * 7 }}",
        "{% include 'x' %}",
        "${7*7}",
        "&lt;b&gt;",
        "&#60;script&#62;",
        "javascript:alert(1)",
        "data:text:html,x",
        "new\nline",
        "carriage\rreturn",
        "crlf\r\nSet-Cookie: a=b",
        "tab\there",
        "bell\a",
        "escape\x1b[31m",
        "back\bspace",
        "del\x7f",
        "\u202egpj.exe",
        "\u2066isolated\u2069",
        "zero\u200bwidth",
        "\ufefffirst",
        "next\x85line",
        "line\u2028separator",
        "paragraph\u2029separator",
        "\U000e0041tag",
        "emoji \U0001f469\u200d\U0001f467",
        "combining e\u0301\u0301\u0301\u0301",
        "ÄÖÜ ß",
        "日本語",
        "العربية",
        "\uffff",
        "\ufffd",
        "..",
        "...",
        "~",
        "-rf",
        "--help",
        "$HOME",
        "`id`",
        "$(id)",
        ";reboot",
        "|cat",
        "a&b=c",
        "a?b#c",
        "%2e%2e%2f",
        "%00",
        "%s%n",
        "\\\\server\\share",
        "CON",
        "NUL",
        " leading and trailing ",
        "'; DROP TABLE images; --",
        '{"a": 1}',
        "\\udc80",
    ]
    names = [text.replace("/", "\\").encode() + b".jpg" for text in texts]
    names += [b"not utf-8 \xff\xfe.jpg", b"half \xc3.jpg", b"\xed\xa0\x80 surrogate.jpg"]
    names += [b"x" * (MAX_NAME_BYTES - 4) + b".jpg", "ü".encode() * 125 + b".jpg"]
    return names


class PageReader(HTMLParser):
    """Collects the elements, attributes, addresses and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.attributes, self.text = set[str](), set[str](), ""
        self.scripts, self.addresses = set[str | None](), set[str]()
        self._is_in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._is_in_script = tag == "script"
        if tag == "script":
            self.scripts.add(dict(attrs).get("src"))
        self.addresses |= {value or "" for name, value in attrs if name in ("src", "href")}

    def handle_endtag(self, tag: str) -> None:
        self._is_in_script = False

    def handle_data(self, data: str) -> None:
        assert not (self._is_in_script and data.strip()), "a script in the page itself"
        self.text += data


def read_page(content: bytes) -> PageReader:
    """Read a page, and check that nothing in it is but what its templates have."""
    reader = PageReader()
    reader.feed(content.decode("utf-8"))
    assert reader.tags <= ALLOWED_TAGS
    assert reader.scripts == {"/static/review.js"}
    assert not {name for name in reader.attributes if name.startswith("on")}
    assert "style" not in reader.attributes
    assert all(address.startswith(("/", "#", "?")) for address in reader.addresses)
    assert not any(character in reader.text for character in "\x1b\a\b\u202e\u2028")
    return reader


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    names = list_hostile_names()
    assert len(set(names)) >= 60
    photo, folder = encode_jpeg(draw_textured_image(1)), tmp_path / "photos"
    folder.mkdir()
    for name in names:
        Path(folder, os.fsdecode(name)).write_bytes(photo)
    with Store(tmp_path / "store", write=True) as store:
        for _ in ingest_roots([Root(str(folder), include_hidden=True)], store, load_embedder()):
            pass
    with serve_review(tmp_path / "store") as running:
        with running.open_browser() as browser:
            (group,) = browser.get("/api/v1/groups").json()["groups"]
            found = [group["group"]["keeper"], *group["group"]["members"]]
            assert {os.fsencode(Path(item["path"]).name) for item in found} == set(names)
            read_page(browser.get("/groups").content)
            reader = read_page(browser.get(f"/groups/{group['id']}").content)
            for text in ("<script>alert(1)<\\script>", "{{ 7 * 7 }}", "&lt;b&gt;", "日本語"):
                assert text in reader.text
            for name in names:
                answer = browser.get(f"/groups?name={quote(name)}")
                assert answer.status_code in (200, 400)
                assert "set-cookie" not in answer.headers
                read_page(answer.content)
            for item in found[::8]:
                body = json.dumps({"kind": "keep", "paths": [item["path"]]})  # in ASCII
                headers = {"Content-Type": "application/json"}
                entered = browser.post("/api/v1/decisions", content=body, headers=headers)
                assert entered.status_code == 201, item["path"]
            listed = browser.get("/api/v1/decisions").content
    assert json.loads(listed)["decisions"]


def get(running: RunningReview, address: str, status: int = 200) -> PageReader:
    """Get a page as a browser does, and read it."""
    with running.open_browser() as browser:
        answer = browser.get(address)
        assert answer.status_code == status
        assert answer.headers["cache-control"] == "no-store"
    return read_page(answer.content)


def list_group_ids(running: RunningReview) -> list[str]:
    with running.open_program() as program:
        return [group["id"] for group in program.get("/api/v1/groups").json()["groups"]]


def test_list_has_groups_with_most_space_first(review: RunningReview) -> None:
    text = get(review, "/groups").text
    assert "2 groups" in text
    assert "0 of 2 reviewed" in text
    first, second = list_group_ids(review)
    page = get(review, "/groups").addresses
    assert {f"/groups/{first}", f"/groups/{second}"} <= page


def test_filter_is_kept_in_the_form_and_in_links(review: RunningReview) -> None:
    with review.open_browser() as browser:
        page = browser.get("/groups?name=B+COPY&undecided=1&min_bytes=1000&relations=derived").text
        both = browser.get("/groups?relations=derived&relations=identical+bytes")
    assert 'name="name" id="search" value="B COPY"' in page
    assert 'name="undecided" value="1" checked' in page
    assert '<option value="1000" selected>' in page
    assert "No group passes this filter" in page  # b copy.jpg is no derived copy
    assert "2 groups" in both.text
    filtered = get(review, "/groups?name=b+copy")
    assert "1 group of this filter" in filtered.text
    (address,) = [item for item in filtered.addresses if re.match("/groups/[0-9a-f]", item)]
    assert address.endswith("?name=b+copy") or address.endswith("?name=b%20copy")


def test_unusable_filter_is_explained(review: RunningReview) -> None:
    text = get(review, "/groups?min_bytes=some&folder=x", status=400).text
    assert "The filter was not used: folder is no absolute path" in text
    with review.open_browser() as browser:
        assert browser.get("/groups?cursor=x").status_code == 400


def test_more_groups_follow_by_a_cursor(
    review: RunningReview, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE_GROUPS", 1)
    first, second = list_group_ids(review)
    page = get(review, "/groups")
    (more,) = [item for item in page.addresses if "cursor=" in item]
    following = get(review, f"/groups{more}")
    assert f"/groups/{first}" in page.addresses
    assert f"/groups/{first}" not in following.addresses
    assert f"/groups/{second}" in following.addresses
    assert not [item for item in following.addresses if "cursor=" in item]
    # From a group on: where the person left the list for it.
    later = get(review, f"/groups?from={second}")
    assert f"/groups/{second}" in later.addresses
    assert f"/groups/{first}" not in later.addresses
    assert "Back to the first groups" in later.text
    assert "2 groups" in later.text


def test_group_shows_why_and_what_differs(review: RunningReview) -> None:
    with review.open_program() as program:
        groups = program.get("/api/v1/groups").json()["groups"]
    (group,) = [item for item in groups if len(item["group"]["members"]) == 2]
    page = get(review, f"/groups/{group['id']}")
    for member in group["group"]["members"]:
        assert Path(member["path"]).name in page.text
        assert member["relation"] in page.text
        for phrase in member["edits_in_words"] if "edits_in_words" in member else ():
            assert phrase in page.text
    assert group["group"]["keeper"]["reason"] in page.text
    assert "−75 %" in page.text  # the pixels of a small copy
    assert "sub" in page.text
    (other,) = [item["id"] for item in groups if item["id"] != group["id"]]
    assert f"/groups/{other}" in page.addresses  # the next or previous one


def test_group_that_is_gone_leads_to_the_list(review: RunningReview) -> None:
    page = get(review, f"/groups/{'0' * 32}?name=x", status=404)
    assert "This group is gone" in page.text
    assert "/groups?name=x" in page.addresses


def test_place_is_where_the_review_opens(library: Library) -> None:
    with serve_review(library.store) as running, running.open_browser() as browser:
        group, *_ = list_group_ids(running)
        assert browser.get("/").status_code == 200
        for body, address in (
            ({"group": group, "filter": {"undecided": "1"}}, f"/groups/{group}?undecided=1"),
            ({"group": None, "filter": {"name": "a"}}, "/groups?name=a"),
        ):
            assert browser.put("/api/v1/place", json=body).status_code == 200
            answer = browser.get("/")
            assert (answer.status_code, answer.headers["location"]) == (303, address)
    with serve_review(library.store) as running, running.open_browser() as browser:
        assert browser.get("/").headers["location"] == "/groups?name=a"
        assert browser.get("/?undecided=1").status_code == 200
        assert browser.put("/api/v1/place", json={"group": None, "filter": {}}).is_success
        assert browser.get("/").status_code == 200


def test_empty_store_says_what_to_do(tmp_path: Path) -> None:
    with Store(tmp_path / "store", write=True):
        pass
    with serve_review(tmp_path / "store") as running:
        assert "neardup ingest ~/Pictures" in get(running, "/groups").text


def test_page_waits_for_the_first_listing(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(library.store, tmp_path / "store")
    (tmp_path / "store" / "caches" / "groups.db").unlink(missing_ok=True)
    monkeypatch.setattr(Listing, "refresh", lambda listing, **options: False)
    with serve_review(tmp_path / "store", with_listing=False) as running:
        page = get(running, "/groups")
    assert "The groups are being listed" in page.text
    assert "data-wait" in page.attributes


def test_stale_listing_says_so(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(library.store, tmp_path / "store")
    with serve_review(tmp_path / "store") as running:
        monkeypatch.setattr(Listing, "refresh", lambda listing, **options: False)
        assert "The library has changed" not in get(running, "/groups").text
        with Store(tmp_path / "store", write=True) as store:
            for _ in ingest_roots([Root(str(library.photos))], store, load_embedder()):
                pass
        assert "The library has changed" in get(running, "/groups").text


def test_read_only_pages_have_no_action(library: Library) -> None:
    with serve_review(library.store, is_read_only=True) as running:
        group, *_ = list_group_ids(running)
        for address in ("/groups", f"/groups/{group}"):
            page = get(running, address)
            assert not page.attributes & {"data-choice", "data-bulk", "data-undo-run"}
            assert "/plan" not in page.addresses
            assert "read-only" in page.text
        with running.open_browser() as browser:
            assert browser.get("/plan").status_code == 404
            assert browser.post("/plan", json={}).status_code == 404
            assert browser.get("/runs/current").status_code == 404

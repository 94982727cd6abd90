"""File names are hostile text: on pages, in JSON, in headers."""

from __future__ import annotations

import json
import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

from indexes import Root, Store
from pipeline import ingest_roots, load_embedder
from tests.support.images import draw_textured_image, encode_jpeg
from tests.support.review import serve_review

ALLOWED_TAGS = set(
    "html head meta title link body main h1 p ol ul li figure img figcaption strong a".split()
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
    """Collects the elements, attributes and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.attributes, self.text = set[str](), set[str](), ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


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
            page = browser.get("/")
            reader = PageReader()
            reader.feed(page.content.decode("utf-8"))
            (group,) = browser.get("/api/v1/groups").json()["groups"]
            found = [group["group"]["keeper"], *group["group"]["members"]]
            assert {os.fsencode(Path(item["path"]).name) for item in found} == set(names)
            assert reader.tags <= ALLOWED_TAGS
            assert not {name for name in reader.attributes if name.startswith("on")}
            assert "style" not in reader.attributes
            assert not any(character in reader.text for character in "\x1b\a\b\u202e\u2028")
            for text in ("<script>alert(1)<\\script>", "{{ 7 * 7 }}", "&lt;b&gt;", "日本語"):
                assert text in reader.text
            for name in names:
                answer = browser.get(f"/?name={quote(name)}")
                assert answer.status_code in (200, 400)
                assert "set-cookie" not in answer.headers
                assert b"<script" not in answer.content
            for item in found[::8]:
                body = json.dumps({"kind": "keep", "paths": [item["path"]]})  # in ASCII
                headers = {"Content-Type": "application/json"}
                entered = browser.post("/api/v1/decisions", content=body, headers=headers)
                assert entered.status_code == 201, item["path"]
            listed = browser.get("/api/v1/decisions").content
    assert json.loads(listed)["decisions"]

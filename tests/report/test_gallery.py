"""The page of groups: its contents, hostile file names, and a browser that renders it."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path, PurePath
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import numpy as np
import pytest
from PIL import Image

from indexes.paths import escape_unprintable
from pipeline.calibrate.synthetic_copies import EVERYDAY_EDITS
from pipeline.grouping.assets import AssetPart, PartRole
from pipeline.grouping.cluster import Group
from pipeline.grouping.match import Match
from pipeline.report.gallery_page import MAX_NESTED_BOXES, PageImages, render_page
from tests.support import chromium
from tests.support.cli import Run
from tests.support.images import draw_textured_image, save_image
from tests.support.matches import make_file, make_member


class Page(HTMLParser):
    """The images, links to files, text and tags of a page, and its cards.

    By the anchor of a card: its texts, the number of boxes around it, and the anchor of the card
    that it links to, if there is one.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.cards: dict[str, list[str]] = {}
        self.boxes: dict[str, int] = {}
        self.origins: dict[str, str] = {}
        self._lists: list[str] = []
        self.feed(text)
        self.close()
        assert not self._lists  # all that were opened are closed

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        attributes = dict(attrs)
        if tag == "img":
            assert attributes["loading"] == "lazy"
            self.images.append(attributes["src"] or "")
        if tag in ("ul", "li"):
            self._lists.append(tag)
        if anchor := attributes.get("id"):
            assert anchor not in self.cards
            self.cards[anchor] = []
            self.boxes[anchor] = self._lists.count("ul") - 1 + (tag == "div")
        if tag == "a":
            link = attributes["href"] or ""
            if link.startswith("#"):
                self.origins[list(self.cards)[-1]] = link[1:]
            else:
                self.links.append(link)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("ul", "li"):
            assert self._lists.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.cards:
            self.cards[list(self.cards)[-1]].append(data)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for seed, kinds in ((1, ["crop 80 %", "darker"]), (2, ["mirror"])):
        save_image(folder / f"{seed}.png", draw_textured_image(seed))
        for kind in kinds:
            copy = EVERYDAY_EDITS[kind](
                draw_textured_image(seed), draw_textured_image(9), random.Random(1)
            )
            save_image(folder / "more" / f"{seed} <i>{kind} & 'so' #?.jpg", copy, quality=90)
    return folder


def test_page_has_each_group_with_its_differences(run: Run, library: Path, tmp_path: Path) -> None:
    run("ingest", library)
    before = {file: file.read_bytes() for file in library.rglob("*") if file.is_file()}
    code, out, err = run("groups", "--html", tmp_path / "page.html")
    assert (code, err) == (0, f"page written to {tmp_path}/page.html\n")
    assert out.startswith("keep  ")
    page = Page((tmp_path / "page.html").read_text())
    words = " ".join(page.texts)
    assert "2 groups of near-duplicates" in words
    assert len(page.images) == len(page.links) == 5
    for image in page.images:
        with Image.open(tmp_path / unquote(image)) as thumbnail:
            assert max(thumbnail.size) <= 448
    linked = {Path(unquote(urlsplit(link).path)) for link in page.links}
    assert linked == set(before)
    assert "i" not in page.tags
    assert "<i>darker & 'so'" in words  # a name, not markup
    for text in ("keep: ", "mirrored", "recolored", "cropped to 6", "in more"):
        assert text in words, text
    assert {file: file.read_bytes() for file in library.rglob("*") if file.is_file()} == before
    sizes = [
        int(number) for number in re.findall(r"<h2>(\d+) kB", (tmp_path / "page.html").read_text())
    ]
    assert sizes == sorted(sizes, reverse=True)


def test_page_and_text_warn_of_gone_and_changed_photos(
    run: Run, library: Path, tmp_path: Path
) -> None:
    run("ingest", library)
    (library / "1.png").unlink()
    save_image(library / "2.png", draw_textured_image(7))
    code, out, err = run("groups", "--html", tmp_path / "page.html", "--relations", "same")
    assert code == 0
    warning = (
        "1 of these images is gone since the last ingest, as marked;"
        f" run `neardup ingest --store {tmp_path / 'library'}` before you rely on this answer"
    )
    assert warning in err
    words = " ".join(Page((tmp_path / "page.html").read_text()).texts)
    assert warning in words
    near = "1 photo is in none of these groups, but close to one: 1 derived from a member"
    assert near in out
    assert near in words
    code, out, err = run("groups", "--json")
    members = [
        member
        for group in json.loads(out)["groups"]
        for member in (group["keeper"], *group["members"])
    ]
    assert {
        Path(member["path"]).name: (member.get("missing"), member.get("changed"))
        for member in members
        if "more" not in member["path"]
    } == {
        "1.png": (True, None),
        "2.png": (None, True),
    }
    assert all(
        "more" in group["keeper"]["path"] for group in json.loads(out)["groups"]
    )  # a file on disk is kept
    assert "gone since" in run("groups")[1]
    assert "1 of these images is gone and 1 has changed since the last ingest" in err
    code, out, err = run("query", next((library / "more").glob("2*")))
    assert "changed since" in out
    assert "1 of these images has changed since the last ingest" in err
    assert "folder:nowhere" in run("groups", "--keep", "folder:nowhere")[2]
    assert "folder:" not in run("groups", "--keep", "folder:more")[2]


def test_page_replaces_older_page(run: Run, library: Path, tmp_path: Path) -> None:
    run("ingest", library)
    page, thumbnails = tmp_path / "page.html", tmp_path / "page-pictures"
    assert run("groups", "--html", page)[0] == 0
    first = page.read_text(), sorted(file.name for file in thumbnails.iterdir())
    assert run("groups", "--html", page)[0] == 0
    assert (page.read_text(), sorted(file.name for file in thumbnails.iterdir())) == first
    assert sorted(file.name for file in tmp_path.glob("page*")) == ["page-pictures", "page.html"]


def test_page_has_thumbnails_of_photos_that_are_away(
    run: Run, library: Path, tmp_path: Path
) -> None:
    run("ingest", library)
    library.rename(tmp_path / "away")
    assert run("groups", "--html", tmp_path / "page.html")[0] == 0
    assert len(Page((tmp_path / "page.html").read_text()).images) == 5


def test_page_inside_its_library_adds_nothing_to_it(run: Run, library: Path) -> None:
    run("ingest", library)
    answer = json.loads(run("groups", "--json")[1])["groups"]
    run("groups", "--html", library / "groups.html")
    thumbnails = sorted((library / "groups-pictures").glob("*.jpg"))
    # Also without the marker of their folder, which a copy by `*` leaves behind.
    for number, thumbnail in enumerate(thumbnails):
        shutil.copy(thumbnail, library / f"{number}.jpg")
    shutil.copy(library / "1.png", library / "groups-pictures" / "mine.png")
    code, out, _ = run("ingest", "--json")
    coverage = json.loads(out)
    assert (code, coverage["new"]) == (0, 1)
    assert coverage["skipped"] == {
        "hidden": 1,
        "made by neardup": 5,
        "not a photo": 1,
        "thumbnail of a page": 5,
    }
    (library / "groups-pictures" / "mine.png").unlink()
    run("ingest")
    assert json.loads(run("groups", "--json")[1])["groups"] == answer


def test_page_that_cannot_be_written_is_refused(run: Run, library: Path, tmp_path: Path) -> None:
    run("ingest", library)
    for folder in ("no folder", "x" * 300):
        code, out, err = run("groups", "--html", tmp_path / folder / "page.html")
        assert (code, out) == (2, "")
        assert "cannot be written" in err
    (tmp_path / "page.html").mkdir()
    assert run("groups", "--html", tmp_path / "page.html")[0] == 2


@pytest.mark.parametrize("exists", [True, False])
def test_page_named_as_folder_is_refused(run: Run, tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "sub").mkdir()
    names = [f"{tmp_path}/sub/", *[f"{tmp_path}/sub"] * exists]
    for name in names:
        for command in (["groups", "--html"], ["explain", "a.jpg", "b.jpg", "--image"]):
            code, out, err = run(*command, name)
            assert (code, out) == (2, "")
            example = "groups.html" if "--html" in command else "why.png"
            assert f"'{name}' is a folder; name a file, such as '{tmp_path}/sub/{example}'." in err
    assert (tmp_path / "sub").exists() == exists


def test_page_beside_json_leaves_standard_output_to_json(
    run: Run, library: Path, tmp_path: Path
) -> None:
    run("ingest", library)
    code, out, err = run("groups", "--json", "--html", tmp_path / "page.html")
    assert (code, err) == (0, f"page written to {tmp_path}/page.html\n")
    assert out == run("groups", "--json")[1]


def test_page_never_replaces_folder_of_others(run: Run, library: Path, tmp_path: Path) -> None:
    """A folder of that name may be the user's own."""
    run("ingest", library)
    own_file = save_image(tmp_path / "page-pictures" / "holiday.jpg", draw_textured_image(5))
    before = own_file.read_bytes()
    code, _, err = run("groups", "--html", tmp_path / "page.html")
    assert code == 2
    assert "page-pictures holds files that neardup did not write" in err
    assert own_file.read_bytes() == before
    assert not (tmp_path / "page.html").exists()
    named = own_file.rename(
        own_file.with_name("0123456789abcdef" * 2 + ".jpg")
    )  # a photo named by its MD5
    assert run("groups", "--html", tmp_path / "page.html")[0] == 2
    assert named.read_bytes() == before
    named.unlink()
    named.parent.rmdir()
    assert run("groups", "--html", tmp_path / "page.html")[0] == 0
    (tmp_path / "page-pictures" / ("0" * 32 + ".jpg")).mkdir()
    assert run("groups", "--html", tmp_path / "page.html")[0] == 2
    assert sorted(
        path.name for path in tmp_path.iterdir() if path.name.startswith((".page", "page"))
    ) == ["page-pictures", "page.html"]


def test_page_never_replaces_photo(run: Run, library: Path, tmp_path: Path) -> None:
    run("ingest", library)
    before = (library / "1.png").read_bytes()
    code, _, err = run("groups", "--html", library / "1.png")
    assert code == 2
    assert "already exists and is not a page of neardup" in err
    assert (library / "1.png").read_bytes() == before
    assert not (library / "1-pictures").exists()


def test_page_without_groups_is_written(run: Run, tmp_path: Path) -> None:
    save_image(tmp_path / "photos" / "one.png", draw_textured_image(1))
    run("ingest", tmp_path / "photos")
    assert run("groups", "--html", tmp_path / "page.html")[0] == 0
    assert "No near-duplicates" in (tmp_path / "page.html").read_text()


def test_browser_renders_the_page(run: Run, library: Path, tmp_path: Path) -> None:
    if absence := chromium.explain_absence():
        pytest.skip(absence)
    run("ingest", library)
    run("groups", "--html", tmp_path / "page.html")
    log = chromium.take_screenshot(
        (tmp_path / "page.html").as_uri(), tmp_path / "screenshot.png", (1200, 900)
    )
    assert "CONSOLE" not in log  # nothing violates the page's own policy
    with Image.open(tmp_path / "screenshot.png") as screenshot:
        pixels = np.asarray(screenshot.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels // 16, axis=0)) > 200  # photos, not only text on a background


def render(members: Sequence[Match], keeper: str = "/photos/keeper.jpg") -> Page:
    group = Group("id", make_file(keeper), tuple(members), "most pixels")
    return Page("".join(render_page([group], PageImages("page-pictures", ()), ())))


def test_page_shows_what_copies_were_made_from(run: Run, tmp_path: Path) -> None:
    """A photo with copies, and copies of a copy, as the store finds them."""
    photo, folder = draw_textured_image(3, (900, 700)), tmp_path / "photos"
    save_image(folder / "photo.png", photo)
    save_image(folder / "small.jpg", photo.resize((450, 350)), quality=85)
    cut = photo.convert("L").crop((120, 90, 780, 610))
    save_image(folder / "cut.jpg", cut, quality=90)
    save_image(folder / "sent" / "cut.jpg", cut.resize((440, 347)), quality=75)
    run("ingest", folder)
    assert run("groups", "--html", tmp_path / "page.html")[0] == 0
    page = Page((tmp_path / "page.html").read_text())
    labels = {anchor: " ".join(texts) for anchor, texts in page.cards.items()}
    keeper, small, parent, copy = labels
    assert list(page.origins.items()) == [(copy, parent)]
    assert [page.boxes[anchor] for anchor in labels] == [0, 0, 1, 1]
    assert labels[keeper].startswith("keep: ")
    assert "likely made from  cut.jpg" in labels[copy]
    assert "in sent" in labels[copy]
    for anchor in (parent, copy):
        assert "cropped to" in labels[anchor]
        assert "in grayscale" in labels[anchor]
    assert "cropped" not in labels[small] + labels[keeper]
    assert "The copies in a box were likely made from its first one." in " ".join(page.texts)


def test_page_names_the_parts_and_what_the_keeper_lacks() -> None:
    """Names of parts are as hostile as those of photos."""
    name = "<script>&.xmp"
    part = AssetPart(f"/photos/{name}", make_file("/photos/a.jpg").stat, PartRole.SIDECAR)
    member = make_member("/photos/a.jpg")
    member = replace(
        member, file=replace(member.file, parts=(part,)), without_counterpart=(part.path,)
    )
    page = render([member])
    assert "script" not in page.tags
    _, texts = page.cards.values()
    assert any(text.endswith(f" + {name}") for text in texts)
    assert f"not to be given up: {name} has no copy beside the keeper" in texts


def test_tree_is_walked_copy_by_copy() -> None:
    first, second = make_member("/photos/a.jpg"), make_member("/photos/b.jpg")
    third = make_member("/photos/c.jpg", first)
    members = [make_member("/photos/d.jpg", third), first, make_member("/photos/e.jpg", first)]
    page = render([*members, second, third])
    names = [PurePath(unquote(link)).stem for link in page.links]
    assert names == ["keeper", "b", "a", "e", "c", "d"]
    assert list(page.boxes.values()) == [0, 0, 1, 1, 2, 2]
    assert page.origins == {"id-3": "id-2", "id-4": "id-2", "id-5": "id-4"}


def test_page_without_known_parents_has_no_boxes() -> None:
    page = render([make_member(f"/photos/{number}.jpg") for number in range(200)])
    assert set(page.boxes.values()) == {0}
    assert (len(page.cards), page.origins) == (201, {})
    assert "in a box" not in " ".join(page.texts)


def test_boxes_are_nested_only_as_deep_as_a_screen_shows() -> None:
    members = [make_member("/photos/0.jpg")]
    for number in range(1, 300):
        members.append(make_member(f"/photos/{number}.jpg", members[-1]))
    page = render(members)
    assert list(page.boxes.values()) == [0, 1, 2, *[MAX_NESTED_BOXES] * 298]
    assert page.origins == {f"id-{number + 1}": f"id-{number}" for number in range(1, 300)}


def test_voucher_is_linked() -> None:
    voucher = make_member("/photos/a.jpg")
    member = replace(make_member("/photos/b.jpg"), voucher=voucher.file)
    assert render([voucher, member]).origins == {"id-2": "id-1"}


@pytest.mark.parametrize(
    "name",
    [
        "</a></small><script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onclick='alert(1)",
        "&lt;b&gt;",
        "\u202egpj.exe\n",
        "caf\udce9",
        "#?%41",
        "javascript:alert(1)",
    ],
)
def test_names_of_parents_are_text(name: str) -> None:
    parent = make_member(f"/photos/{name}/{name.replace('/', '_')}.jpg")
    page = render([parent, make_member("/photos/copy.jpg", parent)])
    assert page.tags == render([make_member("/b.jpg"), make_member("/a.jpg")]).tags
    parent_link, copy_link = page.links[1:]
    assert os.fsdecode(unquote_to_bytes(parent_link.removeprefix("file://"))) == parent.file.path
    assert copy_link == "file:///photos/copy.jpg"
    assert page.origins == {"id-2": "id-1"}
    shown = escape_unprintable(PurePath(parent.file.path).name)
    assert shown in page.cards["id-1"]
    assert shown in page.cards["id-2"]

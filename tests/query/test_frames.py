"""Animations, documents and stills in the answers of groups, query and compare."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from indexes import Store
from pipeline import compare, load_embedder
from pipeline.query.groups import find_groups
from pipeline.query.matches import find_matches
from pipeline.verify.relation import COPY_RELATIONS, Relation, Side
from tests.support.cli import Run
from tests.support.images import draw_scene, save_image
from tests.support.ingest import make_store

SCENES = [draw_scene(seed, (360, 270)) for seed in range(6)]


def save_frames(path: Path, frames: Sequence[Image.Image], **options: Any) -> Path:
    """Save images as the frames of one file."""
    return save_image(path, frames[0], save_all=True, append_images=frames[1:], **options)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store of one animation in two formats, others with the same first frame, and stills."""
    folder = tmp_path_factory.mktemp("animations")
    files = folder / "files"
    files.mkdir()
    save_frames(files / "whole.png", SCENES[:4], duration=100)
    save_frames(files / "whole.webp", [s.resize((240, 180)) for s in SCENES[:4]], quality=80)
    save_frames(files / "beginning.webp", SCENES[:2], quality=90)
    save_frames(files / "other-ending.webp", [*SCENES[:3], SCENES[5]], quality=90)
    save_image(files / "poster.jpg", SCENES[0], quality=95)
    save_image(files / "stranger.jpg", SCENES[4])
    with make_store(folder / "store", files) as opened:
        yield opened


def test_animations_are_grouped_by_all_their_frames(store: Store) -> None:
    (group,) = find_groups(store)
    assert Path(group.keeper.path).name == "whole.png"
    assert [Path(member.file.path).name for member in group.members] == ["whole.webp"]
    related = {Path(file.file.path).name: file.relation for file in group.related}
    assert related == {
        "beginning.webp": Relation.FRAME_OF,
        "poster.jpg": Relation.FRAME_OF,
        "other-ending.webp": Relation.OVERLAPS,
    }


def test_file_with_more_frames_is_kept_for_its_frames(store: Store) -> None:
    relations = COPY_RELATIONS | {Relation.FRAME_OF}
    groups = find_groups(store, relations=relations)
    assert groups
    for group in groups:
        assert group.keeper.frame_count == 4
        assert "most frames" in group.reason


def test_query_finds_the_animation_of_a_still(store: Store, tmp_path: Path) -> None:
    still = save_image(tmp_path / "first.jpg", SCENES[0], quality=70)
    (answer,) = find_matches([str(still)], store, load_embedder())
    found = {Path(match.file.path).name: match.relation for match in answer.matches}
    assert found == {
        "poster.jpg": Relation.SAME_PICTURE,
        "whole.png": Relation.FRAME_OF,
        "whole.webp": Relation.FRAME_OF,
        "beginning.webp": Relation.FRAME_OF,
        "other-ending.webp": Relation.FRAME_OF,
    }


def test_compare_tells_how_files_with_frames_are_related(tmp_path: Path) -> None:
    files = [
        save_frames(tmp_path / "a.tif", SCENES[:3]),
        save_frames(tmp_path / "b.tif", SCENES[:2]),
        save_image(tmp_path / "c.jpg", SCENES[0], quality=95),
        save_image(tmp_path / "d.jpg", SCENES[2], quality=95),
        save_frames(tmp_path / "e.gif", SCENES[:3]),
    ]
    comparison = compare([str(file) for file in files], load_embedder())
    assert comparison.get_relation(0, 1, 0.6) == Relation.PAGE_OF
    assert comparison.get_relation(0, 2, 0.6) == Relation.PAGE_OF
    assert comparison.get_relation(0, 3, 0.6) == Relation.PAGE_OF  # the third page
    assert comparison.get_relation(3, 4, 0.6) == Relation.FRAME_OF
    assert comparison.get_relation(0, 4, 0.6) in COPY_RELATIONS
    parts = [comparison.find_part_side(*pair) for pair in ((0, 1), (0, 2), (0, 3), (3, 4))]
    assert parts == [Side.SECOND, Side.SECOND, Side.SECOND, Side.FIRST]


def test_explain_tells_which_file_is_the_part(run: Run, tmp_path: Path) -> None:
    scenes = [scene.copy() for scene in SCENES]  # Pillow keeps options of a save in the image
    long = save_frames(tmp_path / "long.tif", scenes[:3])
    short = save_frames(tmp_path / "short.tif", scenes[:2])
    other = save_frames(tmp_path / "other.tif", [scenes[0], scenes[4]])
    still = save_image(tmp_path / "still.jpg", scenes[0], quality=95)
    pages = "pages of the"
    assert (
        f"a page of: the second is one of the 3 {pages} first\n" in run("explain", long, still)[1]
    )
    assert (
        f"a page of: the first is one of the 3 {pages} second\n" in run("compare", still, long)[1]
    )
    _, out, _ = run("explain", short, long)
    assert f"a page of: the 2 {pages} first are among the 3 {pages} second\n" in out
    assert " kB, 2 pages\n" in out
    pairs = json.loads(run("compare", still, long, other, "--json")[1])["pairs"]
    assert [pair.get("part_side") for pair in pairs] == ["first", "first", None]
    _, out, _ = run("explain", long, other)
    assert "relation    overlaps\nreason      each has pages that the other lacks" in out


def test_images_that_are_too_plain_to_compare_are_counted(run: Run, tmp_path: Path) -> None:
    photos = tmp_path / "plain"
    photos.mkdir()
    blank = save_image(photos / "blank.png", Image.new("RGB", (300, 200), "white"))
    save_image(photos / "scene.png", draw_scene(1))
    line = "1 photo too plain to compare: only exact copies are found\n"
    assert run("dedupe", photos)[1].endswith(line)
    assert run("groups")[1] == f"no near-duplicates\n{line}"
    assert json.loads(run("groups", "--json")[1])["coverage"]["featureless"] == 1
    _, out, _ = run("query", blank)
    assert "blank.png (too plain to compare): in the library" in out and out.endswith(line)
    document = json.loads(run("query", blank, "--json")[1])
    assert document["featureless"] == 1 and document["answers"][0]["featureless"] is True


def test_document_with_one_altered_page_is_no_copy(tmp_path: Path) -> None:
    pages = [page.convert("L") for page in SCENES[:3]]
    signed = pages[2].copy()
    ImageDraw.Draw(signed).line((150, 240, 190, 244), fill=0, width=2)
    (files := tmp_path / "files").mkdir()
    save_frames(files / "unsigned.tif", pages)
    save_frames(files / "signed.tif", [*pages[:2], signed])
    save_frames(files / "packed.tif", pages, compression="tiff_lzw")
    with make_store(tmp_path / "store", files) as store:
        groups = [{Path(file.path).name for file in group.files} for group in find_groups(store)]
    assert groups == [{"unsigned.tif", "packed.tif"}]

"""The arena: which pairs of a set have which truth."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.decode.pool import DecoderPool
from pipeline.verify.pool import VerifierPool
from pipeline.verify.relation import Relation
from scripts.arena import Picture, Role, Truth, list_pairs, list_sets, read_pictures
from scripts.bench_arena import ScoredPair, format_sets, load_pictures, main
from tests.support.images import draw_textured_image, save_image


def make_pictures(*rows: tuple[str, str, str, str]) -> list[Picture]:
    return [Picture(Path(name), "set", group, kind, scene) for name, group, kind, scene in rows]


def list_truths(*rows: tuple[str, str, str, str]) -> dict[tuple[str, str], Truth]:
    return {
        (pair.first.path.name, pair.second.path.name): pair.truth
        for pair in list_pairs(make_pictures(*rows))
    }


def test_each_copy_is_paired_with_its_original_alone() -> None:
    truths = list_truths(
        ("1", "a", "original", ""), ("2", "a", "crop", ""), ("3", "a", "resize", "")
    )
    assert truths == {("1", "2"): Truth.COPY, ("1", "3"): Truth.COPY}


def test_copies_without_an_original_are_all_paired() -> None:
    truths = list_truths(*((str(number), "a", "re-exported", "") for number in range(3)))
    assert truths == dict.fromkeys([("0", "1"), ("0", "2"), ("1", "2")], Truth.COPY)


def test_shots_of_a_scene_in_order_are_neighbors() -> None:
    truths = list_truths(*((str(number), str(number), "burst", "s") for number in range(3)))
    assert truths == {
        ("0", "1"): Truth.NEIGHBOR,
        ("1", "2"): Truth.NEIGHBOR,
        ("0", "2"): Truth.SHOT,
    }


def test_one_frame_with_other_content_and_one_edit_of_two_photos_are_templates() -> None:
    truths = list_truths(
        ("1", "1", "template", "s"),
        ("2", "2", "template", "s"),
        ("3", "3", "meme", ""),
        ("4", "4", "meme", ""),
    )
    assert truths["1", "2"] is truths["3", "4"] is Truth.TEMPLATE
    assert truths["1", "3"] is Truth.STRANGER


def test_copy_of_a_shot_leaves_its_scene_a_series() -> None:
    truths = list_truths(
        ("a1", "a", "burst", "s"), ("a2", "a", "crop", "s"), ("b1", "b", "burst", "s")
    )
    assert truths["a1", "b1"] is Truth.NEIGHBOR
    assert truths["a2", "b1"] is Truth.SHOT


def test_one_edit_of_two_photos_of_a_scene_is_one_pair() -> None:
    pictures = make_pictures(
        ("a1", "a", "original", "s"),
        ("a2", "a", "crop", "s"),
        ("b1", "b", "original", "s"),
        ("b2", "b", "crop", "s"),
    )
    pairs = [(pair.first.path.name, pair.second.path.name) for pair in list_pairs(pictures)]
    assert len(pairs) == len(set(pairs))
    assert ("a2", "b2") in pairs


def test_sets_are_read_by_role(tmp_path: Path) -> None:
    (tmp_path / "sets.csv").write_text("set,role,files,groups\none,fit,1,1\ntwo,check,1,1\n")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "truth.csv").write_text("file,group,kind,scene\nx.jpg,x,copy:crop,\n")
    assert list_sets(tmp_path, Role.CHECK) == ["two"]
    assert list_sets(tmp_path) == ["one", "two"]
    (picture,) = read_pictures(tmp_path, "one")
    assert (picture.path, picture.kind) == (tmp_path / "one" / "x.jpg", "crop")
    assert picture.is_edited


def test_unread_pairs_of_each_set_are_counted_where_there_are_some() -> None:
    (pair,) = list_pairs(make_pictures(("1", "a", "original", ""), ("2", "a", "crop", "")))
    scored = {"one": [ScoredPair(pair, Relation.DERIVED, None)], "two": []}
    header, _, *rows = format_sets(scored, {"one": 0, "two": 3}).splitlines()
    assert header.endswith("| wrong relations | unread |")
    assert [row.split(" | ")[-1] for row in rows] == ["0 |", "3 |", "3 |"]
    assert "unread" not in format_sets(scored, {"one": 0, "two": 0})


def test_pictures_are_loaded_by_the_paths_of_a_linked_arena(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_image(tmp_path / "real" / "a.jpg", draw_textured_image(1))
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    paths = {Path("linked/a.jpg"), Path("real/a.jpg"), tmp_path / "real" / "a.jpg"}
    with DecoderPool(1) as decoders, VerifierPool(1) as verifiers:
        loaded = load_pictures({*paths, Path("missing.jpg")}, decoders, verifiers)
    assert loaded.keys() == paths
    assert len({picture.image.hash for picture in loaded.values()}) == 1


def test_unknown_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sets.csv").write_text("set,role,files,groups\none,fit,1,1\ntwo,check,1,1\n")
    monkeypatch.setattr("sys.argv", ["bench_arena", str(tmp_path), "--sets", "one", "two"])
    with pytest.raises(SystemExit):
        main()
    assert f"no fit sets of {tmp_path}: two" in capsys.readouterr().err

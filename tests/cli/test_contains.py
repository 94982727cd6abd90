"""The command contains, and dedupe --against: what two folders have in common."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.support.cli import Run
from tests.support.images import draw_textured_image, save_image


def save_card_and_library(folder: Path) -> tuple[Path, Path]:
    """Save three photos on a card; a library has one of them, and a small version of another."""
    card, library = folder / "card", folder / "home"
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        save_image(card / f"{name}.jpg", draw_textured_image(seed), quality=92)
    save_image(library / "mine.jpg", draw_textured_image(4), quality=92)
    save_image(library / "mine small.jpg", draw_textured_image(4).resize((240, 160)))
    shutil.copy(card / "a.jpg", library / "a.jpg")
    save_image(library / "b small.jpg", draw_textured_image(2).resize((240, 160)), quality=92)
    return card, library


def test_contains_lists_what_would_be_lost(run: Run, tmp_path: Path) -> None:
    card, library = save_card_and_library(tmp_path)
    code, out, _ = run("contains", card, library, "--exit-code")
    assert code == 0
    assert out.splitlines()[:6] == [
        "not in the other folder:",
        f"      {card}/c.jpg",
        "",
        "only as a lesser or edited version:",
        *out.splitlines()[4:6],
    ]
    assert out.splitlines()[4].startswith(f"      {card}/b.jpg   480 x 320, ")
    assert out.splitlines()[5].startswith(f"            {library}/b small.jpg   240 x 160, ")
    assert out.splitlines()[-1] == (
        f"1 of 3 photos (33.3 %) of '{card}' are in '{library}' as the same or a better file;"
        " 1 only as a lesser one, 1 not at all"
    )


def test_contains_exits_with_20_once_all_is_there(run: Run, tmp_path: Path) -> None:
    card, library = save_card_and_library(tmp_path)
    for name in ("b", "c"):
        shutil.copy(card / f"{name}.jpg", library / f"copy of {name}.jpg")
    code, out, _ = run("contains", card, library, "--exit-code", "--json")
    document = json.loads(out)
    assert code == 20
    assert document["is_all_as_good"] is True
    assert document["counts"] == {
        "as good": 3,
        "lesser": 0,
        "absent": 0,
        "other files": 0,
        "not compared": 0,
    }
    (card / "film.mov").write_bytes(b"a video")
    code, out, _ = run("contains", card, library, "--exit-code")
    assert code == 0
    assert out.splitlines()[-1] == "1 file there could not be compared"


def test_contains_needs_two_separate_folders(run: Run, tmp_path: Path) -> None:
    card, library = save_card_and_library(tmp_path)
    for first, second, message in (
        (card, tmp_path / "away", "does not exist"),
        (tmp_path / "away", card, "does not exist"),
        (card, card / "a.jpg", "is not a folder"),
        (tmp_path, library, "side by side"),
    ):
        code, out, err = run("contains", first, second)
        assert (code, out) == (2, "")
        assert message in err
    assert not (tmp_path / "library").exists()


def test_dedupe_against_prints_groups_across_the_folders_alone(run: Run, tmp_path: Path) -> None:
    card, library = save_card_and_library(tmp_path)
    document = json.loads(run("dedupe", card, "--against", library, "--json")[1])
    names = [
        sorted(Path(file["path"]).name for file in (group["keeper"], *group["members"]))
        for group in document["groups"]
    ]
    assert names == [["a.jpg", "a.jpg"], ["b small.jpg", "b.jpg"]]
    assert "mine small.jpg" in run("dedupe", library)[1]
    assert run("dedupe", card, "--against", library, "--against-all")[0] == 2
    assert run("dedupe", card, "--against", tmp_path / "away")[0] == 2

from __future__ import annotations

import json
from pathlib import Path

from tests.support.cli import Run
from tests.support.images import draw_textured_image, save_image


def test_standing_tells_what_a_program_would_do_with_a_file(run: Run, tmp_path: Path) -> None:
    photo = draw_textured_image(1, (900, 600))
    folder, outside = tmp_path / "photos", tmp_path / "outside"
    kept = save_image(folder / "kept.jpg", photo.resize((600, 400)), quality=90)
    run("ingest", folder)
    same_pixels = kept.read_bytes()[:2] + b"\xff\xfe\x00\x06note" + kept.read_bytes()[2:]
    (folder / "nothing.txt").write_text("no photo")
    files = {
        kept: "identical",
        save_image(outside / "larger.jpg", photo, quality=90): "better than",
        save_image(outside / "smaller.jpg", photo.resize((300, 200)), quality=80): "worse than",
        save_image(outside / "other.jpg", draw_textured_image(2, (900, 600))): "new",
        folder / "nothing.txt": None,
    }
    annotated = outside / "annotated.jpg"
    annotated.write_bytes(same_pixels)
    files[annotated] = "identical"

    def ask() -> dict[str, str | None]:
        answers = json.loads(run("query", *files, "--json")[1])["answers"]
        return {answer["file"]: answer["standing"] for answer in answers}

    assert ask() == {str(file): standing for file, standing in files.items()}
    larger = outside / "larger.jpg"
    save_image(folder / "largest.jpg", photo, quality=97)
    run("ingest", folder)
    assert ask()[str(larger)] == "worse than"
    run("ingest", outside)
    run("decide", "different", outside / "smaller.jpg", kept)
    run("decide", "different", outside / "smaller.jpg", larger)
    run("decide", "different", outside / "smaller.jpg", folder / "largest.jpg")
    (outside / "smaller.jpg").rename(tmp_path / "smaller.jpg")
    run("ingest", outside, "--accept-missing")
    moved = json.loads(run("query", tmp_path / "smaller.jpg", "--json")[1])["answers"][0]
    assert moved["standing"] == "near"

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from indexes import Store
from tests.support.cli import Run
from tests.support.images import draw_scene, save_image


def test_damaged_segment_fails_every_command_that_reads_it(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    run("ingest", photos)
    answer = run("groups")
    (segment,) = (tmp_path / "library" / "segments").iterdir()
    sound = segment.read_bytes()
    for damaged in (sound[:-1], b"\0" + sound[1:]):
        segment.write_bytes(damaged)
        for command in (
            ["ingest"],
            ["status"],
            ["compact"],
            ["query", photos / "a.png"],
            ["check"],
        ):
            code, out, err = run(*command)
            assert code == 4
            assert segment.name in out + err
            assert (
                command == ["check"]
                or f"`neardup repair --store {tmp_path / 'library'}`" in out + err
            )
        assert run("groups") == answer  # the pairs are in the catalog
    segment.write_bytes(sound)
    assert run("ingest")[0] == 0


def test_repair_rebuilds_damaged_store_from_photos(run: Run, photos: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    run("ingest", photos)
    assert run("check", "--data", "--sample", "9")[:2] == (
        0,
        "5 images embedded again, lowest cosine with the stored vector 1.00000\n"
        "the store is sound\n",
    )
    assert run("repair")[:2] == run("repair", "--yes")[:2] == (0, "the store is sound\n")
    answer = run("groups", "--json")
    for name in ("segment", "catalog.db", "catalog.seal"):
        path = next((library / "segments").iterdir()) if name == "segment" else library / name
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
        code, out, _ = run("check", "--json")
        assert code == 4
        assert [finding["location"] for finding in json.loads(out)["findings"]] == [str(path)]
        code, out, err = run("repair")
        assert code == 4
        assert "nothing was changed" in err
        assert path.read_bytes() == damaged
        code, out, err = run("repair", "--yes")
        assert code == 0, err
        saved_as = re.search(r"catalog saved as (.*)", out)
        assert saved_as
        assert Path(saved_as[1]).exists()
        embedded = 0 if name == "catalog.seal" else 5
        assert f"; {embedded} images embedded" in err
        assert ("6 new" if name == "catalog.db" else "6 unchanged") in err
        if name != "catalog.seal":
            assert bytes(damaged) in [
                file.read_bytes() for file in (library / "quarantine").rglob("*") if file.is_file()
            ]
        assert run("check", "--data")[:2] == (0, "the store is sound\n")
        assert run("groups", "--json") == answer


def test_missing_catalog_is_damage_not_an_empty_store(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    run("ingest", photos)
    (segment,) = (library / "segments").iterdir()
    (library / "catalog.db").unlink()
    for command in (["groups"], ["ingest", photos], ["check"]):
        code, out, err = run(*command)
        assert code == 4
        assert "is gone" in out + err
    (library / "store.json").unlink()  # which remembers the folders
    code, out, err = run("repair", "--yes")
    assert code == 3
    assert "name them again" in err
    assert [file.name for file in (library / "quarantine").rglob("*.faiss")] == [segment.name]
    code, out, err = run("groups")
    assert (code, out) == (0, "no near-duplicates\n")
    assert "the store is empty" in err
    assert run("ingest", photos)[0] == 0
    assert run("check", "--data")[0] == 0


def test_repair_names_photos_that_cannot_be_embedded_again(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    run("ingest", photos)
    (segment,) = (tmp_path / "library" / "segments").iterdir()
    segment.unlink()
    (photos / "b.jpg").unlink()
    (photos / "c.webp").write_bytes(b"not a photo any more")
    code, out, err = run("repair", "--yes")
    assert code == 3
    assert "5 images to embed again" in out
    assert "c.webp" in err
    assert run("check", "--data")[0] == 0
    assert "a small.jpg" in run("groups")[1]


def test_check_sample_names_photo_with_another_vector(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    run("ingest", photos / "sub")
    with Store(tmp_path / "library", write=True) as store, store.catalog.transaction():
        file = store.catalog.files.get_by_path(str(photos / "sub" / "a.jpg"))
        other_file = store.catalog.files.get_by_path(str(photos / "sub" / "a copy.png"))
        assert file
        assert other_file
        vectors = store.catalog.vectors.find_of_images(
            [file.image_id or 0, other_file.image_id or 0]
        )
        store.catalog.write(
            "UPDATE images SET vector = ? WHERE id = ?",
            vectors[other_file.image_id or 0],
            file.image_id,
        )
    code, out, _ = run("check", "--sample", "9")
    assert code == 4
    assert re.search(r"a\.jpg: embedded again, its cosine with the stored vector is 0\.9\d+\n", out)


def test_check_sample_skips_photo_changed_without_new_times(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("ingest", photos)
    save_image(photos / "b.jpg", draw_scene(61))
    monkeypatch.setattr("pipeline.ingest.audit.is_unchanged", lambda known: True)
    code, out, err = run("check", "--sample", "9")
    assert (code, out) == (
        0,
        "4 images embedded again, lowest cosine with the stored vector 1.00000\n"
        "the store is sound\n",
    )
    assert "4 of 9 images were embedded again; the others have changed" in err


def test_compact_merges_segments_and_drops_tombstones(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    run("ingest", photos / "sub")
    run("ingest", photos)
    assert "2 segments" in run("status")[1]
    (photos / "b.jpg").unlink()
    run("ingest")
    before = run("groups", "--json")
    code, out, _ = run("compact")
    assert code == 0
    assert out.startswith("2 segments before, 1 now; 1 vector dropped, ")
    assert run("groups", "--json") == before
    assert json.loads(run("compact", "--json")[1]) == {
        "schema_version": 3,
        "segments_before": 1,
        "segments_after": 1,
        "vectors_dropped": 0,
        "bytes_written": 0,
    }
    for command in (["compact"], ["check"], ["repair"], ["repair", "--yes"]):
        assert run(*command, "--store", tmp_path / "typo")[0] == 10
    assert not (tmp_path / "typo").exists()

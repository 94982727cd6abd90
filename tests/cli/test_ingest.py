from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.support.cli import Run, run_process
from tests.support.images import DATA_FOLDER, draw_scene, needs_data, save_image
from tests.support.stores import downgrade_store


def test_root_folder_of_the_machine_is_refused(run: Run, tmp_path: Path) -> None:
    for arguments in (["dedupe", "/"], ["ingest", tmp_path, "/"]):
        code, _, err = run(*arguments)
        assert code == 2
        assert "name the folders" in err


def test_missing_root_is_kept_until_accept_missing(run: Run, photos: Path, tmp_path: Path) -> None:
    card = save_image(tmp_path / "card" / "a.jpg", draw_scene(1, (640, 480)), quality=60).parent
    run("ingest", photos)
    assert "card" in run("dedupe", card, "--against-all")[1]
    assert run("dedupe", card)[1] == "no near-duplicates\n"
    (card / "a.jpg").unlink()
    card.rmdir()
    code, _, err = run("ingest")
    assert code == 3
    assert "card' no longer exists as a folder" in err
    assert "a.jpg   640 x 480" in run("groups")[1]
    assert ", missing" in run("groups")[1]
    assert run("ingest", card, "--accept-missing")[0] == 0
    assert run("ingest")[0] == 0
    assert "/card" not in run("groups")[1] + run("status")[1]


def test_hidden_and_exclude_are_remembered(run: Run, photos: Path) -> None:
    save_image(photos / ".hidden" / "1.jpg", draw_scene(70))
    assert "6 new" in run("ingest", photos)[2]
    assert "1 new" in run("ingest", photos, "--hidden")[2]
    assert "7 unchanged" in run("ingest")[2]
    assert "1 now excluded" in run("ingest", photos, "--exclude", "c.*")[2]
    assert "6 unchanged" in run("ingest")[2]
    assert "1 new" in run("ingest", photos, "--exclude", "")[2]


def test_exclude_that_matches_nothing_is_named_in_readable_letters(run: Run, photos: Path) -> None:
    card = save_image(photos.parent / "card" / "été" / "x.GIF", draw_scene(71)).parent.parent
    excludes = ["--exclude", "*.gif", "--exclude", "Ferien in München"]
    code, out, err = run("ingest", photos, card, *excludes, "--json")
    assert code == 0
    (warning,) = json.loads(out)["warnings"]  # a GIF is only below one of the folders
    assert warning.startswith("no file or folder matches the exclude 'Ferien in München'")
    assert f"neardup: {warning}\n" in err
    # Neither an empty folder nor one that is away shows what an exclude would match.
    (card / "été" / "x.GIF").unlink()
    (card / "été").rmdir()
    assert "the exclude" not in run("ingest", card)[2]
    card.rmdir()
    assert "the exclude" not in run("ingest", card)[2]


@pytest.mark.parametrize("command", ["ingest", "dedupe"])
def test_exit_code_tells_of_each_unreadable_photo_once(
    run: Run, photos: Path, command: str
) -> None:
    def ingest(*words: str) -> int:
        return int(run(command, photos, *words)[0])

    broken = photos / "broken.jpg"
    broken.write_bytes((photos / "b.jpg").read_bytes()[:1000])
    assert ingest() == 3
    assert (ingest(), ingest("--strict")) == (0, 3)
    for _ in range(2):
        assert "not read    1 (1 truncated)" in run("status")[1]
        assert "; failed 1 (1 truncated)" in run("status")[1]
        assert str(broken) in run("status", "--failures")[1]
    (photos / "empty.jpg").touch()
    code, out, _ = run("ingest", "--json")
    assert (code, json.loads(out)["new_problems"]) == (3, 1)
    assert (ingest(), ingest("--strict")) == (0, 3)
    broken.write_bytes(broken.read_bytes()[:900])  # other content, broken too
    assert (ingest(), ingest()) == (3, 0)
    broken.unlink()
    (photos / "empty.jpg").unlink()
    assert ingest("--strict") == 0
    assert run(command, photos, photos.parent / "nothing")[0] == 3
    assert run(command, photos, photos.parent / "nothing")[0] == 3  # the command is wrong


def test_broken_photo_that_was_moved_or_touched_is_no_new_problem(run: Run, photos: Path) -> None:
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:2000])
    assert run("ingest", photos)[0] == 3
    (photos / "broken.jpg").rename(photos / "sub" / "broken too.jpg")
    assert run("ingest")[0] == 0
    (photos / "sub" / "broken too.jpg").touch()
    assert run("ingest")[0] == 0
    (photos / "another.jpg").write_bytes((photos / "b.jpg").read_bytes()[:1900])
    assert run("ingest")[0] == 3


def test_exit_code_tells_of_missing_photos_and_folders_once(run: Run, photos: Path) -> None:
    card = save_image(photos.parent / "card" / "a.jpg", draw_scene(1)).parent
    run("ingest", photos, card)
    away = card.rename(photos.parent / "away")
    assert [run("ingest")[0] for _ in range(2)] == [3, 0]
    assert run("ingest", photos)[0] == 0  # a run of another folder forgets nothing
    assert (run("ingest")[0], run("ingest", "--strict")[0]) == (0, 3)
    assert "not a folder any more" in run("status")[1]
    away.rename(card)
    assert run("ingest", "--strict")[0] == 0
    (card / "a.jpg").unlink()  # its drive is not mounted
    assert [run("ingest")[0] for _ in range(2)] == [3, 0]
    assert "1 missing, still listed" in run("status")[1]
    assert run("ingest", "--strict")[0] == 3


def test_exit_code_tells_of_problems_of_a_run_that_did_not_finish(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:1000])

    def stop(context: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.ingest.ingest.find_pairs", stop)
        assert run("ingest", photos)[0] == 130
    assert "1 truncated" in run("status")[1]
    assert [run("ingest")[0] for _ in range(2)] == [3, 0]


def test_failures_are_printed_up_to_ten_and_listed_by_status(run: Run, photos: Path) -> None:
    for number in range(12):
        (photos / f"broken{number:02}.jpg").write_bytes(
            (photos / "b.jpg").read_bytes()[: 1000 + number]
        )
    code, _, err = run("ingest", photos)
    assert code == 3
    assert err.count(": truncated") == 10
    assert f"`neardup status --failures --store {photos.parent / 'library'}`" in err
    assert "failed 12 (12 truncated)" in err
    listed = run("status", "--failures")[1].splitlines()
    assert len(listed) == 12
    assert all(": truncated (" in line for line in listed)
    status = json.loads(run("status", "--failures", "--json")[1])
    assert len(status["failures"]) == 12
    assert status["coverage"]["failed_by_reason"] == {"truncated": 12}
    assert "12 truncated" in run("status")[1]


@needs_data
def test_hostile_files_are_counted_by_reason(tmp_path: Path) -> None:
    """A quarter of them: tests/decode decodes all, and pairs of mutated copies take the time."""
    hostile = DATA_FOLDER / "hostile"
    paths = sorted(path for path in hostile.rglob("*") if path.is_file())[::4]
    for path in paths:
        copy = tmp_path / "photos" / path.relative_to(hostile)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    code, out, err = run_process(tmp_path / "store", "ingest", tmp_path / "photos", "--json")
    assert code == 3, err
    coverage = json.loads(out)
    assert coverage["seen"] == len(paths) == 312
    assert coverage["new"] > 100
    assert set(coverage["failed"]) == {
        "damaged",
        "empty file",
        "no picture inside",
        "too many pixels",
        "truncated",
    }
    assert len(err.splitlines()) == 11  # ten failures, and where to find the rest


def test_damaged_and_animated_photos_are_flagged_everywhere(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    sound = save_image(folder / "sound.jpg", draw_scene(1, (640, 480)), quality=90)
    (folder / "cut.jpg").write_bytes(sound.read_bytes()[: round(sound.stat().st_size * 0.9)])
    save_image(folder / "moving.gif", draw_scene(2), save_all=True, append_images=[draw_scene(3)])
    code, _, err = run("ingest", folder)
    assert code == 0
    assert "3 images embedded, 1 animated, 1 damaged" in err
    assert "flagged     1 animated, 1 damaged" in run("status")[1]
    answer = json.loads(run("groups", "--json")[1])
    assert answer["coverage"]["flagged"] == {"animated": 1, "damaged": 1}
    (group,) = answer["groups"]
    assert group["keeper"]["path"] == str(sound)
    assert "flags" not in group["keeper"]
    assert group["members"][0]["flags"] == ["damaged"]
    assert group["members"][0]["relation"] in ("same picture", "derived")
    assert re.search(", damaged   (same picture|derived) 0", run("groups")[1])
    explained = run("explain", sound, folder / "cut.jpg")[1]
    assert re.search(r", damaged from [89]\d % of its height on\n", explained)


def test_photo_with_a_lost_sector_is_matched_and_not_kept(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    sound = save_image(folder / "backup.jpg", draw_scene(1, (640, 480)), quality=90)
    data = bytearray(sound.read_bytes())
    position = round(len(data) * 0.85) // 512 * 512
    data[position : position + 512] = bytes(512)
    lost = folder / "a.jpg"
    lost.write_bytes(data)
    os.utime(lost, (1_000_000_000, 1_000_000_000))  # older, with the shorter path
    run("ingest", folder)
    (group,) = json.loads(run("groups", "--json")[1])["groups"]
    assert group["keeper"]["path"] == str(sound)
    assert group["members"][0]["flags"] == ["damaged"]
    assert "not damaged" in run("groups")[1]


def test_ingest_migrates_store_of_older_format(run: Run, photos: Path, tmp_path: Path) -> None:
    run("ingest", photos)
    answer = run("groups")
    library = tmp_path / "library"
    downgrade_store(library)
    for command in (["groups"], ["check"]):
        assert "brings it up to date" in run(*command)[2]
    code, _, err = run("ingest")
    assert code == 0, err
    assert "0 images embedded" in err
    assert run("groups") == answer
    assert run("check", "--data")[0] == 0


def test_compact_migrates_store_of_older_format(run: Run, photos: Path, tmp_path: Path) -> None:
    run("ingest", photos)
    answer = run("groups")
    downgrade_store(tmp_path / "library")
    assert run("compact")[0] == 0
    # In the older format no pair was verified.
    assert "2 photos are in none of these groups, but close to one: 2 similar" in run("groups")[1]
    run("ingest")
    assert run("groups") == answer


def test_photos_that_need_an_extra_are_skipped_with_hint(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.decode.read.EXTRA_INSTALLED", {"raw": False, "jxl": False})
    folder = tmp_path / "photos"
    save_image(folder / "sound.jpg", draw_scene(1))
    for name, head in {
        "a.dng": b"II*\0",
        "b.dng": b"II*\0",
        "c.jxl": b"\0\0\0\x0cJXL \r\n\x87\n",
    }.items():
        (folder / name).write_bytes(head + bytes(100))
    code, _, err = run("ingest", folder)
    assert code == 0, err
    assert "skipped 3 (2 raw photo, 1 no decoder), failed 0" in err
    assert "neardup: 2 raw files skipped; to read them: pip install 'neardup[raw]'\n" in err
    assert "neardup: 1 JPEG XL file skipped; to read it: pip install 'neardup[jxl]'\n" in err


def test_verbose_uses_singular_for_one_worker(run: Run, photos: Path) -> None:
    err = run("ingest", photos, "--verbose", "--decoders", "1", "--threads", "1")[2]
    assert "neardup-1: 1 thread, batches of 32; 1 decoder process, 1 file read at a time\n" in err


def test_multipage_photo_is_counted_in_words(run: Run, tmp_path: Path) -> None:
    save_image(
        tmp_path / "photos" / "pages.tiff",
        draw_scene(2),
        save_all=True,
        append_images=[draw_scene(3)],
    )
    assert "1 image embedded, 1 with pages\n" in run("ingest", tmp_path / "photos")[2]
    assert "flagged     1 with pages\n" in run("status")[1]

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from indexes import Store
from pipeline.cli.main import main
from tests.support import onnx_models
from tests.support.cli import Run
from tests.support.images import DATA_FOLDER, draw_scene, needs_data, save_image
from tests.support.stores import downgrade_store

NEARDUP = [sys.executable, "-m", "pipeline.cli"]


def test_help_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipeline.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {
        line.rsplit("|", 1)[1].strip().split(".")[0]
        for line in done.stderr.splitlines()
        if "|" in line
    }
    assert "click" in loaded
    assert not loaded & {
        "torch",
        "onnxruntime",
        "cv2",
        "faiss",
        "numpy",
        "PIL",
        "rich",
        "open_clip",
    }


@pytest.mark.parametrize("command", ["", *main.commands])
def test_help_begins_with_examples(run: Run, command: str) -> None:
    code, out, _ = run(*[command] * bool(command), "--help")
    assert code == 0
    assert re.search(rf"^\s+neardup {command}", out[: out.index("Options:")], re.MULTILINE)


@pytest.mark.parametrize(
    ("option", "most"),
    [("--decoders", 64), ("--readers", 64), ("--threads", 64), ("--batch", 4096)],
)
def test_no_one_asks_for_more_than_a_machine_has(
    run: Run, tmp_path: Path, option: str, most: int
) -> None:
    code, _, err = run("ingest", tmp_path, option, str(most + 1))
    assert code == 2
    assert f"range 1<=x<={most}" in err
    assert not (tmp_path / "library").exists()


@pytest.mark.parametrize("command", ["ingest", "migrate", "query"])
def test_help_names_every_form_of_a_model(run: Run, command: str) -> None:
    said = " ".join(run(command, "--help")[1].split())
    for form in (
        "onnx:PATH",
        "open_clip:ARCH/PRETRAINED",
        "open_clip:ARCH@FILE",
        "google:MODEL",
        "google-describe:VISION+TEXT",
    ):
        assert form in said


def test_version(run: Run) -> None:
    assert run("--version")[1].startswith("neardup, version ")


def test_dedupe_prints_groups_and_coverage(run: Run, photos: Path) -> None:
    code, out, err = run("dedupe", photos)
    assert code == 0
    assert out.count("keep  ") == 1
    assert "identical bytes" in out
    assert out.splitlines()[-1].startswith("1 group, 3 near-duplicates")
    assert (
        "6 files seen, 6 new, 0 unchanged, 0 moved, 0 gone, skipped 0, failed 0; 5 pictures embedded"
        in err
    )
    assert run("dedupe", photos, "--exit-code")[0] == 20
    assert "6 unchanged" in run("ingest")[2]
    assert run("groups")[1] == out


def test_rules_say_which_photo_is_kept(run: Run, photos: Path) -> None:
    run("ingest", photos)
    assert run("groups")[1].startswith(f"keep  {photos}/a.png")
    for rules in (
        ["--keep", "folder:sub"],
        ["--keep", "format, folder:s*"],
        ["--keep", "folder:nowhere", "--keep", f"folder:{photos}/sub"],
    ):
        code, out, _ = run("groups", *rules)
        assert code == 0
        assert out.startswith(f"keep  {photos}/sub/")
        assert "in sub" in out or "in s*" in out or f"in {photos}/sub" in out
    assert (
        run("dedupe", photos, "--keep", "folder:sub")[1] == run("groups", "--keep", "folder:sub")[1]
    )
    for command in (["groups"], ["dedupe", photos]):
        code, out, err = run(*command, "--keep", "date,largest")
        assert (code, out) == (2, "")
        assert "'largest' is not a keep rule; use original, resolution, format" in err


def normalised(document: Any, folder: Path) -> Any:  # noqa: ANN401 - JSON
    """Without what differs between machines and versions of encoders: the folder, hashes, times, sizes in bytes."""
    if isinstance(document, dict):
        varying = {"id", "bytes", "bytes_on_disk", "started", "ended"}
        varying |= {
            "inliers",
            "tiles",
            "agreeing_share",
            "displaced_share",
            "homography",
            "overlap",
        }  # of verdicts
        return {
            key: type(value).__name__ if key in varying else normalised(value, folder)
            for key, value in document.items()
        }
    if isinstance(document, list):
        return [normalised(value, folder) for value in document]
    return document.replace(str(folder), "HERE") if isinstance(document, str) else document


def assert_same(found: Any, golden: Any, at: str = "$") -> None:  # noqa: ANN401 - JSON
    """Equal, but for the third digit of what was measured."""
    if isinstance(golden, dict):
        assert list(found) == list(golden), at
        for key in golden:
            assert_same(found[key], golden[key], f"{at}.{key}")
    elif isinstance(golden, list):
        assert len(found) == len(golden), at
        for number, value in enumerate(golden):
            assert_same(found[number], value, f"{at}[{number}]")
    else:
        assert found == (
            pytest.approx(golden, abs=0.02) if isinstance(golden, float) else golden
        ), at


@pytest.mark.parametrize("name", ["dedupe", "groups", "query", "compare", "ingest", "status"])
def test_json_stays_as_people_s_scripts_expect_it(run: Run, photos: Path, name: str) -> None:
    """tests/golden/*.json: fields may be added there on purpose, never changed or removed."""
    os.utime(photos / "a.png", (1, 1))  # of the two equal files, this one is older
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:2000])
    dedupe = run("dedupe", photos, "--json")[1]
    out = {
        "dedupe": lambda: dedupe,
        "groups": lambda: run("groups", "--threshold", "0.9", "--json")[1],
        "query": lambda: run(
            "query", photos / "a small.jpg", photos / "b.jpg", photos / "nothing.jpg", "--json"
        )[1],
        "compare": lambda: run(
            "compare", photos / "a.png", photos / "sub" / "a copy.png", photos / "b.jpg", "--json"
        )[1],
        "ingest": lambda: run("ingest", photos, "--exclude", "c.*", "--json")[1],
        "status": lambda: run("status", "--failures", "--json")[1],
    }[name]()
    found = normalised(json.loads(out), photos.parent)
    golden = Path(__file__).parent / "golden" / f"{name}.json"
    if os.environ.get("WRITE_GOLDEN"):
        golden.write_text(json.dumps(found, indent=2) + "\n")
    assert_same(found, json.loads(golden.read_text()))


def test_query_and_compare_in_words(run: Run, photos: Path, tmp_path: Path) -> None:
    run("ingest", photos)
    code, out, _ = run("query", photos / "a.png")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].endswith("a.png: in the library, 3 matches")
    assert [
        re.match("  (identical bytes|same picture)", line) is not None for line in lines[1:]
    ] == [True] * 3
    assert run("query", photos / "b.jpg")[1].endswith("in the library, no other copy\n")
    stranger = save_image(tmp_path / "stranger.png", draw_scene(50))
    assert run("query", stranger)[1].endswith("not in the library, no match\n")
    assert run("query", stranger, "--exit-code")[0] == 0
    assert run("query", photos / "a.png", "--exit-code")[0] == 20
    assert (
        run("compare", photos / "a.png", photos / "sub" / "a copy.png")[1]
        == "1.0000  identical bytes\n"
    )
    assert run("compare", photos / "a.png", photos / "b.jpg")[1].endswith("  unrelated\n")
    assert run("compare", photos / "a.png", photos / "b.jpg", "--exit-code")[0] == 0
    matrix = run("compare", photos / "a.png", photos / "b.jpg", photos / "c.webp")[1].splitlines()
    assert len(matrix) == 8
    assert matrix[-3].split()[1] == "1.000"


def test_paths_from_standard_input(run: Run, photos: Path) -> None:
    run("ingest", photos)
    lines = f"{photos}/a.png\n{photos}/b.jpg\n".encode()
    assert [
        answer["file"] for answer in json.loads(run("query", "--json", stdin=lines)[1])["answers"]
    ] == lines.decode().split()
    odd = photos / os.fsdecode(b"caf\xe9\n.jpg")
    odd.write_bytes((photos / "b.jpg").read_bytes())
    (answer,) = json.loads(run("query", "-0", "-", "--json", stdin=os.fsencode(odd) + b"\0")[1])[
        "answers"
    ]
    assert os.fsencode(answer["file"]) == os.fsencode(odd)
    assert answer["matches"][0]["relation"] == "identical bytes"
    assert "caf\\udce9\\n.jpg: not in the library" in run("query", odd)[1]


def test_bad_input_has_a_message_and_an_exit_code(run: Run, photos: Path, tmp_path: Path) -> None:
    for words in (["groups"], ["status"], ["query", photos / "a.png"]):
        code, out, err = run(*words)
        assert (code, out) == (10, "")
        assert f"make one with `neardup ingest FOLDER --store {tmp_path / 'library'}`" in err
    assert run("ingest")[0] == 10
    for words in (
        ["ingest", tmp_path / "nothing"],
        ["dedupe", tmp_path / "nothing"],
        ["ingest", photos / "a.png"],
    ):
        code, out, err = run(*words)
        assert (code, out) == (2, ""), words
        assert err.startswith("neardup: ")
        assert not (tmp_path / "library").exists()
    assert run("dedupe")[0] == 2
    assert run("compare", photos / "a.png")[0] == 2
    assert run("ingest", photos, "--model", "dinosaur")[0] == 2
    assert run("groups")[0] == 0
    assert not list((tmp_path / "library" / "segments").iterdir())
    code, _, err = run("ingest", photos, tmp_path / "nothing")
    assert code == 3
    assert "nothing" in err
    run("ingest", photos)
    for words in (
        ["groups"],
        ["query", photos / "a.png"],
        ["query", photos / "b.jpg"],
        ["dedupe", photos],
    ):
        code, out, err = run(*words, "--threshold", "0.1")
        assert (code, out) == (2, "")
        assert "0.35" in err
        assert "files seen" not in err
        assert run(*words, "--threshold", "nan")[0] == 2
    assert run("compare", photos / "a.png", photos / "b.jpg", "--threshold", "nan")[0] == 2
    assert run("ingest", "--lock-timeout", "nan")[0] == 2
    assert run("groups", "--threshold", "7")[0] == 2
    code, out, err = run("groups", tmp_path / "typo")
    assert (code, out) == (2, "")
    assert "no photo below" in err
    code, out, err = run("query", "-", stdin=f"{photos}/a.png\0{photos}/b.jpg\0".encode())
    assert code == 3
    assert "unreadable" in err
    code, out, err = run("query", photos / "nothing.jpg", photos / "b.jpg")
    assert code == 3
    assert "nothing.jpg: unreadable (No such file or directory)" in err
    assert "b.jpg: in the library" in out
    assert run("compare", photos / "a.png", photos / "nothing.jpg")[0] == 3


def test_another_model_or_version_is_refused(run: Run, photos: Path, tmp_path: Path) -> None:
    run("ingest", photos)
    with Store(tmp_path / "library", write=True) as store, store.catalog.transaction():
        store.catalog._db.execute("UPDATE space SET weights = 'other'")
    code, _, err = run("query", save_image(tmp_path / "new.png", draw_scene(9)))
    assert code == 2
    assert "--store" in err
    assert run("check", "--sample", "3")[0] == 2  # its vectors are no damaged ones of today's model
    with Store(tmp_path / "library", write=True) as store, store.catalog.transaction():
        store.catalog._db.execute("PRAGMA user_version = 99")
    for command in (["ingest"], ["groups"], ["query", photos / "a.png"], ["status"]):
        code, _, err = run(*command)
        assert code == 4
        assert "upgrade neardup" in err


def test_a_damaged_segment_is_noticed_by_every_command_that_needs_it(
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


def test_a_damaged_store_is_repaired_from_the_photos(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    run("ingest", photos)
    assert run("check", "--data", "--sample", "9")[:2] == (
        0,
        "5 photos embedded again, least cosine with the stored vector 1.00000\nthe store is sound\n",
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
        assert f"; {embedded} pictures embedded" in err
        assert ("6 new" if name == "catalog.db" else "6 unchanged") in err
        if name != "catalog.seal":
            assert bytes(damaged) in [
                file.read_bytes() for file in (library / "quarantine").rglob("*") if file.is_file()
            ]
        assert run("check", "--data")[:2] == (0, "the store is sound\n")
        assert run("groups", "--json") == answer


def test_a_catalog_that_is_gone_is_no_empty_store(run: Run, photos: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    run("ingest", photos)
    (segment,) = (library / "segments").iterdir()
    (library / "catalog.db").unlink()
    for command in (["groups"], ["ingest", photos], ["check"]):
        code, out, err = run(*command)
        assert code == 4
        assert "is gone" in out + err
    (library / "store.json").unlink()  # and what it says of folders
    code, out, err = run("repair", "--yes")
    assert code == 3
    assert "name them again" in err
    assert [file.name for file in (library / "quarantine").rglob("*.faiss")] == [segment.name]
    code, out, err = run("groups")
    assert (code, out) == (0, "no near-duplicates\n")
    assert "the store is empty" in err
    assert run("ingest", photos)[0] == 0
    assert run("check", "--data")[0] == 0


def test_what_cannot_be_embedded_again_is_named(run: Run, photos: Path, tmp_path: Path) -> None:
    run("ingest", photos)
    (segment,) = (tmp_path / "library" / "segments").iterdir()
    segment.unlink()
    (photos / "b.jpg").unlink()
    (photos / "c.webp").write_bytes(b"no picture any more")
    code, out, err = run("repair", "--yes")
    assert code == 3
    assert "5 pictures to embed again" in out
    assert "c.webp" in err
    assert run("check", "--data")[0] == 0
    assert "a small.jpg" in run("groups")[1]


def test_a_photo_that_gives_another_vector_now_is_named(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    run("ingest", photos / "sub")
    with Store(tmp_path / "library", write=True) as store, store.catalog.transaction():
        known = store.catalog.files.get_by_path(str(photos / "sub" / "a.jpg"))
        other = store.catalog.files.get_by_path(str(photos / "sub" / "a copy.png"))
        assert known
        assert other
        vectors = store.catalog.vectors.find_of_images([known.image_id or 0, other.image_id or 0])
        store.catalog.write(
            "UPDATE images SET vector = ? WHERE id = ?",
            vectors[other.image_id or 0],
            known.image_id,
        )
    code, out, _ = run("check", "--sample", "9")
    assert code == 4
    assert re.search(r"a\.jpg: embedded again, its cosine with the stored vector is 0\.9\d+\n", out)


def test_a_photo_that_was_changed_behind_its_times_is_no_damage(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("ingest", photos)
    save_image(photos / "b.jpg", draw_scene(61))
    monkeypatch.setattr("pipeline.ingest.audit.is_unchanged", lambda known: True)
    code, out, err = run("check", "--sample", "9")
    assert (code, out) == (
        0,
        "4 photos embedded again, least cosine with the stored vector 1.00000\nthe store is sound\n",
    )
    assert "4 of 9 photos were embedded again; the rest changed" in err


def test_compact_merges_and_drops(run: Run, photos: Path, tmp_path: Path) -> None:
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


def test_an_answer_says_when_the_last_ingest_did_not_finish(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    run("ingest", photos)
    assert "did not finish" not in run("groups")[2]
    for outcome in ("running", "interrupted"):
        with Store(tmp_path / "library", write=True) as store, store.catalog.transaction():
            store.catalog._db.execute("UPDATE runs SET outcome = ?", (outcome,))
        for command in (["groups"], ["query", photos / "a.png"]):
            assert "did not finish" in run(*command)[2]
    assert "running, or cut off" not in run("status")[1]


def test_the_whole_machine_is_no_folder_of_photos(run: Run, tmp_path: Path) -> None:
    for words in (["dedupe", "/"], ["ingest", tmp_path, "/"]):
        code, _, err = run(*words)
        assert code == 2
        assert "name the folders" in err


def test_a_store_in_use(run: Run, photos: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "library", write=True) as other, other.lock_for_ingest():
        code, _, err = run("ingest", photos)
        assert code == 11
        assert str(os.getpid()) in err
        assert run("status")[0] == 0  # readers are not blocked


def test_a_card_that_is_gone_can_be_forgotten(run: Run, photos: Path, tmp_path: Path) -> None:
    card = save_image(tmp_path / "card" / "a.jpg", draw_scene(1, (640, 480)), quality=60).parent
    run("ingest", photos)
    assert "card" in run("dedupe", card, "--against-all")[1]
    assert run("dedupe", card)[1] == "no near-duplicates\n"
    (card / "a.jpg").unlink()
    card.rmdir()
    code, _, err = run("ingest")
    assert code == 3
    assert "card' is no folder now" in err
    assert "a.jpg   640 x 480" in run("groups")[1]
    assert ", missing" in run("groups")[1]
    assert run("ingest", card, "--accept-missing")[0] == 0
    assert run("ingest")[0] == 0
    assert "/card" not in run("groups")[1] + run("status")[1]


def test_hidden_files_and_excludes_are_remembered(run: Run, photos: Path) -> None:
    save_image(photos / ".hidden" / "1.jpg", draw_scene(70))
    assert "6 new" in run("ingest", photos)[2]
    assert "1 new" in run("ingest", photos, "--hidden")[2]
    assert "7 unchanged" in run("ingest")[2]
    assert "1 left out now" in run("ingest", photos, "--exclude", "c.*")[2]
    assert "6 unchanged" in run("ingest")[2]
    assert "1 new" in run("ingest", photos, "--exclude", "")[2]


def test_failures_are_told_and_listed(run: Run, photos: Path) -> None:
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


def started(store: Path, *words: str | Path) -> subprocess.Popen[str]:
    environment = os.environ | {"NEARDUP_STORE": str(store)}
    return subprocess.Popen(
        [*NEARDUP, *map(str, words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(store: Path, *words: str | Path) -> tuple[int, str, str]:
    running = started(store, *words)
    out, err = running.communicate(timeout=300)
    return running.returncode, out, err


def groups_of(store: Path) -> Any:  # noqa: ANN401 - JSON
    return json.loads(finished(store, "groups", "--json")[1])["groups"]


STOPPABLE = (  # the command line with small commits, which says how many files each has, and waits after a few of them
    "import sys\nfrom dataclasses import replace\nimport pipeline.ingest.ingest as ingest\nfrom indexes import Store\n"
    "ingest.IngestOptions.__init__.__defaults__ = (4, 8, *ingest.IngestOptions.__init__.__defaults__[2:])\n"
    "left = int(sys.argv.pop(1))\n"
    "add = Store.add\n"
    "def added(store, batch):\n    global left\n    add(store, batch)\n    left -= 1\n"
    "    print(len(batch.files), flush=True)\n    left or sys.stdin.read()\n"
    "Store.add = added\n"
    "from pipeline.cli.main import main\nmain()\n"
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of 40 photos, each of 20 scenes at two sizes, and the store of an ingest that nothing stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for each in range(40):
        save_image(
            folder / "root" / f"{each:02}.jpg",
            draw_scene(each // 2, (300 + 100 * (each % 2), 300)),
            quality=80,
        )
    assert finished(folder / "whole", "ingest", folder / "root")[0] == 0
    return folder / "root", folder / "whole"


@pytest.mark.parametrize("commits", [1, 2, 4])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_ingest_goes_on(
    tmp_path: Path, undisturbed: tuple[Path, Path], number: signal.Signals, commits: int
) -> None:
    """After one, two or four commits: what was committed stays, and the next run ends with what an undisturbed one has."""
    (root, whole), stopped = undisturbed, tmp_path / "stopped"
    environment = os.environ | {"NEARDUP_STORE": str(stopped)}
    words = [sys.executable, "-c", STOPPABLE, str(commits), "ingest", str(root), "--batch", "4"]
    with subprocess.Popen(
        words,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        committed = sum(int(running.stdout.readline()) for _ in range(commits))
        running.send_signal(number)
        _, err = running.communicate()
    assert (
        running.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    ), err
    assert "Traceback" not in err
    assert ("goes on from there" in err) == (number != signal.SIGKILL)
    with Store(stopped) as store:
        kept = store.catalog.files.get_counts().files
    assert committed <= kept < 40
    code, _, err = finished(stopped, "ingest", root)
    assert code == 0
    assert f"{40 - kept} pictures embedded" in err
    assert groups_of(stopped) == groups_of(whole)
    assert len(groups_of(stopped)) == 20


@needs_data
def test_hostile_files_end_with_a_table_of_reasons(tmp_path: Path) -> None:
    code, out, err = finished(tmp_path / "store", "ingest", DATA_FOLDER / "hostile", "--json")
    assert code == 3, err
    coverage = json.loads(out)
    assert coverage["seen"] == 1248
    assert coverage["new"] > 500
    assert set(coverage["failed"]) == {
        "damaged",
        "empty file",
        "no picture inside",
        "too many pixels",
        "truncated",
    }
    assert len(err.splitlines()) == 11  # ten failures, and where to find the rest


def test_damaged_and_animated_photos_are_named_wherever_they_are_counted(
    run: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    sound = save_image(folder / "sound.jpg", draw_scene(1, (640, 480)), quality=90)
    (folder / "cut.jpg").write_bytes(sound.read_bytes()[: round(sound.stat().st_size * 0.9)])
    save_image(folder / "moving.gif", draw_scene(2), save_all=True, append_images=[draw_scene(3)])
    code, _, err = run("ingest", folder)
    assert code == 0
    assert "3 pictures embedded, 1 animated, 1 damaged" in err
    assert "of these    1 animated, 1 damaged" in run("status")[1]
    answer = json.loads(run("groups", "--json")[1])
    assert answer["coverage"]["flagged"] == {"animated": 1, "damaged": 1}
    (found,) = answer["groups"]
    assert found["keeper"]["path"] == str(sound)
    assert "flags" not in found["keeper"]
    assert found["members"][0]["flags"] == ["damaged"]
    assert found["members"][0]["relation"] in ("same picture", "derived")
    assert re.search(", damaged   (same picture|derived) 0", run("groups")[1])


def test_an_older_store_is_brought_up_to_date_by_the_nightly_call(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    run("ingest", photos)
    answer = run("groups")
    library = tmp_path / "library"
    downgrade_store(library)
    for command in (["groups"], ["check"]):
        assert "brings it up to date" in run(*command)[2]
    code, _, err = run("ingest")
    assert code == 0, err
    assert "0 pictures embedded" in err
    assert run("groups") == answer
    assert run("check", "--data")[0] == 0


def test_an_older_store_is_brought_up_to_date_by_what_writes_to_it(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    run("ingest", photos)
    answer = run("groups")
    downgrade_store(tmp_path / "library")
    assert run("compact")[0] == 0
    assert (
        "close to these, but not grouped: 2 similar" in run("groups")[1]
    )  # nobody has looked at the pairs in that format
    run("ingest")
    assert run("groups") == answer


def test_a_full_disk_under_the_answer_is_no_traceback(photos: Path, tmp_path: Path) -> None:
    environment = os.environ | {"NEARDUP_STORE": str(tmp_path / "library")}
    subprocess.run([*NEARDUP, "ingest", photos], env=environment, check=True, capture_output=True)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*NEARDUP, "groups", "--json"],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 12
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["status"], ["groups"], ["groups", "--json"], ["doctor"]])
def test_an_answer_that_nobody_can_get_is_no_success(
    photos: Path, tmp_path: Path, words: list[str]
) -> None:
    environment = os.environ | {"NEARDUP_STORE": str(tmp_path / "library")}
    closed = ["sh", "-c", '"$@" >&-', "sh", *NEARDUP]
    subprocess.run(
        [*closed, "ingest", photos], env=environment, check=True, capture_output=True
    )  # it has no answer
    done = subprocess.run(
        [*closed, *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("neardup: standard output is closed")
    assert "Traceback" not in done.stderr


def test_models_lists_names_that_load(run: Run) -> None:
    header, *out = run("models")[1].splitlines()
    assert header.split() == ["model", "dim", "side"]
    assert [line.split() for line in out[:2]] == [
        ["neardup-1", "256", "160"],
        ["neardup-0", "256", "192"],
    ]
    assert ["open_clip:ViT-B-32/openai", "512", "224"] in [line.split() for line in out]
    listed = json.loads(run("models", "--json")[1])
    assert [model["name"] for model in listed["models"]] == [line.split()[0] for line in out]
    assert run("models", "nothing")[0] == 2


def test_models_says_what_is_missing_and_how_to_get_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("models")[2] == run("models", "--json")[2] == ""
    monkeypatch.setitem(sys.modules, "open_clip", None)
    said = "neardup: open_clip models need packages that are not installed (open_clip); run `pip install 'neardup[clip]'`\n"
    for words in (["models"], ["models", "--json"]):
        code, out, err = run(*words)
        assert (code, err) == (0, said)
        assert "neardup-1" in out
        assert "open_clip" not in out


def test_a_short_list_of_models_is_no_sign_that_something_is_missing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("open_clip.list_pretrained", list)
    assert run("models") == (
        0,
        "model        dim  side\nneardup-1    256   160\nneardup-0    256   192\n",
        "",
    )


def test_a_store_whose_path_is_no_utf_8(run: Run, photos: Path, tmp_path: Path) -> None:
    run("ingest", photos)
    answer, odd = run("groups"), tmp_path / os.fsdecode(b"s\xfe")
    for command in (
        ["ingest", photos / "sub"],
        ["ingest", photos],
        ["compact"],
        ["repair", "--yes"],
        ["check", "--data", "--sample", "9"],
    ):
        code, out, err = run(*command, "--store", odd)
        assert code == 0, out + err
    assert run("groups", "--store", odd) == answer
    assert (
        run(
            "query", save_image(tmp_path / "new.jpg", draw_scene(1)), "--store", odd, "--exit-code"
        )[0]
        == 20
    )
    assert "s\\udcfe" in run("status", "--store", odd)[1]
    assert os.fsencode(
        json.loads(run("status", "--store", odd, "--json")[1])["store"]
    ) == os.fsencode(odd)
    (odd / "catalog.db").write_bytes(b"damaged")
    assert run("repair", "--yes", "--store", odd)[0] == 0
    assert run("groups", "--store", odd) == answer


def test_a_model_whose_path_is_no_utf_8(run: Run, photos: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"m\xfe")
    code, _, err = run(
        "ingest",
        photos,
        "--model",
        f"onnx:{onnx_models.save_model(odd, onnx_models.build_model())}",
    )
    assert code == 2
    assert "is no UTF-8" in err


def test_status_explains_an_ingest_that_ended_with_3(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = save_image(tmp_path / "card" / "x.jpg", draw_scene(40)).parent
    assert run("ingest", photos, card)[0] == 0
    assert run("status")[1].splitlines()[-1].startswith("last ingest complete, ")
    assert ";" not in run("status")[1].splitlines()[-1]
    (card / "x.jpg").unlink()
    card.rmdir()
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:2000])
    listed, closed = os.scandir, [photos / f"closed{number:02}" for number in range(12)]
    for folder in closed:
        folder.mkdir()

    def scandir(path: str | Path) -> Any:  # noqa: ANN401 - as os has it
        if "closed" in os.fspath(path):  # who runs the tests may be allowed everything
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr("pipeline.scan.os.scandir", scandir)
    assert run("ingest")[0] == 3
    last, first, *_, tenth, more = run("status")[1].splitlines()[-12:]
    assert (
        "; failed 13 (12 unreadable folder, 1 truncated); 1 missing but kept; no folder now: "
        in last
    )
    assert last.endswith(str(card))
    assert first == f"not seen    {closed[0]}: unreadable folder (Permission denied)"
    assert tenth == f"not seen    {closed[9]}: unreadable folder (Permission denied)"
    assert (
        more
        == f"not seen    2 more, see `neardup status --failures --store {tmp_path / 'library'}`"
    )
    failures = run("status", "--failures")[1].splitlines()
    assert len(failures) == 13
    assert failures[0].startswith(f"{photos / 'broken.jpg'}: truncated")
    assert failures[-1] == f"{closed[-1]}: unreadable folder (Permission denied)"
    found = json.loads(run("status", "--failures", "--json")[1])
    assert found["failures"][-1] == {
        "path": str(closed[-1]),
        "reason": "unreadable folder",
        "detail": "Permission denied",
    }


def test_every_document_has_its_version(run: Run, photos: Path) -> None:
    def words(name: str) -> list[str | Path]:
        given: dict[str, list[str | Path]] = {
            "ingest": [photos],
            "dedupe": [photos],
            "query": [photos / "a.png"],
            "compare": [photos / "a.png", photos / "b.jpg"],
            "explain": [photos / "a.png", photos / "b.jpg"],
            "migrate": ["--model", "neardup-1"],
            "calibrate": ["--sample", "1"],
        }
        return [name, *given.get(name, []), "--json"]

    printed = [
        name
        for name, command in main.commands.items()
        if "as_json" in {option.name for option in command.params}
    ]
    assert set(printed) == set(main.commands) - {"repair"}
    for name in printed:
        assert json.loads(run(*words(name))[1])["schema_version"] == 3, name


def test_photos_that_an_extra_would_read_are_skipped_with_a_hint(
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
    assert "neardup: 2 raw photos skipped; to see them: pip install 'neardup[raw]'\n" in err
    assert "neardup: 1 JPEG XL picture skipped; to see it: pip install 'neardup[jxl]'\n" in err


def test_one_of_a_kind_is_no_plural(run: Run, photos: Path) -> None:
    err = run("ingest", photos, "--verbose", "--decoders", "1", "--threads", "1")[2]
    assert (
        "neardup-1: 1 thread, batches of 32; 1 process decodes, 1 file is read at a time\n" in err
    )


def test_notes_are_counted_in_words(run: Run, tmp_path: Path) -> None:
    save_image(
        tmp_path / "photos" / "pages.tiff",
        draw_scene(2),
        save_all=True,
        append_images=[draw_scene(3)],
    )
    assert "1 picture embedded, 1 with pages\n" in run("ingest", tmp_path / "photos")[2]
    assert "of these    1 with pages\n" in run("status")[1]

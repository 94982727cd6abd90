from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from indexes import Store
from pipeline.cli.main import main
from tests.support import onnx_models
from tests.support.cli import NEARDUP, Run
from tests.support.images import draw_scene, save_image


def test_help_loads_no_heavy_library() -> None:
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
def test_help_of_each_command_begins_with_examples(run: Run, command: str) -> None:
    code, out, _ = run(*[command] * bool(command), "--help")
    assert code == 0
    assert re.search(rf"^\s+neardup {command}", out[: out.index("Options:")], re.MULTILINE)


@pytest.mark.parametrize(
    ("option", "limit"),
    [("--decoders", 64), ("--readers", 64), ("--threads", 64), ("--batch", 4096)],
)
def test_worker_option_above_its_limit_is_refused(
    run: Run, tmp_path: Path, option: str, limit: int
) -> None:
    code, _, err = run("ingest", tmp_path, option, str(limit + 1))
    assert code == 2
    assert f"range 1<=x<={limit}" in err
    assert not (tmp_path / "library").exists()


@pytest.mark.parametrize("command", ["ingest", "migrate", "query"])
def test_help_names_every_form_of_a_model(run: Run, command: str) -> None:
    help_text = " ".join(run(command, "--help")[1].split())
    for form in (
        "onnx:PATH",
        "open_clip:ARCH/PRETRAINED",
        "open_clip:ARCH@FILE",
        "google:MODEL",
        "google-describe:VISION+TEXT",
    ):
        assert form in help_text


def test_version_is_printed(run: Run) -> None:
    assert run("--version")[1].startswith("neardup, version ")


def test_invalid_input_gives_message_and_exit_code(run: Run, photos: Path, tmp_path: Path) -> None:
    for arguments in (["groups"], ["status"], ["query", photos / "a.png"]):
        code, out, err = run(*arguments)
        assert (code, out) == (10, "")
        assert f"make one with `neardup ingest FOLDER --store {tmp_path / 'library'}`" in err
    assert run("ingest")[0] == 10
    for command, path in (
        ("ingest", tmp_path / "nothing"),
        ("dedupe", tmp_path / "nothing"),
        ("ingest", photos / "a.png"),
    ):
        code, out, err = run(command, path)
        assert (code, out) == (2, ""), path
        reason = "is not a folder" if path.exists() else "does not exist"
        assert err == f"neardup: '{path}' {reason}\n"
        assert not (tmp_path / "library").exists()
    assert run("dedupe")[0] == 2
    assert run("compare", photos / "a.png")[0] == 2
    assert run("ingest", photos, "--model", "dinosaur")[0] == 2
    assert run("groups")[0] == 0
    assert not list((tmp_path / "library" / "segments").iterdir())
    code, _, err = run("ingest", photos, tmp_path / "nothing", photos / "a.png")
    assert code == 3
    assert f"neardup: '{tmp_path}/nothing' does not exist\n" in err
    assert f"neardup: '{photos}/a.png' is not a folder\n" in err
    run("ingest", photos)
    for arguments in (
        ["groups"],
        ["query", photos / "a.png"],
        ["query", photos / "b.jpg"],
        ["dedupe", photos],
    ):
        code, out, err = run(*arguments, "--threshold", "0.1")
        assert (code, out) == (2, "")
        assert "0.35" in err
        assert "files seen" not in err
        assert run(*arguments, "--threshold", "nan")[0] == 2
    assert run("compare", photos / "a.png", photos / "b.jpg", "--threshold", "nan")[0] == 2
    assert run("ingest", "--lock-timeout", "nan")[0] == 2
    assert run("groups", "--threshold", "7")[0] == 2
    code, out, err = run("groups", tmp_path / "typo")
    assert (code, out) == (2, "")
    assert "no file below" in err
    code, out, err = run("query", "-", stdin=f"{photos}/a.png\0{photos}/b.jpg\0".encode())
    assert code == 2
    assert "needs -0" in err
    code, out, err = run("query", photos / "nothing.jpg", photos / "b.jpg")
    assert code == 3
    assert "nothing.jpg: unreadable (No such file or directory)" in err
    assert "b.jpg: in the library" in out
    assert run("compare", photos / "a.png", photos / "nothing.jpg")[0] == 3


def test_store_of_another_model_or_version_is_refused(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    run("ingest", photos)
    with Store(tmp_path / "library", write=True) as store, store.catalog.transaction():
        store.catalog._db.execute("UPDATE space SET weights = 'other'")
    code, _, err = run("query", save_image(tmp_path / "new.png", draw_scene(9)))
    assert code == 2
    assert "--store" in err
    assert run("check", "--sample", "3")[0] == 2  # not damage: another model
    with Store(tmp_path / "library", write=True) as store, store.catalog.transaction():
        store.catalog._db.execute("PRAGMA user_version = 99")
    for command in (["ingest"], ["groups"], ["query", photos / "a.png"], ["status"]):
        code, _, err = run(*command)
        assert code == 4
        assert "upgrade neardup" in err


def test_store_in_use_refuses_ingest_but_not_readers(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    with Store(tmp_path / "library", write=True) as store, store.lock_for_ingest():
        code, _, err = run("ingest", photos)
        assert code == 11
        assert str(os.getpid()) in err
        assert run("status")[0] == 0  # readers are not blocked


def test_answer_on_full_disk_exits_without_traceback(run: Run, photos: Path) -> None:
    run("ingest", photos)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*NEARDUP, "groups", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 12
    assert "Traceback" not in done.stderr


def run_with_closed_output(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    closed = ["sh", "-c", '"$@" >&-', "sh", *NEARDUP]
    return subprocess.run([*closed, *arguments], capture_output=True, text=True, check=False)


def test_closed_standard_output_is_an_error(run: Run, photos: Path) -> None:
    # An ingest prints nothing to standard output, so it succeeds.
    assert run_with_closed_output("ingest", photos).returncode == 0
    for arguments in (["status"], ["groups"], ["groups", "--json"], ["doctor"]):
        done = run_with_closed_output(*arguments)
        assert done.returncode == 1, arguments
        assert done.stderr.startswith("neardup: standard output is closed")
        assert "Traceback" not in done.stderr


def test_store_path_that_is_not_utf8_works(run: Run, photos: Path, tmp_path: Path) -> None:
    run("ingest", photos)
    answer, non_utf8 = run("groups"), tmp_path / os.fsdecode(b"s\xfe")
    for command in (
        ["ingest", photos / "sub"],
        ["ingest", photos],
        ["compact"],
        ["repair", "--yes"],
        ["check", "--data", "--sample", "9"],
    ):
        code, out, err = run(*command, "--store", non_utf8)
        assert code == 0, out + err
    assert run("groups", "--store", non_utf8) == answer
    assert (
        run(
            "query",
            save_image(tmp_path / "new.jpg", draw_scene(1)),
            "--store",
            non_utf8,
            "--exit-code",
        )[0]
        == 20
    )
    assert "s\\xfe" in run("status", "--store", non_utf8)[1]
    assert os.fsencode(
        json.loads(run("status", "--store", non_utf8, "--json")[1])["store"]
    ) == os.fsencode(non_utf8)
    (non_utf8 / "catalog.db").write_bytes(b"damaged")
    assert run("repair", "--yes", "--store", non_utf8)[0] == 0
    assert run("groups", "--store", non_utf8) == answer


def test_model_path_that_is_not_utf8_is_refused(run: Run, photos: Path, tmp_path: Path) -> None:
    non_utf8 = tmp_path / os.fsdecode(b"m\xfe")
    code, _, err = run(
        "ingest",
        photos,
        "--model",
        f"onnx:{onnx_models.save_model(non_utf8, onnx_models.build_model())}",
    )
    assert code == 2
    assert "is not valid UTF-8" in err

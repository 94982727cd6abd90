"""Every command and every line of Python in README, CONTRIBUTING and docs runs as it stands.

Only `neardup calibrate` gets an option more: it takes one photo.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import indexes.errors
import pipeline.errors
from pipeline.cli.main import main
from pipeline.verify.judgement import Judgement
from pipeline.verify.verdict import Edits, Verdict
from tests.support import fake_google, onnx_models
from tests.support.cli import Run
from tests.support.images import draw_scene, save_image

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text()
# Guides first: docs/models.md changes the model of the store.
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs" / "guide").glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def list_commands() -> list[str]:
    """List the commands of all console blocks in the order of PAGES, each once."""
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(lines))


COMMANDS = list_commands()
OPEN_CLIP_COMMANDS = [command for command in COMMANDS if "open_clip:" in command]
GOOGLE_COMMANDS = [command for command in COMMANDS if "google-store" in command]
LOCAL_COMMANDS = [
    command for command in COMMANDS if command not in OPEN_CLIP_COMMANDS + GOOGLE_COMMANDS
]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands name, and stubs of what would install or test neardup."""
    folder = tmp_path_factory.mktemp("desk")
    save_image(folder / "PHOTOS" / "DSC_0412.jpg", draw_scene(1, (600, 450)))
    save_image(folder / "PHOTOS" / "signed.jpg", draw_scene(1, (600, 450)), quality=60)
    save_image(folder / "PHOTOS" / "other.png", draw_scene(2))
    save_image(folder / "CARD" / "new.jpg", draw_scene(3))
    save_image(folder / "holiday.jpg", draw_scene(1, (450, 338)))
    shutil.copy(ROOT / "pyproject.toml", folder)
    onnx_models.save_model(folder / "MODELS", onnx_models.build_model())
    stub = '#!/bin/sh\necho $(basename "$0") $@ >> ' + str(folder / "stubs.log") + "\n"
    stubs = dict.fromkeys(("bin/pip", "bin/pytest", "bin/pre-commit", "scripts/check"), stub)
    stubs["bin/neardup"] = f'#!/bin/sh\nexec {sys.executable} -m pipeline.cli "$@"\n'
    for name, script in stubs.items():
        program = folder / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(script)
        program.chmod(0o755)
    return folder


def run_in_shell(desk: Path, command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PATH": f"{desk / 'bin'}:{os.environ['PATH']}",
        "NEARDUP_STORE": str(desk / "store"),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
    }
    return subprocess.run(
        ["bash", "-c", command],
        cwd=desk,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_commands_of_the_docs_run_in_order(
    desk: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("NEARDUP_STORE", str(desk / "store"))
    assert len(LOCAL_COMMANDS) > 30
    for command in LOCAL_COMMANDS:
        words = shlex.split(command)
        if words[:2] == ["neardup", "calibrate"]:
            words += ["--sample", "1"]
        if words[0] == "neardup" and not {"|", ">", "&&"} & set(words):
            code, _, err = run(*words[1:])
        else:
            done = run_in_shell(desk, command)
            code, err = done.returncode, done.stderr
        expected = 20 if "--exit-code" in command else 0
        assert code == expected, (command, err)
    assert (desk / "stubs.log").read_text().splitlines() == [
        "pip install .",
        "pip install .[test]",
        "pytest",
        "pip install -e .[dev]",
        "check",
        "pre-commit install",
        "pip install .[raw,jxl]",
        "pip install .[clip]",
        "pip install .[google]",
    ]


def test_open_clip_commands_name_the_missing_weights(desk: Path) -> None:
    """Their weights are out of reach here; the message shows that both names are valid."""
    pytest.importorskip("open_clip", reason="the extra clip is not installed")
    messages = ("cannot be downloaded", "weights.safetensors does not exist")
    for command, message in zip(OPEN_CLIP_COMMANDS, messages, strict=True):
        done = run_in_shell(desk, command)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_google_commands_reach_the_service(
    desk: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("google.genai", reason="the extra google is not installed")
    monkeypatch.chdir(desk)
    assert len(GOOGLE_COMMANDS) == 2
    with fake_google.FakeGoogle().serve() as google:
        monkeypatch.setenv("GEMINI_API_KEY", fake_google.API_KEY)
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", google.url)
        for command in GOOGLE_COMMANDS:
            code, out, err = run(*shlex.split(command)[1:])
            assert code == 0, err
            assert fake_google.API_KEY not in err + out
    assert "DSC_0412.jpg" in out


def list_python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def test_python_of_the_docs_runs(desk: Path) -> None:
    blocks = [block for page in PAGES for block in list_python_blocks(page)]
    assert len(blocks) == 3
    outputs = []
    for code in blocks:
        done = subprocess.run(
            [sys.executable, "-c", code.replace("/photos", str(desk / "PHOTOS"))],
            cwd=desk,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert "DSC_0412.jpg" in outputs[0]
    assert "holiday.jpg [" in outputs[1]
    rows = [line.split(" ", 1) for line in outputs[2].splitlines()]
    assert {Path(path).name for _, path in rows} == {"DSC_0412.jpg", "signed.jpg", "other.png"}
    assert max(float(score) for score, _ in rows) > 0.999


def test_readme_names_every_command() -> None:
    for name in main.commands:
        assert re.search(rf"`neardup {name}\b", README), name


def test_readme_is_one_page() -> None:
    assert len(README.split()) <= 900


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*PAGES, *(ROOT / "docs" / "benchmarks").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), (page.name, target)


def test_exit_codes_of_all_errors_are_documented() -> None:
    page = (ROOT / "docs" / "json-and-exit-codes.md").read_text()
    rows = re.findall(r"^\| ([\d, ]+) \|", page, re.MULTILINE)
    documented = {int(code) for row in rows for code in row.split(",")}
    classes = [
        value
        for module in (indexes.errors, pipeline.errors)
        for value in vars(module).values()
        if isinstance(value, type)
    ]
    codes = {error.exit_code for error in classes if hasattr(error, "exit_code")}
    assert codes <= documented


@pytest.mark.parametrize("record", [Verdict, Edits, Judgement])
def test_fields_of_a_verdict_are_documented(record: type) -> None:
    page = (ROOT / "docs" / "json-and-exit-codes.md").read_text()
    table = page.split(f"| field of `{record.__name__.lower()}` | meaning |")[1].split("\n\n")[0]
    cells = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    documented = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(documented) == sorted(field.name for field in fields(record))

"""Every command and every line of Python in README runs as it stands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.main import main
from tests.support import fake_google, onnx_models
from tests.support.images import draw_scene, save_image

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line[2:]
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
CLIP = [command for command in COMMANDS if "open_clip:" in command]
GOOGLE = [command for command in COMMANDS if "google-store" in command]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands name, and programs in the place of those that would install or test neardup again."""
    folder = tmp_path_factory.mktemp("desk")
    save_image(folder / "PHOTOS" / "DSC_0412.jpg", draw_scene(1, (1200, 900)))
    save_image(folder / "PHOTOS" / "signed.jpg", draw_scene(1, (1200, 900)), quality=60)
    save_image(folder / "PHOTOS" / "other.png", draw_scene(2))
    save_image(folder / "CARD" / "new.jpg", draw_scene(3))
    save_image(folder / "holiday.jpg", draw_scene(1, (600, 450)))
    shutil.copy(ROOT / "pyproject.toml", folder)
    onnx_models.save_model(folder / "MODELS", onnx_models.build_model())
    programs = folder / "bin"
    programs.mkdir()
    neardup = f'#!/bin/sh\nexec {sys.executable} -m pipeline.cli "$@"\n'
    for name, script in {
        "neardup": neardup,
        "pip": "#!/bin/sh\necho pip $@ >> said\n",
        "pytest": "#!/bin/sh\necho pytest >> said\n",
    }.items():
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    return folder


def run(desk: Path, command: str) -> subprocess.CompletedProcess[str]:
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


def test_every_command_runs_in_order(desk: Path) -> None:
    assert len(COMMANDS) > 15
    for command in COMMANDS:
        if command in CLIP or command in GOOGLE:
            continue
        done = run(desk, command)
        assert done.returncode == (20 if "--exit-code" in command else 0), (command, done.stderr)
    said = (desk / "said").read_text().splitlines()
    assert said == [
        "pip install .",
        "pip install .[test]",
        "pytest",
        "pip install .[clip]",
        "pip install .[google]",
        "pip install .[raw,jxl]",
    ]


def test_open_clip_commands_reach_open_clip(desk: Path) -> None:
    """Their weights are not here: what can be seen is that both names are understood and what is missing is named."""
    assert len(CLIP) == 2
    for command, message in zip(
        CLIP, ("cannot be downloaded", "weights.safetensors is not there"), strict=True
    ):
        done = run(desk, command)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_google_commands_reach_google(desk: Path) -> None:
    assert len(GOOGLE) == 2
    with fake_google.FakeGoogle().serve() as google:
        for command in GOOGLE:
            done = run(
                desk,
                f"GEMINI_API_KEY={fake_google.API_KEY} GOOGLE_GEMINI_BASE_URL={google.url} {command}",
            )
            assert done.returncode == 0, done.stderr
            assert fake_google.API_KEY not in done.stderr + done.stdout
    assert "DSC_0412.jpg" in done.stdout


def test_the_python_runs(desk: Path) -> None:
    api, faiss_alone = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    said = []
    for code in (api.replace("/photos", str(desk / "PHOTOS")), faiss_alone):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=desk,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert "DSC_0412.jpg" in said[0]
    assert "holiday.jpg [" in said[0]
    found = [line.split(" ", 1) for line in said[1].splitlines()]
    assert {Path(path).name for _, path in found} == {"DSC_0412.jpg", "signed.jpg", "other.png"}
    assert max(float(score) for score, _ in found) > 0.999


def test_every_command_is_in_the_readme() -> None:
    for name in main.commands:
        assert any(re.search(rf"\bneardup {name}\b", command) for command in COMMANDS), name


def test_the_exit_codes_are_all_there() -> None:
    import indexes.errors
    import pipeline.errors

    classes = [
        value
        for module in (indexes.errors, pipeline.errors)
        for value in vars(module).values()
        if isinstance(value, type)
    ]
    listed = {
        int(code)
        for line in re.findall(r"^\| ([\d, ]+) \|", README, re.MULTILINE)
        for code in line.split(",")
    }
    assert {error.exit_code for error in classes if hasattr(error, "exit_code")} <= listed

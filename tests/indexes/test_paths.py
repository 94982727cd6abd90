"""Commands that messages tell to copy reach the store that they speak of."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from indexes import paths as place

Run = Callable[..., tuple[int, str, str]]


def test_the_default_store_needs_no_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("NEARDUP_STORE", str(tmp_path / "elsewhere"))
    assert (
        place.format_command(place.get_default_store_folder(), "ingest", "FOLDER")
        == "neardup ingest FOLDER"
    )
    assert (
        place.format_command(tmp_path / "elsewhere", "ingest")
        == f"neardup ingest --store {tmp_path / 'elsewhere'}"
    )
    monkeypatch.chdir(tmp_path)
    assert place.format_command(Path("neardup") / "default", "ingest") == "neardup ingest"
    assert place.format_command(Path("x"), "ingest") == f"neardup ingest --store {tmp_path / 'x'}"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert (
        place.get_default_store_folder() == Path.home() / ".local" / "share" / "neardup" / "default"
    )


def test_who_has_no_home_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert place.format_command(Path("/x"), "ingest") == "neardup ingest --store /x"


@pytest.mark.parametrize(
    "name", ["plain", "a b", "it's", "$HOME `x`", "new\nline", "caf\xe9", os.fsdecode(b"s\xfe'\\")]
)
def test_a_shell_gives_back_what_was_meant(name: str) -> None:
    written = place.format_command(Path("/stores") / name, "status")
    assert written.isprintable()
    said = subprocess.run(
        ["bash", "-c", f"neardup() {{ printf '%s\\0' \"$@\"; }}; {written}"],
        capture_output=True,
        check=True,
    ).stdout
    assert [os.fsdecode(word) for word in said.split(b"\0")[:-1]] == [
        "status",
        "--store",
        f"/stores/{name}",
    ]


def test_every_message_names_the_store(run: Run, photos: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    said = [*run("groups")[1:], *run("ingest", tmp_path / "nothing")[1:]]
    run("ingest", photos)
    (segment,) = (library / "segments").iterdir()
    sound = segment.read_bytes()
    segment.write_bytes(b"damaged")
    for words in (
        ["check", "--sample", "3"],
        ["repair"],
        ["status"],
        ["groups", tmp_path / "typo"],
    ):
        said += run(*words)[1:]
    segment.write_bytes(sound)
    for number in range(12):
        (photos / f"broken{number}.jpg").write_bytes((photos / "b.jpg").read_bytes()[:1000])
    said += run("ingest")[1:]
    commands = re.findall("`neardup [^`]*`", "".join(said))
    assert len(commands) >= 6
    assert [command for command in commands if not command.endswith(f" --store {library}`")] == []

"""Commands in messages can be copied into a shell, and paths in them are readable."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.paths import (
    escape_unprintable,
    format_command,
    get_default_store_folder,
    quote,
)

Run = Callable[..., tuple[int, str, str]]


def test_format_command_for_the_default_store_leaves_the_option_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("NEARDUP_STORE", str(tmp_path / "elsewhere"))
    assert format_command(get_default_store_folder(), "ingest", "FOLDER") == "neardup ingest FOLDER"
    assert (
        format_command(tmp_path / "elsewhere", "ingest")
        == f"neardup ingest --store {tmp_path / 'elsewhere'}"
    )
    monkeypatch.chdir(tmp_path)
    assert format_command(Path("neardup") / "default", "ingest") == "neardup ingest"
    assert format_command(Path("x"), "ingest") == f"neardup ingest --store {tmp_path / 'x'}"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert get_default_store_folder() == Path.home() / ".local" / "share" / "neardup" / "default"


def test_format_command_without_a_home_folder_names_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    assert format_command(Path("/x"), "ingest") == "neardup ingest --store /x"


@pytest.mark.parametrize(
    "name", ["plain", "a b", "it's", "$HOME `x`", "new\nline", "caf\xe9", os.fsdecode(b"s\xfe'\\")]
)
def test_shell_passes_the_folder_of_a_formatted_command_on_unchanged(name: str) -> None:
    command = format_command(Path("/stores") / name, "status")
    assert command.isprintable()
    output = subprocess.run(
        ["bash", "-c", f"neardup() {{ printf '%s\\0' \"$@\"; }}; {command}"],
        capture_output=True,
        check=True,
    ).stdout
    assert [os.fsdecode(word) for word in output.split(b"\0")[:-1]] == [
        "status",
        "--store",
        f"/stores/{name}",
    ]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (b"M\xc3\xbcnchen/a b.jpg", "München/a b.jpg"),
        (b"caf\xe9.jpg", "caf\\xe9.jpg"),  # Latin-1, as older systems wrote names
        (b"a\nb\x1b[2J.jpg", "a\\nb\\x1b[2J.jpg"),
    ],
)
def test_path_in_a_message_is_readable_and_cannot_disturb_a_terminal(
    path: bytes, shown: str
) -> None:
    assert escape_unprintable(os.fsdecode(path)) == shown
    assert quote(os.fsdecode(path)) == f"'{shown}'"


@given(st.binary(min_size=1, max_size=20))
def test_escaped_path_is_printable_in_any_terminal_with_utf8(path: bytes) -> None:
    shown = escape_unprintable(os.fsdecode(path))
    assert shown.isprintable()
    assert shown.encode()


def test_commands_in_messages_name_the_store(run: Run, photos: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    messages = [*run("groups")[1:], *run("ingest", tmp_path / "nothing")[1:]]
    run("ingest", photos)
    (segment,) = (library / "segments").iterdir()
    sound = segment.read_bytes()
    segment.write_bytes(b"damaged")
    for args in (
        ["check", "--sample", "3"],
        ["repair"],
        ["status"],
        ["groups", tmp_path / "typo"],
    ):
        messages += run(*args)[1:]
    segment.write_bytes(sound)
    for number in range(12):
        (photos / f"broken{number}.jpg").write_bytes((photos / "b.jpg").read_bytes()[:1000])
    messages += run("ingest")[1:]
    commands = re.findall("`neardup [^`]*`", "".join(messages))
    assert len(commands) >= 6
    assert [command for command in commands if not command.endswith(f" --store {library}`")] == []

"""The command `neardup review`: where it listens, what it prints, how it stops."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from indexes.paths import REVIEW_TOKEN_NAME
from pipeline.review.web.guard import allow_any_port, allow_port
from tests.review.web.conftest import Library
from tests.support.cli import NEARDUP, Run, run_process

MAX_STOP_SECONDS = 60


@contextmanager
def run_review(store: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command within the context; yields its process and the link that it printed."""
    process = subprocess.Popen(
        [*NEARDUP, "review", "--store", str(store), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_prints_a_link_and_stops_at_a_signal(library: Library, number: int) -> None:
    with run_review(library.store, "--port", "0") as (process, link):
        with httpx.Client(follow_redirects=True) as client:
            page = client.get(link)
            assert page.status_code == 200
            assert "token" not in str(page.url)
            token = (library.store / REVIEW_TOKEN_NAME).read_text().strip()
            status = httpx.get(
                f"{link.partition('?')[0]}api/v1/status",
                headers={"Authorization": f"Bearer {token}"},
            )
            assert status.status_code == 200
            process.send_signal(number)  # while a connection is open
            assert process.wait(MAX_STOP_SECONDS) == 128 + number
        assert process.stderr is not None
        printed = process.stderr.read()
        assert "Traceback" not in printed
        assert REVIEW_TOKEN_NAME in printed and token not in printed


def test_port_in_use_is_named(run: Run, library: Library) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, out, err = run("review", "--store", library.store, "--port", str(port))
    assert (code, out) == (2, "")
    assert err == (
        f"neardup: port {port} is in use, perhaps by another `neardup review`; choose another with"
        " --port\n"
    )


def test_store_that_is_not_there_is_not_made(run: Run, tmp_path: Path) -> None:
    code, _, err = run("review", "--store", tmp_path / "nothing", "--port", "0")
    assert code == 10
    assert "there is no store" in err
    assert not (tmp_path / "nothing").exists()


def test_unix_socket_is_for_its_owner_and_goes_with_the_server(
    library: Library, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    with run_review(library.store, "--socket", str(path), "--read-only") as (process, link):
        assert link.startswith("http://localhost/?token=")
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode) and not mode & 0o077
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, follow_redirects=True) as client:
            tunnel = link.replace("localhost", "localhost:8757")  # as ssh -L leads to it
            assert client.get(tunnel).status_code == 200
            assert client.get("http://evil.example/").status_code == 421
        code, _, err = run_process(library.store, "review", "--socket", path)
        assert code == 2
        assert "is in use" in err
        process.terminate()
        process.wait(MAX_STOP_SECONDS)
        assert not path.exists()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))  # as a killed server leaves it
    with run_review(library.store, "--socket", str(path)) as (process, link):
        assert link


def test_file_at_the_path_of_a_socket_stays(run: Run, library: Library, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"photo")
    code, _, err = run("review", "--store", library.store, "--socket", path)
    assert code == 2
    assert "is no socket" in err
    assert path.read_bytes() == b"photo"
    code, _, err = run("review", "--store", library.store, "--socket", tmp_path / ("x" * 200))
    assert code == 2
    assert "choose another with --socket" in err


def test_missing_extra_is_named(library: Library) -> None:
    code = (
        "import sys; sys.modules['starlette'] = None\n"
        "from pipeline.cli.main import main\n"
        f"main(['review', '--store', {str(library.store)!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "starlette" in done.stderr and "pip install 'neardup[review]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_needs_no_server() -> None:
    code = (
        "import sys\n"
        "from pipeline.cli.main import main\n"
        "main(['review', '--help'], standalone_mode=False)\n"
        "assert not {'starlette', 'uvicorn', 'jinja2', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)


def test_hosts_of_ports_and_of_sockets() -> None:
    assert allow_port(80)("localhost") and allow_port(80)("[::1]:80")
    assert not allow_port(8757)("localhost")
    is_allowed = allow_any_port()
    assert all(map(is_allowed, ("localhost", "localhost:1", "127.0.0.1:8757", "[::1]:80")))
    assert not any(map(is_allowed, ("", "evil", "localhost:", "localhost:x", "a.localhost")))


def test_read_only_folder_is_served_without_a_token_of_programs(
    library: Library, tmp_path: Path
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write to any folder")
    library.store.chmod(0o500)
    try:
        with run_review(library.store, "--port", "0", "--read-only") as (_, link):
            assert link
    finally:
        library.store.chmod(0o700)

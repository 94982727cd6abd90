"""Fixtures that several packages use: a store, a folder of photos, the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before NumPy is loaded: this process, and those that it starts, multiply matrices with one thread,
# as workers do. More of them wait for each other in a loop, and there is a test on every core.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

from indexes import Store
from tests.support.forks import fork_workers
from tests.support.images import make_six_files
from tests.support.reuse import reuse_results
from tests.support.stores import SPACE

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # for the tests that import onnxruntime themselves


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store, bound to SPACE, open for writing."""
    with Store(tmp_path / "store", write=True) as opened:
        opened.bind(SPACE, "test")
        yield opened


# Their tests start workers as users do.
PACKAGES_WITH_REAL_WORKERS = {"decode", "verify", "workers"}
# Of embedders, and where tests make stages fail, all is computed.
WITHOUT_REUSE = {"embed", "test_verify_failures.py"}


@pytest.fixture(scope="module", autouse=True)
def quick_ingest(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fork workers, and compute what is known of a picture once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        package = request.path.relative_to(Path(__file__).parent).parts[0]
        if package not in PACKAGES_WITH_REAL_WORKERS:
            fork_workers(patch)
            if not WITHOUT_REUSE & {package, request.path.name}:
                reuse_results(patch)
        yield


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of six files; see make_six_files()."""
    return make_six_files(tmp_path / "photos")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process on a store of its own.

    Returns (exit code, stdout, stderr).
    """
    from click.testing import CliRunner

    from pipeline.cli.main import main

    monkeypatch.setenv("NEARDUP_STORE", str(tmp_path / "library"))

    def run_command(
        *words: str | os.PathLike[str], stdin: bytes | None = None
    ) -> tuple[int, str, str]:
        result = CliRunner().invoke(main, [os.fspath(word) for word in words], input=stdin)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return run_command

from __future__ import annotations

import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import indexes
import pipeline
from indexes.errors import StoreError
from pipeline.errors import PipelineError

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("module", [indexes, pipeline])
def test_public_names_are_sorted_and_documented(module: ModuleType) -> None:
    names = module.__all__
    assert names == sorted(names)
    for name in names:
        assert getattr(module, name).__doc__, name


@pytest.mark.parametrize("module", [indexes, pipeline])
def test_package_without_the_name_raises_attribute_error(module: ModuleType) -> None:
    with pytest.raises(AttributeError, match="nothing"):
        module.nothing  # noqa: B018 - the access is what is tested


def test_decoding_worker_loads_no_database_and_ingest_no_pillow() -> None:
    watched = {"sqlite3", "faiss", "PIL", "PIL.Image"}
    code = "import sys; import {}; print(sorted({} & set(sys.modules)))"
    for module, names in (
        ("pipeline.decode.worker", ["PIL", "PIL.Image"]),
        ("pipeline.ingest.ingest", ["sqlite3"]),
    ):
        printed = subprocess.run(
            [sys.executable, "-c", code.format(module, watched)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert printed.strip() == str(names)


def test_every_error_is_public_and_in_its_tree() -> None:
    for base, module in ((StoreError, indexes), (PipelineError, pipeline)):
        tree = [base]
        for error in tree:
            tree.extend(error.__subclasses__())
            assert error.__name__ in module.__all__
            assert f"{error.__name__} ({error.exit_code})" in (
                importlib.import_module(f"{module.__name__}.errors").__doc__ or ""
            )


def test_no_module_reads_pickles() -> None:
    for source in (*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("indexes/**/*.py")):
        text = source.read_text()
        assert not re.search(
            r"^\s*(import|from) (pickle|dill|joblib|shelve|marshal)", text, re.MULTILINE
        ), source
        assert "weights_only=False" not in text
        assert "allow_pickle=True" not in text


def test_changelog_names_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert importlib.metadata.version("neardup") == version
    assert re.search(
        rf"^## (Unreleased|{re.escape(version)})", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )

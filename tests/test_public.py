from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import indexes
import pipeline
from indexes.errors import StoreError
from pipeline.errors import PipelineError

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("module", [indexes, pipeline])
def test_public_names_are_sorted_and_there(module: ModuleType) -> None:
    names = module.__all__
    assert names == sorted(names)
    for name in names:
        assert getattr(module, name).__doc__, name


def test_pipeline_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        pipeline.nothing  # noqa: B018 - the access is what is tested
    assert set(pipeline.__all__) == set(pipeline._HOME)


def test_every_error_is_public_and_in_its_tree() -> None:
    for base, module in ((StoreError, indexes), (PipelineError, pipeline)):
        tree = [base]
        for error in tree:
            tree.extend(error.__subclasses__())
            assert error.__name__ in module.__all__
            assert error.__name__ in (__import__(f"{module.__name__}.errors", fromlist=["x"]).__doc__ or "")
            assert str(error.exit_code)


def test_no_pickle_and_no_real_pictures() -> None:
    for source in (*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("indexes/**/*.py")):
        loads = [
            node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Attribute) and node.attr in ("loads", "load")
        ]
        assert not [node for node in loads if isinstance(node.value, ast.Name) and node.value.id == "pickle"], source


def test_the_version_is_in_the_changelog_or_unreleased() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert "## Unreleased" in changes or f"## {version}" in changes

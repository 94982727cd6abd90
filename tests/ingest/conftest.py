from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexes import Store
from tests.support import onnx_models
from tests.support.images import make_six_files
from tests.support.migration import (
    Contents,
    build_contents,
    fill_store,
    read_contents,
)


@pytest.fixture
def empty_store(tmp_path: Path) -> Iterator[Store]:
    """Open an empty store for writing; it is not bound to a space yet."""
    with Store(tmp_path / "library", write=True) as opened:
        yield opened


@pytest.fixture
def small_model(tmp_path: Path) -> str:
    return f"onnx:{onnx_models.save_model(tmp_path / 'models', onnx_models.build_model())}"


@pytest.fixture
def store_path(tmp_path: Path, photos: Path) -> Path:
    """Return the store of fill_store()."""
    return fill_store(tmp_path / "library", photos)


@pytest.fixture(scope="module")
def migration_case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Contents, Contents]:
    """Return a filled store of photos that no test changes, and its contents.

    The second contents are those that it has to have with the small model.
    """
    folder = tmp_path_factory.mktemp("shared")
    photos, model = (
        make_six_files(folder / "photos"),
        onnx_models.save_model(folder / "models", onnx_models.build_model()),
    )
    store_path = fill_store(folder / "library", photos)
    return (
        store_path,
        read_contents(store_path),
        build_contents(folder / "fresh", photos, f"onnx:{model}"),
    )


@pytest.fixture
def store_copy(migration_case: tuple[Path, Contents, Contents], tmp_path: Path) -> Path:
    """Return a copy of the migration_case store that the test may change."""
    return Path(shutil.copytree(migration_case[0], tmp_path / "library"))

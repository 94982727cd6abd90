"""Fixtures for tests of stores that are killed, damaged and repaired."""

from __future__ import annotations

import pytest

from indexes import Store
from tests.support import nightly
from tests.support.faults import IMAGE_COUNT, Reference, run_in_process


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The store after all nights."""
    folder = tmp_path_factory.mktemp("reference") / "store"
    assert run_in_process(nightly.run_nights, folder) == 0
    with Store(folder) as store:
        contents = nightly.read_contents(store)
    hashes, pairs = contents
    assert len(hashes) == IMAGE_COUNT - len(nightly.REMOVED_NUMBERS)
    assert len(pairs) > 50
    return Reference(folder, contents)

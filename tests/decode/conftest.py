from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.decode.pool import DecoderPool
from tests.support.decoders import (
    HEIC,
)


@pytest.fixture
def heic(tmp_path: Path) -> Path:
    path = tmp_path / "a.heic"
    path.write_bytes(HEIC)
    return path


@pytest.fixture
def decoders() -> Iterator[DecoderPool]:
    with DecoderPool(2) as opened:
        yield opened

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline import compare, load_embedder
from pipeline.decode.pool import DecoderPool
from pipeline.scan import SourceFile
from pipeline.verify.relation import Relation
from tests.support.images import draw_scene, save_image


def test_compare_is_symmetric_and_needs_no_store(tmp_path: Path) -> None:
    files = [
        str(
            save_image(
                tmp_path / f"{number}.png", draw_scene(number // 2, (200 + 40 * number, 150))
            )
        )
        for number in range(4)
    ]
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    files.append(str(tmp_path / "broken.png"))
    comparison = compare(files, load_embedder())
    scores = comparison.scores[:4, :4]
    assert np.array_equal(scores, scores.T)
    assert (np.diag(scores) == 1.0).all()
    assert scores[0, 1] > 0.85 > scores[0, 2]
    assert np.isnan(comparison.scores[4]).all()
    assert [file for file, _ in comparison.list_failures()] == files[4:]
    assert comparison.get_relation(0, 1, 0.85) == Relation.DERIVED
    assert comparison.get_relation(0, 2, 0.85) == Relation.UNRELATED
    assert comparison.get_relation(0, 4, 0.85) is None


def test_compare_passes_file_sizes_to_decoders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large files are held in memory one at a time."""
    files = [save_image(tmp_path / f"{number}.png", draw_scene(number)) for number in range(2)]
    sizes: dict[str, int] = {}
    decode = DecoderPool.decode

    def record_size(decoders: DecoderPool, source: SourceFile, *args: Any) -> object:
        sizes[source.path] = source.require_stat().size
        return decode(decoders, source, *args)

    monkeypatch.setattr(DecoderPool, "decode", record_size)
    compare([str(file) for file in files], load_embedder())
    assert sizes == {str(file): file.stat().st_size for file in files}


def test_compare_featureless_images_is_not_verifiable(tmp_path: Path) -> None:
    """Only exact copies of a featureless image match it, as in groups."""
    files = [
        str(save_image(tmp_path / f"{gray}.png", Image.new("RGB", (50, 50), (gray, gray, gray))))
        for gray in (0, 255)
    ]
    comparison = compare(files, load_embedder())
    assert np.isfinite(comparison.scores).all()
    assert comparison.get_relation(0, 1, -1.0) == Relation.NOT_VERIFIABLE

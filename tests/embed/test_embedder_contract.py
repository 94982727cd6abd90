"""The contract of Embedder, checked for every backend."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from PIL import Image

from pipeline.decode.decode import Decoded, decode_source
from pipeline.decode.read import Failure
from pipeline.embed.embedder import Embedder, embed, load_embedder
from pipeline.scan import SourceFile
from tests.support import fake_google, onnx_models
from tests.support.images import draw_scene, save_image

IMAGES = {
    "scene": draw_scene(1),
    "tall": draw_scene(2, (60, 200)),
    "gray": draw_scene(3).convert("L"),
    "one pixel": Image.new("RGB", (1, 1), (200, 30, 90)),
    "black": Image.new("RGB", (40, 30)),
    "wide": draw_scene(4, (300, 40)),
    "transparent": draw_scene(5).convert("LA"),
}


@pytest.fixture(
    scope="module",
    params=[
        "neardup-1",
        "neardup-0",
        "onnx uint8",
        "onnx float",
        "open_clip",
        "google",
        "google-describe",
    ],
)
def embedder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Embedder]:
    folder = tmp_path_factory.mktemp("model")
    match request.param:
        case "neardup-1" | "neardup-0":
            yield load_embedder(request.param)
        case "onnx uint8":
            yield load_embedder(f"onnx:{onnx_models.save_model(folder, onnx_models.build_model())}")
        case "onnx float":
            weights = onnx_models.build_model("NCHW", TensorProto.FLOAT)
            scaling = {"mean": onnx_models.MEAN, "std": onnx_models.STD}
            path = onnx_models.save_model(folder, weights, layout="NCHW", **scaling)
            yield load_embedder(f"onnx:{path}")
        case "open_clip":
            pytest.importorskip("open_clip", reason="the extra clip is not installed")
            from tests.support import clip_models

            with clip_models.register_architectures(tmp_path_factory):
                weights_file = clip_models.save_weights(
                    folder / "tiny.safetensors", clip_models.build_clip_model()
                )
                yield load_embedder(f"open_clip:{clip_models.TINY}@{weights_file}")
        case _:
            pytest.importorskip("google.genai", reason="the extra google is not installed")
            with (
                fake_google.FakeGoogle().serve() as google,
                pytest.MonkeyPatch.context() as environment,
            ):
                environment.setenv("GEMINI_API_KEY", fake_google.API_KEY)
                environment.setenv("GOOGLE_GEMINI_BASE_URL", google.url)
                yield load_embedder(
                    "google:gemini-embedding-2"
                    if request.param == "google"
                    else "google-describe:gemini-2.5-flash+gemini-embedding-001"
                )


@pytest.fixture(scope="module")
def inputs(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> list[NDArray[np.uint8]]:
    folder, inputs_so_far = tmp_path_factory.mktemp("images"), []
    for name, image in IMAGES.items():
        decoded = decode_source(
            SourceFile(str(save_image(folder / f"{name}.png", image))),
            embedder.preprocess,
        )
        assert isinstance(decoded, Decoded), decoded if isinstance(decoded, Failure) else name
        inputs_so_far.append(decoded.pixels)
    return inputs_so_far


def test_embed_returns_a_unit_row_for_each_image_in_order(
    embedder: Embedder, inputs: list[NDArray[np.uint8]]
) -> None:
    nonblack = [
        pixels for pixels in inputs if pixels.any()
    ]  # a network without bias maps black to the zero vector
    rows = embed(embedder, nonblack)
    assert rows.dtype == np.float32
    assert rows.shape == (len(nonblack), embedder.space.dim)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(embed(embedder, nonblack[::-1])[::-1], rows, atol=1e-5)
    assert embed(embedder, []).shape == (0, embedder.space.dim)


def test_encode_does_not_depend_on_the_batch_and_is_deterministic(
    embedder: Embedder, inputs: list[NDArray[np.uint8]]
) -> None:
    rows = embedder.encode(inputs)
    assert np.isfinite(rows).all()
    rows_one_by_one = np.concatenate([embedder.encode([pixels]) for pixels in inputs])
    scale = np.abs(rows).max()
    np.testing.assert_allclose(rows_one_by_one / scale, rows / scale, atol=1e-5)
    np.testing.assert_array_equal(embedder.encode(inputs), rows)


def test_name_loads_the_same_model_again(
    embedder: Embedder, inputs: list[NDArray[np.uint8]]
) -> None:
    reloaded = load_embedder(embedder.name)
    assert (reloaded.name, reloaded.space, reloaded.preprocess) == (
        embedder.name,
        embedder.space,
        embedder.preprocess,
    )
    np.testing.assert_allclose(
        reloaded.encode(inputs), embedder.encode(inputs), rtol=1e-5, atol=1e-5
    )


def test_batch_size_paid_calls_and_thresholds_are_valid(embedder: Embedder) -> None:
    assert embedder.batch_size >= 1
    assert embedder.count_paid_calls(0) == 0
    assert 0 <= embedder.count_paid_calls(1) <= embedder.count_paid_calls(100)
    assert -1 <= embedder.space.floor <= embedder.space.threshold <= 1

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pipeline.embed.embedder import Embedder, embed, load_embedder
from pipeline.errors import InvalidEmbedding, UnknownModel, UnusableModel
from tests.support.onnx_models import DIM, MEAN, SIZE, STD, WEIGHTS, build_model, save_model


def load_saved(folder: Path, weights: bytes, **card: Any) -> Embedder:
    """Save a model with its card and load it."""
    return load_embedder(f"onnx:{save_model(folder, weights, **card)}")


def make_solid_inputs(count: int) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(2)
    return [
        np.broadcast_to(rng.integers(0, 256, 3, dtype=np.uint8), (SIZE, SIZE, 3)).copy()
        for _ in range(count)
    ]


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize(
    ("input_type", "scaled"),  # uint8 is never scaled, see below
    [(TensorProto.UINT8, False), *product([TensorProto.FLOAT, TensorProto.FLOAT16], [False, True])],
)
def test_encode_equals_the_network_computed_by_numpy(
    tmp_path: Path, layout: str, input_type: int, scaled: bool
) -> None:
    given = {"mean": MEAN, "std": STD} if scaled else {}
    embedder = load_saved(tmp_path, build_model(layout, input_type), layout=layout, **given)
    inputs = make_solid_inputs(5)
    mean = np.stack([pixels.mean(axis=(0, 1)) for pixels in inputs])
    if input_type != TensorProto.UINT8:
        mean = mean / 255
    if scaled:
        mean = (mean - MEAN) / STD
    expected = mean @ WEIGHTS
    tolerance = 2e-3 if input_type == TensorProto.FLOAT16 else 1e-4
    np.testing.assert_allclose(
        embedder.encode(inputs), expected, rtol=tolerance, atol=tolerance * 4
    )
    np.testing.assert_allclose(
        embed(embedder, inputs),
        expected / np.linalg.norm(expected, axis=1, keepdims=True),
        atol=tolerance,
    )


def test_space_depends_on_model_and_card_but_not_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_path, second_path = (
        save_model(tmp_path / "here", build_model()),
        save_model(tmp_path / "there", build_model(), floor=0.6),
    )
    monkeypatch.chdir(tmp_path)
    first, second = (
        load_embedder("onnx:here/small.onnx"),
        load_embedder(f"onnx:{second_path.with_suffix('.json')}"),
    )
    assert first.space == second.space
    assert first.space.weights == hashlib.sha256(first_path.read_bytes()).hexdigest()
    assert first.name == f"onnx:{first_path}"
    assert load_embedder(first.name).space == first.space
    longest: dict[str, Any] = {"size": SIZE, "fit": "longest"}
    card_variants: list[dict[str, Any]] = [
        {"preprocess": longest},
        {"preprocess": longest | {"fill": 255}},
        {"name": "other"},
        {"output": "rows"},
    ]
    spaces = {
        first.space,
        *(
            load_saved(tmp_path / "changed", build_model(), **card_changes).space
            for card_changes in card_variants
        ),
    }
    assert len(spaces) == 1 + len(card_variants)
    assert (
        load_saved(tmp_path / "changed", build_model(), preprocess=longest | {"fill": 0}).space
        in spaces
    )
    assert (
        load_saved(
            tmp_path / "changed", build_model(), preprocess={"size": SIZE, "fill": 255}
        ).space
        == first.space
    )  # squash fills nothing
    scaled = load_saved(
        tmp_path / "scaled", build_model(kind=TensorProto.FLOAT), mean=MEAN, std=STD
    ).space
    assert (
        scaled.preprocess
        != load_saved(tmp_path / "scaled", build_model(kind=TensorProto.FLOAT)).space.preprocess
    )


def test_card_selects_the_output(tmp_path: Path) -> None:
    path = save_model(tmp_path, build_model(outputs=("rows", "twice")))
    first = load_embedder(f"onnx:{path}").encode(make_solid_inputs(2))
    np.testing.assert_array_equal(
        load_saved(tmp_path, path.read_bytes(), output="twice").encode(make_solid_inputs(2)),
        2 * first,
    )


def test_card_with_sha256_refuses_another_file(tmp_path: Path) -> None:
    sha256 = hashlib.sha256(build_model()).hexdigest()
    assert load_saved(tmp_path, build_model(), sha256=sha256).encode(
        make_solid_inputs(1)
    ).shape == (1, DIM)
    second = load_saved(tmp_path, build_model("NCHW"), sha256=sha256)
    with pytest.raises(UnusableModel, match="is not the file that its card names"):
        second.encode(make_solid_inputs(1))


@pytest.mark.parametrize(
    ("card_changes", "message"),
    [
        ({"name": ...}, "lacks the key 'name'"),
        ({"name": 3}, "3 is not a name"),
        ({"file": "../small.onnx"}, "is not a valid model card"),
        ({"file": "/etc/passwd"}, "is not a valid model card"),
        ({"file": "."}, "is not a valid model card"),
        ({"dim": 0}, "not an integer from 1"),
        ({"dim": True}, "not an integer from 1"),
        ({"dim": "256"}, "not an integer from 1"),
        ({"preprocess": {"size": 8, "fit": "within"}}, "fit must be one of"),
        ({"preprocess": {"size": 8, "crop": 1}}, "must be an object with size"),
        ({"preprocess": {"size": 1 << 20}}, "not an integer from 1"),
        ({"preprocess": 8}, "must be an object with size"),
        ({"layout": "HWC"}, "NHWC or NCHW"),
        ({"mean": MEAN}, "must come together"),
        ({"mean": MEAN, "std": [0, 1, 1]}, "must be above 0"),
        ({"mean": MEAN, "std": [1, 1]}, "three numbers"),
        ({"mean": [float("nan"), 0, 0], "std": STD}, "three numbers"),
        ({"floor": 0.95}, "above threshold"),
        ({"threshold": 2}, "not a cosine"),
        ({"sha256": "abc"}, "64 hexadecimal"),
        ({"dims": 3}, "unknown keys"),
    ],
)
def test_invalid_card_is_refused_with_the_reason(
    tmp_path: Path, card_changes: dict[str, Any], message: str
) -> None:
    path = save_model(tmp_path, build_model(), **card_changes)
    with pytest.raises(UnusableModel, match=message) as raised:
        load_embedder(f"onnx:{path}")
    assert "small.json" in str(raised.value)


def test_missing_or_damaged_card_or_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableModel, match="see docs/models.md"):
        load_embedder(f"onnx:{tmp_path / 'nothing.onnx'}")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "text.json").write_bytes(b"\xff\xfe")
    for name in ("list", "text"):
        with pytest.raises(UnusableModel):
            load_embedder(f"onnx:{tmp_path / name}.json")
    for weights in (b"", b"no model", build_model()[:200]):
        with pytest.raises(UnusableModel, match="cannot be loaded"):
            load_saved(tmp_path, weights).encode(make_solid_inputs(1))
    save_model(tmp_path, b"").unlink()
    with pytest.raises(UnusableModel, match="put the model beside its card"):
        load_embedder(f"onnx:{tmp_path / 'small.onnx'}").encode(make_solid_inputs(1))
    with pytest.raises(UnknownModel):
        load_embedder("onnx:")


@pytest.mark.parametrize(
    ("weights", "card_changes", "message"),
    [
        (build_model(), {"input": "picture"}, "has the inputs"),
        (build_model(), {"output": "vectors"}, "has the inputs"),
        (
            build_model(kind=TensorProto.INT32),
            {},
            "only uint8, float and float16 are supported",
        ),
        (build_model(), {"mean": MEAN, "std": STD}, "must not name a mean"),
        (build_model(), {"preprocess": {"size": 9}}, "fails on the input"),
        (build_model(), {"layout": "NCHW"}, "fails on the input"),
    ],
)
def test_card_that_contradicts_its_model_is_refused(
    tmp_path: Path, weights: bytes, card_changes: dict[str, Any], message: str
) -> None:
    embedder = load_saved(tmp_path, weights, **card_changes)
    with pytest.raises(UnusableModel, match=message):
        embedder.encode(
            [np.zeros((embedder.preprocess.size, embedder.preprocess.size, 3), np.uint8)]
        )


def test_embed_of_another_dimension_than_the_card_raises_invalid_embedding(tmp_path: Path) -> None:
    with pytest.raises(InvalidEmbedding, match="expected"):
        embed(
            load_saved(tmp_path, build_model(), dim=DIM + 1),
            make_solid_inputs(2),
        )


def test_encode_of_rows_of_unequal_length_raises_invalid_embedding(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["pixels"], ["places"]),
        helper.make_node("Cast", ["places"], ["rows"], to=TensorProto.FLOAT),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, [None, SIZE, SIZE, 3])
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, [4, None])
    model = helper.make_model(
        helper.make_graph(nodes, "uneven", [pixels], [rows]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    dark, light = np.zeros((SIZE, SIZE, 3), np.uint8), np.ones((SIZE, SIZE, 3), np.uint8)
    dark[0, 0, 0] = 1
    with pytest.raises(InvalidEmbedding, match="vectors of 4 and 768 numbers, expected 6"):
        embed(load_saved(tmp_path, model.SerializeToString()), [dark, light])


@pytest.mark.parametrize("location", ["beside.bin", "../outside.bin", "absolute"])
def test_model_with_weights_in_another_file_is_refused(
    tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card does not pin them, and a model may name any file of the machine."""
    weights_path = (
        tmp_path / "outside.bin" if location == "absolute" else tmp_path / "folder" / location
    )
    (tmp_path / "folder").mkdir()
    weights_path.write_bytes(WEIGHTS.tobytes())
    embedder = load_saved(
        tmp_path / "folder",
        build_model(outside=os.fspath(weights_path) if location == "absolute" else location),
    )
    monkeypatch.chdir(tmp_path / "folder")
    with pytest.raises(
        UnusableModel,
        match="cannot be loaded: its weights are in another file, beside.bin"
        if location == "beside.bin"
        else "cannot be loaded",
    ):
        embedder.encode(make_solid_inputs(1))


def test_test_models_pass_the_onnx_checker() -> None:
    onnx.checker.check_model(onnx.load_from_string(build_model()), full_check=True)


def test_scripts_import_onnxruntime_only_through_the_backend() -> None:
    """The backend disables the telemetry, so its import must come first."""
    code = (
        "import sys, scripts.bench_cpu_paths, scripts.bench_embedder;"
        " print('onnxruntime' in sys.modules)"
    )
    root = Path(__file__).resolve().parent.parent.parent
    assert (
        subprocess.run(
            [sys.executable, "-c", code], check=True, cwd=root, capture_output=True, text=True
        ).stdout
        == "False\n"
    )


def test_onnxruntime_telemetry_is_disabled_and_writes_no_files(tmp_path: Path) -> None:
    """By default it stores a machine identifier and a queue of events in the home folder."""
    code = (
        "import numpy as np; from pipeline.embed.embedder import load_embedder\n"
        "embedder = load_embedder(); size = embedder.preprocess.size\n"
        "embedder.encode([np.zeros((size, size, 3), np.uint8)])\n"
    )
    quieting_variables = (
        "ORT_DISABLE_TELEMETRY",
        "CI",
        "TF_BUILD",
        "GITHUB_ACTIONS",
        "ORT_RUNNING_UNIT_TESTS",
        "XDG_CACHE_HOME",
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in quieting_variables
    }
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment | {"HOME": str(tmp_path)}
    )
    assert list(tmp_path.iterdir()) == []

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

from pipeline.embed.embedder import embed, load_embedder
from pipeline.errors import InvalidEmbedding, UnknownModel, UnusableModel
from tests.support.onnx_models import DIM, MEAN, SIZE, STD, WEIGHTS, build_model, save_model


def colours(count: int) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(2)
    return [
        np.broadcast_to(rng.integers(0, 256, 3, dtype=np.uint8), (SIZE, SIZE, 3)).copy()
        for _ in range(count)
    ]


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize(
    ("kind", "scaled"),  # uint8 is never scaled, see below
    [(TensorProto.UINT8, False), *product([TensorProto.FLOAT, TensorProto.FLOAT16], [False, True])],
)
def test_rows_are_those_of_the_network(
    tmp_path: Path, layout: str, kind: int, scaled: bool
) -> None:
    given = {"mean": MEAN, "std": STD} if scaled else {}
    embedder = load_embedder(
        f"onnx:{save_model(tmp_path, build_model(layout, kind), layout=layout, **given)}"
    )
    shown = colours(5)
    mean = np.stack([view.mean(axis=(0, 1)) for view in shown])
    if kind != TensorProto.UINT8:
        mean = mean / 255
    if scaled:
        mean = (mean - MEAN) / STD
    expected = mean @ WEIGHTS
    tolerance = 2e-3 if kind == TensorProto.FLOAT16 else 1e-4
    np.testing.assert_allclose(embedder.encode(shown), expected, rtol=tolerance, atol=tolerance * 4)
    np.testing.assert_allclose(
        embed(embedder, shown),
        expected / np.linalg.norm(expected, axis=1, keepdims=True),
        atol=tolerance,
    )


def test_a_store_knows_the_model_by_its_content_not_by_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (
        save_model(tmp_path / "here", build_model()),
        save_model(tmp_path / "there", build_model(), floor=0.6),
    )
    monkeypatch.chdir(tmp_path)
    one, other = (
        load_embedder("onnx:here/small.onnx"),
        load_embedder(f"onnx:{there.with_suffix('.json')}"),
    )
    assert one.space == other.space
    assert one.space.weights == hashlib.sha256(here.read_bytes()).hexdigest()
    assert one.name == f"onnx:{here}"
    assert load_embedder(one.name).space == one.space
    longest: dict[str, Any] = {"size": SIZE, "fit": "longest"}
    changes: list[dict[str, Any]] = [
        {"preprocess": longest},
        {"preprocess": longest | {"fill": 255}},
        {"name": "other"},
        {"output": "rows"},
    ]
    spaces = {
        one.space,
        *(
            load_embedder(f"onnx:{save_model(tmp_path / 'changed', build_model(), **change)}").space
            for change in changes
        ),
    }
    assert len(spaces) == 1 + len(changes)
    assert (
        load_embedder(
            f"onnx:{save_model(tmp_path / 'changed', build_model(), preprocess=longest | {'fill': 0})}"
        ).space
        in spaces
    )
    assert (
        load_embedder(
            f"onnx:{save_model(tmp_path / 'changed', build_model(), preprocess={'size': SIZE, 'fill': 255})}"
        ).space
        == one.space
    )  # shows none
    scaled = load_embedder(
        f"onnx:{save_model(tmp_path / 'scaled', build_model(kind=TensorProto.FLOAT), mean=MEAN, std=STD)}"
    ).space
    assert (
        scaled.preprocess
        != load_embedder(
            f"onnx:{save_model(tmp_path / 'scaled', build_model(kind=TensorProto.FLOAT))}"
        ).space.preprocess
    )


def test_the_card_says_which_output(tmp_path: Path) -> None:
    path = save_model(tmp_path, build_model(outputs=("rows", "twice")))
    first = load_embedder(f"onnx:{path}").encode(colours(2))
    np.testing.assert_array_equal(
        load_embedder(f"onnx:{save_model(tmp_path, path.read_bytes(), output='twice')}").encode(
            colours(2)
        ),
        2 * first,
    )


def test_the_right_file_is_pinned(tmp_path: Path) -> None:
    sound = hashlib.sha256(build_model()).hexdigest()
    assert load_embedder(f"onnx:{save_model(tmp_path, build_model(), sha256=sound)}").encode(
        colours(1)
    ).shape == (1, DIM)
    other = load_embedder(f"onnx:{save_model(tmp_path, build_model('NCHW'), sha256=sound)}")
    with pytest.raises(UnusableModel, match="is not the file that its card names"):
        other.encode(colours(1))


@pytest.mark.parametrize(
    ("change", "said"),
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
def test_a_card_that_is_wrong_says_where(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = save_model(tmp_path, build_model(), **change)
    with pytest.raises(UnusableModel, match=said) as raised:
        load_embedder(f"onnx:{path}")
    assert "small.json" in str(raised.value)


def test_what_is_no_card_or_no_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnusableModel, match="see docs/models.md"):
        load_embedder(f"onnx:{tmp_path / 'nothing.onnx'}")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "text.json").write_bytes(b"\xff\xfe")
    for name in ("list", "text"):
        with pytest.raises(UnusableModel):
            load_embedder(f"onnx:{tmp_path / name}.json")
    for weights in (b"", b"no model", build_model()[:200]):
        with pytest.raises(UnusableModel, match="cannot be loaded"):
            load_embedder(f"onnx:{save_model(tmp_path, weights)}").encode(colours(1))
    save_model(tmp_path, b"").unlink()
    with pytest.raises(UnusableModel, match="put the model beside its card"):
        load_embedder(f"onnx:{tmp_path / 'small.onnx'}").encode(colours(1))
    with pytest.raises(UnknownModel):
        load_embedder("onnx:")


@pytest.mark.parametrize(
    ("weights", "change", "said"),
    [
        (build_model(), {"input": "picture"}, "has the inputs"),
        (build_model(), {"output": "vectors"}, "has the inputs"),
        (build_model(kind=TensorProto.INT32), {}, "only uint8, float and float16 are supported"),
        (build_model(), {"mean": MEAN, "std": STD}, "must not name a mean"),
        (build_model(), {"preprocess": {"size": 9}}, "fails on the input"),
        (build_model(), {"layout": "NCHW"}, "fails on the input"),
    ],
)
def test_a_card_that_does_not_fit_its_model_is_refused(
    tmp_path: Path, weights: bytes, change: dict[str, Any], said: str
) -> None:
    embedder = load_embedder(f"onnx:{save_model(tmp_path, weights, **change)}")
    with pytest.raises(UnusableModel, match=said):
        embedder.encode(
            [np.zeros((embedder.preprocess.size, embedder.preprocess.size, 3), np.uint8)]
        )


def test_another_dimension_than_the_card_says_is_no_output(tmp_path: Path) -> None:
    with pytest.raises(InvalidEmbedding, match="expected"):
        embed(load_embedder(f"onnx:{save_model(tmp_path, build_model(), dim=DIM + 1)}"), colours(2))


def test_rows_of_unequal_length_are_no_output(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["pixels"], ["places"]),
        helper.make_node("Cast", ["places"], ["rows"], to=TensorProto.FLOAT),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, [None, SIZE, SIZE, 3])
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, [4, None])
    made = helper.make_model(
        helper.make_graph(nodes, "uneven", [pixels], [rows]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    dark, light = np.zeros((SIZE, SIZE, 3), np.uint8), np.ones((SIZE, SIZE, 3), np.uint8)
    dark[0, 0, 0] = 1
    with pytest.raises(InvalidEmbedding, match="vectors of 4 and 768 numbers, expected 6"):
        embed(
            load_embedder(f"onnx:{save_model(tmp_path, made.SerializeToString())}"), [dark, light]
        )


@pytest.mark.parametrize("where", ["beside.bin", "../outside.bin", "absolute"])
def test_weights_in_other_files_are_refused(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing pins them, and a model from somewhere may name any file of the machine."""
    place = tmp_path / "outside.bin" if where == "absolute" else tmp_path / "folder" / where
    (tmp_path / "folder").mkdir()
    place.write_bytes(WEIGHTS.tobytes())
    embedder = load_embedder(
        f"onnx:{save_model(tmp_path / 'folder', build_model(outside=os.fspath(place) if where == 'absolute' else where))}"
    )
    monkeypatch.chdir(tmp_path / "folder")
    with pytest.raises(
        UnusableModel,
        match="cannot be loaded: its weights are in another file, beside.bin"
        if where == "beside.bin"
        else "cannot be loaded",
    ):
        embedder.encode(colours(1))


def test_the_test_models_are_sound() -> None:
    onnx.checker.check_model(onnx.load_from_string(build_model()), full_check=True)


def test_scripts_leave_it_to_the_backend_to_import_onnxruntime() -> None:
    """Which sees to it that nothing is sent, and so must come first."""
    look = "import sys, scripts.bench_cpu_paths, scripts.bench_embedder; print('onnxruntime' in sys.modules)"
    root = Path(__file__).resolve().parent.parent.parent
    assert (
        subprocess.run(
            [sys.executable, "-c", look], check=True, cwd=root, capture_output=True, text=True
        ).stdout
        == "False\n"
    )


def test_onnxruntime_sends_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its telemetry keeps an identifier of the machine and a queue of events in the home folder, and is on unless told otherwise."""
    code = (
        "import numpy as np; from pipeline.embed.embedder import load_embedder\n"
        "embedder = load_embedder(); size = embedder.preprocess.size; embedder.encode([np.zeros((size, size, 3), np.uint8)])\n"
    )
    quiet = (
        "ORT_DISABLE_TELEMETRY",
        "CI",
        "TF_BUILD",
        "GITHUB_ACTIONS",
        "ORT_RUNNING_UNIT_TESTS",
        "XDG_CACHE_HOME",
    )
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment | {"HOME": str(tmp_path)}
    )
    assert list(tmp_path.iterdir()) == []

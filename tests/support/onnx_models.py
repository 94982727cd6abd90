"""Small ONNX models with their cards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

DIM = 6
SIZE = 8  # px
WEIGHTS = np.random.default_rng(1).standard_normal((3, DIM)).astype(np.float32)
CARD: dict[str, Any] = {
    "name": "small",
    "file": "small.onnx",
    "dim": DIM,
    "preprocess": {"size": SIZE},
    "floor": 0.5,
    "threshold": 0.9,
}
MEAN = [0.5, 0.4, 0.3]
STD = [0.2, 0.3, 0.4]


def build_model(
    layout: str = "NHWC",
    kind: int = TensorProto.UINT8,
    outside: str | None = None,
    outputs: tuple[str, ...] = ("rows",),
) -> bytes:
    """Build a network that projects the mean color of an image, 0 to 255 for uint8 inputs.

    Each further output is twice the output before it. With `outside`, the weights are stored in
    that file, beside the model.
    """
    shape = [None, SIZE, SIZE, 3] if layout == "NHWC" else [None, 3, SIZE, SIZE]
    weights = numpy_helper.from_array(WEIGHTS, "weights")
    if outside:
        weights = TensorProto(
            name="weights",
            dims=WEIGHTS.shape,
            data_type=TensorProto.FLOAT,
            data_location=TensorProto.EXTERNAL,
        )
        weights.external_data.add(key="location", value=outside)
    two = numpy_helper.from_array(np.float32(2), "two")
    axes = numpy_helper.from_array(np.array([1, 2] if layout == "NHWC" else [2, 3]), "axes")
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], [outputs[0]]),
        *(
            helper.make_node("Mul", [source, "two"], [target])
            for source, target in zip(outputs, outputs[1:], strict=False)
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("pixels", kind, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, DIM]) for name in outputs],
        [weights, axes, two],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def save_model(folder: Path, weights: bytes, **card: object) -> Path:
    """Save a model and its card; return the path of the model. A value of ... omits a key."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small.onnx").write_bytes(weights)
    (folder / "small.json").write_text(
        json.dumps({key: value for key, value in (CARD | card).items() if value is not ...})
    )
    return folder / "small.onnx"

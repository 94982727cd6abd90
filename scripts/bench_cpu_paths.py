"""Compare other ways to run the default embedder on a CPU: their speed and the drift of scores.

    pip install openvino
    python -m scripts.bench_cpu_paths PHOTOS CALIBRATION

Each runtime gets the same decoded images of PHOTOS, in turn, medians of --repeat rounds. Unless its
name says otherwise, images run one at a time on each core, as the embedder does it. The drift is
the difference from the shipped model in the cosine of each pair of images. int8 is onnxruntime's
static quantisation, calibrated on images of another folder. A runtime that is not installed is left
out. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from pipeline import load_embedder
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import Preprocess
from pipeline.embed.backends.onnx import import_onnxruntime
from pipeline.embed.embedder import DEFAULT_MODEL
from scripts.bench_ingest import list_files

if TYPE_CHECKING:
    import onnxruntime

MODEL_FOLDER = Path(__file__).resolve().parent.parent / "pipeline" / "embed" / "backends"
MODEL_PATH = MODEL_FOLDER / f"{DEFAULT_MODEL}.onnx"
CORE_COUNT = os.cpu_count() or 1

# Images that int8 activations are calibrated on; the percentile method keeps histograms of all
# activations, so it gets fewer.
MAX_CALIBRATION_IMAGES = 200
MAX_PERCENTILE_IMAGES = 50

Rows = NDArray[np.float32]
Encoder = Callable[[NDArray[np.uint8]], Rows]


def load_pixels(folder: Path, preprocess: Preprocess, max_count: int) -> NDArray[np.uint8]:
    """Decode the first images of a folder for the embedder: (n, size, size, 3)."""
    with DecoderPool() as decoders:
        results = decoders.stream(list_files(folder)[:max_count], preprocess, prefetch=32)
        return np.stack([result.pixels for result in results if isinstance(result, Decoded)])


def make_session(weights: Path, threads: int = 1, **options: str) -> onnxruntime.InferenceSession:
    """Open a session as the embedder does, with the given threads and session options."""
    onnxruntime = import_onnxruntime()
    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 4
    session_options.intra_op_num_threads = threads
    session_options.enable_cpu_mem_arena = True
    for name, value in options.items():
        setattr(session_options, name, value)
    return onnxruntime.InferenceSession(
        weights, session_options, providers=["CPUExecutionProvider"]
    )


def make_single_image_encoder(encode: Callable[[NDArray[np.uint8]], Rows]) -> Encoder:
    """Run `encode` on one image at a time on each core, in threads that live on, as the embedder's.

    `encode` gets pixels (1, size, size, 3) and returns rows (1, dim).
    """
    pool = ThreadPoolExecutor(CORE_COUNT)

    def run(pixels: NDArray[np.uint8]) -> Rows:
        images = (pixels[index : index + 1] for index in range(len(pixels)))
        return np.concatenate(list(pool.map(encode, images)))

    return run


def make_onnxruntime_encoder(weights: Path) -> Encoder:
    """Run a model on one image at a time on each core."""
    session = make_session(weights)
    name = session.get_inputs()[0].name
    return make_single_image_encoder(
        lambda pixels: np.asarray(session.run(None, {name: pixels})[0], np.float32)
    )


def make_batch_encoder(weights: Path, batch_size: int) -> Encoder:
    """Run a model on batches, each on all cores."""
    session = make_session(weights, CORE_COUNT)
    name = session.get_inputs()[0].name

    def run(pixels: NDArray[np.uint8]) -> Rows:
        batches = [
            session.run(None, {name: pixels[start : start + batch_size]})[0]
            for start in range(0, len(pixels), batch_size)
        ]
        return np.concatenate(batches).astype(np.float32)

    return run


def widen_weights(scratch: Path) -> Path:
    """Write the model with its 16-bit weights widened to 32 bits and constants folded, once."""
    onnxruntime = import_onnxruntime()
    path = scratch / "plain.onnx"
    if not path.exists():
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        make_session(MODEL_PATH, optimized_model_filepath=str(path), graph_optimization_level=level)
    return path


def quantize_model(
    scratch: Path, calibration: NDArray[np.uint8], *, per_channel: bool, method: str
) -> Path:
    """Write the model with 8-bit weights and activations; return its path.

    `method` names a member of onnxruntime's CalibrationMethod.
    """
    plain = widen_weights(scratch)
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    quantized = scratch / f"int8-{per_channel}-{method}.onnx"
    name = onnx.load(plain).graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
        def __init__(self) -> None:
            self._inputs: Iterator[dict[str, Any]] = iter(
                {name: calibration[index : index + 1]} for index in range(len(calibration))
            )

        def get_next(self) -> dict[str, Any] | None:
            return next(self._inputs, None)

    quantize_static(
        plain,
        quantized,
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
        reduce_range=True,  # 7 bits: without VNNI, sums of 8-bit products saturate
        calibrate_method=CalibrationMethod[method],
    )
    return quantized


def make_openvino_encoder(hint: str, precision: str) -> Encoder:
    """Run the model in OpenVINO with its own streams; "dynamic" is bf16 where the CPU has it."""
    import openvino

    config = {"PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": CORE_COUNT}
    if precision != "dynamic":
        config["INFERENCE_PRECISION_HINT"] = precision
    compiled = openvino.Core().compile_model(str(MODEL_PATH), "CPU", config)

    def run(pixels: NDArray[np.uint8]) -> Rows:
        queue = openvino.AsyncInferQueue(compiled, CORE_COUNT)
        rows = [np.empty(0, np.float32)] * len(pixels)

        def store_row(request: Any, index: int) -> None:  # noqa: ANN401 - openvino has no types
            rows[index] = request.get_output_tensor(0).data[0].copy()

        queue.set_callback(store_row)
        for index in range(len(pixels)):
            queue.start_async({0: pixels[index : index + 1]}, index)
        queue.wait_all()
        return np.stack(rows)

    return run


def make_encoders(calibration: NDArray[np.uint8], scratch: Path) -> dict[str, Encoder]:
    """Make all encoders by their names in the table, the shipped one first."""
    embedder = load_embedder()
    encoders: dict[str, Encoder] = {
        "onnxruntime, one at a time on each core: **shipped**": (
            lambda pixels: embedder.encode(list(pixels))
        ),
        "batches of 4 on all cores": make_batch_encoder(MODEL_PATH, 4),
        "batches of 32 on all cores": make_batch_encoder(MODEL_PATH, 32),
    }
    few = calibration[:MAX_PERCENTILE_IMAGES]
    for name, images, per_channel, method in (
        ("int8, a scale for each layer", calibration, False, "MinMax"),
        ("int8, a scale for each channel", calibration, True, "MinMax"),
        ("int8, a scale for each channel, extremes cut off", few, True, "Percentile"),
    ):
        weights = quantize_model(scratch, images, per_channel=per_channel, method=method)
        encoders[name] = make_onnxruntime_encoder(weights)
    if find_spec("openvino"):
        for hint in ("THROUGHPUT", "LATENCY"):
            for precision in ("dynamic", "f32"):
                name = f"OpenVINO, {hint.lower()}, {precision}"
                encoders[name] = make_openvino_encoder(hint, precision)
    else:
        print("openvino is not installed\n")
    return encoders


def pair_scores(rows: Rows) -> NDArray[np.float64]:
    """Compute the cosine of each pair of rows, once a pair."""
    unit = rows.astype(np.float64) / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray((unit @ unit.T)[np.triu_indices(len(unit), 1)])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("calibration", type=Path, metavar="CALIBRATION")
    parser.add_argument(
        "--most", type=int, default=300, help="images of PHOTOS to embed (default: %(default)s)"
    )
    parser.add_argument(
        "--repeat", type=int, default=5, help="rounds of each median (default: %(default)s)"
    )
    options = parser.parse_args()
    preprocess = load_embedder().preprocess
    pixels = load_pixels(options.photos, preprocess, options.most)
    calibration = load_pixels(options.calibration, preprocess, MAX_CALIBRATION_IMAGES)
    with tempfile.TemporaryDirectory() as scratch:
        encoders = make_encoders(calibration, Path(scratch))
        rates: dict[str, list[float]] = {name: [] for name in encoders}
        rows: dict[str, Rows] = {}
        for turn in range(options.repeat + 1):
            for name, encode in encoders.items():
                started = time.perf_counter()
                rows[name] = encode(pixels)
                if turn:  # the first warms up
                    rates[name].append(len(pixels) / (time.perf_counter() - started))
    shipped = next(iter(encoders))
    shipped_rate, shipped_scores = median(rates[shipped]), pair_scores(rows[shipped])
    print(f"{len(pixels)} images, {CORE_COUNT} cores, medians of {options.repeat}\n")
    print("| runtime | images/s | relative to shipped | mean drift | 99th percentile | maximum |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in encoders:
        drift = np.abs(pair_scores(rows[name]) - shipped_scores)
        rate = median(rates[name])
        print(
            f"| {name} | {rate:.0f} | {rate / shipped_rate:.2f} | {drift.mean():.1e}"
            f" | {np.quantile(drift, 0.99):.1e} | {drift.max():.1e} |"
        )


if __name__ == "__main__":
    main()

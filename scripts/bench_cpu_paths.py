"""Other ways to run the default embedder on a CPU: how fast each is, and how far its scores are from those that ship.

    pip install openvino
    python scripts/bench_cpu_paths.py PICTURES CALIBRATION

Each way gets the same decoded PICTURES, one at a time on each core as the embedder does it unless its name says otherwise, in turn,
medians of --repeat rounds; the drift is the difference of the cosine of each pair of PICTURES. int8 is onnxruntime's static quantisation,
calibrated on pictures of another folder. What is not installed is left out.
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

MODEL_PATH = (
    Path(__file__).resolve().parent.parent
    / "pipeline"
    / "embed"
    / "backends"
    / f"{DEFAULT_MODEL}.onnx"
)
CORE_COUNT = os.cpu_count() or 1
Rows = NDArray[np.float32]
Encoder = Callable[[NDArray[np.uint8]], Rows]


def load_pixels(folder: Path, preprocess: Preprocess, max_count: int) -> NDArray[np.uint8]:
    """The first pictures of a folder, as the embedder gets them."""
    with DecoderPool() as decoders:
        found = decoders.stream(list_files(folder)[:max_count], preprocess, prefetch=32)
        return np.stack([result.pixels for result in found if isinstance(result, Decoded)])


def make_session(weights: Path, threads: int = 1, **options: str) -> onnxruntime.InferenceSession:
    """A session as the embedder makes it, but for what is given."""
    onnxruntime = import_onnxruntime()
    made = onnxruntime.SessionOptions()
    made.log_severity_level = 4
    made.intra_op_num_threads = threads
    made.enable_cpu_mem_arena = True
    for key, value in options.items():
        setattr(made, key, value)
    return onnxruntime.InferenceSession(weights, made, providers=["CPUExecutionProvider"])


def make_single_image_encoder(encode: Callable[[NDArray[np.uint8]], Rows]) -> Encoder:
    """Pictures one at a time, on each core, by threads that are kept, as the embedder's are."""
    pool = ThreadPoolExecutor(CORE_COUNT)

    def run(pictures: NDArray[np.uint8]) -> Rows:
        return np.concatenate(
            list(pool.map(lambda at: encode(pictures[at : at + 1]), range(len(pictures))))
        )

    return run


def make_onnxruntime_encoder(weights: Path) -> Encoder:
    """One picture at a time on each core."""
    loaded = make_session(weights)
    name = loaded.get_inputs()[0].name
    return make_single_image_encoder(
        lambda pictures: np.asarray(loaded.run(None, {name: pictures})[0], np.float32)
    )


def make_batch_encoder(weights: Path, batch_size: int) -> Encoder:
    """Batches, each on all cores."""
    loaded = make_session(weights, CORE_COUNT)
    name = loaded.get_inputs()[0].name

    def run(pictures: NDArray[np.uint8]) -> Rows:
        parts = [
            loaded.run(None, {name: pictures[at : at + batch_size]})[0]
            for at in range(0, len(pictures), batch_size)
        ]
        return np.concatenate(parts).astype(np.float32)

    return run


def quantize_model(
    scratch: Path, calibration: NDArray[np.uint8], *, per_channel: bool, method: str
) -> Path:
    """The model with 8-bit weights and activations, calibrated by the `method` that onnxruntime calls so."""
    onnxruntime = import_onnxruntime()
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    plain, done = scratch / "plain.onnx", scratch / f"int8-{per_channel}-{method}.onnx"
    if not plain.exists():  # its 16-bit weights made 32-bit ones, and what is constant folded
        make_session(
            MODEL_PATH,
            optimized_model_filepath=str(plain),
            graph_optimization_level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        )
    name = onnx.load(plain).graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc] # its package has no types
        def __init__(self) -> None:
            self._left: Iterator[dict[str, Any]] = iter(
                {name: calibration[at : at + 1]} for at in range(len(calibration))
            )

        def get_next(self) -> dict[str, Any] | None:
            return next(self._left, None)

    quantize_static(
        plain,
        done,
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
        reduce_range=True,  # 7 bits: without VNNI, sums of 8-bit products saturate
        calibrate_method=CalibrationMethod[method],
    )
    return done


def make_openvino_encoder(hint: str, precision: str) -> Encoder:
    """OpenVINO, with its own streams; "dynamic" is bf16 where the CPU has that."""
    import openvino

    wanted = {"PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": CORE_COUNT}
    if precision != "dynamic":
        wanted["INFERENCE_PRECISION_HINT"] = precision
    compiled = openvino.Core().compile_model(str(MODEL_PATH), "CPU", wanted)

    def run(pictures: NDArray[np.uint8]) -> Rows:
        queue, rows = (
            openvino.AsyncInferQueue(compiled, CORE_COUNT),
            [np.empty(0, np.float32)] * len(pictures),
        )
        queue.set_callback(
            lambda request, at: rows.__setitem__(at, request.get_output_tensor(0).data[0].copy())
        )
        for at in range(len(pictures)):
            queue.start_async({0: pictures[at : at + 1]}, at)
        queue.wait_all()
        return np.stack(rows)

    return run


def pair_scores(rows: Rows) -> NDArray[np.float64]:
    """The cosine of each pair, once."""
    unit = rows.astype(np.float64) / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray((unit @ unit.T)[np.triu_indices(len(unit), 1)])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("--most", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    ships = load_embedder()
    whole = load_pixels(given.pictures, ships.preprocess, given.most)
    calibration = load_pixels(given.calibration, ships.preprocess, 200)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        ways: dict[str, tuple[Encoder, NDArray[np.uint8]]] = {
            "onnxruntime, one at a time on each core: **what ships**": (
                lambda pictures: ships.encode(list(pictures)),
                whole,
            ),
            "batches of 4 on all cores": (make_batch_encoder(MODEL_PATH, 4), whole),
            "batches of 32 on all cores": (make_batch_encoder(MODEL_PATH, 32), whole),
        }
        for each_channel in (False, True):
            weights = quantize_model(
                scratch, calibration, per_channel=each_channel, method="MinMax"
            )
            ways[f"int8, a scale for each {'channel' if each_channel else 'layer'}"] = (
                make_onnxruntime_encoder(weights),
                whole,
            )
        weights = quantize_model(scratch, calibration[:50], per_channel=True, method="Percentile")
        ways["int8, a scale for each channel, extremes cut off"] = (
            make_onnxruntime_encoder(weights),
            whole,
        )
        if find_spec("openvino"):
            for hint in ("THROUGHPUT", "LATENCY"):
                for precision in ("dynamic", "f32"):
                    ways[f"OpenVINO, {hint.lower()}, {precision}"] = (
                        make_openvino_encoder(hint, precision),
                        whole,
                    )
        else:
            print("openvino is not installed\n")
        taken: dict[str, list[float]] = {way: [] for way in ways}
        found = {}
        for turn in range(given.repeat + 1):
            for way, (run, pictures) in ways.items():
                began = time.perf_counter()
                found[way] = run(pictures)
                if turn:
                    taken[way].append(len(pictures) / (time.perf_counter() - began))
    first, *_ = ways
    base, right = median(taken[first]), pair_scores(found[first])
    print(f"{len(whole)} pictures, {CORE_COUNT} cores, medians of {given.repeat}\n")
    print(
        "| way | images/s | of what ships | mean drift | 99 % below | greatest |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    )
    for way, rates in taken.items():
        drift = np.abs(pair_scores(found[way]) - right)
        rate = median(rates)
        print(
            f"| {way} | {rate:.0f} | {rate / base:.2f} | {drift.mean():.1e} | {np.quantile(drift, 0.99):.1e} | {drift.max():.1e} |"
        )


if __name__ == "__main__":
    main()

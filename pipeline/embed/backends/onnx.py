"""ONNX models, run by onnxruntime; a JSON file beside each model, its card, describes it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexes.records import Space
from pipeline.embed.backends.onnx_card import read_card
from pipeline.errors import InvalidEmbedding, UnusableModel
from pipeline.workers.cpus import count_usable_cores

if TYPE_CHECKING:
    import onnxruntime

INPUT_DTYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}
# The folder in which onnxruntime looks for weights outside the model file.
NONEXISTENT_FOLDER = "/nonexistent"
MAX_ERROR_CHARS = 300  # of a message of onnxruntime


@dataclass(frozen=True)
class _LoadedModel:
    """An onnxruntime session with the names of its input and output and its input's dtype."""

    session: onnxruntime.InferenceSession
    input_name: str
    output_name: str
    input_dtype: type[Any]


class OnnxEmbedder:
    """A model whose input is an image, uint8 or float, and whose output is a row.

    The first `encode` loads it.
    """

    batch_size = 32

    def __init__(self, path: Path, threads: int | None = None, name: str | None = None) -> None:
        """Read the card at `path`, or the one beside `path` if that is an .onnx file.

        `name` is the name by which `load_embedder` loads the model (default: the card's name).
        Raises UnusableModel for a card that is missing or invalid.
        """
        self._card = read_card(path.with_suffix(".json") if path.suffix == ".onnx" else path)
        self._threads = threads or count_usable_cores()
        self.name = name or self._card.name
        self.preprocess = self._card.preprocess

    @cached_property
    def space(self) -> Space:
        """The vector space, identified by the sha256 of the model file wherever it is."""
        card = self._card
        preprocess = [str(card.preprocess)]
        for key, values in (("mean", card.mean), ("std", card.std)):
            if values:
                preprocess.append(f"{key} {','.join(f'{value:.6g}' for value in values)}")
        if card.output:
            preprocess.append(card.output)
        return Space(
            "onnx",
            card.name,
            card.sha256 or hashlib.sha256(self._read_weights()).hexdigest(),
            " ".join(preprocess),
            card.dim,
            card.floor,
            card.threshold,
        )

    def count_paid_calls(self, image_count: int) -> int:
        """Return 0: the model runs locally."""
        return 0

    def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Compute a raw row for each image (height, width, 3), in order: (n, dim).

        A row does not depend on the other images. Each thread runs one image at a time: the
        activations between layers stay in its cache, and no thread waits for another. Raises
        InvalidEmbedding for rows of unequal length.
        """
        model = self._model  # loaded before the threads start
        rows = list(self._pool.map(lambda pixels: self._run_model(pixels, model), inputs))
        if len(lengths := {len(row) for row in rows}) > 1:
            numbers = " and ".join(map(str, sorted(lengths)))
            raise InvalidEmbedding(
                f"{self.name} returned vectors of {numbers} numbers, expected {self._card.dim};"
                " name an output of fixed length in the card"
            )
        return np.stack(rows)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="embed")

    def _run_model(
        self, input_pixels: NDArray[np.uint8], model: _LoadedModel
    ) -> NDArray[np.float32]:
        """Scale an image as the card says and compute its row."""
        pixels: NDArray[Any] = input_pixels[np.newaxis]
        if model.input_dtype is not np.uint8:
            mean = np.array(self._card.mean or (0,) * 3, np.float32)
            std = np.array(self._card.std or (1,) * 3, np.float32)
            scaled = (input_pixels / np.float32(255) - mean) / std
            pixels = scaled[np.newaxis].astype(model.input_dtype)
        if self._card.layout == "NCHW":
            pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        try:
            (row,) = model.session.run([model.output_name], {model.input_name: pixels})
        except Exception as error:  # onnxruntime's exceptions share no other base
            raise UnusableModel(
                f"{self._card.path} fails on the input that its card describes:"
                f" {_summarize_error(error)}"
            ) from error
        return np.asarray(row, dtype=np.float32).reshape(-1)

    def _read_weights(self) -> bytes:
        try:
            return self._card.path.read_bytes()
        except OSError as error:
            raise UnusableModel(
                f"{self._card.path} cannot be read: {error.strerror}; put the model beside its card"
            ) from error

    @cached_property
    def _model(self) -> _LoadedModel:
        path = self._card.path
        weights = self._read_weights()
        if hashlib.sha256(weights).hexdigest() != self.space.weights:
            raise UnusableModel(
                f"{path} is not the file that its card names"
                f" (sha256 {self.space.weights[:12]}...); put that file there"
            )
        session = _create_session(path, weights)
        inputs = {node.name: node for node in session.get_inputs()}
        outputs = [node.name for node in session.get_outputs()]
        input_name = self._card.input or next(iter(inputs))
        output_name = self._card.output or outputs[0]
        if input_name not in inputs or output_name not in outputs or len(inputs) != 1:
            raise UnusableModel(
                f"{path} has the inputs {list(inputs)} and outputs {outputs};"
                f" its card names {input_name} and {output_name}"
            )
        input_type = inputs[input_name].type
        dtype = INPUT_DTYPES.get(input_type)
        if dtype is None:
            raise UnusableModel(
                f"{path} takes {input_type}; only uint8, float and float16 are supported"
            )
        if dtype is np.uint8 and (self._card.mean or self._card.std):
            raise UnusableModel(f"{path} takes uint8, so its card must not name a mean and std")
        return _LoadedModel(session, input_name, output_name, dtype)


def import_onnxruntime() -> Any:  # noqa: ANN401 - a module without types
    """Import onnxruntime with its telemetry disabled.

    Since 1.29 it sends the model's name and facts about the machine to Microsoft unless this
    variable is set before the import.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def _create_session(path: Path, weights: bytes) -> onnxruntime.InferenceSession:
    """Load a model from memory. Raises UnusableModel for weights that onnxruntime refuses."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1  # see OnnxEmbedder.encode
    # The arena keeps the memory of one image for the next. Without it, each image requests memory
    # from the system again: that takes a fifth more time, and the process grows from 125 to 270 MB
    # within some hundred images (measured).
    options.enable_cpu_mem_arena = True
    # From memory and with a folder that does not exist: the card pins no other file, whatever
    # paths the model names.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", NONEXISTENT_FOLDER
    )
    try:
        return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no other base
        raise UnusableModel(
            f"{path} cannot be loaded: {_explain_load_error(error, weights)}"
        ) from error


def _explain_load_error(error: Exception, weights: bytes) -> str:
    missing_file = re.search(f'not exist: "{NONEXISTENT_FOLDER}/([^"]+)"', str(error))
    if missing_file:
        return (
            f"its weights are in another file, {missing_file[1]}, which the card does not pin;"
            " save the model as one file"
        )
    if b"external" in weights and "external" in str(error).lower():
        return (
            "its weights are in other files, which the card does not pin;"
            " save the model as one file"
        )
    return _summarize_error(error)


def _summarize_error(error: Exception) -> str:
    first_line = str(error).strip().partition("\n")[0]
    return first_line[:MAX_ERROR_CHARS] or type(error).__name__

"""Models in ONNX, run by onnxruntime; a small JSON beside the file, its card, says what the model is."""

from __future__ import annotations

import hashlib
import json
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
from pipeline.decode.preprocess import Preprocess
from pipeline.errors import InvalidEmbedding, UnusableModel
from pipeline.workers.cpus import count_usable_cores

if TYPE_CHECKING:
    import onnxruntime

INPUT_DTYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}
LAYOUTS = ("NHWC", "NCHW")
NONEXISTENT_FOLDER = (
    "/nonexistent"  # where onnxruntime is told to look for weights outside the file
)


@dataclass(frozen=True)
class _ModelCard:
    """What a card says: see README for its keys."""

    name: str
    path: Path
    sha256: str | None
    dim: int
    preprocess: Preprocess
    input: str | None
    output: str | None
    layout: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    floor: float
    threshold: float


class OnnxEmbedder:
    """A model whose input is pictures, uint8 or float, and whose output is one row for each. It is loaded by the first encode()."""

    batch_size = 32

    def __init__(self, path: Path, threads: int | None = None, name: str | None = None) -> None:
        """Read the JSON `card`, or the one of the same name beside an .onnx file; `name`: what load() knows it by, else what the card says.

        Raises BadModel for a card that is missing or wrong.
        """
        self._card = _read_card(path.with_suffix(".json") if path.suffix == ".onnx" else path)
        self._threads = threads or count_usable_cores()
        self.name = name or self._card.name
        self.preprocess = self._card.preprocess

    @cached_property
    def space(self) -> Space:
        """The space that the sha256 of the file stands for, wherever it lies."""
        card = self._card
        scaled = [
            f"{key} {','.join(f'{number:.6g}' for number in given)}"
            for key in ("mean", "std")
            if (given := getattr(card, key))
        ]
        preprocess = " ".join([str(card.preprocess), *scaled, *filter(None, [card.output])])
        return Space(
            "onnx",
            card.name,
            card.sha256 or hashlib.sha256(self._weights).hexdigest(),
            preprocess,
            card.dim,
            card.floor,
            card.threshold,
        )

    def count_paid_calls(self, image_count: int) -> int:
        """None: it runs here."""
        return 0

    def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """One raw row for each picture, in order; it does not depend on what else is asked.

        Raises BadOutput for rows of unequal length.
        Each thread takes one picture at a time: what lies between the layers stays in its cache, and no thread waits for another.
        """
        loaded = self._session  # before threads ask for it
        rows = list(self._pool.map(lambda view: self._run_model(view, *loaded), inputs))
        if len(lengths := {len(row) for row in rows}) > 1:
            numbers = " and ".join(map(str, sorted(lengths)))
            raise InvalidEmbedding(
                f"{self.name} returned rows of {numbers} numbers, expected {self._card.dim}; name an output of one length"
            )
        return np.stack(rows)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="embed")

    def _run_model(
        self,
        input_pixels: NDArray[np.uint8],
        session: onnxruntime.InferenceSession,
        input_name: str,
        output_name: str,
        dtype: type[Any],
    ) -> NDArray[np.float32]:
        pixels: NDArray[Any] = input_pixels[np.newaxis]
        if dtype is not np.uint8:
            mean, std = (
                np.array(given, np.float32)
                for given in (self._card.mean or (0,) * 3, self._card.std or (1,) * 3)
            )
            pixels = ((input_pixels / np.float32(255) - mean) / std)[np.newaxis].astype(dtype)
        if self._card.layout == "NCHW":
            pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        try:
            (row,) = session.run([output_name], {input_name: pixels})
        except (
            Exception
        ) as error:  # whatever onnxruntime raises: it has no class of its own to catch
            raise UnusableModel(
                f"{self._card.path} cannot be run on its own input: {_summarize_error(error)}"
            ) from error
        return np.asarray(row, dtype=np.float32).reshape(-1)

    @property
    def _weights(self) -> bytes:
        try:
            return self._card.path.read_bytes()
        except OSError as error:
            raise UnusableModel(
                f"{self._card.path} cannot be read: {error.strerror}; put the model beside its card"
            ) from error

    @cached_property
    def _session(self) -> tuple[onnxruntime.InferenceSession, str, str, type[Any]]:
        onnxruntime = import_onnxruntime()
        path, weights = self._card.path, self._weights
        if hashlib.sha256(weights).hexdigest() != self.space.weights:
            raise UnusableModel(
                f"{path} is not the file that its card names (sha256 {self.space.weights[:12]}...); put the right one there"
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1  # see encode()
        # Its arena keeps what one picture takes for the next one. Without, each asks the system for it anew: slower by a fifth, and the
        # process grows from 125 to 270 MB within some hundred pictures (measured).
        options.enable_cpu_mem_arena = True
        # From memory, and with no folder to look into: other files are not what was pinned, whatever paths the model names.
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", NONEXISTENT_FOLDER
        )
        try:
            session = onnxruntime.InferenceSession(
                weights, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # as above
            if lost := re.search(f'not exist: "{NONEXISTENT_FOLDER}/([^"]+)"', str(error)):
                why = f"its weights lie in {lost[1]} beside the model, where nothing pins them; save it as one file"
            elif b"external" in weights and "external" in str(error).lower():
                why = "its weights lie in other files, which nothing pins; save it with its weights inside"
            else:
                why = _summarize_error(error)
            raise UnusableModel(f"{path} is refused: {why}") from error
        inputs = {given.name: given for given in session.get_inputs()}
        outputs = [given.name for given in session.get_outputs()]
        input_, output = self._card.input or next(iter(inputs)), self._card.output or outputs[0]
        if input_ not in inputs or output not in outputs or len(inputs) != 1:
            raise UnusableModel(
                f"{path} has the inputs {list(inputs)} and outputs {outputs}; the card names {input_} and {output}"
            )
        kind = INPUT_DTYPES.get(inputs[input_].type)
        if kind is None:
            raise UnusableModel(
                f"{path} takes {inputs[input_].type}; only uint8 and floats are pictures"
            )
        if kind is np.uint8 and (self._card.mean or self._card.std):
            raise UnusableModel(
                f"{path} takes uint8 pictures, so the card may name no mean and std"
            )
        return session, input_, output, kind


def import_onnxruntime() -> Any:  # noqa: ANN401 - a module without types
    """onnxruntime, for whoever else needs it: since 1.29 it sends the model's name and facts of the machine to Microsoft unless told not to
    before it is imported.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def _summarize_error(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__


def _read_card(path: Path) -> _ModelCard:
    """The card at `path`, every key of the right kind. Raises BadModel."""
    try:
        given = json.loads(path.read_bytes())
    except OSError as error:
        raise UnusableModel(
            f"{path} cannot be read: {error.strerror}; a model needs a card beside it, see README"
        ) from error
    except ValueError as error:
        raise UnusableModel(f"{path} is no JSON: {error}") from error
    try:
        card = _ModelCard(
            name=_parse_text(given["name"]),
            path=path.with_name(_parse_text(given["file"])),
            sha256=None if given.get("sha256") is None else _parse_text(given["sha256"]).lower(),
            dim=_parse_positive_int(given["dim"], 1 << 16),
            preprocess=_parse_preprocess(given["preprocess"]),
            input=None if given.get("input") is None else _parse_text(given["input"]),
            output=None if given.get("output") is None else _parse_text(given["output"]),
            layout=_parse_text(given.get("layout", "NHWC")),
            mean=_parse_channel_values(given.get("mean")),
            std=_parse_channel_values(given.get("std")),
            floor=_parse_cosine(given["floor"]),
            threshold=_parse_cosine(given["threshold"]),
        )
        if unknown := set(given) - set(_ModelCard.__dataclass_fields__) - {"file"}:
            raise ValueError(f"unknown keys {sorted(unknown)}")
        if card.path.name != given["file"] or card.path.parent != path.parent:
            raise ValueError("file must be the name of a file beside the card")
        if card.sha256 is not None and (
            len(card.sha256) != 64 or set(card.sha256) - set("0123456789abcdef")
        ):
            raise ValueError("sha256 must be 64 hexadecimal digits")
        if card.layout not in LAYOUTS:
            raise ValueError("layout must be NHWC or NCHW")
        if (card.mean is None) != (card.std is None) or (card.std and min(card.std) <= 0):
            raise ValueError("mean and std come together, and std is above 0")
        if not card.floor <= card.threshold:
            raise ValueError("floor must not be above threshold")
    except KeyError as error:
        raise UnusableModel(f"{path} has no {error}; see README for what a card holds") from error
    except (ValueError, TypeError) as error:
        raise UnusableModel(f"{path} describes no model: {error}") from error
    return card


def _parse_text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise TypeError(f"{value!r} is no name")
    return value


def _parse_positive_int(value: object, max_value: int) -> int:
    if type(value) is not int or not 1 <= value <= max_value:
        raise TypeError(f"{value!r} is no number from 1 to {max_value}")
    return value


def _parse_cosine(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not -1 <= value <= 1:
        raise TypeError(f"{value!r} is no cosine")
    return float(value)


def _parse_channel_values(value: object) -> tuple[float, ...] | None:
    if value is None:
        return None
    if (
        not isinstance(value, list)
        or len(value) != 3
        or not all(type(number) in (int, float) and np.isfinite(number) for number in value)
    ):
        raise TypeError(f"{value!r} is no list of three numbers")
    return tuple(float(number) for number in value)


def _parse_preprocess(value: object) -> Preprocess:
    if not isinstance(value, dict) or set(value) - {"size", "fit", "resample", "fill"}:
        raise TypeError(f"{value!r} describes no preprocessing")
    view = Preprocess(
        _parse_positive_int(value["size"], 4096),
        value.get("fit", "squash"),
        value.get("resample", "bicubic"),
        value.get("fill", 0),
    )
    fits, resamples = (
        ("squash", "shortest", "longest"),
        ("bicubic", "bilinear", "lanczos", "box", "hamming", "nearest"),
    )
    if (
        view.fit not in fits
        or view.resample not in resamples
        or type(view.fill) is not int
        or not 0 <= view.fill <= 255
    ):
        raise ValueError(
            f"a view's fit is one of {fits}, resample one of {resamples}, fill from 0 to 255"
        )
    return view

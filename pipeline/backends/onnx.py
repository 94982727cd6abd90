"""Models in ONNX, run by onnxruntime; a small JSON beside the file says what the model is."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexes import Space
from pipeline.errors import BadModel
from pipeline.view import View

if TYPE_CHECKING:
    import onnxruntime


class Onnx:
    """An ONNX model whose input is uint8 pictures (n, size, size, 3) and whose output is one row for each."""

    batch = 32

    def __init__(self, card: Path, threads: int | None = None) -> None:
        """Read the JSON `card`; the model itself is loaded at the first encode()."""
        self._threads = threads or os.cpu_count() or 1
        try:
            self._card: dict[str, Any] = json.loads(card.read_text())
            self._path = card.with_name(self._card["file"])
            self.name: str = self._card["name"]
            self.view = View(**self._card["view"])
            self.space = Space(
                backend="onnx",
                model=self.name,
                weights=self._card["sha256"],
                preprocess=str(self.view),
                dim=self._card["dim"],
                floor=self._card["floor"],
                threshold=self._card["threshold"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadModel(f"{card} does not describe a model ({error!r}); install neardup again") from error

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        import onnxruntime

        try:
            weights = self._path.read_bytes()
        except OSError as error:
            raise BadModel(f"{self._path} cannot be read: {error.strerror}; install neardup again") from error
        if hashlib.sha256(weights).hexdigest() != self.space.weights:
            raise BadModel(f"{self._path} is not the file that its card names (sha256 {self.space.weights[:12]}...); install neardup again")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1  # see encode()
        options.enable_cpu_mem_arena = False  # the arena keeps the peak of the largest batch for good, and is no faster here
        return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])

    def encode(self, views: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """One raw row for each picture, in order; it does not depend on what else is asked.

        Each thread takes one picture at a time: what lies between the layers stays in its cache, and no thread waits for another.
        """
        session = self._session
        outputs, name = [self._card["output"]], self._card["input"]
        with ThreadPoolExecutor(self._threads, thread_name_prefix="embed") as pool:
            rows = list(pool.map(lambda view: session.run(outputs, {name: view[np.newaxis]})[0], views))
        return np.concatenate(rows).astype(np.float32, copy=False)

    def calls(self, pictures: int) -> int:
        """None: it runs here."""
        return 0

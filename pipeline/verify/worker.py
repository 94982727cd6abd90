"""Inside a worker process that verifies pairs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from pipeline.verify.inputs import VerifyInput, extract_from_thumbnail
from pipeline.workers.process import report_ready

if TYPE_CHECKING:
    from pipeline.verify.features import ImageFeatures

MAX_CACHED_FEATURES = 96  # images whose features a worker keeps: up to 80 MB
# glibc returns freed memory beyond twice the largest block that was freed so far. Without a large
# one, a pair of copies gets 800 new pages, which takes an eighth of its time.
FREED_BLOCK_BYTES = 24 << 20


class Operation(StrEnum):
    """An operation of a verification worker, on a batch of items."""

    FEATURES = "features"  # extract the features of JPEG thumbnails
    VERIFY = "verify"  # verify pairs of VerifyInput


class RequestHandler:
    """Extracts features and verifies pairs; keeps the features that it used last."""

    def __init__(self) -> None:
        """Start with an empty cache."""
        self._cached_features: OrderedDict[bytes, ImageFeatures] = OrderedDict()

    def handle(self, operation: Operation, items: Sequence[Any]) -> list[Any]:
        """Handle a request; the answers are in the order of the items."""
        # Loads OpenCV, which a process that leaves this to workers does not need.
        from pipeline.verify.verify import verify

        if operation is Operation.FEATURES:
            return [extract_from_thumbnail(jpeg) for jpeg in items]
        return [
            verify(self._load_features(first), self._load_features(second))
            for first, second in items
        ]

    def _load_features(self, verify_input: VerifyInput) -> ImageFeatures:
        from pipeline.verify.features import build_features_from_thumbnail

        features = self._cached_features.pop(verify_input.hash, None)
        if features is None:
            features = build_features_from_thumbnail(
                verify_input.jpeg, verify_input.features, verify_input.size
            )
        self._cached_features[verify_input.hash] = features
        if len(self._cached_features) > MAX_CACHED_FEATURES:
            self._cached_features.popitem(last=False)
        return features


def serve(channel_fd: str, memory_fd: str) -> None:
    """Report that the worker is ready, then answer requests until the channel is closed.

    Requests and answers are small, so they do not pass through the memory at `memory_fd`.
    """
    import cv2
    import numpy as np

    from pipeline.verify.judge import load_judge

    cv2.setNumThreads(1)
    np.empty(FREED_BLOCK_BYTES, np.uint8)
    handler = RequestHandler()
    # Load all modules and the judge now: if one is missing, the worker must fail to start.
    handler.handle(Operation.FEATURES, [])
    load_judge()
    report_ready(int(channel_fd))
    with Connection(int(channel_fd)) as connection, suppress(EOFError, ConnectionError):
        while True:
            connection.send(handler.handle(*connection.recv()))

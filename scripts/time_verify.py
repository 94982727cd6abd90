"""Time the verification of pairs by the code that PYTHONPATH names.

bench_verify runs this file for each of two revisions, so it uses only what workers have had for
long. Standard input is a pickle of pairs by kind, (hash, JPEG, features, size) for each image; each
revision extracts the features again. Standard output is JSON, for each kind the CPU seconds of all
its pairs, and how many are copies.
"""

from __future__ import annotations

import json
import pickle
import sys
import time

import cv2
import numpy as np

from pipeline.verify.inputs import VerifyInput
from pipeline.verify.pool import MAX_ITEMS_PER_REQUEST
from pipeline.verify.relation import Relation
from pipeline.verify.worker import Operation, RequestHandler

FREED_BLOCK_BYTES = 24 << 20  # as in a worker, which keeps freed memory after that
COPIES = (Relation.SAME_PICTURE, Relation.DERIVED)


def extract_features(
    pairs: list[tuple[VerifyInput, ...]],
) -> list[tuple[VerifyInput, ...]]:
    """Replace the features by those of this revision, whose format may differ."""
    images = {image.hash: image for pair in pairs for image in pair}
    features = RequestHandler().handle(
        Operation.FEATURES, [image.jpeg for image in images.values()]
    )
    replaced = {
        hash_: image._replace(features=extracted)
        for (hash_, image), extracted in zip(images.items(), features, strict=True)
    }
    return [tuple(replaced[image.hash] for image in pair) for pair in pairs]


def main() -> None:
    """Verify all pairs in the batches that a worker gets."""
    cv2.setNumThreads(1)
    np.empty(FREED_BLOCK_BYTES, np.uint8)
    pairs_by_kind = pickle.load(sys.stdin.buffer)  # noqa: S301 - the parent wrote it
    results = {}
    for kind, pairs in pairs_by_kind.items():
        inputs = extract_features([tuple(VerifyInput(*image) for image in pair) for pair in pairs])
        # The first batch loads modules and fills caches of tables.
        RequestHandler().handle(Operation.VERIFY, inputs[:MAX_ITEMS_PER_REQUEST])
        handler, started, copy_count = RequestHandler(), time.process_time(), 0
        for start in range(0, len(inputs), MAX_ITEMS_PER_REQUEST):
            batch = inputs[start : start + MAX_ITEMS_PER_REQUEST]
            verdicts = handler.handle(Operation.VERIFY, batch)
            copy_count += sum(verdict.relation in COPIES for verdict in verdicts)
        results[kind] = (time.process_time() - started, copy_count)
    print(json.dumps(results))


if __name__ == "__main__":
    main()

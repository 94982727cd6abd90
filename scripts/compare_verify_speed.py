"""Time the verification of pairs against another git revision, for bench_verify --against."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from indexes import Store
from indexes.caches.thumbnails import ThumbnailCache
from pipeline.calibrate.synthetic_copies import EVERYDAY_EDITS, HARD_EDITS
from pipeline.decode.preprocess import VERIFY_INPUT
from pipeline.thumbnails import encode_thumbnail
from pipeline.verify.inputs import VerifyInput, build_verify_input, extract_from_thumbnail
from scripts.bench_embedder import format_table, open_upright

ROUNDS = 3  # both revisions run so often, in turn
ROOT = Path(__file__).resolve().parent.parent

InputPair = tuple[VerifyInput, VerifyInput]
Costs = dict[str, tuple[float, int]]  # CPU seconds and copies found, by kind of pair


def load_pairs(store: Store, pairs: Sequence[tuple[int, int]]) -> list[InputPair]:
    """Load the inputs of pairs of images, by id, whose features the store has."""
    images = dict(store.catalog.images.get({id_ for pair in pairs for id_ in pair}))
    with ThumbnailCache(store.folder, write=False) as cache:
        thumbnails = cache.get(image.hash for image in images.values())
    inputs = {
        id_: build_verify_input(image, thumbnails[image.hash]) for id_, image in images.items()
    }
    return [(inputs[first], inputs[second]) for first, second in pairs]


def make_copied_pairs(paths: Sequence[Path], seed: int) -> list[InputPair]:
    """Pair images with their copies in 40 ways; the next image is the background of copies."""
    images = [open_upright(path) for path in paths]
    pairs = []
    for path, image, background in zip(paths, images, images[1:] + images[:1], strict=True):
        original = _make_input(image, path.name)
        for kind, edit in (EVERYDAY_EDITS | HARD_EDITS).items():
            name = f"{seed} {path.name} {kind}"
            copy = edit(image, background, random.Random(name))
            pairs.append((original, _make_input(copy, name)))
    return pairs


def _make_input(image: Image.Image, name: str) -> VerifyInput:
    thumbnail = image.copy()
    thumbnail.thumbnail((VERIFY_INPUT.size, VERIFY_INPUT.size), Image.Resampling.BICUBIC)
    jpeg = encode_thumbnail(np.asarray(thumbnail))
    return VerifyInput(name.encode(), jpeg, extract_from_thumbnail(jpeg), image.size)


def compare_revisions(revision: str, pairs: dict[str, list[InputPair]]) -> str:
    """Time a git revision and this code in turn; format a table of the medians.

    A ratio is that of two runs which followed each other.
    """
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True)
    if archive.returncode:
        raise SystemExit(archive.stderr.decode())
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(scratch, filter="data")
        rounds = [
            [_time_pairs(folder, pairs) for folder in (Path(scratch), ROOT)] for _ in range(ROUNDS)
        ]
    rows: list[list[object]] = []
    for kind, inputs in pairs.items():
        seconds = [[costs[kind][0] for costs in both] for both in rounds]
        ms = [1000 * statistics.median(runs) / len(inputs) for runs in zip(*seconds, strict=True)]
        ratio = statistics.median(old / new for old, new in seconds)
        rows.append([kind, len(inputs), *ms, ratio, *(costs[kind][1] for costs in rounds[0])])
    header = ["pairs", "number", "ms before", "ms now", "ratio", "copies before", "copies now"]
    return format_table(header, rows)


def _time_pairs(folder: Path, pairs: dict[str, list[InputPair]]) -> Costs:
    """Verify pairs in a child process by the code in a folder."""
    # As plain tuples, which any revision can read.
    request = {kind: [[tuple(image) for image in pair] for pair in pairs[kind]] for kind in pairs}
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "time_verify.py")],
        input=pickle.dumps(request),
        env=os.environ | threads | {"PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        check=True,
    )
    costs: Costs = json.loads(run.stdout)
    return costs

"""A HEIF decoder for workers that crashes, hangs or sends nonsense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from indexes.records import FileStat
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import Preprocess
from pipeline.scan import SourceFile

PREPROCESS = Preprocess(64)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100


# Stands in for the HEIF decoder inside the workers; {} is the statement that a HEIC file runs.
FAKE_HEIF_DECODER = """
import os, signal, sys, time
from PIL import Image
def accept(head): return head[4:8] == b"ftyp"
def open_file(file, name=None):
    {}
def register_heif_opener(thumbnails): Image.register_open("HEIF", open_file, accept)
"""


VALID_ANSWER = {
    "width": 40,
    "height": 30,
    "format": "HEIF",
    "pixel_hash": "5a" * 32,
    "is_featureless": False,
    "flags": [],
    "metadata_kinds": ["camera", "date"],
    "metadata": {"capture": {"make": "Canon"}},
    "taken_at": 1564835696,
    "shape": [64, 64],
    "thumbnail_shape": None,
}


def send(answer: str) -> str:
    """Return the statement with which a worker sends an answer and hangs."""
    resize = "os.ftruncate(int(sys.argv[2]), 64 * 64 * 3)"
    line = f"{answer.encode()!r} + bytes([10])"
    return f"{resize}; os.write(int(sys.argv[1]), {line}); time.sleep(30)"


def send_json(**changes: object) -> str:
    """Return the statement with which a worker sends a valid answer but for `changes`."""
    return send(json.dumps(VALID_ANSWER | changes))


def source(path: Path) -> SourceFile:
    return SourceFile(str(path), FileStat(path.stat().st_size, 0, 0, 0, 0))


def fake_heif_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str) -> Path:
    """Make workers that start from now on run a statement for a HEIC; return their module.

    This process keeps its own decoder.
    """
    module = tmp_path / "modules" / "pillow_heif.py"
    module.parent.mkdir()
    module.write_text(FAKE_HEIF_DECODER.replace("{}", statement))
    monkeypatch.syspath_prepend(module.parent)
    return module


def start_all(decoders: DecoderPool) -> list[int]:
    """Start all workers and return the ids of their processes."""
    workers = decoders._workers.workers
    for worker in workers:
        worker.start()
    return [worker.pid or 0 for worker in workers]

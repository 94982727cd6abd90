"""Pictures drawn by code: scenes, and what happens to them."""

from __future__ import annotations

import io
import os
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from indexes import Space, Store
from indexes.catalog import schema
from indexes.records import FileStat, NewFile
from indexes.records import Image as StoredImage
from indexes.store import Batch
from pipeline.decode.decode import Decoded, decode
from pipeline.decode.preprocess import Preprocess
from pipeline.scan import SourceFile

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # for the tests that import onnxruntime themselves

DATA_FOLDER = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA_FOLDER.is_dir(), reason="the folder of real pictures is not here")

PREPROCESS = Preprocess(64)
SPACE = Space("test", "test", "0" * 64, "none", 16, -1.0, 0.9)


def draw_scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A picture of shapes on a graded ground; another seed is another scene."""
    rng = random.Random(seed)
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    low, high = (np.array([rng.randrange(40, 220) for _ in range(3)]) for _ in range(2))
    slope = (x * rng.random() + y * rng.random())[..., None] / 2
    picture = Image.fromarray((low + (high - low) * slope).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.randrange(6, 14)):
        colour = tuple(rng.randrange(256) for _ in range(3))
        left, top = rng.uniform(-0.1, 0.9) * width, rng.uniform(-0.1, 0.9) * height
        box = (left, top, left + rng.uniform(0.05, 0.5) * width, top + rng.uniform(0.05, 0.5) * height)
        rng.choice([draw.ellipse, draw.rectangle])(box, fill=colour)
        draw.line([rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0, height)], fill=colour, width=3)
    return picture


def draw_textured_image(seed: int, size: tuple[int, int] = (480, 320)) -> Image.Image:
    """A picture with something to see at every size, as a photo has; another seed is another one."""
    rng, (width, height) = np.random.default_rng(seed), size
    shown = np.zeros((height, width, 3))
    for across in (3, 6, 12, 24, 48, 96):
        down = max(2, across * height // width)
        for channels in (3, 1):
            grain = rng.normal(0, 1 if channels == 3 else 2, (down, across, channels)) / across**0.55
            for channel in range(3):
                shown[..., channel] += np.asarray(
                    Image.fromarray(grain[..., channel % channels].astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
                )
    low, high = shown.min(), shown.max()
    return Image.fromarray(((shown - low) / (high - low) * 255).astype(np.uint8))


def encode_jpeg(image: Image.Image, quality: int = 90, **options: Any) -> bytes:
    """The picture's bytes as a JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


def save_image(path: Path, image: Image.Image, **options: Any) -> Path:
    """`path`, after the picture was saved there, its folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def make_source_file(path: Path) -> SourceFile:
    """A file as a scan would give it, but for its stat."""
    return SourceFile(str(path), FileStat(0, 0, 0, 0, 0))


def decode_file(path: Path, preprocess: Preprocess = PREPROCESS) -> Decoded:
    """What a file shows; there must be something."""
    decoded = decode(make_source_file(path), preprocess)
    assert isinstance(decoded, Decoded), decoded
    return decoded


def measure_difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Mean difference in grey levels."""
    return float(np.abs(first.astype(np.float64) - second).mean())


def resize_with_pillow(image: Image.Image, preprocess: Preprocess = PREPROCESS) -> NDArray[np.uint8]:
    """The picture at a view, by Pillow alone."""
    return np.asarray(image.convert("RGB").resize((preprocess.size, preprocess.size), Image.Resampling.BICUBIC))


def make_unit_rows(seed: int, count: int, dim: int = SPACE.dim) -> NDArray[np.float32]:
    """Rows of length 1 in a few tight clusters, some of them equal, as a library with copies has them."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, count // 4), dim))
    made = centres[rng.integers(len(centres), size=count)] + rng.choice([0.0, 0.02, 0.3], size=(count, 1)) * rng.standard_normal(
        (count, dim)
    )
    rows_of_length_1: NDArray[np.float32] = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return rows_of_length_1


def make_hash(number: int) -> bytes:
    """The hash of test image `number`."""
    return number.to_bytes(32, "big")


def make_batch(numbers: list[int], rows: NDArray[np.float32]) -> Batch:
    """A batch of images without pixels, number n with row rows[n], one file each."""
    hashes = [make_hash(number) for number in numbers]
    stats = [FileStat(1, number, number, number, 1) for number in numbers]
    return Batch(
        images=[(StoredImage(make_hash(n), make_hash(n), 10, 10, "PNG", 1, False), rows[n]) for n in numbers],
        files=[NewFile(f"/p/{number}", stat, hash_) for number, stat, hash_ in zip(numbers, stats, hashes, strict=True)],
    )


def downgrade_store(folder: Path) -> None:
    """Bring a store of one segment, in which each image has a vector of its own, to the first format that there was."""
    with closing(sqlite3.connect(folder / "catalog.db")) as newest, closing(sqlite3.connect(folder / "older.db")) as older:
        schema.SCHEMA_MIGRATIONS[0](older)
        newest.row_factory = sqlite3.Row
        for row in newest.execute("SELECT id, blake3, rows, size FROM segments"):
            older.execute("INSERT INTO segments VALUES (?, ?, ?, ?)", tuple(row))
        segment = older.execute("SELECT id FROM segments").fetchone()[0]
        for row in newest.execute("SELECT id, hash, pixel_hash, width, height, format, size, featureless FROM images"):
            older.execute("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, segment))
        for table in ("space", "roots", "files", "failures", "runs"):
            for row in newest.execute(f"SELECT * FROM {table}"):
                older.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", tuple(row))
        application = newest.execute("PRAGMA application_id").fetchone()[0]
        older.execute(f"PRAGMA application_id = {application}")
        older.execute("PRAGMA user_version = 1")
        older.commit()
    (folder / "catalog.seal").unlink()
    (folder / "older.db").replace(folder / "catalog.db")


@contextmanager
def serve_http(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Answer on a port of this machine meanwhile; the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store, bound to SPACE, open for writing."""
    with Store(tmp_path / "store", write=True) as opened:
        opened.bind(SPACE, "test")
        yield opened


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """As six_files() makes it."""
    return make_six_files(tmp_path / "photos")


def make_six_files(folder: Path) -> Path:
    """A folder of six files: a scene, its re-encoded, smaller and byte-identical copies, and two other scenes."""
    original = draw_scene(1, (640, 480))
    save_image(folder / "a.png", original)
    save_image(folder / "a small.jpg", original.resize((400, 300)), quality=85)
    save_image(folder / "sub" / "a.jpg", original, quality=70)
    (folder / "sub" / "a copy.png").write_bytes((folder / "a.png").read_bytes())
    save_image(folder / "b.jpg", draw_scene(2, (640, 480)))
    save_image(folder / "c.webp", draw_scene(3, (640, 480)))
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process with a store of its own: (exit code, stdout, stderr)."""
    from click.testing import CliRunner

    from pipeline.cli.main import main

    monkeypatch.setenv("NEARDUP_STORE", str(tmp_path / "library"))

    def ran(*words: str | os.PathLike[str], stdin: bytes | None = None) -> tuple[int, str, str]:
        result = CliRunner().invoke(main, [os.fspath(word) for word in words], input=stdin)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return ran

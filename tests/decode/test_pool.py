"""The life of a decoder pool: start, order, limits, close."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from indexes import Root, Store
from pipeline.decode.decode import Decoded, decode_source
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import Preprocess
from pipeline.decode.read import AlreadyStored
from pipeline.errors import DecoderStartFailed
from pipeline.scan import SourceFile
from tests.support.decoders import (
    PREPROCESS,
    fake_heif_decoder,
    source,
    start_all,
)
from tests.support.images import draw_scene, save_image


def count_running(decoders: DecoderPool) -> int:
    return sum(worker.pid is not None for worker in decoders._workers.workers)


def wait_for_exit(pidfd: int) -> bool:
    """Wait up to a minute; tell if the process ended."""
    try:
        return bool(select.select([pidfd], [], [], 60)[0])
    finally:
        os.close(pidfd)


@pytest.mark.parametrize(
    "preprocess", [PREPROCESS, Preprocess(64, "longest"), Preprocess(64, "within")]
)
def test_worker_decodes_to_same_image_as_this_process(
    tmp_path: Path, decoders: DecoderPool, preprocess: Preprocess
) -> None:
    paths = [
        save_image(tmp_path / f"{suffix}.{suffix}", draw_scene(1))
        for suffix in ("jpg", "png", "webp", "gif", "tiff", "bmp", "avif")
    ]
    pillow_heif.from_pillow(draw_scene(1)).save(tmp_path / "a.heic")
    paths.append(tmp_path / "a.heic")
    paths.append(save_image(tmp_path / "draft.jpg", draw_scene(2, (1600, 1200))))
    paths.append(
        save_image(tmp_path / "reduced.png", Image.fromarray(np.full((20, 30), 300, np.uint16)))
    )
    paths.append(save_image(tmp_path / "a.jp2", draw_scene(3, (1600, 1200))))
    paths.append(
        save_image(
            tmp_path / "animated.gif", draw_scene(1), save_all=True, append_images=[draw_scene(2)]
        )
    )
    (tmp_path / "cut.jpg").write_bytes(paths[0].read_bytes()[:-500])
    paths.append(tmp_path / "cut.jpg")
    (tmp_path / "broken.jpg").write_bytes(paths[0].read_bytes()[:3000])
    (tmp_path / "empty.jpg").touch()
    paths += [tmp_path / "broken.jpg", tmp_path / "empty.jpg"]
    for path, expected, result in zip(
        paths,
        [decode_source(source(path), preprocess) for path in paths],
        decoders.stream([source(path) for path in paths], preprocess),
        strict=True,
    ):
        if isinstance(expected, Decoded):
            assert isinstance(result, Decoded), path
            assert result.image == expected.image
            np.testing.assert_array_equal(result.pixels, expected.pixels)
        else:
            assert result == expected


def test_unwanted_content_starts_no_worker(tmp_path: Path, decoders: DecoderPool) -> None:
    path = save_image(tmp_path / "a.png", draw_scene(1))
    assert isinstance(decoders.decode(source(path), PREPROCESS, lambda hash_: False), AlreadyStored)
    assert count_running(decoders) == 0


def test_sequential_requests_start_one_worker(tmp_path: Path, decoders: DecoderPool) -> None:
    for number in range(4):
        assert isinstance(
            decoders.decode(
                source(save_image(tmp_path / f"{number}.png", draw_scene(number))), PREPROCESS
            ),
            Decoded,
        )
    assert count_running(decoders) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the cores of a process")
def test_pool_has_a_worker_for_each_usable_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 6})
    with DecoderPool() as decoders:
        assert len(decoders._workers.workers) == 3


def test_stream_keeps_order_and_prefetches_few_files(tmp_path: Path, decoders: DecoderPool) -> None:
    paths = [
        save_image(
            tmp_path / f"{number:02}.png", draw_scene(number, (40 + 300 * (number % 3 == 0), 50))
        )
        for number in range(40)
    ]
    requested = 0

    def sources() -> Iterator[SourceFile]:
        nonlocal requested
        for path in paths:
            requested += 1
            yield source(path)

    for number, result in enumerate(decoders.stream(sources(), PREPROCESS, prefetch=4)):
        assert result.source.path == str(paths[number])
        assert requested <= number + 1 + 4 + 3
    assert requested == 40


@pytest.mark.parametrize(
    "statement", ["import nothing_of_this_name", "os.kill(os.getpid(), signal.SIGKILL)"]
)
def test_worker_that_does_not_start_fails_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: Path, statement: str
) -> None:
    from pipeline import ingest_roots, load_embedder

    module = fake_heif_decoder(tmp_path, monkeypatch, "pass")
    module.write_text(f"import os, signal\n{statement}\n")
    message = (
        "exited with 1: ModuleNotFoundError: No module named 'nothing_of_this_name'; no image"
        if "import" in statement
        else "SIGKILL; no image"
    )
    with Store(tmp_path / "store", write=True) as store:
        with pytest.raises(DecoderStartFailed, match=message):
            list(ingest_roots([Root(str(photos))], store, load_embedder()))
        assert (
            store.catalog.files.get_counts().files,
            store.catalog.files.get_counts().images,
            list(store.catalog.files.list_failures()),
        ) == (0, 0, [])
        module.unlink()
        list(ingest_roots([Root(str(photos))], store, load_embedder()))
        assert store.catalog.files.get_counts().images == 5


def test_worker_that_sends_before_it_is_ready_did_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_image(tmp_path / "a.png", draw_scene(1))
    module = fake_heif_decoder(tmp_path, monkeypatch, "pass")
    module.write_text(
        "import os, sys, time\nos.write(int(sys.argv[1]), b'a\\nb\\n')\ntime.sleep(600)\n"
    )
    with (
        DecoderPool(1) as decoders,
        pytest.raises(DecoderStartFailed, match="sent something other"),
    ):
        decoders.decode(source(path), PREPROCESS)


@pytest.mark.parametrize("module", ["rawpy", "pillow_jxl"])
def test_broken_extra_fails_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    path = save_image(tmp_path / "a.png", draw_scene(1))
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{module}.py").write_text("raise ImportError('half installed')")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setattr("pipeline.decode.pool.EXTRA_INSTALLED", {"raw": True, "jxl": True})
    with (
        DecoderPool(1) as decoders,
        pytest.raises(DecoderStartFailed, match="ImportError: half installed"),
    ):
        decoders.decode(source(path), PREPROCESS)


@pytest.mark.parametrize("function", ["subprocess.Popen", "os.memfd_create", "socket.socketpair"])
def test_failed_start_leaves_no_descriptor_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EMFILE, "too many")

    path = source(save_image(tmp_path / "a.png", draw_scene(1)))
    with DecoderPool(1) as decoders, monkeypatch.context() as patch:
        patch.setattr(function, refuse)
        before = os.listdir("/proc/self/fd")  # noqa: PTH208
        with pytest.raises(DecoderStartFailed, match="did not start.*too many"):
            decoders.start(1)
        with pytest.raises(DecoderStartFailed, match="did not start.*too many"):
            decoders.decode(path, PREPROCESS)
        assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
        patch.undo()
        assert isinstance(decoders.decode(path, PREPROCESS), Decoded)


def test_start_does_not_wait_for_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is never ready is an error only for the first request."""
    module = fake_heif_decoder(tmp_path, monkeypatch, "pass")
    module.write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr("pipeline.workers.pool.SPAWN_TIMEOUT_SECONDS", 0.1)
    with DecoderPool(2) as decoders:
        decoders.start(2)
        with pytest.raises(DecoderStartFailed, match=r"not ready after 0\.1 seconds"):
            decoders.decode(source(save_image(tmp_path / "a.png", draw_scene(1))), PREPROCESS)


def test_killed_worker_is_replaced_and_its_file_retried(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png", draw_scene(1))
    with DecoderPool(1) as decoders:
        assert isinstance(
            decoders.decode(source(path), PREPROCESS), Decoded
        )  # ready; a worker that is killed before did not start
        (before,) = start_all(decoders)
        os.kill(before, signal.SIGKILL)
        assert isinstance(decoders.decode(source(path), PREPROCESS), Decoded)
        assert start_all(decoders) != [before]


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    code = (
        "import time; from pipeline.decode.pool import DecoderPool\n"
        "decoders = DecoderPool(2)\n"
        "decoders.start(2)\n"
        "print(*[worker.pid for worker in decoders._workers.workers], flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        pidfds = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(pidfds) == 2
    assert all([wait_for_exit(pidfd) for pidfd in pidfds])


@pytest.fixture
def busy_fifo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A FIFO that can be read once a worker is busy with a HEIC, for ten minutes."""
    busy = tmp_path / "busy"
    os.mkfifo(busy)
    fake_heif_decoder(
        tmp_path,
        monkeypatch,
        f"os.write(int(sys.argv[1]), b'{{'); open({str(busy)!r}, 'w').close(); time.sleep(600)",
    )
    return busy


def test_close_ends_busy_workers(heic: Path, busy_fifo: Path) -> None:
    with ThreadPoolExecutor() as pool, DecoderPool(2, max_seconds=600) as opened:
        pidfds = [os.pidfd_open(pid) for pid in start_all(opened)]
        future = pool.submit(opened.decode, source(heic), PREPROCESS)
        busy_fifo.read_bytes()  # one of them is busy
        opened.close()
        with pytest.raises(
            RuntimeError, match="closed"
        ):  # no second worker was started for its file
            future.result()
        assert all([wait_for_exit(pidfd) for pidfd in pidfds])
        assert count_running(opened) == 0


def test_stream_closed_early_ends_busy_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heic: Path, busy_fifo: Path
) -> None:
    started: list[int] = []
    popen = subprocess.Popen

    def record(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        process = popen(*args, **kwargs)
        started.append(process.pid)
        return process

    monkeypatch.setattr(subprocess, "Popen", record)
    with DecoderPool(2, max_seconds=20) as decoders:
        pidfds = [os.pidfd_open(pid) for pid in start_all(decoders)]
        stream = decoders.stream(
            [source(save_image(tmp_path / "a.png", draw_scene(1))), *[source(heic)] * 9], PREPROCESS
        )
        assert isinstance(next(stream), Decoded)
        busy_fifo.read_bytes()  # one of them is busy
        stream.close()
        assert len(started) == 2  # none to retry the file
        assert all([wait_for_exit(pidfd) for pidfd in pidfds])


def test_large_images_are_decoded_one_at_a_time(tmp_path: Path, decoders: DecoderPool) -> None:
    large = save_image(tmp_path / "large.png", Image.new("L", (5000, 4000)))
    small = save_image(tmp_path / "small.png", draw_scene(1))
    done: list[str] = []

    def decode_path(path: Path) -> None:
        assert isinstance(decoders.decode(source(path), PREPROCESS), Decoded)
        done.append(path.name)

    threads = [threading.Thread(target=decode_path, args=(path,)) for path in (large, small)]
    fcntl.lockf(decoders._large_image_lock_fd, fcntl.LOCK_EX)
    for thread in threads:
        thread.start()
    threads[1].join()
    assert done == ["small.png"]
    fcntl.lockf(decoders._large_image_lock_fd, fcntl.LOCK_UN)
    threads[0].join()
    assert done == ["small.png", "large.png"]


def test_worker_imports_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "trap"
    path = save_image(trap / "a.png", draw_scene(1))
    for name in ("json.py", "numpy.py", "PIL.py", "blake3.py"):
        (trap / name).write_text("raise SystemExit(1)")
    monkeypatch.setattr(sys, "path", [entry or os.getcwd() for entry in sys.path])  # noqa: PTH109
    monkeypatch.chdir(trap)
    with DecoderPool(1) as decoders:
        assert isinstance(decoders.decode(source(path), PREPROCESS), Decoded)

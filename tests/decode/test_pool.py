from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from indexes import Root, Store
from indexes.records import FileStat
from pipeline.decode.decode import Decoded, decode
from pipeline.decode.formats import REJECTION_REASONS
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import Preprocess
from pipeline.decode.read import AlreadyStored, Failure
from pipeline.errors import DecoderStartFailed
from pipeline.scan import SourceFile
from tests.support.images import DATA_FOLDER, draw_scene, needs_data, save_image

VIEW = Preprocess(64)
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100
# Stands in for the HEIF decoder inside the processes: {} is what it does with a file.
BUGGY = """
import os, signal, sys, time
from PIL import Image
def told(head): return head[4:8] == b"ftyp"
def opened(file, name=None):
    {}
def register_heif_opener(thumbnails): Image.register_open("HEIF", opened, told)
"""


SOUND = {
    "width": 40,
    "height": 30,
    "format": "HEIF",
    "pixel_hash": "",
    "is_featureless": False,
    "flags": [],
    "shape": [64, 64],
}
SOUND |= {"metadata": ["camera", "date"], "taken_at": 1564835696}


def says(answer: str) -> str:
    """What makes a process answer, when it is asked, and hang."""
    shown = "os.ftruncate(int(sys.argv[2]), 64 * 64 * 3)"
    return f"{shown}; os.write(int(sys.argv[1]), {answer.encode()!r} + bytes([10])); time.sleep(30)"


def source(path: Path) -> SourceFile:
    return SourceFile(str(path), FileStat(path.stat().st_size, 0, 0, 0, 0))


@pytest.fixture
def heic(tmp_path: Path) -> Path:
    path = tmp_path / "a.heic"
    path.write_bytes(HEIC)
    return path


@pytest.fixture
def decoders() -> Iterator[DecoderPool]:
    with DecoderPool(2) as opened:
        yield opened


def buggy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    """Processes that are started from now on have a HEIF decoder that `does` something; this process keeps its own."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "pillow_heif.py").write_text(BUGGY.replace("{}", does))
    monkeypatch.syspath_prepend(tmp_path / "modules")


def processes(decoders: DecoderPool) -> list[int]:
    decoders.start(len(decoders._workers.workers))
    for worker in decoders._workers.workers:
        worker.start()
    return [worker.pid or 0 for worker in decoders._workers.workers]


def ended(pidfd: int) -> bool:
    """Whether a process ends within a minute."""
    try:
        return bool(select.select([pidfd], [], [], 60)[0])
    finally:
        os.close(pidfd)


@pytest.mark.parametrize("view", [VIEW, Preprocess(64, "longest"), Preprocess(64, "within")])
def test_a_process_shows_what_this_one_does(
    tmp_path: Path, decoders: DecoderPool, view: Preprocess
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
            tmp_path / "moving.gif", draw_scene(1), save_all=True, append_images=[draw_scene(2)]
        )
    )
    (tmp_path / "cut.jpg").write_bytes(paths[0].read_bytes()[:-500])
    paths.append(tmp_path / "cut.jpg")
    (tmp_path / "broken.jpg").write_bytes(paths[0].read_bytes()[:3000])
    (tmp_path / "empty.jpg").touch()
    paths += [tmp_path / "broken.jpg", tmp_path / "empty.jpg"]
    for path, here, there in zip(
        paths,
        [decode(source(path), view) for path in paths],
        decoders.stream([source(path) for path in paths], view),
        strict=True,
    ):
        if isinstance(here, Decoded):
            assert isinstance(there, Decoded), path
            assert there.image == here.image
            np.testing.assert_array_equal(there.pixels, here.pixels)
        else:
            assert there == here


def test_known_content_never_comes_to_a_process(tmp_path: Path, decoders: DecoderPool) -> None:
    path = save_image(tmp_path / "a.png", draw_scene(1))
    assert isinstance(decoders.decode(source(path), VIEW, lambda hash_: False), AlreadyStored)
    assert not any(worker.pid for worker in decoders._workers.workers)


def test_who_asks_one_thing_at_a_time_starts_one_process(
    tmp_path: Path, decoders: DecoderPool
) -> None:
    for number in range(4):
        assert isinstance(
            decoders.decode(
                source(save_image(tmp_path / f"{number}.png", draw_scene(number))), VIEW
            ),
            Decoded,
        )
    assert sum(worker.pid is not None for worker in decoders._workers.workers) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_there_is_a_process_for_each_core_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 6})
    with DecoderPool() as decoders:
        assert len(decoders._workers.workers) == 3


def test_results_keep_their_order_and_few_are_made_ahead(
    tmp_path: Path, decoders: DecoderPool
) -> None:
    paths = [
        save_image(
            tmp_path / f"{number:02}.png", draw_scene(number, (40 + 300 * (number % 3 == 0), 50))
        )
        for number in range(40)
    ]
    taken = 0

    def sources() -> Iterator[SourceFile]:
        nonlocal taken
        for path in paths:
            taken += 1
            yield source(path)

    for number, result in enumerate(decoders.stream(sources(), VIEW, prefetch=4)):
        assert result.source.path == str(paths[number])
        assert taken <= number + 1 + 4 + 3
    assert taken == 40


@pytest.mark.parametrize(
    ("does", "detail"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the decoder was killed by SIGSEGV, 2 times"),
        ("os._exit(3)", "the decoder exited with 3, 2 times"),
        (says("no"), "the decoder sent no valid answer, 2 times"),
        (says("{}"), "the decoder sent no valid answer, 2 times"),
        (says("[]"), "the decoder sent no valid answer, 2 times"),
        (says("x" * 70_000), "the decoder sent no valid answer, 2 times"),
        (says("[" * 60_000), "the decoder sent no valid answer, 2 times"),
        (
            says(json.dumps(SOUND) + "\n" + json.dumps(SOUND)),
            "the decoder sent no valid answer, 2 times",
        ),
        (says(json.dumps(SOUND | {"width": 10**400})), "the decoder sent no valid answer, 2 times"),
        (
            says(json.dumps(SOUND | {"height": 1 << 31})),
            "the decoder sent no valid answer, 2 times",
        ),
        (
            says(json.dumps(SOUND | {"shape": [64, 1 << 40]})),
            "the decoder sent no valid answer, 2 times",
        ),
        (
            says(json.dumps(SOUND | {"format": "\udc80"})),
            "the decoder sent no valid answer, 2 times",
        ),
        (
            says(json.dumps(SOUND | {"format": "P" * 21})),
            "the decoder sent no valid answer, 2 times",
        ),
        (
            says(json.dumps(SOUND | {"flags": ["damaged"] * 2})),
            "the decoder sent no valid answer, 2 times",
        ),
        (
            says(json.dumps(SOUND | {"metadata": ["date", "camera"]})),
            "the decoder sent no valid answer, 2 times",
        ),
        (
            says(json.dumps(SOUND | {"metadata": ["date; DROP TABLE images"]})),
            "the decoder sent no valid answer, 2 times",
        ),
        (says(json.dumps(SOUND | {"taken_at": 2.5})), "the decoder sent no valid answer, 2 times"),
        (
            says(json.dumps(SOUND | {"taken_at": 1 << 62})),
            "the decoder sent no valid answer, 2 times",
        ),
        (
            says(json.dumps({"reason": "unreadable", "detail": ""})),
            "the decoder sent no valid answer, 2 times",
        ),
        (
            says(json.dumps({"reason": "\udc80", "detail": ""})),
            "the decoder sent no valid answer, 2 times",
        ),
        (
            says(json.dumps({"reason": "damaged", "detail": 1})),
            "the decoder sent no valid answer, 2 times",
        ),
        ("os.close(int(sys.argv[1])); os._exit(4)", "the decoder exited with 4, 2 times"),
        ("time.sleep(30)", "the decoder took more than 2 seconds, 2 times"),
        ("while True: pass", "the decoder took more than 2 seconds, 2 times"),
    ],
)
def test_what_ends_its_decoder_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heic: Path, does: str, detail: str
) -> None:
    others = [save_image(tmp_path / f"{number}.png", draw_scene(number)) for number in range(6)]
    buggy(tmp_path, monkeypatch, does)
    with DecoderPool(2, max_seconds=2) as decoders:
        results = list(
            decoders.stream([source(path) for path in (*others[:3], heic, *others[3:], heic)], VIEW)
        )
    failed = [result for result in results if isinstance(result, Failure)]
    assert [(failure.source.path, failure.reason) for failure in failed] == [
        (str(heic), "poisoned")
    ] * 2
    assert {failure.detail for failure in failed} == {detail}
    assert sum(isinstance(result, Decoded) for result in results) == 6


def test_an_answer_that_could_be_so_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heic: Path
) -> None:
    """What the others above differ from."""
    buggy(tmp_path, monkeypatch, says(json.dumps(SOUND)))
    with DecoderPool(1) as decoders:
        decoded = decoders.decode(source(heic), VIEW)
    assert isinstance(decoded, Decoded)
    assert (decoded.image.width, decoded.image.height) == (40, 30)


def test_what_a_decoder_says_can_be_stored_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heic: Path
) -> None:
    buggy(
        tmp_path,
        monkeypatch,
        says(json.dumps({"reason": "damaged", "detail": "\udc80\x1b[2J\n\u202e" + "é" * 300})),
    )
    with DecoderPool(1) as decoders:
        failed = decoders.decode(source(heic), VIEW)
    assert isinstance(failed, Failure)
    assert (failed.reason, failed.detail) == ("damaged", "??[2J??" + "é" * 193)


def test_every_reason_that_is_given_is_believed() -> None:
    for module in ("image", "raw", "jxl", "memory"):
        text = (
            Path(__file__).parent.parent.parent / "pipeline" / "decode" / f"{module}.py"
        ).read_text()
        given = set(re.findall(r'(?:Rejected|NotRaw)\(\s*"([a-z ]+)",', text))
        assert given
        assert given <= REJECTION_REASONS


def test_half_an_answer_is_not_waited_for_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heic: Path
) -> None:
    buggy(
        tmp_path,
        monkeypatch,
        "signal.setitimer(signal.ITIMER_REAL, 0); os.write(int(sys.argv[1]), b'{'); time.sleep(600)",
    )
    monkeypatch.setattr("pipeline.decode.pool.REPLY_GRACE_SECONDS", 0.5)
    with DecoderPool(1, max_seconds=0.5) as decoders:
        failed = decoders.decode(source(heic), VIEW)
    assert isinstance(failed, Failure)
    assert (failed.reason, failed.detail) == (
        "poisoned",
        "the decoder took more than 0.5 seconds, 2 times",
    )


@pytest.mark.parametrize(
    "trouble", ["import nothing_of_this_name", "os.kill(os.getpid(), signal.SIGKILL)"]
)
def test_a_process_that_does_not_start_says_nothing_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: Path, trouble: str
) -> None:
    from pipeline import ingest_roots, load_embedder

    buggy(tmp_path, monkeypatch, "pass")
    (tmp_path / "modules" / "pillow_heif.py").write_text(f"import os, signal\n{trouble}\n")
    said = (
        "exited with 1: ModuleNotFoundError: No module named 'nothing_of_this_name'; no photo"
        if "import" in trouble
        else "SIGKILL; no photo"
    )
    with Store(tmp_path / "store", write=True) as store:
        with pytest.raises(DecoderStartFailed, match=said):
            list(ingest_roots([Root(str(photos))], store, load_embedder()))
        assert (
            store.catalog.files.get_counts().files,
            store.catalog.files.get_counts().images,
            list(store.catalog.files.list_failures()),
        ) == (0, 0, [])
        (tmp_path / "modules" / "pillow_heif.py").unlink()
        list(ingest_roots([Root(str(photos))], store, load_embedder()))
        assert store.catalog.files.get_counts().images == 5


def test_a_process_that_talks_before_it_is_ready_did_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_image(tmp_path / "a.png", draw_scene(1))
    buggy(tmp_path, monkeypatch, "pass")
    (tmp_path / "modules" / "pillow_heif.py").write_text(
        "import os, sys, time\nos.write(int(sys.argv[1]), b'a\\nb\\n')\ntime.sleep(600)\n"
    )
    with (
        DecoderPool(1) as decoders,
        pytest.raises(DecoderStartFailed, match="sent something other"),
    ):
        decoders.decode(source(path), VIEW)


@pytest.mark.parametrize("module", ["rawpy", "pillow_jxl"])
def test_an_extra_that_is_there_but_broken_says_nothing_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    path = save_image(tmp_path / "a.png", draw_scene(1))
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{module}.py").write_text("raise ImportError('half of it is there')")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setattr("pipeline.decode.pool.EXTRA_INSTALLED", {"raw": True, "jxl": True})
    with (
        DecoderPool(1) as decoders,
        pytest.raises(DecoderStartFailed, match="ImportError: half of it is there"),
    ):
        decoders.decode(source(path), VIEW)


@pytest.mark.parametrize("where", ["subprocess.Popen", "os.memfd_create", "socket.socketpair"])
def test_a_process_that_cannot_be_made_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def refused(*words: object, **given: object) -> None:
        raise OSError(errno.EMFILE, "too many")

    path = source(save_image(tmp_path / "a.png", draw_scene(1)))
    with DecoderPool(1) as decoders, monkeypatch.context() as here:
        here.setattr(where, refused)
        before = os.listdir("/proc/self/fd")  # noqa: PTH208
        with pytest.raises(DecoderStartFailed, match="did not start.*too many"):
            decoders.start(1)
        with pytest.raises(DecoderStartFailed, match="did not start.*too many"):
            decoders.decode(path, VIEW)
        assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
        here.undo()
        assert isinstance(decoders.decode(path, VIEW), Decoded)


def test_starting_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is never ready is no obstacle until it is asked."""
    buggy(tmp_path, monkeypatch, "pass")
    (tmp_path / "modules" / "pillow_heif.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr("pipeline.workers.pool.SPAWN_TIMEOUT_SECONDS", 0.1)
    with DecoderPool(2) as decoders:
        decoders.start(2)
        with pytest.raises(DecoderStartFailed, match=r"not ready after 0\.1 seconds"):
            decoders.decode(source(save_image(tmp_path / "a.png", draw_scene(1))), VIEW)


def test_a_file_gets_no_more_memory_than_its_limit(tmp_path: Path, decoders: DecoderPool) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.zeros((9990, 10_000), np.uint16)).save(path, compress_level=9)
    with DecoderPool(1, max_memory_bytes=200_000_000) as small:
        failed = small.decode(source(path), VIEW)
        assert isinstance(failed, Failure)
        assert failed.reason == "too much memory"
        assert isinstance(
            small.decode(source(save_image(tmp_path / "a.png", draw_scene(1))), VIEW), Decoded
        )
    assert isinstance(decoders.decode(source(path), VIEW), Decoded)


def test_a_process_that_was_killed_is_replaced_and_its_file_tried_again(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png", draw_scene(1))
    with DecoderPool(1) as decoders:
        assert isinstance(
            decoders.decode(source(path), VIEW), Decoded
        )  # one that is killed before it is ready did not start
        (before,) = processes(decoders)
        os.kill(before, signal.SIGKILL)
        assert isinstance(decoders.decode(source(path), VIEW), Decoded)
        assert processes(decoders) != [before]


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
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
        watched = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(watched) == 2
    assert all([ended(pidfd) for pidfd in watched])


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A FIFO that can be read when a process is busy with a HEIF, which takes it ten minutes and half an answer."""
    busy = tmp_path / "busy"
    os.mkfifo(busy)
    buggy(
        tmp_path,
        monkeypatch,
        f"os.write(int(sys.argv[1]), b'{{'); open({str(busy)!r}, 'w').close(); time.sleep(600)",
    )
    return busy


def test_closing_ends_what_runs(heic: Path, hanging: Path) -> None:
    with ThreadPoolExecutor() as pool, DecoderPool(2, max_seconds=600) as opened:
        watched = [os.pidfd_open(pid) for pid in processes(opened)]
        asked = pool.submit(opened.decode, source(heic), VIEW)
        hanging.read_bytes()  # one of them is busy
        opened.close()
        with pytest.raises(
            RuntimeError, match="closed"
        ):  # and no second process was started for its file
            asked.result()
        assert all([ended(pidfd) for pidfd in watched])
        assert not any(worker.pid for worker in opened._workers.workers)


def test_a_stream_that_is_closed_early_waits_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heic: Path, hanging: Path
) -> None:
    started: list[int] = []
    real = subprocess.Popen

    def noted(*words: Any, **given: Any) -> subprocess.Popen[bytes]:
        process = real(*words, **given)
        started.append(process.pid)
        return process

    monkeypatch.setattr(subprocess, "Popen", noted)
    with DecoderPool(2, max_seconds=20) as decoders:
        watched = [os.pidfd_open(pid) for pid in processes(decoders)]
        stream = decoders.stream(
            [source(save_image(tmp_path / "a.png", draw_scene(1))), *[source(heic)] * 9], VIEW
        )
        assert isinstance(next(stream), Decoded)
        hanging.read_bytes()  # one of them is busy
        stream.close()
        assert len(started) == 2  # none to try the file once more
        assert all([ended(pidfd) for pidfd in watched])


def test_large_pictures_are_decoded_one_at_a_time(tmp_path: Path, decoders: DecoderPool) -> None:
    large = save_image(tmp_path / "large.png", Image.new("L", (5000, 4000)))
    small = save_image(tmp_path / "small.png", draw_scene(1))
    done: list[str] = []

    def decoded(path: Path) -> None:
        assert isinstance(decoders.decode(source(path), VIEW), Decoded)
        done.append(path.name)

    threads = [threading.Thread(target=decoded, args=(path,)) for path in (large, small)]
    fcntl.lockf(decoders._large_image_lock_fd, fcntl.LOCK_EX)
    for thread in threads:
        thread.start()
    threads[1].join()
    assert done == ["small.png"]
    fcntl.lockf(decoders._large_image_lock_fd, fcntl.LOCK_UN)
    threads[0].join()
    assert done == ["small.png", "large.png"]


def test_nothing_is_imported_from_the_folder_it_runs_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "trap"
    path = save_image(trap / "a.png", draw_scene(1))
    for name in ("json.py", "numpy.py", "PIL.py", "blake3.py"):
        (trap / name).write_text("raise SystemExit(1)")
    monkeypatch.setattr(sys, "path", [entry or os.getcwd() for entry in sys.path])  # noqa: PTH109
    monkeypatch.chdir(trap)
    with DecoderPool(1) as decoders:
        assert isinstance(decoders.decode(source(path), VIEW), Decoded)


def test_five_thousand_mutated_pictures(tmp_path: Path, decoders: DecoderPool) -> None:
    """Seeded: flipped, cut and repeated bytes in every format decode or have a reason, and the processes live on."""
    rng = random.Random(2)
    sound = []
    for suffix in ("jpg", "png", "webp", "gif", "tiff", "bmp", "avif", "jp2"):
        sound.append(
            (suffix, save_image(tmp_path / f"sound.{suffix}", draw_scene(1, (96, 64))).read_bytes())
        )
    pillow_heif.from_pillow(draw_scene(1, (96, 64))).save(tmp_path / "sound.heic")
    sound.append(("heic", (tmp_path / "sound.heic").read_bytes()))
    (tmp_path / "mutated").mkdir()

    def sources() -> Iterator[SourceFile]:
        for number in range(5000):
            suffix, data = rng.choice(sound)
            mutated = bytearray(data)
            for _ in range(rng.randrange(1, 8)):
                at, length = rng.randrange(len(mutated)), rng.randrange(1, 40)
                match rng.randrange(3):
                    case 0:
                        mutated[at] = rng.randrange(256)
                    case 1 if len(mutated) > 80:
                        del mutated[at : at + length]
                    case _:
                        mutated[at:at] = mutated[at : at + length]
            path = tmp_path / "mutated" / f"{number}.{suffix}"
            path.write_bytes(mutated)
            yield source(path)

    before = processes(decoders)
    met = Counter(
        result.reason if isinstance(result, Failure) else type(result).__name__
        for result in decoders.stream(sources(), VIEW, prefetch=50)
    )
    assert sum(met.values()) == 5000
    assert met["Decoded"] > 1000
    assert min(met["damaged"], met["truncated"], met["no picture inside"]) > 10
    assert processes(decoders) == before


@needs_data
def test_hostile_files_all_have_a_status(decoders: DecoderPool) -> None:
    paths = sorted(path for path in (DATA_FOLDER / "hostile").rglob("*") if path.is_file())
    results = list(decoders.stream([source(path) for path in paths], VIEW, prefetch=8))
    assert [result.source.path for result in results] == [str(path) for path in paths]
    assert not [
        result for result in results if isinstance(result, Failure) and result.reason == "poisoned"
    ]

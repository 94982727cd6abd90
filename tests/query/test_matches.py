from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from indexes.records import FileStat
from pipeline import find_matches, load_embedder
from pipeline.decode.pool import DecoderPool
from pipeline.query import verification
from pipeline.thumbnails import Thumbnails
from pipeline.verify import inputs
from pipeline.verify.relation import Relation
from tests.support.images import draw_scene, save_image
from tests.support.ingest import make_store


def test_file_outside_the_library_matches_its_copies(photos: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shrunk_file = save_image(outside / "shrunk.jpg", draw_scene(1, (640, 480)).resize((320, 240)))
    equal_bytes_file = outside / "copy.webp"
    shutil.copy(photos / "c.webp", equal_bytes_file)
    equal_pixels_file = save_image(outside / "pixels.bmp", draw_scene(1, (640, 480)))
    unrelated_file = save_image(outside / "stranger.jpg", draw_scene(99))
    with make_store(tmp_path / "store", photos) as store:
        files = [shrunk_file, equal_bytes_file, equal_pixels_file, unrelated_file]
        answers = list(find_matches(map(str, files), store, load_embedder()))
    shrunk, equal_bytes, equal_pixels, unrelated = answers
    assert {match.file.path for match in shrunk.matches} == {
        str(photos / name) for name in ("a.png", "a small.jpg", "sub/a.jpg", "sub/a copy.png")
    }
    assert {match.relation for match in shrunk.matches} == {Relation.SAME_PICTURE}
    assert all(match.verdict and match.verdict.agreeing_share > 0.9 for match in shrunk.matches)
    scores = [match.score for match in shrunk.matches]
    assert scores == sorted(scores, reverse=True)
    assert [(match.file.path, match.relation, match.score) for match in equal_bytes.matches] == [
        (str(photos / "c.webp"), Relation.IDENTICAL_BYTES, 1.0)
    ]
    assert [match.relation for match in equal_pixels.matches] == [
        Relation.IDENTICAL_PIXELS,
        Relation.IDENTICAL_PIXELS,
        Relation.SAME_PICTURE,
        Relation.SAME_PICTURE,
    ]
    assert unrelated.matches == ()
    assert not any(answer.in_library for answer in answers)


def test_file_inside_the_library_never_matches_itself(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.link(photos / "b.jpg", photos / "b again.jpg")
    (tmp_path / "link.jpg").symlink_to(photos / "b.jpg")
    with make_store(tmp_path / "store", photos) as store:
        monkeypatch.chdir(photos)
        (a, b, link) = find_matches(
            ["a.png", "b.jpg", str(tmp_path / "link.jpg")], store, load_embedder()
        )
    assert a.in_library
    assert str(photos / "a.png") not in {match.file.path for match in a.matches}
    closest = a.matches[0]
    assert (Path(closest.file.path).name, closest.relation) == (
        "a copy.png",
        Relation.IDENTICAL_BYTES,
    )
    assert (b.in_library, b.matches) == (link.in_library, link.matches) == (True, ())


def test_file_with_a_reused_inode_is_another_file(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inodes and devices are reused; only a present file with the same content is the same."""
    copy = shutil.copy(photos / "b.jpg", tmp_path / "copy.jpg")
    new = save_image(tmp_path / "new.jpg", draw_scene(2, (640, 480)), quality=60)
    with make_store(tmp_path / "store", photos) as store:
        known = store.catalog.files.get_by_path(str(photos / "b.jpg"))
        assert known
        file_id = {"inode": known.stat.inode, "device": known.stat.device}
        monkeypatch.setattr(
            "pipeline.query.files.FileStat",
            SimpleNamespace(
                from_os_stat=lambda status: replace(FileStat.from_os_stat(status), **file_id)
            ),
        )
        store.mark_missing([known.id])
        same, other = find_matches([str(copy), str(new)], store, load_embedder())
        assert [(match.relation, match.file.is_missing) for match in same.matches] == [
            (Relation.IDENTICAL_BYTES, True)
        ]
        assert [match.relation for match in other.matches] == [Relation.SAME_PICTURE]
        store.mark_present({known.id: known.stat.device})
        same, other = find_matches([str(copy), str(new)], store, load_embedder())
        assert (same.in_library, other.in_library) == (True, False)
        assert [match.relation for match in other.matches] == [Relation.SAME_PICTURE]


def test_features_of_many_near_images_are_loaded_in_blocks(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        save_image(
            photos / f"near {number}.jpg",
            draw_scene(1, (640, 480)).resize((400 - 10 * number, 300)),
            quality=80,
        )
    new = str(save_image(tmp_path / "new.jpg", draw_scene(1, (640, 480)), quality=50))
    block_sizes: list[int] = []
    load_features = inputs.load_features

    def record_block(thumbnails: Thumbnails, image_ids: Sequence[int], *args: Any) -> object:
        block_sizes.append(len(image_ids))
        return load_features(thumbnails, image_ids, *args)

    with make_store(tmp_path / "store", photos) as store:
        (before,) = find_matches([new], store, load_embedder())
        assert len(before.matches) == 9
        monkeypatch.setattr(inputs, "load_features", record_block)
        monkeypatch.setattr(verification, "MAX_IMAGES_IN_MEMORY", 3)
        assert list(find_matches([new], store, load_embedder())) == [before]
    assert max(block_sizes) == 3


def test_query_of_known_files_loads_neither_model_nor_opencv(photos: Path, tmp_path: Path) -> None:
    """With its content in the store, by its bytes or by its path; the command line included."""
    shutil.copy(photos / "a.png", tmp_path / "card.png")
    make_store(tmp_path / "store", photos).close()
    code = (
        "import sys; from pathlib import Path; from indexes import Store\n"
        "import pipeline.report.matches, pipeline.query.freshness\n"
        "from pipeline import find_matches, load_embedder\n"
        "with Store(Path(sys.argv[1])) as store:\n"
        "    card, stored = find_matches(sys.argv[2:], store, load_embedder())\n"
        "assert len(card.matches) == 4, card\n"
        "assert stored.in_library, stored\n"
        "assert not {'onnxruntime', 'torch', 'cv2'} & set(sys.modules)\n"
    )
    files = [tmp_path / "card.png", photos / "b.jpg"]
    subprocess.run([sys.executable, "-c", code, tmp_path / "store", *files], check=True)


def test_query_of_known_files_starts_no_process_and_asks_the_model_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class UnusableEmbedder:
        def __getattr__(self, name: str) -> None:
            raise AssertionError(name)

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(args)

    card = tmp_path / "card.png"
    shutil.copy(photos / "a.png", card)
    embedder: Any = UnusableEmbedder()
    with make_store(tmp_path / "store", photos) as store:
        monkeypatch.setattr(subprocess, "Popen", refuse)
        known, inside = find_matches([str(card), str(photos / "b.jpg")], store, embedder)
    assert len(known.matches) == 4
    assert inside.in_library


def test_each_file_is_read_once_and_again_only_to_be_verified(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:500])
    shutil.copy(photos / "a.png", tmp_path / "copy.png")
    files = [
        str(save_image(tmp_path / "new.jpg", draw_scene(1))),
        str(tmp_path / "broken.jpg"),
        str(tmp_path / "copy.png"),
        str(photos / "b.jpg"),
    ]
    open_counts, real_open = Counter[str](), os.open

    def count_open(path: str, *args: int) -> int:
        open_counts[str(path)] += 1
        return real_open(path, *args)

    with make_store(tmp_path / "store", photos) as store:
        monkeypatch.setattr(os, "open", count_open)
        list(find_matches(files, store, load_embedder()))
    assert [open_counts[file] for file in files] == [2, 1, 1, 0]


def test_new_files_are_decoded_in_parallel_and_answered_in_order(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier, decoded = threading.Barrier(2, timeout=60), set[str]()
    decode = DecoderPool.decode

    def meet(*args: Any) -> object:
        path = args[1].path
        if path in new and path not in decoded:  # later, to verify, one may be decoded alone
            decoded.add(path)
            barrier.wait()
        return decode(*args)

    new = [
        str(
            save_image(
                tmp_path / f"{number}.jpg", draw_scene(1 + number, (640, 480)).resize((320, 240))
            )
        )
        for number in range(2)
    ]
    files = [new[0], str(photos / "c.webp"), new[1], str(tmp_path / "nothing.jpg")]
    with make_store(tmp_path / "store", photos) as store:
        monkeypatch.setattr(DecoderPool, "decode", meet)
        answers = list(find_matches(files, store, load_embedder()))
    assert [answer.file for answer in answers] == files
    assert [len(answer.matches) for answer in answers] == [4, 0, 1, 0]
    assert [answer.in_library for answer in answers] == [False, True, False, False]


def test_unusable_file_is_answered_with_a_reason(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:500])
    with make_store(tmp_path / "store", photos) as store:
        files = [
            str(tmp_path / "broken.jpg"),
            str(tmp_path / "nothing.jpg"),
            str(tmp_path),
            str(photos / "b.jpg"),
        ]
        answers = list(find_matches(files, store, load_embedder()))
    assert [answer.file for answer in answers] == files
    assert [answer.failure.reason if answer.failure else None for answer in answers] == [
        "truncated",
        "unreadable",
        "not a photo",
        None,
    ]


def test_score_is_the_same_before_and_after_a_file_is_stored(photos: Path, tmp_path: Path) -> None:
    new = save_image(tmp_path / "more" / "new.jpg", draw_scene(1, (640, 480)), quality=40)
    with make_store(tmp_path / "store", photos) as store:
        (before,) = find_matches([str(new)], store, load_embedder())
    with make_store(tmp_path / "store", photos, new.parent) as store:
        (after,) = find_matches([str(new)], store, load_embedder())
    assert [match.file.path for match in before.matches] == [
        match.file.path for match in after.matches
    ]
    assert [match.score for match in before.matches] == pytest.approx(
        [match.score for match in after.matches], abs=2e-6
    )
    assert len(before.matches) == 4

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from indexes import Root, Store
from indexes.records import FileStat, NewFile
from indexes.records import Image as StoredImage
from indexes.store import Batch
from pipeline import compare, find_groups, find_matches, ingest_roots, load_embedder
from pipeline import thumbnails as pictures
from pipeline.decode.pool import DecoderPool
from pipeline.grouping.cluster import Edge, Group
from pipeline.query import groups as query
from pipeline.query import matches as ask
from pipeline.query.freshness import format_stale_warning, refresh_status
from pipeline.scan import SourceFile, to_file_stat
from pipeline.verify import inputs
from pipeline.verify.relation import Relation
from tests.support.images import (
    DATA_FOLDER,
    draw_scene,
    draw_textured_image,
    needs_data,
    save_image,
)
from tests.support.stores import SPACE, make_hash


def filled(folder: Path, *roots: Path) -> Store:
    store = Store(folder, write=True)
    for _ in ingest_roots([Root(str(root)) for root in roots], store, load_embedder()):
        pass
    return store


def test_a_file_from_outside(photos: Path, tmp_path: Path) -> None:
    outside = save_image(
        tmp_path / "outside" / "shrunk.jpg", draw_scene(1, (640, 480)).resize((320, 240))
    )
    copy = tmp_path / "outside" / "copy.webp"
    shutil.copy(photos / "c.webp", copy)
    pixels = save_image(tmp_path / "outside" / "pixels.bmp", draw_scene(1, (640, 480)))
    stranger = save_image(tmp_path / "outside" / "stranger.jpg", draw_scene(99))
    with filled(tmp_path / "store", photos) as store:
        files = [str(path) for path in (outside, copy, pixels, stranger)]
        shrunk, copied, same, none = find_matches(files, store, load_embedder())
    assert {match.file.path for match in shrunk.matches} == {
        str(photos / name) for name in ("a.png", "a small.jpg", "sub/a.jpg", "sub/a copy.png")
    }
    assert {match.relation for match in shrunk.matches} == {Relation.SAME_PICTURE}
    assert all(match.verdict and match.verdict.agreeing_share > 0.9 for match in shrunk.matches)
    scores = [match.score for match in shrunk.matches]
    assert scores == sorted(scores, reverse=True)
    assert [(match.file.path, match.relation, match.score) for match in copied.matches] == [
        (str(photos / "c.webp"), Relation.IDENTICAL_BYTES, 1.0)
    ]
    assert [match.relation for match in same.matches] == [
        Relation.IDENTICAL_PIXELS,
        Relation.IDENTICAL_PIXELS,
        Relation.SAME_PICTURE,
        Relation.SAME_PICTURE,
    ]
    assert none.matches == ()
    assert not any(answer.in_library for answer in (shrunk, copied, same, none))


def test_a_file_inside_never_matches_itself(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.link(photos / "b.jpg", photos / "b again.jpg")
    (tmp_path / "link.jpg").symlink_to(photos / "b.jpg")
    with filled(tmp_path / "store", photos) as store:
        monkeypatch.chdir(photos)
        (a, b, link) = find_matches(
            ["a.png", "b.jpg", str(tmp_path / "link.jpg")], store, load_embedder()
        )
    assert a.in_library
    assert str(photos / "a.png") not in {match.file.path for match in a.matches}
    assert [(os.path.basename(match.file.path), match.relation) for match in a.matches][0] == (
        "a copy.png",
        Relation.IDENTICAL_BYTES,
    )  # noqa: PTH119
    assert (b.in_library, b.matches) == (link.in_library, link.matches) == (True, ())


def test_a_file_with_the_numbers_of_one_that_is_away_is_another(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inodes and devices are given again; only the same content, where it is now, is the same file."""
    copy = shutil.copy(photos / "b.jpg", tmp_path / "copy.jpg")
    new = save_image(tmp_path / "new.jpg", draw_scene(2, (640, 480)), quality=60)
    with filled(tmp_path / "store", photos) as store:
        known = store.catalog.files.get_by_path(str(photos / "b.jpg"))
        assert known
        numbers = {"inode": known.stat.inode, "device": known.stat.device}
        monkeypatch.setattr(
            "pipeline.query.matches.to_file_stat",
            lambda status: replace(to_file_stat(status), **numbers),
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


def test_what_is_back_stays_marked_until_it_is_ingested(photos: Path, tmp_path: Path) -> None:
    """The keeper was chosen without it."""
    with filled(tmp_path / "store", photos) as store:
        before = [group.keeper for group in find_groups(store)]
        store.mark_missing(
            [
                known.id
                for known in store.catalog.files.find_under(str(photos))
                if known.path in {one.path for one in before}
            ]
        )
        found = find_groups(store, refresh_status=refresh_status)
        assert not {one.path for one in before} & {group.keeper.path for group in found}
        assert all(
            photo.is_missing == (photo.path in {one.path for one in before})
            for group in found
            for photo in group.files
        )
        assert format_stale_warning(photo for group in found for photo in group.files) is None
        photos.rename(tmp_path / "away")
        assert {
            photo.disk_status or photo.is_missing
            for group in find_groups(store, refresh_status=refresh_status)
            for photo in group.files
        } == {"gone", True}


def test_however_many_are_near_few_are_held(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        save_image(
            photos / f"near {number}.jpg",
            draw_scene(1, (640, 480)).resize((400 - 10 * number, 300)),
            quality=80,
        )
    new = str(save_image(tmp_path / "new.jpg", draw_scene(1, (640, 480)), quality=50))
    held: list[int] = []
    real = inputs.load_features

    def noted(loader: pictures.Thumbnails, images: Sequence[int], *rest: Any) -> object:
        held.append(len(images))
        return real(loader, images, *rest)

    with filled(tmp_path / "store", photos) as store:
        (before,) = find_matches([new], store, load_embedder())
        assert len(before.matches) == 9
        monkeypatch.setattr(inputs, "load_features", noted)
        monkeypatch.setattr(ask, "MAX_IMAGES_IN_MEMORY", 3)
        assert list(find_matches([new], store, load_embedder())) == [before]
    assert max(held) == 3


def test_of_two_crowds_each_is_compared_with_the_best_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures that the model cannot tell apart, which pixels cannot either: so many of them, but not so many pairs."""
    monkeypatch.setattr(query, "MAX_IMAGES_PER_VECTOR", 2)
    vectors = np.linalg.qr(np.random.default_rng(1).normal(size=(SPACE.dim, 2)))[0].T.astype(
        np.float32
    )
    rows = np.stack([vectors[0], 0.96 * vectors[0] + 0.28 * vectors[1]])
    with Store(tmp_path / "store", write=True) as store:
        store.bind(SPACE, "test")
        images = [
            (StoredImage(make_hash(n), make_hash(n), 100 + n, 10, "PNG", 1, False), rows[n % 2])
            for n in range(12)
        ]
        store.add(
            Batch(
                images,
                [
                    NewFile(f"/p/{n}", FileStat(1, 1, 1, n, 1), image.hash)
                    for n, (image, _) in enumerate(images)
                ],
            )
        )
        list(store.join())
        edges = [(edge.left, edge.right) for edge in _edges_of(store, monkeypatch)]
        assert len(edges) == len({frozenset(edge) for edge in edges})
        best = {make_hash(n) for n in (8, 9, 10, 11)}
        every = {
            frozenset((make_hash(one), make_hash(other)))
            for one, other in combinations(range(12), 2)
        }
        assert {frozenset(edge) for edge in edges} == {pair for pair in every if pair & best}
        (found,) = find_groups(store, relations=[Relation.SIMILAR])
        assert (found.keeper.path, len(found.members)) == ("/p/11", 11)


def _edges_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[Edge]:
    given: list[Edge] = []

    def noted(pictures: object, edges: list[Edge], *rest: Any) -> list[Group]:
        given.extend(edges)
        return []

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.query.groups.form_groups", noted)
        find_groups(store)
    return given


def test_a_known_content_loads_no_model(photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "a.png", tmp_path / "card.png")
    filled(tmp_path / "store", photos).close()
    code = (
        "import sys; from pathlib import Path; from indexes import Store; from pipeline import find_matches, load_embedder\n"
        "with Store(Path(sys.argv[1])) as store: answer, = find_matches([sys.argv[2]], store, load_embedder())\n"
        "assert len(answer.matches) == 4, answer\n"
        "assert not {'onnxruntime', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "store", tmp_path / "card.png"], check=True
    )


def test_a_known_content_starts_no_process_and_asks_nothing_of_its_model(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unloaded:
        def __getattr__(self, name: str) -> None:
            raise AssertionError(name)

    def refused(*words: object, **given: object) -> None:
        raise AssertionError(words)

    card = tmp_path / "card.png"
    shutil.copy(photos / "a.png", card)
    unloaded: Any = Unloaded()
    with filled(tmp_path / "store", photos) as store:
        monkeypatch.setattr(subprocess, "Popen", refused)
        known, inside = find_matches([str(card), str(photos / "b.jpg")], store, unloaded)
    assert len(known.matches) == 4
    assert inside.in_library


def test_a_file_is_read_once(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:500])
    shutil.copy(photos / "a.png", tmp_path / "copy.png")
    files = [
        str(save_image(tmp_path / "new.jpg", draw_scene(1))),
        str(tmp_path / "broken.jpg"),
        str(tmp_path / "copy.png"),
        str(photos / "b.jpg"),
    ]
    opened, real = Counter[str](), os.open

    def counted(path: str, *rest: int) -> int:
        opened[str(path)] += 1
        return real(path, *rest)

    with filled(tmp_path / "store", photos) as store:
        monkeypatch.setattr(os, "open", counted)
        list(find_matches(files, store, load_embedder()))
    assert [opened[file] for file in files] == [
        2,
        1,
        1,
        0,
    ]  # once more to be verified, where something is close


def test_new_files_are_decoded_side_by_side_and_answered_in_order(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, read = threading.Barrier(2, timeout=60), set[str]()
    real = DecoderPool.decode

    def met(*words: Any) -> object:
        path = words[1].path
        if path in new and path not in read:  # what is looked at again later may be one alone
            read.add(path)
            both.wait()
        return real(*words)

    new = [
        str(
            save_image(
                tmp_path / f"{number}.jpg", draw_scene(1 + number, (640, 480)).resize((320, 240))
            )
        )
        for number in range(2)
    ]
    files = [new[0], str(photos / "c.webp"), new[1], str(tmp_path / "nothing.jpg")]
    with filled(tmp_path / "store", photos) as store:
        monkeypatch.setattr(DecoderPool, "decode", met)
        answers = list(find_matches(files, store, load_embedder()))
    assert [answer.file for answer in answers] == files
    assert [len(answer.matches) for answer in answers] == [4, 0, 1, 0]
    assert [answer.in_library for answer in answers] == [False, True, False, False]


def test_no_snapshot_is_open_while_a_model_loads(photos: Path, tmp_path: Path) -> None:
    class Loading:
        """Loads its weights when it is asked for a view, and is asked for one at a time."""

        def __getattr__(self, name: str) -> object:
            if name == "preprocess":
                asked.append(store.catalog._db.in_transaction)
            return getattr(real, name)

    asked: list[bool] = []
    real, loading = load_embedder(), Loading()
    embedder: Any = loading
    new = [
        str(save_image(tmp_path / f"{number}.jpg", draw_scene(number, (320, 240))))
        for number in range(3)
    ]
    with filled(tmp_path / "store", photos) as store:
        list(find_matches(new, store, embedder))
    assert len(asked) >= 3
    assert not any(asked)


def test_an_image_that_an_ingest_lets_go_of_meanwhile_is_decoded(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(photos / "c.webp", tmp_path / "copy.webp")
    with filled(tmp_path / "store", photos) as store:
        real, told = store.catalog.images.get_ids, list[dict[bytes, int]]()

        def gone(hashes: Sequence[bytes]) -> dict[bytes, int]:
            told.append(real(hashes))
            return told[0] if len(told) == 1 else {}

        monkeypatch.setattr(store.catalog.images, "get_ids", gone)
        (answer,) = find_matches([str(tmp_path / "copy.webp")], store, load_embedder())
    assert len(told[0]) == 1
    assert len(told) >= 2
    assert [os.path.basename(match.file.path) for match in answer.matches] == ["c.webp"]  # noqa: PTH119


def test_bad_files_are_answers_with_a_reason(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:500])
    with filled(tmp_path / "store", photos) as store:
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


def test_groups_below_a_folder_and_against_all(photos: Path, tmp_path: Path) -> None:
    card = tmp_path / "card"
    save_image(card / "b small.jpg", draw_scene(2, (640, 480)).resize((500, 375)))
    with filled(tmp_path / "store", photos, card) as store:
        assert len(find_groups(store)) == 2
        assert find_groups(store, folders=[str(card)]) == []
        (touched,) = find_groups(store, folders=[str(card)], against_all=True)
        assert {touched.keeper.path, *(member.file.path for member in touched.members)} == {
            str(photos / "b.jpg"),
            str(card / "b small.jpg"),
        }
        (inside,) = find_groups(store, folders=[str(photos / "sub")])
        assert len(inside.members) == 1
        assert find_groups(store, folders=[str(photos) + "x"]) == []


@pytest.mark.parametrize("size", [(480, 416), (480, 240), (624, 320), (500, 420)])
def test_of_two_that_are_stretched_the_older_is_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    """Whichever has more pixels: it may have got them by being stretched. One that is larger along both sides is kept for that."""
    original = save_image(tmp_path / "photos" / "original.jpg", draw_textured_image(5), quality=85)
    stretched = save_image(
        tmp_path / "photos" / "copy.jpg", draw_textured_image(5).resize(size), quality=95
    )
    os.utime(original, (1_000_000_000, 1_000_000_000))
    with filled(tmp_path / "store", tmp_path / "photos") as store:
        (group,) = find_groups(store)
        larger = min(size[0] / 480, size[1] / 320) > 1.03
        assert (group.keeper.path, group.reason) == (
            (str(stretched), "most pixels") if larger else (str(original), "oldest")
        )


def test_every_member_is_at_the_threshold_to_its_keeper(photos: Path, tmp_path: Path) -> None:
    for number, width in enumerate(range(100, 640, 60)):
        save_image(
            photos / f"size{number}.jpg",
            draw_scene(1, (640, 480)).resize((width, width * 3 // 4)),
            quality=60,
        )
    files = sorted(os.fspath(file) for file in photos.rglob("*.*"))
    compared = compare(files, load_embedder()).scores
    scores = {
        (one, other): compared[row, column]
        for row, one in enumerate(files)
        for column, other in enumerate(files)
    }
    met = 0
    with filled(tmp_path / "store", photos) as store:
        for threshold in (0.6, 0.8, 0.9, 0.97, 1.0):
            for group in find_groups(store, threshold):
                for member in group.members:
                    assert member.score >= threshold
                    assert member.score == pytest.approx(
                        scores[group.keeper.path, member.file.path], abs=1e-5
                    )
                    met += 1
        assert met > 30


def test_compare_is_symmetric_and_needs_no_store(tmp_path: Path) -> None:
    files = [
        str(
            save_image(
                tmp_path / f"{number}.png", draw_scene(number // 2, (200 + 40 * number, 150))
            )
        )
        for number in range(4)
    ]
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    files.append(str(tmp_path / "broken.png"))
    comparison = compare(files, load_embedder())
    scores = comparison.scores[:4, :4]
    assert np.array_equal(scores, scores.T)
    assert (np.diag(scores) == 1.0).all()
    assert scores[0, 1] > 0.85 > scores[0, 2]
    assert np.isnan(comparison.scores[4]).all()
    assert [file for file, _ in comparison.list_failures()] == files[4:]
    assert comparison.get_relation(0, 1, 0.85) == Relation.DERIVED
    assert comparison.get_relation(0, 2, 0.85) == Relation.UNRELATED
    assert comparison.get_relation(0, 4, 0.85) is None


def test_compare_knows_the_sizes_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large ones are held one at a time."""
    files = [save_image(tmp_path / f"{number}.png", draw_scene(number)) for number in range(2)]
    sizes: dict[str, int] = {}
    real = DecoderPool.decode

    def noted(decoders: DecoderPool, source: SourceFile, *words: Any) -> object:
        sizes[source.path] = source.stat.size
        return real(decoders, source, *words)

    monkeypatch.setattr(DecoderPool, "decode", noted)
    compare([str(file) for file in files], load_embedder())
    assert sizes == {str(file): file.stat().st_size for file in files}


def test_flat_pictures_compare_too(tmp_path: Path) -> None:
    files = [
        str(save_image(tmp_path / f"{grey}.png", Image.new("RGB", (50, 50), (grey, grey, grey))))
        for grey in (0, 255)
    ]
    comparison = compare(files, load_embedder())
    assert np.isfinite(comparison.scores).all()
    assert (
        comparison.get_relation(0, 1, -1.0) == Relation.NOT_VERIFIABLE
    )  # as groups have it: only exact copies of what shows nothing


def test_a_score_is_the_same_before_and_after_a_file_is_stored(
    photos: Path, tmp_path: Path
) -> None:
    new = save_image(tmp_path / "more" / "new.jpg", draw_scene(1, (640, 480)), quality=40)
    with filled(tmp_path / "store", photos) as store:
        (before,) = find_matches([str(new)], store, load_embedder())
    with filled(tmp_path / "store", photos, new.parent) as store:
        (after,) = find_matches([str(new)], store, load_embedder())
    assert [match.file.path for match in before.matches] == [
        match.file.path for match in after.matches
    ]
    assert [match.score for match in before.matches] == pytest.approx(
        [match.score for match in after.matches], abs=2e-6
    )
    assert len(before.matches) == 4


@needs_data
def test_photos_of_different_things_make_no_groups(tmp_path: Path) -> None:
    with filled(tmp_path / "store", DATA_FOLDER / "photos") as store:
        assert find_groups(store) == []


@needs_data
@pytest.mark.parametrize(
    ("folder", "grouped", "files"),
    [("colour_modes_one_photo", 12, 12), ("forest_one_photo", 5, 5), ("office_three_shots", 0, 3)],
)
def test_real_pairs(tmp_path: Path, folder: str, grouped: int, files: int) -> None:
    with filled(tmp_path / "store", DATA_FOLDER / "pairs" / folder) as store:
        assert store.catalog.files.get_counts().files == files
        assert sum(1 + len(group.members) for group in find_groups(store)) == grouped

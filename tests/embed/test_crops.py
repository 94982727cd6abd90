"""Pictures within pictures: parts of large ones are compared with whole ones, whatever came first, and what is lost is made again."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes import Root, Store
from indexes.caches.crops import CropCache
from indexes.caches.thumbnails import ThumbnailCache
from indexes.records import FileStat, NewFile
from indexes.records import Image as StoredImage
from indexes.store import Batch
from indexes.vectors.segments import cosines
from pipeline import IngestOptions, find_groups, find_matches, ingest_roots, load_embedder
from pipeline import thumbnails as pictures
from pipeline.calibrate.synthetic_copies import HARD_EDITS
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import Preprocess
from pipeline.embed.crops import (
    FIVE_CROP,
    compute_crop_floor,
    load_comparable_images,
    make_crops,
    propose_pairs,
)
from pipeline.ingest.batch_writer import CropReport
from pipeline.thumbnails import ImageUnavailable
from pipeline.verify.relation import Relation
from tests.support.images import draw_scene, draw_textured_image, save_image, save_whole_and_part
from tests.support.stores import SPACE, make_hash

LARGE = (640, 480)


def garbled(path: Path) -> None:
    path.write_bytes(b"no database" * 400)


def groups(store: Store) -> list[set[str]]:
    return [
        {
            Path(photo.path).name
            for photo in (group.keeper, *(member.file for member in group.members))
        }
        for group in find_groups(store)
    ]


def ingested(store: Store, folder: Path, *, parts: bool = True) -> CropReport | None:
    *_, last = ingest_roots(
        [Root(str(folder))], store, load_embedder(), IngestOptions(with_crops=parts)
    )
    return last.coverage.crops


def test_a_small_part_is_found_whatever_the_whole_pictures_say(tmp_path: Path) -> None:
    whole, part = save_whole_and_part(tmp_path / "photos")
    with Store(tmp_path / "store", write=True) as store:
        assert ingested(store, tmp_path / "photos", parts=False) is None
        frontier = store.catalog.pairs.get_watermark()
        assert frontier
        assert not len(store.find_pairs(frontier.floor).left)  # or this would show nothing
        assert groups(store) == []
        assert ingested(store, tmp_path / "photos") == CropReport(2, 0)
        assert groups(store) == [{"whole.jpg", "part.jpg"}]
        ((match,),) = (
            answer.matches for answer in find_matches([str(part)], store, load_embedder())
        )
        assert (match.file.path, match.relation) == (str(whole), Relation.DERIVED)
        assert match.score < frontier.floor
        assert find_groups(store, frontier.floor) == []  # who names a threshold means it
        assert ingested(store, tmp_path / "photos") == CropReport(0, 0)  # nothing is new


@pytest.mark.parametrize("kind", ["crop 40 %", "collage", "laid over another", "screenshot"])
def test_a_file_that_is_new_is_asked_about_by_its_parts(tmp_path: Path, kind: str) -> None:
    made = HARD_EDITS[kind](
        draw_textured_image(1, LARGE), draw_textured_image(2, LARGE), random.Random(4)
    )
    asked = save_image(tmp_path / "asked.jpg", made, quality=92)
    save_image(tmp_path / "photos" / "whole.jpg", draw_textured_image(1, LARGE), quality=92)
    with Store(tmp_path / "store", write=True) as store:
        ingested(store, tmp_path / "photos")
        ((match,),) = (
            answer.matches for answer in find_matches([str(asked)], store, load_embedder())
        )
        assert match.relation == Relation.DERIVED


@pytest.mark.parametrize("first", ["whole.jpg", "part.jpg", "collage.jpg"])
def test_it_does_not_matter_what_came_first(tmp_path: Path, first: str) -> None:
    found = tmp_path / "photos"
    save_whole_and_part(tmp_path / "waiting")
    save_image(
        tmp_path / "waiting" / "collage.jpg",
        HARD_EDITS["collage"](
            draw_scene(1, LARGE), draw_textured_image(2, LARGE), random.Random(4)
        ),
        quality=92,
    )
    found.mkdir()
    (tmp_path / "waiting" / first).rename(found / first)
    with (
        Store(tmp_path / "store", write=True) as store,
        Store(tmp_path / "at once", write=True) as once,
    ):
        ingested(store, found)
        for path in sorted((tmp_path / "waiting").iterdir()):
            path.rename(found / path.name)
            ingested(store, found)
        ingested(once, found)
        evidence = [
            {
                (names[one.first], names[one.second]): (one.relation, one.record)
                for one in some.catalog.verdicts.stream()
            }
            for some in (store, once)
            for names in [
                {
                    id_: image.hash
                    for id_, image in some.catalog.images.get(some.catalog.images.list_in_use())
                }
            ]
        ]
        assert evidence[0] == evidence[1]
        assert groups(store) == groups(once) == [{"whole.jpg", "part.jpg", "collage.jpg"}]


def test_a_photo_that_comes_back_is_compared_with_what_came_meanwhile(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    whole, part = save_whole_and_part(photos)
    part.rename(tmp_path / "part.jpg")
    with Store(tmp_path / "store", write=True) as store:
        ingested(store, photos)
        whole.rename(tmp_path / "whole.jpg")
        (tmp_path / "part.jpg").rename(part)
        list(
            ingest_roots(
                [Root(str(photos))], store, load_embedder(), IngestOptions(accept_missing=True)
            )
        )
        assert list(store.catalog.verdicts.stream()) == []
        (tmp_path / "whole.jpg").rename(whole)
        ingested(store, photos)
        assert groups(store) == [{"whole.jpg", "part.jpg"}]


def test_a_part_that_was_away_is_looked_at_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    _, part = save_whole_and_part(photos)
    save_image(
        part, draw_scene(1, (200, 150)), quality=92
    )  # too small for parts of its own, which would make it new again
    content, real = blake3(part.read_bytes()).digest(), pictures.read_images

    def without(
        store: Store, decoders: DecoderPool, about: Mapping[int, StoredImage], view: Preprocess
    ) -> Iterator[tuple[int, Decoded | ImageUnavailable]]:
        there = {id_: image for id_, image in about.items() if image.hash != content}
        yield from ((id_, ImageUnavailable("away")) for id_ in about if id_ not in there)
        yield from real(store, decoders, there, view)

    with Store(tmp_path / "store", write=True) as store:
        ingested(store, photos, parts=False)
        monkeypatch.setattr(pictures, "read_images", without)
        ingested(store, photos)
        assert groups(store) == []
        monkeypatch.setattr(pictures, "read_images", real)
        ingested(store, photos)
        assert groups(store) == [{"whole.jpg", "part.jpg"}]


def test_a_store_that_began_anew_compares_anew(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    save_whole_and_part(photos)
    with Store(tmp_path / "store", write=True) as store:
        ingested(store, photos)
    with Store(tmp_path / "anew", write=True) as store:
        (store.folder / "caches").mkdir()
        for path in (tmp_path / "store" / "caches").iterdir():
            path.rename(store.folder / "caches" / path.name)
        ingested(store, photos)
        assert groups(store) == [{"whole.jpg", "part.jpg"}]


def test_parts_are_made_when_their_photo_is_back_and_again_when_they_are_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    save_whole_and_part(photos)
    with Store(tmp_path / "store", write=True) as store:
        real = pictures.read_images
        monkeypatch.setattr(
            pictures,
            "read_images",
            lambda store, decoders, about, view: ((id_, ImageUnavailable("away")) for id_ in about),
        )
        assert ingested(store, photos) == CropReport(0, 2)
        monkeypatch.setattr(pictures, "read_images", real)
        assert ingested(store, photos) == CropReport(2, 0)
        assert groups(store) == [{"whole.jpg", "part.jpg"}]
        for damage in (Path.unlink, garbled):
            for path in (tmp_path / "store" / "caches").glob("crops.db*"):
                (damage if path.suffix == ".db" else Path.unlink)(path)
            assert groups(store) == [{"whole.jpg", "part.jpg"}]
            list(
                find_matches(
                    [str(save_image(tmp_path / "new.jpg", draw_textured_image(3, LARGE)))],
                    store,
                    load_embedder(),
                )
            )
            save_image(
                photos / f"{len(list(photos.iterdir()))}.jpg",
                draw_textured_image(len(list(photos.iterdir())), LARGE),
            )
            told = ingested(store, photos)
            assert told == CropReport(len(list(photos.iterdir())), 0)


def test_parts_go_with_their_images_and_with_their_space(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    whole, _ = save_whole_and_part(photos)
    with Store(tmp_path / "store", write=True) as store:
        ingested(store, photos)
        assert store.space
        whole.unlink()
        ingested(store, photos)
        store.compact(full=True)
        with CropCache(store.folder, store.space, write=False) as parts:
            assert len(parts.list_hashes()) == 1
        with CropCache(store.folder, SPACE, write=False) as parts:
            assert (parts.has_compared_images, parts.list_hashes()) == (False, set())
        with CropCache(store.folder, SPACE, write=True) as parts:
            assert parts.list_hashes() == set()
        with CropCache(store.folder, store.space, write=True) as parts:
            assert (parts.has_compared_images, parts.list_hashes()) == (False, set())


def test_parts_are_halves_as_the_model_wants_them() -> None:
    shown = np.zeros((48, 64, 3), np.uint8)
    shown[:24, :32], shown[:24, 32:], shown[24:, :32], shown[24:, 32:] = 10, 60, 110, 160
    corners = make_crops(shown, Preprocess(16))
    assert [part.shape for part in corners] == [(16, 16, 3)] * len(FIVE_CROP)
    assert [int(part.mean()) for part in corners[:4]] == [10, 60, 110, 160]
    assert int(corners[4].mean()) == 85


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    bare=st.sets(st.integers(0, 20), max_size=4),
    late=st.sets(st.integers(0, 20), max_size=4),
)
@settings(max_examples=40, deadline=None)
def test_all_pairs_are_compared_once_as_they_come(
    seed: int, sizes: list[int], bare: set[int], late: set[int]
) -> None:
    """By brute force, some pictures without parts, and some whose parts come last."""
    rng = np.random.default_rng(seed)
    count = sum(sizes)
    rows = rng.normal(size=(count, 1 + len(FIVE_CROP), SPACE.dim)) + rng.normal(size=SPACE.dim)
    rows = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    whole, parts = rows[:, 0], rows[:, 1:]
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(Path(folder), write=True) as store,
        CropCache(Path(folder), SPACE, write=True) as kept,
    ):
        store.bind(SPACE, "test")
        found: set[tuple[int, int]] = set()
        numbers = iter(range(count))
        steps = [[next(numbers) for _ in range(size)] for size in sizes]
        for step in [*steps, []]:
            store.add(
                Batch(
                    [
                        (StoredImage(make_hash(n), make_hash(n), 10, 10, "PNG", 1, False), whole[n])
                        for n in step
                    ],
                    [NewFile(f"/p/{n}", FileStat(1, 1, 1, n, 1), make_hash(n)) for n in step],
                )
            )
            new = step if step else late - bare
            kept.put(
                {
                    make_hash(n): parts[n]
                    for n in new
                    if n < count and n not in bare and (n not in late or not step)
                }
            )
            images = load_comparable_images(store, kept)
            for some in propose_pairs(store, kept, images):
                found |= set(map(tuple, some.tolist()))
            kept.replace_compared_images(images, None)
        stored = [whole.astype(np.float16), parts.astype(np.float16)]
        vector = dict(store.catalog.vectors.stream_by_image_hash())
        expected = set()
        for n in set(range(count)) - bare:
            for m in set(range(count)) - {n}:
                if cosines(
                    np.broadcast_to(stored[0][m], stored[1][n].shape), stored[1][n]
                ).max() >= compute_crop_floor(SPACE):
                    one, other = sorted((vector[make_hash(n)], vector[make_hash(m)]))
                    expected.add((one, other))
        assert found == expected


def test_a_thumb_is_enough_to_make_parts_of(tmp_path: Path) -> None:
    """Photos that are away have parts, where they were verified before there were any."""
    photos = tmp_path / "photos"
    save_whole_and_part(photos)
    save_image(photos / "small.jpg", draw_scene(1, LARGE).resize((320, 240)), quality=92)
    with Store(tmp_path / "store", write=True) as store:
        ingested(store, photos, parts=False)
        with ThumbnailCache(store.folder, write=False) as thumbs:
            large = [
                image.hash
                for _, image in store.catalog.images.get(store.catalog.images.list_in_use())
                if image.height > 320
            ]
            there = len(thumbs.get(large))
        assert 0 < there < len(large)  # the photo, for its smaller copy
        photos.rename(tmp_path / "away")
        assert ingested(store, photos) == CropReport(there, len(large) - there)

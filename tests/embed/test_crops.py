"""Images within images: crops of large images are compared with whole images."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes import Root, Store
from indexes.caches.crops import CropCache
from indexes.caches.thumbnails import ThumbnailCache
from indexes.coverage import CropReport
from indexes.records import FileStat, NewFile
from indexes.records import Image as StoredImage
from indexes.store import Batch
from indexes.vectors.scores import compute_cosines
from pipeline import IngestOptions, find_groups, find_matches, ingest_roots, load_embedder
from pipeline import thumbnails as thumbnails_module
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
from pipeline.thumbnails import ImageUnavailable, UnavailableReason
from pipeline.verify.relation import Relation
from tests.support.images import draw_scene, draw_textured_image, save_image, save_whole_and_part
from tests.support.stores import SPACE, make_hash

LARGE = (640, 480)


def overwrite_with_garbage(path: Path) -> None:
    path.write_bytes(b"no database" * 400)


def list_group_names(store: Store) -> list[set[str]]:
    return [
        {
            Path(photo.path).name
            for photo in (group.keeper, *(member.file for member in group.members))
        }
        for group in find_groups(store)
    ]


def ingest_folder(store: Store, folder: Path, *, with_crops: bool = True) -> CropReport | None:
    *_, last = ingest_roots(
        [Root(str(folder))], store, load_embedder(), IngestOptions(with_crops=with_crops)
    )
    return last.coverage.crops


def get_verdicts_by_hash(store: Store) -> dict[tuple[bytes, bytes], tuple[str, object]]:
    """Return the relation and the record of each verdict, by the hashes of its two images."""
    image_ids = store.catalog.images.list_in_use()
    hash_by_id = {id_: image.hash for id_, image in store.catalog.images.get(image_ids)}
    return {
        (hash_by_id[verdict.first], hash_by_id[verdict.second]): (verdict.relation, verdict.record)
        for verdict in store.catalog.verdicts.stream()
    }


def test_small_crop_is_found_although_the_whole_images_score_low(tmp_path: Path) -> None:
    whole, part = save_whole_and_part(tmp_path / "photos")
    with Store(tmp_path / "store", write=True) as store:
        assert ingest_folder(store, tmp_path / "photos", with_crops=False) is None
        watermark = store.catalog.pairs.get_watermark()
        assert watermark
        assert not len(
            store.search.find_pairs(watermark.floor).left
        )  # otherwise crops would not be needed
        assert list_group_names(store) == []
        assert ingest_folder(store, tmp_path / "photos") == CropReport(2, 0)
        assert list_group_names(store) == [{"whole.jpg", "part.jpg"}]
        ((match,),) = (
            answer.matches for answer in find_matches([str(part)], store, load_embedder())
        )
        assert (match.file.path, match.relation) == (str(whole), Relation.DERIVED)
        assert match.score < watermark.floor
        assert (
            find_groups(store, watermark.floor) == []
        )  # a named threshold excludes matches by crops
        assert ingest_folder(store, tmp_path / "photos") == CropReport(0, 0)  # nothing is new


@pytest.mark.parametrize("kind", ["crop 40 %", "collage", "laid over another", "screenshot"])
def test_query_matches_by_its_crops(tmp_path: Path, kind: str) -> None:
    copy = HARD_EDITS[kind](
        draw_textured_image(1, LARGE), draw_textured_image(2, LARGE), random.Random(4)
    )
    query_path = save_image(tmp_path / "query.jpg", copy, quality=92)
    save_image(tmp_path / "photos" / "whole.jpg", draw_textured_image(1, LARGE), quality=92)
    with Store(tmp_path / "store", write=True) as store:
        ingest_folder(store, tmp_path / "photos")
        ((match,),) = (
            answer.matches for answer in find_matches([str(query_path)], store, load_embedder())
        )
        assert match.relation == Relation.DERIVED


@pytest.mark.parametrize("first", ["whole.jpg", "part.jpg", "collage.jpg"])
def test_verdicts_do_not_depend_on_the_order_of_ingest(tmp_path: Path, first: str) -> None:
    photos = tmp_path / "photos"
    save_whole_and_part(tmp_path / "waiting")
    save_image(
        tmp_path / "waiting" / "collage.jpg",
        HARD_EDITS["collage"](
            draw_scene(1, LARGE), draw_textured_image(2, LARGE), random.Random(4)
        ),
        quality=92,
    )
    photos.mkdir()
    (tmp_path / "waiting" / first).rename(photos / first)
    with (
        Store(tmp_path / "store", write=True) as store,
        Store(tmp_path / "at once", write=True) as store_at_once,
    ):
        ingest_folder(store, photos)
        for path in sorted((tmp_path / "waiting").iterdir()):
            path.rename(photos / path.name)
            ingest_folder(store, photos)
        ingest_folder(store_at_once, photos)
        assert get_verdicts_by_hash(store) == get_verdicts_by_hash(store_at_once)
        assert (
            list_group_names(store)
            == list_group_names(store_at_once)
            == [{"whole.jpg", "part.jpg", "collage.jpg"}]
        )


def test_restored_photo_is_compared_with_photos_ingested_meanwhile(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    whole, part = save_whole_and_part(photos)
    part.rename(tmp_path / "part.jpg")
    with Store(tmp_path / "store", write=True) as store:
        ingest_folder(store, photos)
        whole.rename(tmp_path / "whole.jpg")
        (tmp_path / "part.jpg").rename(part)
        list(
            ingest_roots(
                [Root(str(photos))], store, load_embedder(), IngestOptions(accept_missing=True)
            )
        )
        assert list(store.catalog.verdicts.stream()) == []
        (tmp_path / "whole.jpg").rename(whole)
        ingest_folder(store, photos)
        assert list_group_names(store) == [{"whole.jpg", "part.jpg"}]


def test_pair_with_an_unreadable_photo_is_verified_once_it_is_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    _, part = save_whole_and_part(photos)
    save_image(
        part, draw_scene(1, (200, 150)), quality=92
    )  # too small for crops, which would make the image new again
    part_hash = blake3(part.read_bytes()).digest()
    read_images = thumbnails_module.read_images

    def read_all_but_part(
        store: Store,
        decoders: DecoderPool,
        images: Mapping[int, StoredImage],
        preprocess: Preprocess,
    ) -> Iterator[tuple[int, Decoded | ImageUnavailable]]:
        readable = {id_: image for id_, image in images.items() if image.hash != part_hash}
        yield from (
            (id_, ImageUnavailable(UnavailableReason.AWAY)) for id_ in images if id_ not in readable
        )
        yield from read_images(store, decoders, readable, preprocess)

    with Store(tmp_path / "store", write=True) as store:
        ingest_folder(store, photos, with_crops=False)
        monkeypatch.setattr(thumbnails_module, "read_images", read_all_but_part)
        ingest_folder(store, photos)
        assert list_group_names(store) == []
        monkeypatch.setattr(thumbnails_module, "read_images", read_images)
        ingest_folder(store, photos)
        assert list_group_names(store) == [{"whole.jpg", "part.jpg"}]


def test_new_store_with_an_old_crop_cache_compares_all_images(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    save_whole_and_part(photos)
    with Store(tmp_path / "store", write=True) as store:
        ingest_folder(store, photos)
    with Store(tmp_path / "new", write=True) as store:
        (store.folder / "caches").mkdir()
        for path in (tmp_path / "store" / "caches").iterdir():
            path.rename(store.folder / "caches" / path.name)
        ingest_folder(store, photos)
        assert list_group_names(store) == [{"whole.jpg", "part.jpg"}]


def test_crop_vectors_are_computed_when_missing_or_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    save_whole_and_part(photos)
    with Store(tmp_path / "store", write=True) as store:
        read_images = thumbnails_module.read_images
        monkeypatch.setattr(
            thumbnails_module,
            "read_images",
            lambda store, decoders, images, preprocess: (
                (id_, ImageUnavailable(UnavailableReason.AWAY)) for id_ in images
            ),
        )
        assert ingest_folder(store, photos) == CropReport(0, 2)
        monkeypatch.setattr(thumbnails_module, "read_images", read_images)
        assert ingest_folder(store, photos) == CropReport(2, 0)
        assert list_group_names(store) == [{"whole.jpg", "part.jpg"}]
        for damage in (Path.unlink, overwrite_with_garbage):
            for path in (tmp_path / "store" / "caches").glob("crops.db*"):
                (damage if path.suffix == ".db" else Path.unlink)(path)
            assert list_group_names(store) == [{"whole.jpg", "part.jpg"}]
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
            report = ingest_folder(store, photos)
            assert report == CropReport(len(list(photos.iterdir())), 0)


def test_crop_vectors_are_dropped_with_their_image_and_their_space(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    whole, _ = save_whole_and_part(photos)
    with Store(tmp_path / "store", write=True) as store:
        ingest_folder(store, photos)
        assert store.space
        whole.unlink()
        ingest_folder(store, photos)
        store.compact(full=True)
        with CropCache(store.folder, store.space, write=False) as crops:
            assert len(crops.list_hashes()) == 1
        with CropCache(store.folder, SPACE, write=False) as crops:
            assert (crops.has_compared_images, crops.list_hashes()) == (False, set())
        with CropCache(store.folder, SPACE, write=True) as crops:
            assert crops.list_hashes() == set()
        with CropCache(store.folder, store.space, write=True) as crops:
            assert (crops.has_compared_images, crops.list_hashes()) == (False, set())


def test_make_crops_cuts_corners_and_center_and_preprocesses_them() -> None:
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[:24, :32], rgb[:24, 32:], rgb[24:, :32], rgb[24:, 32:] = 10, 60, 110, 160
    corners = make_crops(rgb, Preprocess(16))
    assert [part.shape for part in corners] == [(16, 16, 3)] * len(FIVE_CROP)
    assert [int(part.mean()) for part in corners[:4]] == [10, 60, 110, 160]
    assert int(corners[4].mean()) == 85


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    without_crops=st.sets(st.integers(0, 20), max_size=4),
    with_late_crops=st.sets(st.integers(0, 20), max_size=4),
)
@settings(max_examples=40, deadline=None)
def test_propose_pairs_equals_brute_force_after_any_history(
    seed: int, sizes: list[int], without_crops: set[int], with_late_crops: set[int]
) -> None:
    """Images without crops, and images that get their crops last, are among them."""
    rng = np.random.default_rng(seed)
    count = sum(sizes)
    rows = rng.normal(size=(count, 1 + len(FIVE_CROP), SPACE.dim)) + rng.normal(size=SPACE.dim)
    rows = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    whole, crops = rows[:, 0], rows[:, 1:]
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(Path(folder), write=True) as store,
        CropCache(Path(folder), SPACE, write=True) as crop_cache,
    ):
        store.bind(SPACE, "test")
        proposed: set[tuple[int, int]] = set()
        numbers = iter(range(count))
        steps = [[next(numbers) for _ in range(size)] for size in sizes]
        for step in [*steps, []]:
            hashes = {index: make_hash(index) for index in range(count)}
            images_and_rows = [
                (StoredImage(hashes[index], hashes[index], 10, 10, "PNG", 1, False), whole[index])
                for index in step
            ]
            files = [
                NewFile(f"/p/{index}", FileStat(1, 1, 1, index, 1), hashes[index]) for index in step
            ]
            store.add(Batch(images_and_rows, files))
            if step:
                with_new_crops = set(step) - without_crops - with_late_crops
            else:
                with_new_crops = (with_late_crops - without_crops) & set(range(count))
            crop_cache.put({hashes[index]: crops[index] for index in with_new_crops})
            images = load_comparable_images(store, crop_cache)
            for pairs in propose_pairs(store, crop_cache, images):
                proposed |= set(map(tuple, pairs.tolist()))
            crop_cache.replace_compared_images(images, None)
        stored_whole, stored_crops = whole.astype(np.float16), crops.astype(np.float16)
        vector_ids = dict(store.catalog.vectors.stream_by_image_hash())
        expected = set()
        for first, second in permutations(range(count), 2):
            if first in without_crops:
                continue
            wholes = np.broadcast_to(stored_whole[second], stored_crops[first].shape)
            if compute_cosines(wholes, stored_crops[first]).max() >= compute_crop_floor(SPACE):
                ids = vector_ids[make_hash(first)], vector_ids[make_hash(second)]
                expected.add((min(ids), max(ids)))
        assert proposed == expected


def test_crops_are_made_from_cached_thumbnails_of_missing_photos(tmp_path: Path) -> None:
    """Missing photos get crops if they were verified before crops were enabled."""
    photos = tmp_path / "photos"
    save_whole_and_part(photos)
    save_image(photos / "small.jpg", draw_scene(1, LARGE).resize((320, 240)), quality=92)
    with Store(tmp_path / "store", write=True) as store:
        ingest_folder(store, photos, with_crops=False)
        with ThumbnailCache(store.folder, write=False) as thumbnail_cache:
            large = [
                image.hash
                for _, image in store.catalog.images.get(store.catalog.images.list_in_use())
                if image.height > 320
            ]
            readable_count = len(thumbnail_cache.get(large))
        assert 0 < readable_count < len(large)  # the photo, verified with its smaller copy
        photos.rename(tmp_path / "away")
        assert ingest_folder(store, photos) == CropReport(
            readable_count, len(large) - readable_count
        )

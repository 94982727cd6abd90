"""Images within images: crops and regions of large images are compared."""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from contextlib import closing
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from indexes import Root, Store
from indexes.caches.crops import CropCache, CropVectors
from indexes.coverage import CropReport
from indexes.records import FileStat, NewFile
from indexes.records import Image as StoredImage
from indexes.store import Batch
from indexes.vectors.scores import compute_cosines
from pipeline import IngestOptions, find_groups, find_matches, ingest_roots, load_embedder
from pipeline.calibrate.synthetic_copies import HARD_EDITS
from pipeline.decode.preprocess import Preprocess
from pipeline.embed.crop_matches import (
    compute_crop_floor,
    compute_region_floor,
    is_crop_match,
    load_comparable_images,
    match_crops,
    propose_pairs,
)
from pipeline.embed.crops import FIVE_CROP, crop_image, embed_crops
from pipeline.verify.relation import Relation
from tests.support.images import draw_scene, draw_textured_image, save_image, save_whole_and_part
from tests.support.pair_verification import keep_thumbnails_away
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
    with Store(tmp_path / "store", write=True) as store:
        with monkeypatch.context() as patch:
            keep_thumbnails_away(patch, part_hash.__eq__)
            ingest_folder(store, photos)
            assert list_group_names(store) == []
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
        with monkeypatch.context() as patch:
            keep_thumbnails_away(patch)
            assert ingest_folder(store, photos) == CropReport(0, 2)
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


def test_crop_image_cuts_corners_and_center_and_preprocesses_them() -> None:
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[:24, :32], rgb[:24, 32:], rgb[24:, :32], rgb[24:, 32:] = 10, 60, 110, 160
    crops, are_featureless = zip(*crop_image(rgb, FIVE_CROP, Preprocess(16)), strict=True)
    assert [crop.shape for crop in crops] == [(16, 16, 3)] * len(FIVE_CROP)
    assert [int(crop.mean()) for crop in crops[:4]] == [10, 60, 110, 160]
    assert int(crops[4].mean()) == 85
    assert are_featureless == (True, True, True, True, False)


def draw_host(photo: Image.Image, size: tuple[int, int], color: str) -> Image.Image:
    """Draw a photo, 240 pixels wide, on a page of one color with a bar."""
    host = Image.new("RGB", size, color)
    ImageDraw.Draw(host).rectangle((0, 0, size[0], 40), fill="#3b5998")
    host.paste(photo.resize((240, 180), Image.Resampling.LANCZOS), (size[0] - 270, 90))
    return host


def test_two_hosts_of_one_photo_match_by_their_regions() -> None:
    embedder, photo = load_embedder(), draw_textured_image(1)
    hosts = draw_host(photo, (360, 780), "white"), draw_host(photo, (1200, 700), "black")
    stranger = draw_host(draw_scene(2), (1200, 700), "black")
    images = [
        (
            StoredImage(b"1", b"1", *host.size, "PNG", 1, False),
            np.asarray(ImageOps.contain(host, (448, 448))),
        )
        for host in (*hosts, stranger)
    ]
    first, second, other = embed_crops(images, embedder)
    nothing = np.zeros(embedder.space.dim, np.float32)  # a whole image that matches no region
    nothing[0] = 1
    assert is_crop_match((nothing, first), (nothing, second), embedder.space)
    assert not is_crop_match((nothing, first), (nothing, other), embedder.space)


def test_crops_of_an_image_depend_on_its_size() -> None:
    embedder = load_embedder()

    def embed(width: int, height: int) -> CropVectors | None:
        record = StoredImage(b"1", b"1", width, height, "PNG", 1, False)
        (vectors,) = embed_crops([(record, rgb)], embedder)
        return vectors

    rgb = np.asarray(draw_host(draw_textured_image(1), (300, 448), "white"))
    large, narrow, small = embed(400, 600), embed(300, 448), embed(200, 299)
    assert large is not None and narrow is not None and small is None
    assert (len(large.crops), len(narrow.crops)) == (len(FIVE_CROP), 0)
    assert (large.regions == narrow.regions).all() and len(large.regions) > 0
    assert large.boxes.shape == (len(large.regions), 4)


def draw_vectors(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Draw unit vectors that are near one another."""
    rows = rng.normal(size=(count, SPACE.dim)) + rng.normal(size=SPACE.dim)
    unit_rows: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return unit_rows.astype(np.float32)


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
    vectors = draw_vectors(rng, 8 * count).reshape(count, 8, SPACE.dim)
    whole = vectors[:, 0]
    crops = [
        CropVectors(
            rows[1 : 1 + rng.choice([0, 5])].astype(np.float16),
            rows[6 : 6 + number].astype(np.float16),
            np.zeros((number, 4), np.float32),
        )
        for rows, number in zip(vectors, rng.integers(0, 3, count).tolist(), strict=True)
    ]
    hashes = {index: make_hash(index) for index in range(count)}
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
        vector_ids = dict(store.catalog.vectors.stream_by_image_hash())
        expected = set()
        for first, second in combinations(range(count), 2):
            own, other = (
                (whole[index], None if index in without_crops else crops[index])
                for index in (first, second)
            )
            if has_match(own, other):
                ids = vector_ids[hashes[first]], vector_ids[hashes[second]]
                expected.add((min(ids), max(ids)))
            assert is_crop_match(own, other, SPACE) == has_match(own, other)
        assert proposed == expected
        queries = [
            (row, None if index in without_crops else crops[index])
            for index, row in enumerate(whole)
        ]
        found = match_crops(store, crop_cache, queries)
        id_by_hash = store.catalog.images.get_ids(list(hashes.values()))
        for index, image_ids in enumerate(found):
            others = {
                other
                for other in range(count)
                if other != index and has_match(queries[index], queries[other])
            }
            assert image_ids - {id_by_hash[hashes[index]]} == {
                id_by_hash[hashes[other]] for other in others
            }


Vectors = tuple[NDArray[np.float32], CropVectors | None]


def has_match(first: Vectors, second: Vectors) -> bool:
    """Tell by brute force if two images match by crops or regions."""

    def reach(left: NDArray[np.float16], right: NDArray[np.float16], min_score: float) -> bool:
        return any(
            compute_cosines(row[None], other[None])[0] >= min_score
            for row in left
            for other in right
        )

    (whole, crops), (other_whole, other_crops) = first, second
    floor = compute_crop_floor(SPACE)
    row, other_row = whole.astype(np.float16)[None], other_whole.astype(np.float16)[None]
    return (
        (crops is not None and reach(crops.concat(), other_row, floor))
        or (other_crops is not None and reach(other_crops.concat(), row, floor))
        or (
            crops is not None
            and other_crops is not None
            and reach(crops.regions, other_crops.regions, compute_region_floor(SPACE))
        )
    )


@pytest.mark.parametrize("damage", ["crops", "regions", "boxes"])
def test_damaged_row_of_the_crop_cache_counts_as_missing(tmp_path: Path, damage: str) -> None:
    rows = draw_vectors(np.random.default_rng(0), 7).astype(np.float16)
    vectors = CropVectors(rows[:5], rows[5:], np.zeros((2, 4), np.float32))
    empty = CropVectors(rows[:0], rows[:0], np.zeros((0, 4), np.float32))
    hashes = make_hash(0), make_hash(1)
    with CropCache(tmp_path, SPACE, write=True) as crop_cache:
        crop_cache.put(dict(zip(hashes, (vectors, empty), strict=True)))
        assert crop_cache.list_hashes() == set(hashes)
        ((first, second),) = crop_cache.stream(9)
        assert {first[0], second[0]} == set(hashes)
        assert [hash_ for block in crop_cache.stream_regions(9) for hash_, _ in block] == [
            hashes[0]
        ]
    with closing(sqlite3.connect(tmp_path / "caches" / "crops.db")) as database, database:
        database.execute(
            f"UPDATE crops SET {damage} = substr({damage}, 2) WHERE hash = ?", (hashes[0],)
        )
    with CropCache(tmp_path, SPACE, write=False) as crop_cache:
        assert crop_cache.list_hashes() == {hashes[1]}
        assert list(crop_cache.stream_regions(9)) == []


def test_crop_cache_of_an_older_version_is_filled_again(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    save_whole_and_part(photos)
    with Store(tmp_path / "store", write=True) as store:
        ingest_folder(store, photos)
        path = store.folder / "caches" / "crops.db"
        path.unlink()
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE crops (hash BLOB PRIMARY KEY, vectors BLOB NOT NULL)")
        assert store.space
        with CropCache(store.folder, store.space, write=False) as crops:
            assert not crops.has_compared_images
        save_image(photos / "new.jpg", draw_textured_image(3, LARGE))
        assert ingest_folder(store, photos) == CropReport(3, 0)
        with CropCache(store.folder, store.space, write=False) as crops:
            assert len(crops.list_hashes()) == 3


def test_crops_are_made_from_cached_thumbnails_of_missing_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing photos get crops if they have a thumbnail."""
    photos = tmp_path / "photos"
    whole, part = save_whole_and_part(photos)
    shutil.copy2(part, photos / f"copy{part.suffix}")  # a lone photo has no thumbnail
    whole_hash = blake3(whole.read_bytes()).digest()
    with Store(tmp_path / "store", write=True) as store:
        with monkeypatch.context() as patch:
            keep_thumbnails_away(patch, whole_hash.__eq__)
            ingest_folder(store, photos, with_crops=False)
        photos.rename(tmp_path / "away")
        assert ingest_folder(store, photos) == CropReport(1, 1)

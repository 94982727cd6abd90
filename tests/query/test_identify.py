"""A query identifies each file by its path, else by its bytes, else it decodes and embeds it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from indexes import SpaceMismatch, Store
from pipeline import find_matches, load_embedder
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.decode.read import Failure
from pipeline.query.identify import (
    StoredQuery,
    embed_queries,
    identify_files,
    read_thumbnails,
)
from pipeline.thumbnails import decode_thumbnail
from tests.support.images import decode_file, draw_scene, save_image
from tests.support.ingest import make_store


@pytest.fixture
def store(photos: Path, tmp_path: Path) -> Iterator[Store]:
    """A store of the six files."""
    with make_store(tmp_path / "store", photos) as opened:
        yield opened


def identify(store: Store, *files: Path) -> list[StoredQuery | Decoded | Failure]:
    with DecoderPool(1) as decoders:
        return identify_files(list(map(str, files)), store, load_embedder(), decoders)


def test_files_are_identified_in_order_each_in_its_way(
    store: Store, photos: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.webp"
    shutil.copy(photos / "c.webp", copy)
    new = save_image(tmp_path / "new.png", draw_scene(9))
    files = [tmp_path / "nothing.jpg", new, photos / "b.jpg", copy, tmp_path]
    nothing, decoded, known, same_bytes, folder = identify(store, *files)
    assert isinstance(nothing, Failure) and nothing.reason == "unreadable"
    assert isinstance(folder, Failure) and folder.reason == "not a photo"
    assert isinstance(decoded, Decoded) and decoded.source.path == str(new)
    for query, path in ((known, photos / "b.jpg"), (same_bytes, photos / "c.webp")):
        assert isinstance(query, StoredQuery)
        stored = store.catalog.files.get_by_path(str(path))
        assert stored and query.image_id == stored.image_id
    assert isinstance(same_bytes, StoredQuery) and same_bytes.source.path == str(copy)


def test_changed_file_is_not_identified_by_its_path(store: Store, photos: Path) -> None:
    shutil.copyfile(photos / "c.webp", photos / "b.jpg")
    (query,) = identify(store, photos / "b.jpg")
    stored = store.catalog.files.get_by_path(str(photos / "c.webp"))
    assert isinstance(query, StoredQuery) and stored and query.image_id == stored.image_id


def test_touched_file_is_identified_by_its_bytes(store: Store, photos: Path) -> None:
    stored = store.catalog.files.get_by_path(str(photos / "b.jpg"))
    os.utime(photos / "b.jpg", ns=(1, 1))
    (query,) = identify(store, photos / "b.jpg")
    assert isinstance(query, StoredQuery) and stored and query.image_id == stored.image_id


def test_new_images_have_the_vectors_of_the_model_and_blank_ones_none(
    store: Store, tmp_path: Path
) -> None:
    embedder = load_embedder()
    paths = [
        save_image(tmp_path / "blank.png", Image.new("RGB", (300, 200), "white")),
        save_image(tmp_path / "one.png", draw_scene(8)),
        save_image(tmp_path / "two.png", draw_scene(9)),
    ]
    decoded = [decode_file(path, embedder.preprocess) for path in paths]
    blank, *others = embed_queries(decoded, embedder, store)
    assert blank.embedding is None and blank.image.is_featureless
    expected = embedder.encode([image.pixels for image in decoded[1:]])
    for query, vector, image in zip(others, expected, decoded[1:], strict=True):
        assert query.embedding and query.embedding.space == embedder.space
        assert query.image.hash == image.image.hash
        unit = vector / np.linalg.norm(vector)
        np.testing.assert_allclose(query.embedding.vector, unit, atol=1e-5)


def test_vector_of_another_space_is_refused(store: Store, tmp_path: Path) -> None:
    other = load_embedder("neardup-0")
    decoded = decode_file(save_image(tmp_path / "new.png", draw_scene(9)), other.preprocess)
    with pytest.raises(SpaceMismatch):
        embed_queries([decoded], other, store)


def test_thumbnail_is_read_only_of_new_images_with_features_that_did_not_change(
    store: Store, tmp_path: Path
) -> None:
    embedder = load_embedder()
    paths = [
        save_image(tmp_path / "blank.png", Image.new("RGB", (300, 200), "white")),
        save_image(tmp_path / "new.png", draw_scene(8)),
        save_image(tmp_path / "changed.png", draw_scene(9)),
        save_image(tmp_path / "read.png", draw_scene(10)),
    ]
    decoded = [decode_file(path, embedder.preprocess) for path in paths]
    queries = embed_queries(decoded, embedder, store)
    queries[3] = replace(queries[3], thumbnail=b"a JPEG")
    save_image(paths[2], draw_scene(11))
    with DecoderPool(1) as decoders:
        blank, new, changed, read = read_thumbnails(queries, decoders)
    assert blank.thumbnail is None and changed.thumbnail is None
    assert read.thumbnail == b"a JPEG"
    assert new.thumbnail is not None and decode_thumbnail(new.thumbnail).shape == (240, 320, 3)


def test_no_snapshot_is_open_while_a_model_loads(photos: Path, tmp_path: Path) -> None:
    class LoadingEmbedder:
        """Loads its weights when its preprocessing is needed."""

        def __getattr__(self, name: str) -> object:
            if name == "preprocess":
                in_snapshot.append(store.catalog._db.in_transaction)
            return getattr(real_embedder, name)

    in_snapshot: list[bool] = []
    real_embedder = load_embedder()
    embedder: Any = LoadingEmbedder()
    new = [
        str(save_image(tmp_path / f"{number}.jpg", draw_scene(number, (320, 240))))
        for number in range(3)
    ]
    with make_store(tmp_path / "store", photos) as store:
        list(find_matches(new, store, embedder))
    assert len(in_snapshot) >= 3
    assert not any(in_snapshot)


def test_image_dropped_by_an_ingest_meanwhile_is_decoded(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(photos / "c.webp", tmp_path / "copy.webp")
    with make_store(tmp_path / "store", photos) as store:
        get_ids, returned = store.catalog.images.get_ids, list[dict[bytes, int]]()

        def get_ids_once(hashes: Sequence[bytes]) -> dict[bytes, int]:
            returned.append(get_ids(hashes))
            return returned[0] if len(returned) == 1 else {}

        monkeypatch.setattr(store.catalog.images, "get_ids", get_ids_once)
        (answer,) = find_matches([str(tmp_path / "copy.webp")], store, load_embedder())
    assert len(returned[0]) == 1
    assert len(returned) >= 2
    assert [Path(match.file.path).name for match in answer.matches] == ["c.webp"]

"""Of two copies of one JPEG, the one that lost bits is found and never kept."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexes import Root, Store
from pipeline import IngestOptions, find_groups, ingest_roots, load_embedder
from pipeline.ingest.bit_rot import find_damaged_side
from pipeline.ingest.progress import Stage
from pipeline.verify.relation import Side
from tests.support.images import decode_file, draw_textured_image, encode_jpeg
from tests.support.ingest import ingest, make_store

SOUND = encode_jpeg(draw_textured_image(1))


def read_pixels(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def rotten(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The sound JPEG with a bit flipped that changes few pixels; the file alone shows nothing."""
    sound, path = read_pixels(SOUND), tmp_path_factory.mktemp("trials") / "trial.jpg"
    for position in range(len(SOUND) // 2, len(SOUND) - 50):
        for bit in range(8):
            trial = bytearray(SOUND)
            trial[position] ^= 1 << bit
            if 0xFF in (trial[position], SOUND[position], SOUND[position - 1]):
                continue
            pixels = read_pixels(bytes(trial))
            changed_share = (pixels != sound).any(axis=2).mean()
            is_plain = np.abs(pixels.astype(int) - sound).max() > 40
            if 0 < changed_share < 0.01 and is_plain:
                path.write_bytes(trial)
                if not decode_file(path).image.is_damaged:
                    return bytes(trial)
    raise AssertionError("no bit of the scan changes a few pixels alone")


@pytest.fixture
def photos(tmp_path: Path, rotten: bytes) -> Path:
    """A sound JPEG, and an older copy of it that lost a bit."""
    (folder := tmp_path / "photos").mkdir()
    (folder / "sound.jpg").write_bytes(SOUND)
    (folder / "a.jpg").write_bytes(rotten)
    os.utime(folder / "a.jpg", (1_600_000_000, 1_600_000_000))
    return folder


def test_copy_that_lost_a_bit_is_flagged_and_not_kept(photos: Path, tmp_path: Path) -> None:
    with make_store(tmp_path / "store", photos) as store:
        (group,) = find_groups(store)
        assert Path(group.keeper.path).name == "sound.jpg"
        assert group.reason == "not damaged"
        assert [Path(member.file.path).name for member in group.members] == ["a.jpg"]
        # Reading the metadata again does not forget it.
        with store.catalog.transaction():
            store.catalog._db.execute("DELETE FROM metadata")
        assert ingest(store).metadata_read == 2
        (group,) = find_groups(store)
        assert Path(group.keeper.path).name == "sound.jpg"


def test_order_in_which_the_copies_come_does_not_matter(photos: Path, tmp_path: Path) -> None:
    (photos / "sound.jpg").rename(tmp_path / "sound.jpg")
    with Store(tmp_path / "store", write=True) as store:
        ingest(store, photos)
        assert find_groups(store) == []
        (tmp_path / "sound.jpg").rename(photos / "sound.jpg")
        ingest(store)
        (group,) = find_groups(store)
        assert Path(group.keeper.path).name == "sound.jpg"


def test_copy_that_returns_is_flagged_as_if_it_had_stayed(photos: Path, tmp_path: Path) -> None:
    (photos / "sound.jpg").rename(tmp_path / "sound.jpg")
    with Store(tmp_path / "store", write=True) as store:
        ingest(store, photos)
        (photos / "a.jpg").rename(tmp_path / "a.jpg")
        (tmp_path / "sound.jpg").rename(photos / "sound.jpg")
        ingest(store, options=IngestOptions(accept_missing=True))
        (tmp_path / "a.jpg").rename(photos / "a.jpg")
        ingest(store)
        (group,) = find_groups(store)
        assert (Path(group.keeper.path).name, group.reason) == ("sound.jpg", "not damaged")


def test_ingest_stopped_after_the_verdicts_goes_on_to_find_the_damage(
    photos: Path, tmp_path: Path
) -> None:
    with Store(tmp_path / "store", write=True) as store:
        progress = ingest_roots([Root(str(photos))], store, load_embedder())
        assert any(step.stage is Stage.VERIFYING for step in progress)
        progress.close()
        ingest(store)
        (group,) = find_groups(store)
        assert (Path(group.keeper.path).name, group.reason) == ("sound.jpg", "not damaged")


def test_images_of_other_scans_say_nothing() -> None:
    sound = read_pixels(SOUND)
    assert find_damaged_side(sound, sound) is None
    assert find_damaged_side(sound, sound[:-8]) is None
    assert find_damaged_side(sound, read_pixels(encode_jpeg(draw_textured_image(1), 70))) is None
    rotten = sound.copy()
    rotten[80:88, 160:168] = 255 - rotten[80:88, 160:168]
    assert find_damaged_side(rotten, sound) is Side.FIRST
    assert find_damaged_side(sound, rotten) is Side.SECOND


def test_damage_outlives_other_copies_and_embedding_again(photos: Path, tmp_path: Path) -> None:
    (photos / "b.jpg").write_bytes((photos / "a.jpg").read_bytes() + b"tail")
    with make_store(tmp_path / "store", photos) as store:
        with store.catalog.transaction():
            store.catalog._db.execute("UPDATE images SET vector = NULL")
        ingest(store)
        flags = [image.flags for _, image in store.catalog.images.get(range(1, 10))]
        assert ("damaged",) in flags and ("damaged", "damaged") not in flags
        (group,) = find_groups(store)
        assert Path(group.keeper.path).name == "sound.jpg"

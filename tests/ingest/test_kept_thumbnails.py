"""A store keeps the thumbnails of images that are in a pair or a group, and of decided ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexes import Store
from indexes.caches.thumbnails import Thumbnail, ThumbnailCache
from indexes.decisions import DecisionKind
from pipeline.decide.decide import decide, forget
from pipeline.decided import find_rejected
from pipeline.decode.pool import DecoderPool
from pipeline.report.status import format_status, report_status
from pipeline.scan import SourceFile
from tests.support.images import draw_scene, draw_textured_image, save_image
from tests.support.ingest import ingest
from tests.support.verification import load_photos


def save_lone_photo(folder: Path) -> Path:
    """Save two scenes, whose vectors are near each other, and a photo that is near neither."""
    for number in (1, 2):
        save_image(folder / f"scene {number}.jpg", draw_scene(number))
    return save_image(folder / "lone.jpg", draw_textured_image(1), quality=92)


def list_kept(store: Store) -> set[str]:
    """List the names of the files that hold an image whose thumbnail the store has."""
    images = dict(store.catalog.images.get(store.catalog.images.list_in_use()))
    with ThumbnailCache(store.folder, write=False) as cache:
        kept = cache.get(image.hash for image in images.values())
    ids = [id_ for id_, image in images.items() if image.hash in kept]
    return {Path(file.path).name for file in store.catalog.files.find_of_images(ids)}


def last_line(store: Store) -> str:
    """Return the last line of the answer of `status`, which is about the last ingest."""
    return list(format_status(report_status(store)))[-1]


def test_thumbnails_of_images_in_no_pair_and_no_group_are_discarded(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    save_lone_photo(photos)
    china, flower = (Image.fromarray(np.asarray(photo)) for photo in load_photos())  # no profile
    twin = save_image(photos / "twin.jpg", china)
    shutil.copy(twin, photos / "twin again.jpg")
    save_image(photos / "of equal pixels.png", flower)
    save_image(photos / "of equal pixels.bmp", flower)
    with Store(tmp_path / "store", write=True) as store:
        ingest(store, photos)
        kept = list_kept(store)
    of_equal_pixels = {name for name in kept if name.startswith("of equal")}
    assert len(of_equal_pixels) == 1  # one of them stands for both
    assert kept - of_equal_pixels == {"scene 1.jpg", "scene 2.jpg", "twin.jpg", "twin again.jpg"}


def test_later_copy_of_a_lone_photo_has_that_file_alone_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    save_lone_photo(photos)
    decode, read = DecoderPool.decode, list[str]()

    def record(pool: DecoderPool, source: SourceFile, *args: object) -> object:
        read.append(Path(source.path).name)
        return decode(pool, source, *args)  # type: ignore[arg-type]

    with Store(tmp_path / "store", write=True) as store:
        ingest(store, photos)
        save_image(photos / "copy.jpg", draw_textured_image(1), quality=70)
        monkeypatch.setattr(DecoderPool, "decode", record)
        verification = ingest(store, photos).verification
        assert verification and verification.relations == {"same picture": 1}
        assert sorted(read) == ["copy.jpg", "lone.jpg"]
        assert list_kept(store) == {"copy.jpg", "lone.jpg", "scene 1.jpg", "scene 2.jpg"}


def test_copy_of_a_lone_photo_on_an_absent_drive_waits_for_the_drive(tmp_path: Path) -> None:
    drive, photos, away = tmp_path / "drive", tmp_path / "photos", tmp_path / "away"
    save_lone_photo(drive)
    save_image(photos / "scene 3.jpg", draw_scene(3))
    with Store(tmp_path / "store", write=True) as store:
        ingest(store, drive, photos)
        drive.rename(away)
        save_image(photos / "copy.jpg", draw_textured_image(1), quality=70)
        coverage = ingest(store)
        assert coverage.warnings == [
            "1 candidate pair could not be verified (1 away); the next ingest tries again"
        ]
        assert last_line(store).endswith("; pairs not verified 1 (1 away)")
        away.rename(drive)
        verification = ingest(store).verification
        assert verification and verification.relations == {"same picture": 1}
        assert "not verified" not in last_line(store)


def test_lone_photo_keeps_its_thumbnail_while_a_decision_is_about_it(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    lone = save_lone_photo(photos)
    with Store(tmp_path / "store", write=True) as store:
        ingest(store, photos)
        (rejection,) = decide(store, DecisionKind.REJECT, [str(lone)], "ann").new
        assert "lone.jpg" in list_kept(store)
        save_image(photos / "scene 3.jpg", draw_scene(3))
        ingest(store)
        assert "lone.jpg" in list_kept(store)
        forget(store, [rejection.id])
        save_image(photos / "scene 4.jpg", draw_scene(4))
        ingest(store)
        assert "lone.jpg" not in list_kept(store)


def test_lone_photo_that_was_rejected_and_deleted_is_found_when_it_returns(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    lone = save_lone_photo(photos)
    with Store(tmp_path / "store", write=True) as store:
        ingest(store, photos)
        decide(store, DecisionKind.REJECT, [str(lone)], "ann")
        lone.unlink()
        ingest(store)
        save_image(photos / "again.jpg", draw_textured_image(1, (360, 240)), quality=70)
        ingest(store)
        assert [Path(item.path).name for item in find_rejected(store)] == ["again.jpg"]


def test_discarded_thumbnails_leave_a_smaller_file(tmp_path: Path) -> None:
    thumbnails = {bytes([number]) * 32: Thumbnail(bytes(20_000), b"") for number in range(100)}
    with ThumbnailCache(tmp_path, write=True) as cache:
        cache.put(thumbnails)
    (database,) = (tmp_path / "caches").glob("*.db")
    before = database.stat().st_size
    with ThumbnailCache(tmp_path, write=True) as cache:
        cache.discard(list(thumbnails)[:80])
        assert cache.get(thumbnails).keys() == set(list(thumbnails)[80:])
    assert database.stat().st_size < before / 4

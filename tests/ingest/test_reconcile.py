from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from indexes import Root, Store
from pipeline import (
    IngestOptions,
    find_groups,
    ingest_roots,
    load_embedder,
    resolve_roots,
)
from tests.support.embedders import CountingEmbedder
from tests.support.images import draw_scene, save_image
from tests.support.ingest import ingest, list_groups


def test_ingest_renamed_files_counts_moves_and_embeds_none(
    empty_store: Store, photos: Path
) -> None:
    ingest(empty_store, photos)
    before = list_groups(empty_store, photos)
    (photos / "sub").rename(photos / "renamed")
    (photos / "b.jpg").rename(photos / "bee.jpg")
    embedder = CountingEmbedder()
    coverage = ingest(empty_store, embedder=embedder)
    assert (coverage.moved, coverage.new, coverage.gone, coverage.missing, embedder.embedded) == (
        3,
        0,
        0,
        0,
        0,
    )
    renamed = [
        (keeper.replace("sub/", "renamed/"), [path.replace("sub/", "renamed/") for path in members])
        for keeper, members in before
    ]
    assert sorted(
        list_groups(empty_store, photos)[0][1] + [list_groups(empty_store, photos)[0][0]]
    ) == sorted(renamed[0][1] + [renamed[0][0]])


def test_ingest_renamed_folder_counts_moves(empty_store: Store, tmp_path: Path) -> None:
    for number in range(20):
        save_image(tmp_path / "root" / "old" / f"{number}.jpg", draw_scene(number))
    ingest(empty_store, tmp_path / "root")
    (tmp_path / "root" / "old").rename(tmp_path / "root" / "new")
    coverage = ingest(empty_store)
    assert (coverage.moved, coverage.missing, coverage.embedded) == (20, 0, 0)


@pytest.mark.parametrize("stop", [1, 7, 12, 19])
def test_find_groups_after_interrupted_rename_excludes_old_path(
    empty_store: Store, tmp_path: Path, stop: int
) -> None:
    """An ingest that was stopped amid a rename knows both paths of some files."""
    for number in range(20):
        save_image(tmp_path / "root" / "old" / f"{number}.jpg", draw_scene(number))
    ingest(empty_store, tmp_path / "root")
    (tmp_path / "root" / "old").rename(tmp_path / "root" / "new")
    with closing(
        ingest_roots(
            empty_store.catalog.roots.list(),
            empty_store,
            load_embedder(),
            IngestOptions(batch_size=2, commit_images=1),
        )
    ) as run:
        next(progress for progress in run if progress.done == stop)
    assert find_groups(empty_store, 1.0) == []
    coverage = ingest(empty_store)
    assert (coverage.missing, coverage.gone, coverage.embedded) == (0, 0, 0)
    assert all(
        "/new/" in known.path
        for known in empty_store.catalog.files.find_of_images(
            empty_store.catalog.images.list_in_use()
        )
    )


def test_ingest_files_moved_between_roots_counts_moves(empty_store: Store, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(8):
        save_image(tmp_path / "in" / f"{number}.jpg", draw_scene(number))
    ingest(empty_store, tmp_path / "in", tmp_path / "pictures")
    for number in range(8):
        shutil.move(tmp_path / "in" / f"{number}.jpg", tmp_path / "pictures")
    coverage = ingest(empty_store)
    assert (coverage.moved, coverage.missing, coverage.gone) == (8, 0, 0)
    assert find_groups(empty_store, 1.0) == []


def test_find_groups_missing_file_is_marked_and_not_keeper(
    empty_store: Store, tmp_path: Path
) -> None:
    save_image(tmp_path / "usb" / "a.jpg", draw_scene(1, (640, 480)), quality=95)
    save_image(
        tmp_path / "disk" / "a longer name.jpg", draw_scene(1, (640, 480)).resize((320, 240))
    )
    ingest(empty_store, tmp_path / "usb", tmp_path / "disk")
    assert find_groups(empty_store)[0].keeper.path.endswith("usb/a.jpg")
    (tmp_path / "usb").rename(tmp_path / "away")
    ingest(empty_store)
    (group,) = find_groups(empty_store)
    assert not group.keeper.is_missing
    assert [(member.file.path, member.file.is_missing) for member in group.members] == [
        (str(tmp_path / "usb" / "a.jpg"), True)
    ]
    (tmp_path / "away").rename(tmp_path / "usb")
    assert ingest(empty_store).unchanged == 2
    assert find_groups(empty_store)[0].keeper.path.endswith("usb/a.jpg")


def test_ingest_deleted_file_leaves_groups(empty_store: Store, photos: Path) -> None:
    ingest(empty_store, photos)
    (photos / "a small.jpg").unlink()
    coverage = ingest(empty_store)
    assert (coverage.gone, coverage.missing) == (1, 0)
    assert "a small.jpg" not in {
        path for _, members in list_groups(empty_store, photos) for path in members
    }


def test_ingest_unmounted_root_keeps_its_files(
    empty_store: Store, photos: Path, tmp_path: Path
) -> None:
    for number in range(20):
        save_image(tmp_path / "disk" / f"{number}.jpg", draw_scene(number + 50))
    ingest(empty_store, photos, tmp_path / "disk")
    before = list_groups(empty_store, photos)
    shutil.move(photos, tmp_path / "away")  # the folder is gone
    coverage = ingest(empty_store)
    assert coverage.absent_roots == [str(photos)]
    assert coverage.has_problems
    assert list_groups(empty_store, photos) == before
    photos.mkdir()  # an empty mount point
    coverage = ingest(empty_store)
    assert (coverage.missing, coverage.gone) == (6, 0)
    assert list_groups(empty_store, photos) == before
    for number in range(8):  # more than a fifth of the disk
        (tmp_path / "disk" / f"{number}.jpg").unlink()
    coverage = ingest(empty_store)
    assert (coverage.missing, coverage.gone) == (14, 0)
    assert "--accept-missing" in coverage.warnings[0]
    coverage = ingest(empty_store, options=IngestOptions(accept_missing=True))
    assert (coverage.missing, coverage.gone) == (0, 14)
    assert list_groups(empty_store, photos) == []
    photos.rmdir()
    shutil.move(tmp_path / "away", photos)  # it is mounted again
    assert ingest(empty_store).embedded == 0
    assert list_groups(empty_store, photos) == before


def test_ingest_absent_nested_root_keeps_its_files(empty_store: Store, tmp_path: Path) -> None:
    """Its few files count against the nested root, not among the many of the outer root."""
    for number in range(30):
        save_image(tmp_path / "a" / f"{number}.jpg", draw_scene(number, (64, 48)))
    for number in range(3):
        save_image(tmp_path / "a" / "mnt" / f"{number}.jpg", draw_scene(100 + number, (64, 48)))
    ingest(empty_store, tmp_path / "a", tmp_path / "a" / "mnt")
    shutil.move(tmp_path / "a" / "mnt", tmp_path / "away")
    for _ in range(2):
        coverage = ingest(empty_store)
        assert (coverage.missing, coverage.gone, coverage.unchanged) == (3, 0, 30)
        (tmp_path / "a" / "mnt").mkdir(exist_ok=True)  # the second time an empty mount point


def test_ingest_absent_backup_is_not_counted_as_moved(empty_store: Store, tmp_path: Path) -> None:
    for number in range(20):
        save_image(tmp_path / "mnt" / "a" / f"{number}.jpg", draw_scene(number, (64, 48)))
    shutil.copytree(tmp_path / "mnt" / "a", tmp_path / "mnt" / "b")
    ingest(empty_store, tmp_path / "mnt")
    assert len(find_groups(empty_store, 1.0)) == 20
    shutil.move(tmp_path / "mnt" / "b", tmp_path / "away")
    coverage = ingest(empty_store)
    assert (coverage.missing, coverage.gone, coverage.moved) == (20, 0, 0)
    assert len(find_groups(empty_store, 1.0)) == 20


def test_ingest_links_to_absent_drive_are_kept(empty_store: Store, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    for number in range(10):
        target = save_image(tmp_path / "drive" / f"{number}.jpg", draw_scene(number, (64, 48)))
        (tmp_path / "links" / f"{number}.jpg").symlink_to(target)
    ingest(empty_store, tmp_path / "links")
    (tmp_path / "drive").rename(tmp_path / "away")
    coverage = ingest(empty_store)
    assert (coverage.missing, coverage.gone, coverage.left_out) == (10, 0, 0)


def test_ingest_unreadable_folder_keeps_its_files(
    empty_store: Store, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(empty_store, photos)
    before = find_groups(empty_store)
    real = os.scandir

    def broken(path: str) -> Any:  # noqa: ANN401 - the type of os.scandir
        if str(path).endswith("/sub"):
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(os, "scandir", broken)
    coverage = ingest(empty_store)
    assert coverage.failed == {"unreadable folder": 1}
    assert (coverage.gone, coverage.missing, coverage.left_out) == (0, 0, 0)
    assert find_groups(empty_store) == before


def test_ingest_inaccessible_root_continues_with_others(
    empty_store: Store, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos.parent / "dead").mkdir()
    ingest(empty_store, photos, photos.parent / "dead")
    real = os.stat

    def dead(path: Any, *rest: Any, **more: Any) -> os.stat_result:  # noqa: ANN401 - as os.stat
        if str(path).endswith("/dead"):
            raise OSError(107, "Transport endpoint is not connected")
        return real(path, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", dead)
        patch.setattr(
            os.path, "isdir", lambda path: not str(path).endswith("/dead") and Path(path).exists()
        )
        coverage = ingest(empty_store)
    assert coverage.unchanged == 6
    assert coverage.absent_roots == [str(photos.parent / "dead")]


def test_ingest_accept_missing_removes_named_root(
    empty_store: Store, photos: Path, tmp_path: Path
) -> None:
    card = tmp_path / "card"
    save_image(card / "1.jpg", draw_scene(40))
    ingest(empty_store, photos, card)
    shutil.rmtree(card)
    assert ingest(empty_store, options=IngestOptions(accept_missing=True)).absent_roots == [
        str(card)
    ]
    coverage = ingest(
        empty_store, card, options=IngestOptions(roots_to_remove=frozenset([str(card)]))
    )
    assert (coverage.gone, coverage.absent_roots) == (1, [])
    assert empty_store.catalog.roots.list() == [Root(str(photos))]
    assert not ingest(empty_store).has_problems


def test_ingest_exclude_removes_files_and_is_remembered(empty_store: Store, photos: Path) -> None:
    ingest(empty_store, photos)
    coverage = ingest(empty_store, *resolve_roots(empty_store, [str(photos)], ["sub"]).roots)
    assert coverage.left_out == 2
    assert empty_store.catalog.files.get_by_path(str(photos / "sub" / "a.jpg")) is None
    assert empty_store.catalog.roots.list() == [Root(str(photos), ("sub",))]
    assert resolve_roots(empty_store, []).roots == [Root(str(photos), ("sub",))]
    assert resolve_roots(empty_store, [str(photos)], [""]).roots == [Root(str(photos))]


def test_ingest_nested_root_keeps_its_settings(empty_store: Store, photos: Path) -> None:
    inner = save_image(photos / ".private" / "1.jpg", draw_scene(30)).parent
    ingest(empty_store, photos)
    ingest(empty_store, inner)
    assert [root.path for root in resolve_roots(empty_store, [str(photos)]).roots] == [
        str(inner),
        str(photos),
    ]
    for roots in (
        resolve_roots(empty_store, []).roots,
        resolve_roots(empty_store, [str(photos)]).roots,
    ):
        coverage = ingest(empty_store, *roots)
        assert (coverage.unchanged, coverage.gone, coverage.left_out) == (7, 0, 0)


def test_ingest_few_vanished_files_are_gone_and_many_are_missing(
    empty_store: Store, tmp_path: Path
) -> None:
    for number in range(16):
        save_image(tmp_path / "root" / f"{number}.jpg", draw_scene(number, (64, 48)))
    ingest(empty_store, tmp_path / "root")
    for number in range(5):
        (tmp_path / "root" / f"{number}.jpg").unlink()
    assert ingest(empty_store).gone == 5
    for number in range(5, 11):
        (tmp_path / "root" / f"{number}.jpg").unlink()
    assert ingest(empty_store).missing == 6


def test_ingest_new_device_number_is_stored_without_reading(
    empty_store: Store, photos: Path
) -> None:
    ingest(empty_store, photos)
    with empty_store.catalog.transaction():
        empty_store.catalog._db.execute("UPDATE files SET device = 12345")
    coverage = ingest(empty_store)
    assert (coverage.unchanged, coverage.changed) == (6, 0)
    known = empty_store.catalog.files.get_by_path(str(photos / "b.jpg"))
    assert known is not None
    assert known.stat.device == (photos / "b.jpg").stat().st_dev

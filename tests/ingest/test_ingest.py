from __future__ import annotations

import os
import shutil
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import integers, lists, sampled_from
from PIL import Image

from indexes import Root, Space, SpaceMismatch, Store, StoreLocked
from indexes.records import FileStat
from pipeline import (
    Group,
    IngestOptions,
    RootNotFound,
    find_groups,
    ingest_roots,
    load_embedder,
    resolve_roots,
)
from pipeline.decode.preprocess import Preprocess
from tests.support.embedders import CountingEmbedder
from tests.support.images import draw_scene, save_image
from tests.support.ingest import ingest, list_groups


def test_ingest_photos_forms_groups(empty_store: Store, photos: Path) -> None:
    embedder = CountingEmbedder()
    coverage = ingest(
        empty_store, photos, embedder=embedder, options=IngestOptions(with_crops=False)
    )
    assert (coverage.seen, coverage.new, coverage.embedded) == (
        6,
        6,
        5,  # two files hold one image
    )
    assert embedder.embedded == 5
    assert list_groups(empty_store, photos) == [
        ("a.png", ["sub/a copy.png", "sub/a.jpg", "a small.jpg"])
    ] or list_groups(empty_store, photos) == [
        ("sub/a copy.png", ["a.png", "sub/a.jpg", "a small.jpg"])
    ]


def test_ingest_unchanged_files_reads_none(
    empty_store: Store, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(empty_store, photos)
    monkeypatch.setattr(
        "pipeline.decode.decode.read", lambda source: pytest.fail(f"{source.path} was read")
    )
    coverage = ingest(empty_store)
    assert (coverage.unchanged, coverage.new, coverage.embedded) == (6, 0, 0)


def test_ingest_one_new_photo_embeds_one(empty_store: Store, photos: Path) -> None:
    ingest(empty_store, photos)
    save_image(photos / "new.jpg", draw_scene(9))
    embedder = CountingEmbedder()
    coverage = ingest(empty_store, embedder=embedder)
    assert (coverage.new, coverage.unchanged, embedder.embedded) == (1, 6, 1)


def test_ingest_changed_file_is_read_again(empty_store: Store, photos: Path) -> None:
    ingest(empty_store, photos)
    save_image(photos / "b.jpg", draw_scene(1, (640, 480)))
    coverage = ingest(empty_store)
    assert (coverage.changed, coverage.embedded) == (1, 1)
    assert "b.jpg" in {path for _, members in list_groups(empty_store, photos) for path in members}
    status = (photos / "c.webp").stat()
    os.utime(
        photos / "c.webp", ns=(status.st_atime_ns, status.st_mtime_ns)
    )  # changes only the ctime
    coverage = ingest(empty_store)
    assert (coverage.changed, coverage.embedded) == (1, 0)


def test_find_groups_hard_links_and_linked_folders_are_not_copies(
    empty_store: Store, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    save_image(root / "a" / "1.jpg", draw_scene(1))
    os.link(root / "a" / "1.jpg", root / "2.jpg")
    (root / "b").symlink_to(root / "a")
    (tmp_path / "other").symlink_to(root / "a")
    (tmp_path / "other2").mkdir()
    (tmp_path / "other2" / "link.jpg").symlink_to(root / "a" / "1.jpg")
    ingest(empty_store, root)
    ingest(empty_store, tmp_path / "other", tmp_path / "other2")
    assert list_groups(empty_store, root) == []
    (tmp_path / "late").mkdir()
    # Changes the ctime of the files that the store knows.
    os.link(root / "2.jpg", tmp_path / "late" / "4.jpg")
    ingest(empty_store, tmp_path / "late")
    assert list_groups(empty_store, root) == []
    shutil.copy2(root / "2.jpg", root / "3.jpg")
    ingest(empty_store)
    ((keeper, members),) = list_groups(empty_store, root)
    assert (keeper, members) in [
        ("2.jpg", ["3.jpg"]),
        ("../late/4.jpg", ["3.jpg"]),  # two paths of one file, and one copy
    ]


def test_ingest_bad_files_are_counted_and_remembered(empty_store: Store, photos: Path) -> None:
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:2000])
    (photos / "broken copy.jpg").write_bytes((photos / "broken.jpg").read_bytes())
    (photos / "empty.png").touch()
    (photos / "notes.txt").write_text("text")
    for _ in range(2):
        coverage = ingest(empty_store, photos)
        assert coverage.failed == {"truncated": 2, "empty file": 1}
        assert coverage.skipped == {"not a photo": 1}
        assert coverage.has_problems
    save_image(photos / "broken.jpg", draw_scene(77))
    coverage = ingest(empty_store)
    assert coverage.changed == 1
    assert coverage.failed == {"truncated": 1, "empty file": 1}


def test_ingest_unreadable_file_is_tried_again(
    empty_store: Store, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def deny(path: str, *rest: int) -> int:
        if str(path).endswith("b.jpg"):
            raise PermissionError(13, "Permission denied")
        return real(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", deny)
        assert ingest(empty_store, photos).failed == {"unreadable": 1}
    coverage = ingest(empty_store)
    assert not coverage.failed
    assert coverage.changed == 1


def test_find_groups_featureless_images_have_only_exact_copies(
    empty_store: Store, tmp_path: Path
) -> None:
    for number, gray in enumerate((255, 254, 250)):
        save_image(
            tmp_path / "root" / f"{number}.png", Image.new("RGB", (200, 100), (gray, gray, gray))
        )
    save_image(tmp_path / "root" / "3.bmp", Image.new("RGB", (200, 100), (255, 255, 255)))
    coverage = ingest(empty_store, tmp_path / "root")
    assert coverage.embedded == 0
    ((keeper, members),) = list_groups(empty_store, tmp_path / "root", 0.6)
    assert {keeper, *members} == {"0.png", "3.bmp"}


def test_ingest_odd_file_names_are_kept(empty_store: Store, tmp_path: Path) -> None:
    root = tmp_path / "root"
    names = [os.fsdecode(b"caf\xe9.png"), "two\nlines.png", " leading.png"]
    for name in names:
        save_image(root / name, draw_scene(1), format="PNG")
    ingest(empty_store, root)
    ((keeper, members),) = list_groups(empty_store, root)
    assert sorted([keeper, *members]) == sorted(names)
    assert ingest(empty_store).unchanged == 3


def test_ingest_other_space_raises_space_mismatch(empty_store: Store, photos: Path) -> None:
    ingest(empty_store, photos)

    class OtherSpaceEmbedder(CountingEmbedder):
        def __init__(self) -> None:
            super().__init__()
            self.space = Space(
                "onnx", "other", "1" * 64, self.space.preprocess, self.space.dim, 0.5, 0.9
            )

    save_image(photos / "new.jpg", draw_scene(9))
    with pytest.raises(SpaceMismatch, match="another folder"):
        ingest(empty_store, embedder=OtherSpaceEmbedder())
    assert empty_store.catalog.runs.get_last() is not None
    assert ingest(empty_store).embedded == 1


def test_ingest_locked_store_raises_or_waits(empty_store: Store, photos: Path) -> None:
    with (
        Store(empty_store.folder, write=True) as second,
        second.lock_for_ingest(),
        pytest.raises(StoreLocked),
    ):
        ingest(empty_store, photos)
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with Store(empty_store.folder, write=True) as second, second.lock_for_ingest():
            locked.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait()
    threading.Timer(0.2, done.set).start()
    assert ingest(empty_store, photos, options=IngestOptions(lock_timeout_seconds=30)).new == 6
    holder.join()


def test_resolve_roots_not_a_folder_raises(empty_store: Store, photos: Path) -> None:
    with pytest.raises(RootNotFound, match="nothing' does not exist"):
        resolve_roots(empty_store, [str(photos / "nothing")])
    with pytest.raises(RootNotFound, match=r"a\.png' is not a folder"):
        resolve_roots(empty_store, [str(photos / "a.png")])
    with pytest.raises(RootNotFound, match="'' does not exist"):
        resolve_roots(empty_store, [""])
    with pytest.raises(RootNotFound, match="name one"):
        resolve_roots(empty_store, [])
    roots = resolve_roots(
        empty_store, [str(photos), str(photos / "nothing"), str(photos / "." / "sub" / "..")]
    )
    assert roots.roots == [Root(str(photos))]
    assert roots.absent_paths == [str(photos / "nothing")]


def test_ingest_relative_root_is_stored_absolute(
    empty_store: Store, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    ingest(empty_store, Root("photos"))
    assert empty_store.catalog.roots.list() == [Root(str(photos))]
    assert len(find_groups(empty_store, folders=["photos"])) == 1


def test_ingest_after_kill_sweeps_leftovers(empty_store: Store, photos: Path) -> None:
    ingest(empty_store, photos)
    segments, scratch = empty_store.folder / "segments", empty_store.folder / "tmp"
    (segment,) = segments.iterdir()
    (segments / f"{'0' * 64}.faiss").write_bytes(b"orphan")
    (scratch / "123-456.faiss").write_bytes(b"half")
    ingest(empty_store)
    assert list(segments.iterdir()) == [segment]
    assert not list(scratch.iterdir())
    assert len(find_groups(empty_store)) == 1


def test_ingest_empty_folder_has_no_groups(empty_store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert ingest(empty_store, tmp_path / "empty").seen == 0
    assert find_groups(empty_store) == []


SMALL = IngestOptions(batch_size=3, commit_images=4)


@pytest.fixture(scope="module")
def six_scenes(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[tuple[str, list[str]]]]:
    """Return a folder of six scenes at two sizes each and a copy, and its groups."""
    folder = tmp_path_factory.mktemp("six_scenes")
    root = folder / "root"
    for number in range(12):
        save_image(
            root / f"{number}.jpg",
            draw_scene(number // 2).resize((160 + 40 * (number % 2), 120)),
            quality=70 + number,
        )
    (root / "copy.jpg").write_bytes((root / "3.jpg").read_bytes())
    with Store(folder / "whole", write=True) as whole:
        ingest(whole, root, options=SMALL)
        assert len(list_groups(whole, root)) == 6
        return root, list_groups(whole, root)


@settings(
    deadline=None,
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(stops=lists(integers(0, 14), max_size=4))
def test_ingest_stopped_anywhere_and_resumed_equals_one_run(
    tmp_path_factory: pytest.TempPathFactory,
    six_scenes: tuple[Path, list[tuple[str, list[str]]]],
    stops: list[int],
) -> None:
    root, whole = six_scenes
    with Store(tmp_path_factory.mktemp("stopped"), write=True) as stopped:
        for stop in stops:
            with closing(ingest_roots([Root(str(root))], stopped, load_embedder(), SMALL)) as run:
                for progress in run:
                    if progress.done >= stop and progress.total:
                        break
        ingest(stopped, root, options=SMALL)
        assert list_groups(stopped, root) == whole


@pytest.fixture(scope="module")
def three_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Group]]:
    """Return a folder with a, b and c, each with copies of three scenes, and the groups of all."""
    folder = tmp_path_factory.mktemp("orders")
    for number in range(9):
        save_image(
            folder / "abc"[number % 3] / f"{number}.jpg",
            draw_scene(number // 3, (160 + 8 * number, 120)),
            quality=80,
        )
    with Store(folder / "whole", write=True) as whole:
        ingest(whole, *(folder / name for name in "abc"))
        assert len(find_groups(whole)) == 3
        return folder, find_groups(whole)


@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(order=lists(sampled_from(["a", "b", "c"]), min_size=1, max_size=5))
def test_ingest_roots_in_any_order_gives_equal_groups(
    tmp_path_factory: pytest.TempPathFactory,
    three_folders: tuple[Path, list[Group]],
    order: list[str],
) -> None:
    folder, whole = three_folders
    with Store(tmp_path_factory.mktemp("parts"), write=True) as stepwise:
        for name in order:
            ingest(stepwise, folder / name)
        ingest(stepwise, *(folder / name for name in "cba"))
        assert find_groups(stepwise) == whole


def test_preprocess_other_size_or_fit_has_other_name() -> None:
    assert str(Preprocess(64)) != str(Preprocess(65))
    assert str(Preprocess(64)) != str(Preprocess(64, "shortest"))


@pytest.mark.parametrize(
    ("field", "same"),
    [("size", False), ("mtime_ns", False), ("ctime_ns", False), ("inode", False), ("device", True)],
)
def test_is_unchanged_since_compares_all_but_device(field: str, same: bool) -> None:
    before = FileStat(1, 2, 3, 4, 5)
    assert replace(before, **{field: 9}).is_unchanged_since(before) is same

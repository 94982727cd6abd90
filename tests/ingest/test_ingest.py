from __future__ import annotations

import math
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import integers, lists, sampled_from
from numpy.typing import NDArray
from PIL import Image

from indexes import DiskFull, Root, Space, SpaceMismatch, Store, StoreLocked
from indexes.records import FileStat
from indexes.store import Batch
from pipeline import (
    Coverage,
    Group,
    IngestOptions,
    InvalidEmbedding,
    PaidCallLimit,
    RootNotFound,
    ServiceUnavailable,
    UnusableModel,
    find_groups,
    ingest_roots,
    load_embedder,
    resolve_roots,
)
from pipeline.decode.preprocess import Preprocess
from pipeline.embed.embedder import embed
from tests.support.embedders import CountingEmbedder, PaidEmbedder
from tests.support.images import draw_scene, save_image
from tests.support.ingest import ingest


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "library", write=True) as store:
        yield store


def grouped(store: Store, root: Path, threshold: float = 0.85) -> list[tuple[str, list[str]]]:
    def name(path: str) -> str:
        return os.path.relpath(path, root)

    return [
        (name(one.keeper.path), [name(member.file.path) for member in one.members])
        for one in find_groups(store, threshold)
    ]


def test_photos_in_groups_out(library: Store, photos: Path) -> None:
    embedder = CountingEmbedder()
    coverage = ingest(library, photos, embedder=embedder, options=IngestOptions(with_crops=False))
    assert (coverage.seen, coverage.new, coverage.embedded) == (
        6,
        6,
        5,
    )  # two files are one content
    assert embedder.embedded == 5
    assert grouped(library, photos) == [
        ("a.png", ["sub/a copy.png", "sub/a.jpg", "a small.jpg"])
    ] or grouped(library, photos) == [("sub/a copy.png", ["a.png", "sub/a.jpg", "a small.jpg"])]


def test_a_second_run_reads_nothing(
    library: Store, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(library, photos)
    monkeypatch.setattr(
        "pipeline.decode.decode.read", lambda source: pytest.fail(f"{source.path} was read")
    )
    coverage = ingest(library)
    assert (coverage.unchanged, coverage.new, coverage.embedded) == (6, 0, 0)


def test_one_new_photo_costs_one_embedding(library: Store, photos: Path) -> None:
    ingest(library, photos)
    save_image(photos / "new.jpg", draw_scene(9))
    embedder = CountingEmbedder()
    coverage = ingest(library, embedder=embedder)
    assert (coverage.new, coverage.unchanged, embedder.embedded) == (1, 6, 1)


def test_renames_cost_no_embedding_and_are_counted_as_moves(library: Store, photos: Path) -> None:
    ingest(library, photos)
    before = grouped(library, photos)
    (photos / "sub").rename(photos / "renamed")
    (photos / "b.jpg").rename(photos / "bee.jpg")
    embedder = CountingEmbedder()
    coverage = ingest(library, embedder=embedder)
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
    assert sorted(grouped(library, photos)[0][1] + [grouped(library, photos)[0][0]]) == sorted(
        renamed[0][1] + [renamed[0][0]]
    )


def test_a_whole_root_may_be_renamed_inside(library: Store, tmp_path: Path) -> None:
    for number in range(20):
        save_image(tmp_path / "root" / "old" / f"{number}.jpg", draw_scene(number))
    ingest(library, tmp_path / "root")
    (tmp_path / "root" / "old").rename(tmp_path / "root" / "new")
    coverage = ingest(library)
    assert (coverage.moved, coverage.missing, coverage.embedded) == (20, 0, 0)


@pytest.mark.parametrize("stop", [1, 7, 12, 19])
def test_a_photo_is_never_grouped_with_its_own_old_path(
    library: Store, tmp_path: Path, stop: int
) -> None:
    """Not while a rename is half known, either."""
    for number in range(20):
        save_image(tmp_path / "root" / "old" / f"{number}.jpg", draw_scene(number))
    ingest(library, tmp_path / "root")
    (tmp_path / "root" / "old").rename(tmp_path / "root" / "new")
    with closing(
        ingest_roots(
            library.catalog.roots.list(),
            library,
            load_embedder(),
            IngestOptions(batch_size=2, commit_images=1),
        )
    ) as run:
        next(progress for progress in run if progress.done == stop)
    assert find_groups(library, 1.0) == []
    coverage = ingest(library)
    assert (coverage.missing, coverage.gone, coverage.embedded) == (0, 0, 0)
    assert all(
        "/new/" in known.path
        for known in library.catalog.files.find_of_images(library.catalog.images.list_in_use())
    )


def test_all_photos_moved_from_one_root_to_another(library: Store, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(8):
        save_image(tmp_path / "in" / f"{number}.jpg", draw_scene(number))
    ingest(library, tmp_path / "in", tmp_path / "pictures")
    for number in range(8):
        shutil.move(tmp_path / "in" / f"{number}.jpg", tmp_path / "pictures")
    coverage = ingest(library)
    assert (coverage.moved, coverage.missing, coverage.gone) == (8, 0, 0)
    assert find_groups(library, 1.0) == []


def test_a_missing_photo_is_marked_and_never_kept(library: Store, tmp_path: Path) -> None:
    save_image(tmp_path / "usb" / "a.jpg", draw_scene(1, (640, 480)), quality=95)
    save_image(
        tmp_path / "disk" / "a longer name.jpg", draw_scene(1, (640, 480)).resize((320, 240))
    )
    ingest(library, tmp_path / "usb", tmp_path / "disk")
    assert find_groups(library)[0].keeper.path.endswith("usb/a.jpg")
    (tmp_path / "usb").rename(tmp_path / "away")
    ingest(library)
    (found,) = find_groups(library)
    assert not found.keeper.is_missing
    assert [(member.file.path, member.file.is_missing) for member in found.members] == [
        (str(tmp_path / "usb" / "a.jpg"), True)
    ]
    (tmp_path / "away").rename(tmp_path / "usb")
    assert ingest(library).unchanged == 2
    assert find_groups(library)[0].keeper.path.endswith("usb/a.jpg")


def test_changed_content_is_read_again(library: Store, photos: Path) -> None:
    ingest(library, photos)
    save_image(photos / "b.jpg", draw_scene(1, (640, 480)))
    coverage = ingest(library)
    assert (coverage.changed, coverage.embedded) == (1, 1)
    assert "b.jpg" in {path for _, members in grouped(library, photos) for path in members}
    status = (photos / "c.webp").stat()
    os.utime(photos / "c.webp", ns=(status.st_atime_ns, status.st_mtime_ns))  # only ctime moves
    coverage = ingest(library)
    assert (coverage.changed, coverage.embedded) == (1, 0)


def test_vanished_files_leave_the_answers(library: Store, photos: Path) -> None:
    ingest(library, photos)
    (photos / "a small.jpg").unlink()
    coverage = ingest(library)
    assert (coverage.gone, coverage.missing) == (1, 0)
    assert "a small.jpg" not in {
        path for _, members in grouped(library, photos) for path in members
    }


def test_an_unmounted_root_is_no_deletion(library: Store, photos: Path, tmp_path: Path) -> None:
    for number in range(20):
        save_image(tmp_path / "disk" / f"{number}.jpg", draw_scene(number + 50))
    ingest(library, photos, tmp_path / "disk")
    before = grouped(library, photos)
    shutil.move(photos, tmp_path / "away")  # the folder is gone
    coverage = ingest(library)
    assert coverage.absent_roots == [str(photos)]
    assert coverage.has_problems
    assert grouped(library, photos) == before
    photos.mkdir()  # an empty mount point
    coverage = ingest(library)
    assert (coverage.missing, coverage.gone) == (6, 0)
    assert grouped(library, photos) == before
    for number in range(8):  # more than a fifth of the disk
        (tmp_path / "disk" / f"{number}.jpg").unlink()
    coverage = ingest(library)
    assert (coverage.missing, coverage.gone) == (14, 0)
    assert "--accept-missing" in coverage.warnings[0]
    coverage = ingest(library, options=IngestOptions(accept_missing=True))
    assert (coverage.missing, coverage.gone) == (0, 14)
    assert grouped(library, photos) == []
    photos.rmdir()
    shutil.move(tmp_path / "away", photos)  # it comes back
    assert ingest(library).embedded == 0
    assert grouped(library, photos) == before


def test_a_nested_root_that_is_away(library: Store, tmp_path: Path) -> None:
    """Its files are few among those of the root around it, and are judged by its own."""
    for number in range(30):
        save_image(tmp_path / "a" / f"{number}.jpg", draw_scene(number, (64, 48)))
    for number in range(3):
        save_image(tmp_path / "a" / "mnt" / f"{number}.jpg", draw_scene(100 + number, (64, 48)))
    ingest(library, tmp_path / "a", tmp_path / "a" / "mnt")
    shutil.move(tmp_path / "a" / "mnt", tmp_path / "away")
    for _ in range(2):
        coverage = ingest(library)
        assert (coverage.missing, coverage.gone, coverage.unchanged) == (3, 0, 30)
        (tmp_path / "a" / "mnt").mkdir(exist_ok=True)  # the second time an empty mount point


def test_a_backup_that_is_away_is_no_move(library: Store, tmp_path: Path) -> None:
    for number in range(20):
        save_image(tmp_path / "mnt" / "a" / f"{number}.jpg", draw_scene(number, (64, 48)))
    shutil.copytree(tmp_path / "mnt" / "a", tmp_path / "mnt" / "b")
    ingest(library, tmp_path / "mnt")
    assert len(find_groups(library, 1.0)) == 20
    shutil.move(tmp_path / "mnt" / "b", tmp_path / "away")
    coverage = ingest(library)
    assert (coverage.missing, coverage.gone, coverage.moved) == (20, 0, 0)
    assert len(find_groups(library, 1.0)) == 20


def test_links_onto_a_drive_that_is_away(library: Store, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    for number in range(10):
        target = save_image(tmp_path / "drive" / f"{number}.jpg", draw_scene(number, (64, 48)))
        (tmp_path / "links" / f"{number}.jpg").symlink_to(target)
    ingest(library, tmp_path / "links")
    (tmp_path / "drive").rename(tmp_path / "away")
    coverage = ingest(library)
    assert (coverage.missing, coverage.gone, coverage.left_out) == (10, 0, 0)


def test_a_folder_that_cannot_be_listed_loses_nothing(
    library: Store, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(library, photos)
    before = find_groups(library)
    real = os.scandir

    def broken(path: str) -> Any:  # noqa: ANN401 - as os.scandir has it
        if str(path).endswith("/sub"):
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(os, "scandir", broken)
    coverage = ingest(library)
    assert coverage.failed == {"unreadable folder": 1}
    assert (coverage.gone, coverage.missing, coverage.left_out) == (0, 0, 0)
    assert find_groups(library) == before


def test_a_root_that_may_not_be_looked_at_does_not_stop_the_others(
    library: Store, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos.parent / "dead").mkdir()
    ingest(library, photos, photos.parent / "dead")
    real = os.stat

    def dead(path: Any, *rest: Any, **more: Any) -> os.stat_result:  # noqa: ANN401 - as os.stat has it
        if str(path).endswith("/dead"):
            raise OSError(107, "Transport endpoint is not connected")
        return real(path, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", dead)
        patch.setattr(
            os.path, "isdir", lambda path: not str(path).endswith("/dead") and os.path.exists(path)
        )  # noqa: PTH110
        coverage = ingest(library)
    assert coverage.unchanged == 6
    assert coverage.absent_roots == [str(photos.parent / "dead")]


def test_a_root_that_is_gone_can_be_forgotten(library: Store, photos: Path, tmp_path: Path) -> None:
    card = tmp_path / "card"
    save_image(card / "1.jpg", draw_scene(40))
    ingest(library, photos, card)
    shutil.rmtree(card)
    assert ingest(library, options=IngestOptions(accept_missing=True)).absent_roots == [str(card)]
    coverage = ingest(library, card, options=IngestOptions(roots_to_remove=frozenset([str(card)])))
    assert (coverage.gone, coverage.absent_roots) == (1, [])
    assert library.catalog.roots.list() == [Root(str(photos))]
    assert not ingest(library).has_problems


def test_excluding_takes_out_of_the_answers_and_is_remembered(library: Store, photos: Path) -> None:
    ingest(library, photos)
    coverage = ingest(library, *resolve_roots(library, [str(photos)], ["sub"]).found)
    assert coverage.left_out == 2
    assert library.catalog.files.get_by_path(str(photos / "sub" / "a.jpg")) is None
    assert library.catalog.roots.list() == [Root(str(photos), ("sub",))]
    assert resolve_roots(library, []).found == [Root(str(photos), ("sub",))]
    assert resolve_roots(library, [str(photos)], [""]).found == [Root(str(photos))]


def test_a_root_inside_another_keeps_its_own_rules(library: Store, photos: Path) -> None:
    inner = save_image(photos / ".private" / "1.jpg", draw_scene(30)).parent
    ingest(library, photos)
    ingest(library, inner)
    assert [root.path for root in resolve_roots(library, [str(photos)]).found] == [
        str(inner),
        str(photos),
    ]
    for roots in (resolve_roots(library, []).found, resolve_roots(library, [str(photos)]).found):
        coverage = ingest(library, *roots)
        assert (coverage.unchanged, coverage.gone, coverage.left_out) == (7, 0, 0)


def test_hard_links_and_linked_folders_are_no_duplicates(library: Store, tmp_path: Path) -> None:
    root = tmp_path / "root"
    save_image(root / "a" / "1.jpg", draw_scene(1))
    os.link(root / "a" / "1.jpg", root / "2.jpg")
    (root / "b").symlink_to(root / "a")
    (tmp_path / "other").symlink_to(root / "a")
    (tmp_path / "other2").mkdir()
    (tmp_path / "other2" / "link.jpg").symlink_to(root / "a" / "1.jpg")
    ingest(library, root)
    ingest(library, tmp_path / "other", tmp_path / "other2")
    assert grouped(library, root) == []
    (tmp_path / "late").mkdir()
    os.link(
        root / "2.jpg", tmp_path / "late" / "4.jpg"
    )  # which changes the ctime that the store holds of the others
    ingest(library, tmp_path / "late")
    assert grouped(library, root) == []
    shutil.copy2(root / "2.jpg", root / "3.jpg")
    ingest(library)
    ((keeper, members),) = grouped(library, root)
    assert (keeper, members) in [
        ("2.jpg", ["3.jpg"]),
        ("../late/4.jpg", ["3.jpg"]),
    ]  # two names of one file, and one copy


def test_bad_files_cost_themselves_and_are_remembered(library: Store, photos: Path) -> None:
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:2000])
    (photos / "broken copy.jpg").write_bytes((photos / "broken.jpg").read_bytes())
    (photos / "empty.png").touch()
    (photos / "notes.txt").write_text("text")
    for _ in range(2):
        coverage = ingest(library, photos)
        assert coverage.failed == {"truncated": 2, "empty file": 1}
        assert coverage.skipped == {"not a photo": 1}
        assert coverage.has_problems
    save_image(photos / "broken.jpg", draw_scene(77))
    coverage = ingest(library)
    assert coverage.changed == 1
    assert coverage.failed == {"truncated": 1, "empty file": 1}


def test_an_unreadable_file_is_tried_again(
    library: Store, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refused(path: str, *rest: int) -> int:
        if str(path).endswith("b.jpg"):
            raise PermissionError(13, "Permission denied")
        return real(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        assert ingest(library, photos).failed == {"unreadable": 1}
    coverage = ingest(library)
    assert not coverage.failed
    assert coverage.changed == 1


def test_featureless_pictures_make_no_edges_but_exact_copies_are_found(
    library: Store, tmp_path: Path
) -> None:
    for number, grey in enumerate((255, 254, 250)):
        save_image(
            tmp_path / "root" / f"{number}.png", Image.new("RGB", (200, 100), (grey, grey, grey))
        )
    save_image(tmp_path / "root" / "3.bmp", Image.new("RGB", (200, 100), (255, 255, 255)))
    coverage = ingest(library, tmp_path / "root")
    assert coverage.embedded == 0
    (found,) = grouped(library, tmp_path / "root", 0.6)
    assert {found[0], *found[1]} == {"0.png", "3.bmp"}


def test_odd_names_survive(library: Store, tmp_path: Path) -> None:
    root = tmp_path / "root"
    names = [os.fsdecode(b"caf\xe9.png"), "two\nlines.png", " leading.png"]
    for name in names:
        save_image(root / name, draw_scene(1), format="PNG")
    ingest(library, root)
    (found,) = grouped(library, root)
    assert sorted([found[0], *found[1]]) == sorted(names)
    assert ingest(library).unchanged == 3


def test_another_model_is_refused(library: Store, photos: Path) -> None:
    ingest(library, photos)

    class Other(CountingEmbedder):
        def __init__(self) -> None:
            super().__init__()
            self.space = Space(
                "onnx", "other", "1" * 64, self.space.preprocess, self.space.dim, 0.5, 0.9
            )

    save_image(photos / "new.jpg", draw_scene(9))
    with pytest.raises(SpaceMismatch, match="another folder"):
        ingest(library, embedder=Other())
    assert library.catalog.runs.get_last() is not None
    assert ingest(library).embedded == 1


def test_a_model_that_returns_nonsense_stops_before_anything_is_stored(
    library: Store, photos: Path
) -> None:
    class Broken(CountingEmbedder):
        def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
            return np.full((len(inputs), self.space.dim), np.nan, np.float32)

    with pytest.raises(InvalidEmbedding):
        ingest(library, photos, embedder=Broken())
    assert library.catalog.images.list_in_use() == []


def test_a_model_that_returns_too_many_rows_is_refused() -> None:
    class Wrong(CountingEmbedder):
        def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
            return np.ones((len(inputs) + 1, self.space.dim), np.float32)

    with pytest.raises(InvalidEmbedding, match="expected"):
        embed(Wrong(), [np.zeros((192, 192, 3), np.uint8)])


def test_two_ingests_of_one_store(library: Store, photos: Path) -> None:
    with (
        Store(library.folder, write=True) as other,
        other.lock_for_ingest(),
        pytest.raises(StoreLocked),
    ):
        ingest(library, photos)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with Store(library.folder, write=True) as other, other.lock_for_ingest():
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    threading.Timer(0.2, done.set).start()
    assert ingest(library, photos, options=IngestOptions(lock_timeout_seconds=30)).new == 6
    holder.join()


def test_roots_that_are_no_folders(library: Store, photos: Path) -> None:
    with pytest.raises(RootNotFound, match="no folder"):
        resolve_roots(library, [str(photos / "nothing")])
    with pytest.raises(RootNotFound, match="no folder"):
        resolve_roots(library, [""])
    with pytest.raises(RootNotFound, match="name one"):
        resolve_roots(library, [])
    roots = resolve_roots(
        library, [str(photos), str(photos / "nothing"), str(photos / "." / "sub" / "..")]
    )
    assert roots.found == [Root(str(photos))]
    assert roots.absent_paths == [str(photos / "nothing")]


def test_relative_roots_are_remembered_whole(
    library: Store, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    ingest(library, Root("photos"))
    assert library.catalog.roots.list() == [Root(str(photos))]
    assert len(find_groups(library, folders=["photos"])) == 1


def test_what_a_killed_ingest_left_is_swept(library: Store, photos: Path) -> None:
    ingest(library, photos)
    segments, scratch = library.folder / "segments", library.folder / "tmp"
    (named,) = segments.iterdir()
    (segments / f"{'0' * 64}.faiss").write_bytes(b"orphan")
    (scratch / "123-456.faiss").write_bytes(b"half")
    ingest(library)
    assert list(segments.iterdir()) == [named]
    assert not list(scratch.iterdir())
    assert len(find_groups(library)) == 1


def test_an_empty_folder_is_fine(library: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert ingest(library, tmp_path / "empty").seen == 0
    assert find_groups(library) == []


SMALL = IngestOptions(batch_size=3, commit_images=4)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[tuple[str, list[str]]]]:
    """A folder of six scenes at two sizes each and a copy, and the groups of an ingest that nothing stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    root = folder / "root"
    for number in range(12):
        save_image(
            root / f"{number}.jpg",
            draw_scene(number // 2, (160 + 40 * (number % 2), 120)),
            quality=70 + number,
        )
    (root / "copy.jpg").write_bytes((root / "3.jpg").read_bytes())
    with Store(folder / "whole", write=True) as whole:
        ingest(whole, root, options=SMALL)
        assert len(grouped(whole, root)) == 6
        return root, grouped(whole, root)


@settings(
    deadline=None,
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(stops=lists(integers(0, 14), max_size=4))
def test_stopping_anywhere_and_going_on_equals_one_run(
    tmp_path_factory: pytest.TempPathFactory,
    undisturbed: tuple[Path, list[tuple[str, list[str]]]],
    stops: list[int],
) -> None:
    root, whole = undisturbed
    with Store(tmp_path_factory.mktemp("stopped"), write=True) as stopped:
        for stop in stops:
            with closing(ingest_roots([Root(str(root))], stopped, load_embedder(), SMALL)) as run:
                for progress in run:
                    if progress.done >= stop and progress.total:
                        break
        ingest(stopped, root, options=SMALL)
        assert grouped(stopped, root) == whole


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Group]]:
    """Three folders a, b and c, each with a copy of each of three scenes, and the groups of one ingest of all."""
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
def test_the_order_of_ingests_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, together: tuple[Path, list[Group]], order: list[str]
) -> None:
    folder, whole = together
    with Store(tmp_path_factory.mktemp("parts"), write=True) as parts:
        for name in order:
            ingest(parts, folder / name)
        ingest(parts, *(folder / name for name in "cba"))
        assert find_groups(parts) == whole


def test_views_of_another_size_are_of_another_space() -> None:
    assert str(Preprocess(64)) != str(Preprocess(65))
    assert str(Preprocess(64)) != str(Preprocess(64, "shortest"))


def test_a_few_may_vanish_and_more_may_not(library: Store, tmp_path: Path) -> None:
    for number in range(16):
        save_image(tmp_path / "root" / f"{number}.jpg", draw_scene(number, (64, 48)))
    ingest(library, tmp_path / "root")
    for number in range(5):
        (tmp_path / "root" / f"{number}.jpg").unlink()
    assert ingest(library).gone == 5
    for number in range(5, 11):
        (tmp_path / "root" / f"{number}.jpg").unlink()
    assert ingest(library).missing == 6


@pytest.mark.parametrize(
    ("field", "same"),
    [("size", False), ("mtime_ns", False), ("ctime_ns", False), ("inode", False), ("device", True)],
)
def test_what_makes_a_file_be_read_again(field: str, same: bool) -> None:
    before = FileStat(1, 2, 3, 4, 5)
    assert replace(before, **{field: 9}).is_unchanged_since(before) is same


def test_a_new_device_number_is_noted_without_reading(library: Store, photos: Path) -> None:
    ingest(library, photos)
    with library.catalog.transaction():
        library.catalog._db.execute("UPDATE files SET device = 12345")
    coverage = ingest(library)
    assert (coverage.unchanged, coverage.changed) == (6, 0)
    known = library.catalog.files.get_by_path(str(photos / "b.jpg"))
    assert known is not None
    assert known.stat.device == (photos / "b.jpg").stat().st_dev


@pytest.mark.parametrize(
    ("batch", "patience"),
    [*((8, patience) for patience in (0, 1, 7, 8, 13, 29)), (9, 27), (9, 28), (9, 29)],
)
def test_what_a_service_answered_is_never_paid_for_again(
    library: Store, tmp_path: Path, batch: int, patience: int
) -> None:
    for number in range(30):
        save_image(tmp_path / "root" / f"{number:02}.png", draw_scene(number, (64, 48)))
    save_image(
        tmp_path / "root" / "copy.bmp", draw_scene(29, (64, 48))
    )  # shares the pixels of one that may not be answered
    save_image(tmp_path / "root" / "blank.png", Image.new("RGB", (64, 48)))
    options, first, second = (
        IngestOptions(batch_size=batch),
        PaidEmbedder(patience),
        PaidEmbedder(1000),
    )
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        ingest(library, tmp_path / "root", embedder=first, options=options)
    last = library.catalog.runs.get_last()
    assert last is not None
    assert last.outcome == "interrupted"
    assert len(library.catalog.images.list_in_use()) >= patience
    coverage = ingest(library, embedder=second, options=options)
    assert sum(first.answered.values()) == patience
    assert set((first.answered + second.answered).values()) == {1}
    assert len(first.answered + second.answered) == 30
    assert (coverage.embedded, coverage.new) == (30 - patience, coverage.seen - coverage.unchanged)
    assert len(library.catalog.images.list_in_use()) == 32


@pytest.mark.parametrize("files", [30, 32])
def test_a_model_that_fails_loses_no_batch_before(
    library: Store, tmp_path: Path, files: int
) -> None:
    """Neither in a whole last batch nor in a part of one, and not what is embedded but not committed yet."""
    for number in range(files):
        save_image(tmp_path / "root" / f"{number:02}.png", draw_scene(number, (64, 48)))

    class Fails(CountingEmbedder):
        def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
            if self.embedded == 24:
                raise UnusableModel("it cannot be run")
            return super().encode(inputs)

    with pytest.raises(UnusableModel):
        ingest(library, tmp_path / "root", embedder=Fails(), options=IngestOptions(batch_size=8))
    assert len(library.catalog.images.list_in_use()) == 24
    assert ingest(library, options=IngestOptions(batch_size=8)).embedded == files - 24


def test_nobody_pays_for_more_than_was_agreed(
    library: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        save_image(tmp_path / "root" / f"{number:02}.png", draw_scene(number, (64, 48)))
    monkeypatch.setattr("pipeline.embed.paid_calls.MAX_UNCONFIRMED_CALLS", 29)
    paid = PaidEmbedder(1000)
    with pytest.raises(PaidCallLimit, match="30 files take up to 30 paid requests"):
        ingest(library, tmp_path / "root", embedder=paid)
    assert not paid.answered
    with pytest.raises(PaidCallLimit, match="20 paid requests were made"):
        ingest(library, embedder=paid, options=IngestOptions(batch_size=8, max_paid_calls=20))
    assert len(paid.answered) == 20
    assert (
        ingest(library, embedder=paid).unchanged == 20
    )  # 10 are left, which nobody needs to be asked about
    assert set(paid.answered.values()) == {1}
    save_image(tmp_path / "root" / "more.png", draw_scene(100, (64, 48)))
    monkeypatch.setattr("pipeline.embed.paid_calls.MAX_UNCONFIRMED_CALLS", 0)
    assert (
        ingest(library, embedder=paid, options=IngestOptions(accept_paid_calls=True)).embedded == 1
    )


def test_yes_lifts_no_limit_that_somebody_named(
    library: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        save_image(tmp_path / "root" / f"{number:02}.png", draw_scene(number, (64, 48)))
    monkeypatch.setattr("pipeline.embed.paid_calls.MAX_UNCONFIRMED_CALLS", 10)
    paid = PaidEmbedder(1000)
    with pytest.raises(PaidCallLimit, match="20 paid requests were made"):
        ingest(
            library,
            tmp_path / "root",
            embedder=paid,
            options=IngestOptions(batch_size=8, max_paid_calls=20, accept_paid_calls=True),
        )
    assert len(paid.answered) == 20
    assert (
        ingest(
            library,
            embedder=paid,
            options=IngestOptions(batch_size=8, max_paid_calls=10, accept_paid_calls=True),
        ).embedded
        == 10
    )


class Grouped(PaidEmbedder):
    """Takes two requests for each six pictures."""

    def count_paid_calls(self, image_count: int) -> int:
        return 2 * math.ceil(image_count / 6)


def test_a_limit_below_the_price_of_a_batch_goes_on_at_each_run(
    library: Store, tmp_path: Path
) -> None:
    for number in range(14):
        save_image(tmp_path / "root" / f"{number:02}.png", draw_scene(number, (64, 48)))
    save_image(
        tmp_path / "root" / "a copy.bmp", draw_scene(0, (64, 48))
    )  # comes after those with numbers
    save_image(tmp_path / "root" / "a copy of one that waits.bmp", draw_scene(13, (64, 48)))
    save_image(tmp_path / "root" / "blank.png", Image.new("RGB", (64, 48)))
    paid, held = Grouped(1000), []
    for _ in range(2):
        with pytest.raises(PaidCallLimit, match="2 paid requests were made"):
            ingest(
                library,
                tmp_path / "root",
                embedder=paid,
                options=IngestOptions(batch_size=20, max_paid_calls=3),
            )
        held.append(len(library.catalog.images.list_in_use()))
    assert held == [6 + 2, 12 + 2]
    assert (
        ingest(
            library, embedder=paid, options=IngestOptions(batch_size=20, max_paid_calls=3)
        ).embedded
        == 2
    )
    assert len(library.catalog.images.list_in_use()) == 17
    assert set(paid.answered.values()) == {1}
    assert len(paid.answered) == 14


def test_a_limit_below_the_price_of_one_picture_says_so(library: Store, photos: Path) -> None:
    paid = Grouped(1000)
    with pytest.raises(
        PaidCallLimit,
        match="1 photo takes up to 2 paid requests to neardup-1, and --max-calls allows 1",
    ):
        ingest(library, photos, embedder=paid, options=IngestOptions(max_paid_calls=1))
    assert not paid.answered


def test_nothing_is_counted_that_was_not_committed(
    library: Store, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:2000])
    save_image(photos / "moving.gif", draw_scene(5), save_all=True, append_images=[draw_scene(6)])

    def full(batch: Batch) -> None:
        raise DiskFull("no room")

    with monkeypatch.context() as patch:
        patch.setattr(library, "add", full)
        with pytest.raises(DiskFull):
            ingest(library, photos)
    last = library.catalog.runs.get_last()
    assert last is not None
    assert last.coverage == Coverage(seen=8).as_dict()
    assert ingest(library).flagged == {"animated": 1}


def test_a_crash_loses_no_paid_answer(library: Store, tmp_path: Path) -> None:
    for number in range(30):
        save_image(tmp_path / "root" / f"{number:02}.png", draw_scene(number, (64, 48)))
    with closing(
        ingest_roots(
            [Root(str(tmp_path / "root"))], library, PaidEmbedder(1000), IngestOptions(batch_size=8)
        )
    ) as run:
        next(progress for progress in run if progress.done == 9)
        with Store(
            library.folder
        ) as beside:  # what another process would find if this one were killed now
            assert len(beside.catalog.images.list_in_use()) == 8

"""The files of an answer: which paths are one file, and which file is where."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes import Store
from indexes.records import FileStat, NewFile
from indexes.store import Batch
from pipeline.query.files import load_files
from tests.support.cli import Run
from tests.support.images import draw_scene, save_image
from tests.support.stores import SPACE, make_image, make_unit_rows

IMAGE = make_image(0)
FOLDERS = ("card", "albums", "backup")
NAMES = [f"{folder}/{name}.jpg" for folder in FOLDERS for name in ("a", "much longer b")]
# What people do to files between two ingests; all of them hold one image.
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["copy", "move", "link", "delete", "ingest"]),
        st.sampled_from(NAMES),
        st.sampled_from(NAMES),
        st.sampled_from(FOLDERS),
    ),
    max_size=12,
)


def add_files(store: Store, *paths: Path, stat: FileStat | None = None) -> int:
    """Add files that hold IMAGE to a store, as an ingest does; return the id of the image."""
    files = [
        NewFile(str(path), stat or FileStat.from_os_stat(path.stat()), IMAGE.hash) for path in paths
    ]
    store.add(Batch(images=[(IMAGE, make_unit_rows(1, 1)[0])], files=files))
    return store.catalog.images.get_ids([IMAGE.hash])[IMAGE.hash]


def list_paths(store: Store, image_id: int, folders: Sequence[Path] = ()) -> set[str]:
    """List the paths of an image, as an answer has them."""
    files = load_files(store, [image_id], [str(folder) for folder in folders]).get(image_id, [])
    paths = [file.path for file in files]
    assert len(paths) == len(set(paths))
    return set(paths)


class Disk:
    """Folders with copies of one image; knows which paths are of one file without asking inodes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, int] = {}  # the file at each name
        self.recorded: dict[str, int] = {}  # the file at each name when it was ingested
        self._numbers = itertools.count(1)
        for name in FOLDERS:
            (folder / name).mkdir()
        self.create(NAMES[0])

    def create(self, name: str) -> None:
        self.files[name] = next(self._numbers)
        (self.folder / name).write_bytes(b"an image")
        os.utime(self.folder / name, ns=(self.files[name], self.files[name]))

    def change(self, operation: str, source: str, target: str) -> None:
        path, new_path = self.folder / source, self.folder / target
        if source not in self.files or (target in self.files and operation != "delete"):
            return
        if operation == "copy":
            self.create(target)
        elif operation == "move":
            path.rename(new_path)
            self.files[target] = self.files.pop(source)
        elif operation == "link":
            new_path.hardlink_to(path)
            self.files[target] = self.files[source]
        elif operation == "delete":
            path.unlink()
            del self.files[source]

    def ingest(self, store: Store, folder: str) -> None:
        """Record the files of one folder; those that are gone from it stay, as those away do."""
        for name in sorted(self.files):
            if name.startswith(f"{folder}/"):
                add_files(store, self.folder / name)
                self.recorded[name] = self.files[name]


@settings(max_examples=60, deadline=None)
@given(OPERATIONS)
def test_answers_have_each_file_once_by_a_path_that_is_there(
    operations: list[tuple[str, str, str, str]],
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        disk = Disk(Path(temporary))
        with Store(disk.folder / "store", write=True) as store:
            store.bind(SPACE, "test")
            for folder in FOLDERS:
                disk.ingest(store, folder)
            for operation, source, target, folder in operations:
                if operation == "ingest":
                    disk.ingest(store, folder)
                else:
                    disk.change(operation, source, target)
            image_id = store.catalog.images.get_ids([IMAGE.hash])[IMAGE.hash]
            listed = {os.path.relpath(path, disk.folder) for path in list_paths(store, image_id)}
    there = [name for name in listed if name in disk.files]
    known_there = {disk.files[name] for name in disk.recorded if name in disk.files}
    assert {disk.files[name] for name in there} == known_there
    for name in disk.recorded.keys() - listed - disk.files.keys():
        assert disk.recorded[name] in known_there  # not listed: it was moved
    for name in listed - disk.files.keys():
        assert name in disk.recorded


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store", write=True)
    store.bind(SPACE, "test")
    return store


def test_card_with_the_numbers_of_another_is_a_card_of_its_own(
    store: Store, tmp_path: Path
) -> None:
    photo, other = (tmp_path / name / "IMG_1.jpg" for name in ("one", "two"))
    for path in (photo, other):
        path.parent.mkdir()
        path.write_bytes(b"an image")
        os.utime(path, ns=(1, 1))
    numbers = FileStat.from_os_stat(photo.stat())
    away = Path("/proc/no card/IMG_1.jpg")  # below a folder on another device
    with store:
        add_files(store, photo)
        image_id = add_files(store, other, away, stat=numbers)
        assert list_paths(store, image_id) == {str(photo), str(other), str(away)}
        assert list_paths(store, image_id, [away.parent]) == {str(away)}


def test_moved_file_is_not_below_the_folder_that_it_left(store: Store, tmp_path: Path) -> None:
    old, new = tmp_path / "card" / "a.jpg", tmp_path / "albums" / "a much longer name.jpg"
    for path in (old, new):
        path.parent.mkdir()
    old.write_bytes(b"an image")
    with store:
        add_files(store, old)
        before = FileStat.from_os_stat(old.stat())
        old.rename(new)
        image_id = add_files(store, new)
        assert list_paths(store, image_id) == {str(new)}
        assert list_paths(store, image_id, [old.parent]) == set()
        old.parent.rmdir()
        assert list_paths(store, image_id) == {str(new)}
        # Another file had the same number before.
        add_files(store, old, stat=replace(before, mtime_ns=before.mtime_ns - 1))
        assert list_paths(store, image_id) == {str(old), str(new)}


def test_file_that_does_not_answer_stays_listed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "a.jpg", tmp_path / "b.jpg"
    old.write_bytes(b"an image")
    new.hardlink_to(old)
    with store:
        image_id = add_files(store, old, new)
        assert list_paths(store, image_id) == {str(old)}
        stat = os.stat

        def fail(path: str | int, **options: Any) -> os.stat_result:
            if path == str(old):
                raise PermissionError(13, "Permission denied")
            return stat(path, **options)

        with monkeypatch.context() as patched:
            patched.setattr(os, "stat", fail)
            assert list_paths(store, image_id) == {str(old), str(new)}


@pytest.mark.parametrize("with_folder", [False, True])
def test_moved_photos_are_named_by_their_new_path(
    run: Run, tmp_path: Path, with_folder: bool
) -> None:
    card, albums = tmp_path / "card", tmp_path / "albums"
    for seed, name in ((1, "a.jpg"), (2, "c.jpg")):
        save_image(card / name, draw_scene(seed))
    albums.mkdir()
    shutil.copy(card / "a.jpg", albums / "b.jpg")
    run("ingest", card, albums)
    if with_folder:
        card.rename(albums / "card")
    else:
        for name in ("a.jpg", "c.jpg"):
            (card / name).rename(albums / name)
    run("ingest", albums)
    out = run("groups")[1]
    new = albums / "card" if with_folder else albums
    assert str(new / "a.jpg") in out
    assert str(albums / "b.jpg") in out
    assert f"{card}/" not in out.replace(str(albums), "")
    assert f"{card}/" not in run("query", new / "c.jpg", "--relations", "identical,scene")[1]
    copy = shutil.copy(new / "c.jpg", tmp_path / "copy.jpg")
    assert f"identical bytes     {new / 'c.jpg'} " in run("query", copy)[1]


def test_file_stands_for_the_links_to_it(tmp_path: Path) -> None:
    photo = save_image(tmp_path / "originals" / "a long name.jpg", draw_scene(1, (64, 48)))
    (tmp_path / "a.jpg").symlink_to(photo)
    (tmp_path / "b").symlink_to(tmp_path / "originals")
    paths = [tmp_path / "a.jpg", tmp_path / "b" / photo.name, photo]
    with Store(tmp_path / "store", write=True) as store:
        store.bind(SPACE, "model")
        image_id = add_files(store, *paths)
        assert list_paths(store, image_id) == {str(photo)}
        assert list_paths(store, image_id, [tmp_path / "b"]) == {str(paths[1])}

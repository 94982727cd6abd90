"""After any history, a store answers as a store that got its present files all at once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from indexes import Store, repair
from indexes.join import exact, planner
from indexes.join import join as join_module
from indexes.records import Image, NewFile
from indexes.store import Batch
from indexes.vectors import segments
from pipeline import find_groups
from pipeline.verify.relation import REPORTED_RELATIONS
from tests.support.nightly import read_contents
from tests.support.stores import (
    SPACE,
    join_all,
    make_batch,
    make_file,
    make_hash,
    make_image,
    make_unit_rows,
    open_new_store,
)

IMAGE_COUNT = 30
NUMBERS = st.lists(st.integers(0, IMAGE_COUNT - 1), min_size=1, max_size=8, unique=True)
EVENTS_WITHOUT_NUMBERS = ["compact", "compact fully", "join", "reopen", "lose the newest segment"]
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["add", "remove", "rename"]), NUMBERS),
        st.tuples(st.sampled_from(EVENTS_WITHOUT_NUMBERS), st.just([])),
        st.tuples(st.just("join a little"), st.lists(st.integers(1, 12), min_size=1, max_size=1)),
    ),
    max_size=18,
)


def get_pixel_number(number: int) -> int:
    """Every fifth pair of images has the same pixels."""
    return number - number % 5 % 2


def make_varied_image(number: int) -> Image:
    """Make an image that may share its pixels, or be featureless."""
    return Image(
        make_hash(number),
        make_hash(get_pixel_number(number)),
        10 + number % 3,
        10,
        "PNG",
        1 + number,
        number % 11 == 10,
    )


def add_files(store: Store, files: list[NewFile], rows: NDArray[np.float32]) -> None:
    images = []
    for file in files:
        number = int.from_bytes(file.image_hash or b"", "big")
        image = make_varied_image(number)
        images.append((image, None if image.is_featureless else rows[number]))
    store.add(Batch(images, files))


def list_groups(store: Store, threshold: float) -> list[tuple[str, list[tuple[str, str, float]]]]:
    """List the keeper of each group with its members, their relations and scores."""
    groups = find_groups(store, threshold, relations=REPORTED_RELATIONS)
    return [
        (
            group.keeper.path,
            [(member.file.path, member.relation, member.score) for member in group.members],
        )
        for group in groups
    ]


@contextmanager
def small_join_steps() -> Iterator[None]:
    """Join in many blocks, with a commit after each pair of them, as in large stores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "BLOCK_ROWS", 5)
        # No power is cut here, and there are thousands of commits.
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(join_module, "MAX_UNCOMMITTED_SECONDS", -1.0)
        yield


class History:
    """A store that events change, and the files it should hold."""

    def __init__(self, folder: Path, rows: NDArray[np.float32]) -> None:
        self.folder, self.rows = folder, rows
        self.files: dict[int, NewFile] = {}
        self.store = Store(folder, write=True)
        self.store.bind(SPACE, "test")

    def apply(self, event: str, numbers: list[int]) -> None:
        """Apply an event to the images with these numbers, or to the whole store."""
        match event:
            case "add":
                new = {number: make_file(number) for number in numbers if number not in self.files}
                add_files(self.store, list(new.values()), self.rows)
                self.files |= new
            case "remove":
                held = [number for number in numbers if number in self.files]
                self.store.remove_files(self._find_ids(held))
                for number in held:
                    del self.files[number]
            case "rename":
                self._rename([number for number in numbers if number in self.files])
            case "compact" | "compact fully":
                self.store.compact(full=event == "compact fully")
            case "reopen":
                self.store.close()
                self.store = Store(self.folder, write=True)
            case "join":
                join_all(self.store)
            case "lose the newest segment":
                self._lose_newest_segment()
            case _:
                for _ in islice(self.store.join(), numbers[0]):
                    pass

    def _find_ids(self, numbers: list[int]) -> list[int]:
        files = [self.store.catalog.files.get_by_path(self.files[n].path) for n in numbers]
        return [file.id for file in files if file]

    def _rename(self, numbers: list[int]) -> None:
        moved = {
            number: make_file(number, "q" if "/p/" in self.files[number].path else "p")
            for number in numbers
        }
        batch = Batch(files=list(moved.values()), moved_file_ids=self._find_ids(numbers))
        self.store.add(batch)
        self.files |= moved

    def _lose_newest_segment(self) -> None:
        """Delete a segment, repair the store, and embed again what lost its vector."""
        segment_rows = self.store.catalog.vectors.list_segments()
        if not segment_rows:
            return
        self.store.close()
        segments.get_path(self.folder / "segments", segment_rows[-1]).unlink()
        _, report = repair(self.folder)
        assert report
        self.store = Store(self.folder, write=True)
        images = self.store.catalog.images
        lost = {image.hash for _, image in images.get(images.find_unembedded())}
        files = [file for file in self.files.values() if file.image_hash in lost]
        add_files(self.store, files, self.rows)


@settings(deadline=None, max_examples=80)
@given(seed=st.integers(0, 2**32 - 1), events=EVENTS, threshold=st.sampled_from([0.5, 0.9, 0.99]))
def test_any_history_equals_one_batch(
    seed: int, events: list[tuple[str, list[int]]], threshold: float
) -> None:
    rows = make_unit_rows(seed, IMAGE_COUNT)
    for number in range(IMAGE_COUNT):  # equal pixels give equal vectors
        rows[number] = rows[get_pixel_number(number)]
    with small_join_steps(), tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder), rows)
        for event, numbers in events:
            history.apply(event, numbers)
        with history.store as store, open_new_store() as reference:
            add_files(reference, list(history.files.values()), rows)
            join_all(reference)
            assert read_contents(store) == read_contents(reference)
            assert list_groups(store, threshold) == list_groups(reference, threshold)
            join_all(store)
            assert read_contents(store) == read_contents(reference)
            assert list_groups(store, threshold) == list_groups(reference, threshold)


def test_join_cut_off_within_a_block_continues_from_there() -> None:
    """The law above relies on watermarks in the middle of a block."""
    rows = make_unit_rows(1, 30)
    with small_join_steps(), open_new_store() as store:
        store.add(make_batch(list(range(30)), rows))
        watermarks = []
        while True:
            for _ in islice(store.join(), 3):  # the first step has the plan only
                pass
            watermark = store.catalog.pairs.get_watermark()
            assert watermark
            watermarks.append(watermark)
            if watermark.done == store.catalog.vectors.get_next_id() - 1:
                break
        assert any(watermark.block_end for watermark in watermarks)
        assert len(watermarks) > 5
        with open_new_store() as reference:
            reference.add(make_batch(list(range(30)), rows))
            assert read_contents(store) == read_contents(reference)


def test_ten_thousand_equal_images_share_one_vector() -> None:
    """Equal vectors are stored once, featureless images have none; all other pairs are found."""
    count, first_copy, first_blank = 10_000, 1000, 100_000
    rows = make_unit_rows(1, 40)
    with open_new_store() as store:
        store.add(make_batch(list(range(40)), rows))
        for start in range(0, count, 2500):
            batch = Batch()
            for offset in range(start, start + 2500):
                copy, blank = make_image(first_copy + offset), first_blank + first_copy + offset
                batch.images.append((copy, rows[0]))
                blank_image = Image(
                    make_hash(blank), make_hash(blank), 10, 10, "PNG", 1, is_featureless=True
                )
                batch.images.append((blank_image, None))
                batch.files += [make_file(first_copy + offset), make_file(blank)]
            store.add(batch)
            join_all(store)
        assert store.catalog.pairs.count() <= 40 * 39 // 2
        assert sum(row.vector_count for row in store.catalog.vectors.list_segments()) <= 40
        with open_new_store() as reference:
            reference.add(make_batch(list(range(40)), rows))
            join_all(reference)
            expected = reference.search.find_pairs(0.5).score.tolist()
            assert store.search.find_pairs(0.5).score.tolist() == expected
        groups = find_groups(store, 0.999, relations=REPORTED_RELATIONS)
        (cluster,) = [group for group in groups if len(group.members) >= count]
        assert {member.relation for member in cluster.members} == {"similar"}


def test_add_and_removal_change_only_their_own_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "MAX_EDGES_PER_VECTOR", 100)  # all are stored
    rows = make_unit_rows(2, 60)
    with open_new_store() as store:
        store.add(make_batch(list(range(50)), rows))
        join_all(store)
        edges_before = set(store.catalog.pairs.stream(-2.0))
        last_old_id = store.catalog.vectors.get_next_id() - 1
        store.add(make_batch(list(range(50, 60)), rows))
        totals = [step.total for step in store.join()]
        edges_after = set(store.catalog.pairs.stream(-2.0))
        assert edges_before < edges_after
        new_edges = edges_after - edges_before
        assert all(max(left, right) > last_old_id for left, right, _ in new_edges)
        # New vectors are compared with old and new ones, old ones not with each other again.
        new = store.catalog.vectors.get_next_id() - 1 - last_old_id
        assert totals[-1] == new * last_old_id + new * (new - 1) // 2
        file = store.catalog.files.get_by_path("/p/3")
        assert file
        groups_before = {group.keeper.path: group for group in find_groups(store, 0.9)}
        store.remove_files([file.id])
        groups_after = {group.keeper.path: group for group in find_groups(store, 0.9)}
        unaffected = {
            path
            for path, group in groups_before.items()
            if "/p/3" not in {path, *(member.file.path for member in group.members)}
        }
        affected = groups_before.keys() - unaffected
        kept = {
            path: group
            for path, group in groups_after.items()
            if path in groups_before and path not in affected
        }
        assert kept == {path: groups_before[path] for path in unaffected}

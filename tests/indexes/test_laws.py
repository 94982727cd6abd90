"""Whatever happens to a library, in whatever order, its store answers as one that was made at once of what is there in the end."""

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

from indexes import Store, StoreError, repair
from indexes.catalog.vectors import SegmentRow
from indexes.join import exact as join
from indexes.join import join as join_module
from indexes.join import planner as planning
from indexes.join.planner import JoinMethod
from indexes.records import FileStat, Image, NewFile
from indexes.store import Batch
from indexes.upkeep import compaction as compact
from indexes.vectors import scores, segment_search, segments
from indexes.vectors.scores import cosines
from pipeline import find_groups
from pipeline.verify.relation import REPORTED_RELATIONS
from tests.support.nightly import read_contents
from tests.support.stores import SPACE, make_batch, make_hash, make_unit_rows

PHOTOS = 30
NUMBERS = st.lists(st.integers(0, PHOTOS - 1), min_size=1, max_size=8, unique=True)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["add", "remove", "rename"]), NUMBERS),
        st.tuples(
            st.sampled_from(
                ["compact", "compact fully", "join", "reopen", "lose the newest segment"]
            ),
            st.just([]),
        ),
        st.tuples(st.just("join a little"), st.lists(st.integers(1, 12), min_size=1, max_size=1)),
    ),
    max_size=18,
)


def image(number: int, *, featureless: bool = False) -> Image:
    """A content whose pixels it shares with the next one, every fifth time."""
    return Image(
        make_hash(number),
        make_hash(number - number % 5 % 2),
        10 + number % 3,
        10,
        "PNG",
        1 + number,
        featureless,
    )


def photo(number: int, folder: str = "p") -> NewFile:
    return NewFile(f"/{folder}/{number}", FileStat(1, number, number, number, 1), make_hash(number))


@contextmanager
def fresh() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder), write=True) as store:
        store.bind(SPACE, "test")
        yield store


def add(store: Store, files: list[NewFile], rows: NDArray[np.float32]) -> None:
    numbers = [int.from_bytes(file.image_hash or b"", "big") for file in files]
    store.add(
        Batch(
            [
                (
                    image(number, featureless=number % 11 == 10),
                    None if number % 11 == 10 else rows[number],
                )
                for number in numbers
            ],
            files,
        )
    )


def answers(store: Store, least: float) -> list[tuple[str, list[tuple[str, str, float]]]]:
    groups = find_groups(store, least, relations=REPORTED_RELATIONS)
    return [
        (
            group.keeper.path,
            [(member.file.path, member.relation, member.score) for member in group.members],
        )
        for group in groups
    ]


@contextmanager
def small_steps() -> Iterator[None]:
    """Joins of many blocks, with a commit after each pair of them, as large stores have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(join, "BLOCK_ROWS", 5)
        patch.setattr(
            os, "fsync", lambda descriptor: None
        )  # no power is cut here, and there are thousands of commits
        patch.setattr(join_module, "MAX_UNCOMMITTED_SECONDS", -1.0)
        yield


@settings(deadline=None, max_examples=80)
@given(seed=st.integers(0, 2**32 - 1), events=EVENTS, least=st.sampled_from([0.5, 0.9, 0.99]))
def test_any_history_equals_one_batch(
    seed: int, events: list[tuple[str, list[int]]], least: float
) -> None:
    rows = make_unit_rows(seed, PHOTOS)
    for number in range(PHOTOS):  # pixels that are the same give the same vector
        rows[number] = rows[number - number % 5 % 2]
    there: dict[int, NewFile] = {}
    with small_steps(), tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder), write=True)
        store.bind(SPACE, "test")
        for event, numbers in events:
            known = [
                (number, store.catalog.files.get_by_path(there[number].path))
                for number in numbers
                if number in there
            ]
            match event:
                case "add":
                    new = {number: photo(number) for number in numbers if number not in there}
                    add(store, list(new.values()), rows)
                    there |= new
                case "remove":
                    store.remove_files([file.id for _, file in known if file])
                    for number, _ in known:
                        del there[number]
                case "rename":
                    moved = {
                        number: photo(number, "q" if "/p/" in there[number].path else "p")
                        for number, _ in known
                    }
                    store.add(
                        Batch(
                            files=list(moved.values()),
                            moved_file_ids=[file.id for _, file in known if file],
                        )
                    )
                    there |= moved
                case "compact" | "compact fully":
                    store.compact(full=event == "compact fully")
                case "reopen":
                    store.close()
                    store = Store(Path(folder), write=True)
                case "join":
                    for _ in store.join():
                        pass
                case "lose the newest segment":
                    if rows_of_segments := store.catalog.vectors.list_segments():
                        store.close()
                        (
                            Path(folder)
                            / "segments"
                            / f"{rows_of_segments[-1].blake3}{segments.SUFFIX}"
                        ).unlink()
                        _, done = repair(Path(folder))
                        assert done
                        store = Store(Path(folder), write=True)
                        ids = store.catalog.images.find_unembedded()
                        lost = {image.hash for _, image in store.catalog.images.get(ids)}
                        add(
                            store,
                            [file for file in there.values() if file.image_hash in lost],
                            rows,
                        )
                case _:
                    for _ in islice(store.join(), numbers[0]):
                        pass
        with store, fresh() as once:
            add(once, list(there.values()), rows)
            for _ in once.join():
                pass
            assert read_contents(store) == read_contents(once)
            assert answers(store, least) == answers(once, least)
            for _ in store.join():
                pass
            assert read_contents(store) == read_contents(once)
            assert answers(store, least) == answers(once, least)


def test_a_join_is_cut_off_between_blocks() -> None:
    """What the law above relies on: a join that is left half done says how far it came, in the middle of a block."""
    rows = make_unit_rows(1, 30)
    with small_steps(), fresh() as store:
        store.add(make_batch(list(range(30)), rows))
        met = []
        while True:
            for _ in islice(store.join(), 3):  # the first says what is planned
                pass
            frontier = store.catalog.pairs.get_watermark()
            assert frontier
            met.append(frontier)
            if frontier.done == store.catalog.vectors.get_next_id() - 1:
                break
        assert any(one.block_end for one in met)
        assert len(met) > 5
        with fresh() as once:
            once.add(make_batch(list(range(30)), rows))
            assert read_contents(store) == read_contents(once)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(2, 60),
    count=st.integers(1, 70),
    gone=st.sets(st.integers(0, 59)),
)
def test_nearest_equals_brute_force(seed: int, rows: int, count: int, gone: set[int]) -> None:
    made = make_unit_rows(seed, rows)
    with fresh() as store:
        for start in range(0, rows, 25):
            store.add(make_batch(list(range(start, min(start + 25, rows))), made))
        lost = [store.catalog.files.get_by_path(f"/p/{number}") for number in gone]
        store.remove_files([known.id for known in lost if known])
        found = store.search.find_nearest(made, count)
        ids = store.catalog.images.get_ids([make_hash(number) for number in range(rows)])
        left = [number for number in range(rows) if number not in gone]
        stored = made.astype(np.float16)
        for query in range(rows):
            mine = found.left == query
            scores = cosines(np.broadcast_to(stored[query], stored.shape), stored)
            best = sorted((-float(scores[number]), ids[make_hash(number)]) for number in left)[
                :count
            ]
            assert [
                (-score, id_)
                for id_, score in zip(
                    found.right[mine].tolist(), found.score[mine].tolist(), strict=True
                )
            ] == best
        with pytest.raises(StoreError, match="1 or more"):
            store.search.find_nearest(made, 0)


def test_few_and_many_queries_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_unit_rows(4, 300)
    with fresh() as store:
        store.add(make_batch(list(range(300)), made))
        answers = []
        for few, first, block in ((1000, 1, 10), (1000, 64, 10), (0, 64, 7), (0, 64, 4096)):
            monkeypatch.setattr(segment_search, "MAX_SCANNED_QUERIES", few)
            monkeypatch.setattr(segment_search, "INITIAL_SEARCH_K", first)
            monkeypatch.setattr(scores, "PRODUCT_BLOCK_ROWS", block)
            found = store.search.find_within(made, 0.3)
            answers.append((found.left.tolist(), found.right.tolist(), found.score.tolist()))
        assert len(answers[0][0]) > 1000
        assert all(answer == answers[0] for answer in answers)


def test_ten_thousand_equal_pictures_make_no_crowd() -> None:
    """Equal vectors are one, blank pictures have none; the pairs of others are all there."""
    count = 10_000
    rows = make_unit_rows(1, 40)
    with fresh() as store:
        store.add(make_batch(list(range(40)), rows))
        for start in range(0, count, 2500):
            batch = Batch()
            for number in range(1000 + start, 1000 + start + 2500):
                batch.images.append(
                    (Image(make_hash(number), make_hash(number), 10, 10, "PNG", 1, False), rows[0])
                )
                blank = 100_000 + number
                batch.images.append(
                    (Image(make_hash(blank), make_hash(blank), 10, 10, "PNG", 1, True), None)
                )
                batch.files += [photo(number), photo(blank)]
            store.add(batch)
            for _ in store.join():
                pass
        assert store.catalog.pairs.count() <= 40 * 39 // 2
        assert sum(row.vector_count for row in store.catalog.vectors.list_segments()) <= 40
        with fresh() as few:
            few.add(make_batch(list(range(40)), rows))
            for _ in few.join():
                pass
            assert (
                store.search.find_pairs(0.5).score.tolist()
                == few.search.find_pairs(0.5).score.tolist()
            )
        (crowd,) = [
            group
            for group in find_groups(store, 0.999, relations=REPORTED_RELATIONS)
            if len(group.members) >= count
        ]
        assert {member.relation for member in crowd.members} == {"similar"}


def test_a_crowd_raises_the_floor_and_a_lower_threshold_is_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = make_unit_rows(1, 60)
    with fresh() as store:
        store.add(make_batch(list(range(60)), rows))
        expected = store.search.find_pairs(-1.0)
        monkeypatch.setattr(planning, "MAX_EDGES_PER_VECTOR", 2)
        monkeypatch.setattr(planning, "MIN_EDGE_BUDGET", 0)
        for _ in store.join():
            pass
        frontier = store.catalog.pairs.get_watermark()
        assert frontier
        assert SPACE.floor < frontier.floor <= SPACE.threshold
        assert store.catalog.pairs.count() < len(expected.score)
        for least in (-1.0, 0.0, frontier.floor, 0.95):
            found = store.search.find_pairs(least)
            keep = expected.score >= least
            assert (found.left.tolist(), found.score.tolist()) == (
                expected.left[keep].tolist(),
                expected.score[keep].tolist(),
            )


@pytest.mark.parametrize("first", [60, 0])
def test_a_small_crowd_raises_no_floor_and_one_that_became_small_beside_others_lowers_it_again(
    monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """So that all pairs are known in the end, whatever came first."""
    monkeypatch.setattr(planning, "MAX_EDGES_PER_VECTOR", 2)
    monkeypatch.setattr(planning, "MIN_EDGE_BUDGET", 0)
    crowd = np.abs(make_unit_rows(1, 60))
    rows = np.concatenate(
        [
            crowd / np.linalg.norm(crowd, axis=1, keepdims=True),
            np.eye(SPACE.dim, dtype=np.float32)[:4],
        ]
    )
    with fresh() as store:
        if first:
            store.add(make_batch(list(range(first)), rows))
            list(store.join())
            frontier = store.catalog.pairs.get_watermark()
            assert frontier
            assert frontier.floor > SPACE.floor
        monkeypatch.setattr(planning, "MIN_EDGE_BUDGET", 10_000)
        store.add(make_batch(list(range(first, 64)), rows))
        list(store.join())
        frontier = store.catalog.pairs.get_watermark()
        assert frontier
        assert (frontier.floor, frontier.done) == (
            SPACE.floor,
            store.catalog.vectors.get_next_id() - 1,
        )
        expected = store.search.find_pairs(SPACE.floor)
        assert store.catalog.pairs.count() == len(expected.score)
        assert len(expected.score) > 60 * 59 / 4


def test_adds_and_removals_touch_only_their_own_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MAX_EDGES_PER_VECTOR", 100)  # all are kept
    rows = make_unit_rows(2, 60)
    with fresh() as store:
        store.add(make_batch(list(range(50)), rows))
        for _ in store.join():
            pass
        before = set(store.catalog.pairs.stream(-2.0))
        newest = store.catalog.vectors.get_next_id() - 1
        store.add(make_batch(list(range(50, 60)), rows))
        totals = [step.total for step in store.join()]
        after = set(store.catalog.pairs.stream(-2.0))
        assert before < after
        assert all(max(left, right) > newest for left, right, _ in after - before)
        new = store.catalog.vectors.get_next_id() - 1 - newest
        assert (
            totals[-1] == new * newest + new * (new - 1) // 2
        )  # new with old and new with new, old with old not again
        gone = store.catalog.files.get_by_path("/p/3")
        assert gone
        groups = {group.keeper.path: group for group in find_groups(store, 0.9)}
        store.remove_files([gone.id])
        left = {group.keeper.path: group for group in find_groups(store, 0.9)}
        ours = {
            id_
            for id_, group in groups.items()
            if "/p/3" in {group.keeper.path, *(member.file.path for member in group.members)}
        }
        assert {id_: group for id_, group in left.items() if id_ in groups and id_ not in ours} == {
            id_: group for id_, group in groups.items() if id_ not in ours
        }


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_no_vector_is_copied_more_than_log2_n_times(data: st.DataObject) -> None:
    """Random adds, deaths and compactions, by the rows alone."""
    rows: list[SegmentRow] = []
    dead: dict[str, int] = {}
    ever = 0
    for step in range(data.draw(st.integers(1, 120))):
        count = data.draw(st.sampled_from([1, 5, 60, 1000, 9000]))
        rows.append(SegmentRow(str(step), count, count, ever + 1, ever + count, 0, 0, 0, 0))
        ever += count
        for row in rows:
            dead[row.blake3] = (
                data.draw(st.sampled_from([0, 0, row.vector_count // 2, row.vector_count]))
                if step % 7 == 0
                else dead.get(row.blake3, 0)
            )
        runs = compact.plan_merges(rows, dead, ever, 16, full=data.draw(st.integers(0, 9)) == 0)
        for run in runs:
            at = rows.index(run[0])
            assert rows[at : at + len(run)] == list(run)
            kept = sum(row.vector_count - dead[row.blake3] for row in run)
            copied = (
                max(
                    (row.rewrites for row in run if dead[row.blake3] < row.vector_count), default=-1
                )
                + 1
            )
            made = SegmentRow(
                f"{step}-{at}", kept, kept, run[0].first_id, run[-1].last_id, copied, 0, 0, 0
            )
            rows[at : at + len(run)] = [made] if kept else []
            dead[made.blake3] = 0
            assert made.rewrites <= np.log2(ever)
    dead |= {
        row.blake3: row.vector_count for row in rows
    }  # photos that are all gone leave nothing, however often they were copied
    assert sum(len(run) for run in compact.plan_merges(rows, dead, ever, 16, full=True)) == len(
        rows
    )
    if all(row.rewrites + 1 <= np.log2(ever) for row in rows):
        assert len(rows) <= 8 * 7 * 6


def test_a_year_of_nights_stays_few_segments() -> None:
    rows: list[SegmentRow] = []
    most = 0
    for night in range(365):
        rows.append(
            SegmentRow(str(night), 150, 150, 150 * night + 1, 150 * night + 150, 0, 0, 0, 0)
        )
        for run in compact.plan_merges(
            rows, {row.blake3: 0 for row in rows}, rows[-1].last_id, 256
        ):
            at = rows.index(run[0])
            total = sum(row.vector_count for row in run)
            made = SegmentRow(
                f"{night} {at}",
                total,
                total,
                run[0].first_id,
                run[-1].last_id,
                max(row.rewrites for row in run) + 1,
                0,
                0,
                0,
            )
            rows[at : at + len(run)] = [made]
        most = max(most, len(rows))
    assert most <= 24
    assert max(row.rewrites for row in rows) <= 4


@pytest.mark.parametrize("way", list(JoinMethod))
def test_both_ways_find_the_pairs(way: JoinMethod) -> None:
    rng = np.random.default_rng(3)
    made = rng.standard_normal((3000, SPACE.dim))
    made[1500:] = made[:1500] + 0.25 * rng.standard_normal((1500, SPACE.dim))
    rows = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    with fresh() as store:
        store.add(make_batch(list(range(2000)), rows))
        for _ in store.join(way):
            pass
        store.add(make_batch(list(range(2000, 3000)), rows))
        *_, last = store.join(way)
        assert last.plan.method is way
        assert "as requested" in last.plan.reason
        frontier = store.catalog.pairs.get_watermark()
        assert frontier
        least = frontier.floor
        kept = {(left, right): score for left, right, score in store.catalog.pairs.stream(-2.0)}
        with fresh() as once:
            once.add(make_batch(list(range(3000)), rows))
            found = once.search.find_pairs(least)
        exact = dict(
            zip(
                zip(found.left.tolist(), found.right.tolist(), strict=True),
                found.score.tolist(),
                strict=True,
            )
        )
        assert kept.items() <= exact.items()
        if way is JoinMethod.EXACT:
            assert kept == exact
            assert last.recall is None
        else:
            assert last.recall
            assert last.recall.sampled > 100
            assert len(kept) >= 0.99 * len(exact)
            assert last.recall.found / last.recall.sampled >= len(kept) / len(exact) - 0.01
            assert last.recall.lower_bound_95 < 1


def test_the_planner_takes_buckets_where_exact_takes_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = make_unit_rows(1, 500)
    with fresh() as store:
        store.add(make_batch(list(range(500)), rows))
        first = next(store.join())
        assert first.plan.method is JoinMethod.EXACT
        assert "if compared exactly" in first.plan.reason
        monkeypatch.setattr(planning, "MAX_EXACT_SECONDS", 1e-9)
        second = next(store.join())
        assert second.plan.method is JoinMethod.IVF
        assert "the limit is" in second.plan.reason


def test_recall_is_bounded_as_the_binomial_says() -> None:
    from indexes.join.recall import Recall

    assert Recall(3000, 3000, 1, 1).lower_bound_95 == pytest.approx(0.05 ** (1 / 3000))
    assert Recall(3000, 3000, 1, 1).lower_bound_95 > 0.999
    assert Recall(2999, 3000, 1, 1).lower_bound_95 == pytest.approx(
        0.99842, abs=1e-5
    )  # from tables: 4.74 / 3000
    assert Recall(0, 0, 1, 1).lower_bound_95 == 0
    assert Recall(0, 10, 1, 1).lower_bound_95 == pytest.approx(0, abs=1e-9)

"""Laws of the listing: it is what find_groups() finds, whatever a person chooses."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexes import Store
from indexes.caches import groups
from pipeline.errors import ChoiceRefused, DecisionRefused
from pipeline.review.choices import Choice, Outcome, Reviewer
from pipeline.review.filters import GroupFilter
from pipeline.review.listing import ListedGroup, Listing
from pipeline.verify.relation import Relation
from tests.support.reviews import (
    build_here,
    find_documents,
    list_documents,
    make_store_of_verdicts,
)

# What a person does: a choice for one of the groups and one of its files, or an undo.
STEPS = st.lists(
    st.tuples(st.sampled_from([*Choice, None]), st.integers(0, 99), st.integers(0, 99)), max_size=6
)


@pytest.fixture(autouse=True)
def built_here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        build_here(patch)
        # A choice changes nothing on disk, so what a power cut would undo does not matter here.
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


def choose(reviewer: Reviewer, choice: Choice, group: ListedGroup, number: int) -> Outcome | None:
    """Make a choice with one file of a group, or several to separate; None if it is refused."""
    path = group.files[number % len(group.files)].path
    paths = {
        Choice.MAKE_KEEPER: [path],
        Choice.REJECT: [path],
        Choice.SEPARATE: [path] if number % 2 else [],
    }
    try:
        return reviewer.choose(group.id, choice, paths.get(choice, []))
    except (ChoiceRefused, DecisionRefused):
        return None


def read_all(listing: Listing) -> dict[str, ListedGroup]:
    return {group.id: group for group in listing.page(limit=200).groups}


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10**6), steps=STEPS)
def test_listing_is_what_find_groups_finds_after_any_choices(
    seed: int, steps: list[tuple[Choice | None, int, int]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_store_of_verdicts(folder, seed)
        with Listing(folder) as listing, Reviewer(folder, listing, "ann") as reviewer:
            listing.refresh()
            befores = list[dict[str, ListedGroup]]()
            for choice, group_number, file_number in steps:
                groups = list(read_all(listing).values())
                if choice is None:
                    outcome = reviewer.undo()
                    assert (outcome is None) == (not befores)
                    if befores:
                        assert read_all(listing) == befores.pop()
                elif groups:
                    before = read_all(listing)
                    if choose(reviewer, choice, groups[group_number % len(groups)], file_number):
                        befores.append(before)
                    else:
                        assert read_all(listing) == before
                assert not listing.is_stale()
                with Store(folder) as store:
                    assert list_documents(listing) == find_documents(store)
            while befores:
                assert reviewer.undo()
                assert read_all(listing) == befores.pop()
            assert reviewer.undo() is None
            with Store(folder) as store:
                assert store.catalog.decisions.list() == []
                assert list_documents(listing) == find_documents(store)


def passes(group: ListedGroup, group_filter: GroupFilter) -> bool:
    """Tell if a group fulfils a filter, by its files and its JSON."""
    relations = {member["relation"] for member in group.document["members"]}
    paths = [file.path for file in group.files]
    folder, name = group_filter.folder, group_filter.name
    return (
        (not group_filter.relations or not relations.isdisjoint(group_filter.relations))
        and (folder is None or any(path.startswith(f"{folder}/") for path in paths))
        and (name is None or any(name.lower() in Path(path).name.lower() for path in paths))
        and group.bytes_to_free >= (group_filter.min_bytes or 0)
        and not (group_filter.is_undecided and group.state)
    )


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10**6),
    window=st.integers(1, 5),
    limit=st.integers(1, 4),
    group_filter=st.builds(
        GroupFilter,
        st.frozensets(st.sampled_from([Relation.DERIVED, Relation.IDENTICAL_PIXELS]), max_size=1),
        st.sampled_from([None, "/p", "/p/1", "/p/copies", "/q"]),
        st.sampled_from([None, 0, 300]),
        is_undecided=st.booleans(),
        name=st.sampled_from([None, "img", "PNG", "1", "4.p", "%"]),
    ),
)
def test_pages_of_a_filter_are_all_groups_that_pass_it_in_order(
    seed: int, window: int, limit: int, group_filter: GroupFilter
) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "NEXT_GROUPS", window)
        folder = Path(name)
        make_store_of_verdicts(folder, seed)
        with Listing(folder) as listing, Reviewer(folder, listing, "ann") as reviewer:
            listing.refresh()
            for group in listing.page().groups[::2]:
                reviewer.choose(group.id, Choice.SKIP)
            everything = listing.page(limit=200).groups
            expected = [group for group in everything if passes(group, group_filter)]
            found, cursor, is_last = list[ListedGroup](), None, False
            while not is_last:
                page = listing.page(group_filter, cursor, limit)
                found += page.groups
                cursor, is_last = page.next_cursor, page.next_cursor is None
                assert is_last or len(page.groups) == limit
            assert found == expected
            assert listing.count(group_filter).groups == len(expected)
            for first, second in pairwise(expected):
                assert listing.find_neighbors(first.id, group_filter).next == second.id
                assert listing.find_neighbors(second.id, group_filter).previous == first.id

"""Laws of the listing: it is what find_groups() finds, whatever a person chooses."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexes import Store
from pipeline.errors import ChoiceRefused, DecisionRefused
from pipeline.review.choices import Choice, Outcome, Reviewer
from pipeline.review.listing import ListedGroup, Listing
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

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes import Store
from pipeline.errors import InvalidFilter, ReviewFailed, UnknownGroup
from pipeline.review.cursors import encode_cursor, parse_cursor
from pipeline.review.filters import NO_FILTER, GroupFilter, parse_filter
from pipeline.review.listing import MAX_PAGE_GROUPS, Listing
from pipeline.verify.relation import Relation
from tests.support.ingest import ingest
from tests.support.reviews import find_documents, list_documents, make_store_of_verdicts


def list_names(listing: Listing, group_filter: GroupFilter = NO_FILTER) -> list[str]:
    """The name of the keeper of each group of a filter, in order."""
    groups = listing.page(group_filter, limit=MAX_PAGE_GROUPS).groups
    assert listing.count(group_filter).groups == len(groups)
    assert listing.count(group_filter).bytes_to_free == sum(item.bytes_to_free for item in groups)
    return [Path(group.files[0].path).name for group in groups]


def test_groups_are_those_of_the_command_line(
    listing: Listing, library: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    code, output, _ = run("groups", "--store", library, "--json")
    assert code == 0
    expected = {group["id"]: group for group in json.loads(output)["groups"]}
    assert {group["id"]: group for group in list_documents(listing)} == expected
    for group in listing.page().groups:
        files = [group.document["keeper"], *group.document["members"]]
        assert [file.path for file in group.files] == [file["path"] for file in files]


def test_pages_are_in_order_without_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store_of_verdicts(tmp_path, 1, 60)
    with Listing(tmp_path) as listing, Store(tmp_path) as store:
        listing.refresh()  # in a child process, as always
        expected = find_documents(store)
        assert len(expected) > 10
        assert list_documents(listing) == expected
        groups = listing.page(limit=MAX_PAGE_GROUPS).groups
        ids = [group.id for group in groups]
        for number, group_id in enumerate(ids):
            neighbors = listing.find_neighbors(group_id)
            assert neighbors.previous == (ids[number - 1] if number else None)
            assert neighbors.next == (ids[number + 1] if number + 1 < len(ids) else None)


def test_an_unbuilt_listing_is_empty_and_stale(library: Path) -> None:
    with Listing(library) as listing:
        assert (listing.is_built, listing.is_stale()) == (False, True)
        assert listing.page().groups == ()
        assert listing.count_progress().groups == 0


def test_a_listing_is_kept_until_the_store_changes(
    listing: Listing, library: Path, tmp_path: Path
) -> None:
    with Listing(library) as other:
        assert other.is_built
        assert not other.is_stale()
        assert not other.refresh()
        before = list_documents(listing)
        with Store(library, write=True) as store:
            (tmp_path / "photos" / "c SMALL.jpg").unlink()
            ingest(store, tmp_path / "photos")
        assert other.is_stale()
        assert list_documents(other) == before
        assert other.refresh()
        assert not listing.is_stale()
        assert list_documents(listing) == list_documents(other) != before


def test_force_builds_again_what_files_on_disk_changed(listing: Listing, tmp_path: Path) -> None:
    (tmp_path / "photos" / "b small.jpg").unlink()
    assert not listing.refresh()
    assert listing.refresh(force=True)
    members = [member for group in list_documents(listing) for member in group["members"]]
    away = [Path(member["path"]).name for member in members if "missing" in member]
    assert away == ["b small.jpg"]


def test_build_that_fails_keeps_the_listing(
    listing: Listing, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list_documents(listing)
    monkeypatch.undo()  # a real child
    (library / "catalog.db").rename(library / "away.db")
    with pytest.raises(ReviewFailed, match="could not be listed"):
        listing.refresh(force=True)
    (library / "away.db").rename(library / "catalog.db")
    assert list_documents(listing) == before
    assert listing.refresh(force=True)


def test_a_damaged_listing_is_built_again(library: Path, listing: Listing) -> None:
    before = list_documents(listing)
    listing.close()
    (library / "caches" / "groups.db").write_bytes(b"no database" * 1000)
    with Listing(library) as again:
        assert not again.is_built
        assert again.refresh()
        assert list_documents(again) == before


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, ["a.png", "b large.jpg", "c.webp"]),
        ({"relations": "identical bytes"}, ["a.png"]),
        ({"relations": "same picture,derived"}, ["a.png", "b large.jpg", "c.webp"]),
        ({"relations": "identical pixels"}, []),
        ({"name": "small"}, ["a.png", "b large.jpg", "c.webp"]),
        ({"name": "c S"}, ["c.webp"]),
        ({"name": "%"}, []),
        ({"name": "photos"}, []),
        ({"undecided": "1"}, ["a.png", "b large.jpg", "c.webp"]),
        ({"first_day": "2020-01-01"}, []),
        ({"min_confidence": "0"}, ["a.png", "b large.jpg", "c.webp"]),
        ({"min_confidence": "1"}, []),
        ({"min_bytes": "0"}, ["a.png", "b large.jpg", "c.webp"]),
        ({"min_bytes": str(1 << 62)}, []),
        ({"folder": "", "name": ""}, ["a.png", "b large.jpg", "c.webp"]),
    ],
)
def test_filters_select_groups(listing: Listing, query: dict[str, str], names: list[str]) -> None:
    assert sorted(list_names(listing, parse_filter(query))) == names


def test_folder_filter_needs_a_file_below_the_folder(listing: Listing, tmp_path: Path) -> None:
    def list_below(folder: Path | str) -> list[str]:
        return list_names(listing, parse_filter({"folder": str(folder)}))

    photos = tmp_path / "photos"
    assert list_below(photos / "sub") == list_below(f"{photos}/sub/") == ["a.png"]
    assert len(list_below(photos)) == len(list_below("/")) == 3
    assert list_below(photos / "su") == list_below(f"{photos}/a.png") == []


def test_date_filter_takes_both_days(tmp_path: Path) -> None:
    make_store_of_verdicts(tmp_path, 1, 60)
    with Listing(tmp_path) as listing:
        listing.refresh()
        everything = listing.page(limit=MAX_PAGE_GROUPS).groups
        dated = [group for group in everything if "taken" in json.dumps(group.document)]
        day = date(2001, 9, 9)  # of all photos of this store with a date
        within = listing.page(GroupFilter(first_day=day, last_day=day), limit=MAX_PAGE_GROUPS)
        assert 0 < len(dated) < len(everything)
        assert [group.id for group in within.groups] == [group.id for group in dated]
        assert listing.count(GroupFilter(last_day=date(2001, 9, 8))).groups == 0
        assert listing.count(GroupFilter(first_day=date(2001, 9, 10))).groups == 0


HOSTILE_VALUES = {
    "relations": ["identical", "same picture;", "' OR 1=1", "unrelated", "identical bytes,"],
    "folder": ["relative", "../etc", "x" * 2000, "/\ud800", "/a\0b"],
    "min_bytes": ["-1", "1e9", "١", "1" * 40, "0x10", "1.5"],
    "first_day": ["2020-13-01", "20200101", "yesterday", "2020-1-1", "0000-00-00"],
    "last_day": ["2020-W01-1", "10000-01-01"],
    "min_confidence": ["nan", "inf", "-0.1", "1.1", "x"],
    "undecided": ["2", "true", " 1"],
    "name": ["x" * 1001, "a\0b"],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in HOSTILE_VALUES.items() for value in values],
)
def test_hostile_filters_are_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(InvalidFilter, match=f"^{name} is ") as caught:
        parse_filter({name: value})
    assert str(caught.value).isprintable()


def test_unknown_filter_is_refused_and_not_passed_over() -> None:
    with pytest.raises(InvalidFilter, match="no filter 'min_byte'; there are relations, folder, "):
        parse_filter({"min_byte": "1", "name": "a"})
    assert parse_filter({"cursor": "x"}, ["cursor"]) == NO_FILTER


@pytest.mark.parametrize("value", [1, ["a"], {}, True, 1.5])
def test_filters_that_are_no_text_are_refused(value: object) -> None:
    assert parse_filter({"name": None}) == NO_FILTER
    with pytest.raises(InvalidFilter, match="name is no text"):
        parse_filter({"name": value})


@given(
    st.builds(
        GroupFilter,
        st.frozensets(st.sampled_from([Relation.DERIVED, Relation.IDENTICAL_BYTES])),
        st.none() | st.just("/a b/é\udcff"),
        st.none() | st.integers(0, 1 << 62),
        st.none() | st.dates(),
        st.none() | st.dates(),
        st.none() | st.floats(0, 1),
        st.booleans(),
        st.none() | st.just("a%_'\""),
    )
)
def test_filters_survive_their_parameters(group_filter: GroupFilter) -> None:
    assert parse_filter(group_filter.to_query()) == group_filter


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.binary(max_size=300))
def test_cursors_survive_their_text(rank: int, path: bytes) -> None:
    assert parse_cursor(encode_cursor(rank, path)) == (rank, path)


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: data.hex()))
def test_foreign_cursors_are_refused(text: str) -> None:
    with pytest.raises(InvalidFilter, match="cursor"):
        parse_cursor(text)


@given(st.integers(0, 200), st.characters())
def test_changed_cursors_are_refused(position: int, character: str) -> None:
    cursor = encode_cursor(-12345, b"/photos/a.jpg")
    changed = cursor[:position] + character + cursor[position + 1 :]
    if changed != cursor:
        with pytest.raises(InvalidFilter, match="cursor"):
            parse_cursor(changed)


@pytest.mark.parametrize("limit", [0, -1, MAX_PAGE_GROUPS + 1])
def test_pages_have_a_bounded_size(listing: Listing, limit: int) -> None:
    with pytest.raises(InvalidFilter, match="page"):
        listing.page(limit=limit)


@pytest.mark.parametrize(
    "group_id", ["", "0" * 32, "x" * 32, "' OR 1=1 --", "../../etc/passwd", "é" * 32, "0" * 10**6]
)
def test_unknown_groups_are_named(listing: Listing, group_id: str) -> None:
    for ask in (listing.get, listing.find_neighbors, listing.find):
        with pytest.raises(UnknownGroup, match="there is no group"):
            ask(group_id)


def test_files_are_found_by_the_hash_of_their_bytes(listing: Listing) -> None:
    file = listing.page().groups[0].files[-1]
    found = listing.find_file(file.hash)
    assert found
    assert found.hash == file.hash
    assert listing.find_file(b"x" * 32) is None

"""Groups obey the decisions of people, whatever the verdicts, the order and new images."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations, permutations, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import DrawFn, composite, integers, lists, sampled_from

from indexes.decisions import DecidedContent, Decision, DecisionKind
from indexes.records import FileStat, Image
from pipeline.grouping.cluster import Group, form_groups
from pipeline.grouping.decisions import Decisions, Partition
from pipeline.grouping.edges import Edge, make_closeness_key
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.verify.relation import COPY_RELATIONS, Relation
from pipeline.verify.verdict import Verdict

IMAGE_COUNT = 7
START = datetime(2026, 11, 30, 12, tzinfo=UTC)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
DIFFERENT, SAME, KEEP = DecisionKind.DIFFERENT, DecisionKind.SAME, DecisionKind.KEEP

Files = Mapping[bytes, Sequence[LibraryFile]]


def make_hash(number: int) -> bytes:
    return number.to_bytes(32, "big")


def make_content(number: int) -> DecidedContent:
    """Make a content whose bytes no file has: only its pixels are known."""
    return DecidedContent(make_hash(1000 + number), make_hash(number), f"{number}.jpg")


def decide(kind: DecisionKind, *numbers: int, minute: int = 0, author: str = "ann") -> Decision:
    contents = tuple(map(make_content, numbers))
    return Decision(kind, contents, author, START + timedelta(minutes=minute))


def make_file(number: int, path: str | None = None, **fields: Any) -> LibraryFile:
    """Make a file; the lower its number, the better it is."""
    hash_ = make_hash(number)
    image = Image(hash_, hash_, 100 - number, 100, "JPEG", 1000, False)
    stat = FileStat(1000, 1_600_000_000 * 10**9, 0, number, 1)
    return LibraryFile(path or f"/{number}", stat, replace(image, **fields))


def make_files(*numbers: int) -> dict[bytes, list[LibraryFile]]:
    return {make_hash(number): [make_file(number)] for number in numbers}


def link(
    first: int,
    second: int,
    agreement: float = 1.0,
    relation: Relation = Relation.SAME_PICTURE,
    score: float = 0.9,
) -> Edge:
    verdict = Verdict(relation, 100, 30, agreement, 0.0, IDENTITY, None)
    return Edge(make_hash(first), make_hash(second), relation, score, verdict)


def list_numbers(groups: Iterable[Group]) -> list[list[int]]:
    """List the numbers of each group, that of the keeper first."""
    return [[get_number(file) for file in group.files] for group in groups]


def get_number(file: LibraryFile) -> int:
    return int.from_bytes(file.image.pixel_hash, "big")


def group_images(
    files: Files, edges: Iterable[Edge], *decisions: Decision, **options: Any
) -> list[Group]:
    return form_groups(files, edges, decisions=Decisions(decisions), **options)


def test_an_image_follows_none_that_it_is_decided_to_be_different_from() -> None:
    """Image 2 is closer to 0 than to 1, and is apart from 0 as 1 is: the two stay together."""
    files = make_files(0, 1, 2)
    edges = [link(0, 1), link(0, 2, 0.9), link(1, 2, 0.8)]
    decisions = [decide(DIFFERENT, 0, 1), decide(DIFFERENT, 0, 2, minute=1)]
    assert list_numbers(group_images(files, edges, *decisions)) == [[1, 2]]


def test_different_images_and_copies_of_each_are_in_two_groups() -> None:
    """Image 2 is a copy of both, and closer to image 1; image 3 is closer to image 0."""
    files = make_files(0, 1, 2, 3)
    edges = [link(0, 1), link(0, 2, 0.8), link(1, 2, 0.9), link(0, 3, 0.9), link(1, 3, 0.8)]
    edges.append(link(2, 3))
    assert list_numbers(group_images(files, edges)) == [[0, 1, 2, 3]]
    decision = decide(DIFFERENT, 0, 1)
    groups = group_images(files, edges, decision)
    assert list_numbers(groups) == [[0, 3], [1, 2]]
    assert {(get_number(item.file), item.decision) for item in groups[0].related} == {
        (1, decision),
        (2, decision),
    }


def test_new_copy_does_not_bring_two_different_images_together() -> None:
    """The best image is a copy of both, and would take them."""
    files = make_files(0, 1, 2)
    edges = [link(0, 1, 0.8), link(0, 2, 0.9), link(1, 2)]
    groups = group_images(files, edges, decide(DIFFERENT, 1, 2))
    assert list_numbers(groups) == [[0, 2]]


def test_copies_of_an_image_that_is_gone_stay_apart() -> None:
    """Image 5 has no file any more; its copy is still none of image 1."""
    files = make_files(1, 2)
    edges = [link(1, 2, 0.8), link(2, 5, 0.9)]
    assert list_numbers(group_images(files, edges)) == [[1, 2]]
    assert group_images(files, edges, decide(DIFFERENT, 1, 5)) == []


def test_image_that_is_gone_counts_for_those_that_are_the_same() -> None:
    """Images 2 and 7 are the same, 7 is gone and was closer to 4 than 2 is to 3."""
    decisions = decide(SAME, 2, 7), decide(DIFFERENT, 3, 4)
    edges = [link(2, 3, 0.8), link(4, 7, 0.9)]
    assert group_images(make_files(2, 3, 4), edges, *decisions) == []
    assert group_images(make_files(2, 3, 4), edges[:1], *decisions) != []


def test_same_images_share_a_group_with_the_copies_of_each() -> None:
    files = make_files(0, 1, 2, 3, 4)
    edges = [link(0, 2), link(1, 3), link(0, 1, relation=Relation.ANOTHER_SHOT, score=0.7)]
    assert list_numbers(group_images(files, edges)) == [[0, 2], [1, 3]]
    decision = decide(SAME, 1, 0)
    (group,) = group_images(files, edges, decision)
    members = {get_number(member.file): member for member in group.members}
    assert get_number(group.keeper) == 0
    assert {number: member.relation for number, member in members.items()} == {
        1: Relation.SAME_BY_DECISION,
        2: Relation.SAME_PICTURE,
        3: Relation.SAME_PICTURE,
    }
    assert (members[1].score, members[1].decision) == (0.7, decision)
    assert members[2].decision is None
    # Image 3 is a copy of image 1 alone.
    assert members[3].voucher and get_number(members[3].voucher) == 1
    assert (members[3].verdict, members[3].decision) == (None, decision)


def test_keeper_takes_all_images_that_are_the_same_as_its_copy() -> None:
    files = make_files(0, 1, 2)
    first, second = decide(SAME, 2, 1), decide(SAME, 9, 2, minute=1)
    (group,) = group_images(files, [link(0, 2)], first, second)
    by_number = {get_number(member.file): member for member in group.members}
    assert by_number[2].decision is None
    assert (by_number[1].relation, by_number[1].decision) == (Relation.SAME_BY_DECISION, first)
    assert by_number[1].voucher and get_number(by_number[1].voucher) == 2


def test_unit_has_the_wanted_edge_of_any_of_its_images() -> None:
    files = make_files(0, 1, 2)
    edges = [link(0, 2), link(1, 2, relation=Relation.DERIVED)]
    wanted = {Relation.DERIVED}
    (group,) = group_images(files, edges, decide(SAME, 0, 1), relations=wanted)
    members = {get_number(member.file): member.relation for member in group.members}
    assert members == {1: Relation.SAME_BY_DECISION, 2: Relation.DERIVED}


def test_same_decisions_form_no_groups_of_exact_copies() -> None:
    files = make_files(0, 1)
    decision = decide(SAME, 0, 1)
    assert list_numbers(group_images(files, [], decision)) == [[0, 1]]
    wanted = {Relation.IDENTICAL_BYTES, Relation.IDENTICAL_PIXELS}
    assert group_images(files, [], decision, relations=wanted) == []


def test_latest_kept_image_is_the_keeper_and_the_reason_names_both() -> None:
    files = make_files(0, 1, 2)
    edges = [link(0, 1), link(0, 2), link(1, 2)]
    later = decide(KEEP, 1, minute=24 * 60, author="bob\x1b")
    decisions = [later, decide(KEEP, 2)]
    (group,) = group_images(files, edges, *decisions)
    assert list_numbers([group]) == [[1, 0, 2]]
    assert group.decision == later
    expected = "decided by bob\\x1b on 2026-12-01, later than another by ann on 2026-11-30"
    assert group.reason == expected
    away = {**files, make_hash(1): [replace(make_file(1), is_missing=True)]}
    (group,) = group_images(away, edges, *decisions)
    assert list_numbers([group]) == [[2, 0, 1]]
    assert group.reason == "not missing or changed, decided by ann on 2026-11-30"


def test_kept_bytes_win_among_files_with_equal_pixels() -> None:
    plain, edited = make_file(1, "/a"), make_file(1, "/longer", hash=make_hash(1001))
    files = {make_hash(1): [plain, edited]}
    (group,) = group_images(files, [])
    assert (group.keeper, group.decision) == (plain, None)
    decision = decide(KEEP, 1)
    (group,) = group_images(files, [], decision)
    assert (group.keeper, group.decision) == (edited, decision)
    assert group.reason == "decided by ann on 2026-11-30"


def test_contradiction_keeps_images_apart() -> None:
    """It cannot be entered, but a new decoder may give two contents the same pixels."""
    decisions = [
        decide(DIFFERENT, 0, 1, minute=9),
        decide(SAME, 0, 2),
        decide(SAME, 2, 1, minute=1),
    ]
    assert list_numbers(group_images(make_files(0, 1, 2), [link(0, 1)], *decisions)) == [[0, 2]]


def test_decision_on_a_pair_is_found_through_images_that_are_the_same() -> None:
    same, apart = decide(SAME, 1, 2), decide(DIFFERENT, 2, 3)
    decisions = Decisions([same, apart])
    found = {
        pair: decisions.find_on_pair(*map(make_hash, pair)) for pair in combinations(range(5), 2)
    }
    assert {pair: item for pair, item in found.items() if item} == {
        (1, 2): same,
        (2, 3): apart,
        (1, 3): apart,
    }


def test_content_is_known_by_its_bytes_once_a_decoder_gives_other_pixels() -> None:
    decision = decide(SAME, 1, 2)
    current = {decision.contents[0].hash: make_hash(8)}
    decisions = Decisions([decision], current)
    assert decisions.find_on_pair(make_hash(8), make_hash(2)) == decision


@composite
def draw_decisions(draw: DrawFn) -> list[Decision]:
    """Draw decisions without a contradiction."""
    decisions: list[Decision] = []
    for minute in range(draw(integers(0, 4))):
        kind = draw(sampled_from([DIFFERENT, DIFFERENT, SAME, KEEP]))
        count = 1 if kind is KEEP else draw(integers(2, 3))
        numbers = draw(lists(integers(0, IMAGE_COUNT), min_size=count, max_size=count, unique=True))
        new = decide(kind, *numbers, minute=minute)
        if not is_contradiction([*decisions, new]):
            decisions.append(new)
    return decisions


def join_same(decisions: Iterable[Decision]) -> dict[int, frozenset[int]]:
    """Return all images that each image is decided to be the same as, itself included."""
    sets = {number: frozenset([number]) for number in range(IMAGE_COUNT + 1)}
    for decision in decisions:
        if decision.kind is SAME:
            joined = frozenset().union(*(sets[number] for number in get_numbers(decision)))
            sets |= dict.fromkeys(joined, joined)
    return sets


def get_numbers(decision: Decision) -> list[int]:
    return [int.from_bytes(content.pixel_hash, "big") for content in decision.contents]


def is_contradiction(decisions: Sequence[Decision]) -> bool:
    same = join_same(decisions)
    return any(
        first in same[second]
        for decision in decisions
        if decision.kind is DIFFERENT
        for first, second in combinations(get_numbers(decision), 2)
    )


def find_side(
    number: int,
    decision: Decision,
    same: Mapping[int, frozenset[int]],
    edges: Sequence[Edge],
    decisions: Sequence[Decision],
) -> int | None:
    """Return the image of a decision that an image is closest to, or one that is the same.

    An image that is decided to be different from another one is not beside it.
    """
    named = get_numbers(decision)
    apart = {
        (first, second)
        for item in decisions
        if item.kind is DIFFERENT
        for one, other in permutations(get_numbers(item), 2)
        for first, second in product(same[one], same[other])
    }
    for side in named:
        if number in same[side]:
            return side
    found = [
        (make_closeness_key(edge, anchor), side)
        for edge in edges
        if edge.relation in COPY_RELATIONS
        for anchor, copy in ((edge.left, edge.right), (edge.right, edge.left))
        for side in named
        if int.from_bytes(copy, "big") in same[number]
        and int.from_bytes(anchor, "big") in same[side]
        and (int.from_bytes(copy, "big"), int.from_bytes(anchor, "big")) not in apart
    ]
    return min(found)[1] if found else None


@given(
    drawn=lists(
        sampled_from([None, *[Relation.SAME_PICTURE] * 4, Relation.ANOTHER_SHOT, Relation.SIMILAR]),
        min_size=28,
        max_size=28,
    ),
    agreements=lists(sampled_from([0.8, 0.9, 1.0]), min_size=28, max_size=28),
    decisions=draw_decisions(),
    seed=integers(0, 1000),
)
def test_laws(
    drawn: list[Relation | None],
    agreements: list[float],
    decisions: list[Decision],
    seed: int,
) -> None:
    """Image IMAGE_COUNT has verdicts and no file: it is gone."""
    files = make_files(*range(IMAGE_COUNT))
    pairs = combinations(range(IMAGE_COUNT + 1), 2)
    edges = [
        link(*pair, agreement, relation)
        for pair, relation, agreement in zip(pairs, drawn, agreements, strict=True)
        if relation
    ]
    groups = group_images(files, edges, *decisions)
    numbers = list_numbers(groups)
    grouped = [number for group in numbers for number in group]
    assert len(grouped) == len(set(grouped))
    same = join_same(decisions)
    for joined in set(same.values()):
        present = joined - {IMAGE_COUNT}
        holders = [group for group in numbers if present & set(group)]
        assert len(present) < 2 or (len(holders) == 1 and present <= set(holders[0]))
    for group in numbers:
        for decision in decisions:
            if decision.kind is DIFFERENT:
                sides = {find_side(number, decision, same, edges, decisions) for number in group}
                assert len(sides - {None}) <= 1
        kept = [get_numbers(item)[0] for item in decisions if item.kind is KEEP]
        ranks = [
            max((n for n, item in enumerate(kept) if item == one), default=-1) for one in group
        ]
        assert ranks[0] == max(ranks)
    members = [member for group in groups for member in group.members]
    assert all(member.relation in COPY_RELATIONS or member.decision for member in members)
    rng = random.Random(seed)
    swapped = [
        replace(edge, left=edge.right, right=edge.left, verdict=swap(edge.verdict))
        for edge in rng.sample(edges, len(edges))
    ]
    shuffled = dict(rng.sample(list(files.items()), len(files)))
    reordered = group_images(shuffled, swapped, *rng.sample(decisions, len(decisions)))
    assert [strip(group) for group in reordered] == [strip(group) for group in groups]


def swap(verdict: Verdict | None) -> Verdict | None:
    return verdict.swap_sides() if verdict else None


def strip(group: Group) -> Group:
    """A group to compare: swapping the sides of a verdict rounds its numbers."""
    return replace(group, members=tuple(replace(member, verdict=None) for member in group.members))


@given(pairs=lists(lists(integers(0, 9), min_size=2, max_size=2), max_size=12))
def test_partition_is_that_of_a_search_through_the_pairs(pairs: list[list[int]]) -> None:
    partition = Partition()
    for first, second in pairs:
        partition.unite(make_hash(first), make_hash(second))
    for number in range(10):
        reached = {number}
        while more := {n for pair in pairs if reached & set(pair) for n in pair} - reached:
            reached |= more
        assert partition.find(make_hash(number)) == make_hash(min(reached))


@pytest.mark.parametrize("relation", [Relation.SIMILAR, None])
def test_kept_image_in_doubt_is_the_keeper_of_what_its_vouchers_join_to_it(
    relation: Relation | None,
) -> None:
    """Three images are copies of image 9, which ranks last without the decision, and of image 0."""
    files = make_files(0, 1, 2, 3, 9)
    edges = [*(link(0, n) for n in (1, 2, 3)), *(link(n, 9, 0.9) for n in (1, 2, 3))]
    edges += [link(0, 9, relation=relation)] if relation else []
    assert list_numbers(group_images(files, edges)) == [[0, 1, 2, 3, 9]]
    assert list_numbers(group_images(files, edges, decide(KEEP, 9))) == [[9, 0, 1, 2, 3]]

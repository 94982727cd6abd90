"""The walk of the tree of a group. What each copy was made from: test_provenance."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis.strategies import integers, lists, randoms

from pipeline.grouping.lineage import walk_tree
from pipeline.grouping.match import Match
from tests.support.matches import make_member


@given(parents=lists(integers(-1, 30), max_size=40), rng=randoms(use_true_random=False))
def test_walk_has_each_member_once_below_what_it_was_made_from(
    parents: list[int], rng: random.Random
) -> None:
    members = list[Match]()
    for number, parent in enumerate(parents):  # -1, or a later one: made from the keeper
        made_from = members[parent] if 0 <= parent < number else None
        members.append(make_member(f"/{number}.jpg", made_from))
    rng.shuffle(members)
    walk = walk_tree(members)
    assert sorted(member.file.path for member, _ in walk) == sorted(
        member.file.path for member in members
    )
    above = list[Match]()  # the members above a place, the outermost first
    for member, depth in walk:
        del above[depth:]
        assert len(above) == depth
        assert (above[-1].file if above else None) == member.made_from
        above.append(member)
    with_copies = {member.made_from.path for member in members if member.made_from}
    ranks = {
        member.file.path: (member.file.path in with_copies, number)
        for number, member in enumerate(members)
    }
    for parent_file in {member.made_from for member in members}:
        siblings = [member for member, _ in walk if member.made_from == parent_file]
        assert siblings == sorted(siblings, key=lambda member: ranks[member.file.path])


def test_walk_of_a_chain_has_no_limit() -> None:
    """A copy of a copy of a copy, thousands of times."""
    members = [make_member("/0.jpg")]
    for number in range(1, 3000):
        members.append(make_member(f"/{number}.jpg", members[-1]))
    assert walk_tree(members[::-1]) == [(member, depth) for depth, member in enumerate(members)]

"""Whatever pairs say, the members of a group form one tree: what each was made from."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import combinations

from hypothesis import given
from hypothesis.strategies import (
    SearchStrategy,
    booleans,
    builds,
    fixed_dictionaries,
    integers,
    none,
    one_of,
    sampled_from,
)

from indexes.records import FileStat, Image
from pipeline.grouping.cluster import Group, form_groups
from pipeline.grouping.edges import Edge
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.verify.judgement import Judgement
from pipeline.verify.relation import Relation, Side
from pipeline.verify.verdict import Edits, Verdict
from tests.support.verification import PLAIN_COPY

IMAGE_COUNT = 7
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
SIDES = sampled_from([None, Side.FIRST, Side.SECOND])
SHARES = sampled_from([0.4, 0.7, 1.0])


def make_edits(
    *, first_share: float, second_share: float, **changes: bool | float | Side | None
) -> Edits:
    return replace(PLAIN_COPY, overlap=(first_share, second_share), **changes)  # type: ignore[arg-type]


EDITS: SearchStrategy[Edits] = builds(
    make_edits,
    first_share=SHARES,
    second_share=SHARES,
    mirrored=booleans(),
    anisotropic=booleans(),
    recolored=booleans(),
    scale=sampled_from([0.5, 1.0, 2.0]),
    embedded_side=SIDES,
    grayscale_side=SIDES,
    derived_side=SIDES,
    upscaled_side=SIDES,
    changed_share=sampled_from([0.0, 0.3]),
    detail_gain=sampled_from([-0.5, 0.0, 0.1, 0.5]),
)
VERDICTS: SearchStrategy[Verdict | None] = one_of(
    none(),
    builds(
        lambda edits, noise, side: Verdict(
            Relation.DERIVED,
            30,
            30,
            1.0,
            0.0,
            IDENTITY,
            edits,
            judgement=Judgement(0.9, 0.0, 0.0, noise, "test"),
            altered_side=side,
        ),
        EDITS,
        sampled_from([0.1, 0.55, 0.8, 0.93]),
        SIDES,
    ),
)


def make_hash(number: int) -> bytes:
    return number.to_bytes(32, "big")


def make_files() -> dict[bytes, list[LibraryFile]]:
    files = {}
    for number in range(IMAGE_COUNT):
        image = Image(make_hash(number), make_hash(number), 100, 100, "JPEG", 1000, False)
        stat = FileStat(1000, 1_600_000_000 * 10**9, 0, number, 1)
        files[image.pixel_hash] = [LibraryFile(f"/{number}", stat, image)]
    return files


def list_origins(groups: Iterable[Group]) -> dict[str, dict[str, str]]:
    """(member -> the file it was made from, by path) of each group, by the path of its keeper."""
    return {
        group.keeper.path: {
            member.file.path: (member.made_from or group.keeper).path for member in group.members
        }
        for group in groups
    }


@given(
    verdicts=fixed_dictionaries(dict.fromkeys(combinations(range(IMAGE_COUNT), 2), VERDICTS)),
    seed=integers(0, 1000),
)
def test_contradictory_evidence_gives_one_tree_in_any_order(
    verdicts: Mapping[tuple[int, int], Verdict | None], seed: int
) -> None:
    """Each of three files can be made from the next, or all from all."""
    edges = [
        Edge(make_hash(first), make_hash(second), Relation.DERIVED, 0.9, verdict)
        for (first, second), verdict in verdicts.items()
        if verdict
    ]
    groups = form_groups(make_files(), edges)
    for keeper, origins in list_origins(groups).items():
        for member in origins:
            path = [member]
            while path[-1] != keeper:
                path.append(origins[path[-1]])
                assert path[-1] not in path[:-1]
    shuffled = [
        replace(edge, left=edge.right, right=edge.left, verdict=edge.verdict.swap_sides())
        for edge in random.Random(seed).sample(edges, len(edges))
        if edge.verdict
    ]
    files = dict(reversed(make_files().items()))
    assert list_origins(form_groups(files, shuffled)) == list_origins(groups)

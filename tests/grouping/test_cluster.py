from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis.strategies import (
    SearchStrategy,
    fixed_dictionaries,
    floats,
    integers,
    lists,
    none,
    sampled_from,
    tuples,
)

from indexes.metadata import Capture, ImageMetadata
from indexes.records import FileStat, Image
from pipeline.grouping.cluster import Group, form_groups
from pipeline.grouping.edges import Edge
from pipeline.grouping.exposures import Exposures, NamedMetadata
from pipeline.grouping.keep_rules import KeepRules, LibraryFile
from pipeline.grouping.provenance import Provenance
from pipeline.grouping.vouchers import MIN_CROWD, MIN_VOUCHERS
from pipeline.verify.judgement import UNKNOWN_NOISE, Judgement
from pipeline.verify.relation import COPY_RELATIONS, SCENE_RELATIONS, Relation, Side
from pipeline.verify.verdict import Edits, Verdict
from tests.support.verification import PLAIN_COPY

RECENT_NS = 1_600_000_000 * 10**9  # in 2020; a time before 1990 is no date
IMAGE_COUNT = 6  # images of test_laws: few, so that many of them have an edge
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

Files = dict[bytes, list[LibraryFile]]


def make_file(
    content: int,
    path: str,
    pixels: int | None = None,
    width: int = 100,
    size: int = 1000,
    mtime: int = 5,
) -> LibraryFile:
    pixel_number = content if pixels is None else pixels
    image = Image(
        content.to_bytes(32, "big"),
        pixel_number.to_bytes(32, "big"),
        width,
        100,
        "JPEG",
        size,
        False,
    )
    return LibraryFile(path, FileStat(size, RECENT_NS + mtime, 0, hash(path) & 0xFFFF, 1), image)


def by_pixel_hash(*files: LibraryFile) -> Files:
    grouped: Files = {}
    for file in files:
        grouped.setdefault(file.image.pixel_hash, []).append(file)
    return grouped


def make_edges(
    *pairs: tuple[int, int, float], relation: Relation = Relation.SAME_PICTURE
) -> list[Edge]:
    return [
        Edge(left.to_bytes(32, "big"), right.to_bytes(32, "big"), relation, score)
        for left, right, score in pairs
    ]


def list_paths(groups: list[Group]) -> list[tuple[str, list[str]]]:
    """(path of the keeper, paths of the members) of each group."""
    return [(group.keeper.path, [member.file.path for member in group.members]) for group in groups]


def without_verdicts(group: Group) -> Group:
    """A group to compare: swapping the sides of a verdict rounds its numbers."""
    return replace(group, members=tuple(replace(member, verdict=None) for member in group.members))


def get_number(file: LibraryFile) -> int:
    return int.from_bytes(file.image.hash, "big")


def test_image_without_edge_to_keeper_is_related_not_chained() -> None:
    (group,) = form_groups(
        by_pixel_hash(*(make_file(n, f"/{n}", width=200 - n) for n in (1, 2, 3))),
        make_edges((1, 2, 0.9), (2, 3, 0.8)),
    )
    assert list_paths([group]) == [("/1", ["/2"])]
    assert [
        (related.file.path, related.member.path, related.relation, related.score)
        for related in group.related
    ] == [("/3", "/2", Relation.SAME_PICTURE, 0.8)]


@pytest.mark.parametrize("is_crowded", [False, True])
def test_image_with_so_many_copies_that_it_was_not_compared_with_the_keeper_joins_its_group(
    is_crowded: bool,
) -> None:
    """Three of the copies of image 5 are members; the others are copies of it alone."""
    others = range(6, 6 + MIN_CROWD - 3 - (not is_crowded))
    numbers = [1, 2, 3, 4, 5, *others]
    files = by_pixel_hash(*(make_file(n, f"/{n:02}", width=200 - n) for n in numbers))
    members = make_edges((1, 2, 0.9), (1, 3, 0.9), (1, 4, 0.9))
    copies = make_edges(*((n, 5, 0.8) for n in (2, 3, 4)))
    copies += make_edges(*((5, n, 0.8) for n in others))
    groups = form_groups(files, [*members, *copies])
    assert ("/05" in dict(list_paths(groups))["/01"]) is is_crowded


def test_image_in_doubt_joins_the_group_that_most_of_its_copies_belong_to() -> None:
    """Image 5 is a copy of three members, and in doubt beside the keeper."""
    files = by_pixel_hash(*(make_file(n, f"/{n}", width=200 - n) for n in range(1, 8)))
    members = make_edges((1, 2, 0.9), (1, 3, 0.9), (1, 4, 0.9))
    copies = make_edges((2, 5, 0.8), (3, 5, 0.85), (4, 5, 0.8), relation=Relation.DERIVED)
    doubt = make_edges((1, 5, 0.7), relation=Relation.SIMILAR)
    for edges in ([*members, *copies], [*members, *copies, *doubt]):
        (group,) = form_groups(files, edges)
        assert list_paths([group]) == [("/1", ["/2", "/3", "/4", "/5"])]
        voucher = group.members[-1].voucher
        assert voucher and (voucher.path, group.members[-1].relation) == ("/3", Relation.DERIVED)
    # Not against the verdict on the two, not by few, and not if most of its copies are elsewhere.
    others = make_edges((1, 5, 0.7), relation=Relation.ANOTHER_SHOT)
    for edges in (
        [*members, *copies, *others],
        [*members, *copies[:2]],
        [*members, *copies, *make_edges((5, 6, 0.9), (5, 7, 0.9), (6, 7, 0.9), (5, 8, 0.9))],
    ):
        groups = form_groups(files | by_pixel_hash(make_file(8, "/8")), edges)
        assert ("/1", ["/2", "/3", "/4"]) in list_paths(groups)


def make_part_edges(*pairs: tuple[int, int], overlap: tuple[float, float]) -> list[Edge]:
    """Edges of pairs that show these shares of each other."""
    edits = replace(PLAIN_COPY, overlap=overlap)
    verdict = Verdict(Relation.DERIVED, 30, 30, 1.0, 0.0, IDENTITY, edits)
    return [
        replace(edge, verdict=verdict)
        for left, right in pairs
        for edge in make_edges((left, right, 0.9), relation=Relation.DERIVED)
    ]


@pytest.mark.parametrize(("overlap", "is_copy"), [((1.0, 0.4), False), ((0.4, 1.0), True)])
def test_collages_do_not_make_copies_of_the_photos_in_them(
    overlap: tuple[float, float], is_copy: bool
) -> None:
    """Photos 1 and 5 are in collages 2, 3 and 4; crops of both show nothing else."""
    files = by_pixel_hash(*(make_file(n, f"/{n}", width=200 - n) for n in range(1, 6)))
    pairs = [(photo, other) for photo in (1, 5) for other in (2, 3, 4)]
    paths = dict(list_paths(form_groups(files, make_part_edges(*pairs, overlap=overlap))))
    assert any("/5" in members for members in paths.values()) is is_copy


@pytest.mark.parametrize(("overlap", "is_member"), [((1.0, 0.4), True), ((0.4, 1.0), False)])
def test_members_that_show_more_than_the_keeper_count_neither_for_nor_against_an_image(
    overlap: tuple[float, float], is_member: bool
) -> None:
    """Image 9 is a copy of members 2 to 4 and of 5 to 7, and of the stranger 8."""
    files = by_pixel_hash(*(make_file(n, f"/{n}", width=200 - n) for n in range(1, 10)))
    edges = make_edges(*((1, n, 0.9) for n in (2, 3, 4)))
    edges += make_part_edges(*((1, n) for n in (5, 6, 7)), overlap=overlap)
    edges += make_edges((8, 9, 0.8), *((n, 9, 0.8) for n in range(2, 5)))
    edges += make_part_edges(*((n, 9) for n in range(5, 8)), overlap=(0.5, 0.5))
    if not is_member:  # three strangers more than the members that can tell
        files |= by_pixel_hash(*(make_file(n, f"/{n}", width=200 - n) for n in range(10, 17)))
        edges += make_edges(*((n, 9, 0.8) for n in range(10, 17)))
    assert ("/9" in dict(list_paths(form_groups(files, edges)))["/1"]) is is_member


@pytest.mark.parametrize(
    ("relation", "common", "expected"),
    [
        (Relation.OVERLAPS, [3, 4], [("/2", [3, 4, 5, 6, 7, 8])]),
        (Relation.OVERLAPS, [3], [("/1", [3, 9, 10]), ("/2", [4, 5, 6, 7, 8])]),
        (Relation.SIMILAR, [3, 4], [("/1", [3, 4]), ("/2", [5, 6, 7, 8])]),
    ],
)
def test_page_leaves_the_copies_of_the_photo_on_it_to_the_photo(
    relation: Relation, common: list[int], expected: list[tuple[str, list[int]]]
) -> None:
    """Page 1 has more pixels than photo 2, and most or few of its copies are those of the photo."""
    files = by_pixel_hash(*(make_file(n, f"/{n}", width=200 - n) for n in range(1, 11)))
    edges = make_edges((1, 2, 0.5), relation=relation)
    edges += make_edges(*((2, n, 0.9) for n in range(3, 9)), *((1, n, 0.8) for n in common))
    edges += make_edges(*((1, n, 0.8) for n in (9, 10) if len(common) == 1))
    groups = dict(list_paths(form_groups(files, edges)))
    assert {keeper: sorted(members) for keeper, members in groups.items()} == {
        keeper: sorted(f"/{n}" for n in members) for keeper, members in expected
    }


@pytest.mark.parametrize(
    ("relation", "voucher_count", "is_member"),
    [
        (Relation.OVERLAPS, 3, True),
        (Relation.SAME_TEMPLATE, 8, True),
        (Relation.SAME_TEMPLATE, 7, False),
        (Relation.ANOTHER_SHOT, 8, False),
    ],
)
def test_verdict_that_is_no_copy_asks_for_more_vouchers(
    relation: Relation, voucher_count: int, is_member: bool
) -> None:
    files = by_pixel_hash(*(make_file(n, f"/{n}", width=200 - n) for n in range(1, 11)))
    members = range(2, 2 + voucher_count)
    edges = make_edges(*((1, n, 0.9) for n in members), *((n, 10, 0.8) for n in members))
    edges += make_edges((1, 10, 0.7), relation=relation)
    assert ("/10" in dict(list_paths(form_groups(files, edges)))["/1"]) is is_member


def test_vouched_image_does_not_vouch_for_another_one() -> None:
    """Images 5, 6 and 7 are copies of the members 2, 3 and 4, and image 8 of these three alone."""
    files = by_pixel_hash(*(make_file(n, f"/{n}", width=200 - n) for n in range(1, 9)))
    edges = make_edges(*((1, n, 0.9) for n in (2, 3, 4)))
    edges += make_edges(*((left, right, 0.8) for left in (2, 3, 4) for right in (5, 6, 7)))
    edges += make_edges(*((n, 8, 0.8) for n in (5, 6, 7)))
    (group, *_) = form_groups(files, edges)
    assert list_paths([group]) == [("/1", [f"/{n}" for n in range(2, 8)])]


def test_image_with_a_copy_that_is_another_shot_is_not_vouched_for() -> None:
    """Image 6 is a copy of image 5, and another shot than the keeper."""
    files = by_pixel_hash(*(make_file(n, f"/{n}", width=200 - n) for n in range(1, 7)))
    edges = make_edges(*((1, n, 0.9) for n in (2, 3, 4)))
    edges += make_edges(*((n, 5, 0.8) for n in (2, 3, 4)))
    copies = make_edges((5, 6, 0.9))
    assert "/5" in dict(list_paths(form_groups(files, [*edges, *copies])))["/1"]
    shot = make_edges((1, 6, 0.9), relation=Relation.ANOTHER_SHOT)
    assert "/5" not in dict(list_paths(form_groups(files, [*edges, *copies, *shot])))["/1"]


def test_other_shot_is_related_unless_it_is_wanted() -> None:
    files = by_pixel_hash(*(make_file(n, f"/{n}", width=200 - n) for n in (1, 2, 3)))
    edges = [
        *make_edges((1, 2, 0.9), relation=Relation.DERIVED),
        *make_edges((1, 3, 0.95), relation=Relation.ANOTHER_SHOT),
    ]
    (group,) = form_groups(files, edges)
    assert list_paths([group]) == [("/1", ["/2"])]
    assert [(related.file.path, related.relation) for related in group.related] == [
        ("/3", Relation.ANOTHER_SHOT)
    ]
    (wide,) = form_groups(files, edges, {Relation.DERIVED, Relation.ANOTHER_SHOT})
    assert list_paths([wide]) == [("/1", ["/2", "/3"])]
    assert wide.related == ()
    assert form_groups(files, edges, {Relation.IDENTICAL_BYTES}) == []


def test_damaged_or_missing_file_is_not_kept() -> None:
    cut = make_file(1, "/cut", width=500)
    cut = replace(cut, image=replace(cut.image, flags=("damaged",)))
    sound = make_file(2, "/sound", width=50)
    edges = make_edges((1, 2, 0.9))
    assert list_paths(form_groups(by_pixel_hash(cut, sound), edges)) == [("/sound", ["/cut"])]
    away = replace(sound, is_missing=True)  # the file may be gone for good
    assert list_paths(form_groups(by_pixel_hash(cut, away), edges)) == [("/cut", ["/sound"])]


def test_best_file_is_kept_with_reasons() -> None:
    files = by_pixel_hash(
        make_file(1, "/small", width=50),
        make_file(2, "/large", width=500),
        make_file(3, "/more bytes", width=500, size=2000),
    )
    groups = form_groups(files, make_edges((1, 2, 0.9), (2, 3, 0.95), (1, 3, 0.91)))
    assert list_paths(groups) == [("/more bytes", ["/large", "/small"])]
    assert [member.score for member in groups[0].members] == [0.95, 0.91]
    assert groups[0].reason == "most pixels, most bytes"


def test_derived_image_is_not_kept_although_larger() -> None:
    """An upscaled grayscale copy has more pixels than its original."""
    (edge,) = make_edges((1, 2, 0.9))
    edits = Edits(
        False, 0, 0.0, False, 5.0, (1.0, 1.0), None, False, Side.SECOND, True, (), Side.SECOND
    )
    files = by_pixel_hash(make_file(1, "/color", width=100), make_file(2, "/gray", width=500))
    assert list_paths(form_groups(files, [edge])) == [("/gray", ["/color"])]
    verdict = Verdict(Relation.SAME_PICTURE, 100, 100, 1.0, 0.0, IDENTITY, edits)
    (group,) = form_groups(files, [replace(edge, verdict=verdict)])
    assert list_paths([group]) == [("/color", ["/gray"])]
    assert group.reason == "not altered"


def test_original_is_kept_if_most_copies_say_that_the_others_are_parts() -> None:
    """Two crops say they are cut out of it; a framed copy looks like its source."""

    def make_part(whole: int, part: int, share: float = 0.8) -> Edge:
        """The part is cut out of the whole, by their pixels."""
        edits = replace(PLAIN_COPY, overlap=(share, 1.0), derived_side=Side.SECOND)
        verdict = Verdict(Relation.DERIVED, 100, 100, 1.0, 0.0, IDENTITY, edits)
        (edge,) = make_edges((whole, part, 0.9), relation=Relation.DERIVED)
        return replace(edge, verdict=verdict)

    files = by_pixel_hash(
        make_file(1, "/original", mtime=1),
        make_file(2, "/framed"),
        make_file(3, "/crop", width=50),
        make_file(4, "/crop 2", width=50),
        make_file(5, "/small", width=40),
        make_file(6, "/gray", width=60),
    )
    wrong, crops = make_part(2, 1), [make_part(1, 3), make_part(1, 4)]
    # Without other copies, nothing contradicts the framed copy.
    assert list_paths(form_groups(files, [wrong])) == [("/framed", ["/original"])]
    encoded = Verdict(Relation.DERIVED, 100, 100, 1.0, 0.0, IDENTITY, PLAIN_COPY)
    plain = [
        replace(edge, verdict=encoded)
        for edge in make_edges((1, 5, 0.9), (1, 6, 0.9), (5, 6, 0.9), relation=Relation.DERIVED)
    ]
    undecided = replace(
        wrong, verdict=replace(encoded, edits=replace(PLAIN_COPY, overlap=(0.8, 1.0)))
    )
    edges = [undecided, *crops, *plain]
    assert list_paths(form_groups(files, edges)) == [
        ("/original", ["/crop", "/crop 2", "/framed", "/gray", "/small"])
    ]


@pytest.mark.parametrize(
    ("agreeing_shares", "inliers", "owner"),
    [
        ((0.9, 1.0), (40, 30), "/2"),
        ((1.0, 1.0), (30, 31), "/2"),
        ((1.0, 1.0), (30, 30), "/1"),
        ((1.0, 0.9), (30, 40), "/1"),
    ],
)
def test_small_copy_joins_the_shot_that_it_agrees_with_best(
    agreeing_shares: tuple[float, float], inliers: tuple[int, int], owner: str
) -> None:
    """Image 3 is a small copy of shot 1 or 2 of a burst, and verified as a copy of both."""
    files = by_pixel_hash(*(make_file(n, f"/{n}", width=200 - 50 * n) for n in (1, 2, 3)))
    copies = [
        replace(edge, verdict=Verdict(Relation.DERIVED, inlier_count, 30, agreeing_share))
        for edge, agreeing_share, inlier_count in zip(
            make_edges((1, 3, 0.9), (2, 3, 0.8), relation=Relation.DERIVED),
            agreeing_shares,
            inliers,
            strict=True,
        )
    ]
    other_shot = make_edges((1, 2, 0.99), relation=Relation.ANOTHER_SHOT)
    assert list_paths(form_groups(files, [*copies, *other_shot])) == [(owner, ["/3"])]
    # Without the other shot, 3 is a collage of two images.
    assert list_paths(form_groups(files, copies)) == [("/1", ["/3"])]
    assert list_paths(form_groups(files, [*copies[:1], *other_shot])) == [("/1", ["/3"])]
    # The other shot is a member of the group of 4, which has no edge to the copy.
    edges = [*copies, *other_shot, *make_edges((4, 2, 0.9))]
    files |= by_pixel_hash(make_file(4, "/0", width=400))
    assert list_paths(form_groups(files, edges)) == [("/0", ["/2"]), ("/1", ["/3"])]
    files |= by_pixel_hash(make_file(5, "/5", width=10))
    edges += make_edges((1, 5, 0.8))
    assert list_paths(form_groups(files, edges)) == [("/0", ["/2"]), ("/1", ["/5", "/3"])]


@pytest.mark.parametrize(
    ("noise", "owner"),
    [
        ((0.3, 0.5), "/2"),  # noise tells, although more tiles agree with the first
        ((0.5, 0.3), "/1"),
        ((0.45, 0.5), "/1"),  # too close to tell
        ((UNKNOWN_NOISE, 0.5), "/1"),
    ],
)
def test_small_copy_joins_the_shot_whose_noise_it_shares(
    noise: tuple[float, float], owner: str
) -> None:
    files = by_pixel_hash(*(make_file(n, f"/{n}", width=200 - 60 * n) for n in (1, 2, 3)))
    copies = [
        replace(
            edge,
            verdict=Verdict(
                Relation.DERIVED, 30, 30, share, judgement=Judgement(0.9, 0.1, 0.0, noise_ncc, "")
            ),
        )
        for edge, share, noise_ncc in zip(
            make_edges((1, 3, 0.9), (2, 3, 0.8), relation=Relation.DERIVED),
            (1.0, 0.9),
            noise,
            strict=True,
        )
    ]
    shots = make_edges((1, 2, 0.99), relation=Relation.ANOTHER_SHOT)
    assert list_paths(form_groups(files, [*copies, *shots])) == [(owner, ["/3"])]


def test_copy_is_left_only_to_a_shot_that_can_take_it() -> None:
    """Otherwise it stays with its keeper, and does not become the keeper of a smaller copy."""
    files = by_pixel_hash(*(make_file(n, f"/{n}", width=200 - 20 * n) for n in (1, 2, 3, 4)))

    def form(
        files: Files,
        second_relation: Relation = Relation.DERIVED,
        shots_relation: Relation = Relation.ANOTHER_SHOT,
        relations: Iterable[Relation] = COPY_RELATIONS,
    ) -> list[tuple[str, list[str]]]:
        """Groups of shots 1 and 2, copy 3 that agrees better with 2, and copy 4 of 3."""
        pairs = [
            (1, 3, Relation.SAME_PICTURE, 0.9),
            (2, 3, second_relation, 1.0),
            (3, 4, Relation.SAME_PICTURE, 1.0),
            (1, 2, shots_relation, 0.1),
        ]
        edges = [
            replace(edge, verdict=Verdict(relation, 30, 30, agreeing_share))
            for left, right, relation, agreeing_share in pairs
            for edge in make_edges((left, right, 0.9), relation=relation)
        ]
        return list_paths(form_groups(files, edges, relations))

    assert form(files) == [("/2", ["/3"])]
    assert form(files, relations=[Relation.SAME_PICTURE]) == [("/1", ["/3"])]
    assert form(files, second_relation=Relation.ANOTHER_SHOT) == [("/1", ["/3"])]
    assert form(files, shots_relation=Relation.SAME_PICTURE) == [("/1", ["/2", "/3"])]
    with_scenes = [*COPY_RELATIONS, Relation.ANOTHER_SHOT]
    assert form(files, relations=with_scenes) == [("/1", ["/3", "/2"])]
    # A shot that ranks after the copy cannot take it.
    assert form(files | by_pixel_hash(make_file(2, "/2", width=10))) == [("/1", ["/3"])]


def test_copy_that_waits_for_another_shot_does_not_become_a_keeper() -> None:
    """Copy 3 of 1 fits shot 2 better, which is a member of 0. 1 takes it back, 4 or no 4."""
    files = by_pixel_hash(*(make_file(n, f"/{n}", width=200 - 20 * n) for n in range(5)))
    links: dict[tuple[int, int], Link] = {
        (0, 2): (0.9, Relation.SAME_PICTURE, 1.0, None),
        (1, 2): (0.9, Relation.ANOTHER_SHOT, 0.5, None),
        (1, 3): (0.9, Relation.SAME_PICTURE, 0.9, None),
        (2, 3): (0.9, Relation.SAME_PICTURE, 1.0, None),
        (3, 4): (0.9, Relation.SAME_PICTURE, 1.0, None),
    }
    edges = [make_linked_edge(ends, link) for ends, link in links.items()]
    expected = [("/0", ["/2"]), ("/1", ["/3"])]
    assert list_paths(form_groups(files, edges[:-1])) == expected
    assert list_paths(form_groups(files, edges)) == expected


@pytest.mark.parametrize("is_swapped", [False, True])
@pytest.mark.parametrize(("scale", "owner"), [(1.0, "/1"), (0.95, "/1"), (0.5, "/2")])
def test_heavily_edited_copy_is_not_another_shot(
    scale: float, owner: str, is_swapped: bool
) -> None:
    """Images 1 and 2 are verified as two shots, but 4 is a copy of both.

    A full-size copy would tell two shots apart, so 1 and 2 are then one shot.
    """
    files = by_pixel_hash(*(make_file(n, f"/{n}", width=500 - 50 * n) for n in (1, 2, 3, 4)))
    edges = make_edges((1, 2, 0.99), relation=Relation.ANOTHER_SHOT)
    for left, right, inliers in ((1, 3, 30), (2, 3, 40), (1, 4, 30), (2, 4, 30)):
        own_scale = 0.3 if right == 3 else scale
        if is_swapped:
            ends, edits = (right, left), replace(PLAIN_COPY, scale=1 / own_scale)
        else:
            ends, edits = (left, right), replace(PLAIN_COPY, scale=own_scale)
        (edge,) = make_edges((*ends, 0.9), relation=Relation.DERIVED)
        verdict = Verdict(Relation.DERIVED, inliers, 30, 1.0, edits=edits)
        edges.append(replace(edge, verdict=verdict))
    keepers = {
        member: keeper
        for keeper, members in list_paths(form_groups(files, edges))
        for member in members
    }
    assert keepers["/3"] == owner


def test_lossy_file_is_kept_before_its_lossless_resave() -> None:
    jpeg = make_file(1, "/camera.jpg", pixels=1, size=100, mtime=9)
    png = make_file(2, "/a.png", pixels=1, size=900, mtime=5)
    png = replace(png, image=replace(png.image, format="PNG"))
    (group,) = form_groups(by_pixel_hash(png, jpeg), [])
    assert group.keeper == jpeg
    assert group.reason == "not a lossless copy"


def test_exact_copies_need_no_edge() -> None:
    files = by_pixel_hash(
        make_file(1, "/b", mtime=9),
        make_file(1, "/a", mtime=9),
        make_file(2, "/c", pixels=1, size=900, mtime=9),
        make_file(7, "/alone"),
    )
    (group,) = form_groups(files, [])
    assert group.keeper.path == "/a"
    assert [(member.file.path, member.relation, member.score) for member in group.members] == [
        ("/b", Relation.IDENTICAL_BYTES, 1.0),
        ("/c", Relation.IDENTICAL_PIXELS, 1.0),
    ]
    assert group.id == (1).to_bytes(32, "big").hex()[:16]


Link = tuple[float, Relation, float | None, float | None]  # score, relation, agreement, scale
NO_LINK: Link = 0.0, Relation.UNRELATED, None, None


def draw_links(links: SearchStrategy[Link]) -> SearchStrategy[dict[tuple[int, int], Link]]:
    """Draw links of most pairs of images, the lower number first: few links make no voucher."""
    drawn_link = integers(0, 9).flatmap(lambda number: links if number else none())
    pairs = fixed_dictionaries(dict.fromkeys(combinations(range(IMAGE_COUNT), 2), drawn_link))
    return pairs.map(lambda drawn: {ends: link for ends, link in drawn.items() if link})


@given(
    links=draw_links(
        tuples(
            floats(0.8, 1.0),
            sampled_from(
                [
                    *[Relation.SAME_PICTURE] * 4,
                    Relation.DERIVED,
                    Relation.ANOTHER_SHOT,
                    *[Relation.SIMILAR] * 2,
                    Relation.OVERLAPS,
                ]
            ),
            sampled_from([None, 0.8, 0.9, 1.0]),
            sampled_from([None, 0.3, 1.0, 2.0]),
        )
    ),
    widths=lists(integers(1, 4), min_size=IMAGE_COUNT, max_size=IMAGE_COUNT),
    wanted=sampled_from(
        [
            COPY_RELATIONS,
            COPY_RELATIONS,
            {Relation.SAME_PICTURE},
            COPY_RELATIONS | {Relation.ANOTHER_SHOT},
        ]
    ),
    seed=integers(0, 1000),
)
def test_laws(
    links: dict[tuple[int, int], Link],
    widths: list[int],
    wanted: Collection[Relation],
    seed: int,
) -> None:
    """The invariants that the docstring of assignment.py states, on random graphs."""
    # Images of odd number have two files with the same bytes.
    files = by_pixel_hash(
        *(
            make_file(n, f"/{n}-{copy}", width=widths[n])
            for n in range(IMAGE_COUNT)
            for copy in range(1 + n % 2)
        )
    )
    edges = [make_linked_edge(ends, link) for ends, link in links.items()]
    groups = form_groups(files, edges, wanted)

    paths = [file.path for group in groups for file in group.files]
    assert len(set(paths)) == len(paths)  # every file is in at most one group
    for group in groups:
        check_members(group, links, wanted)
        check_related(group, links)
    check_is_maximal(groups, files, links, wanted)
    check_keepers(groups, links, wanted)
    rng = random.Random(seed)
    shuffled_files = {
        pixel_hash: rng.sample(image_files, len(image_files))
        for pixel_hash, image_files in rng.sample(list(files.items()), IMAGE_COUNT)
    }
    swapped_edges = [swap_edge(edge) for edge in rng.sample(edges, len(edges))]
    reordered = form_groups(shuffled_files, swapped_edges, wanted)
    assert [without_verdicts(group) for group in reordered] == [
        without_verdicts(group) for group in groups
    ]


@given(
    links=draw_links(
        tuples(
            floats(0.8, 1.0),
            sampled_from([*[Relation.SAME_PICTURE] * 3, Relation.SIMILAR]),
            sampled_from([0.8, 1.0]),
            none(),
        )
    ),
    shots=lists(sampled_from([None, "10", "20"]), min_size=IMAGE_COUNT, max_size=IMAGE_COUNT),
    seed=integers(0, 1000),
)
def test_no_group_holds_two_exposures(
    links: dict[tuple[int, int], Link], shots: list[str | None], seed: int
) -> None:
    """Copies that lost their metadata go to either exposure, but never bring two together."""
    files = by_pixel_hash(*(make_file(n, f"/{n}") for n in range(IMAGE_COUNT)))
    edges = [make_linked_edge(ends, link) for ends, link in links.items()]
    exposures = make_exposures(shots)
    groups = form_groups(files, edges, exposures=exposures)
    for group in groups:
        check_members(group, links, COPY_RELATIONS)
        assert len({shots[get_number(file)] for file in group.files} - {None}) <= 1

    def is_of_other_exposure(group: Group, file: LibraryFile) -> bool:
        in_group = {shots[get_number(member)] for member in group.files} - {None}
        return shots[get_number(file)] not in {None, *in_group} and bool(in_group)

    check_keepers(groups, links, COPY_RELATIONS, is_of_other_exposure)
    shuffled = random.Random(seed).sample(edges, len(edges))
    reordered = form_groups(files, map(swap_edge, shuffled), exposures=exposures)
    assert list_paths(reordered) == list_paths(groups)
    # Who wants to see other shots gets them.
    wanted = COPY_RELATIONS | SCENE_RELATIONS
    assert list_paths(form_groups(files, edges, wanted, exposures=exposures)) == list_paths(
        form_groups(files, edges, wanted)
    )


def test_copy_without_metadata_goes_to_the_exposure_that_it_agrees_with_better() -> None:
    files = by_pixel_hash(*(make_file(n, f"/{n}", width=9 - n) for n in range(3)))
    edges = [
        make_linked_edge((0, 1), (0.99, Relation.ANOTHER_SHOT, 1.0, None)),
        make_linked_edge((0, 2), (0.99, Relation.SAME_PICTURE, 0.9, 1.0)),
        make_linked_edge((1, 2), (0.99, Relation.SAME_PICTURE, 1.0, 1.0)),
    ]
    groups = form_groups(files, edges, exposures=make_exposures(["10", "20", None]))
    assert list_paths(groups) == [("/1", ["/2"])]


def make_exposures(shots: list[str | None]) -> Exposures:
    """The metadata of images by their number, each with its own sub-seconds or without any."""
    return Exposures(
        {
            number.to_bytes(32, "big"): [
                NamedMetadata(
                    ImageMetadata(Capture(model="X", taken="2021-05-30 15:56:01", subseconds=shot))
                )
            ]
            for number, shot in enumerate(shots)
            if shot
        }
    )


def make_linked_edge(ends: tuple[int, int], link: Link) -> Edge:
    score, relation, agreeing_share, scale = link
    (edge,) = make_edges((*ends, score), relation=relation)
    if not agreeing_share:
        return edge
    edits = None
    if scale and relation in COPY_RELATIONS:
        edits = replace(PLAIN_COPY, scale=scale)
    inliers = round(100 * score)
    verdict = Verdict(relation, inliers, 30, agreeing_share, 0.0, IDENTITY, edits)
    return replace(edge, verdict=verdict)


def swap_edge(edge: Edge) -> Edge:
    verdict = edge.verdict and edge.verdict.swap_sides()
    return replace(edge, left=edge.right, right=edge.left, verdict=verdict)


def find_link(
    links: Mapping[tuple[int, int], Link], first: LibraryFile, second: LibraryFile
) -> tuple[float, Relation] | None:
    low, high = sorted((get_number(first), get_number(second)))
    link = links.get((low, high))
    return link[:2] if link else None


def are_linked(
    links: Mapping[tuple[int, int], Link],
    first: LibraryFile,
    second: LibraryFile,
    wanted: Collection[Relation],
) -> bool:
    link = find_link(links, first, second)
    return link is not None and link[1] in wanted


def rank(file: LibraryFile) -> tuple[object, ...]:
    return KeepRules().make_rank_key(file, Provenance())


def check_members(
    group: Group, links: Mapping[tuple[int, int], Link], wanted: Collection[Relation]
) -> None:
    """Each member has an edge to the keeper itself, of a wanted relation, and ranks after it.

    Or the keeper is in doubt, and members that have such an edge are copies of it.
    """
    for member in group.members:
        assert member.relation in wanted
        if member.voucher:
            direct = find_link(links, group.keeper, member.file)
            assert direct is None or direct[0] == member.score
            assert direct is None or direct[1] in (Relation.SIMILAR, Relation.OVERLAPS)
            vouched = find_link(links, member.voucher, member.file)
            assert vouched and member.relation == vouched[1]
            linked = {
                get_number(other.file)
                for other in group.members
                if not other.voucher and are_linked(links, other.file, member.file, wanted)
            }
            assert len(linked) >= MIN_VOUCHERS
            continue
        if get_number(member.file) == get_number(group.keeper):
            assert (member.score, member.relation) == (1.0, Relation.IDENTICAL_BYTES)
        else:
            assert (member.score, member.relation) == find_link(links, group.keeper, member.file)
            assert rank(group.keeper) < rank(member.file)


def check_related(group: Group, links: Mapping[tuple[int, int], Link]) -> None:
    """Each related file is outside the group and has an edge to a member."""
    group_hashes = {file.image.pixel_hash for file in group.files}
    for related in group.related:
        assert (related.score, related.relation) == find_link(links, related.file, related.member)
        assert related.member.image.pixel_hash in group_hashes
        assert related.file.image.pixel_hash not in group_hashes


def check_is_maximal(
    groups: Iterable[Group],
    files: Files,
    links: Mapping[tuple[int, int], Link],
    wanted: Collection[Relation],
) -> None:
    """No wanted pair has both ends ungrouped, and no keeper leaves a lower-ranked end ungrouped."""
    grouped = {file.path for group in groups for file in group.files}
    keepers = {group.keeper.path for group in groups}
    file_by_path = {file.path: file for image_files in files.values() for file in image_files}
    for ends, (_, relation, _, _) in links.items():
        if relation in wanted:
            better, worse = sorted(
                (f"/{end}-0" for end in ends), key=lambda path: rank(file_by_path[path])
            )
            assert better in grouped or worse in grouped
            assert better not in keepers or worse in grouped


def check_keepers(
    groups: Iterable[Group],
    links: Mapping[tuple[int, int], Link],
    wanted: Collection[Relation],
    is_of_other_exposure: Callable[[Group, LibraryFile], bool] = lambda group, file: False,
) -> None:
    """No two keepers have a wanted edge, and no member has one to the keeper of an earlier group.

    But for files of other exposures than that group's, members that fit another shot better, and
    copies of the photo on the page that the keeper of the earlier group is. A member can have one
    to a later keeper: it is a collage of two photos, for the keepers are no copies of each other.
    """
    by_rank = sorted(groups, key=lambda group: rank(group.keeper))
    for earlier, later in combinations(by_rank, 2):
        for file in later.files:
            if are_linked(links, earlier.keeper, file, wanted):
                assert is_of_other_exposure(earlier, file) or (
                    file is not later.keeper
                    and (
                        fits_other_shot_better(links, earlier.keeper, file, wanted)
                        or is_copy_of_photo(links, earlier.keeper, file, wanted)
                    )
                )


def is_copy_of_photo(
    links: Mapping[tuple[int, int], Link],
    page: LibraryFile,
    copy: LibraryFile,
    wanted: Collection[Relation],
) -> bool:
    """Check if the copy of a page is one of a photo that overlaps with the page, too."""
    links = dict(links) | {(high, low): link for (low, high), link in links.items()}
    number = get_number(page)
    return any(
        links.get((number, photo), NO_LINK)[1] is Relation.OVERLAPS
        and links.get((get_number(copy), photo), NO_LINK)[1] in wanted
        for photo in range(IMAGE_COUNT)
    )


def fits_other_shot_better(
    links: Mapping[tuple[int, int], Link],
    keeper: LibraryFile,
    copy: LibraryFile,
    wanted: Collection[Relation],
) -> bool:
    """Tell if a copy agrees better with another shot of a keeper's scene than with the keeper."""

    def get_link(first: int, second: int) -> Link | None:
        return links.get((min(first, second), max(first, second)))

    def measure_agreement(link: Link | None) -> tuple[float, int] | None:
        return (link[2], round(100 * link[0])) if link and link[2] else None

    own = measure_agreement(get_link(get_number(keeper), get_number(copy)))
    for shot in range(IMAGE_COUNT):
        between, other = get_link(get_number(keeper), shot), get_link(get_number(copy), shot)
        if between and between[1] == Relation.ANOTHER_SHOT and other and other[1] in wanted:
            agreement = measure_agreement(other)
            if own and agreement and agreement > own:
                return True
    return False

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis.strategies import dictionaries, floats, integers, lists, sampled_from, tuples

from indexes.records import FileStat, Image
from pipeline.grouping.cluster import Edge, Group, form_groups, relation_of
from pipeline.grouping.keep_rules import CopyHints, KeepRules, LibraryFile
from pipeline.verify.relation import COPY_RELATIONS, Relation, Side
from pipeline.verify.verdict import Edits, Verdict

COUNT = 6  # pictures under the laws, so that many of them are close
UNMOVED = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def photo(
    content: int,
    path: str,
    pixels: int | None = None,
    width: int = 100,
    size: int = 1000,
    mtime: int = 5,
) -> LibraryFile:
    shown = content if pixels is None else pixels
    image = Image(
        content.to_bytes(32, "big"), shown.to_bytes(32, "big"), width, 100, "JPEG", size, False
    )
    return LibraryFile(path, FileStat(size, mtime, 0, hash(path) & 0xFFFF, 1), image)


def shown(*photos: LibraryFile) -> dict[bytes, list[LibraryFile]]:
    found: dict[bytes, list[LibraryFile]] = {}
    for each in photos:
        found.setdefault(each.image.pixel_hash, []).append(each)
    return found


def edges(*found: tuple[int, int, float], relation: Relation = Relation.SAME_PICTURE) -> list[Edge]:
    return [
        Edge(left.to_bytes(32, "big"), right.to_bytes(32, "big"), relation, score)
        for left, right, score in found
    ]


def shape(groups: list[Group]) -> list[tuple[str, list[str]]]:
    return [(each.keeper.path, [member.file.path for member in each.members]) for each in groups]


def bare(one: Group) -> Group:
    """Without evidence, whose numbers are rounded when it is turned round."""
    return replace(one, members=tuple(replace(member, verdict=None) for member in one.members))


def test_strangers_are_not_chained() -> None:
    """a-b and b-c match, a-c do not: c must not come into a's group through b. It is named as related."""
    (found,) = form_groups(
        shown(*(photo(n, f"/{n}", width=200 - n) for n in (1, 2, 3))),
        edges((1, 2, 0.9), (2, 3, 0.8)),
    )
    assert shape([found]) == [("/1", ["/2"])]
    assert [(one.file.path, one.member.path, one.relation, one.score) for one in found.related] == [
        ("/3", "/2", Relation.SAME_PICTURE, 0.8)
    ]


def test_another_shot_is_related_unless_it_is_asked_for() -> None:
    pictures = shown(*(photo(n, f"/{n}", width=200 - n) for n in (1, 2, 3)))
    close = [
        *edges((1, 2, 0.9), relation=Relation.DERIVED),
        *edges((1, 3, 0.95), relation=Relation.SAME_SCENE),
    ]
    (found,) = form_groups(pictures, close)
    assert shape([found]) == [("/1", ["/2"])]
    assert [(one.file.path, one.relation) for one in found.related] == [("/3", Relation.SAME_SCENE)]
    (wide,) = form_groups(pictures, close, {Relation.DERIVED, Relation.SAME_SCENE})
    assert shape([wide]) == [("/1", ["/2", "/3"])]
    assert wide.related == ()
    assert form_groups(pictures, close, {Relation.IDENTICAL_BYTES}) == []


def test_a_damaged_photo_is_never_kept_for_a_sound_one() -> None:
    cut = photo(1, "/cut", width=500)
    cut = replace(cut, image=replace(cut.image, flags=("damaged",)))
    sound = photo(2, "/sound", width=50)
    assert shape(form_groups(shown(cut, sound), edges((1, 2, 0.9)))) == [("/sound", ["/cut"])]
    away = replace(sound, is_missing=True)  # it may be gone for good
    assert shape(form_groups(shown(cut, away), edges((1, 2, 0.9)))) == [("/cut", ["/sound"])]


def test_the_best_photo_is_kept() -> None:
    pictures = shown(
        photo(1, "/small", width=50),
        photo(2, "/large", width=500),
        photo(3, "/more bytes", width=500, size=2000),
    )
    found = form_groups(pictures, edges((1, 2, 0.9), (2, 3, 0.95), (1, 3, 0.91)))
    assert shape(found) == [("/more bytes", ["/large", "/small"])]
    assert [member.score for member in found[0].members] == [0.95, 0.91]
    assert found[0].reason == "most pixels, most bytes"


def test_what_was_made_of_another_is_not_kept_for_it() -> None:
    """An enlarged grey copy has more pixels, and is none the less a copy."""
    (edge,) = edges((1, 2, 0.9))
    what = Edits(
        False, 0, 0.0, False, 5.0, (1.0, 1.0), None, False, Side.SECOND, True, (), Side.SECOND
    )
    pictures = shown(photo(1, "/colour", width=100), photo(2, "/grey", width=500))
    assert shape(form_groups(pictures, [edge])) == [("/grey", ["/colour"])]
    told = replace(edge, verdict=Verdict(Relation.SAME_PICTURE, 100, 100, 1.0, 0.0, UNMOVED, what))
    (found,) = form_groups(pictures, [told])
    assert (shape([found]), found.reason) == ([("/colour", ["/grey"])], "not made of another")


def test_one_voice_among_many_does_not_make_a_copy_of_an_original() -> None:
    """Two crops were made of it; a third picture, whose margin is taken for more of the scene, says that it is a part of that."""

    def made(of: Side) -> Verdict:
        what = Edits(False, 0, 0.0, False, 1.0, (1.0, 0.8), None, False, None, False, (), of)
        return Verdict(Relation.DERIVED, 100, 100, 1.0, 0.0, UNMOVED, what)

    pictures = shown(
        photo(1, "/original", mtime=1),
        photo(2, "/framed"),
        photo(3, "/crop", width=50),
        photo(4, "/crop 2", width=50),
    )
    (wrong,) = [
        replace(edge, verdict=made(Side.FIRST))
        for edge in edges((1, 2, 0.9), relation=Relation.DERIVED)
    ]
    crops = [
        replace(edge, verdict=made(Side.SECOND))
        for edge in edges((1, 3, 0.9), (1, 4, 0.8), relation=Relation.DERIVED)
    ]
    assert shape(form_groups(pictures, [wrong])) == [
        ("/framed", ["/original"])
    ]  # there is nobody else to ask
    assert shape(form_groups(pictures, [wrong, *crops])) == [
        ("/original", ["/crop", "/framed", "/crop 2"])
    ]


@pytest.mark.parametrize(
    ("agree", "keypoints", "owner"),
    [
        ((0.9, 1.0), (40, 30), "/2"),
        ((1.0, 1.0), (30, 31), "/2"),
        ((1.0, 1.0), (30, 30), "/1"),
        ((1.0, 0.9), (30, 40), "/1"),
    ],
)
def test_a_small_copy_goes_with_the_shot_that_it_is_rather_a_copy_of(
    agree: tuple[float, float], keypoints: tuple[int, int], owner: str
) -> None:
    """It is too small to tell two shots of a burst apart by itself; but one of them is its own."""
    pictures = shown(*(photo(n, f"/{n}", width=200 - 50 * n) for n in (1, 2, 3)))
    copies = [
        replace(edge, verdict=Verdict(Relation.DERIVED, count, 30, its))
        for edge, its, count in zip(
            edges((1, 3, 0.9), (2, 3, 0.8), relation=Relation.DERIVED),
            agree,
            keypoints,
            strict=True,
        )
    ]
    assert shape(
        form_groups(pictures, [*copies, *edges((1, 2, 0.99), relation=Relation.SAME_SCENE)])
    ) == [(owner, ["/3"])]
    assert shape(form_groups(pictures, copies)) == [("/1", ["/3"])]  # a collage of two pictures
    assert shape(
        form_groups(pictures, [*copies[:1], *edges((1, 2, 0.99), relation=Relation.SAME_SCENE)])
    ) == [("/1", ["/3"])]
    taken = [
        *copies,
        *edges((1, 2, 0.99), relation=Relation.SAME_SCENE),
        *edges((4, 2, 0.9)),
    ]  # the other shot went into a group without it
    assert shape(form_groups(pictures | shown(photo(4, "/0", width=400)), taken)) == [
        ("/0", ["/2"]),
        ("/1", ["/3"]),
    ]
    more = pictures | shown(photo(4, "/0", width=400), photo(5, "/5", width=10))
    assert shape(form_groups(more, [*taken, *edges((1, 5, 0.8))])) == [
        ("/0", ["/2"]),
        ("/1", ["/5", "/3"]),
    ]


def test_a_copy_is_left_only_to_a_shot_that_can_take_it() -> None:
    """Else it stays with the keeper, and does not keep what is smaller itself."""
    pictures = shown(*(photo(n, f"/{n}", width=200 - 20 * n) for n in (1, 2, 3, 4)))

    def found(
        pictures: dict[bytes, list[LibraryFile]],
        near: Relation = Relation.DERIVED,
        shots: Relation = Relation.SAME_SCENE,
        relations: Iterable[Relation] = COPY_RELATIONS,
    ) -> list[tuple[str, list[str]]]:
        copies = [
            (1, 3, Relation.SAME_PICTURE, 0.9),
            (2, 3, near, 1.0),
            (3, 4, Relation.SAME_PICTURE, 1.0),
            (1, 2, shots, 0.1),
        ]
        close = [
            replace(edge, verdict=Verdict(relation, 30, 30, agree))
            for left, right, relation, agree in copies
            for edge in edges((left, right, 0.9), relation=relation)
        ]
        return shape(form_groups(pictures, close, relations))

    assert found(pictures) == [("/2", ["/3"])]
    assert found(pictures, relations=[Relation.SAME_PICTURE]) == [("/1", ["/3"])]
    assert found(pictures, near=Relation.SAME_SCENE) == [("/1", ["/3"])]
    assert found(pictures, shots=Relation.SAME_PICTURE) == [("/1", ["/2", "/3"])]
    assert found(pictures, relations=[*COPY_RELATIONS, Relation.SAME_SCENE]) == [
        ("/1", ["/3", "/2"])
    ]
    assert found(pictures | shown(photo(2, "/2", width=10))) == [
        ("/1", ["/3"])
    ]  # it is worse than the copy


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("scale", "owner"), [(1.0, "/1"), (0.95, "/1"), (0.5, "/2")])
def test_a_much_edited_copy_is_no_other_shot(scale: float, owner: str, turned: bool) -> None:
    """It passes for the same scene; but a copy of both that is no smaller than they are would tell two shots apart."""
    what = Edits(False, 0, 0.0, False, scale, (1.0, 1.0), None, False, None, True, (), None)
    pictures = shown(*(photo(n, f"/{n}", width=500 - 50 * n) for n in (1, 2, 3, 4)))
    close = edges((1, 2, 0.99), relation=Relation.SAME_SCENE)
    for left, right, count in ((1, 3, 30), (2, 3, 40), (1, 4, 30), (2, 4, 30)):
        its = 0.3 if right == 3 else scale
        ends, changes = (
            ((right, left), replace(what, scale=1 / its))
            if turned
            else ((left, right), replace(what, scale=its))
        )
        (edge,) = edges((*ends, 0.9), relation=Relation.DERIVED)
        close.append(
            replace(edge, verdict=Verdict(Relation.DERIVED, count, 30, 1.0, edits=changes))
        )
    found = {
        member: keeper
        for keeper, members in shape(form_groups(pictures, close))
        for member in members
    }
    assert found["/3"] == owner


def test_a_photo_is_kept_before_its_lossless_resave() -> None:
    jpeg = photo(1, "/camera.jpg", pixels=1, size=100, mtime=9)
    png = replace(
        photo(2, "/a.png", pixels=1, size=900, mtime=5),
        image=replace(photo(2, "/", pixels=1, size=900).image, format="PNG"),
    )
    (found,) = form_groups(shown(png, jpeg), edges())
    assert found.keeper == jpeg
    assert found.reason == "not a lossless copy"


def test_a_copy_of_fewer_tiles_than_are_asked_for_is_only_similar() -> None:
    copy, scene = (
        Verdict(Relation.SAME_PICTURE, 100, 100, 0.9),
        Verdict(Relation.SAME_SCENE, 100, 100, 0.2),
    )
    assert [relation_of(copy, 0.9, 0.6, strictness) for strictness in (0.0, 0.9, 0.91)] == [
        Relation.SAME_PICTURE,
        Relation.SAME_PICTURE,
        Relation.SIMILAR,
    ]
    assert relation_of(scene, 0.9, 0.6, 1.0) == Relation.SAME_SCENE


def test_exact_copies_need_no_edge_and_are_told_apart() -> None:
    copies = (
        photo(1, "/b", mtime=9),
        photo(1, "/a", mtime=9),
        photo(2, "/c", pixels=1, size=900, mtime=9),
    )
    (found,) = form_groups(shown(*copies, photo(7, "/alone")), edges())
    assert found.keeper.path == "/a"
    assert [(member.file.path, member.relation, member.score) for member in found.members] == [
        ("/b", Relation.IDENTICAL_BYTES, 1.0),
        ("/c", Relation.IDENTICAL_PIXELS, 1.0),
    ]
    assert found.id == (1).to_bytes(32, "big").hex()[:16]


@given(
    links=dictionaries(
        tuples(integers(0, COUNT - 1), integers(0, COUNT - 1)).filter(
            lambda ends: ends[0] < ends[1]
        ),
        tuples(
            floats(0.8, 1.0),
            sampled_from([Relation.SAME_PICTURE, Relation.DERIVED, Relation.SAME_SCENE]),
            sampled_from([None, 0.8, 0.9, 1.0]),
            sampled_from([None, 0.3, 1.0, 2.0]),
        ),
        max_size=COUNT * (COUNT - 1) // 2,
    ),
    widths=lists(integers(1, 4), min_size=COUNT, max_size=COUNT),
    wanted=sampled_from(
        [
            COPY_RELATIONS,
            COPY_RELATIONS,
            {Relation.SAME_PICTURE},
            COPY_RELATIONS | {Relation.SAME_SCENE},
        ]
    ),
    seed=integers(0, 1000),
)
def test_laws(
    links: dict[tuple[int, int], tuple[float, Relation, float | None, float | None]],
    widths: list[int],
    wanted: Collection[Relation],
    seed: int,
) -> None:
    scores = {ends: link[:2] for ends, link in links.items()}
    pictures = shown(
        *(photo(n, f"/{n}-{k}", width=widths[n]) for n in range(COUNT) for k in range(1 + n % 2))
    )
    close = []
    for pair, (score, relation, agree, scale) in links.items():
        (edge,) = edges((*pair, score), relation=relation)
        changes = (
            Edits(False, 0, 0.0, False, scale, (1.0, 1.0), None, False, None, True, (), None)
            if scale and relation != Relation.SAME_SCENE
            else None
        )
        its = (
            Verdict(relation, round(100 * score), 30, agree, 0.0, UNMOVED, changes)
            if agree
            else None
        )
        close.append(replace(edge, verdict=its))
    found = form_groups(pictures, close, wanted)
    everyone = [
        each for one in found for each in (one.keeper, *(member.file for member in one.members))
    ]
    assert len({each.path for each in everyone}) == len(
        everyone
    )  # every file is in at most one group
    for one in found:
        for member in one.members:
            ends = sorted(
                int.from_bytes(each.image.hash, "big") for each in (one.keeper, member.file)
            )
            known = (
                (1.0, Relation.IDENTICAL_BYTES) if ends[0] == ends[1] else scores[ends[0], ends[1]]
            )  # joined to the keeper itself
            assert (member.score, member.relation) == known
            assert member.relation in wanted
            if member.file.image.pixel_hash != one.keeper.image.pixel_hash:
                assert KeepRules().rank_key(one.keeper, CopyHints()) < KeepRules().rank_key(
                    member.file, CopyHints()
                )
        inside = {
            one.keeper.image.pixel_hash,
            *(member.file.image.pixel_hash for member in one.members),
        }
        for related in one.related:
            ends = sorted(
                int.from_bytes(each.image.hash, "big") for each in (related.file, related.member)
            )
            assert (related.score, related.relation) == scores[ends[0], ends[1]]
            assert related.member.image.pixel_hash in inside
            assert related.file.image.pixel_hash not in inside
    grouped = {each.path for each in everyone}
    by_path = {each.path: each for photos in pictures.values() for each in photos}
    kept = {one.keeper.path for one in found}
    for pair, (_, relation) in scores.items():
        if relation in wanted:
            better, worse = sorted(
                (f"/{end}-0" for end in pair),
                key=lambda path: KeepRules().rank_key(by_path[path], CopyHints()),
            )
            assert (
                better in grouped or worse in grouped
            )  # no matching pair is left with both ends alone
            assert better not in kept or worse in grouped  # and no keeper leaves a worse copy alone
    rng = random.Random(seed)  # in another order: the same answer
    shuffled = {
        pixels: rng.sample(photos, len(photos))
        for pixels, photos in rng.sample(list(pictures.items()), COUNT)
    }
    turned = [
        replace(
            edge,
            left=edge.right,
            right=edge.left,
            verdict=edge.verdict and edge.verdict.swap_sides(),
        )
        for edge in rng.sample(close, len(close))
    ]
    assert [bare(one) for one in form_groups(shuffled, turned, wanted)] == [
        bare(one) for one in found
    ]

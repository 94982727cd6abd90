from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis.strategies import floats, integers, lists, tuples

from indexes import Image, Scored, Stat
from pipeline.cluster import IDENTICAL_BYTES, IDENTICAL_PIXELS, SIMILAR, Group, Photo, group, rank


def photo(content: int, path: str, pixels: int | None = None, width: int = 100, size: int = 1000, mtime: int = 5) -> Photo:
    shown = content if pixels is None else pixels
    image = Image(content.to_bytes(32, "big"), shown.to_bytes(32, "big"), width, 100, "JPEG", size, False)
    return Photo(path, Stat(size, mtime, 0, hash(path) & 0xFFFF, 1), image)


def edges(*found: tuple[int, int, float]) -> Scored:
    left, right, score = zip(*found, strict=True) if found else ((), (), ())
    return Scored(np.array(left, np.int64), np.array(right, np.int64), np.array(score, np.float64))


def shape(groups: list[Group]) -> list[tuple[str, list[str]]]:
    return [(each.keeper.path, [member.photo.path for member in each.members]) for each in groups]


def test_strangers_are_not_chained() -> None:
    """a-b and b-c are near, a-c are not: c must not come into a's group through b."""
    pictures = {n: [photo(n, f"/{n}", width=200 - n)] for n in (1, 2, 3)}
    assert shape(group(pictures, edges((1, 2, 0.9), (2, 3, 0.9)))) == [("/1", ["/2"])]


def test_a_damaged_photo_is_never_kept_for_a_sound_one() -> None:
    cut = photo(1, "/cut", width=500)
    cut = replace(cut, image=replace(cut.image, notes=("damaged",)))
    sound = photo(2, "/sound", width=50)
    assert shape(group({1: [cut], 2: [sound]}, edges((1, 2, 0.9)))) == [("/sound", ["/cut"])]
    away = replace(sound, missing=True)  # it may be gone for good
    assert shape(group({1: [cut], 2: [away]}, edges((1, 2, 0.9)))) == [("/cut", ["/sound"])]


def test_the_best_photo_is_kept() -> None:
    pictures = {1: [photo(1, "/small", width=50)], 2: [photo(2, "/large", width=500)], 3: [photo(3, "/more bytes", width=500, size=2000)]}
    found = group(pictures, edges((1, 2, 0.9), (2, 3, 0.95), (1, 3, 0.91)))
    assert shape(found) == [("/more bytes", ["/large", "/small"])]
    assert [member.score for member in found[0].members] == [0.95, 0.91]


def test_a_photo_is_kept_before_its_lossless_resave() -> None:
    jpeg = photo(1, "/camera.jpg", pixels=1, size=100, mtime=9)
    png = replace(photo(2, "/a.png", pixels=1, size=900, mtime=5), image=replace(photo(2, "/", pixels=1, size=900).image, format="PNG"))
    (found,) = group({1: [png, jpeg]}, edges())
    assert found.keeper == jpeg


def test_exact_copies_need_no_edge_and_are_told_apart() -> None:
    pictures = {1: [photo(1, "/b", mtime=9), photo(1, "/a", mtime=9), photo(2, "/c", pixels=1, size=900, mtime=9)], 2: [photo(7, "/alone")]}
    (found,) = group(pictures, edges())
    assert found.keeper.path == "/a"
    assert [(member.photo.path, member.relation, member.score) for member in found.members] == [
        ("/b", IDENTICAL_BYTES, 1.0),
        ("/c", IDENTICAL_PIXELS, 1.0),
    ]
    assert found.id == (1).to_bytes(32, "big").hex()[:16]


@given(
    links=lists(tuples(integers(0, 11), integers(0, 11), floats(0.8, 1.0)), max_size=40),
    widths=lists(integers(1, 4), min_size=12, max_size=12),
    seed=integers(0, 1000),
)
def test_laws(links: list[tuple[int, int, float]], widths: list[int], seed: int) -> None:
    scores = {(min(a, b), max(a, b)): score for a, b, score in links if a != b}
    pictures = {n: [photo(n, f"/{n}-{k}", width=widths[n]) for k in range(1 + n % 2)] for n in range(12)}
    found = group(pictures, edges(*((a, b, score) for (a, b), score in scores.items())))
    everyone = [each for one in found for each in (one.keeper, *(member.photo for member in one.members))]
    assert len({each.path for each in everyone}) == len(everyone)  # every file is in at most one group
    for one in found:
        for member in one.members:
            ends = sorted(int.from_bytes(each.image.hash, "big") for each in (one.keeper, member.photo))
            assert member.relation == (IDENTICAL_BYTES if ends[0] == ends[1] else SIMILAR)
            assert member.score == (1.0 if ends[0] == ends[1] else scores[ends[0], ends[1]])  # joined to the keeper itself
            if member.photo.image.pixels != one.keeper.image.pixels:
                assert rank(one.keeper) < rank(member.photo)
    grouped = {each.path for each in everyone}
    for a, b in scores:  # no near pair is left with both ends alone
        assert f"/{a}-0" in grouped or f"/{b}-0" in grouped
    # other ids, another order: the same answer
    rng = random.Random(seed)
    renamed = dict(zip(range(12), rng.sample(range(100), 12), strict=True))
    shuffled = {renamed[n]: rng.sample(photos, len(photos)) for n, photos in rng.sample(list(pictures.items()), 12)}
    mixed = [(renamed[b], renamed[a], score) for (a, b), score in scores.items()]
    rng.shuffle(mixed)
    assert group(shuffled, edges(*mixed)) == found

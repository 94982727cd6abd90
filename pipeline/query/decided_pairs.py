"""The pairs that decisions need in groups, and that the candidates of a store may lack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations

from indexes.catalog.verdicts import StoredVerdict
from indexes.store import Store
from pipeline.grouping.decisions import Decisions
from pipeline.verify.relation import UNREPORTED_RELATIONS


def find_decided_images(store: Store, decisions: Decisions) -> dict[int, int | None]:
    """Return the vector id of each image with the bytes or pixels of a decided one, by image id.

    A decided image may have no file any more; its copies stay on its side all the same.
    """
    if not decisions.all:
        return {}
    ids = set(store.catalog.decisions.find_images().values())
    for decision in decisions.all:
        for content in decision.contents:
            ids.update(store.catalog.images.find_by_pixel_hash(content.pixel_hash))
    return store.catalog.vectors.find_of_images(ids)


def score_same_pairs(
    store: Store, decisions: Decisions, vector_by_pixel_hash: Mapping[bytes, int]
) -> dict[tuple[bytes, bytes], float]:
    """Return the cosine of each two images that are decided to be the same, by pixel hash.

    The smaller hash comes first. Images without a vector are left out.
    """
    units = decisions.find_units(vector_by_pixel_hash)
    pairs = [pair for unit in units for pair in combinations(sorted(unit), 2)]
    return _score(store, pairs, vector_by_pixel_hash)


def find_decided_verdicts(
    store: Store, decisions: Decisions, vector_by_pixel_hash: Mapping[bytes, int]
) -> Iterator[tuple[bytes, bytes, float, StoredVerdict]]:
    """Yield (left, right, score, verdict) of each verdict that relates another image to one that
    is decided to be different from any.

    The form and the order are those of iter_scored_verdicts().
    """
    newest = dict[frozenset[bytes], tuple[bytes, bytes, StoredVerdict]]()
    for pixel_hash in vector_by_pixel_hash if decisions.has_pairs else ():
        if decisions.get_sides(pixel_hash):
            for left, right, stored in store.catalog.verdicts.find_of_image(pixel_hash):
                newest[frozenset((left, right))] = left, right, stored
    related = [
        (left, right, stored)
        for left, right, stored in newest.values()
        if stored.relation not in UNREPORTED_RELATIONS and left != right
    ]
    scores = _score(store, [(left, right) for left, right, _ in related], vector_by_pixel_hash)
    for left, right, stored in related:
        if (left, right) in scores:
            yield left, right, scores[left, right], stored


def _score(
    store: Store, pairs: Iterable[tuple[bytes, bytes]], vector_by_pixel_hash: Mapping[bytes, int]
) -> dict[tuple[bytes, bytes], float]:
    """Return the cosines of pairs of images that both have a vector."""
    scored = [
        pair for pair in dict.fromkeys(pairs) if all(end in vector_by_pixel_hash for end in pair)
    ]
    vectors = [(vector_by_pixel_hash[left], vector_by_pixel_hash[right]) for left, right in scored]
    return dict(zip(scored, store.search.score_vector_pairs(vectors), strict=True))

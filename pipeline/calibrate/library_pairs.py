"""Count the pairs of a library that are accepted as copies, and those that cannot be copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from indexes.records import Image
from indexes.store import Store
from pipeline.calibrate.measurement import AcceptedPair, LibraryPairs
from pipeline.query.snapshot import iter_scored_verdicts, score_crop_pairs
from pipeline.verify.relation import Relation
from pipeline.verify.verdict import decode_verdict

SECONDS_PER_DAY = 86_400
# From this many days on, neither a time zone nor a wrong clock gives one shot two dates.
MIN_DAYS_APART = 2

PixelHashPair = tuple[bytes, bytes]  # the smaller hash first


def measure_library_pairs(store: Store, floor: float) -> LibraryPairs:
    """Collect the accepted pairs of a store with score >= `floor`, and count all pairs.

    Images with equal pixels count as one image, with the earliest of their dates. Featureless
    images do not count.
    """
    with store.catalog.snapshot():
        images = {
            image_id: image
            for image_id, image in store.catalog.images.get(store.catalog.images.list_in_use())
            if not image.is_featureless
        }
        path_by_pixel_hash: dict[bytes, str] = {}
        for file in store.catalog.files.find_of_images(images):
            if file.image_id is not None:
                path_by_pixel_hash.setdefault(images[file.image_id].pixel_hash, file.path)
        accepted = _find_accepted_pairs(store, floor, path_by_pixel_hash)
    day_by_pixel_hash = _find_days(images.values())
    days = [day_by_pixel_hash[hash_] for hash_ in path_by_pixel_hash if hash_ in day_by_pixel_hash]
    false_positives = [
        pair
        for hashes, pair in accepted.items()
        if _are_days_apart(*(day_by_pixel_hash.get(hash_) for hash_ in hashes))
    ]
    false_positives.sort(key=lambda pair: (-pair.agreeing_share, pair.first, pair.second))
    scores = [(pair.score, pair.agreeing_share) for pair in accepted.values()]
    return LibraryPairs(
        np.array(scores, np.float64).reshape(-1, 2),
        _count_pairs(len(path_by_pixel_hash)),
        _count_date_separated_pairs(days),
        tuple(false_positives),
    )


def _find_accepted_pairs(
    store: Store, floor: float, path_by_pixel_hash: Mapping[bytes, str]
) -> dict[PixelHashPair, AcceptedPair]:
    """Find the pairs that verification accepted as copies, by the latest verdict of each pair.

    Pairs that match only by crops have the score `floor`: a higher threshold leaves them out.
    """
    scores = store.search.find_candidates(floor).to_dict()
    scores |= dict.fromkeys(score_crop_pairs(store, scores, floor), floor)
    vectors = store.catalog.vectors.find_by_pixel_hash(path_by_pixel_hash)
    accepted: dict[PixelHashPair, AcceptedPair] = {}
    stored = store.catalog.verdicts.stream_with_pixel_hashes()
    for left, right, score, verdict in iter_scored_verdicts(stored, scores, vectors):
        key = min(left, right), max(left, right)
        accepted.pop(key, None)
        if verdict.relation in (Relation.SAME_PICTURE, Relation.DERIVED):
            agreeing_share = decode_verdict(verdict).agreeing_share
            accepted[key] = AcceptedPair(
                path_by_pixel_hash[left], path_by_pixel_hash[right], score, agreeing_share
            )
    return accepted


def _find_days(images: Iterable[Image]) -> dict[bytes, int]:
    """Return the day of the earliest EXIF date of each pixel hash that has one."""
    day_by_pixel_hash: dict[bytes, int] = {}
    for image in images:
        if image.taken_at is not None:
            day = image.taken_at // SECONDS_PER_DAY
            earliest = day_by_pixel_hash.get(image.pixel_hash, day)
            day_by_pixel_hash[image.pixel_hash] = min(day, earliest)
    return day_by_pixel_hash


def _are_days_apart(first_day: int | None, second_day: int | None) -> bool:
    if first_day is None or second_day is None:
        return False
    return abs(first_day - second_day) >= MIN_DAYS_APART


def _count_date_separated_pairs(days: list[int]) -> int:
    """Count the pairs of images that are at least MIN_DAYS_APART apart, given the day of each."""
    images_by_day = Counter(days)
    near_pairs = 0
    for day, count in images_by_day.items():
        near_pairs += _count_pairs(count)
        for gap in range(1, MIN_DAYS_APART):
            near_pairs += count * images_by_day[day + gap]
    return _count_pairs(len(days)) - near_pairs


def _count_pairs(count: int) -> int:
    """Count the unordered pairs of `count` items."""
    return count * (count - 1) // 2

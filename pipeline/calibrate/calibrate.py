"""What a library would find, and wrongly take for copies, at each threshold and strictness: measured on copies of its own photos."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from indexes.caches.crops import CropCache
from indexes.caches.thumbnails import Thumbnail, ThumbnailCache
from indexes.join.exact import pick_evenly
from indexes.records import Image
from indexes.store import Store
from indexes.vectors.segments import cosines
from pipeline.calibrate.measurement import AcceptedPair, Calibration
from pipeline.calibrate.synthetic_copies import EVERYDAY_EDITS, HARD_EDITS
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import VERIFY_INPUT, Preprocess
from pipeline.embed.crops import embed_crops, compute_crop_floor
from pipeline.embed.embedder import Embedder, embed_all
from pipeline.ingest.audit import sample_images
from pipeline.query.groups import iter_scored_verdicts, score_crop_pairs
from pipeline.query.thresholds import get_effective_floor
from pipeline.scan import SourceFile
from pipeline.thumbnails import Thumbnails, decode_thumbnail, encode_thumbnail, read_images
from pipeline.verify.features import has_current_format
from pipeline.verify.inputs import build_verify_input, load_features
from pipeline.verify.pool import VerifierPool
from pipeline.verify.relation import Relation
from pipeline.verify.verdict import decode_verdict

EDITS = EVERYDAY_EDITS | HARD_EDITS
COPY_SOURCE = Preprocess(1024, "within")  # what copies are made of
MIN_SOURCE_SIDE_PX = 64  # pixels of the shorter side of what is copied
SECONDS_PER_DAY, MIN_DAYS_APART = (
    86400,
    2,
)  # seconds; and days from which on no clock and no zone makes one shot of two


def calibrate(store: Store, embedder: Embedder, images: Sequence[int]) -> Calibration:
    """Make copies of some photos of the store, look for them as for any, and count what of the library passes for copies.

    The same for the same store and images. Photos that are away, small or without features are passed over. Nothing is kept. Raises
    SpaceMismatch for an embedder of another space than the store's.
    """
    store.require_space(embedder.space)
    floor = get_effective_floor(store, embedder.space)
    with (
        tempfile.TemporaryDirectory() as folder,
        DecoderPool() as decoders,
        ThumbnailCache(store.folder, write=False) as thumbs,
        VerifierPool() as verifiers,
    ):
        pictures = Thumbnails(store, thumbs, decoders)
        with CropCache(store.folder, embedder.space, write=False) as parts:
            by_parts = floor if parts.has_compared_images else None
        made = [
            one
            for some in _make_copies(store, decoders, images, Path(folder))
            for one in _score_copies(store, embedder, decoders, pictures, verifiers, some, by_parts)
        ]
        photos = len({image for image, _, _, _ in made})
    kinds, scores, agree = (
        tuple(kind for _, kind, _, _ in made),
        [score for _, _, score, _ in made],
        [share for _, _, _, share in made],
    )
    return Calibration(
        photos,
        floor,
        kinds,
        np.array(scores, np.float64),
        np.array(agree, np.float64),
        *_measure_library(store, floor),
    )


def sample_copyable_images(store: Store, count: int) -> list[int]:
    """Up to `count` images of the store that copies can be made of, spread over it."""
    images = sample_images(store, 4 * count)
    sound = [
        id_
        for id_, image in store.catalog.images.get(images)
        if not image.is_featureless and min(image.width, image.height) >= MIN_SOURCE_SIDE_PX
    ]
    return [sound[row] for row in pick_evenly(len(sound), count)]


def _make_copies(
    store: Store, decoders: DecoderPool, images: Sequence[int], folder: Path
) -> Iterator[tuple[int, dict[str, Path]]]:
    """For each image the files of its copies, by kind, for as long as it is dealt with. What lies below it is the picture before."""
    before = Pillow.effect_mandelbrot((640, 480), (-2.0, -1.5, 1.0, 1.5), 50).convert("RGB")
    about = dict(store.catalog.images.get(images))
    for id_, result in read_images(store, decoders, about, COPY_SOURCE):
        if not isinstance(result, Decoded) or min(result.pixels.shape[:2]) < MIN_SOURCE_SIDE_PX:
            continue
        picture = Pillow.fromarray(result.pixels)
        files = {}
        for number, (kind, edit) in enumerate(EDITS.items()):
            files[kind] = folder / f"{number:02}.jpg"
            edit(picture, before, random.Random(f"{about[id_].hash.hex()} {kind}")).save(
                files[kind], quality=85
            )
        before = picture
        yield id_, files


def _score_copies(
    store: Store,
    embedder: Embedder,
    decoders: DecoderPool,
    thumbnails: Thumbnails,
    verifiers: VerifierPool,
    copy_files: tuple[int, Mapping[str, Path]],
    crop_score: float | None,
) -> list[tuple[int, str, float, float]]:
    """The image, kind, cosine and share of tiles that agree of each copy of a photo; `by_parts` for the cosine of one that is found only as
    a picture within a picture; None where these are not looked for.
    """
    image, files = copy_files
    own, vectors = (
        load_features(thumbnails, [image], verifiers.extract_features)[0],
        store.get_vectors([image]),
    )
    sources = [SourceFile(str(path)) for path in files.values()]
    views = [
        each.pixels
        for each in decoders.stream(sources, embedder.preprocess)
        if isinstance(each, Decoded)
    ]
    seen = [each for each in decoders.stream(sources, VERIFY_INPUT) if isinstance(each, Decoded)]
    if (
        image not in own
        or image not in vectors
        or len(views) < len(files)
        or len(seen) < len(files)
    ):
        return []
    stored = embed_all(embedder, views).astype(np.float16)
    scores = cosines(np.broadcast_to(vectors[image].astype(np.float16), stored.shape), stored)
    thumbs = [encode_thumbnail(one.pixels) for one in seen]
    features = [its or b"" for its in verifiers.extract_features(thumbs)]
    if not all(map(has_current_format, features)):
        return []
    copies = [
        build_verify_input(one.image, Thumbnail(picture, its))
        for one, picture, its in zip(seen, thumbs, features, strict=True)
    ]
    found = verifiers.verify([(build_verify_input(*own[image]), copy) for copy in copies])
    agree = [
        evidence.agreeing_share
        if evidence and evidence.relation in (Relation.SAME_PICTURE, Relation.DERIVED)
        else -1.0
        for evidence in found
    ]
    scores = scores.astype(np.float64)
    far = [
        number
        for number in range(len(files))
        if crop_score is not None and scores[number] < crop_score and agree[number] >= 0
    ]
    if far:
        whole = own[image][0], decode_thumbnail(own[image][1].jpeg), vectors[image]
        near = _match_by_crops(
            embedder,
            [whole, *((seen[at].image, decode_thumbnail(thumbs[at]), stored[at]) for at in far)],
        )
        scores[np.array(far)[near]] = crop_score
    return [
        (image, kind, float(score), share)
        for kind, score, share in zip(files, scores, agree, strict=True)
    ]


def _match_by_crops(
    embedder: Embedder, images: Sequence[tuple[Image, NDArray[np.uint8], NDArray[np.floating[Any]]]]
) -> NDArray[np.bool_]:
    """Whether a part of the first picture is like each of the others, or a part of that like the first."""
    (first, *others), (own, *theirs) = (
        images,
        embed_crops([(image, rgb) for image, rgb, _ in images], embedder),
    )
    near = np.zeros(len(others), bool)
    for number, ((_, _, vector), parts) in enumerate(zip(others, theirs, strict=True)):
        for rows, whole in ((own, vector), (parts, first[2])):
            if rows is not None:
                both = cosines(
                    rows.astype(np.float16), np.broadcast_to(whole.astype(np.float16), rows.shape)
                )
                near[number] |= both.max() >= compute_crop_floor(embedder.space)
    return near


def _measure_library(
    store: Store, floor: float
) -> tuple[NDArray[np.float64], int, int, tuple[AcceptedPair, ...]]:
    """Of the store: accepted pairs, (n, 2); how many pairs of pictures there are, and how many of them were taken days apart; those of
    these that were accepted.
    """
    with store.catalog.snapshot():
        about = {
            id_: image
            for id_, image in store.catalog.images.get(store.catalog.images.list_in_use())
            if not image.is_featureless
        }
        path: dict[bytes, str] = {}
        for known in store.catalog.files.find_of_images(about):
            if known.image_id is not None:
                path.setdefault(about[known.image_id].pixel_hash, known.path)
        scores = store.find_pairs(floor).to_dict()
        scores |= dict.fromkeys(
            score_crop_pairs(store, scores), floor
        )  # who asks for more than the floor asks for none of these
        vectors = store.catalog.vectors.find_by_pixel_hash(path)
        dated: dict[bytes, int] = {}  # of files with the same pixels, the earliest date
        for image in about.values():
            if image.taken_at is not None:
                dated[image.pixel_hash] = min(
                    image.taken_at // SECONDS_PER_DAY,
                    dated.get(image.pixel_hash, image.taken_at // SECONDS_PER_DAY),
                )
        found_of: dict[tuple[bytes, bytes], AcceptedPair] = {}
        for left, right, score, judged in iter_scored_verdicts(store, scores, vectors):
            found_of.pop((min(left, right), max(left, right)), None)
            if judged.relation in (Relation.SAME_PICTURE, Relation.DERIVED):
                found_of[min(left, right), max(left, right)] = AcceptedPair(
                    path[left], path[right], score, decode_verdict(judged).agreeing_share
                )
    accepted = [(pair.score, pair.agreeing_share) for pair in found_of.values()]
    apart = [
        pair
        for (one, other), pair in found_of.items()
        if one in dated and other in dated and abs(dated[one] - dated[other]) >= MIN_DAYS_APART
    ]
    days = Counter(dated[pixels] for pixels in path if pixels in dated)
    near = sum(
        _count_pairs(count) + sum(count * days[day + later] for later in range(1, MIN_DAYS_APART))
        for day, count in list(days.items())
    )
    apart.sort(key=lambda pair: (-pair.agreeing_share, pair.first, pair.second))
    return (
        np.array(accepted, np.float64).reshape(-1, 2),
        _count_pairs(len(path)),
        _count_pairs(days.total()) - near,
        tuple(apart),
    )


def _count_pairs(count: int) -> int:
    return count * (count - 1) // 2

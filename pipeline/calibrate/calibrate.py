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

from indexes import Image, Parts, Store, Thumb, Thumbs, cosines
from pipeline.calibrate.measurement import Calibration, Pair
from pipeline.calibrate.synthetic_copies import EVERYDAY, HARD
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import Decoders
from pipeline.decode.preprocess import SIGHT, View
from pipeline.embed.crops import embedded, least
from pipeline.embed.embedder import Embedder, embed_all
from pipeline.ingest.audit import sample, spread
from pipeline.query.groups import floor_of, judged_pairs, pairs_inside
from pipeline.scan import NOTHING, SourceFile
from pipeline.thumbnails import Pictures, read_images, shown, thumb
from pipeline.verify.features import are_features
from pipeline.verify.inputs import drawing, sketched
from pipeline.verify.pool import Verifiers
from pipeline.verify.verdict import DERIVED, SAME, evidence_of

EDITS = EVERYDAY | HARD
LARGE = View(1024, "within")  # what copies are made of
LEAST = 64  # pixels of the shorter side of what is copied
DAY, APART = 86400, 2  # seconds; and days from which on no clock and no zone makes one shot of two


def calibrate(store: Store, embedder: Embedder, images: Sequence[int]) -> Calibration:
    """Make copies of some photos of the store, look for them as for any, and count what of the library passes for copies.

    The same for the same store and images. Photos that are away, small or without features are passed over. Nothing is kept. Raises
    SpaceMismatch for an embedder of another space than the store's.
    """
    store.require(embedder.space)
    floor = floor_of(store, embedder.space)
    with (
        tempfile.TemporaryDirectory() as folder,
        Decoders() as decoders,
        Thumbs(store.folder, write=False) as thumbs,
        Verifiers() as verifiers,
    ):
        pictures = Pictures(store, thumbs, decoders)
        with Parts(store.folder, embedder.space, write=False) as parts:
            by_parts = floor if parts.are_compared else None
        made = [
            one
            for some in _copied(store, decoders, images, Path(folder))
            for one in _looked(store, embedder, decoders, pictures, verifiers, some, by_parts)
        ]
        photos = len({image for image, _, _, _ in made})
    kinds, scores, agree = tuple(kind for _, kind, _, _ in made), [score for _, _, score, _ in made], [share for _, _, _, share in made]
    return Calibration(photos, floor, kinds, np.array(scores, np.float64), np.array(agree, np.float64), *_library(store, floor))


def fitting(store: Store, count: int) -> list[int]:
    """Up to `count` images of the store that copies can be made of, spread over it."""
    images = sample(store, 4 * count)
    sound = [id_ for id_, image in store.catalog.images(images) if not image.featureless and min(image.width, image.height) >= LEAST]
    return spread(sound, count)


def _copied(store: Store, decoders: Decoders, images: Sequence[int], folder: Path) -> Iterator[tuple[int, dict[str, Path]]]:
    """For each image the files of its copies, by kind, for as long as it is dealt with. What lies below it is the picture before."""
    before = Pillow.effect_mandelbrot((640, 480), (-2.0, -1.5, 1.0, 1.5), 50).convert("RGB")
    about = dict(store.catalog.images(images))
    for id_, result in read_images(store, decoders, about, LARGE):
        if not isinstance(result, Decoded) or min(result.view.shape[:2]) < LEAST:
            continue
        picture = Pillow.fromarray(result.view)
        files = {}
        for number, (kind, edit) in enumerate(EDITS.items()):
            files[kind] = folder / f"{number:02}.jpg"
            edit(picture, before, random.Random(f"{about[id_].hash.hex()} {kind}")).save(files[kind], quality=85)
        before = picture
        yield id_, files


def _looked(
    store: Store,
    embedder: Embedder,
    decoders: Decoders,
    pictures: Pictures,
    verifiers: Verifiers,
    copied: tuple[int, Mapping[str, Path]],
    by_parts: float | None,
) -> list[tuple[int, str, float, float]]:
    """The image, kind, cosine and share of tiles that agree of each copy of a photo; `by_parts` for the cosine of one that is found only as
    a picture within a picture; None where these are not looked for.
    """
    image, files = copied
    own, vectors = sketched(pictures, [image], verifiers.features)[0], store.vectors([image])
    sources = [SourceFile(str(path), NOTHING) for path in files.values()]
    views = [each.view for each in decoders.stream(sources, embedder.view) if isinstance(each, Decoded)]
    seen = [each for each in decoders.stream(sources, SIGHT) if isinstance(each, Decoded)]
    if image not in own or image not in vectors or len(views) < len(files) or len(seen) < len(files):
        return []
    stored = embed_all(embedder, views).astype(np.float16)
    scores = cosines(np.broadcast_to(vectors[image].astype(np.float16), stored.shape), stored)
    thumbs = [thumb(one.view) for one in seen]
    features = [its or b"" for its in verifiers.features(thumbs)]
    if not all(map(are_features, features)):
        return []
    copies = [drawing(one.image, Thumb(picture, its)) for one, picture, its in zip(seen, thumbs, features, strict=True)]
    found = verifiers.verify([(drawing(*own[image]), copy) for copy in copies])
    agree = [evidence.agree if evidence and evidence.relation in (SAME, DERIVED) else -1.0 for evidence in found]
    scores = scores.astype(np.float64)
    far = [number for number in range(len(files)) if by_parts is not None and scores[number] < by_parts and agree[number] >= 0]
    if far:
        whole = own[image][0], shown(own[image][1].picture), vectors[image]
        near = _near_by_parts(embedder, [whole, *((seen[at].image, shown(thumbs[at]), stored[at]) for at in far)])
        scores[np.array(far)[near]] = by_parts
    return [(image, kind, float(score), share) for kind, score, share in zip(files, scores, agree, strict=True)]


def _near_by_parts(embedder: Embedder, pictures: Sequence[tuple[Image, NDArray[np.uint8], NDArray[np.floating[Any]]]]) -> NDArray[np.bool_]:
    """Whether a part of the first picture is like each of the others, or a part of that like the first."""
    (first, *others), (own, *theirs) = pictures, embedded([(image, rgb) for image, rgb, _ in pictures], embedder)
    near = np.zeros(len(others), bool)
    for number, ((_, _, vector), parts) in enumerate(zip(others, theirs, strict=True)):
        for rows, whole in ((own, vector), (parts, first[2])):
            if rows is not None:
                both = cosines(rows.astype(np.float16), np.broadcast_to(whole.astype(np.float16), rows.shape))
                near[number] |= both.max() >= least(embedder.space)
    return near


def _library(store: Store, floor: float) -> tuple[NDArray[np.float64], int, int, tuple[Pair, ...]]:
    """Of the store: accepted pairs, (n, 2); how many pairs of pictures there are, and how many of them were taken days apart; those of
    these that were accepted.
    """
    with store.catalog.snapshot():
        about = {id_: image for id_, image in store.catalog.images(store.catalog.live()) if not image.featureless}
        path: dict[bytes, str] = {}
        for known in store.catalog.files_of(about):
            if known.image is not None:
                path.setdefault(about[known.image].pixels, known.path)
        scores = store.pairs(floor).by_pair()
        scores |= dict.fromkeys(pairs_inside(store, scores), floor)  # who asks for more than the floor asks for none of these
        vectors = store.catalog.vectors_with_pixels(path)
        dated: dict[bytes, int] = {}  # of files with the same pixels, the earliest date
        for image in about.values():
            if image.taken is not None:
                dated[image.pixels] = min(image.taken // DAY, dated.get(image.pixels, image.taken // DAY))
        found_of: dict[tuple[bytes, bytes], Pair] = {}
        for left, right, score, judged in judged_pairs(store, scores, vectors):
            found_of.pop((min(left, right), max(left, right)), None)
            if judged.relation in (SAME, DERIVED):
                found_of[min(left, right), max(left, right)] = Pair(path[left], path[right], score, evidence_of(judged).agree)
    accepted = [(pair.score, pair.agree) for pair in found_of.values()]
    apart = [pair for (one, other), pair in found_of.items() if one in dated and other in dated and abs(dated[one] - dated[other]) >= APART]
    days = Counter(dated[pixels] for pixels in path if pixels in dated)
    near = sum(_pairs_of(count) + sum(count * days[day + later] for later in range(1, APART)) for day, count in list(days.items()))
    apart.sort(key=lambda pair: (-pair.agree, pair.first, pair.second))
    return np.array(accepted, np.float64).reshape(-1, 2), _pairs_of(len(path)), _pairs_of(days.total()) - near, tuple(apart)


def _pairs_of(count: int) -> int:
    return count * (count - 1) // 2

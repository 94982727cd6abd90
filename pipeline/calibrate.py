"""What a library would find, and wrongly take for copies, at each threshold and strictness: measured on copies of its own photos."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from indexes import Store, Thumb, Thumbs, cosines
from pipeline.audit import sample, spread
from pipeline.calibration import Calibration, Pair
from pipeline.candidates import drawing
from pipeline.copies import EVERYDAY, HARD
from pipeline.decode import Decoded
from pipeline.decoders import Decoders
from pipeline.embedder import Embedder, embed_all
from pipeline.evidence import DERIVED, SAME, evidence_of
from pipeline.pictures import Pictures, read_images
from pipeline.scan import NOTHING, SourceFile
from pipeline.sketch import thumb
from pipeline.verifiers import Verifiers
from pipeline.view import SIGHT, View

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
    with (
        tempfile.TemporaryDirectory() as folder,
        Decoders() as decoders,
        Thumbs(store.folder, write=False) as thumbs,
        Verifiers() as verifiers,
    ):
        pictures = Pictures(store, thumbs, decoders)
        made = [
            one
            for some in _copied(store, decoders, images, Path(folder))
            for one in _looked(store, embedder, decoders, pictures, verifiers, some)
        ]
        photos = len({image for image, _, _, _ in made})
    kinds, scores, agree = tuple(kind for _, kind, _, _ in made), [score for _, _, score, _ in made], [share for _, _, _, share in made]
    floor = embedder.space.floor
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
) -> list[tuple[int, str, float, float]]:
    """The image, kind, cosine and share of tiles that agree of each copy of a photo."""
    image, files = copied
    own, vectors = pictures.sketched([image], verifiers.features)[0], store.vectors([image])
    sources = [SourceFile(str(path), NOTHING) for path in files.values()]
    views = [each.view for each in decoders.stream(sources, embedder.view) if isinstance(each, Decoded)]
    seen = [each for each in decoders.stream(sources, SIGHT) if isinstance(each, Decoded)]
    if image not in own or image not in vectors or len(views) < len(files) or len(seen) < len(files):
        return []
    stored = embed_all(embedder, views).astype(np.float16)
    scores = cosines(np.broadcast_to(vectors[image].astype(np.float16), stored.shape), stored)
    thumbs = [thumb(one.view) for one in seen]
    copies = [drawing(one.image, Thumb(picture, its)) for one, picture, its in zip(seen, thumbs, verifiers.features(thumbs), strict=True)]
    found = verifiers.verify([(drawing(*own[image]), copy) for copy in copies])
    agree = [evidence.agree if evidence.relation in (SAME, DERIVED) else -1.0 for evidence in found]
    return [(image, kind, float(score), share) for kind, score, share in zip(files, scores, agree, strict=True)]


def _library(store: Store, floor: float) -> tuple[NDArray[np.float64], int, int, tuple[Pair, ...]]:
    """Of the store: accepted pairs, (n, 2); how many pairs of pictures there are, and how many of them were taken days apart; those of
    these that were accepted.
    """
    with store.catalog.snapshot():
        about = {id_: image for id_, image in store.catalog.images(store.catalog.live()) if not image.featureless}
        path: dict[int, str] = {}
        for known in store.catalog.files_of(about):
            if known.image is not None:
                path.setdefault(known.image, known.path)
        found = store.pairs(floor)
        scores = found.by_pair()
        vectors = store.catalog.vectors_of(list(path))
        dated: dict[bytes, int] = {}  # of files with the same pixels, the earliest date
        for image in about.values():
            if image.taken is not None:
                dated[image.pixels] = min(image.taken // DAY, dated.get(image.pixels, image.taken // DAY))
        found_of: dict[tuple[bytes, bytes], Pair] = {}
        for judged in store.catalog.evidence():
            one, other = vectors.get(judged.first), vectors.get(judged.second)
            if judged.relation not in (SAME, DERIVED) or one is None or other is None:
                continue
            score = 1.0 if one == other else scores.get((min(one, other), max(one, other)))
            left, right = about[judged.first].pixels, about[judged.second].pixels
            if score is not None and left != right:
                pair = Pair(path[judged.first], path[judged.second], score, evidence_of(judged).agree)
                found_of[min(left, right), max(left, right)] = pair
    accepted = [(pair.score, pair.agree) for pair in found_of.values()]
    apart = [pair for (one, other), pair in found_of.items() if one in dated and other in dated and abs(dated[one] - dated[other]) >= APART]
    pictures = {image.pixels for id_, image in about.items() if id_ in path}
    days = Counter(dated[pixels] for pixels in pictures if pixels in dated)
    near = sum(_pairs_of(count) + sum(count * days[day + later] for later in range(1, APART)) for day, count in list(days.items()))
    apart.sort(key=lambda pair: (-pair.agree, pair.first, pair.second))
    return np.array(accepted, np.float64).reshape(-1, 2), _pairs_of(len(pictures)), _pairs_of(days.total()) - near, tuple(apart)


def _pairs_of(count: int) -> int:
    return count * (count - 1) // 2

"""Comparison of two images of a store, from what it holds of them: drives may be away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from indexes.caches.thumbnails import ThumbnailCache
from indexes.paths import format_command
from indexes.records import Image
from indexes.store import Store
from indexes.vectors.scores import compute_cosines
from pipeline.decode.pool import DecoderPool
from pipeline.errors import UnknownPhoto
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.query.compare import Comparison, verify_pairs
from pipeline.query.files import load_files
from pipeline.query.freshness import refresh_status
from pipeline.thumbnails import Thumbnails, decode_thumbnail
from pipeline.verify.verdict import VERDICT_VERSION, Verdict, decode_verdict


def compare_stored(store: Store, hashes: Sequence[bytes], decoders: DecoderPool) -> Comparison:
    """Compare images of a store, given the blake3 of their bytes, each with each.

    Verdicts are those of the store where it has them as this version gives them, else computed from
    thumbnails. Files are only read for thumbnails that are missing. The result names the file of
    each image that is there, or its first one. Raises UnknownPhoto for an image without a file.
    """
    catalog = store.catalog
    with catalog.snapshot():
        ids = catalog.images.get_ids(list(hashes))
        files = load_files(store, list(ids.values()))
        if any(ids.get(hash_) not in files for hash_ in hashes):
            status = format_command(store.folder, "status")
            raise UnknownPhoto(f"no file of the library holds this photo now; see `{status}`")
        images = dict(catalog.images.get(ids.values()))
        metadata = dict(catalog.metadata.get(ids.values()))
        vectors = store.search.get_vectors(list(ids.values()))
        stored = _load_verdicts(store, [images[ids[hash_]] for hash_ in hashes])
    with ThumbnailCache(store.folder, write=False) as cache:
        loaded, _ = Thumbnails(store, cache, decoders).load(ids.values())
    ordered = [replace(images[ids[hash_]], metadata=metadata.get(ids[hash_])) for hash_ in hashes]
    jpegs = {
        position: loaded[ids[hash_]][1].jpeg
        for position, hash_ in enumerate(hashes)
        if ids[hash_] in loaded
    }
    verdicts, tiles = verify_pairs(dict(enumerate(ordered)), jpegs)
    scores = np.full((len(hashes), len(hashes)), np.nan)
    for left, left_hash in enumerate(hashes):
        for right, right_hash in enumerate(hashes):
            first, second = vectors.get(ids[left_hash]), vectors.get(ids[right_hash])
            if ordered[left].pixel_hash == ordered[right].pixel_hash:
                scores[left, right] = 1.0
            elif first is not None and second is not None:
                scores[left, right] = compute_cosines(first[np.newaxis], second[np.newaxis])[0]
    return Comparison(
        tuple(_choose_path(files[ids[hash_]]) for hash_ in hashes),
        tuple(ordered),
        scores,
        {position: decode_thumbnail(jpeg) for position, jpeg in jpegs.items()},
        verdicts | stored,
        tiles,
    )


def _choose_path(files: Sequence[LibraryFile]) -> str:
    """Choose the file that stands for an image: one that is there, by its path."""
    refreshed = map(refresh_status, files)
    return min((not file.is_present, file.path) for file in refreshed)[1]


def _load_verdicts(store: Store, images: Sequence[Image]) -> dict[tuple[int, int], Verdict]:
    """Load the verdicts of this version on each two images, the lower position first."""
    found = dict[tuple[int, int], Verdict]()
    for position, image in enumerate(images):
        own_hash = image.pixel_hash
        others = {
            other.pixel_hash: later
            for later, other in enumerate(images)
            if later > position and other.pixel_hash != own_hash
        }
        for first, second, stored in store.catalog.verdicts.find_of_image(own_hash):
            later = others.get(second if first == own_hash else first)
            if later is not None and stored.version == VERDICT_VERSION:
                verdict = decode_verdict(stored)
                found[position, later] = verdict if first == own_hash else verdict.swap_sides()
    return found

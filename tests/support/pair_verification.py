"""Images whose pairs are verified, and the verdicts on them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from indexes import Root, Store
from indexes.records import Image as StoredImage
from pipeline import (
    ingest_roots,
    load_embedder,
    thumbnails,
)
from pipeline.calibrate.synthetic_copies import EVERYDAY_EDITS
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.ingest.batch_writer import BatchWriter
from pipeline.ingest.verify_pairs import VerificationProgress, verify_candidates
from pipeline.thumbnails import ImageUnavailable, UnavailableReason
from pipeline.verify.verdict import VERDICT_VERSION
from tests.support.images import draw_textured_image, save_image

EDIT_KINDS = ["crop 80 %", "mirror", "gray", "half size"]


def save_photos_and_copies(folder: Path) -> list[Path]:
    """Save three photos, and four copies of two of them."""
    paths = [save_image(folder / f"{seed}.png", draw_textured_image(seed)) for seed in (1, 2, 3)]
    for seed in (1, 2):
        for kind in EDIT_KINDS:
            copy = EVERYDAY_EDITS[kind](
                draw_textured_image(seed), draw_textured_image(9), random.Random(seed)
            )
            paths.append(
                save_image(folder / f"{seed} {kind.replace(' %', '')}.jpg", copy, quality=90)
            )
    return paths


def save_photo_and_copy(folder: Path) -> tuple[Path, Path]:
    """Save a photo and a copy of it: one.png and two.jpg."""
    photo = draw_textured_image(1)
    return (
        save_image(folder / "one.png", photo),
        save_image(folder / "two.jpg", photo, quality=80),
    )


def keep_thumbnails_away(
    patch: pytest.MonkeyPatch, is_away: Callable[[bytes], bool] = lambda hash: True
) -> None:
    """Have ingests make no thumbnails of images, or of those by the hash of their content.

    As if their files were away from right after they were embedded.
    """
    read_images, save_thumbnails = thumbnails.read_images, BatchWriter._save_thumbnails

    def read_others(
        store: Store, decoders: DecoderPool, images: Mapping[int, StoredImage], *options: Any
    ) -> Iterator[tuple[int, Decoded | ImageUnavailable]]:
        present = {id_: image for id_, image in images.items() if not is_away(image.hash)}
        yield from (
            (id_, ImageUnavailable(UnavailableReason.AWAY)) for id_ in images if id_ not in present
        )
        yield from read_images(store, decoders, present, *options)

    def save_others(writer: BatchWriter, embedded: Sequence[Decoded]) -> None:
        save_thumbnails(writer, [item for item in embedded if not is_away(item.image.hash)])

    patch.setattr(thumbnails, "read_images", read_others)
    patch.setattr(BatchWriter, "_save_thumbnails", save_others)


def ingest_and_count(store: Store, folder: Path) -> dict[str, int]:
    """Ingest `folder`; return the number of verified pairs by relation."""
    *_, last = ingest_roots([Root(str(folder))], store, load_embedder())
    return dict(last.coverage.verification.relations) if last.coverage.verification else {}


def list_unverified(store: Store) -> list[tuple[int, int]]:
    """Return the pairs without a verdict."""
    watermark = store.catalog.pairs.get_watermark()
    assert watermark
    return list(store.catalog.verdicts.find_unverified_pairs(watermark.floor, VERDICT_VERSION))


def verify(
    store: Store, pairs: Sequence[tuple[int, int]] | None = None
) -> Iterator[VerificationProgress]:
    """Verify pairs; by default those without a verdict."""
    with DecoderPool(1) as decoders:
        yield from verify_candidates(
            store, list_unverified(store) if pairs is None else pairs, decoders, 1
        )


def load_verdicts(store: Store) -> dict[tuple[bytes, bytes], tuple[str, str]]:
    hashes = {
        id_: image.hash
        for id_, image in store.catalog.images.get(store.catalog.images.list_in_use())
    }
    return {
        (hashes[stored.first], hashes[stored.second]): (stored.relation, stored.record)
        for stored in store.catalog.verdicts.stream()
    }


def draw_sharp_image(width: int, height: int) -> Image.Image:
    """Draw an image with fine detail, like a sharp photo."""
    grain = np.random.default_rng(1).normal(0, 12, (height, width, 1))
    noisy = np.asarray(draw_textured_image(1, (width, height))) + grain
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(0.8)
    )

"""Losses of images compared with their copies, by the fidelity that decoding measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import integers

from indexes.metadata import (
    MAX_COUNTED_COLORS,
    NO_METADATA,
    Fidelity,
    ImageMetadata,
    JpegEncoding,
)
from indexes.records import FLAG_PREVIEW, Image
from pipeline.grouping.copy_views import list_views
from pipeline.grouping.edges import Edge, list_neighbors
from pipeline.grouping.losses import (
    NO_LOSSES,
    Losses,
    find_losses,
    is_compressed_less,
    was_strongly_compressed,
)
from pipeline.verify.relation import COPY_RELATIONS, Relation
from pipeline.verify.verdict import Verdict
from tests.support.verification import PLAIN_COPY

PHOTO = Fidelity(MAX_COUNTED_COLORS + 1, is_gray=False, even_share=0.1, bit_depth=8)
IMAGE = Image(b"a", b"a", 100, 100, "TIFF", 1000, False)


def find(
    fidelities: Mapping[str, Fidelity | None], overlap: tuple[float, float] = (1.0, 1.0)
) -> dict[str, Losses]:
    """The losses of images, by name, that are all copies of each other."""
    names = [name.encode() for name in fidelities]
    edits = replace(PLAIN_COPY, overlap=overlap)
    verdict = Verdict(Relation.SAME_PICTURE, 30, 30, 1.0, 0.0, (), edits)
    edges = [
        Edge(first, second, Relation.SAME_PICTURE, 0.9, verdict)
        for number, first in enumerate(names)
        for second in names[number + 1 :]
    ]
    images = {name: replace(IMAGE, hash=name, pixel_hash=name) for name in names}
    views = list_views(images, list_neighbors(edges, images), COPY_RELATIONS)
    metadata = {name.encode(): [ImageMetadata(fidelity=item)] for name, item in fidelities.items()}
    return {name.decode(): item for name, item in find_losses(views, images, metadata).items()}


@pytest.mark.parametrize(
    ("blockiness", "quality", "other_size", "is_resaved"),
    [
        (0.08, 80, (100, 100), True),
        (0.08, 95, (120, 100), True),
        (0.079, 95, (100, 100), False),
        (None, 95, (100, 100), False),
        (0.08, 79, (100, 100), False),  # not better than what the image was saved from
        (0.08, 95, (99, 100), False),
        (0.08, None, (100, 100), False),
    ],
)
def test_image_with_traces_of_a_jpeg_beside_a_good_one_is_resaved(
    blockiness: float | None, quality: int | None, other_size: tuple[int, int], is_resaved: bool
) -> None:
    verdict = Verdict(Relation.SAME_PICTURE, 30, 30, 1.0, 0.0, (), PLAIN_COPY)
    width, height = other_size
    images = {
        b"png": replace(IMAGE, hash=b"png", pixel_hash=b"png"),
        b"jpg": replace(IMAGE, hash=b"jpg", pixel_hash=b"jpg", width=width, height=height),
    }
    edges = [Edge(b"jpg", b"png", Relation.SAME_PICTURE, 0.9, verdict)]
    views = list_views(images, list_neighbors(edges, images), COPY_RELATIONS)
    jpeg = JpegEncoding(quality, True, "4:2:0") if quality else None
    metadata = {
        b"png": [ImageMetadata(fidelity=replace(PHOTO, blockiness=blockiness))],
        b"jpg": [ImageMetadata(jpeg=jpeg)],
    }
    losses = find_losses(views, images, metadata)
    assert losses[b"png"].is_resaved is is_resaved
    assert not losses[b"jpg"].is_resaved


@pytest.mark.parametrize(
    ("changes", "is_lossless_copy"),
    [
        ({}, True),
        ({"format": "BMP"}, True),
        ({"format": "WEBP"}, False),
        ({"even_share": 0.5}, False),  # a page or a drawing
        ({"bit_depth": 16}, False),
        ({"quality": 79}, False),
        ({"width": 101}, False),
    ],
)
def test_lossless_photo_beside_a_good_jpeg_of_its_size_is_a_lossless_copy(
    changes: dict[str, Any], is_lossless_copy: bool
) -> None:
    fidelity = replace(PHOTO, blockiness=0.0)
    stored: dict[str, Any] = {"format": "PNG", "quality": 80, "width": 100}
    stored |= {name: value for name, value in changes.items() if name in stored}
    fidelity = replace(fidelity, **{n: v for n, v in changes.items() if n not in stored})
    jpeg = ImageMetadata(jpeg=JpegEncoding(stored["quality"], True, "4:2:0"))
    images = {
        b"own": replace(IMAGE, pixel_hash=b"own", format=stored["format"], width=stored["width"]),
        b"jpg": replace(IMAGE, pixel_hash=b"jpg"),
    }
    verdict = Verdict(Relation.SAME_PICTURE, 30, 30, 1.0, 0.0, (), PLAIN_COPY)
    edges = [Edge(b"jpg", b"own", Relation.SAME_PICTURE, 0.9, verdict)]
    views = list_views(images, list_neighbors(edges, images), COPY_RELATIONS)
    metadata = {b"own": [ImageMetadata(fidelity=fidelity)], b"jpg": [jpeg]}
    losses = find_losses(views, images, metadata)
    assert losses[b"own"].is_lossless_copy is is_lossless_copy
    assert not losses[b"own"].is_resaved
    assert not losses[b"jpg"].is_lossless_copy


@pytest.mark.parametrize(
    ("own", "is_resaved"),
    [
        ([ImageMetadata(fidelity=replace(PHOTO, blockiness=0.2))], True),
        # Another content has these pixels, and is a JPEG.
        (
            [
                ImageMetadata(fidelity=replace(PHOTO, blockiness=0.2)),
                ImageMetadata(jpeg=JpegEncoding(30, True, "4:2:0")),
            ],
            False,
        ),
        # No JPEG has 16 bits.
        ([ImageMetadata(fidelity=replace(PHOTO, blockiness=0.2, bit_depth=16))], False),
        # A page has a grid of its own.
        ([ImageMetadata(fidelity=replace(PHOTO, blockiness=0.2, even_share=0.5))], False),
    ],
)
def test_image_that_was_not_saved_from_a_jpeg_is_not_resaved(
    own: list[ImageMetadata], is_resaved: bool
) -> None:
    verdict = Verdict(Relation.SAME_PICTURE, 30, 30, 1.0, 0.0, (), PLAIN_COPY)
    images = {name: replace(IMAGE, hash=name, pixel_hash=name) for name in (b"own", b"jpg")}
    edges = [Edge(b"jpg", b"own", Relation.SAME_PICTURE, 0.9, verdict)]
    views = list_views(images, list_neighbors(edges, images), COPY_RELATIONS)
    good = ImageMetadata(jpeg=JpegEncoding(90, True, "4:2:0"))
    assert (
        find_losses(views, images, {b"own": own, b"jpg": [good]})[b"own"].is_resaved is is_resaved
    )


@pytest.mark.parametrize(
    ("fewer", "more", "is_loss"),
    [
        (replace(PHOTO, color_count=16), PHOTO, True),
        (replace(PHOTO, color_count=256), PHOTO, True),
        (replace(PHOTO, color_count=300), PHOTO, False),
        # A drawing: its JPEG has colors that are artifacts.
        (replace(PHOTO, color_count=16), replace(PHOTO, even_share=0.5), False),
        # A fax and a scan in gray.
        (
            replace(PHOTO, color_count=2, is_gray=True),
            replace(PHOTO, color_count=200, is_gray=True),
            True,
        ),
        # A gray photo whose copy has a tint, or a few levels more.
        (replace(PHOTO, color_count=200, is_gray=True), PHOTO, False),
        (
            replace(PHOTO, color_count=60, is_gray=True),
            replace(PHOTO, color_count=150, is_gray=True),
            False,
        ),
        # Gray has more levels than the palette has colors, but no colors.
        (
            replace(PHOTO, color_count=16),
            replace(PHOTO, color_count=200, is_gray=True),
            False,
        ),
    ],
)
def test_few_colors_are_a_loss_beside_the_many_of_a_photo(
    fewer: Fidelity, more: Fidelity, is_loss: bool
) -> None:
    losses = find({"fewer": fewer, "more": more})
    assert losses == {"fewer": Losses(has_lost_colors=is_loss), "more": NO_LOSSES}


def test_crop_may_have_few_colors() -> None:
    assert find({"a": replace(PHOTO, color_count=16), "b": PHOTO}, (1.0, 0.5))["a"] == NO_LOSSES


@given(first=integers(8, 32), second=integers(8, 32), third=integers(8, 32))
def test_deepest_copy_lost_no_bits(first: int, second: int, third: int) -> None:
    depths = {"a": first, "b": second, "c": third}
    losses = find({name: replace(PHOTO, bit_depth=depth) for name, depth in depths.items()})
    most = max(depths.values())
    assert {name: item.lost_bits for name, item in losses.items()} == {
        name: most - depth for name, depth in depths.items()
    }


@pytest.mark.parametrize("unknown", [None, replace(PHOTO, bit_depth=None, color_count=100)])
def test_unknown_counts_neither_for_nor_against_an_image(unknown: Fidelity | None) -> None:
    few = replace(PHOTO, color_count=100, bit_depth=8)
    assert find({"unknown": unknown, "known": few}) == {"unknown": NO_LOSSES, "known": NO_LOSSES}
    deep = replace(few, bit_depth=16)
    assert find({"unknown": unknown, "known": deep})["unknown"].lost_bits == 0


@pytest.mark.parametrize(
    ("metadata", "flags", "is_strong"),
    [
        (ImageMetadata(fidelity=replace(PHOTO, blockiness=0.4)), (), True),
        (ImageMetadata(fidelity=replace(PHOTO, blockiness=0.2)), (), False),
        (ImageMetadata(fidelity=PHOTO), (), False),
        (NO_METADATA, (), False),
        (ImageMetadata(jpeg=JpegEncoding(12, True, "4:2:0")), (), True),
        (ImageMetadata(jpeg=JpegEncoding(60, True, "4:2:0")), (), False),
        # The preview of a raw photo, which is all that is decoded of it.
        (ImageMetadata(jpeg=JpegEncoding(12, True, "4:2:0")), (FLAG_PREVIEW,), False),
    ],
)
def test_strong_compression_shows_in_blocks_or_tables(
    metadata: ImageMetadata, flags: tuple[str, ...], is_strong: bool
) -> None:
    assert was_strongly_compressed(metadata, replace(IMAGE, flags=flags)) is is_strong


@pytest.mark.parametrize(
    ("format_", "size", "other_format", "is_less"),
    [
        ("JPEG", 1251, "JPEG", True),
        ("JPEG", 1250, "JPEG", False),
        ("HEIF", 7800, "JPEG", True),
        ("WEBP", 1300, "JPEG", True),
        ("JPEG", 2500, "HEIF", False),  # a JPEG needs twice the bytes
        ("JPEG", 2501, "HEIF", True),
        ("PNG", 8000, "JPEG", False),  # of a good JPEG
        ("PNG", 8001, "JPEG", True),
        ("PNG", 1251, "PNG", True),
    ],
)
def test_image_of_equal_size_with_many_more_bytes_is_compressed_less(
    format_: str, size: int, other_format: str, is_less: bool
) -> None:
    image = replace(IMAGE, format=format_, size=size)
    other = replace(IMAGE, format=other_format, size=1000)
    assert is_compressed_less(image, other) is is_less
    assert not is_compressed_less(replace(image, width=IMAGE.width - 1), other)

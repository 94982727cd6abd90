"""Measure if the photos in hosts are found as regions, and what crops and regions propose.

    python -m scripts.bench_regions PHOTOS --plain LOOKALIKES

Each of --count images of PHOTOS is drawn into each kind of host (scripts/draw_hosts.py), and
edited by the edits of crops. Prints, as Markdown: how many photos are regions of their hosts, how
many regions plain photos have, and the share of hosts and edits whose pair with the photo becomes
a candidate by whole images, by crops, by regions, and by fewer crops; then the same for pairs of
hosts of one photo; last how many of 10,000 pairs of hosts of different photos do. All but the times
are equal in every run.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexes.caches.crops import CropVectors
from indexes.records import Image as StoredImage
from indexes.vectors.scores import find_pairs_above
from pipeline import load_embedder
from pipeline.calibrate.synthetic_copies import HARD_EDITS, reencode
from pipeline.decode.pixels.resize import preprocess_image
from pipeline.decode.preprocess import VERIFY_INPUT
from pipeline.embed.crop_matches import is_crop_match
from pipeline.embed.crops import embed_crops
from pipeline.embed.embedder import Embedder, embed_all
from pipeline.regions import Box, find_regions
from pipeline.scan import SourceFile
from pipeline.thumbnails import decode_thumbnail, encode_thumbnail
from scripts.bench_embedder import format_table, list_files, open_upright
from scripts.draw_hosts import HOSTS

MIN_IOU = 0.8  # a region is the photo
HOST_JPEG_QUALITY = 85
EDITS = ("crop 60 %", "crop 40 %")
# Hosts that are compared with one another; each shows one photo.
PAIRED_HOSTS = ("page", "chat", "post", "story on a gradient", "polaroid", "scan", "meme")
# The crops, by their place in FIVE_CROP, and whether regions are compared.
VARIANTS: dict[str, tuple[list[int], bool]] = {
    "whole images": ([], False),
    "and five crops": ([0, 1, 2, 3, 4], False),
    "and regions": ([], True),
    "regions, center": ([4], True),
    "regions, quarters": ([0, 1, 2, 3], True),
    "regions, five crops": ([0, 1, 2, 3, 4], True),
}
UNRELATED_SHIFTS = 10  # each host is compared with those of this many other photos


@dataclass(frozen=True)
class Embedded:
    """An image's vector (dim,) and its crops and regions."""

    whole: NDArray[np.float32]
    crops: CropVectors


def make_thumbnail(image: Image.Image) -> NDArray[np.uint8]:
    """Make the thumbnail of an image, as a store keeps it."""
    pixels, _ = preprocess_image(image, VERIFY_INPUT)
    return decode_thumbnail(encode_thumbnail(pixels))


def compute_iou(first: Box, second: Box) -> float:
    """Compute the intersection over union of two boxes."""
    low, high = np.maximum(first, second)[:2], np.minimum(first, second)[2:]
    common = float(np.prod(np.maximum(0, high - low)))
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (first, second)]
    return common / (sum(areas) - common)


def draw_hosts(kind: str, photos: Sequence[Image.Image]) -> Iterator[tuple[Image.Image, list[Box]]]:
    """Draw a host of each photo; other photos are those after it."""
    for number, _ in enumerate(photos):
        rng = random.Random(f"{kind} {number}")
        image, boxes = HOSTS[kind]([*photos[number:], *photos[:number]], rng)
        yield reencode(image, "jpeg", HOST_JPEG_QUALITY), boxes


def measure_found(kind: str, photos: Sequence[Image.Image]) -> list[object]:
    """Measure one kind of host: the photos found, hosts with one found, regions of a host."""
    found_shares, region_counts = [], []
    for image, boxes in draw_hosts(kind, photos):
        regions = find_regions(make_thumbnail(image))
        found = [any(compute_iou(box, region) >= MIN_IOU for region in regions) for box in boxes]
        found_shares.append(sum(found) / len(found))
        region_counts.append(len(regions))
    with_any = [share > 0 for share in found_shares]
    return [kind, float(np.mean(found_shares)), float(np.mean(with_any)), np.mean(region_counts)]


def measure_plain(name: str, files: Sequence[SourceFile]) -> list[object]:
    """Measure the regions of plain photos: how many, photos with any, milliseconds a photo."""
    counts, started, spent = [], 0.0, 0.0
    for file in files:
        thumbnail = make_thumbnail(open_upright(file.path))
        started = time.process_time()
        counts.append(len(find_regions(thumbnail)))
        spent += time.process_time() - started
    with_any = [count > 0 for count in counts]
    milliseconds = 1000 * spent / len(files)
    return [name, len(files), float(np.mean(counts)), float(np.mean(with_any)), milliseconds]


def embed_images(images: Sequence[Image.Image], embedder: Embedder) -> list[Embedded]:
    """Embed images whole, with all crops and regions."""
    wholes = embed_all(
        embedder, (preprocess_image(image, embedder.preprocess)[0] for image in images)
    )
    large = 4 * embedder.preprocess.size  # so that every image has crops
    record = StoredImage(b"", b"", large, large, "JPEG", 1, False)
    crops = embed_crops([(record, make_thumbnail(image)) for image in images], embedder)
    return [
        Embedded(whole, vectors)
        for whole, vectors in zip(wholes, crops, strict=True)
        if vectors is not None
    ]


def is_candidate(
    first: Embedded, second: Embedded, variant: tuple[list[int], bool], embedder: Embedder
) -> bool:
    """Tell if two images become a candidate by a variant."""
    space, (crops, with_regions) = embedder.space, variant
    rows = [embedded.whole[None].astype(np.float16) for embedded in (first, second)]
    if len(find_pairs_above(rows[0], rows[1], space.floor).left):
        return True
    reduced = [
        (
            embedded.whole,
            CropVectors(
                embedded.crops.crops[crops],
                embedded.crops.regions[: None if with_regions else 0],
                embedded.crops.boxes,
            ),
        )
        for embedded in (first, second)
    ]
    return is_crop_match(reduced[0], reduced[1], space)


def measure_proposals(
    pairs: Sequence[tuple[Embedded, Embedded]], embedder: Embedder
) -> list[float]:
    """Measure the share of pairs that become candidates, by each variant."""
    return [
        float(np.mean([is_candidate(first, second, variant, embedder) for first, second in pairs]))
        for variant in VARIANTS.values()
    ]


def pair_unrelated(embedded: Mapping[str, list[Embedded]]) -> list[tuple[Embedded, Embedded]]:
    """Pair hosts of different photos, of one kind and of two."""
    pairs = []
    for first, second in combinations(PAIRED_HOSTS, 2):
        hosts, others = embedded[first], embedded[second]
        for shift in range(1, min(UNRELATED_SHIFTS, len(hosts) - 1) + 1):
            shifted = [*others[shift:], *others[:shift]]
            pairs += list(zip(hosts, shifted, strict=True))
    return pairs


def main() -> None:
    """Parse the command line, measure, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--plain", type=Path, nargs="*", default=[], metavar="FOLDER")
    parser.add_argument("--count", type=int, default=60, help="photos (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    files = list_files(options.photos)
    drawn = rng.sample(files, min(options.count, len(files)))
    photos = [open_upright(file.path) for file in drawn]

    header = ["host", "photos found", "hosts with one found", "regions"]
    print(format_table(header, [measure_found(kind, photos) for kind in HOSTS]))
    folders = {"photos": files} | {path.name: list_files(path) for path in options.plain}
    plain = [measure_plain(name, files) for name, files in folders.items()]
    print(format_table(["plain", "images", "regions", "with any", "ms"], plain))

    embedder = load_embedder()
    originals = embed_images(photos, embedder)
    embedded = {
        kind: embed_images([image for image, _ in draw_hosts(kind, photos)], embedder)
        for kind in HOSTS
    }
    for kind in EDITS:
        copies = [
            HARD_EDITS[kind](photo, photo, random.Random(f"{kind} {number}"))
            for number, photo in enumerate(photos)
        ]
        embedded[kind] = embed_images(copies, embedder)
    rows = [
        [kind, *measure_proposals(list(zip(originals, hosts, strict=True)), embedder)]
        for kind, hosts in embedded.items()
    ]
    related = [
        pair
        for first, second in combinations(PAIRED_HOSTS, 2)
        for pair in zip(embedded[first], embedded[second], strict=True)
    ]
    rows.append(["two hosts of a photo", *measure_proposals(related, embedder)])
    print(format_table(["pair", *VARIANTS], rows))
    shares = measure_proposals(pair_unrelated(embedded), embedder)
    per_ten_thousand = [round(1e4 * share) for share in shares]
    print(format_table(["of 10,000 unrelated pairs", *VARIANTS], [["hosts", *per_ten_thousand]]))


if __name__ == "__main__":
    main()

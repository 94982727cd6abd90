"""Stores of made images with random verdicts, and listings that this process builds."""

from __future__ import annotations

import json
import random
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexes import Store
from indexes.records import FileStat, Image, NewFile
from indexes.store import Batch
from pipeline.query.groups import GroupOptions, find_groups
from pipeline.report.groups import serialize_group, sum_reclaimable_bytes
from pipeline.review import listing as listing_module
from pipeline.review.build import GROUP_OPTIONS, build_listing
from pipeline.review.listing import Listing
from pipeline.verify.relation import Relation
from pipeline.verify.verdict import Verdict, encode_verdict
from pipeline.workers.pool import WorkerKind
from tests.support.stores import SPACE, make_hash, make_unit_rows

BLOCK_IMAGES = 6
VERDICT_RELATIONS = (
    Relation.SAME_PICTURE,
    Relation.DERIVED,
    Relation.SIMILAR,
    Relation.ANOTHER_SHOT,
    Relation.UNRELATED,
    Relation.UNRELATED,
)


def make_store_of_verdicts(folder: Path, seed: int, count: int = 24) -> None:
    """Make a store of `count` images with random verdicts between those of one block.

    Every fourth image has another file, with its bytes or its pixels.
    """
    chosen = random.Random(seed)
    starts = range(0, count, BLOCK_IMAGES)
    rows = np.concatenate([make_unit_rows(seed + start, BLOCK_IMAGES) for start in starts])
    images, files = [], []
    for number in range(count):
        width = chosen.randint(10, 90)
        image = Image(
            make_hash(number),
            make_hash(number),
            width,
            width,
            "JPEG",
            chosen.randint(1, 999),
            False,
            taken_at=chosen.choice([None, 10**9 + number]),
        )
        images.append((image, rows[number]))
        files.append((f"/p/{number % 3}/{number} IMG.jpg", image.hash))
        if number % 4 == 0:
            hash_ = chosen.choice([image.hash, make_hash(1000 + number)])
            if hash_ != image.hash:
                twin = Image(hash_, image.pixel_hash, width, width, "PNG", 2000, False)
                images.append((twin, None))
            files.append((f"/p/copies/{number}.png", hash_))
    with Store(folder, write=True) as store:
        store.bind(SPACE, "test")
        new_files = [
            NewFile(path, FileStat(1, 1, 1, inode, 1), hash_)
            for inode, (path, hash_) in enumerate(files)
        ]
        store.add(Batch(images, new_files))
        list(store.join())
        ids = store.catalog.images.get_ids([make_hash(number) for number in range(count)])
        pairs = [
            (start + left, start + right)
            for start in starts
            for left, right in combinations(range(BLOCK_IMAGES), 2)
            if chosen.random() < 0.6
        ]
        store.save_verdicts(
            encode_verdict(
                ids[make_hash(left)],
                ids[make_hash(right)],
                Verdict(chosen.choice(VERDICT_RELATIONS), 50, 50, 0.9),
            )
            for left, right in pairs
        )


class Builder:
    """Builds a listing in this process, as the child process does that it stands for."""

    def __init__(self, kind: WorkerKind[None, dict[str, Any]]) -> None:
        self._folders = [Path(str(folder)) for folder in kind.args]

    def request(self, request: None) -> dict[str, Any]:
        build, state = build_listing(*self._folders)
        return {"build": build, "state": state}

    def terminate(self) -> None:
        """Nothing runs."""

    join = terminate


def build_here(patch: pytest.MonkeyPatch) -> None:
    """Have listings built in this process: a child takes half a second to start."""
    patch.setattr(listing_module, "WorkerProcess", Builder)


def list_documents(listing: Listing) -> list[dict[str, Any]]:
    """Return the JSON of all groups of a listing, in its order."""
    documents, cursor = list[dict[str, Any]](), None
    while True:
        page = listing.page(cursor=cursor, limit=3)
        documents += [group.document for group in page.groups]
        cursor = page.next_cursor
        if cursor is None:
            return documents


def find_documents(store: Store, options: GroupOptions = GROUP_OPTIONS) -> list[dict[str, Any]]:
    """Return what the listing has to hold: the JSON of all groups, most bytes to free first."""
    groups = sorted(
        find_groups(store, options=options),
        key=lambda group: (-sum_reclaimable_bytes(group), group.keeper.path),
    )
    found: list[dict[str, Any]] = json.loads(json.dumps(list(map(serialize_group, groups))))
    return found

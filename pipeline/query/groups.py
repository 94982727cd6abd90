"""Groups of near-duplicates in a store: one snapshot of the catalog, its edges, star clustering."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, product
from typing import Any

from indexes.catalog.verdicts import MAX_IMAGES_PER_VECTOR
from indexes.store import Store
from pipeline.grouping.assets import AssetPart, are_of_equal_size
from pipeline.grouping.cluster import Group, form_groups
from pipeline.grouping.edges import Edge
from pipeline.grouping.frames import relate_frames
from pipeline.grouping.keep_rules import KeepRules, LibraryFile
from pipeline.grouping.match import decide_relation
from pipeline.grouping.provenance import Provenance
from pipeline.query.assets import (
    LibraryAssets,
    find_asset_folders,
    mark_without_counterpart,
    select_primary_files,
)
from pipeline.query.snapshot import Snapshot, keep_status, load_snapshot, sort_pair
from pipeline.query.thresholds import resolve_thresholds
from pipeline.scan import is_below
from pipeline.verify.relation import COPY_RELATIONS, Relation


@dataclass(frozen=True)
class GroupOptions:
    """Less common options of find_groups().

    `against_all`: with folders, groups may hold files from anywhere, but at least one from below
    these. `against`, real paths: groups hold files from below the folders and from below these, at
    least one of each. `keep_rules` choose the keeper of a group. `refresh_status` returns a file
    with its present status on disk; by default the status of the last ingest stands.
    `have_equal_content` tells if a part of the keeper's asset, its second argument, is a copy of
    that of a member; by default by their hashes, else by their sizes.
    """

    against_all: bool = False
    against: Sequence[str] = ()
    keep_rules: KeepRules = field(default_factory=KeepRules)
    refresh_status: Callable[[LibraryFile], LibraryFile] = keep_status
    have_equal_content: Callable[[AssetPart, AssetPart], bool] = are_of_equal_size


def find_groups(
    store: Store,
    threshold: float | None = None,
    folders: Sequence[str] = (),
    *,
    relations: Iterable[Relation] = COPY_RELATIONS,
    min_agreement: float | None = None,
    options: GroupOptions | None = None,
) -> list[Group]:
    """Group the near-duplicates among the files of the store; with `folders`, among those below.

    No file is read. Each member has one of `relations` to its keeper. Pairs with a cosine below
    `threshold` are ignored (`>=`; None: as saved for the store, else down to its floor). A pair
    that pixels cannot decide is SIMILAR from the threshold of the space on, or from the requested
    one. At any score, one in doubt by the judge is SIMILAR, and a copy whose share of agreeing
    tiles is below `min_agreement`. Images without features are grouped with exact copies alone.
    Of an asset only the primary file is in a group, with its parts. Groups are sorted by the path
    of their keeper.
    """
    options = options or GroupOptions()
    folders = [os.path.realpath(folder) for folder in folders]
    with store.catalog.snapshot():
        if store.space is None:
            return []
        thresholds = resolve_thresholds(store, store.space, threshold, min_agreement)
        scope = () if options.against_all else (*folders, *options.against)
        snapshot = load_snapshot(store, thresholds, scope, options.refresh_status)
        snapshot = select_primaries(snapshot, LibraryAssets(store, find_asset_folders(store)))
    edges = build_edges(snapshot, options.keep_rules.with_kept(snapshot.decisions.kept))
    groups = form_snapshot_groups(snapshot, edges, relations, options)
    for side in (folders, options.against) if options.against else (folders,):
        groups = [group for group in groups if _has_file_below(group, side)]
    return groups


def form_snapshot_groups(
    snapshot: Snapshot, edges: list[Edge], relations: Iterable[Relation], options: GroupOptions
) -> list[Group]:
    """Form the groups of a snapshot by its edges; members say which of their parts have no copy."""
    groups = form_groups(
        snapshot.files,
        edges,
        relations,
        options.keep_rules.with_kept(snapshot.decisions.kept),
        snapshot.exposures,
        snapshot.decisions,
    )
    return [mark_without_counterpart(group, options.have_equal_content) for group in groups]


def _has_file_below(group: Group, folders: Sequence[str]) -> bool:
    """Tell if a group has a file below one of the folders, or there are none."""
    return not folders or any(is_below(file.path, folders) for file in group.files)


def select_primaries(snapshot: Snapshot, assets: LibraryAssets) -> Snapshot:
    """Leave the parts of assets out of a snapshot: they are in no group by themselves."""
    files = select_primary_files(snapshot.files, assets)
    images_by_vector = {
        vector: [image for image in images if image in files]
        for vector, images in snapshot.images_by_vector.items()
    }
    return replace(snapshot, files=files, images_by_vector=images_by_vector)


def build_edges(snapshot: Snapshot, keep_rules: KeepRules) -> list[Edge]:
    """Return the edges between images: verified ones, and SIMILAR ones that nothing has verified.

    UNRELATED pairs have no edge, unless they are decided to be the same.
    """
    thresholds = snapshot.thresholds
    edges = []
    for pair in snapshot.verdicts.values():
        relation = Relation.UNRELATED
        if pair.verdict is not None:
            relation = decide_relation(
                pair.verdict,
                pair.score,
                thresholds.similar,
                thresholds.min_agreement,
                exposure_difference=snapshot.exposures.find_difference(pair.left, pair.right),
            )
        frames = snapshot.frames.get(pair.left), snapshot.frames.get(pair.right)
        relation = relate_frames(relation, *frames)
        if relation != Relation.UNRELATED:
            edges.append(Edge(pair.left, pair.right, relation, pair.score, pair.verdict))
    similar = dict[tuple[bytes, bytes], Edge]()
    for left, right, score in _iter_similar_pairs(snapshot, keep_rules):
        pair_key = sort_pair(left, right)
        if pair_key not in snapshot.verdicts and pair_key not in similar:
            similar[pair_key] = Edge(*pair_key, Relation.SIMILAR, score)
    edges += similar.values()
    if snapshot.same_scores:
        known = {sort_pair(edge.left, edge.right) for edge in edges}
        edges += [
            Edge(*pair_key, Relation.SAME_BY_DECISION, score)
            for pair_key, score in snapshot.same_scores.items()
            if pair_key not in known
        ]
    return edges


def _iter_similar_pairs(
    snapshot: Snapshot, keep_rules: KeepRules
) -> Iterator[tuple[bytes, bytes, float]]:
    """Yield (left, right, score) of pairs of images whose vectors reach the similar threshold.

    Images of one vector are pairs too, at a score of 1. If the model cannot tell many images
    apart, only the MAX_IMAGES_PER_VECTOR best by `keep_rules` meet all others, because the keeper
    is one of these. A pair may come twice.
    """
    images = snapshot.images_by_vector
    best = {vector: _select_best(hashes, snapshot, keep_rules) for vector, hashes in images.items()}
    similar = snapshot.thresholds.similar
    vector_pairs = [(*pair, score) for pair, score in snapshot.scores.items() if score >= similar]
    vector_pairs += [(vector, vector, 1.0) for vector, hashes in images.items() if len(hashes) > 1]
    for first, second, score in vector_pairs:
        if first in images and second in images:
            for left, right in chain(
                product(best[first], images[second]), product(images[first], best[second])
            ):
                if left != right:
                    yield left, right, score


def _select_best(
    pixel_hashes: Sequence[bytes], snapshot: Snapshot, keep_rules: KeepRules
) -> Sequence[bytes]:
    """Return the MAX_IMAGES_PER_VECTOR images that the keep rules rank first."""

    def get_rank_key(pixel_hash: bytes) -> tuple[Any, ...]:
        files = snapshot.files[pixel_hash]
        return min(keep_rules.make_rank_key(file, Provenance()) for file in files)

    if len(pixel_hashes) <= MAX_IMAGES_PER_VECTOR:
        return pixel_hashes
    return sorted(pixel_hashes, key=get_rank_key)[:MAX_IMAGES_PER_VECTOR]

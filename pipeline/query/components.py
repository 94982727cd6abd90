"""Group the images of a few components again, without a look at the rest of the store.

A component is a set of images that edges connect. No edge leads out of it, so its groups do not
depend on other images, and after a decision on one of them only these are formed again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from indexes.store import Store
from pipeline.decided import load_decisions
from pipeline.grouping.cluster import Group
from pipeline.grouping.decisions import Partition
from pipeline.grouping.edges import Edge
from pipeline.query.assets import LibraryAssets, find_asset_folders
from pipeline.query.groups import (
    GroupOptions,
    build_edges,
    form_snapshot_groups,
    select_primaries,
)
from pipeline.query.snapshot import Snapshot, load_linked_snapshot, load_snapshot, sort_pair
from pipeline.query.thresholds import resolve_thresholds
from pipeline.verify.relation import COPY_RELATIONS, UNREPORTED_RELATIONS, Relation

Link = tuple[bytes, bytes, float]  # two images by pixel hash, the smaller first, and their cosine


@dataclass(frozen=True, slots=True)
class Component:
    """Images that edges connect, by pixel hash, and the cosines of those pairs that have one."""

    images: tuple[bytes, ...]
    links: tuple[Link, ...] = ()


def find_groups_and_components(
    store: Store, options: GroupOptions
) -> tuple[list[Group], list[Component]]:
    """Find what find_groups() finds by its defaults, and the components of all images with edges.

    No folder limits `options`.
    """
    with store.catalog.snapshot():
        if store.space is None:
            return [], []
        thresholds = resolve_thresholds(store, store.space)
        snapshot = load_snapshot(store, thresholds, (), options.refresh_status)
        snapshot = select_primaries(snapshot, LibraryAssets(store, find_asset_folders(store)))
    edges = build_edges(snapshot, options.keep_rules.with_kept(snapshot.decisions.kept))
    groups = form_snapshot_groups(snapshot, edges, COPY_RELATIONS, options)
    return groups, list(_build_components(snapshot, edges))


def _build_components(snapshot: Snapshot, edges: Iterable[Edge]) -> Iterator[Component]:
    vectors = {
        image: vector for vector, images in snapshot.images_by_vector.items() for image in images
    }
    partition, links = Partition(), list[Link]()
    for edge in edges:
        partition.unite(edge.left, edge.right)
        if edge.relation is Relation.SAME_BY_DECISION:
            continue  # it has a cosine, and is no candidate
        first, second = vectors.get(edge.left), vectors.get(edge.right)
        if first is None or second is None:
            links.append((*sort_pair(edge.left, edge.right), edge.score))
        elif first == second or (min(first, second), max(first, second)) in snapshot.scores:
            links.append((*sort_pair(edge.left, edge.right), edge.score))
    images_by_root = defaultdict[bytes, list[bytes]](list)
    links_by_root = defaultdict[bytes, list[Link]](list)
    for image in partition:
        images_by_root[partition.find(image)].append(image)
    for link in links:
        links_by_root[partition.find(link[0])].append(link)
    for root, images in images_by_root.items():
        yield Component(tuple(sorted(images)), tuple(links_by_root[root]))


def find_decided_partners(store: Store, pixel_hashes: Iterable[bytes]) -> set[bytes]:
    """Find the images that a verdict relates to one of these that is decided to be different.

    Their verdict makes an edge, which no component has if it was below the least score.
    """
    decisions = load_decisions(store)
    partners = set[bytes]()
    for pixel_hash in pixel_hashes if decisions.has_pairs else ():
        if decisions.get_sides(pixel_hash):
            for left, right, stored in store.catalog.verdicts.find_of_image(pixel_hash):
                if stored.relation not in UNREPORTED_RELATIONS:
                    partners |= {left, right}
    return partners


def group_components(
    store: Store, components: Sequence[Component], options: GroupOptions
) -> list[Group]:
    """Group the images of components; the groups are those of find_groups() that hold them."""
    pixel_hashes: Collection[bytes] = {
        image for component in components for image in component.images
    }
    links = {
        (left, right): score for component in components for left, right, score in component.links
    }
    with store.catalog.snapshot():
        if store.space is None:
            return []
        thresholds = resolve_thresholds(store, store.space)
        snapshot = load_linked_snapshot(
            store, thresholds, links, pixel_hashes, options.refresh_status
        )
        snapshot = select_primaries(snapshot, LibraryAssets(store))
    edges = build_edges(snapshot, options.keep_rules.with_kept(snapshot.decisions.kept))
    return form_snapshot_groups(snapshot, edges, COPY_RELATIONS, options)

"""Edges between images: what neardup knows of pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pipeline.verify.relation import REPORTED_RELATIONS, Relation
from pipeline.verify.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Edge:
    """The relation of two images, given by pixel hash, with their cosine.

    The verdict, if there is one, has `left` as its first image. SIMILAR is a pair that pixels
    cannot decide, with the verdict that says why, or that is not verified, without one. `voucher`
    is a copy of both, if the relation of the two themselves is only known through their copies.
    """

    left: bytes
    right: bytes
    relation: Relation
    score: float
    verdict: Verdict | None = None
    voucher: bytes | None = None


@dataclass(frozen=True, slots=True)
class Neighbor:
    """The image at the other end of an edge, by pixel hash, and the edge."""

    pixel_hash: bytes
    edge: Edge


def list_neighbors(
    edges: Iterable[Edge], pixel_hashes: Collection[bytes]
) -> defaultdict[bytes, list[Neighbor]]:
    """List the neighbors of each image, by edges with both ends in `pixel_hashes`."""
    neighbors = defaultdict[bytes, list[Neighbor]](list)
    for edge in edges:
        if edge.left in pixel_hashes and edge.right in pixel_hashes:
            neighbors[edge.left].append(Neighbor(edge.right, edge))
            neighbors[edge.right].append(Neighbor(edge.left, edge))
    return neighbors


def make_closeness_key(edge: Edge, pixel_hash: bytes) -> tuple[int, float, float, bytes]:
    """Make a sort key for an edge to an image: by relation, closest first, then by agreement,
    score and pixel hash.
    """
    agreeing_share = edge.verdict.agreeing_share if edge.verdict else 0.0
    return REPORTED_RELATIONS.index(edge.relation), -agreeing_share, -edge.score, pixel_hash


def make_neighbor_key(neighbor: Neighbor) -> tuple[int, float, float, bytes]:
    """Make the sort key of the edge to a neighbor, see make_closeness_key()."""
    return make_closeness_key(neighbor.edge, neighbor.pixel_hash)

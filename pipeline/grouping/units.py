"""Units: images that people decided to be the same are one in the graph that groups come from.

The best image of a unit stands for it and has the edges of all of them. So a keeper takes a unit
whole or not at all, and a unit that keeps takes the copies of each of its images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from indexes.decisions import Decision
from pipeline.grouping.decisions import NO_DECISIONS, Decisions
from pipeline.grouping.edges import Edge, Neighbor, make_closeness_key
from pipeline.grouping.exposures import Exposures
from pipeline.verify.relation import COPY_RELATIONS, EXACT_RELATIONS, Relation


@dataclass(frozen=True, slots=True)
class Link:
    """The edge by which an image belongs to the group of a keeper.

    `decided_pair`: two images that it needs a decision on, that they are the same.
    """

    edge: Edge
    decided_pair: tuple[bytes, bytes] | None = None


class Units:
    """The units among images, each known by its best image; an image alone is a unit.

    Where only exact copies are wanted, every image is alone.
    """

    def __init__(
        self,
        rank_keys: Mapping[bytes, Any],
        decisions: Decisions,
        relations: Collection[Relation],
    ) -> None:
        """Unite those images of `rank_keys` that are decided to be the same."""
        found = [] if EXACT_RELATIONS.issuperset(relations) else decisions.find_units(rank_keys)
        ordered = [sorted(unit, key=rank_keys.__getitem__) for unit in found]
        self._images = {unit[0]: unit for unit in ordered}
        self._best = {image: unit[0] for unit in ordered for image in unit}

    def get_best(self, image: bytes) -> bytes:
        """Return the image that stands for the unit of an image."""
        return self._best.get(image, image)

    def get_images(self, best: bytes) -> Sequence[bytes]:
        """Return the images of the unit that this one stands for, the best first."""
        return self._images.get(best, (best,))

    def contract(
        self, neighbors: Mapping[bytes, Sequence[Neighbor]], relations: Collection[Relation]
    ) -> Mapping[bytes, Sequence[Neighbor]]:
        """Return the neighbors of units: of all edges between two of them, one.

        That is the closest one of a wanted relation, else the closest of all.
        """
        if not self._images:
            return neighbors
        edges = dict[tuple[bytes, bytes], tuple[Any, Edge]]()
        for image in sorted(neighbors):
            for neighbor in neighbors[image]:
                edge, ends = neighbor.edge, self._get_ends(neighbor.edge)
                if ends[0] == ends[1] or image != edge.left:
                    continue
                low, high = sorted((edge.left, edge.right))
                key = edge.relation not in relations, make_closeness_key(edge, low), high
                pair = min(ends), max(ends)
                if pair not in edges or key < edges[pair][0]:
                    edges[pair] = key, replace(edge, left=ends[0], right=ends[1])
        contracted = defaultdict[bytes, list[Neighbor]](list)
        for _, edge in edges.values():
            contracted[edge.left].append(Neighbor(edge.right, edge))
            contracted[edge.right].append(Neighbor(edge.left, edge))
        return contracted

    def _get_ends(self, edge: Edge) -> tuple[bytes, bytes]:
        return self.get_best(edge.left), self.get_best(edge.right)

    def link_images(
        self,
        keeper: bytes,
        taken: Iterable[Neighbor],
        neighbors: Mapping[bytes, Sequence[Neighbor]],
        relations: Collection[Relation],
    ) -> dict[bytes, Link]:
        """Link each image of the units that a keeper took, and those of its own, to the keeper."""
        links = dict[bytes, Link]()
        own_unit = self.get_images(keeper)
        for neighbor in taken:
            unit = self.get_images(neighbor.pixel_hash)
            is_alone = len(unit) == len(own_unit) == 1
            for image in unit:
                if is_alone or (image == neighbor.pixel_hash and neighbor.edge.voucher):
                    links[image] = Link(neighbor.edge)
                else:
                    links[image] = self._find_link(keeper, image, neighbors, relations)
        links |= {
            image: self._find_link(keeper, image, neighbors, relations)
            for image in own_unit
            if image != keeper
        }
        return links

    def _find_link(
        self,
        keeper: bytes,
        member: bytes,
        neighbors: Mapping[bytes, Sequence[Neighbor]],
        relations: Collection[Relation],
    ) -> Link:
        """Find what joins an image of a group to its keeper, where one of the two is in a unit.

        It is their own edge if that has a wanted relation; else the closest such edge of their
        units, or the decision itself.
        """
        own = _find_edge(keeper, member, neighbors)
        if own and own.relation in relations:
            return Link(own)
        by_decision = replace(
            own or Edge(keeper, member, Relation.SAME_BY_DECISION, 0.0),
            relation=Relation.SAME_BY_DECISION,
        )
        if self.get_best(keeper) == self.get_best(member):
            return Link(by_decision, (keeper, member))
        candidates = [
            (other != member, make_closeness_key(edge, other), through, edge, other)
            for through, other in product(
                self.get_images(self.get_best(keeper)), self.get_images(self.get_best(member))
            )
            if (edge := _find_edge(through, other, neighbors)) and edge.relation in relations
        ]
        if not candidates:  # the whole unit is there by its vouchers
            return Link(by_decision, (self.get_best(member), member))
        _, _, through, edge, other = min(candidates, key=lambda link: link[:3])
        if other == member:
            own = Edge(keeper, member, edge.relation, edge.score, None, through)
            return Link(own, (keeper, through))
        return Link(replace(by_decision, voucher=other), (other, member))


def _find_edge(
    image: bytes, other: bytes, neighbors: Mapping[bytes, Sequence[Neighbor]]
) -> Edge | None:
    edges = (neighbor.edge for neighbor in neighbors[image] if neighbor.pixel_hash == other)
    return next(edges, None)


class Separations:
    """The units that never share a group: other exposures, and what people decided apart.

    A decision parts the two images that it names and all copies of each. A copy of both is on the
    side of the closer one.
    """

    def __init__(
        self,
        exposures: Exposures,
        units: Units | None = None,
        decisions: Decisions = NO_DECISIONS,
        sides: Mapping[bytes, Mapping[str, int]] | None = None,
    ) -> None:
        """Use the sides of units, by the image that stands for each; see find_sides()."""
        self._exposures, self._decisions = exposures, decisions
        self._units = units or Units({}, NO_DECISIONS, ())
        self._sides = sides or {}

    def are_apart(self, left: bytes, right: bytes) -> bool:
        """Tell if two units never share a group."""
        if self._sides and any(self._list_conflicts(left, right)):
            return True
        return any(
            self._exposures.are_apart(*pair)
            for pair in product(self._units.get_images(left), self._units.get_images(right))
        )

    def find_decision(self, left: bytes, right: bytes) -> Decision | None:
        """Return the earliest decision that keeps two images apart."""
        if not self._sides:
            return None
        found = self._list_conflicts(self._units.get_best(left), self._units.get_best(right))
        return min(map(self._decisions.get, found), key=lambda item: item.order, default=None)

    def _list_conflicts(self, left: bytes, right: bytes) -> Iterator[str]:
        """Yield the ids of the decisions that two units are on different sides of."""
        sides, other_sides = self._sides.get(left, {}), self._sides.get(right, {})
        return (id_ for id_, side in sides.items() if other_sides.get(id_, side) != side)

    def select_distinct(self, images: Iterable[bytes]) -> list[bytes]:
        """Return one of each set of units that are apart from the same others."""
        by_sides = defaultdict[object, list[bytes]](list)
        for image in images:
            sides = frozenset(self._sides.get(image, {}).items())
            is_alone = len(self._units.get_images(image)) == 1
            by_sides[sides, None if is_alone else image].append(image)
        return [
            image for of_sides in by_sides.values() for image in self._select_exposures(of_sides)
        ]

    def _select_exposures(self, images: Sequence[bytes]) -> Sequence[bytes]:
        return images if len(images) == 1 else self._exposures.select_distinct(images)


def find_sides(
    units: Units,
    images: Iterable[bytes],
    edges: Iterable[Edge],
    decisions: Decisions,
    relations: Collection[Relation],
) -> dict[bytes, dict[str, int]]:
    """Find on which side of each decision the units stand that it parts, by decision id.

    `edges` also has those to decided images without a file. A copy has a wanted relation, or is
    one by default; of two decided images the closer one has it, but none that it is decided to be
    different from. So an image without a file still counts for those that are decided to be the
    same as it.
    """
    if not decisions.has_pairs:
        return {}
    copy_relations = COPY_RELATIONS | frozenset(relations)
    units_by_root = defaultdict[bytes, set[bytes]](set)
    for image in images:
        units_by_root[decisions.find_root(image)].add(units.get_best(image))
    closest = defaultdict[bytes, dict[str, tuple[Any, int]]](dict)
    for edge in edges:
        if edge.relation not in copy_relations:
            continue
        for decided, copy in ((edge.left, edge.right), (edge.right, edge.left)):
            decided_sides = decisions.get_sides(decided)
            own_sides = decisions.get_sides(copy) if decided_sides else {}
            if any(own_sides.get(id_, side) != side for id_, side in decided_sides.items()):
                continue
            for id_, side in decided_sides.items():
                found = make_closeness_key(edge, decided), side
                for unit in units_by_root.get(decisions.find_root(copy), ()):
                    closest[unit][id_] = min(closest[unit].get(id_, found), found)
    sides = {
        unit: {id_: side for id_, (_, side) in of_unit.items()} for unit, of_unit in closest.items()
    }
    for image in images:
        if own := decisions.get_sides(image):
            unit = units.get_best(image)
            sides[unit] = sides.get(unit, {}) | dict(own)
    return sides

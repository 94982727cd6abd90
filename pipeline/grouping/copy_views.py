"""The verified copies of an image, as it sees them: from its own side."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pipeline.grouping.edges import Neighbor
from pipeline.verify.relation import Relation, Side
from pipeline.verify.verdict import MIN_FULL_OVERLAP, Edits, Verdict


@dataclass(frozen=True, slots=True)
class CopyView:
    """A verified copy as one image sees it.

    `own_overlap` is the share of the image that lies on the copy, `other_overlap` the reverse;
    `has_same_extent`: each shows all of the other.
    """

    copy: bytes
    side: Side
    verdict: Verdict
    edits: Edits
    own_overlap: float
    other_overlap: float
    has_same_extent: bool

    @property
    def is_first(self) -> bool:
        """True if the image is the first of the verdict."""
        return self.side is Side.FIRST

    @property
    def detail_gain(self) -> float:
        """The log ratio of the gradients of the copy over those of the image."""
        return self.edits.detail_gain if self.is_first else -self.edits.detail_gain

    @property
    def shows_more(self) -> bool:
        """True if the image shows all of the copy, and more."""
        return self.own_overlap < MIN_FULL_OVERLAP <= self.other_overlap


Views = Mapping[bytes, Sequence[CopyView]]


def list_views(
    images: Collection[bytes],
    neighbors: Mapping[bytes, Sequence[Neighbor]],
    relations: Collection[Relation],
) -> dict[bytes, list[CopyView]]:
    """List the copies of each image: neighbors by an edge of one of `relations` with edits."""
    return {
        image: [
            view
            for neighbor in neighbors[image]
            if neighbor.edge.relation in relations and (view := _make_view(image, neighbor))
        ]
        for image in images
    }


def _make_view(image: bytes, neighbor: Neighbor) -> CopyView | None:
    edge, verdict = neighbor.edge, neighbor.edge.verdict
    if verdict is None or verdict.edits is None:
        return None
    side = Side.FIRST if image == edge.left else Side.SECOND
    first, second = verdict.edits.overlap
    own, other = (first, second) if side is Side.FIRST else (second, first)
    has_same_extent = own >= MIN_FULL_OVERLAP and other >= MIN_FULL_OVERLAP
    return CopyView(neighbor.pixel_hash, side, verdict, verdict.edits, own, other, has_same_extent)


def count_marks(image: bytes, neighbors: Sequence[Neighbor]) -> int:
    """Count the pairs in doubt in which an image was altered in places, less those in which the
    other one was.

    In doubt are the SIMILAR ones, and those of one template, which a large caption can seem to be.
    """
    marks = 0
    for neighbor in neighbors:
        edge = neighbor.edge
        if edge.verdict and edge.relation in (Relation.SIMILAR, Relation.SAME_TEMPLATE):
            side = Side.FIRST if image == edge.left else Side.SECOND
            marks += (edge.verdict.altered_side is side) - (edge.verdict.altered_side is side.other)
    return marks

"""The relations that two images can have, and the sides of a pair.

This module imports nothing else, so that the command line can name relations without loading numpy.
"""

from __future__ import annotations

from enum import StrEnum


class Relation(StrEnum):
    """A kind of verdict on a pair, closest first. The values are stored, and printed unchanged.

    SAME_BY_DECISION is no verdict: a person decided it where no verdict makes the two a group.
    """

    IDENTICAL_BYTES = "identical bytes"
    IDENTICAL_PIXELS = "identical pixels"
    SAME_PICTURE = "same picture"
    DERIVED = "derived"
    SAME_BY_DECISION = "same by decision"
    FRAME_OF = "a frame of"
    PAGE_OF = "a page of"
    OVERLAPS = "overlaps"
    ANOTHER_SHOT = "another shot"
    SAME_TEMPLATE = "same template"
    SIMILAR = "similar"
    NOT_VERIFIABLE = "not verifiable"
    UNRELATED = "unrelated"


class Side(StrEnum):
    """One of the two images of a pair."""

    FIRST = "first"
    SECOND = "second"

    @property
    def other(self) -> Side:
        """The other image of the pair."""
        return Side.SECOND if self is Side.FIRST else Side.FIRST


# Relations of verdicts that no answer shows: nothing in common, or pixels cannot decide.
UNREPORTED_RELATIONS = (Relation.NOT_VERIFIABLE, Relation.UNRELATED)
# Relations that a group or an answer can show, closest first.
REPORTED_RELATIONS = tuple(
    relation for relation in Relation if relation not in UNREPORTED_RELATIONS
)
# Relations that hashes decide.
EXACT_RELATIONS = frozenset({Relation.IDENTICAL_BYTES, Relation.IDENTICAL_PIXELS})
# Relations of two exposures of one scene, as pixels or metadata show.
SCENE_RELATIONS = frozenset({Relation.ANOTHER_SHOT})
# Relations of a file to one that holds all its frames and more.
PART_RELATIONS = frozenset({Relation.FRAME_OF, Relation.PAGE_OF})
# Relations that form groups unless more are requested.
COPY_RELATIONS = EXACT_RELATIONS | {Relation.SAME_PICTURE, Relation.DERIVED}
# Relations that the answer to a query shows unless more are requested.
QUERY_RELATIONS = COPY_RELATIONS | PART_RELATIONS | {Relation.SIMILAR}

"""The words for a match: its relation, and the members that it came by."""

from __future__ import annotations

from dataclasses import replace

import pytest

from indexes.records import FileStat, Image
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.grouping.match import Match
from pipeline.query.matches import Answer
from pipeline.report.matches import (
    format_answer,
    format_match,
    serialize_answers,
    serialize_match,
)
from pipeline.verify.relation import Relation, Side
from pipeline.verify.verdict import Verdict
from tests.support.verification import PLAIN_COPY

FILE = LibraryFile(
    "/photos/a.jpg",
    FileStat(1000, 1_600_000_000 * 10**9, 0, 1, 1),
    Image(b"1", b"1", 100, 100, "JPEG", 1000, False),
)
PARENT = replace(FILE, path="/photos/sub/b\n.jpg")


def test_voucher_and_parent_are_named() -> None:
    match = Match(FILE, Relation.DERIVED, 0.8, None, PARENT)
    doubt = "in doubt by itself, but copies of it are in the group, such as b\\n.jpg"
    assert format_match(match) == f"derived 0.800: {doubt}"
    both = replace(match, made_from=FILE)
    assert format_match(both) == f"derived 0.800: {doubt}; likely made from a.jpg"
    assert serialize_match(match) == {
        "relation": "derived",
        "score": 0.8,
        "voucher": PARENT.path,
    }
    match = replace(match, voucher=None, made_from=PARENT)
    assert format_match(match) == "derived 0.800: likely made from b\\n.jpg"
    assert serialize_match(match)["made_from"] == PARENT.path
    assert format_match(replace(match, made_from=None)) == "derived 0.800"


def test_upscaled_reference_is_named_for_what_it_is() -> None:
    edits = replace(PLAIN_COPY, upscaled_side=Side.FIRST)
    match = Match(FILE, Relation.SAME_PICTURE, 0.9, Verdict(Relation.SAME_PICTURE, edits=edits))
    assert format_match(match) == "same picture 0.900: the keeper is upscaled"
    assert serialize_match(match)["edits_in_words"] == ["the keeper is upscaled"]
    answer = Answer("q.jpg", (match,))
    assert "0.900: the queried photo is upscaled  " in list(format_answer(answer))[1]
    (serialized,) = serialize_answers([answer], 0)["answers"][0]["matches"]
    assert serialized["edits_in_words"] == ["the queried photo is upscaled"]


@pytest.mark.parametrize(
    ("relation", "words"),
    [
        (Relation.IDENTICAL_PIXELS, []),
        (Relation.FRAME_OF, []),
        (Relation.OVERLAPS, []),
        (Relation.SAME_PICTURE, ["in grayscale"]),
        (Relation.SIMILAR, ["in grayscale"]),
    ],
)
def test_edits_of_other_frames_are_not_those_of_files(relation: Relation, words: list[str]) -> None:
    """Of files with frames or pages, the verdict is on the ones that stand for them."""
    edits = replace(PLAIN_COPY, grayscale_side=Side.SECOND)
    match = Match(FILE, relation, 0.9, Verdict(Relation.SAME_PICTURE, edits=edits))
    assert serialize_match(match).get("edits_in_words", []) == words
    assert ("in grayscale" in format_match(match)) == bool(words)

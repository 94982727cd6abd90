"""Cards of files: what is different from the keeper, in words, and which was made from which."""

from __future__ import annotations

import json
from typing import Any

from pipeline.review.listing import ListedFile, ListedGroup
from pipeline.review.web.cards import Card, list_tree, make_cards
from pipeline.review.web.credentials import PictureIds

IDS = PictureIds("secret")
KEEPER = {
    "path": "/p/2020/a.jpg",
    "bytes": 1_000_000,
    "width": 4000,
    "height": 3000,
    "metadata": ["date", "camera"],
    "taken": "2020-05-01T12:00:00",
    "reason": "most pixels",
}


def make_member(**changes: Any) -> dict[str, Any]:
    return {**KEEPER, "path": "/p/2020/b.jpg", "relation": "same picture", "score": 0.9} | changes


def make_all_cards(*members: dict[str, Any], keeper: dict[str, Any] = KEEPER) -> list[Card]:
    files = tuple(
        ListedFile(file["path"], bytes([number]) * 32, b"")
        for number, file in enumerate([keeper, *members])
    )
    document = {"keeper": keeper, "members": list(members)}
    return make_cards(ListedGroup("f" * 32, 0, document, files), IDS)


def list_deltas(member: dict[str, Any], keeper: dict[str, Any] = KEEPER) -> dict[str, str]:
    card = make_all_cards(member, keeper=keeper)[1]
    return {fact.name: fact.delta for fact in card.facts}


def test_keeper_has_all_facts_and_its_reason() -> None:
    keeper = make_all_cards(make_member())[0]
    assert keeper.reason == "most pixels"
    assert {fact.name: fact.value for fact in keeper.facts} == {
        "Pixels": "4000 x 3000, 12.0 MP",
        "Size": "1.0 MB",
        "Taken": "2020-05-01 12:00:00",
        "Folder": "/p/2020",
        "Metadata": "date, camera",
    }
    assert not any(fact.delta for fact in keeper.facts)


def test_member_has_only_what_is_different() -> None:
    card = make_all_cards(make_member())[1]
    assert card.facts == ()
    assert card.equal_facts == ("pixels", "size", "taken", "folder", "metadata")
    assert list_deltas(make_member(bytes=400_000)) == {"Size": "−60 %"}
    assert list_deltas(make_member(width=2000, height=1500)) == {"Pixels": "−75 %"}
    assert list_deltas(make_member(width=3000, height=4000)) == {"Pixels": "other shape"}
    assert list_deltas(make_member(bytes=2_500_000)) == {"Size": "2.5 times"}
    assert list_deltas(make_member(bytes=1_000_001)) == {"Size": "about equal"}
    assert list_deltas(make_member(path="/p/old/b.jpg")) == {"Folder": "../old"}
    assert list_deltas(make_member(metadata=["camera", "place"])) == {
        "Metadata": "no date; also place"
    }


def test_dates_are_compared_with_the_keeper() -> None:
    assert list_deltas(make_member(taken="2020-05-04T13:00:00")) == {"Taken": "3 days later"}
    assert list_deltas(make_member(taken="2020-05-01T11:59:00")) == {"Taken": "1 minute earlier"}
    without = {name: value for name, value in KEEPER.items() if name != "taken"}
    member = {**without, "path": "/p/2020/b.jpg", "relation": "derived", "score": 0.5}
    assert list_deltas(member) == {"Taken": "no date"}
    assert list_deltas(make_member(), keeper=without) == {"Taken": "the keeper has no date"}


def test_less_is_marked_as_worse() -> None:
    (fact,) = make_all_cards(make_member(bytes=1))[1].facts
    assert fact.is_worse
    (fact,) = make_all_cards(make_member(bytes=9_000_000))[1].facts
    assert not fact.is_worse


def test_cards_are_in_the_order_of_the_tree() -> None:
    cards = make_all_cards(
        make_member(path="/p/c.jpg", made_from="/p/d.jpg"),
        make_member(path="/p/d.jpg"),
        make_member(path="/p/e.jpg", made_from="/p/c.jpg"),
        make_member(path="/p/f.jpg"),
    )
    assert [(card.name, card.depth) for card in cards] == [
        ("a.jpg", 0),
        ("f.jpg", 0),
        ("d.jpg", 0),
        ("c.jpg", 1),
        ("e.jpg", 2),
    ]
    assert [card.number for card in cards] == list(range(5))
    assert list_tree(cards) == cards[1:]
    assert list_tree(cards[:3]) == []
    (link,) = cards[4].links
    assert (link.words, link.number, link.name) == ("likely made from", 3, "c.jpg")
    pictures = {IDS.decode(card.picture) for card in cards}
    assert pictures == {bytes([number]) * 32 for number in range(5)}


def test_words_of_relations_vouchers_and_decisions() -> None:
    decision = {"id": "1", "kind": "same", "author": "ann", "time": "2026-01-02T03:04:05+00:00"}
    _, exact, decided, doubtful = make_all_cards(
        make_member(path="/p/b.jpg", relation="identical bytes", score=1.0),
        make_member(path="/p/c.jpg", decision=decision, voucher="/p/b.jpg"),
        make_member(path="/p/d.jpg", voucher="/p/b.jpg", edits_in_words=["mirrored"]),
    )
    assert (exact.relation, exact.score) == ("identical bytes", "")
    assert decided.notes == ("decided to be the same by ann on 2026-01-02",)
    assert [link.words for link in decided.links] == ["through"]
    assert doubtful.edits == ("mirrored",)
    assert doubtful.score == "0.900"
    assert "in doubt by itself" in doubtful.links[0].words


def test_files_that_are_not_there_are_marked() -> None:
    card = make_all_cards(
        make_member(missing=True, changed=True, without_counterpart=["/p/b.xmp"])
    )[1]
    assert card.warnings == (
        "not on disk",
        "changed since the last ingest",
        "not to be given up: b.xmp has no copy beside the keeper",
    )


def test_path_is_exact_and_names_are_printable() -> None:
    path = "/p/\u202ex\udcff\n'\"<b>.jpg"
    card = make_all_cards(make_member(path=path))[1]
    assert json.loads(card.path_json) == path
    assert card.path_json.isascii()
    assert card.name.isprintable()
    assert "<b>.jpg" in card.name


def test_homography_is_that_of_the_verdict() -> None:
    matrix = [1.0, 0.0, 0.1, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    _, aligned, not_aligned = make_all_cards(
        make_member(path="/p/b.jpg", verdict={"homography": matrix}),
        make_member(path="/p/c.jpg", verdict={"homography": None}),
    )
    assert json.loads(aligned.homography) == matrix
    assert not_aligned.homography == ""

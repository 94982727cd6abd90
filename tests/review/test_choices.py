from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from indexes import Store
from indexes.decisions import DecisionKind
from indexes.errors import StoreDamaged, StoreVersionMismatch
from indexes.review import ReviewDatabase, ReviewState
from pipeline.actions.plan import Action
from pipeline.actions.plan_options import PlanOptions
from pipeline.decide.decide import decide, forget
from pipeline.errors import ChoiceRefused, DecisionRefused, PlanRefused, UnknownGroup
from pipeline.grouping.keep_rules import KeepRules
from pipeline.review import choices, new_decisions
from pipeline.review.choices import BULK_CHOICES, Choice, Place, Reviewer
from pipeline.review.filters import NO_FILTER, GroupFilter
from pipeline.review.listing import ListedGroup, Listing
from pipeline.review.planning import plan_accepted
from pipeline.verify.relation import Relation
from tests.support.ingest import ingest
from tests.support.reviews import Builder, find_documents, list_documents

UNDECIDED = GroupFilter(is_undecided=True)


def find_group(listing: Listing, name: str) -> ListedGroup:
    """The group with a file of this name."""
    (group,) = listing.page(GroupFilter(name=name)).groups
    return group


def list_names(group: ListedGroup) -> list[str]:
    return [Path(file.path).name for file in group.files]


def get_path(group: ListedGroup, name: str) -> str:
    (path,) = [file.path for file in group.files if Path(file.path).name == name]
    return path


def list_decided(library: Path) -> list[tuple[str, list[str]]]:
    with Store(library) as store:
        return [
            (decision.kind, sorted(content.name for content in decision.contents))
            for decision in store.catalog.decisions.list()
        ]


def test_accepting_and_skipping_enter_no_decision(
    listing: Listing, reviewer: Reviewer, library: Path
) -> None:
    a, b = find_group(listing, "a.png"), find_group(listing, "b.jpg")
    assert reviewer.choose(a.id, Choice.ACCEPT).group_ids == (a.id,)
    reviewer.choose(b.id, Choice.SKIP)
    assert list_decided(library) == []
    assert (listing.get(a.id).state, listing.get(a.id).author) == (ReviewState.ACCEPTED, "ann")
    assert listing.get(b.id).state is ReviewState.SKIPPED
    progress = listing.count_progress()
    assert (progress.reviewed, progress.groups) == (2, 3)
    assert [group.id for group in listing.page(UNDECIDED).groups] == [
        find_group(listing, "c.webp").id
    ]


def test_another_keeper_leads_its_group_and_voids_what_was_accepted(
    listing: Listing, reviewer: Reviewer, library: Path
) -> None:
    group = find_group(listing, "b.jpg")
    reviewer.choose(group.id, Choice.ACCEPT)
    outcome = reviewer.choose(group.id, Choice.MAKE_KEEPER, [get_path(group, "b small.jpg")])
    assert list_decided(library) == [("keep", ["b small.jpg"])]
    changed = find_group(listing, "b small.jpg")
    assert outcome.group_ids == (changed.id,)
    assert list_names(changed)[0] == "b small.jpg"
    assert "decided by ann" in changed.document["keeper"]["reason"]
    assert changed.state is None
    assert reviewer.undo()
    assert find_group(listing, "b.jpg").state is ReviewState.ACCEPTED


def test_undo_brings_back_the_earlier_decision_on_a_keeper(
    listing: Listing, reviewer: Reviewer, library: Path
) -> None:
    group = find_group(listing, "b.jpg")
    for _ in range(2):
        reviewer.choose(group.id, Choice.MAKE_KEEPER, [get_path(group, "b small.jpg")])
    assert reviewer.undo()
    assert list_decided(library) == [("keep", ["b small.jpg"])]
    assert list_names(find_group(listing, "b.jpg"))[0] == "b small.jpg"
    assert reviewer.undo()
    assert list_decided(library) == []


def test_a_separated_file_leaves_and_a_group_of_one_vanishes(
    listing: Listing, reviewer: Reviewer
) -> None:
    group = find_group(listing, "b.jpg")
    assert len(group.files) == 3
    outcome = reviewer.choose(group.id, Choice.SEPARATE, [get_path(group, "b small.jpg")])
    (left,) = outcome.group_ids
    assert sorted(list_names(listing.get(left))) == ["b large.jpg", "b.jpg"]
    assert listing.count(GroupFilter(name="b small")).groups == 0
    outcome = reviewer.choose(left, Choice.SEPARATE)
    assert outcome.group_ids == ()
    with pytest.raises(UnknownGroup):
        listing.get(left)
    progress = listing.count_progress()
    assert (progress.reviewed, progress.groups) == (2, 4)


def test_named_files_that_are_separated_stay_together(listing: Listing, reviewer: Reviewer) -> None:
    group = find_group(listing, "a.png")
    named = [get_path(group, name) for name in ("a small.jpg", "a.jpg")]
    outcome = reviewer.choose(group.id, Choice.SEPARATE, named)
    names = {tuple(sorted(list_names(listing.get(id_)))) for id_ in outcome.group_ids}
    assert names == {
        ("a copy.png", "a.png"),
        ("a small.jpg", "a.jpg"),
    }


def test_equal_pixels_cannot_be_separated(
    listing: Listing, reviewer: Reviewer, library: Path
) -> None:
    group = find_group(listing, "a.png")
    with pytest.raises(ChoiceRefused, match="same pixels"):
        reviewer.choose(group.id, Choice.SEPARATE, [get_path(group, "a copy.png")])
    outcome = reviewer.choose(group.id, Choice.SEPARATE)
    (pair,) = outcome.group_ids
    assert sorted(list_names(listing.get(pair))) == ["a copy.png", "a.png"]
    with pytest.raises(ChoiceRefused, match="same pixels"):
        reviewer.choose(pair, Choice.SEPARATE)
    assert len(list_decided(library)) == 1


def test_keeping_all_keeps_the_keeper(listing: Listing, reviewer: Reviewer, library: Path) -> None:
    group = find_group(listing, "a.png")
    reviewer.choose(group.id, Choice.KEEP_ALL)
    kept = listing.get(group.id)
    assert (list_names(kept)[0], kept.state) == ("a.png", ReviewState.KEPT_ALL)
    decided = [names for kind, names in list_decided(library) if kind == "keep"]
    assert len(decided) == 3
    assert decided[-1][0] in ("a.png", "a copy.png")  # one content


def test_a_rejected_file_settles_its_group(
    listing: Listing, reviewer: Reviewer, library: Path
) -> None:
    group = find_group(listing, "c.webp")
    reviewer.choose(group.id, Choice.REJECT, [get_path(group, "c SMALL.jpg")])
    assert list_decided(library) == [("reject", ["c SMALL.jpg"])]
    assert listing.get(group.id).state is ReviewState.REJECTED
    before = list_documents(listing)
    with pytest.raises(DecisionRefused, match="contradicts"):
        reviewer.choose(group.id, Choice.MAKE_KEEPER, [get_path(group, "c SMALL.jpg")])
    assert listing.get(group.id).state is ReviewState.REJECTED
    assert list_documents(listing) == before


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (Choice.MAKE_KEEPER, []),
        (Choice.MAKE_KEEPER, ["a.png", "a.jpg"]),
        (Choice.REJECT, []),
        (Choice.ACCEPT, ["a.png"]),
        (Choice.KEEP_ALL, ["a.png"]),
        (Choice.SKIP, ["a.png"]),
    ],
)
def test_choices_take_the_files_that_they_need(
    listing: Listing, reviewer: Reviewer, library: Path, choice: Choice, names: list[str]
) -> None:
    group = find_group(listing, "a.png")
    with pytest.raises(ChoiceRefused, match=f"^{choice} takes"):
        reviewer.choose(group.id, choice, [get_path(group, name) for name in names])
    assert list_decided(library) == []
    assert reviewer.undo() is None


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../a.png", "a\0b", "\x1b[31m", "\udcff"])
def test_paths_of_no_file_of_the_group_are_refused(
    listing: Listing, reviewer: Reviewer, path: str
) -> None:
    group = find_group(listing, "a.png")
    other = find_group(listing, "b.jpg").files[0].path
    for hostile in (path, other):
        for choice in (Choice.MAKE_KEEPER, Choice.SEPARATE, Choice.REJECT):
            with pytest.raises(ChoiceRefused, match="is no file of this group") as caught:
                reviewer.choose(group.id, choice, [hostile])
            assert str(caught.value).isprintable()
    assert reviewer.undo() is None


def test_choices_for_all_touch_only_what_the_filter_shows(
    listing: Listing, reviewer: Reviewer
) -> None:
    shown = GroupFilter(name="b small")
    with pytest.raises(ChoiceRefused, match="1 groups pass the filter now, not 3"):
        reviewer.choose_all(Choice.ACCEPT, shown, 3)
    assert reviewer.choose_all(Choice.ACCEPT, shown, 1).group_count == 1
    assert find_group(listing, "b.jpg").state is ReviewState.ACCEPTED
    assert listing.count(UNDECIDED).groups == 2
    outcome = reviewer.choose_all(Choice.SKIP, UNDECIDED, 2)
    assert outcome.group_count == 2
    assert find_group(listing, "b.jpg").state is ReviewState.ACCEPTED
    assert listing.count(UNDECIDED).groups == 0
    assert reviewer.undo()
    assert listing.count(UNDECIDED).groups == 2
    assert find_group(listing, "b.jpg").state is ReviewState.ACCEPTED


def test_all_groups_are_separated_or_kept_at_once(
    listing: Listing, reviewer: Reviewer, library: Path
) -> None:
    before = list_documents(listing)
    assert reviewer.choose_all(Choice.KEEP_ALL, NO_FILTER, 3).group_count == 3
    assert listing.count(UNDECIDED).groups == 0
    assert reviewer.undo()
    outcome = reviewer.choose_all(Choice.SEPARATE, NO_FILTER, 3)
    assert len(outcome.group_ids) == 1  # the two with equal bytes
    assert reviewer.undo()
    assert list_documents(listing) == before
    assert list_decided(library) == []
    for choice in set(Choice) - set(BULK_CHOICES):
        with pytest.raises(ChoiceRefused, match="for one group"):
            reviewer.choose_all(choice, NO_FILTER, 3)


def test_too_many_decisions_are_refused_whole(
    listing: Listing, reviewer: Reviewer, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_decisions, "MAX_DECISIONS", 2)
    with pytest.raises(ChoiceRefused, match="more than 2 decisions"):
        reviewer.choose_all(Choice.KEEP_ALL, NO_FILTER, 3)
    assert list_decided(library) == []
    assert listing.count(UNDECIDED).groups == 3


def test_choices_for_very_many_files_are_left_to_the_next_build(
    listing: Listing, reviewer: Reviewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "MAX_REGROUPED_IMAGES", 1)
    assert not reviewer.choose_all(Choice.SEPARATE, NO_FILTER, 3).is_refreshed
    assert listing.is_stale()
    listing.refresh()
    assert listing.count().groups == 1


def test_choices_and_undo_outlive_a_restart(library: Path, listing: Listing) -> None:
    group = find_group(listing, "b.jpg")
    place = Place(group.id, GroupFilter(name="b", min_bytes=5))
    with Reviewer(library, listing, "ann") as first:
        first.choose(group.id, Choice.ACCEPT)
        first.choose(find_group(listing, "c.webp").id, Choice.SEPARATE)
        first.save_place(place)
    listing.close()
    with Listing(library) as again, Reviewer(library, again, "bob") as second:
        assert not again.is_stale()
        assert again.get(group.id).state is ReviewState.ACCEPTED
        assert again.count(GroupFilter(name="c.webp")).groups == 0
        assert second.get_place() == place
        assert second.undo()
        assert find_group(again, "c.webp").state is None
        assert second.undo()
        assert again.get(group.id).state is None
        assert second.undo() is None


def test_places_are_of_listed_groups(listing: Listing, reviewer: Reviewer) -> None:
    assert reviewer.get_place() == Place(None, NO_FILTER)
    with pytest.raises(UnknownGroup):
        reviewer.save_place(Place("0" * 32, NO_FILTER))
    reviewer.save_place(Place(None, UNDECIDED))
    assert reviewer.get_place() == Place(None, UNDECIDED)


def test_a_choice_that_is_cut_off_after_its_decisions_is_harmless(
    listing: Listing, reviewer: Reviewer, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = find_group(listing, "b.jpg")

    def fail(*args: object, **options: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ReviewDatabase, "put", fail)
        with pytest.raises(KeyboardInterrupt):
            reviewer.choose(group.id, Choice.SEPARATE)
    assert list_decided(library) != []
    with Store(library) as store:
        assert list_documents(listing) == find_documents(store)
    assert listing.count_progress().reviewed == 0
    assert reviewer.undo() is None
    reviewer.choose(find_group(listing, "c.webp").id, Choice.ACCEPT)


def test_decisions_forgotten_elsewhere_stay_forgotten(
    listing: Listing, reviewer: Reviewer, library: Path
) -> None:
    group = find_group(listing, "b.jpg")
    outcome = reviewer.choose(group.id, Choice.SEPARATE)
    with Store(library, write=True) as store:
        forget(store, outcome.decision_ids)
    assert listing.is_stale()
    listing.refresh()
    assert listing.get(group.id).state is None  # it is a group again, and waits for a choice
    assert reviewer.undo()
    assert list_decided(library) == []


def test_decisions_of_the_command_line_make_the_listing_stale(
    listing: Listing, reviewer: Reviewer, library: Path
) -> None:
    group = find_group(listing, "b.jpg")
    with Store(library, write=True) as store:
        decide(store, DecisionKind.KEEP, [get_path(group, "b small.jpg")], "cli")
    assert listing.is_stale()
    reviewer.choose(find_group(listing, "c.webp").id, Choice.KEEP_ALL)
    assert listing.is_stale()  # its own decision does not hide the other one
    listing.refresh()
    assert list_names(find_group(listing, "b.jpg"))[0] == "b small.jpg"


def test_choices_during_a_build_are_in_what_it_builds(
    listing: Listing, reviewer: Reviewer, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = find_group(listing, "b.jpg")

    def choose_meanwhile(builder: Builder, request: None) -> dict[str, object]:
        answer = build(builder, request)
        reviewer.choose(group.id, Choice.SEPARATE)
        return answer

    build = Builder.request
    monkeypatch.setattr(Builder, "request", choose_meanwhile)
    assert listing.refresh(force=True)
    with pytest.raises(UnknownGroup):
        listing.get(group.id)
    with Store(library) as store:
        assert list_documents(listing) == find_documents(store)


def test_choices_are_saved_while_an_ingest_writes(
    listing: Listing, reviewer: Reviewer, library: Path
) -> None:
    with Store(library, write=True) as store, store.lock_for_ingest():
        run = store.begin_run()
        reviewer.choose(find_group(listing, "b.jpg").id, Choice.SEPARATE)
        assert len(list_decided(library)) == 1
        assert run


def test_readers_and_a_reviewer_share_a_listing(listing: Listing, reviewer: Reviewer) -> None:
    failures = list[Exception]()

    def read() -> None:
        try:
            for _ in range(20):
                for group in listing.page().groups:
                    assert len(group.files) == 1 + len(group.document["members"])
        except Exception as error:
            failures.append(error)

    threads = [Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        reviewer.choose(find_group(listing, "b.jpg").id, Choice.SEPARATE)
        reviewer.undo()
    for thread in threads:
        thread.join()
    assert failures == []


# --- plans ---


def test_a_plan_has_only_what_was_accepted(listing: Listing, reviewer: Reviewer) -> None:
    assert plan_accepted(reviewer, PlanOptions()).plan.groups == ()
    a = find_group(listing, "a.png")
    reviewer.choose(a.id, Choice.ACCEPT)
    made = plan_accepted(reviewer, PlanOptions())
    assert made.passed_over == ()
    (planned,) = made.plan.groups
    assert [Path(part.path).name for victim in planned.victims for part in victim.parts] == [
        "a copy.png"
    ]
    assert made.plan.victim_count == 1
    wide = PlanOptions(
        relations=frozenset({Relation.IDENTICAL_BYTES, Relation.SAME_PICTURE, Relation.DERIVED}),
        min_confidence=0.0,
    )
    made = plan_accepted(reviewer, wide)
    files = {part.path for part, _ in made.plan.iter_parts()} | {
        left.path for left in made.plan.left
    }
    assert files == {file.path for file in a.files}
    assert made.plan.victim_count > 1


def test_groups_that_changed_since_are_passed_over(
    listing: Listing, reviewer: Reviewer, library: Path, tmp_path: Path
) -> None:
    for name in ("a.png", "b.jpg", "c.webp"):
        reviewer.choose(find_group(listing, name).id, Choice.ACCEPT)
    photos = tmp_path / "photos"
    (photos / "a small.jpg").rename(photos / "a moved.jpg")
    (photos / "c SMALL.jpg").unlink()
    with Store(library, write=True) as store:
        ingest(store, photos)
        path = get_path(find_group(listing, "b.jpg"), "b small.jpg")
        decide(store, DecisionKind.KEEP, [path], "cli")
    made = plan_accepted(reviewer, PlanOptions())
    assert made.plan.groups == ()
    passed_over = {Path(item.keeper).name: item.reason for item in made.passed_over}
    assert passed_over.keys() >= {"a.png", "b large.jpg"}
    assert all(passed_over.values())
    assert listing.count_progress().reviewed <= 1  # what changed waits for a choice again


@pytest.mark.parametrize(
    "options",
    [
        PlanOptions(keep_rules=KeepRules(["date"])),
        PlanOptions(reference_folders=("/p",)),
        PlanOptions(Action.MOVE, "/q", rejected=True),
        PlanOptions(relations=frozenset({Relation.DERIVED})),
        PlanOptions(Action.HARDLINK, relations=frozenset({Relation.IDENTICAL_PIXELS})),
    ],
)
def test_plans_by_other_rules_are_refused(reviewer: Reviewer, options: PlanOptions) -> None:
    with pytest.raises(PlanRefused):
        plan_accepted(reviewer, options)


# --- the database of choices ---


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    ReviewDatabase(tmp_path).close()
    yield tmp_path / "review.db"


def test_a_damaged_database_is_reported_and_kept(database: Path) -> None:
    database.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreDamaged, match="review from the start"):
        ReviewDatabase(database.parent)
    assert database.read_bytes().startswith(b"no database")


def test_a_database_of_a_newer_neardup_is_refused(database: Path) -> None:
    import sqlite3

    with sqlite3.connect(database) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreVersionMismatch, match="99"):
        ReviewDatabase(database.parent)

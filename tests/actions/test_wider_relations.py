"""Plans of wider relations: what they may not give up, and that they plan all that others do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexes import Store
from indexes.records import FileStat, Image, Root
from pipeline.actions.better_copies import require_no_better
from pipeline.actions.folders import Refused
from pipeline.actions.plan import Plan
from pipeline.actions.plan_options import PlanOptions
from pipeline.actions.planner import make_plan
from pipeline.actions.protection import ActionSettings
from pipeline.grouping.assets import AssetPart, PartRole
from pipeline.grouping.cluster import Group
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.grouping.match import Match
from pipeline.query.assets import mark_without_counterpart
from pipeline.verify.judgement import Judgement
from pipeline.verify.relation import COPY_RELATIONS, EXACT_RELATIONS, Relation, Side
from pipeline.verify.verdict import Edits, Verdict
from tests.support.actions import save
from tests.support.matches import make_file

BYTES = frozenset({Relation.IDENTICAL_BYTES})
# Ever wider relations, each with the least probability of a copy.
WIDER = (
    (BYTES, None),
    (EXACT_RELATIONS, None),
    (EXACT_RELATIONS | {Relation.SAME_PICTURE}, 0.9),
    (COPY_RELATIONS, 0.9),
    (COPY_RELATIONS, 0.1),
)
PLAIN_EDITS = Edits(False, 0, 0.0, False, 1.0, (1.0, 1.0), None, False, None, False, (), None)


def make_verdict(relation: Relation, probability: float = 1.0, **edits: Any) -> Verdict:
    """Make a verdict whose first image is the keeper."""
    judgement = Judgement(probability, 0.0, 0.0, 0.0, "test")
    altered_side = edits.pop("altered_side", None)
    made = replace(PLAIN_EDITS, **edits)
    return Verdict(relation, edits=made, judgement=judgement, altered_side=altered_side)


def save_photo(path: Path, content: int, sidecar: bytes | None) -> LibraryFile:
    """Save a file with the bytes of a content, and perhaps a sidecar; return what a store knows."""
    save(path, b"content %d" % content)
    hash_ = bytes([content]) * 32
    parts: tuple[AssetPart, ...] = ()
    if sidecar is not None:
        xmp = save(path.with_suffix(".xmp"), sidecar)
        stat = FileStat.from_os_stat(xmp.stat())
        parts = (AssetPart(str(xmp), stat, PartRole.SIDECAR),)
    stat = FileStat.from_os_stat(path.stat())
    image = Image(hash_, hash_, 100, 100, "JPEG", stat.size, False)
    return LibraryFile(str(path), stat, image, parts=parts)


@st.composite
def groups(draw: st.DrawFn, root: Path) -> Group:
    """Draw a group of files on disk: up to three contents, each in up to four files."""
    contents = draw(st.integers(1, 3), "contents")
    matches = list[Match]()
    for content in range(contents):
        relation = Relation.IDENTICAL_BYTES
        if content:
            relation = draw(st.sampled_from(sorted(COPY_RELATIONS - BYTES)), "relation")
        probability = draw(st.sampled_from([0.5, 0.95]), "probability")
        verdict = None if relation in EXACT_RELATIONS else make_verdict(relation, probability)
        for number in range(draw(st.integers(1, 4), "files")):
            folder = draw(st.sampled_from(["free", "protected"]), "folder")
            sidecar = draw(st.sampled_from([None, b"1 star", b"2 stars"]), "sidecar")
            path = root / folder / f"{content} {number}.jpg"
            matches.append(Match(save_photo(path, content, sidecar), relation, 1.0, verdict))
            if draw(st.integers(0, 9), "change") == 0:
                path.write_bytes(b"edited since")
    keeper, *members = matches
    return mark_without_counterpart(Group("1", keeper.file, tuple(members), "best"))


def plan_group(store: Store, group: Group, root: Path, options: PlanOptions) -> Plan:
    store.add_roots([Root(str(root), (), False)])
    return make_plan(store, [group], options, ActionSettings("id", (str(root / "protected"),)))


def list_paths(plan: Plan) -> tuple[set[str], set[str]]:
    """List the paths of the keepers and the victims of a plan, with all their parts."""
    paths: dict[bool, set[str]] = {True: set(), False: set()}
    for part, is_victim in plan.iter_parts():
        paths[is_victim].add(part.path)
    return paths[False], paths[True]


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_plan_of_wider_relations_has_each_victim_of_a_narrower_one(
    store: Store, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("photos")
    group = data.draw(groups(root))
    narrower, freed = set[str](), 0
    for relations, confidence in WIDER:
        options = PlanOptions(relations=relations, min_confidence=confidence)
        plan = plan_group(store, group, root, options)
        keepers, victims = list_paths(plan)
        assert narrower <= victims
        assert plan.bytes_to_free >= freed
        assert keepers.isdisjoint(victims)
        narrower, freed = victims, plan.bytes_to_free
        # Each file of the group is accounted for once; a keeper without victims has no words.
        left = [item.path for item in plan.left]
        assert len(left) == len(set(left))
        assert set(left).isdisjoint(keepers | victims)
        named = {*left, *keepers, *victims}
        assert len([file.path for file in group.files if file.path not in named]) <= 1


def test_equal_copies_that_are_not_sure_go_for_one_of_them(store: Store, tmp_path: Path) -> None:
    """Both are doubtful copies of the keeper, and sure copies of each other."""
    verdict = make_verdict(Relation.SAME_PICTURE, 0.5)
    files = [save_photo(tmp_path / f"{number}.jpg", number > 0, None) for number in range(3)]
    members = [Match(file, Relation.SAME_PICTURE, 0.9, verdict) for file in files[1:]]
    group = Group("1", files[0], tuple(members), "best")
    options = PlanOptions(relations=COPY_RELATIONS, min_confidence=0.9)
    plan = plan_group(store, group, tmp_path, options)
    ((planned),) = plan.groups
    assert planned.keeper is not None
    assert planned.keeper.parts[0].path == str(tmp_path / "1.jpg")
    assert [victim.relation for victim in planned.victims] == [Relation.IDENTICAL_BYTES]
    assert planned.victims[0].parts[0].path == str(tmp_path / "2.jpg")
    assert plan.left == ()


BOX = ((0.1, 0.1, 0.3, 0.2),)


@pytest.mark.parametrize(
    ("edits", "reason"),
    [
        ({"changed_regions": BOX, "altered_side": Side.FIRST}, "its keeper is covered"),
        ({"changed_regions": BOX}, "pixels do not show which"),
        ({"changed_share": 0.02}, "pixels do not show which"),
        ({"grayscale_side": Side.FIRST}, "its keeper is gray"),
        ({"overlap": (0.6, 1.0), "embedded_side": Side.SECOND}, "inside another one"),
        ({"overlap": (0.6, 1.0), "plain_background": True}, "with a border"),
        ({"overlap": (1.0, 0.6)}, "shows more than its keeper"),
        ({"overlap": (1.0, 0.6), "embedded_side": Side.FIRST}, "shows more than its keeper"),
        (
            {"overlap": (1.0, 0.6), "embedded_side": Side.FIRST, "plain_background": True},
            "shows more than its keeper",
        ),
        ({"upscaled_side": Side.FIRST}, "its keeper is upscaled"),
        ({"derived_side": Side.FIRST}, "was made from it"),
    ],
)
def test_copy_that_shows_what_its_keeper_lacks_is_not_given_up(
    edits: dict[str, Any], reason: str
) -> None:
    match = Match(make_file("/b"), Relation.DERIVED, 0.9, make_verdict(Relation.DERIVED, **edits))
    keeper = make_file("/a")
    with pytest.raises(Refused, match=reason):
        require_no_better(match, keeper, is_decided=False)
    if "do not show which" in reason or "made from" in reason:
        require_no_better(match, keeper, is_decided=True)
    else:
        with pytest.raises(Refused, match=reason):
            require_no_better(match, keeper, is_decided=True)


@pytest.mark.parametrize(
    "edits",
    [
        {"changed_regions": BOX, "altered_side": Side.SECOND},
        {"grayscale_side": Side.SECOND},
        {"overlap": (1.0, 0.6), "plain_background": True},
        {"upscaled_side": Side.SECOND, "derived_side": Side.SECOND},
        {"overlap": (0.6, 1.0)},
        {"mirrored": True, "recolored": True, "quarter_turn_deg": 90},
    ],
)
def test_altered_copy_may_go(edits: dict[str, Any]) -> None:
    match = Match(make_file("/b"), Relation.DERIVED, 0.9, make_verdict(Relation.DERIVED, **edits))
    require_no_better(match, make_file("/a"), is_decided=False)

"""Members that were only vouched for get the verdict that an ingest would have stored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import ImageOps

from indexes import Store
from pipeline import find_groups
from pipeline.cli import progress
from pipeline.cli.main import main
from pipeline.grouping.cluster import Group
from pipeline.query import groups, vouched
from pipeline.query.vouched import verify_vouched_members
from pipeline.verify.pool import VerifierPool
from pipeline.verify.verdict import Verdict
from tests.support.images import draw_textured_image, save_image
from tests.support.ingest import make_store


def vouch(group: Group) -> Group:
    """Have the keeper vouch for all members, as if none had been compared with it."""
    members = [replace(item, verdict=None, voucher=group.keeper) for item in group.members]
    return replace(group, members=tuple(members))


def make_group(folder: Path) -> tuple[Store, Group]:
    """Ingest a picture with a mirrored copy and another picture; the copies are a group."""
    photo = draw_textured_image(1)
    save_image(folder / "photos" / "a.png", photo)
    save_image(folder / "photos" / "b.jpg", ImageOps.mirror(photo))
    save_image(folder / "photos" / "other.png", draw_textured_image(2))
    store = make_store(folder / "store", folder / "photos")
    (group,) = find_groups(store)
    return store, group


def test_vouched_member_gets_its_own_verdict(tmp_path: Path) -> None:
    store, group = make_group(tmp_path)
    with store:
        assert group.members[0].verdict
        assert verify_vouched_members(store, [vouch(group)]) == [group]
        for file in group.files:  # their thumbnails are enough
            Path(file.path).unlink()
        assert verify_vouched_members(store, [vouch(group)]) == [group]


def test_few_pairs_are_in_memory_at_a_time_and_each_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = draw_textured_image(1)
    save_image(tmp_path / "photos" / "a.png", photo)
    for quality in (70, 80, 90):
        save_image(tmp_path / "photos" / f"{quality}.jpg", ImageOps.mirror(photo), quality=quality)
    verified, reports, verify = list[int](), list[tuple[int, int]](), VerifierPool.verify

    def count(pool: VerifierPool, pairs: Sequence[Any]) -> list[Verdict | None]:
        verified.append(len(pairs))
        return verify(pool, pairs)

    def report(done: int, total: int) -> None:
        reports.append((done, total))

    with make_store(tmp_path / "store", tmp_path / "photos") as store:
        (group,) = find_groups(store)
        monkeypatch.setattr(vouched, "MAX_PAIRS_AT_A_TIME", 2)
        monkeypatch.setattr(VerifierPool, "verify", count)
        (found,) = verify_vouched_members(store, [vouch(group)], report)
    assert verified == [2, 1]
    assert reports == [(0, 3), (2, 3), (3, 3)]
    assert all(member.verdict and not member.voucher for member in found.members)


def test_member_that_is_no_copy_of_the_keeper_itself_keeps_its_voucher(tmp_path: Path) -> None:
    store, group = make_group(tmp_path)
    with store:
        other = replace(group.keeper, path=str(tmp_path / "photos" / "other.png"))
        stored = store.catalog.files.get_by_path(other.path)
        assert stored and stored.image_id
        ((_, image),) = store.catalog.images.get([stored.image_id])
        stranger = replace(vouch(group).members[0], file=replace(other, image=image))
        vouched_group = replace(group, members=(stranger,))
        assert verify_vouched_members(store, [vouched_group]) == [vouched_group]


def test_plan_has_the_probability_of_a_vouched_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, group = make_group(tmp_path)
    store.close()
    monkeypatch.setattr(groups, "find_groups", lambda *args, **options: [vouch(group)])
    monkeypatch.setattr(progress, "PROGRESS_LINE_SECONDS", 0.0)
    command = ["plan", "--store", str(tmp_path / "store"), "--relations", "derived", "--json"]
    answer = CliRunner().invoke(main, [*command, "--min-confidence", "0.5"], catch_exceptions=False)
    assert "comparing pairs of photos: 1 of 1" in answer.stderr
    (planned,) = json.loads(answer.stdout)["plan"]["groups"]
    verdict = group.members[0].verdict
    assert verdict and verdict.judgement
    assert [victim["confidence"] for victim in planned["victims"]] == [
        pytest.approx(verdict.judgement.copy, abs=1e-6)
    ]

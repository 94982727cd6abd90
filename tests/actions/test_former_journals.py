"""A journal that a commit before entries of one form wrote: it is read, undone and purged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.actions.checked_json import add_checksum
from pipeline.actions.outcome import Status
from pipeline.actions.undo import list_runs
from tests.actions.test_merges import OLD_SIDECAR
from tests.support.actions import Desk, read_contents, read_tree, save

# A run that extended a sidecar and moved three copies; {root} stands for the root.
JOURNAL = Path(__file__).parent / "fixtures" / "journal_with_merge.jsonl"
RUN = "20260131101500-816959e7"
NEW_SIDECAR = (Path(__file__).parent / "fixtures" / "merged.xmp").read_bytes()


@pytest.fixture
def former_desk(desk: Desk) -> Desk:
    """The desk after that run."""
    lines = JOURNAL.read_text().replace("{root}", str(desk.root)).splitlines()
    checked = [json.dumps(add_checksum(json.loads(line))) + "\n" for line in lines]
    save(desk.store / "journal" / f"{RUN}.jsonl", "".join(checked).encode())
    quarantine = desk.root / ".neardup-quarantine" / RUN
    for name in ("copy.jpg", "a/b/copy 2.jpg", "a/worse.jpg"):
        (quarantine / name).parent.mkdir(parents=True, exist_ok=True)
        (desk.root / name).rename(quarantine / name)
    save(desk.root / "keep.jpg.xmp", NEW_SIDECAR)
    save(quarantine / "keep.jpg.xmp", OLD_SIDECAR)
    return desk


def test_run_is_undone(former_desk: Desk) -> None:
    (run,) = list_runs(former_desk.store)
    assert run.counts == {"done": 3}
    assert run.bytes_held == 9 + len(OLD_SIDECAR)
    outcomes = former_desk.undo(RUN)
    assert [outcome.status for outcome in outcomes] == [Status.DONE] * 4
    assert (former_desk.root / "keep.jpg.xmp").read_bytes() == OLD_SIDECAR
    names = {name for name in read_tree(former_desk.root) if name.endswith(".jpg")}
    assert names == {
        "keep.jpg",
        "copy.jpg",
        "a/b/copy 2.jpg",
        "a/best.jpg",
        "a/worse.jpg",
        "other.jpg",
    }
    assert not os.path.lexists(former_desk.root / ".neardup-quarantine")


def test_run_is_purged(former_desk: Desk) -> None:
    outcomes = former_desk.purge()
    assert [outcome.status for outcome in outcomes] == [Status.DONE] * 4
    assert read_contents(former_desk.root) == {b"one", b"two", b"three", NEW_SIDECAR}

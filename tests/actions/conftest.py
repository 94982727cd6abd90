"""A desk with two groups of equal files in folders of two levels."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.actions.plan import Action, Plan
from tests.support.actions import Desk, make_desk, save


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what only a power cut would show: it is most of the time that a run takes."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = make_desk(tmp_path)
    save(desk.root / "keep.jpg", b"one", 0o600, 10**18)
    save(desk.root / "copy.jpg", b"one")
    save(desk.root / "a" / "b" / "copy 2.jpg", b"one", 0o444)
    save(desk.root / "a" / "best.jpg", b"two")
    save(desk.root / "a" / "worse.jpg", b"two")
    save(desk.root / "other.jpg", b"three")
    return desk


def make_plan(desk: Desk, action: Action = Action.QUARANTINE) -> Plan:
    """Plan to act on the three copies of the desk."""
    root = desk.root
    groups = [
        (root / "keep.jpg", [root / "copy.jpg", root / "a" / "b" / "copy 2.jpg"]),
        (root / "a" / "best.jpg", [root / "a" / "worse.jpg"]),
    ]
    destination = None
    if action is Action.MOVE:
        (desk.root.parent / "moved").mkdir(exist_ok=True)
        destination = str(desk.root.parent / "moved")
    return desk.make_plan(groups, action, destination=destination)

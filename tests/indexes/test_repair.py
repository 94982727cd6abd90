"""Repair quarantines what is damaged, keeps the rest, and can be killed at any step."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from indexes import Root, Store, StoreDamaged, check, repair
from tests.support import nightly
from tests.support.faults import (
    REMAINING_NUMBERS,
    Reference,
    get_segment,
    list_locations,
    read_files,
    run_in_process,
)
from tests.support.stores import join_all, make_batch


@pytest.mark.parametrize("failpoint", [None, "repair saved", "repair committed"])
def test_repair_quarantines_a_damaged_segment(
    tmp_path: Path, reference: Reference, failpoint: str | None
) -> None:
    folder = reference.copy(tmp_path / "store")
    segment = get_segment(folder)
    damaged = bytearray(segment.read_bytes())
    damaged[1000] ^= 1
    segment.write_bytes(damaged)
    if failpoint:
        assert run_in_process(_repair_until_failpoint, folder, failpoint) == -signal.SIGKILL
    findings, report = repair(folder, read_all=True)
    if failpoint == "repair committed":
        assert [finding.location for finding in findings] == ["pictures"]
        assert (folder / "quarantine" / segment.name).read_bytes() == damaged
    else:
        assert report is not None
        assert report.backup.exists()
        assert report.quarantine
        assert (report.quarantine / segment.name).read_bytes() == damaged
        assert report.images_to_reembed == len(REMAINING_NUMBERS)
    # The only finding is the number of images that wait to be embedded.
    problems = [finding.problem for finding in check(folder, read_all=True)]
    assert [problem.split()[0] for problem in problems] == [str(len(REMAINING_NUMBERS))]
    with Store(folder, write=True) as store, store.lock_for_ingest():
        hashes, pairs = nightly.read_contents(store)
        # No image is lost, no pair is invented, and all are to be embedded again.
        assert (hashes, pairs) == (reference.contents[0], {})
        assert not store.find_complete_hashes(list(hashes))
        store.add(make_batch(REMAINING_NUMBERS, nightly.ROWS))
        join_all(store)
    assert run_in_process(nightly.run_nights, folder) == 0
    reference.assert_contents_of(folder)
    assert check(folder, read_all=True) == []


def _repair_until_failpoint(folder: Path, failpoint: str) -> None:
    os.environ["NEARDUP_FAILPOINT"] = failpoint
    repair(folder, read_all=True)


# A catalog that cannot be read at all, one that can be read in large part, and a missing one.
@pytest.mark.parametrize("position", [0, 5000, None])
@pytest.mark.parametrize(
    "failpoint", [None, "repair linked", "repair invalidated", "repair replaced"]
)
def test_repair_of_a_damaged_catalog_quarantines_all_and_keeps_roots(
    tmp_path: Path, reference: Reference, failpoint: str | None, position: int | None
) -> None:
    folder = reference.copy(tmp_path / "store")
    root = Root("/photos", ("*.gif",), True)
    with Store(folder, write=True) as store:
        store.add_roots([root])
    catalog = folder / "catalog.db"
    damaged = bytearray(catalog.read_bytes())
    if position is None:
        catalog.unlink()
    else:
        damaged[position] ^= 1
        catalog.write_bytes(damaged)
    segment_content = get_segment(folder).read_bytes()
    if failpoint:
        assert run_in_process(_repair_until_failpoint, folder, failpoint) == -signal.SIGKILL
        with pytest.raises(StoreDamaged):
            Store(folder)
    findings, report = repair(folder)
    assert [finding.location for finding in findings] == [os.fspath(catalog)]
    assert report
    assert report.quarantine
    quarantined = read_files(folder / "quarantine").values()
    assert segment_content in quarantined
    assert position is None or damaged in quarantined
    if failpoint != "repair replaced" or position == 0:
        assert report.model == "test"
    assert check(folder, read_all=True) == []
    with Store(folder) as store:
        assert store.catalog.roots.list() == [root]
    assert run_in_process(nightly.run_nights, folder) == 0
    reference.assert_contents_of(folder)


def test_repair_makes_an_edited_catalog_consistent(tmp_path: Path, reference: Reference) -> None:
    folder = reference.copy(tmp_path / "store")
    (folder / "catalog.seal").unlink()  # its hash would show the edits before anything is read
    with closing(sqlite3.connect(folder / "catalog.db")) as edited:
        image_of_0 = "(SELECT image FROM files WHERE path = CAST('/p/0' AS BLOB))"
        edited.execute(f"UPDATE images SET vector = 9999 WHERE id = {image_of_0}")
        edited.execute("UPDATE files SET image = 9999 WHERE path = CAST('/p/1' AS BLOB)")
        edited.execute("INSERT INTO vectors (id, digest) VALUES (8888, 1)")
        edited.execute("INSERT INTO edges VALUES (1, 7777, 0.9)")
        edited.commit()
    seal_path = os.fspath(folder / "catalog.seal")
    assert set(list_locations(folder)) == {seal_path, "images", "files", "vectors", "edges"}
    _, report = repair(folder)
    assert report is not None
    assert report.images_to_reembed == 1
    assert list_locations(folder, read_all=True) == ["pictures"]
    with Store(folder, write=True) as store, store.lock_for_ingest():
        store.add(make_batch([0, 1], nightly.ROWS))
        join_all(store)
        assert nightly.read_contents(store) == reference.contents
    assert check(folder, read_all=True) == []

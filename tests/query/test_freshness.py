from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from indexes import Store
from indexes.records import FileStat, Image
from pipeline import find_groups
from pipeline.grouping.keep_rules import DiskStatus, LibraryFile
from pipeline.query.freshness import refresh_status
from pipeline.query.groups import GroupOptions
from pipeline.report.status import format_stale_warning
from tests.support.ingest import make_store

FILE = LibraryFile("/a.jpg", FileStat(1, 1, 1, 1, 1), Image(b"1", b"1", 10, 10, "JPEG", 1, False))


def test_missing_file_stays_marked_until_the_next_ingest(photos: Path, tmp_path: Path) -> None:
    """Its group got another keeper, although the file is on disk again."""
    options = GroupOptions(refresh_status=refresh_status)
    with make_store(tmp_path / "store", photos) as store:
        former_keepers = {group.keeper.path for group in find_groups(store)}
        store.mark_missing(
            [
                file.id
                for file in store.catalog.files.find_under(str(photos))
                if file.path in former_keepers
            ]
        )
        groups = find_groups(store, options=options)
        assert not former_keepers & {group.keeper.path for group in groups}
        files = [file for group in groups for file in group.files]
        assert all(file.is_missing == (file.path in former_keepers) for file in files)
        assert format_stale_warning(store, files) is None
        photos.rename(tmp_path / "away")
        assert {
            file.disk_status or file.is_missing
            for group in find_groups(store, options=options)
            for file in group.files
        } == {DiskStatus.GONE, True}


@pytest.mark.parametrize(
    ("gone", "changed", "start"),
    [
        (1, 0, "1 of these images is gone since"),
        (0, 1, "1 of these images has changed since"),
        (1200, 2, "1,200 of these images are gone and 2 have changed since"),
    ],
)
def test_stale_warning_counts_gone_and_changed_files(
    gone: int, changed: int, start: str, tmp_path: Path
) -> None:
    files = [
        FILE,
        *[replace(FILE, disk_status=DiskStatus.GONE)] * gone,
        *[replace(FILE, disk_status=DiskStatus.CHANGED)] * changed,
    ]
    with Store(tmp_path / "store", write=True) as store:
        warning = format_stale_warning(store, files)
    assert warning
    assert warning.startswith(start)
    assert f"`neardup ingest --store {tmp_path / 'store'}`" in warning

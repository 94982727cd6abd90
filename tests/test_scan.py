from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from indexes import Root
from indexes.records import FileStat
from pipeline.scan import Skipped, SourceFile, scan


def scan_roots(*roots: Root) -> tuple[list[str], dict[str, str]]:
    """Scan roots: the paths of files in order, and the reason of each path that is skipped."""
    entries = list(scan(roots))
    files = [entry.path for entry in entries if isinstance(entry, SourceFile)]
    return files, {entry.path: entry.reason for entry in entries if isinstance(entry, Skipped)}


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_scan_lists_every_file_once_in_stable_order(tmp_path: Path) -> None:
    names = ["b.jpg", "a/2.jpg", "a/10.jpg", "a-b/1.jpg", "Z.jpg", "é.jpg"]
    for name in names:
        touch(tmp_path / name)
    files, skipped = scan_roots(Root(str(tmp_path)))
    assert sorted(files) == sorted(str(tmp_path / name) for name in names)
    assert files == scan_roots(Root(str(tmp_path)))[0]
    assert not skipped
    assert (
        scan_roots(Root(str(tmp_path)), Root(str(tmp_path / "a")))[0]
        == scan_roots(Root(str(tmp_path / "a")), Root(str(tmp_path)))[0]
    )
    assert sorted(scan_roots(Root(str(tmp_path)), Root(str(tmp_path / "a")))[0]) == sorted(files)


@pytest.mark.parametrize("pattern", ["raw", "raw/", "2024/raw", "2024/raw/", "*/raw//"])
def test_excluded_folder_is_skipped_with_or_without_a_slash_at_its_end(
    tmp_path: Path, pattern: str
) -> None:
    touch(tmp_path / "2024" / "raw" / "1.jpg")
    kept = touch(tmp_path / "2024" / "raw.jpg")
    files, skipped = scan_roots(Root(str(tmp_path), (pattern,)))
    assert files == [str(kept)]
    assert skipped == {str(tmp_path / "2024" / "raw"): "excluded"}


def test_symlinks_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path / "real" / "1.jpg")
    touch(tmp_path / "outside" / "2.jpg")
    library = tmp_path / "library"
    touch(library / "z" / "3.jpg")
    (library / "a-link-to-z").symlink_to(library / "z")
    (library / "loop").symlink_to(library)
    (library / "z" / "up").symlink_to(library / "z")
    (library / "outside").symlink_to(tmp_path / "outside")
    (library / "one.jpg").symlink_to(tmp_path / "real" / "1.jpg")
    (library / "dangling.jpg").symlink_to(tmp_path / "nothing")
    (library / "itself").symlink_to(library / "itself")
    files, skipped = scan_roots(Root(str(library)))
    assert files == [
        str(library / "z" / "3.jpg"),
        str(library / "one.jpg"),
        str(library / "outside" / "2.jpg"),
    ]
    assert sorted(skipped.values()) == [
        "broken link",
        "broken link",
        "reached before",
        "reached before",
        "reached before",
    ]


def test_fifos_and_sockets_are_skipped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.jpg"))
        (tmp_path / "link.jpg").symlink_to(tmp_path / "fifo.jpg")
        files, skipped = scan_roots(Root(str(tmp_path)))
    assert not files
    assert set(skipped.values()) == {"special file"}
    assert len(skipped) == 3


def test_hidden_trash_and_excluded_entries_are_skipped_but_roots_are_not(tmp_path: Path) -> None:
    root = tmp_path / ".hidden-root"
    for name in (
        "1.jpg",
        ".2.jpg",
        ".thumbs/3.jpg",
        "$RECYCLE.BIN/4.jpg",
        ".Trash-1000/5.jpg",
        "raw/6.gif",
        "raw/deep/7.jpg",
        "8.gif",
    ):
        touch(root / name)
    assert scan_roots(Root(str(root)))[0] == [
        str(root / name) for name in ("1.jpg", "8.gif", "raw/6.gif", "raw/deep/7.jpg")
    ]
    files, skipped = scan_roots(Root(str(root), ("*.gif", "raw/deep"), include_hidden=True))
    assert files == [str(root / name) for name in (".2.jpg", "1.jpg", ".thumbs/3.jpg")]
    assert sorted(skipped.values()) == ["excluded", "excluded", "excluded", "trash", "trash"]


def test_unreadable_folder_is_a_failure_and_scan_continues(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg")
    gone = Root(str(tmp_path / "gone"))
    entries = list(scan([gone, Root(str(tmp_path / "a"))]))
    assert [entry.is_failure for entry in entries if isinstance(entry, Skipped)] == [True]
    assert len([entry for entry in entries if isinstance(entry, SourceFile)]) == 1


def test_store_is_skipped(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg")
    touch(tmp_path / "neardup" / "catalog.db")
    touch(tmp_path / "neardup" / "thumbs" / "1.jpg")
    (tmp_path / "neardup" / "segments").mkdir()
    files, skipped = scan_roots(Root(str(tmp_path)))
    assert files == [str(tmp_path / "a.jpg")]
    assert skipped == {str(tmp_path / "neardup"): "a store"}


def test_names_with_newlines_or_invalid_utf8_are_listed(tmp_path: Path) -> None:
    names = [os.fsdecode(b"caf\xe9.jpg"), "two\nlines.jpg", "tab\t.jpg"]
    for name in names:
        touch(tmp_path / name)
    paths = scan_roots(Root(str(tmp_path)))[0]
    assert {os.path.basename(path) for path in paths} == set(names)  # noqa: PTH119 - str paths


def test_source_file_without_stat_is_never_unchanged(tmp_path: Path) -> None:
    path = touch(tmp_path / "a.jpg")
    stat = FileStat.from_os_stat(path.stat())
    assert SourceFile(str(path), stat).is_unchanged_since(stat)
    assert not SourceFile(str(path)).is_unchanged_since(stat)
    assert SourceFile(str(path), stat).require_stat() == stat
    with pytest.raises(ValueError, match="no stat"):
        SourceFile(str(path)).require_stat()


def test_files_that_neardup_moved_are_passed_over_with_hidden_files_too(tmp_path: Path) -> None:
    kept = touch(tmp_path / "a" / ".hidden.jpg")
    touch(tmp_path / "a" / ".neardup-quarantine" / "20260131" / "b.jpg")
    files, skipped = scan_roots(Root(str(tmp_path), include_hidden=True))
    assert files == [str(kept)]
    assert skipped == {str(tmp_path / "a" / ".neardup-quarantine"): "moved by neardup"}

from __future__ import annotations

import os
import socket
from pathlib import Path

from indexes import Root
from pipeline.scan import Skipped, SourceFile, scan


def listing(*roots: Root) -> tuple[list[str], dict[str, str]]:
    """(paths in order, reason of each path that was passed)."""
    found = list(scan(roots))
    files = [each.path for each in found if isinstance(each, SourceFile)]
    return files, {each.path: each.reason for each in found if isinstance(each, Skipped)}


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_order_is_stable_and_every_file_comes_once(tmp_path: Path) -> None:
    names = ["b.jpg", "a/2.jpg", "a/10.jpg", "a-b/1.jpg", "Z.jpg", "é.jpg"]
    for name in names:
        touch(tmp_path / name)
    files, passed = listing(Root(str(tmp_path)))
    assert sorted(files) == sorted(str(tmp_path / name) for name in names)
    assert files == listing(Root(str(tmp_path)))[0]
    assert not passed
    assert (
        listing(Root(str(tmp_path)), Root(str(tmp_path / "a")))[0]
        == listing(Root(str(tmp_path / "a")), Root(str(tmp_path)))[0]
    )
    assert sorted(listing(Root(str(tmp_path)), Root(str(tmp_path / "a")))[0]) == sorted(files)


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
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
    files, passed = listing(Root(str(library)))
    assert files == [
        str(library / "z" / "3.jpg"),
        str(library / "one.jpg"),
        str(library / "outside" / "2.jpg"),
    ]
    assert sorted(passed.values()) == [
        "broken link",
        "broken link",
        "reached before",
        "reached before",
        "reached before",
    ]


def test_fifos_and_sockets_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.jpg"))
        (tmp_path / "link.jpg").symlink_to(tmp_path / "fifo.jpg")
        files, passed = listing(Root(str(tmp_path)))
    assert not files
    assert set(passed.values()) == {"special file"}
    assert len(passed) == 3


def test_hidden_trash_and_excluded_are_passed_but_a_root_never_is(tmp_path: Path) -> None:
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
    assert listing(Root(str(root)))[0] == [
        str(root / name) for name in ("1.jpg", "8.gif", "raw/6.gif", "raw/deep/7.jpg")
    ]
    files, passed = listing(Root(str(root), ("*.gif", "raw/deep"), include_hidden=True))
    assert files == [str(root / name) for name in (".2.jpg", "1.jpg", ".thumbs/3.jpg")]
    assert sorted(passed.values()) == ["excluded", "excluded", "excluded", "trash", "trash"]


def test_unreadable_folders_are_trouble_and_the_rest_goes_on(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg")
    gone = Root(str(tmp_path / "gone"))
    found = list(scan([gone, Root(str(tmp_path / "a"))]))
    assert [each.is_failure for each in found if isinstance(each, Skipped)] == [True]
    assert len([each for each in found if isinstance(each, SourceFile)]) == 1


def test_a_store_is_no_folder_of_photos(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg")
    touch(tmp_path / "neardup" / "catalog.db")
    touch(tmp_path / "neardup" / "thumbs" / "1.jpg")
    (tmp_path / "neardup" / "segments").mkdir()
    files, passed = listing(Root(str(tmp_path)))
    assert files == [str(tmp_path / "a.jpg")]
    assert passed == {str(tmp_path / "neardup"): "a store"}


def test_names_that_are_no_utf8_or_hold_a_newline(tmp_path: Path) -> None:
    odd = [os.fsdecode(b"caf\xe9.jpg"), "two\nlines.jpg", "tab\t.jpg"]
    for name in odd:
        touch(tmp_path / name)
    assert {os.path.basename(path) for path in listing(Root(str(tmp_path)))[0]} == set(odd)  # noqa: PTH119 - str paths

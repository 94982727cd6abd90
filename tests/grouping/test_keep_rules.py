from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, permutations, sampled_from

from indexes.records import FileStat, Image
from pipeline.errors import InvalidKeepRule
from pipeline.grouping.keep_rules import RULES, CopyHints, KeepRules, LibraryFile

PLAIN = LibraryFile(
    "/photos/plain.jpg",
    FileStat(1000, 50, 0, 1, 1),
    Image(b"1", b"1", 100, 100, "JPEG", 1000, False),
)
NAMES = [*RULES, "folder:Albums"]


def photo(
    path: str = "/photos/other.jpg", mtime: int = 50, missing: bool = False, **about: object
) -> LibraryFile:
    return LibraryFile(path, FileStat(1000, mtime, 0, 2, 1), replace(PLAIN.image, **about), missing)  # type: ignore[arg-type] # of any field


def kept(one: LibraryFile, other: LibraryFile, keep: KeepRules, *said: CopyHints) -> LibraryFile:
    its, others = said or (CopyHints(), CopyHints())
    return one if keep.rank_key(one, its) < keep.rank_key(other, others) else other


BETTER = {
    "resolution": photo(width=200),
    "format": photo(format="NEF"),
    "metadata": photo(metadata=("date", "place")),
    "date": photo(mtime=40),
    "bytes": photo(size=2000),
    "folder:Albums": photo("/photos/Albums/2019/other.jpg"),
    "path": photo("/p/other.jpg"),
}


@pytest.mark.parametrize("name", BETTER)
def test_each_rule_decides_alone_and_says_so(name: str) -> None:
    keep = KeepRules([name])
    better = BETTER[name]
    assert kept(PLAIN, better, keep) == kept(better, PLAIN, keep) == better
    words = {
        "resolution": "most pixels",
        "format": "richest format",
        "metadata": "most metadata",
        "date": "oldest",
        "bytes": "most bytes",
        "folder:Albums": "in Albums",
        "path": "shortest path",
    }
    assert (
        keep.explain_choice(keep.rank_key(better, CopyHints()), [keep.rank_key(PLAIN, CopyHints())])
        == words[name]
    )


@pytest.mark.parametrize(
    "pattern",
    [
        "Albums",
        "photos/Albums",
        "Albums/2019",
        "/photos/Albums",
        "*/Albums",
        "Alb*",
        "phot*/Albums/",
    ],
)
def test_a_folder_is_named_by_its_name_or_the_end_of_its_path(pattern: str) -> None:
    keep, paths = KeepRules([f"folder:{pattern}"]), [PLAIN.path, BETTER["folder:Albums"].path]
    assert kept(PLAIN, BETTER["folder:Albums"], keep) == BETTER["folder:Albums"]
    assert keep.find_unused(paths) == []
    assert keep.find_unused(paths[:1]) == [f"folder:{pattern}"]


@pytest.mark.parametrize(
    "pattern", ["albums", "Album", "hotos/Albums", "/Albums", "2019/other.jpg"]
)
def test_a_folder_that_is_not_there_is_told(pattern: str) -> None:
    assert KeepRules([f"folder:{pattern}", "date"]).find_unused([BETTER["folder:Albums"].path]) == [
        f"folder:{pattern}"
    ]


@given(order=permutations(list(BETTER)))
def test_the_rule_that_is_named_first_decides(order: list[str]) -> None:
    keep = KeepRules(order)
    for number, name in enumerate(order):
        for other in order[number + 1 :]:
            if (
                "folder:Albums" not in (name, other) or "path" not in order[: number + 1]
            ):  # what is in a folder has a longer path
                assert kept(BETTER[name], BETTER[other], keep) == BETTER[name], (name, other)


@given(names=lists(sampled_from(NAMES), unique=True), missing=integers(0, 1))
def test_what_is_there_and_whole_is_kept_whatever_the_rules_say(
    names: list[str], missing: int
) -> None:
    keep = KeepRules(names)
    worse = photo(
        "/Albums/a",
        1,
        bool(missing),
        width=900,
        flags=("damaged",),
        format="NEF",
        metadata=("date",),
        size=9000,
    )
    assert kept(PLAIN, worse, keep) == PLAIN
    assert sorted({*keep.names} | {"folder:Albums"}) == sorted(NAMES)  # what is not named follows


def test_what_was_made_of_another_or_only_enlarged_is_not_kept() -> None:
    large = photo(width=900)
    assert kept(PLAIN, large, KeepRules(), CopyHints(), CopyHints(is_derived=True)) == PLAIN
    assert kept(PLAIN, large, KeepRules(), CopyHints(), CopyHints(is_upscaled=True)) == PLAIN
    assert kept(PLAIN, large, KeepRules(), CopyHints(), CopyHints(is_padded=True)) == PLAIN
    assert (
        kept(PLAIN, large, KeepRules(), CopyHints(is_derived=True), CopyHints(is_padded=True))
        == large
    )
    assert (
        kept(PLAIN, large, KeepRules(["resolution"]), CopyHints(), CopyHints(is_derived=True))
        == PLAIN
    )  # as long as nobody says otherwise
    assert (
        kept(
            PLAIN,
            large,
            KeepRules(["resolution", "original"]),
            CopyHints(),
            CopyHints(is_derived=True),
        )
        == large
    )


def test_richer_formats_come_first() -> None:
    order = ["NEF", "HEIF", "JPEG", "WEBP", "GIF"]
    for richer, poorer in zip(order, order[1:], strict=False):
        assert kept(photo(format=poorer), photo(format=richer), KeepRules()).image.format == richer
    assert (
        kept(
            photo(format="TIFF", size=1), photo(format="HEIF", size=2), KeepRules(["bytes"])
        ).image.size
        == 2
    )
    assert (
        kept(photo("/a.png", format="PNG"), PLAIN, KeepRules(["date", "path"])).path == "/a.png"
    )  # a PNG is no better than a JPEG


def test_when_it_was_taken_counts_before_when_its_file_was_written() -> None:
    camera, copy = photo("/long name.jpg", mtime=90 * 10**9, taken_at=10), photo(mtime=20 * 10**9)
    assert kept(camera, copy, KeepRules(["date"])) == camera
    assert (
        kept(
            photo(mtime=5, taken_at=10), replace(camera, path="/"), KeepRules(["date"])
        ).stat.mtime_ns
        == 5
    )


def test_of_the_same_pixels_a_lossless_resave_is_not_kept_and_a_stripped_one_neither() -> None:
    keep = KeepRules()
    resaved, stripped = photo(format="PNG", metadata=("date",)), photo("/p.jpg", mtime=1)
    told = photo("/photos/told.jpg", metadata=("camera", "date"))
    assert sorted([resaved, stripped, told], key=keep.rank_key_equal_pixels) == [
        told,
        stripped,
        resaved,
    ]
    worths = [keep.rank_key_equal_pixels(each) for each in (told, resaved, stripped)]
    assert (
        keep.explain_choice(worths[0], worths[1:], equal_pixels=True)
        == "not a lossless copy, most metadata"
    )


@pytest.mark.parametrize(
    ("pattern", "path", "is_in"),
    [
        ("Albums", "/x/Albums/2019/a.jpg", True),
        ("Alb*", "/x/Albums/a.jpg", True),
        ("albums", "/x/Albums/a.jpg", False),
        ("a.jpg", "/x/a.jpg", False),  # the file is no folder
        ("/x/Albums", "/x/Albums/2019/a.jpg", True),
        ("/x/Albums/", "/x/Albums/2019/a.jpg", True),
        ("/x/*/2019", "/x/Albums/2019/a.jpg", True),
        ("/x/Alb", "/x/Albums/a.jpg", False),
        ("~/Albums", "/home/someone/Albums/a.jpg", True),
    ],
)
def test_folders(pattern: str, path: str, is_in: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    chosen, other = photo(path, mtime=99), photo("/b.jpg", mtime=1)
    assert kept(chosen, other, KeepRules([f"folder:{pattern}"])) == (chosen if is_in else other)


@pytest.mark.parametrize(
    "names",
    [
        ["size"],
        [""],
        ["folder:"],
        ["folder:/"],
        ["date", "date"],
        ["Date"],
        ["resolution ", "date"],
    ],
)
def test_other_rules_are_refused(names: list[str]) -> None:
    with pytest.raises(InvalidKeepRule, match="rule"):
        KeepRules(names)

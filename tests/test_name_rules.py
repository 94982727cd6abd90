"""Names that a scan passes over: excludes in any spelling, and libraries of other programs."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes import Root
from pipeline.name_rules import PAGE_MARKER_NAME, NameRules, SkipReason, is_foreign_library
from pipeline.scan import Skipped, SourceFile, scan, scan_by_rules

ROOT = "/photos/My [2019] été"
# Letters with marks, of scripts that macOS decomposes, and nothing that is special in patterns.
LETTERS = "abz019 -_éñüÅがハ한"
NAMES = st.text(LETTERS, min_size=1, max_size=8).filter(lambda name: name.strip() == name)
ENDINGS = st.sampled_from(["", ".jpg", ".jpeg", ".GIF", ".Heic"])
FORMS: list[Callable[[str], str]] = [
    lambda name: name,
    lambda name: f"{name}/",
    lambda name: f"./{name}",
    lambda name: f"./{name}//",
    lambda name: f"{ROOT}/{name}",
    lambda name: f"{ROOT}/./{name}/",
    lambda name: f"**/{name}",
    lambda name: unicodedata.normalize("NFD", name),
    lambda name: unicodedata.normalize("NFC", f"{ROOT}/{name}"),
    lambda name: unicodedata.normalize("NFD", f"{ROOT}/{name}"),
]


def is_excluded(pattern: str, relative_path: str, root: str = ROOT) -> bool:
    """Tell if a root with one exclude skips a path below it."""
    rules = NameRules(Root(root, (pattern,)))
    path = f"{root}/{relative_path}"
    reason = rules.find_skip_reason(path.rpartition("/")[2], path)
    assert (rules.find_unused() == []) == (reason is SkipReason.EXCLUDED)
    return reason is SkipReason.EXCLUDED


@given(NAMES, ENDINGS, st.sampled_from(FORMS), st.sampled_from(["NFC", "NFD"]), st.booleans())
def test_exclude_in_any_form_skips_the_name_however_it_is_spelled(
    stem: str, ending: str, form: Callable[[str], str], letters: str, in_capitals: bool
) -> None:
    on_disk = stem + (ending.upper() if in_capitals else ending.lower())
    on_disk = unicodedata.normalize(letters, on_disk)  # type: ignore[arg-type]
    assert is_excluded(form(stem + ending), on_disk)
    assert not is_excluded(form(stem + ending), f"other {on_disk}")


@given(NAMES, NAMES, st.sampled_from(FORMS))
def test_exclude_of_a_path_skips_nothing_at_another_place(
    folder: str, name: str, form: Callable[[str], str]
) -> None:
    pattern = form(f"{folder}/{name}")
    if not pattern.startswith("**/"):
        assert is_excluded(pattern, f"{folder}/{name}")
        assert not is_excluded(pattern, f"elsewhere/{folder}/{name}")
    assert not is_excluded(pattern, name if name != folder else f"other {name}")


@pytest.mark.parametrize(
    ("pattern", "skipped", "kept"),
    [
        ("*.gif", "a/b.GIF", "a/b.gift"),
        ("*.j*g", "b.JPEG", "b.jp2"),
        ("*.[jt]*", "b.TIFF", "b.png"),
        ("IMG_?.jpg", "IMG_é.JPG", "img_1.jpg"),
        ("*.tar.gz", "b.tar.GZ", "b.TAR.gz"),
        (".ds_store", ".DS_Store", "ds_store"),
        ("raw/*", "raw/deep/1.jpg", "raw"),
        ("raw/**", "raw/1.jpg", "a/raw/1.jpg"),
        ("**/cache", "a/b/cache", "a/cached"),
        ("**/a/cache", "x/a/cache", "x/b/cache"),
        ("[2019] Rome", "[2019] Rome", "[2018] Rome"),
        ("./[2019] Rome/x.JPG", "[2019] Rome/x.jpg", "22 Rome/x.jpg"),
        ("[ab].jpg", "a.JPG", "c.jpg"),
        ("v1.[0-9]", "v1.2", "v1.x"),
        ("a[.]jpg", "a.jpg", "a.JPG.x"),
        (os.fsdecode(b"caf\xe9"), os.fsdecode(b"caf\xe9"), "café"),
        ("two\nlines", "x/two\nlines", "two"),
    ],
)
def test_exclude_with_wildcards_skips_what_it_matches(
    pattern: str, skipped: str, kept: str
) -> None:
    assert is_excluded(pattern, skipped)
    assert not is_excluded(pattern, kept)


@pytest.mark.parametrize("pattern", ["", "/", "//", ".", "./", "..", "../x", "[", "[!", "*["])
def test_odd_excludes_skip_nothing(pattern: str) -> None:
    assert not is_excluded(pattern, "a.jpg")


def test_absolute_exclude_through_a_link_and_from_home_is_below_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path.resolve() / "disk" / "Pictures"
    (real / "raw").mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    monkeypatch.setenv("HOME", str(real.parent))
    for pattern in (f"{tmp_path}/link/raw", f"{tmp_path}/link/?aw/", "~/Pictures/raw"):
        assert is_excluded(pattern, "raw", str(real)), pattern
        assert not is_excluded(pattern, "a/raw", str(real)), pattern
    assert not is_excluded("/elsewhere/raw", "raw", str(real))


def test_every_exclude_that_matches_is_used(tmp_path: Path) -> None:
    for name in ("raw.gif", "b.jpg"):
        (tmp_path / name).touch()
    (tmp_path / ".cache").mkdir()
    patterns = ("*.gif", "raw*", ".cache", "sub/*", "nothing")
    rules = NameRules(Root(str(tmp_path), patterns))
    assert len([entry for entry in scan_by_rules([rules]) if isinstance(entry, SourceFile)]) == 1
    assert rules.find_unused() == ["sub/*", "nothing"]


@pytest.mark.parametrize(
    ("name", "is_library"),
    [
        ("Photos Library.photoslibrary", True),
        ("iPhoto Library.PhotoLibrary", True),
        ("Old.aplibrary", True),
        ("Catalog Previews.lrdata", True),
        ("Lightroom.lrlibrary", True),
        ("Studio.cocatalog", True),
        ("Old.migratedphotolibrary", True),
        ("photoslibrary", False),
        ("Holiday.photos", False),
    ],
)
def test_library_of_another_program_is_passed_over_unless_it_is_a_root(
    tmp_path: Path, name: str, is_library: bool
) -> None:
    folder = tmp_path / "Pictures" / name
    (folder / "originals").mkdir(parents=True)
    (folder / "originals" / "1.jpg").touch()
    (tmp_path / "Pictures" / "link").symlink_to(folder)
    entries = list(scan([Root(str(tmp_path / "Pictures"))]))
    assert is_foreign_library(name) == is_library
    assert any(isinstance(entry, SourceFile) for entry in entries) != is_library
    libraries = [entry for entry in entries if isinstance(entry, Skipped)]
    assert SkipReason.FOREIGN_LIBRARY not in {entry.reason for entry in libraries} or is_library
    for root in (folder, folder / "originals"):
        (entry,) = scan([Root(str(root))])
        assert isinstance(entry, SourceFile)


def test_file_with_the_suffix_of_a_library_is_listed(tmp_path: Path) -> None:
    (tmp_path / "a.lrlibrary").touch()
    (entry,) = scan([Root(str(tmp_path))])
    assert isinstance(entry, SourceFile)


def test_only_thumbnails_beside_the_marker_of_a_page_are_passed_over(tmp_path: Path) -> None:
    thumbnail = f"{'0' * 32}.jpg"
    for folder in ("groups-pictures", "photos"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / thumbnail).touch()
    for name in ("mine.jpg", PAGE_MARKER_NAME):
        (tmp_path / "groups-pictures" / name).touch()
    entries = list(scan([Root(str(tmp_path))]))
    assert {entry.path for entry in entries if isinstance(entry, SourceFile)} == {
        str(tmp_path / "photos" / thumbnail),
        str(tmp_path / "groups-pictures" / "mine.jpg"),
    }
    skipped = {entry.path: entry.reason for entry in entries if isinstance(entry, Skipped)}
    assert skipped[str(tmp_path / "groups-pictures" / thumbnail)] == "thumbnail of a page"

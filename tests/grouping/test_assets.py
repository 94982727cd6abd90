"""The assets of a folder, by the names, times and sizes of its files."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.records import FileStat, FolderFile
from pipeline.decode.live_photos import LIVE_VIDEO_DETAIL
from pipeline.grouping.assets import (
    MAX_LIVE_VIDEO_BYTES,
    AssetPart,
    FolderAssets,
    PartRole,
    find_assets,
    find_without_counterpart,
)

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".heic", ".png", ".tif", ".webp")


def make_file(
    name: str, *, size: int = 1, taken_at: int | None = None, content_id: str | None = None
) -> FolderFile:
    """Make the record of a file; a photo and a THM were read, as without the extra `raw`."""
    has_image = name.lower().endswith((*PHOTO_SUFFIXES, ".thm"))
    stat = FileStat(size, 0, 0, 0, 0)
    hash_ = name.encode(errors="surrogatepass") if has_image else None
    detail = LIVE_VIDEO_DETAIL + content_id if content_id and not has_image else None
    return FolderFile(
        f"/p/{name}", stat, hash_, taken_at, content_id=content_id if hash_ else None, detail=detail
    )


def find(*names: str) -> FolderAssets:
    return find_assets(map(make_file, names))


def list_names(found: FolderAssets) -> dict[str, list[str]]:
    """Return the names of the parts of each asset, by that of the primary."""
    return {
        asset.primary.removeprefix("/p/"): [part.path.removeprefix("/p/") for part in asset.parts]
        for asset in found.assets
    }


@pytest.mark.parametrize(
    ("names", "assets"),
    [
        (
            ["IMG_1.JPG", "IMG_1.CR3", "IMG_1.MOV", "IMG_1.xmp", "IMG_1.THM"],
            {"IMG_1.JPG": ["IMG_1.CR3", "IMG_1.MOV", "IMG_1.THM", "IMG_1.xmp"]},
        ),
        (["img_1.jpg", "IMG_1.CR3"], {"img_1.jpg": ["IMG_1.CR3"]}),  # without case
        (["IMG_1.JPG", "IMG_10.CR3", "IMG_.xmp"], {}),
        (["IMG_1.HEIC", "IMG_1.MOV"], {"IMG_1.HEIC": ["IMG_1.MOV"]}),
        (["IMG_1.CR2", "IMG_1.DNG"], {"IMG_1.CR2": ["IMG_1.DNG"]}),  # converted
        (["IMG_1.CR3", "IMG_1.xmp"], {"IMG_1.CR3": ["IMG_1.xmp"]}),
        # Exports of a raw file are photos of their own, and so are two photos of one stem.
        (["IMG_1.TIF", "IMG_1.CR3"], {}),
        (["IMG_1.PNG", "IMG_1.MOV"], {}),
        (["IMG_1.CR3", "IMG_1.MOV"], {}),
        (["IMG_1.HEIC", "IMG_1.JPG", "IMG_1.MOV"], {"IMG_1.HEIC": ["IMG_1.MOV"]}),
        # Films have sidecars too.
        (["MVI_1.AVI", "MVI_1.THM"], {"MVI_1.AVI": ["MVI_1.THM"]}),
        (
            ["IMG_1.JPG", "IMG_1.CR3", "IMG_1.JPG.xmp", "IMG_1.CR3.xmp", "IMG_1_01.CR3.xmp"],
            {"IMG_1.JPG": ["IMG_1.CR3", "IMG_1.CR3.xmp", "IMG_1.JPG.xmp", "IMG_1_01.CR3.xmp"]},
        ),
        (
            ["PXL_1.RAW-01.MP.COVER.jpg", "PXL_1.RAW-02.ORIGINAL.dng"],
            {"PXL_1.RAW-01.MP.COVER.jpg": ["PXL_1.RAW-02.ORIGINAL.dng"]},
        ),
        (["PXL_1.MP.jpg", "PXL_1.MP"], {"PXL_1.MP.jpg": ["PXL_1.MP"]}),
        (
            ["IMG_1.HEIC", "IMG_E1.HEIC", "IMG_1.AAE", "IMG_O1.AAE", "IMG_E1.AAE"],
            {"IMG_1.HEIC": ["IMG_1.AAE", "IMG_O1.AAE"], "IMG_E1.HEIC": ["IMG_E1.AAE"]},
        ),
        (["IMG_E1.HEIC", "IMG_O1.AAE"], {"IMG_E1.HEIC": ["IMG_O1.AAE"]}),
        (["IMG_1.JPG", "IMG_1.JPG.json"], {"IMG_1.JPG": ["IMG_1.JPG.json"]}),
        (
            ["IMG_1.jpg", "IMG_1(1).jpg", "IMG_1.jpg.json", "IMG_1.jpg(1).json"],
            {"IMG_1.jpg": ["IMG_1.jpg.json"], "IMG_1(1).jpg": ["IMG_1.jpg(1).json"]},
        ),
        (
            ["IMG_1(1).jpg", "IMG_1.jpg.supplemental-metadata(1).json"],
            {"IMG_1(1).jpg": ["IMG_1.jpg.supplemental-metadata(1).json"]},
        ),
        (
            ["IMG_20240101_123456789.jpg", "IMG_20240101_123456789.jpg.supplemental-metada.json"],
            {"IMG_20240101_123456789.jpg": ["IMG_20240101_123456789.jpg.supplemental-metada.json"]},
        ),
        ([f"{'x' * 60}.jpg", f"{'x' * 46}.json"], {f"{'x' * 60}.jpg": [f"{'x' * 46}.json"]}),
        # Nothing tells which of two long names a file was named after.
        ([f"{'x' * 50}1.jpg", f"{'x' * 50}2.jpg", f"{'x' * 46}.json"], {}),
        (["IMG_1.jpg", "IMG_1.json", "metadata.json"], {}),
    ],
)
def test_names_tell_what_belongs_together(names: list[str], assets: dict[str, list[str]]) -> None:
    assert list_names(find(*names)) == assets


def test_parts_have_roles() -> None:
    (asset,) = find("a.jpg", "a.cr3", "a.mov", "a.xmp", "a.jpg.json").assets
    roles = [part.role for part in asset.parts]
    assert roles == [PartRole.RAW, PartRole.VIDEO, PartRole.SIDECAR, PartRole.SIDECAR]


def test_photo_that_was_not_read_does_not_show_a_raw_file_that_was() -> None:
    broken, raw = replace(make_file("a.jpg"), hash=None), make_file("a.cr3")
    assert list_names(find_assets([broken, raw])) == {"a.jpg": ["a.cr3"]}
    assert list_names(find_assets([broken, replace(raw, hash=b"raw")])) == {}


def test_photos_of_two_times_are_two_assets() -> None:
    """The counter of a camera starts again after 9,999 photos."""
    times = {first: [make_file("a.jpg", taken_at=1), make_file("a.cr3", taken_at=first)]
             for first in (1, 2, None)}  # fmt: skip
    found = {time: list_names(find_assets(files)) for time, files in times.items()}
    assert found == {1: {"a.jpg": ["a.cr3"]}, 2: {}, None: {"a.jpg": ["a.cr3"]}}


def test_raw_file_goes_to_the_photo_of_its_time() -> None:
    files = [
        make_file("a.heic", taken_at=1),
        make_file("a.jpg", taken_at=2),
        make_file("a.cr3", taken_at=2),
    ]
    assert list_names(find_assets(files)) == {"a.jpg": ["a.cr3"]}


def test_long_film_is_not_that_of_a_live_photo() -> None:
    photo, sidecar = make_file("a.heic"), make_file("a.xmp")
    live = make_file("a.mov", size=MAX_LIVE_VIDEO_BYTES)
    assert list_names(find_assets([photo, live])) == {"a.heic": ["a.mov"]}
    film = make_file("a.mov", size=MAX_LIVE_VIDEO_BYTES + 1)
    assert list_names(find_assets([photo, film])) == {}
    # Both can be what the XMP file describes.
    found = find_assets([photo, film, sidecar])
    assert list_names(found) == {"a.heic": ["a.xmp"], "a.mov": ["a.xmp"]}
    assert all(part.is_shared for asset in found.assets for part in asset.parts)


def test_content_identifier_tells_more_than_the_name() -> None:
    photo, other = (replace(make_file(name), content_id=name) for name in ("a.heic", "b.heic"))
    stripped = make_file("c.jpg")

    def find_with(name: str, content_id: str, size: int = 1) -> FolderAssets:
        film = replace(make_file(name, size=size), detail=LIVE_VIDEO_DETAIL + content_id)
        return find_assets([photo, other, stripped, film])

    assert list_names(find_with("a.mov", "a.heic")) == {"a.heic": ["a.mov"]}
    assert list_names(find_with("a.mov", "b.heic")) == {"b.heic": ["a.mov"]}
    assert list_names(find_with("z.mov", "b.heic")) == {"b.heic": ["z.mov"]}  # renamed
    assert list_names(find_with("c.mov", "gone")) == {"c.jpg": ["c.mov"]}
    assert list_names(find_with("a.mov", "a.heic", MAX_LIVE_VIDEO_BYTES + 1)) == {
        "a.heic": ["a.mov"]
    }
    for name in ("a.mov", "z.mov"):  # whose photo is gone
        found = find_with(name, "gone")
        assert (found.assets, [file.path for file in found.orphans]) == ((), [f"/p/{name}"])


def test_film_goes_to_the_photo_of_its_name_among_those_of_its_identifier() -> None:
    """A live photo and an edit of it that was saved beside it."""
    files = [replace(make_file(name), content_id="1") for name in ("a.heic", "b.heic")]
    film = replace(make_file("b.mov"), detail=f"{LIVE_VIDEO_DETAIL}1")
    assert list_names(find_assets([*files, film])) == {"b.heic": ["b.mov"]}


def test_live_photo_has_an_xmp_file_for_itself() -> None:
    (asset,) = find("a.heic", "a.mov", "a.xmp").assets
    assert not any(part.is_shared for part in asset.parts)


@pytest.mark.parametrize(
    ("names", "orphans"),
    [
        (["a.jpg", "b.xmp"], ["b.xmp"]),
        (["a.aae"], ["a.aae"]),
        (["a.thm"], ["a.thm"]),
        (["a.cr3.xmp"], ["a.cr3.xmp"]),
        (["a.jpg.json"], ["a.jpg.json"]),
        (["a.jpg.supplemental-metadata(1).json"], ["a.jpg.supplemental-metadata(1).json"]),
        (["a.jpg.suppl.json"], ["a.jpg.suppl.json"]),
        (["metadata.json", "package.json", "a.psd", "a.xmp"], []),
        (["a.avi", "a.xmp", "a.mov"], []),
    ],
)
def test_sidecar_without_its_photo_is_an_orphan(names: list[str], orphans: list[str]) -> None:
    found = find(*names)
    assert [file.path for file in found.orphans] == [f"/p/{name}" for name in orphans]


STEMS = ("IMG_1", "img_1", "IMG_E1", "IMG_O1", "IMG_1(1)", "x" * 47)
SUFFIXES = (
    *(*PHOTO_SUFFIXES, ".cr3", ".dng", ".mov", ".mp4", ".avi", ".xmp", ".aae", ".thm", ".json"),
    *(".JPG", ".jpg.xmp", ".jpg.json", ".jpg(1).json", ".jpg.supplemental-metadata.json", ".psd"),
)
NAMES = [stem + suffix for stem, suffix in product(STEMS, SUFFIXES)]
FILES = st.lists(
    st.builds(
        make_file,
        st.sampled_from(NAMES) | st.text(st.characters(exclude_characters="/"), min_size=1),
        size=st.sampled_from([1, MAX_LIVE_VIDEO_BYTES + 1]),
        taken_at=st.sampled_from([None, 1, 2]),
        content_id=st.sampled_from([None, "1", "2"]),
    ),
    max_size=12,
    unique_by=lambda file: file.path,
)


@given(FILES, st.randoms(use_true_random=False))
def test_order_of_files_does_not_matter(files: list[FolderFile], random: Random) -> None:
    shuffled = list(files)
    random.shuffle(shuffled)
    assert find_assets(shuffled) == find_assets(files)


@given(FILES)
def test_each_file_is_in_one_asset_but_for_a_shared_xmp(files: list[FolderFile]) -> None:
    found = find_assets(files)
    parts = [part for asset in found.assets for part in asset.parts]
    counts = Counter(part.path for part in parts)
    for part in parts:
        assert part.is_shared == (counts[part.path] > 1)
        assert not part.is_shared or part.path.lower().endswith(".xmp")
    primaries, orphans = (
        {asset.primary for asset in found.assets},
        {file.path for file in found.orphans},
    )
    assert not primaries & counts.keys()
    assert not orphans & counts.keys()
    assert primaries | counts.keys() | orphans <= {file.path for file in files}


def make_part(name: str, size: int = 1, hash_: bytes | None = None) -> AssetPart:
    (asset,) = find_assets([make_file("a.jpg"), make_file(name)]).assets
    (part,) = asset.parts
    return replace(part, stat=replace(part.stat, size=size), hash=hash_)


@pytest.mark.parametrize(
    ("other", "is_counterpart"),
    [
        (make_part("a.cr3", 7), True),
        (make_part("a.nef", 7), True),
        (make_part("a.cr3", 8), False),
        (make_part("a.mov", 7), False),
        (replace(make_part("a.cr3", 7), is_missing=True), False),
    ],
)
def test_counterpart_has_the_role_and_the_content(other: AssetPart, is_counterpart: bool) -> None:
    part = make_part("a.cr3", 7)
    assert find_without_counterpart([part], [other]) == (() if is_counterpart else (part,))


def test_hashes_decide_where_both_are_known() -> None:
    raw, same, other = (make_part("a.cr3", 7, hash_) for hash_ in (b"1", b"1", b"2"))
    assert find_without_counterpart([raw], [other, same]) == ()
    assert find_without_counterpart([raw], [other]) == (raw,)


def test_each_counterpart_stands_for_one_part() -> None:
    raw = make_part("a.cr3")
    assert find_without_counterpart([raw, raw], [raw]) == (raw,)


def test_sidecars_of_two_kinds_are_no_counterparts() -> None:
    xmp, aae = make_part("a.xmp"), make_part("a.aae")
    assert find_without_counterpart([xmp], [aae]) == (xmp,)


def test_shared_part_needs_no_counterpart() -> None:
    assert find_without_counterpart([replace(make_part("a.xmp"), is_shared=True)], []) == ()

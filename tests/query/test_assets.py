"""Assets in groups and queries: one photo with its parts, kept and given up as a whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from indexes import Store
from pipeline import find_groups, find_matches, load_embedder
from pipeline.grouping.cluster import Group
from pipeline.grouping.keep_rules import KeepRules, LibraryFile
from pipeline.query.assets import find_orphans, have_equal_bytes
from pipeline.query.groups import GroupOptions
from pipeline.report.groups import sum_reclaimable_bytes
from tests.support.films import make_apple_exif, make_film
from tests.support.images import draw_textured_image, save_image
from tests.support.ingest import make_store
from tests.support.raw_and_jxl import save_dng

SCENE = draw_textured_image(1)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A photo with its raw file, the film of a live photo and a sidecar, and other photos."""
    folder = tmp_path / "photos"
    save_image(folder / "best" / "IMG_1.JPG", SCENE, quality=95)
    save_dng(folder / "best" / "IMG_1.DNG", SCENE, SCENE)
    (folder / "best" / "IMG_1.MOV").write_bytes(make_film())
    (folder / "best" / "IMG_1.xmp").write_text('<x:xmpmeta xmp:Rating="3"/>')
    for seed in (2, 3):
        save_image(folder / f"other {seed}.jpg", draw_textured_image(seed))
    return folder


def find(tmp_path: Path, library: Path, options: GroupOptions | None = None) -> list[Group]:
    with make_store(tmp_path / "store", library) as store:
        return find_groups(store, options=options)


def copy_best(library: Path, folder: str, *names: str) -> Path:
    """Copy files of the best folder, all of them without names, to another one."""
    target = library / folder
    target.mkdir()
    for path in sorted((library / "best").iterdir()):
        if not names or path.name in names:
            shutil.copy2(path, target)
    return target


def list_parts(file: LibraryFile) -> list[str]:
    return [Path(part.path).name for part in file.parts]


PARTS = ["IMG_1.DNG", "IMG_1.MOV", "IMG_1.xmp"]


def test_photos_of_one_asset_are_no_duplicates(tmp_path: Path, library: Path) -> None:
    assert find(tmp_path, library) == []


def test_copy_of_an_asset_is_one_member_with_all_parts(tmp_path: Path, library: Path) -> None:
    copy_best(library, "copy of it")
    (group,) = find(tmp_path, library)
    (member,) = group.members
    assert Path(group.keeper.path) == library / "best" / "IMG_1.JPG"
    assert Path(member.file.path) == library / "copy of it" / "IMG_1.JPG"
    assert list_parts(group.keeper) == list_parts(member.file) == PARTS
    assert member.without_counterpart == ()
    sizes = [path.stat().st_size for path in (library / "copy of it").iterdir()]
    assert sum_reclaimable_bytes(group) == sum(sizes)


@pytest.mark.parametrize("name", [None, "IMG_1.JPG"])
def test_fuller_asset_is_kept(tmp_path: Path, library: Path, name: str | None) -> None:
    """A photo with the same bytes and a shorter path, or a copy that was saved again."""
    if name:
        copy_best(library, "a", name)
    else:
        save_image(library / "a" / "IMG_1.JPG", SCENE, quality=95, subsampling=0)
    (group,) = find(tmp_path, library)
    assert Path(group.keeper.path) == library / "best" / "IMG_1.JPG"
    assert [member.without_counterpart for member in group.members] == [()]


@pytest.mark.parametrize("lacking", PARTS)
def test_member_says_which_part_the_keeper_lacks(
    tmp_path: Path, library: Path, lacking: str
) -> None:
    copy = copy_best(library, "first", "IMG_1.JPG", *(part for part in PARTS if part != lacking))
    options = GroupOptions(keep_rules=KeepRules([f"folder:{copy.name}"]))
    (group,) = find(tmp_path, library, options)
    assert Path(group.keeper.path) == copy / "IMG_1.JPG"
    (member,) = group.members
    assert member.without_counterpart == (str(library / "best" / lacking),)
    assert sum_reclaimable_bytes(group) == 0


def test_keeper_with_a_raw_file_lacks_the_film_of_a_member(tmp_path: Path, library: Path) -> None:
    copy = copy_best(library, "a", "IMG_1.JPG", "IMG_1.MOV")
    (library / "best" / "IMG_1.MOV").unlink()
    (group,) = find(tmp_path, library)
    assert Path(group.keeper.path).parent == library / "best"
    assert [member.without_counterpart for member in group.members] == [(str(copy / "IMG_1.MOV"),)]


def test_raw_file_alone_is_a_member_of_the_fuller_asset(tmp_path: Path, library: Path) -> None:
    copy = copy_best(library, "a", "IMG_1.DNG")
    (group,) = find(tmp_path, library)
    assert Path(group.keeper.path) == library / "best" / "IMG_1.JPG"
    assert [member.file.path for member in group.members] == [str(copy / "IMG_1.DNG")]
    assert group.members[0].without_counterpart == ()


def test_raw_file_is_not_given_up_for_a_photo_without_one(tmp_path: Path, library: Path) -> None:
    raw, photo = copy_best(library, "raw", "IMG_1.DNG"), copy_best(library, "jpg", "IMG_1.JPG")
    shutil.rmtree(library / "best")
    options = GroupOptions(keep_rules=KeepRules(["folder:jpg"]))
    (group,) = find(tmp_path, library, options)
    assert Path(group.keeper.path) == photo / "IMG_1.JPG"
    assert [member.without_counterpart for member in group.members] == [(str(raw / "IMG_1.DNG"),)]


def test_raw_file_that_cannot_be_read_is_a_part(tmp_path: Path, library: Path) -> None:
    """Without the extra `raw` that holds for every raw file."""
    (library / "best" / "IMG_1.CR3").write_bytes(b"no camera writes this")
    copy = copy_best(library, "copy of it")
    (copy / "IMG_1.CR3").write_bytes(b"another size")
    (group,) = find(tmp_path, library)
    assert list_parts(group.keeper) == ["IMG_1.CR3", *PARTS]
    assert [member.without_counterpart for member in group.members] == [(str(copy / "IMG_1.CR3"),)]


@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_raw_file_of_one_size_with_other_content_is_no_counterpart(
    tmp_path: Path, library: Path, size: int
) -> None:
    """Uncompressed raw files of a camera all have one size; their headers can be equal, too."""
    header = b"header" * 20
    (library / "best" / "IMG_1.CR3").write_bytes(header + b"1" * size)
    copy = copy_best(library, "copy of it")
    options = GroupOptions(have_equal_content=have_equal_bytes)
    (group,) = find(tmp_path, library, options)
    assert group.members[0].without_counterpart == ()
    (copy / "IMG_1.CR3").write_bytes(header + b"2" * size)
    shutil.rmtree(tmp_path / "store")
    (group,) = find(tmp_path, library, options)
    assert group.members[0].without_counterpart == (str(copy / "IMG_1.CR3"),)


def test_sidecar_with_other_content_has_no_counterpart(tmp_path: Path, library: Path) -> None:
    copy = copy_best(library, "copy of it")
    (copy / "IMG_1.xmp").write_text('<x:xmpmeta xmp:Rating="5"/>')  # of the same size
    options = GroupOptions(have_equal_content=have_equal_bytes)
    (group,) = find(tmp_path, library, options)
    assert [member.without_counterpart for member in group.members] == [(str(copy / "IMG_1.xmp"),)]


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("change", ["delete", "edit"])
def test_part_that_went_or_changed_is_no_counterpart(
    tmp_path: Path, library: Path, name: str, change: str
) -> None:
    copy, kept = copy_best(library, "copy of it"), library / "best" / name
    with make_store(tmp_path / "store", library) as store:
        if change == "delete":
            kept.unlink()
        else:
            kept.write_bytes(kept.read_bytes()[:-1] + b"?")  # of the same size
        (group,) = find_groups(store, options=GroupOptions(have_equal_content=have_equal_bytes))
    assert [member.without_counterpart for member in group.members] == [(str(copy / name),)]


def test_thumbnail_of_a_film_is_in_no_group(tmp_path: Path, library: Path) -> None:
    small = SCENE.resize((160, 107))
    save_image(library / "MVI_1.THM", small, format="JPEG")
    (library / "MVI_1.AVI").write_bytes(b"RIFF\0\0\0\0AVI LIST")
    assert find(tmp_path, library) == []
    save_image(library / "MVI_1 as a photo.jpg", small)
    shutil.rmtree(tmp_path / "store")
    assert len(find(tmp_path, library)) == 1


def test_sidecar_whose_photo_is_gone_is_reported(tmp_path: Path, library: Path) -> None:
    (library / "best" / "IMG_1.JPG").rename(library / "best" / "IMG_2.JPG")
    (library / "IMG_3.aae").write_text("<plist/>")
    (library / "metadata.json").write_text("{}")
    with make_store(tmp_path / "store", library) as store:
        assert [orphan.path for orphan in find_orphans(store)] == [str(library / "IMG_3.aae")]
    (library / "best" / "IMG_1.DNG").unlink()
    (library / "best" / "IMG_1.MOV").unlink()
    with make_store(tmp_path / "store", library) as store:
        orphans = [orphan.path for orphan in find_orphans(store)]
        assert orphans == [str(library / "IMG_3.aae"), str(library / "best" / "IMG_1.xmp")]


def test_film_is_found_by_the_content_identifier(tmp_path: Path) -> None:
    library = tmp_path / "photos"
    for name in ("IMG_1", "IMG_2"):
        exif = make_apple_exif(name.encode())
        save_image(library / f"{name}.jpg", draw_textured_image(1), quality=90, exif=exif)
        (library / f"{name} (film).mov").write_bytes(make_film(name.encode()))
    with make_store(tmp_path / "store", library) as store:
        (group,) = find_groups(store)
        for file in group.files:
            assert list_parts(file) == [f"{Path(file.path).stem} (film).mov"]
        assert find_orphans(store) == []
    (library / "IMG_1.jpg").unlink()
    with make_store(tmp_path / "store", library) as store:
        orphans = [orphan.path for orphan in find_orphans(store)]
        assert orphans == [str(library / "IMG_1 (film).mov")]


def query(store: Store, path: Path) -> list[tuple[str, list[str]]]:
    (answer,) = find_matches([str(path)], store, load_embedder())
    return [(match.file.path, list_parts(match.file)) for match in answer.matches]


def test_asset_is_one_match_of_a_query(tmp_path: Path, library: Path) -> None:
    best = library / "best"
    new = save_image(tmp_path / "new.jpg", SCENE, quality=60)
    with make_store(tmp_path / "store", library) as store:
        assert query(store, new) == [(str(best / "IMG_1.JPG"), PARTS)]
        assert query(store, best / "IMG_1.JPG") == []
        assert query(store, best / "IMG_1.DNG") == []

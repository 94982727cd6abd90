"""A folder contains the files of another one as good ones, as lesser ones, or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from indexes import Root, Store
from pipeline import ingest_roots, load_embedder
from pipeline.errors import OverlappingFolders
from pipeline.query.contains import Containment, ContainsReport, find_contained
from tests.support.images import draw_textured_image, save_image

EXIF = Image.Exif()
EXIF[0x010F] = "Canon"  # Make
EXIF[0x0132] = "2020:05:01 10:00:00"  # DateTime


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    card, library = tmp_path / "card", tmp_path / "library"
    card.mkdir()
    library.mkdir()
    return card, library


def find(tmp_path: Path, card: Path, library: Path) -> ContainsReport:
    with Store(tmp_path / "store", write=True) as store:
        for _ in ingest_roots([Root(str(card)), Root(str(library))], store, load_embedder()):
            pass
        return find_contained(store, str(card), str(library))


def list_containments(report: ContainsReport) -> dict[str, str]:
    return {Path(item.file.path).name: item.containment for item in report.files}


def test_files_are_as_good_lesser_or_absent(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    card, library = folders
    photos = {name: draw_textured_image(seed) for seed, name in enumerate("abcdefgh")}
    for name, photo in photos.items():
        save_image(card / f"{name}.jpg", photo, quality=92)
    shutil.copy(card / "a.jpg", library / "same bytes.jpg")
    Image.open(card / "b.jpg").save(library / "same pixels.png")
    photos["c"].save(library / "better.jpg", quality=97)
    photos["d"].save(library / "compressed.jpg", quality=40)
    photos["e"].resize((240, 160)).save(library / "small.jpg", quality=92)
    photos["f"].crop((40, 40, 440, 300)).save(library / "crop.jpg", quality=92)
    photos["g"].transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(library / "mirror.jpg", quality=97)
    report = find(tmp_path, card, library)
    assert list_containments(report) == {
        "a.jpg": Containment.AS_GOOD,
        "b.jpg": Containment.AS_GOOD,
        "c.jpg": Containment.AS_GOOD,
        "d.jpg": Containment.LESSER,
        "e.jpg": Containment.LESSER,
        "f.jpg": Containment.LESSER,
        "g.jpg": Containment.LESSER,
        "h.jpg": Containment.ABSENT,
    }
    assert report.share == 3 / 8
    assert not report.is_all_as_good


def test_photo_in_another_format_is_lesser_in_far_fewer_bytes(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    card, library = folders
    for name, seed, quality in (("a", 1, 30), ("b", 2, 97)):
        photo = draw_textured_image(seed)
        save_image(card / f"{name}.webp", photo, quality=95)
        save_image(library / f"{name}.jpg", photo, quality=quality)
    assert list_containments(find(tmp_path, card, library)) == {
        "a.webp": Containment.LESSER,
        "b.webp": Containment.AS_GOOD,
    }


def test_copy_without_the_metadata_is_lesser(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    card, library = folders
    save_image(card / "a.jpg", draw_textured_image(1), quality=92, exif=EXIF)
    Image.open(card / "a.jpg").save(library / "a.png")
    assert list_containments(find(tmp_path, card, library)) == {"a.jpg": Containment.LESSER}
    Image.open(card / "a.jpg").save(library / "b.png", exif=EXIF)
    assert list_containments(find(tmp_path, card, library)) == {"a.jpg": Containment.AS_GOOD}


@pytest.mark.parametrize("content", [b"a video", b""])
def test_file_that_is_not_compared_prevents_the_proof(
    tmp_path: Path, folders: tuple[Path, Path], content: bytes
) -> None:
    card, library = folders
    save_image(card / "a.jpg", draw_textured_image(1))
    shutil.copy(card / "a.jpg", library / "a.jpg")
    assert find(tmp_path, card, library).is_all_as_good
    (card / "film.mov").write_bytes(content)
    report = find(tmp_path, card, library)
    assert report.share == 1
    assert [Path(failure.path).name for failure in report.not_compared] == ["film.mov"]
    assert not report.is_all_as_good
    (library / "other.mov").write_bytes(content[::-1])
    assert not find(tmp_path, card, library).is_all_as_good
    shutil.copy(card / "film.mov", library / "other.mov")
    report = find(tmp_path, card, library)
    # Nothing says of what an empty file is a copy.
    assert report.is_all_as_good is bool(content)
    assert report.other_files == (
        {str(card / "film.mov"): str(library / "other.mov")} if content else {}
    )


@pytest.mark.parametrize("change", ["delete", "edit"])
def test_counterpart_that_went_or_changed_does_not_count(
    tmp_path: Path, folders: tuple[Path, Path], change: str
) -> None:
    card, library = folders
    save_image(card / "a.jpg", draw_textured_image(1))
    copy = Path(shutil.copy(card / "a.jpg", library / "a.jpg"))
    find(tmp_path, card, library)
    if change == "delete":
        copy.unlink()
    else:
        copy.write_bytes(copy.read_bytes() + b"x")
    with Store(tmp_path / "store") as store:
        report = find_contained(store, str(card), str(library))
    assert list_containments(report) == {"a.jpg": Containment.ABSENT}


def test_link_into_the_folder_is_no_counterpart(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    """Neither the file itself, nor the folder that it lies in."""
    card, library = folders
    save_image(card / "a.jpg", draw_textured_image(1))
    (library / "a.jpg").symlink_to(card / "a.jpg")
    (library / "all").symlink_to(card)
    report = find(tmp_path, card, library)
    assert list_containments(report) == {"a.jpg": Containment.ABSENT}
    (library / "a.jpg").unlink()
    os.link(card / "a.jpg", library / "hard.jpg")  # whose content stays without the card
    report = find(tmp_path, card, library)
    assert list_containments(report) == {"a.jpg": Containment.AS_GOOD}


def test_files_that_no_ingest_sees_prevent_the_proof(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    """Hidden files; those of other names are new since the ingest."""
    card, library = folders
    save_image(card / "a.jpg", draw_textured_image(1))
    shutil.copy(card / "a.jpg", library / "a.jpg")
    (card / "link.jpg").symlink_to(library / "a.jpg")
    assert find(tmp_path, card, library).is_all_as_good
    save_image(card / ".private" / "b.jpg", draw_textured_image(2))
    report = find(tmp_path, card, library)
    assert [(item.path, item.reason) for item in report.not_compared] == [
        (str(card / ".private" / "b.jpg"), "not scanned")
    ]
    assert not report.is_all_as_good


def test_retouched_photo_is_lesser(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    card, library = folders
    photo = draw_textured_image(1)
    save_image(card / "a.jpg", photo, quality=92)
    retouched = photo.copy()
    ImageDraw.Draw(retouched).rectangle((200, 140, 240, 165), fill=(200, 30, 30))
    save_image(library / "a.jpg", retouched, quality=98)
    assert list_containments(find(tmp_path, card, library))["a.jpg"] != Containment.AS_GOOD


def test_folder_without_photos_is_no_proof(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    report = find(tmp_path, *folders)
    assert (report.share, report.is_all_as_good) == (0, False)


def test_folder_within_the_other_is_refused(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    card, _ = folders
    with Store(tmp_path / "store", write=True) as store:
        for other in (tmp_path, card, card / "below"):
            with pytest.raises(OverlappingFolders, match="side by side"):
                find_contained(store, str(card), str(other))

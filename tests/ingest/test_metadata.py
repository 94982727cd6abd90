"""Metadata from file to answer: read at ingest, read again for older stores, exposures apart."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image, ImageEnhance

from indexes import Store, StoreDamaged
from pipeline import find_groups, find_matches, load_embedder
from pipeline.query.compare import compare
from pipeline.verify.relation import QUERY_RELATIONS, SCENE_RELATIONS, Relation
from tests.support.embedders import CountingEmbedder
from tests.support.images import draw_scene, draw_textured_image, encode_jpeg
from tests.support.ingest import ingest, make_store

SCENE = draw_textured_image(1)


def make_exif(exposure_time: float, subseconds: str) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Canon", "EOS"
    exif.get_ifd(ExifTags.IFD.Exif).update(
        {
            ExifTags.Base.DateTimeOriginal: "2021:05:30 15:56:01",
            ExifTags.Base.SubsecTimeOriginal: subseconds,
            ExifTags.Base.ExposureTime: exposure_time,
        }
    )
    return exif


@pytest.fixture
def brackets(tmp_path: Path) -> Path:
    """A dark and a bright exposure of one scene, and a small copy of the bright one, bare."""
    (folder := tmp_path / "photos").mkdir()
    bright = ImageEnhance.Brightness(SCENE).enhance(1.15)
    (folder / "dark.jpg").write_bytes(encode_jpeg(SCENE, exif=make_exif(1 / 60, "10")))
    (folder / "bright.jpg").write_bytes(encode_jpeg(bright, exif=make_exif(1 / 15, "20")))
    (folder / "copy.jpg").write_bytes(encode_jpeg(bright.resize((360, 240)), 85))
    return folder


def list_grouped(store: Store) -> list[set[str]]:
    return [{Path(file.path).name for file in group.files} for group in find_groups(store)]


def drop_metadata(store: Store) -> None:
    """Make the store what an older neardup left: it has the images, and no metadata."""
    with store.catalog.transaction():
        store.catalog._db.execute("DELETE FROM metadata")


def test_exposures_are_apart_in_groups_queries_and_comparisons(
    brackets: Path, tmp_path: Path
) -> None:
    with make_store(tmp_path / "store", brackets) as store:
        assert list_grouped(store) == [{"bright.jpg", "copy.jpg"}]
        (outside := tmp_path / "query.jpg").write_bytes((brackets / "dark.jpg").read_bytes() + b"0")
        queries = [str(brackets / "dark.jpg"), str(outside)]
        relations = QUERY_RELATIONS | SCENE_RELATIONS
        for answer in find_matches(queries, store, load_embedder(), relations=relations):
            found = {Path(match.file.path).name: match.relation for match in answer.matches}
            assert found["bright.jpg"] is Relation.ANOTHER_SHOT
    files = [str(brackets / name) for name in ("dark.jpg", "bright.jpg", "copy.jpg")]
    comparison = compare(files, load_embedder())
    assert comparison.get_relation(0, 1, 0.5) is Relation.ANOTHER_SHOT
    assert comparison.get_relation(1, 2, 0.5) is Relation.SAME_PICTURE


@pytest.mark.parametrize(
    "statement", ["DELETE FROM metadata", "UPDATE metadata SET version = 1, record = '{}'"]
)
def test_metadata_of_an_older_store_is_read_without_embedding(
    brackets: Path, tmp_path: Path, statement: str
) -> None:
    embedder = CountingEmbedder()
    with Store(tmp_path / "store", write=True) as store:
        ingest(store, brackets, embedder=embedder)
        ids = store.catalog.images.list_in_use()
        expected = dict(store.catalog.metadata.get(ids))
        assert all(metadata.fidelity for metadata in expected.values())
        with store.catalog.transaction():
            store.catalog._db.execute(statement)
        embedded = embedder.embedded
        coverage = ingest(store, embedder=embedder)
        assert (coverage.metadata_read, coverage.unchanged) == (3, 3)
        assert embedder.embedded == embedded
        assert dict(store.catalog.metadata.get(ids)) == expected
        assert json.loads(json.dumps(coverage.to_dict()))["metadata_read"] == 3
        assert ingest(store, embedder=embedder).metadata_read == 0


def test_metadata_of_a_file_that_is_away_is_read_when_it_is_back(
    brackets: Path, tmp_path: Path
) -> None:
    with make_store(tmp_path / "store", brackets) as store:
        drop_metadata(store)
        brackets.rename(tmp_path / "away")
        assert ingest(store).metadata_read == 0
        (tmp_path / "away").rename(brackets)
        assert ingest(store).metadata_read == 3


@pytest.mark.parametrize("record", ["", "[]", '{"capture": {"iso": "many"}}', "\x00"])
def test_damaged_metadata_is_reported_as_damage(
    brackets: Path, tmp_path: Path, record: str
) -> None:
    with make_store(tmp_path / "store", brackets) as store:
        with store.catalog.transaction():
            store.catalog._db.execute("UPDATE metadata SET record = ?", (record,))
        with pytest.raises(StoreDamaged, match="is damaged"):
            find_groups(store)


def test_damaged_image_of_an_older_store_is_read_as_a_new_one(
    brackets: Path, tmp_path: Path
) -> None:
    """An older neardup took the filler of a cut JPEG for a part of the image."""
    whole = (brackets / "dark.jpg").read_bytes()
    (brackets / "cut.jpg").write_bytes(whole[: len(whole) * 4 // 5])
    with (
        make_store(tmp_path / "new", brackets) as new,
        make_store(tmp_path / "old", brackets) as old,
    ):
        drop_metadata(old)
        with old.catalog.transaction():
            old.catalog._db.execute(
                "UPDATE images SET height = 320, pixel_hash = randomblob(32)"
                " WHERE flags LIKE '%damaged%'"
            )
        coverage = ingest(old)
        assert (coverage.metadata_read, coverage.embedded) == (4, 1)
        for id_, image in new.catalog.images.get(new.catalog.images.list_in_use()):
            assert dict(old.catalog.images.get([id_]))[id_] == image
        assert list_grouped(old) == list_grouped(new)


def test_file_that_holds_less_is_not_kept_for_its_format(tmp_path: Path) -> None:
    (folder := tmp_path / "photos").mkdir()
    noise = np.random.default_rng(3).normal(0, 2, (480, 720, 1))
    for name, seed in (("blocks", 1), ("palette", 2)):
        levels = np.asarray(draw_textured_image(seed, (720, 480)), np.float64) + noise
        photo = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
        photo.save(folder / f"{name}.jpg", quality=92)
        if name == "blocks":
            with Image.open(io.BytesIO(encode_jpeg(photo, 8))) as strong:
                pillow_heif.from_pillow(strong).save(folder / "blocks.heic", quality=80)
        else:
            photo.quantize(16).save(folder / "palette.tif")
    drawing = Image.new("RGB", (600, 400), "white")
    drawing.paste(draw_scene(1, (300, 200)).quantize(8).convert("RGB"), (150, 100))
    drawing.save(folder / "drawing.png")
    drawing.save(folder / "drawing.jpg", quality=90)
    with make_store(tmp_path / "store", folder) as store:
        groups = {Path(group.keeper.path).stem: group for group in find_groups(store)}
    assert set(groups) == {"blocks", "palette", "drawing"}
    for name, reason in (("blocks", "not compressed more strongly"), ("palette", "more colors")):
        assert Path(groups[name].keeper.path).name == f"{name}.jpg"
        assert groups[name].reason == reason
    assert groups["drawing"].reason != "more colors"  # those of its JPEG are artifacts

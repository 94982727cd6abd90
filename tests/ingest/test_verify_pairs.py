"""Candidates are verified when they are new, on small pictures that are kept, and what was found stays and does not depend on the order."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from indexes import Root, Store
from indexes.caches.thumbnails import Thumbnail, ThumbnailCache
from indexes.catalog import verdicts as evidence
from indexes.catalog.verdicts import StoredVerdict
from indexes.records import FileStat, NewFile
from indexes.records import Image as StoredImage
from indexes.store import Batch
from pipeline import (
    IngestOptions,
    compare,
    find_groups,
    find_matches,
    ingest_roots,
    load_embedder,
    migrate_store,
)
from pipeline import thumbnails as pictures
from pipeline.calibrate.synthetic_copies import EVERYDAY_EDITS
from pipeline.decode.pool import DecoderPool
from pipeline.ingest import verify_pairs as candidates
from pipeline.ingest.batch_writer import CropReport
from pipeline.ingest.verify_pairs import VerificationProgress, verify_candidates
from pipeline.thumbnails import ImageUnavailable, encode_thumbnail
from pipeline.verify.features import extract_features
from pipeline.verify.relation import Relation
from pipeline.verify.upscaling import RadialSpectrum, radial_spectrum
from pipeline.verify.verdict import VERDICT_VERSION, decode_verdict
from tests.support import onnx_models
from tests.support.images import draw_scene, draw_textured_image, save_image
from tests.support.stores import SPACE, make_hash

KINDS = ["crop 80 %", "mirror", "grey", "half size"]


def library(folder: Path) -> list[Path]:
    """Three photos, and copies of two of them."""
    made = [save_image(folder / f"{seed}.png", draw_textured_image(seed)) for seed in (1, 2, 3)]
    for seed in (1, 2):
        for kind in KINDS:
            copy = EVERYDAY_EDITS[kind](
                draw_textured_image(seed), draw_textured_image(9), random.Random(seed)
            )
            made.append(
                save_image(folder / f"{seed} {kind.replace(' %', '')}.jpg", copy, quality=90)
            )
    return made


def ingested(store: Store, folder: Path) -> dict[str, int]:
    """What an ingest says of the pairs that it verified."""
    *_, last = ingest_roots([Root(str(folder))], store, load_embedder())
    return dict(last.coverage.verification.relations) if last.coverage.verification else {}


def left(store: Store) -> list[tuple[int, int]]:
    """The pairs that nobody has looked at."""
    frontier = store.catalog.pairs.get_watermark()
    assert frontier
    return list(store.catalog.verdicts.find_unverified_pairs(frontier.floor, VERDICT_VERSION))


def look(
    store: Store, pairs: Sequence[tuple[int, int]] | None = None
) -> Iterator[VerificationProgress]:
    """Verify pairs; those that nobody has looked at by default."""
    with DecoderPool(1) as decoders:
        yield from verify_candidates(store, left(store) if pairs is None else pairs, decoders, 1)


def judged(store: Store) -> dict[tuple[bytes, bytes], tuple[str, str]]:
    hashes = {
        id_: image.hash
        for id_, image in store.catalog.images.get(store.catalog.images.list_in_use())
    }
    return {
        (hashes[one.first], hashes[one.second]): (one.relation, one.record)
        for one in store.catalog.verdicts.stream()
    }


def test_pairs_are_verified_once(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    library(photos)
    with Store(tmp_path / "store", write=True) as store:
        found = ingested(store, photos)
        assert found[Relation.SAME_PICTURE] + found[Relation.DERIVED] >= 8
        before = judged(store)
        assert ingested(store, photos) == {}
        assert judged(store) == before
        names = [
            [Path(member.file.path).name[0] for member in group.members]
            for group in find_groups(store)
        ]
        assert names == [["1"] * len(names[0]), ["2"] * len(names[1])]
        for group in find_groups(store):
            for member in group.members:
                assert member.verdict
                assert member.verdict.edits


def test_photos_that_come_one_by_one_are_verified_as_all_at_once(tmp_path: Path) -> None:
    """The nightly law, with pixels: files in any order, some nights, the same evidence to the last digit and the same groups."""
    whole = library(tmp_path / "whole")
    with Store(tmp_path / "at once", write=True) as store:
        ingested(store, tmp_path / "whole")
        expected, groups = judged(store), find_groups(store)
    assert len(groups) == 2
    for seed in range(2):
        nights = tmp_path / f"nights {seed}"
        nights.mkdir()
        files = random.Random(seed).sample(whole, len(whole))
        with Store(tmp_path / f"store {seed}", write=True) as store:
            while files:
                for file in [files.pop() for _ in range(min(4, len(files)))]:
                    shutil.copy2(file, nights / file.name)
                ingested(store, nights)
            assert judged(store) == expected
            found = find_groups(store)
        assert [
            (group.id, [(member.relation, member.verdict) for member in group.members])
            for group in found
        ] == [
            (group.id, [(member.relation, member.verdict) for member in group.members])
            for group in groups
        ]


def test_a_photo_that_is_away_is_verified_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    save_image(photos / "one.png", draw_textured_image(1))
    copy = save_image(photos / "copy.jpg", draw_textured_image(1), quality=80)
    with Store(tmp_path / "store", write=True) as store:
        with monkeypatch.context() as patched:
            patched.setattr("pipeline.ingest.ingest.verify_new_pairs", lambda *given: iter(()))
            ingested(store, photos)
        assert [(group.members, len(group.related)) for group in find_groups(store)] == []
        shown = copy.read_bytes(), copy.stat()
        copy.unlink()
        (looked,) = look(store)
        assert (looked.done, dict(looked.relations), dict(looked.unverified)) == (
            1,
            {},
            {"unreadable": 1},
        )
        save_image(copy, draw_textured_image(2), quality=80)  # another content under the same name
        (looked,) = look(store)
        assert dict(looked.unverified) == {"changed": 1}
        copy.write_bytes(shown[0])
        os.utime(copy, ns=(shown[1].st_atime_ns, shown[1].st_mtime_ns))
        (looked,) = look(store)
        assert dict(looked.relations) == {Relation.SAME_PICTURE: 1}
        copy.unlink()  # what was found stands
        assert [len(group.members) for group in find_groups(store)] == [1]


def test_no_photo_is_read_again_for_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    save_image(photos / "one.png", draw_textured_image(1))
    save_image(photos / "two.jpg", draw_textured_image(1), quality=80)
    read: list[str] = []
    real = DecoderPool.stream

    def noted(decoders: DecoderPool, sources: list[object], *words: object) -> object:
        read.extend(Path(source.path).name for source in sources)  # type: ignore[attr-defined] # all are files
        return real(decoders, sources, *words)  # type: ignore[arg-type] # as they came

    with Store(tmp_path / "store", write=True) as store:
        ingested(store, photos)
        save_image(photos / "three.jpg", draw_textured_image(1), quality=60)
        monkeypatch.setattr(DecoderPool, "stream", noted)
        assert ingested(store, photos) == {Relation.SAME_PICTURE: 2}
    assert read == ["three.jpg", "three.jpg"]  # to be embedded, and to be looked at


def test_thumbs_may_be_lost_or_damaged(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    save_image(photos / "one.png", draw_textured_image(1))
    save_image(photos / "two.jpg", draw_textured_image(1), quality=80)
    thumbs = tmp_path / "store" / "caches" / "thumbnails.db"
    with Store(tmp_path / "store", write=True) as store:
        ingested(store, photos)
        assert thumbs.exists()
        before = judged(store)
        thumbs.write_bytes(b"no database at all" * 100)
        for end in ("-wal", "-shm"):
            thumbs.with_name(thumbs.name + end).unlink(missing_ok=True)
        save_image(photos / "three.jpg", draw_textured_image(1), quality=60)
        assert ingested(store, photos) == {Relation.SAME_PICTURE: 2}
        assert before.items() <= judged(store).items()
        with ThumbnailCache(tmp_path / "store", write=False) as kept:
            assert (
                len(
                    kept.get(
                        [
                            image.hash
                            for _, image in store.catalog.images.get(
                                store.catalog.images.list_in_use()
                            )
                        ]
                    )
                )
                == 3
            )


def test_a_stopped_verification_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    library(photos)
    with Store(tmp_path / "store", write=True) as store:
        with monkeypatch.context() as patched:
            patched.setattr("pipeline.ingest.ingest.verify_new_pairs", lambda *given: iter(()))
            ingested(store, photos)
        monkeypatch.setattr(candidates, "PAIRS_PER_BLOCK", 3)
        steps = look(store)
        first = next(steps)
        steps.close()  # type: ignore[attr-defined] # a generator
        assert len(judged(store)) == first.done == 3
        rest = list(look(store))
        assert rest[-1].done == rest[-1].total == first.total - 3
        assert left(store) == []


def test_evidence_goes_with_its_images(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    save_image(photos / "one.png", draw_textured_image(1))
    gone = save_image(photos / "two.jpg", draw_textured_image(1), quality=80)
    with Store(tmp_path / "store", write=True) as store:
        ingested(store, photos)
        assert len(judged(store)) == 1
        gone.unlink()
        ingested(store, photos)
        assert find_groups(store) == []
        store.compact(full=True)
        assert list(store.catalog.verdicts.stream()) == []
        with ThumbnailCache(tmp_path / "store", write=False) as kept:
            assert kept.get(
                [
                    image.hash
                    for _, image in store.catalog.images.get(store.catalog.images.list_in_use())
                ]
            ).keys() == {
                image.hash
                for _, image in store.catalog.images.get(store.catalog.images.list_in_use())
            }


def test_a_copy_of_a_picture_that_was_looked_at_needs_no_look_of_its_own(tmp_path: Path) -> None:
    """Evidence is about pixels, whichever file and image it was found by."""
    photos = tmp_path / "photos"
    one = save_image(photos / "one.png", draw_textured_image(1))
    same = save_image(photos / "same.bmp", draw_textured_image(1))
    save_image(photos / "cut.jpg", draw_textured_image(1).crop((60, 40, 400, 260)), quality=90)
    with Store(tmp_path / "store", write=True) as store:
        assert ingested(store, photos) == {Relation.DERIVED: 1}
        answers = list(find_matches([str(one), str(same)], store, load_embedder()))
        assert [[match.relation for match in answer.matches] for answer in answers] == [
            ["identical pixels", Relation.DERIVED]
        ] * 2


@pytest.mark.parametrize("gone", ["one.png", "same.bmp"])
@pytest.mark.parametrize("size", [(440, 300), (640, 480)])
def test_what_was_found_of_a_picture_stands_when_one_of_its_files_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str, size: tuple[int, int]
) -> None:
    """Also of pictures within pictures, and whether or not anything can be looked at again."""
    photos = tmp_path / "photos"
    whole = draw_textured_image(1, size)
    if size == (640, 480):
        whole = draw_textured_image(9, size)
        whole.paste(draw_scene(1, size).resize((220, 165), Image.Resampling.LANCZOS), (10, 10))
        save_image(photos / "cut.jpg", draw_scene(1, size), quality=92)
    else:
        save_image(photos / "cut.jpg", whole.crop((60, 40, 400, 260)), quality=90)
    save_image(photos / "one.png", whole)
    save_image(photos / "same.bmp", whole)
    with Store(tmp_path / "store", write=True) as store:
        assert ingested(store, photos) == {Relation.DERIVED: 1}
        (photos / gone).unlink()
        save_image(
            photos / "new.jpg", draw_scene(40), quality=90
        )  # so that all pairs are gone through
        monkeypatch.setattr(
            pictures,
            "read_images",
            lambda store, decoders, about, view: ((id_, ImageUnavailable("away")) for id_ in about),
        )
        monkeypatch.setattr("pipeline.query.search.Searched.unverified_images", ())
        *_, last = ingest_roots(
            [Root(str(photos))], store, load_embedder(), IngestOptions(accept_missing=True)
        )
        assert last.coverage.verification and not last.coverage.verification.relations
        new = store.catalog.files.get_by_path(str(photos / "new.jpg"))
        assert new
        assert all(new.image_id in pair for pair in left(store))
        (found,) = find_groups(store)
        assert [member.relation for member in found.members] == [Relation.DERIVED]
        ((match,),) = (
            answer.matches
            for answer in find_matches([str(photos / "cut.jpg")], store, load_embedder())
        )
        assert match.relation == Relation.DERIVED


def test_a_newer_judge_is_believed(tmp_path: Path) -> None:
    """Of pictures with two files each, whichever of these it was told about."""
    photos = tmp_path / "photos"
    for name in ("one.png", "one.bmp"):
        save_image(photos / name, draw_textured_image(1))
    for name in ("two.png", "two.bmp"):
        save_image(photos / name, draw_textured_image(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    with Store(tmp_path / "store", write=True) as store:
        ingested(store, photos)
        (first,) = store.catalog.verdicts.stream()
        ids = {
            Path(known.path).name: known.image_id or 0
            for known in store.catalog.files.find_of_images(store.catalog.images.list_in_use())
        }
        twins = set(ids.values()) - {first.first, first.second}
        second = replace(first, first=min(twins), second=max(twins))
        for judged, version, relation in (
            (first, VERDICT_VERSION + 1, Relation.UNRELATED),
            (second, -VERDICT_VERSION - 2, Relation.DERIVED),
            (first, VERDICT_VERSION + 2, Relation.UNRELATED),
            (second, VERDICT_VERSION + 2, Relation.UNRELATED),
            (first, -VERDICT_VERSION - 3, Relation.DERIVED),
            (first, VERDICT_VERSION + 3, Relation.UNRELATED),
        ):
            store.save_verdicts(
                [
                    replace(
                        judged, version=abs(version), is_provisional=version < 0, relation=relation
                    )
                ]
            )
            assert len(find_groups(store)) == (1 if relation == Relation.DERIVED else 2)
            ((*matches,),) = (
                answer.matches
                for answer in find_matches([str(photos / "one.png")], store, load_embedder())
            )
            assert [match.relation for match in matches] == ["identical pixels"] + [
                Relation.DERIVED
            ] * 2 * (relation == Relation.DERIVED)


def test_pairs_that_were_not_seen_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    save_image(photos / "one.png", draw_textured_image(1))
    save_image(photos / "two.jpg", draw_textured_image(1), quality=80)
    with Store(tmp_path / "store", write=True) as store:
        real = pictures.read_images
        monkeypatch.setattr(
            pictures,
            "read_images",
            lambda store, decoders, about, view: ((id_, ImageUnavailable("away")) for id_ in about),
        )
        *_, last = ingest_roots([Root(str(photos))], store, load_embedder())
        assert last.coverage.warnings == [
            "1 close pair was not verified, because of a photo (1 away); the next ingest tries again"
        ]
        monkeypatch.setattr(pictures, "read_images", real)
        assert ingested(store, photos) == {Relation.SAME_PICTURE: 1}


def test_evidence_is_told_from_either_side(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    first = save_image(photos / "one.png", draw_textured_image(1))
    second = save_image(
        photos / "cut.png",
        draw_textured_image(1).crop((60, 40, 400, 260)).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    )
    with Store(tmp_path / "store", write=True) as store:
        ingested(store, photos)
        (one,) = store.catalog.verdicts.stream()
        assert one.relation == Relation.DERIVED
        ((there,), (back,)) = (
            answer.matches
            for answer in find_matches([str(first), str(second)], store, load_embedder())
        )
    for match, derived, covered in ((there, "second", 0), (back, "first", 1)):
        assert match.verdict
        assert match.verdict.edits
        assert (match.verdict.edits.derived_side, match.verdict.edits.mirrored) == (derived, True)
        assert match.verdict.edits.overlap[covered] < 0.6
        assert match.verdict.edits.overlap[1 - covered] == 1.0
    matrices = [
        np.array(match.verdict.homography).reshape(3, 3) for match in (there, back) if match.verdict
    ]
    assert np.allclose(
        matrices[0] @ matrices[1] / (matrices[0] @ matrices[1])[2, 2], np.eye(3), atol=1e-3
    )


def sharp_photo(width: int, height: int) -> Image.Image:
    """With something fine, as a sharp photo has."""
    grain = np.random.default_rng(1).normal(0, 12, (height, width, 1))
    rough = np.asarray(draw_textured_image(1, (width, height))) + grain
    return Image.fromarray(rough.clip(0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(0.8)
    )


@pytest.mark.parametrize("words", ["", "SOLD OUT"])
@pytest.mark.parametrize("width", [800, 1600])
def test_an_enlarged_copy_is_not_kept_for_its_original(
    tmp_path: Path, width: int, words: str
) -> None:
    photos, height = tmp_path / "photos", width * 3 // 4
    sharp = sharp_photo(width, height)
    original = save_image(photos / "original.jpg", sharp, quality=95)
    larger = sharp.resize((width * 17 // 10, height * 17 // 10), Image.Resampling.LANCZOS)
    ImageDraw.Draw(larger).text(
        (larger.width // 2 - 200, larger.height // 2 + 120),
        words,
        fill="red",
        font_size=width // 13,
    )
    save_image(photos / "enlarged.jpg", larger, quality=95)
    save_image(photos / "small.jpg", sharp.resize((width // 2, height // 2)), quality=95)
    with Store(tmp_path / "store", write=True) as store:
        ingested(store, photos)
        (found,) = find_groups(store)
    assert (found.keeper.path, found.reason) == (str(original), "not only enlarged, most pixels")
    told = {
        Path(member.file.path).name: member.verdict.edits
        for member in found.members
        if member.verdict
    }
    enlarged, small = told["enlarged.jpg"], told["small.jpg"]
    assert enlarged and small
    assert [enlarged.scale, small.scale] == pytest.approx([1.7, 0.5], abs=0.01)
    assert (enlarged.upscaled_side, enlarged.derived_side) == ("second", None)
    assert (small.upscaled_side, small.derived_side) == (None, None)


def test_what_was_only_enlarged_is_known_when_its_drive_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, away = tmp_path / "photos", tmp_path / "away"
    sharp = sharp_photo(800, 600)
    save_image(
        photos / "card" / "enlarged.jpg",
        sharp.resize((1360, 1020), Image.Resampling.LANCZOS),
        quality=95,
    )
    with Store(tmp_path / "store", write=True) as store:
        for _ in ingest_roots([Root(str(photos / "card"))], store, load_embedder()):
            pass
        (photos / "card").rename(away)
        save_image(photos / "disk" / "original.jpg", sharp, quality=95)
        list(
            ingest_roots(
                [Root(str(photos / "disk")), Root(str(photos / "card"))], store, load_embedder()
            )
        )
        (before,) = find_groups(store)
        assert before.keeper.path.endswith("original.jpg")  # it is there
        with monkeypatch.context() as patched:
            patched.setattr(
                "pipeline.verify.pool.VerifierPool.submit_pairs",
                lambda verifiers, pairs: lambda: [None for _ in pairs],
            )
            *_, last = ingest_roots(
                [Root(str(photos / "disk")), Root(str(photos / "card"))], store, load_embedder()
            )
        told = last.coverage.verification
        assert told
        assert (told.relations, told.unverified, told.provisional) == ({}, {}, {"away": 1})
        assert (
            "1 copy may be no more than enlarged: its larger photo cannot be read (1 away)"
            in last.coverage.warnings[-1]
        )
        assert find_groups(store) == [before]  # nothing is verified again for it
        away.rename(photos / "card")
        *_, last = ingest_roots(
            [Root(str(photos / "disk")), Root(str(photos / "card"))], store, load_embedder()
        )
        told = last.coverage.verification
        assert told
        assert (told.pairs, told.provisional) == (1, {})
        (found,) = find_groups(store)
        assert (Path(found.keeper.path).name, found.reason) == ("original.jpg", "not only enlarged")
        assert left(store) == []


def test_a_damaged_thumb_is_made_again(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    save_image(photos / "one.png", draw_textured_image(1))
    save_image(photos / "two.jpg", draw_textured_image(1), quality=80)
    with Store(tmp_path / "store", write=True) as store:
        ingested(store, photos)
        with sqlite3.connect(tmp_path / "store" / "caches" / "thumbnails.db") as db:
            db.execute("UPDATE thumbnails SET jpeg = zeroblob(length(jpeg))")
        db.close()
        save_image(photos / "three.jpg", draw_textured_image(1), quality=60)
        assert ingested(store, photos) == {Relation.SAME_PICTURE: 2}


def test_what_is_left_has_its_thumbs_and_what_is_gone_has_none(tmp_path: Path) -> None:
    with ThumbnailCache(tmp_path, write=True) as thumbs:
        thumbs.put({bytes([number]) * 32: Thumbnail(b"picture", b"") for number in range(3)})
        for keep in ({bytes([0]) * 32, bytes([1]) * 32}, {bytes([1]) * 32}):
            thumbs.keep_only(keep)
            assert thumbs.get(bytes([number]) * 32 for number in range(3)).keys() == keep


def test_what_was_put_into_another_smaller_is_kept_and_what_was_cut_out_and_enlarged_is_not(
    tmp_path: Path,
) -> None:
    """No seam need show: a part of a picture cannot have more to show than the picture, unless it was only enlarged."""
    photos = tmp_path / "photos"
    sharp = sharp_photo(1200, 900)
    host = draw_textured_image(7, (1200, 900)).filter(ImageFilter.GaussianBlur(2))
    half = sharp.resize((600, 450))
    mask = Image.new("L", half.size, 0)
    mask.paste(255, (24, 24, 576, 426))
    host.paste(half, (300, 225), mask.filter(ImageFilter.GaussianBlur(12)))  # no seam
    save_image(photos / "whole.jpg", sharp, quality=95)
    save_image(photos / "host.jpg", host, quality=95)
    folder = tmp_path / "whole"
    save_image(folder / "whole.jpg", sharp, quality=95)
    detail = sharp.crop((300, 225, 900, 675)).resize((1500, 1125), Image.Resampling.LANCZOS)
    save_image(photos / "cut out.jpg", detail, quality=95)
    with Store(tmp_path / "store", write=True) as store:
        ingested(store, photos)
        (found,) = find_groups(store)
    assert Path(found.keeper.path).name == "whole.jpg"
    told = {
        Path(member.file.path).name: member.verdict.edits
        for member in found.members
        if member.verdict
    }
    inside, cut = told["host.jpg"], told["cut out.jpg"]
    assert inside and cut
    compared = (
        compare([str(photos / "whole.jpg"), str(photos / "cut out.jpg")], load_embedder())
        .verdicts[0, 1]
        .edits
    )
    assert compared
    assert (compared.derived_side, compared.upscaled_side) == ("second", "second")
    with Store(tmp_path / "other", write=True) as store:
        ingested(store, folder)
        asked = [str(photos / "cut out.jpg"), str(photos / "host.jpg")]
        answers = [
            answer.matches[0].verdict for answer in find_matches(asked, store, load_embedder())
        ]
    found_of = [evidence.edits for evidence in answers if evidence and evidence.edits]
    assert [(changes.derived_side, changes.upscaled_side) for changes in found_of] == [
        ("first", "first"),
        ("first", None),
    ]
    assert (inside.derived_side, inside.embedded_side) == ("second", None)
    assert (cut.derived_side, cut.upscaled_side) == ("second", "second")


@pytest.mark.parametrize("change", ["crop", "grey"])
def test_what_was_enlarged_is_not_made_of_what_was_made_of_it(tmp_path: Path, change: str) -> None:
    """A part, and a grey copy, made before the picture was enlarged: they have less of it all the same."""
    photos, sharp = tmp_path / "photos", sharp_photo(900, 675)
    made = sharp.crop((180, 135, 720, 540)) if change == "crop" else sharp.convert("L")
    enlarged = save_image(
        photos / "enlarged.jpg", sharp.resize((1800, 1350), Image.Resampling.LANCZOS), quality=95
    )
    save_image(photos / "made.jpg", made, quality=95)
    with Store(tmp_path / "store", write=True) as store:
        ingested(store, photos)
        (found,) = find_groups(store)
    assert (found.keeper.path, found.reason) == (str(enlarged), "not made of another")
    (member,) = found.members
    assert member.verdict
    assert member.verdict.edits
    assert (member.verdict.edits.derived_side, member.verdict.edits.upscaled_side) == (
        "second",
        "first",
    )


@pytest.mark.parametrize(("scale", "read"), [(0.8, 0), (0.7, 1)])
def test_no_file_is_read_that_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: float, read: int
) -> None:
    photos, sharp = tmp_path / "photos", sharp_photo(900, 675)
    save_image(photos / "one.jpg", sharp, quality=95)
    save_image(
        photos / "smaller.jpg", sharp.resize((round(900 * scale), round(675 * scale))), quality=95
    )
    looked = list[int]()

    def noted(rgb: NDArray[np.uint8], size: tuple[int, int]) -> RadialSpectrum:
        looked.append(size[0])
        return radial_spectrum(rgb, size)

    monkeypatch.setattr("pipeline.ingest.verify_pairs.radial_spectrum", noted)
    with Store(tmp_path / "store", write=True) as store:
        assert ingested(store, photos) == {Relation.SAME_PICTURE: 1}
    assert looked == [900] * read


def test_an_ingest_and_a_migration_start_one_set_of_decoders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads, verifies and looks inside pictures with as many processes, and reads as many files at a time, as it was told."""
    photos, made, real = tmp_path / "photos", list[tuple[int | None, int]](), DecoderPool.__init__

    def noted(self: DecoderPool, count: int | None = None, readers: int = 1) -> None:
        made.append((count, readers))
        real(self, count, readers)

    monkeypatch.setattr(DecoderPool, "__init__", noted)
    save_image(photos / "large.jpg", draw_textured_image(1, (1200, 900)), quality=95)
    save_image(photos / "small.jpg", draw_textured_image(1, (600, 450)), quality=95)
    options, model = (
        IngestOptions(decoders=1, readers=3),
        f"onnx:{onnx_models.save_model(tmp_path / 'models', onnx_models.build_model())}",
    )
    with Store(tmp_path / "store", write=True) as store:
        *_, last = ingest_roots([Root(str(photos))], store, load_embedder(), options)
        assert last.coverage.verification
        assert last.coverage.verification.pairs == 1
        assert last.coverage.crops == CropReport(2, 0)
        assert made == [(1, 3)]
        list(migrate_store(store, load_embedder(model), options))
        assert made == [(1, 3)] * 2


def test_a_thumb_is_what_is_verified(tmp_path: Path) -> None:
    """Whatever the file holds by now: the same pixels, whenever a pair comes up."""
    photos = tmp_path / "photos"
    save_image(photos / "one.png", draw_textured_image(1))
    second = save_image(photos / "two.jpg", draw_textured_image(1), quality=80)
    with Store(tmp_path / "store", write=True) as store:
        ingested(store, photos)
        stranger = Thumbnail(encode_thumbnail(np.asarray(draw_textured_image(2))), b"")
        hashes = {
            Path(known.path).name: known.image_id
            for known in store.catalog.files.find_of_images(store.catalog.images.list_in_use())
        }
        (image,) = (
            image
            for id_, image in store.catalog.images.get(store.catalog.images.list_in_use())
            if id_ == hashes[second.name]
        )
        with ThumbnailCache(store.folder, write=True) as kept:
            kept.put({image.hash: stranger})
        (pair,) = ((one.first, one.second) for one in store.catalog.verdicts.stream())
        (looked,) = look(store, [pair])
        assert dict(looked.relations) == {Relation.UNRELATED: 1}


def test_a_pair_that_ends_its_process_costs_itself_alone_night_after_night(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is the only one that is left."""
    photos = tmp_path / "photos"
    for name in ("one.png", "two.jpg", "three.jpg"):
        save_image(
            photos / name,
            draw_textured_image(1),
            **({"quality": 60 + len(name)} if name.endswith("jpg") else {}),
        )
    with Store(tmp_path / "store", write=True) as store:
        with monkeypatch.context() as patched:
            patched.setattr("pipeline.ingest.ingest.verify_new_pairs", lambda *given: iter(()))
            ingested(store, photos)
        known = store.catalog.files.get_by_path(str(photos / "two.jpg"))
        assert known and known.image_id
        ((_, image),) = store.catalog.images.get([known.image_id])
        with ThumbnailCache(store.folder, write=True) as kept:
            kept.put(
                {
                    image.hash: Thumbnail(
                        b"no picture", extract_features(np.asarray(draw_textured_image(1)))
                    )
                }
            )
        (looked,) = look(store)
        assert (dict(looked.relations), dict(looked.unverified)) == (
            {Relation.SAME_PICTURE: 1},
            {"poisoned its verifier": 2},
        )
        monkeypatch.setattr(
            "pipeline.verify.pool.VerifierPool._handle_locally", refused
        )  # nothing more is tried in this process
        for _ in range(2):
            (looked,) = look(store)
            assert (dict(looked.relations), dict(looked.unverified)) == (
                {},
                {"poisoned its verifier": 2},
            )


def refused(*given: object) -> None:
    raise AssertionError("it was done in this process")


def test_after_a_run_that_was_killed_nothing_is_looked_at_in_the_process_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    save_image(photos / "one.png", draw_textured_image(1))
    save_image(photos / "two.jpg", draw_textured_image(1), quality=80)
    mark = tmp_path / "store" / "caches" / "verifying"
    with Store(tmp_path / "store", write=True) as store:
        with monkeypatch.context() as patched:
            patched.setattr("pipeline.verify.pool.VerifierPool._handle_locally", refused)
            with pytest.raises(AssertionError):
                ingested(store, photos)
            assert mark.exists()
            assert ingested(store, photos) == {Relation.SAME_PICTURE: 1}
        assert not mark.exists()
        save_image(photos / "three.jpg", draw_textured_image(1), quality=60)
        assert ingested(store, photos) == {Relation.SAME_PICTURE: 2}


def test_a_pair_that_ends_its_process_is_told_and_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    save_image(photos / "one.png", draw_textured_image(1))
    save_image(photos / "two.jpg", draw_textured_image(1), quality=80)
    with Store(tmp_path / "store", write=True) as store:
        for patched in ("extract_features", "submit_pairs"):
            with monkeypatch.context() as given:
                nothing = {
                    "extract_features": lambda verifiers, some: [None for _ in some],
                    "submit_pairs": lambda verifiers, some: lambda: [None for _ in some],
                }
                given.setattr(f"pipeline.verify.pool.VerifierPool.{patched}", nothing[patched])
                *_, last = ingest_roots([Root(str(photos))], store, load_embedder())
            assert last.coverage.warnings == [
                "1 close pair was not verified, because of a photo (1 poisoned its verifier); the next ingest tries again"
            ]
        assert ingested(store, photos) == {Relation.SAME_PICTURE: 1}


def test_strangers_that_a_model_takes_for_copies_are_not_grouped(tmp_path: Path) -> None:
    """However close the vectors are, pixels decide."""
    photos = tmp_path / "photos"
    for seed in range(4):
        save_image(photos / f"{seed}.png", draw_textured_image(seed))
    with Store(tmp_path / "store", write=True) as store:
        ingested(store, photos)
        frontier = store.catalog.pairs.get_watermark()
        assert frontier
        close = store.find_pairs(frontier.floor)
        assert {decode_verdict(one).relation for one in store.catalog.verdicts.stream()} <= {
            Relation.UNRELATED
        }
        assert len(list(store.catalog.verdicts.stream())) == len(close.score)
        assert find_groups(store) == []


def test_odd_pictures_get_a_word_and_no_guess(tmp_path: Path) -> None:
    """A file that was cut off, strips one pixel high, a panorama of 200 megapixels; and nothing is lost when files go or change later."""
    folder = tmp_path / "photos"
    whole = save_image(folder / "whole.jpg", draw_textured_image(1), quality=90).read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    strip = draw_textured_image(2, (5000, 64)).resize((5000, 1))
    save_image(folder / "strip.png", strip)
    save_image(folder / "strip.jpg", strip, quality=80)
    save_image(folder / "strip down.png", strip.transpose(Image.Transpose.ROTATE_90))
    save_image(
        folder / "panorama.jpg",
        draw_textured_image(3, (640, 320)).resize((20_000, 10_000)),
        quality=50,
    )
    save_image(folder / "panorama small.jpg", draw_textured_image(3, (640, 320)), quality=90)
    with Store(tmp_path / "store", write=True) as store:
        ingested(store, folder)
        names = {
            known.image_id: Path(known.path).name
            for known in store.catalog.files.find_of_images(store.catalog.images.list_in_use())
        }
        found = {
            frozenset((names[one.first], names[one.second])): one.relation
            for one in store.catalog.verdicts.stream()
        }
        assert found.pop(frozenset(("whole.jpg", "cut.jpg"))) == Relation.DERIVED
        assert found.pop(frozenset(("panorama.jpg", "panorama small.jpg"))) == Relation.SAME_PICTURE
        strips = [
            relation for pair, relation in found.items() if any("strip" in name for name in pair)
        ]
        assert set(strips) == {Relation.NOT_VERIFIABLE}
        assert set(found.values()) <= {Relation.NOT_VERIFIABLE, Relation.UNRELATED}
        grouped = [
            (Path(one.keeper.path).name, Path(one.members[0].file.path).name)
            for one in find_groups(store)
        ]
        assert sorted(grouped) == [("panorama.jpg", "panorama small.jpg"), ("whole.jpg", "cut.jpg")]
        before, groups = judged(store), find_groups(store)
        (folder / "panorama.jpg").unlink()
        (folder / "whole.jpg").write_bytes(b"no photo any more")
        assert (judged(store), find_groups(store)) == (before, groups)
        query = [
            str(folder / name)
            for name in ("panorama small.jpg", "panorama.jpg", "whole.jpg", "cut.jpg")
        ]
        small, gone, changed, cut = find_matches(query, store, load_embedder())
        assert [(Path(match.file.path).name, match.relation) for match in small.matches] == [
            ("panorama.jpg", Relation.SAME_PICTURE)
        ]
        assert [(Path(match.file.path).name, match.relation) for match in cut.matches] == [
            ("whole.jpg", Relation.DERIVED)
        ]
        assert gone.failure
        assert gone.failure.reason == "unreadable"
        assert changed.failure
        assert changed.failure.reason == "no picture inside"


def same(about: Mapping[int, StoredImage], one: int, other: int) -> bool:
    return about[one].pixel_hash == about[other].pixel_hash


@given(
    classes=st.lists(st.integers(0, 3), min_size=1, max_size=20),
    close=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=6),
    looked=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=20),
    gone=st.sets(st.integers(0, 19), max_size=5),
    crowd=st.integers(1, 6),
)
@settings(max_examples=100, deadline=None)
def test_every_pair_of_pictures_is_asked_for_once(
    classes: list[int],
    close: list[tuple[int, int]],
    looked: list[tuple[int, int]],
    gone: set[int],
    crowd: int,
) -> None:
    """By brute force: pictures of vectors that are close, and of one vector, less what was looked at; of equal pixels only the first that
    a file holds; of each two, one is among the few largest of its vector.
    """
    rows = np.eye(SPACE.dim, dtype=np.float32)
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(Path(folder), write=True) as store,
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setattr(evidence, "MAX_IMAGES_PER_VECTOR", crowd)
        store.bind(SPACE, "test")
        for number, vector in enumerate(classes):
            pixels = make_hash(
                number - number % 3 % 2
            )  # every third has the pixels of the one before, where that has its vector
            if classes[number - number % 3 % 2] != vector:
                pixels = make_hash(number)
            image = StoredImage(make_hash(number), pixels, 10 + number, 10, "PNG", 1, False)
            store.add(
                Batch(
                    [(image, rows[vector])],
                    [NewFile(f"/p/{number}", FileStat(1, 1, 1, number, 1), image.hash)],
                )
            )
        about = dict(store.catalog.images.get(store.catalog.images.list_in_use()))
        vector_of = {
            id_: vector or 0 for id_, vector in store.catalog.vectors.find_of_images(about).items()
        }
        vectors = sorted(set(vector_of.values()))
        edges = {(min(a, b), max(a, b)) for a, b in close if a != b and max(a, b) < len(vectors)}
        with store.catalog.transaction():
            store.catalog.write_many(
                "INSERT INTO edges VALUES (?, ?, 0.9)", [(vectors[a], vectors[b]) for a, b in edges]
            )
        ids = sorted(about)
        store.save_verdicts(
            [
                StoredVerdict(ids[a], ids[b], 1, False, Relation.UNRELATED, "{}")
                for a, b in looked
                if a != b and max(a, b) < len(ids)
            ]
        )
        done = {
            frozenset((about[one.first].pixel_hash, about[one.second].pixel_hash))
            for one in store.catalog.verdicts.stream()
        }
        held = {known.image_id: known.id for known in store.catalog.files.find_of_images(ids)}
        store.remove_files([held[ids[number]] for number in gone if number < len(ids)])
        live = [id_ for number, id_ in enumerate(ids) if number not in gone]
        first = {about[id_].pixel_hash: id_ for id_ in reversed(live)}
        largest: dict[int, list[int]] = {}
        for id_ in sorted(
            first.values(),
            reverse=True,
            key=lambda id_: max(about[one].width for one in live if same(about, one, id_)),
        ):
            largest.setdefault(vector_of[id_], []).append(id_)
        few = {id_ for some in largest.values() for id_ in some[:crowd]}
        wanted = [
            (one, other)
            for one in sorted(first.values())
            for other in sorted(first.values())
            if one < other
            and frozenset((about[one].pixel_hash, about[other].pixel_hash)) not in done
            and (one in few or other in few)
            and (
                vector_of[one] == vector_of[other]
                or (min(v := [vector_of[one], vector_of[other]]), max(v))
                in {(vectors[a], vectors[b]) for a, b in edges}
            )
        ]
        assert store.catalog.verdicts.find_unverified_pairs(0.5, 1) == sorted(
            wanted, key=lambda pair: pair[::-1]
        )
        assert store.catalog.verdicts.find_unverified_pairs(0.95, 1) == [
            pair
            for pair in store.catalog.verdicts.find_unverified_pairs(0.5, 1)
            if vector_of[pair[0]] == vector_of[pair[1]]
        ]

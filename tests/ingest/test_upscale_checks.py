"""An upscaled copy is recognized by the detail of the larger file, also in a later run."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFilter

from indexes import Root, Store
from pipeline import (
    compare,
    find_groups,
    find_matches,
    ingest_roots,
    load_embedder,
)
from pipeline.decode.decode import Decoded
from pipeline.verify.relation import Relation
from pipeline.verify.upscaling import CenterSpectra, compute_spectra_from_decoded
from tests.support.images import draw_textured_image, save_image
from tests.support.pair_verification import (
    draw_sharp_image,
    ingest_and_count,
    list_unverified,
)


@pytest.mark.parametrize("words", ["", "SOLD OUT"])
@pytest.mark.parametrize("width", [800, 1600])
def test_find_groups_upscaled_copy_is_not_keeper(tmp_path: Path, width: int, words: str) -> None:
    photos, height = tmp_path / "photos", width * 3 // 4
    sharp = draw_sharp_image(width, height)
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
        ingest_and_count(store, photos)
        (group,) = find_groups(store)
    reason = "not altered, most pixels" if words else "not upscaled, most pixels"
    assert (group.keeper.path, group.reason) == (str(original), reason)
    edits = {
        Path(member.file.path).name: member.verdict.edits
        for member in group.members
        if member.verdict
    }
    enlarged, small = edits["enlarged.jpg"], edits["small.jpg"]
    assert enlarged and small
    assert [enlarged.scale, small.scale] == pytest.approx([1.7, 0.5], abs=0.01)
    derived_side = "second" if words else None  # the lettering lies on it
    assert (enlarged.upscaled_side, enlarged.derived_side) == ("second", derived_side)
    assert (small.upscaled_side, small.derived_side) == (None, None)


def test_ingest_absent_larger_file_is_checked_once_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, away = tmp_path / "photos", tmp_path / "away"
    sharp = draw_sharp_image(800, 600)
    save_image(
        photos / "card" / "enlarged.jpg",
        sharp.resize((1360, 1020), Image.Resampling.LANCZOS),
        quality=95,
    )
    # A photo near it, so that the store keeps the thumbnails of both.
    save_image(photos / "card" / "other.jpg", draw_textured_image(2, (800, 600)))
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
        assert before.keeper.path.endswith("original.jpg")  # the other file is missing
        with monkeypatch.context() as patch:
            patch.setattr(
                "pipeline.verify.pool.VerifierPool.submit_pairs",
                lambda verifiers, pairs: lambda: [None for _ in pairs],
            )
            *_, last = ingest_roots(
                [Root(str(photos / "disk")), Root(str(photos / "card"))], store, load_embedder()
            )
        report = last.coverage.verification
        assert report
        assert (report.relations, report.unverified, report.provisional) == ({}, {}, {"away": 1})
        assert (
            "1 copy could not be checked for upscaling,"
            " because the larger image is unreadable (1 away)" in last.coverage.warnings[-1]
        )
        assert find_groups(store) == [before]  # nothing else is verified again
        away.rename(photos / "card")
        *_, last = ingest_roots(
            [Root(str(photos / "disk")), Root(str(photos / "card"))], store, load_embedder()
        )
        report = last.coverage.verification
        assert report
        assert (report.pairs, report.provisional) == (1, {})
        (group,) = find_groups(store)
        assert (Path(group.keeper.path).name, group.reason) == ("original.jpg", "not upscaled")
        assert list_unverified(store) == []


def test_find_groups_embedded_image_is_keeper_and_upscaled_crop_is_not(
    tmp_path: Path,
) -> None:
    """Without a visible seam: a crop cannot have more detail than its whole, unless upscaled."""
    photos = tmp_path / "photos"
    sharp = draw_sharp_image(1200, 900)
    host = draw_textured_image(7, (1200, 900)).filter(ImageFilter.GaussianBlur(2))
    half = sharp.resize((600, 450))
    mask = Image.new("L", half.size, 0)
    mask.paste(255, (24, 24, 576, 426))
    host.paste(half, (300, 225), mask.filter(ImageFilter.GaussianBlur(12)))  # hides the seam
    save_image(photos / "whole.jpg", sharp, quality=95)
    save_image(photos / "host.jpg", host, quality=95)
    folder = tmp_path / "whole"
    save_image(folder / "whole.jpg", sharp, quality=95)
    detail = sharp.crop((300, 225, 900, 675)).resize((1500, 1125), Image.Resampling.LANCZOS)
    save_image(photos / "cut out.jpg", detail, quality=95)
    with Store(tmp_path / "store", write=True) as store:
        ingest_and_count(store, photos)
        (group,) = find_groups(store)
    assert Path(group.keeper.path).name == "whole.jpg"
    edits = {
        Path(member.file.path).name: member.verdict.edits
        for member in group.members
        if member.verdict
    }
    inside, cut = edits["host.jpg"], edits["cut out.jpg"]
    assert inside and cut
    compared = (
        compare([str(photos / "whole.jpg"), str(photos / "cut out.jpg")], load_embedder())
        .verdicts[0, 1]
        .edits
    )
    assert compared
    assert (compared.derived_side, compared.upscaled_side) == ("second", "second")
    with Store(tmp_path / "other", write=True) as store:
        ingest_and_count(store, folder)
        queries = [str(photos / "cut out.jpg"), str(photos / "host.jpg")]
        answers = [
            answer.matches[0].verdict for answer in find_matches(queries, store, load_embedder())
        ]
    answered_edits = [verdict.edits for verdict in answers if verdict and verdict.edits]
    assert [(edits.derived_side, edits.upscaled_side) for edits in answered_edits] == [
        ("first", "first"),
        ("first", None),
    ]
    assert (inside.derived_side, inside.embedded_side) == ("second", None)
    assert (cut.derived_side, cut.upscaled_side) == ("second", "second")


@pytest.mark.parametrize("change", ["crop", "gray"])
def test_find_groups_upscaled_image_is_not_derived_from_its_crop_or_gray_copy(
    tmp_path: Path, change: str
) -> None:
    """A crop and a gray copy of the original show less than its upscaled copy all the same."""
    photos, sharp = tmp_path / "photos", draw_sharp_image(900, 675)
    derived = sharp.crop((180, 135, 720, 540)) if change == "crop" else sharp.convert("L")
    enlarged = save_image(
        photos / "enlarged.jpg", sharp.resize((1800, 1350), Image.Resampling.LANCZOS), quality=95
    )
    save_image(photos / "derived.jpg", derived, quality=95)
    with Store(tmp_path / "store", write=True) as store:
        ingest_and_count(store, photos)
        (group,) = find_groups(store)
    assert (group.keeper.path, group.reason) == (str(enlarged), "not altered")
    (member,) = group.members
    assert member.verdict
    assert member.verdict.edits
    assert (member.verdict.edits.derived_side, member.verdict.edits.upscaled_side) == (
        "second",
        "first",
    )


@pytest.mark.parametrize(("scale", "read"), [(0.8, 0), (0.7, 1)])
def test_ingest_side_ratio_too_close_to_one_skips_upscale_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: float, read: int
) -> None:
    photos, sharp = tmp_path / "photos", draw_sharp_image(900, 675)
    save_image(photos / "one.jpg", sharp, quality=95)
    save_image(
        photos / "smaller.jpg", sharp.resize((round(900 * scale), round(675 * scale))), quality=95
    )
    widths = list[int]()

    def record(decoded: Decoded) -> CenterSpectra:
        widths.append(decoded.image.width)
        return compute_spectra_from_decoded(decoded)

    monkeypatch.setattr("pipeline.ingest.verify_pairs.compute_spectra_from_decoded", record)
    with Store(tmp_path / "store", write=True) as store:
        assert ingest_and_count(store, photos) == {Relation.SAME_PICTURE: 1}
    assert widths == [900] * read

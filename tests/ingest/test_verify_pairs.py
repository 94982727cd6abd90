"""Candidates are verified once, on stored thumbnails, and in any order with equal verdicts."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from PIL import Image

from indexes import Root, Store
from indexes.caches.thumbnails import Thumbnail, ThumbnailCache
from indexes.catalog import candidates
from indexes.coverage import CropReport
from pipeline import (
    IngestOptions,
    find_groups,
    find_matches,
    ingest_roots,
    load_embedder,
    migrate_store,
)
from pipeline.decode.pool import DecoderPool
from pipeline.grouping.cluster import Group
from pipeline.ingest import verify_pairs
from pipeline.scan import SourceFile
from pipeline.thumbnails import encode_thumbnail
from pipeline.verify.relation import Relation
from pipeline.verify.verdict import VERDICT_VERSION, Verdict, decode_verdict
from tests.support import onnx_models
from tests.support.images import draw_scene, draw_textured_image, encode_jpeg, save_image
from tests.support.pair_verification import (
    ingest_and_count,
    keep_thumbnails_away,
    list_unverified,
    load_verdicts,
    save_photo_and_copy,
    save_photos_and_copies,
    verify,
)


def test_ingest_verified_pairs_are_not_verified_again(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    save_photos_and_copies(photos)
    with Store(tmp_path / "store", write=True) as store:
        counts = ingest_and_count(store, photos)
        assert counts[Relation.SAME_PICTURE] + counts[Relation.DERIVED] >= 8
        before = load_verdicts(store)
        assert ingest_and_count(store, photos) == {}
        assert load_verdicts(store) == before
        names = [
            [Path(member.file.path).name[0] for member in group.members]
            for group in find_groups(store)
        ]
        assert names == [["1"] * len(names[0]), ["2"] * len(names[1])]
        for group in find_groups(store):
            for member in group.members:
                assert member.verdict
                assert member.verdict.edits


def list_verdicts_by_group(
    groups: Sequence[Group],
) -> list[tuple[str, list[tuple[Relation, Verdict | None]]]]:
    return [
        (group.id, [(member.relation, member.verdict) for member in group.members])
        for group in groups
    ]


def test_ingest_in_any_order_gives_equal_verdicts_and_groups(tmp_path: Path) -> None:
    """Files that come over several nights get the same verdicts, to the last digit, and groups."""
    files = save_photos_and_copies(tmp_path / "whole")
    with Store(tmp_path / "at once", write=True) as store:
        ingest_and_count(store, tmp_path / "whole")
        expected, groups = load_verdicts(store), find_groups(store)
    assert len(groups) == 2
    for seed in range(2):
        nights = tmp_path / f"nights {seed}"
        nights.mkdir()
        waiting = random.Random(seed).sample(files, len(files))
        with Store(tmp_path / f"store {seed}", write=True) as store:
            while waiting:
                for file in [waiting.pop() for _ in range(min(4, len(waiting)))]:
                    shutil.copy2(file, nights / file.name)
                ingest_and_count(store, nights)
            assert load_verdicts(store) == expected
            nightly_groups = find_groups(store)
        assert list_verdicts_by_group(nightly_groups) == list_verdicts_by_group(groups)


def test_groups_depend_on_the_files_alone_where_candidates_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pairs that were candidates of a smaller library do not count in a larger one."""
    files = save_photos_and_copies(tmp_path / "whole")
    with Store(tmp_path / "all pairs", write=True) as store:
        all_pairs = sum(ingest_and_count(store, tmp_path / "whole").values())
    for name, limit in (("MAX_NEAREST", 2), ("MAX_LARGEST", 1), ("MAX_ARBITRARY", 1)):
        monkeypatch.setattr(candidates, name, limit)
    with Store(tmp_path / "at once", write=True) as store:
        assert sum(ingest_and_count(store, tmp_path / "whole").values()) < all_pairs
        groups = find_groups(store)
        floor = store.space.floor if store.space else 0.0
        assert store.catalog.verdicts.count_left_out(floor) > 0
    with Store(tmp_path / "nights", write=True) as store:
        nights = tmp_path / "photos"
        nights.mkdir()
        for start in range(0, len(files), 3):
            for file in files[start : start + 3]:
                shutil.copy2(file, nights / file.name)
            ingest_and_count(store, nights)
        nightly_groups = find_groups(store)
    assert list_verdicts_by_group(nightly_groups) == list_verdicts_by_group(groups)


def test_pairs_that_become_candidates_by_a_deletion_are_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file is new then, but a place among the nearest is free."""
    for name, limit in (("MAX_NEAREST", 2), ("MAX_LARGEST", 1), ("MAX_ARBITRARY", 1)):
        monkeypatch.setattr(candidates, name, limit)
    files = save_photos_and_copies(tmp_path / "photos")
    with Store(tmp_path / "store", write=True) as store:
        ingest_and_count(store, tmp_path / "photos")
        for file in [file for file in files if file.name.startswith("1")][1:3]:
            file.unlink()
        assert sum(ingest_and_count(store, tmp_path / "photos").values()) > 0
        assert list_unverified(store) == []


def test_verdict_does_not_depend_on_which_file_of_equal_pixels_is_verified(tmp_path: Path) -> None:
    """The two files have hashes before and after that of the copy."""
    originals = [
        save_image(tmp_path / suffix / f"one.{suffix}", draw_textured_image(1))
        for suffix in ("png", "bmp")
    ]
    low, high = sorted(blake3(path.read_bytes()).digest() for path in originals)
    copies = (
        encode_jpeg(draw_textured_image(1).resize((300, 200)), quality) for quality in range(99)
    )
    copy = next(copy for copy in copies if low < blake3(copy).digest() < high)
    stored = []
    for path in originals:
        path.with_name("copy.jpg").write_bytes(copy)
        with Store(tmp_path / f"store {path.suffix}", write=True) as store:
            ingest_and_count(store, path.parent)
            ((first, second, verdict),) = list(store.catalog.verdicts.stream_with_pixel_hashes())
            stored.append((first, second, verdict.record))
    assert stored[0] == stored[1]


def test_verify_absent_or_changed_file_is_verified_once_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    save_image(photos / "one.png", draw_textured_image(1))
    copy = save_image(photos / "copy.jpg", draw_textured_image(1), quality=80)
    with Store(tmp_path / "store", write=True) as store:
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.ingest.ingest.verify_new_pairs", lambda *args: iter(()))
            keep_thumbnails_away(patch)
            ingest_and_count(store, photos)
        assert [(group.members, len(group.related)) for group in find_groups(store)] == []
        original = copy.read_bytes(), copy.stat()
        copy.unlink()
        (progress,) = verify(store)
        assert (progress.done, dict(progress.relations), dict(progress.unverified)) == (
            1,
            {},
            {"unreadable": 1},
        )
        save_image(copy, draw_textured_image(2), quality=80)  # another content at the same path
        (progress,) = verify(store)
        assert dict(progress.unverified) == {"changed": 1}
        copy.write_bytes(original[0])
        os.utime(copy, ns=(original[1].st_atime_ns, original[1].st_mtime_ns))
        (progress,) = verify(store)
        assert dict(progress.relations) == {Relation.SAME_PICTURE: 1}
        copy.unlink()  # the verdict stands
        assert [len(group.members) for group in find_groups(store)] == [1]


def test_ingest_new_photo_reads_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    save_photo_and_copy(photos)
    read: list[str] = []
    real = DecoderPool.stream

    def record(decoders: DecoderPool, sources: list[object], *options: object) -> object:
        read.extend(Path(source.path).name for source in sources)  # type: ignore[attr-defined]
        return real(decoders, sources, *options)  # type: ignore[arg-type]

    with Store(tmp_path / "store", write=True) as store:
        ingest_and_count(store, photos)
        save_image(photos / "three.jpg", draw_textured_image(1), quality=60)
        monkeypatch.setattr(DecoderPool, "stream", record)
        assert ingest_and_count(store, photos) == {Relation.SAME_PICTURE: 2}
    assert read == ["three.jpg"]


def test_verify_stopped_resumes_with_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    save_photos_and_copies(photos)
    with Store(tmp_path / "store", write=True) as store:
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.ingest.ingest.verify_new_pairs", lambda *args: iter(()))
            ingest_and_count(store, photos)
        monkeypatch.setattr(verify_pairs, "PAIRS_PER_BLOCK", 3)
        steps = verify(store)
        first = next(steps)
        steps.close()  # type: ignore[attr-defined] # a generator
        assert len(load_verdicts(store)) == first.done == 3
        before = load_verdicts(store)
        while pairs := list_unverified(store):  # verdicts make candidates of further pairs
            *_, last = verify(store, pairs)
            assert last.done == last.total == len(pairs)
        after = load_verdicts(store)
        assert before.items() <= after.items() and len(after) >= first.total


def test_ingest_decodes_each_photo_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where pairs are verified and crops embedded; a photo of another scale is read twice."""
    photos = tmp_path / "photos"
    save_photo_and_copy(photos)
    save_image(photos / "wide.jpg", draw_scene(9, (1920, 1080)))
    decode, read = DecoderPool.decode, Counter[str]()

    def count(pool: DecoderPool, source: SourceFile, *args: Any) -> object:
        read[Path(source.path).name] += 1
        return decode(pool, source, *args)

    monkeypatch.setattr(DecoderPool, "decode", count)
    with Store(tmp_path / "store", write=True) as store:
        ingest_and_count(store, photos)
        assert len(load_verdicts(store)) == 1
    assert read.pop("wide.jpg") == 2
    assert len(read) == 2 and set(read.values()) == {1}


def test_compact_removed_image_drops_its_verdicts_and_thumbnail(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    _, gone = save_photo_and_copy(photos)
    with Store(tmp_path / "store", write=True) as store:
        ingest_and_count(store, photos)
        assert len(load_verdicts(store)) == 1
        gone.unlink()
        ingest_and_count(store, photos)
        assert find_groups(store) == []
        store.compact(full=True)
        assert list(store.catalog.verdicts.stream()) == []
        with ThumbnailCache(tmp_path / "store", write=False) as cache:
            assert cache.get(
                [
                    image.hash
                    for _, image in store.catalog.images.get(store.catalog.images.list_in_use())
                ]
            ).keys() == {
                image.hash
                for _, image in store.catalog.images.get(store.catalog.images.list_in_use())
            }


def test_verify_images_with_equal_pixels_share_verdicts(tmp_path: Path) -> None:
    """A verdict is about pixels, whichever file and image they came from."""
    photos = tmp_path / "photos"
    original = save_image(photos / "one.png", draw_textured_image(1))
    same = save_image(photos / "same.bmp", draw_textured_image(1))
    save_image(photos / "cut.jpg", draw_textured_image(1).crop((60, 40, 400, 260)), quality=90)
    with Store(tmp_path / "store", write=True) as store:
        assert ingest_and_count(store, photos) == {Relation.DERIVED: 1}
        answers = list(find_matches([str(original), str(same)], store, load_embedder()))
        assert [[match.relation for match in answer.matches] for answer in answers] == [
            ["identical pixels", Relation.DERIVED]
        ] * 2


@pytest.mark.parametrize("gone", ["one.png", "same.bmp"])
@pytest.mark.parametrize("size", [(440, 300), (640, 480)])
def test_verdict_stands_after_one_file_of_its_pixels_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str, size: tuple[int, int]
) -> None:
    """Also for an image within an image, and if no file can be read any more."""
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
        assert ingest_and_count(store, photos) == {Relation.DERIVED: 1}
        (photos / gone).unlink()
        # A new file, so that the ingest lists all unverified pairs.
        save_image(photos / "new.jpg", draw_scene(40), quality=90)
        keep_thumbnails_away(monkeypatch)
        monkeypatch.setattr("pipeline.query.search.Searched.unverified_images", ())
        *_, last = ingest_roots(
            [Root(str(photos))], store, load_embedder(), IngestOptions(accept_missing=True)
        )
        assert last.coverage.verification and not last.coverage.verification.relations
        new = store.catalog.files.get_by_path(str(photos / "new.jpg"))
        assert new
        assert all(new.image_id in pair for pair in list_unverified(store))
        (group,) = find_groups(store)
        assert [member.relation for member in group.members] == [Relation.DERIVED]
        ((match,),) = (
            answer.matches
            for answer in find_matches([str(photos / "cut.jpg")], store, load_embedder())
        )
        assert match.relation == Relation.DERIVED


def test_find_groups_newest_verdict_version_wins(tmp_path: Path) -> None:
    """Also for pixels that two images have, whichever of them the verdict is about."""
    photos = tmp_path / "photos"
    for name in ("one.png", "one.bmp"):
        save_image(photos / name, draw_textured_image(1))
    for name in ("two.png", "two.bmp"):
        save_image(photos / name, draw_textured_image(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    with Store(tmp_path / "store", write=True) as store:
        ingest_and_count(store, photos)
        (first,) = store.catalog.verdicts.stream()
        ids = {
            Path(known.path).name: known.image_id or 0
            for known in store.catalog.files.find_of_images(store.catalog.images.list_in_use())
        }
        twins = set(ids.values()) - {first.first, first.second}
        second = replace(first, first=min(twins), second=max(twins))
        for verdict, version, relation in (
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
                        verdict, version=abs(version), is_provisional=version < 0, relation=relation
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


def test_find_matches_verdict_is_reversed_for_the_other_side(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    first = save_image(photos / "one.png", draw_textured_image(1))
    second = save_image(
        photos / "cut.png",
        draw_textured_image(1).crop((60, 40, 400, 260)).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    )
    with Store(tmp_path / "store", write=True) as store:
        ingest_and_count(store, photos)
        (stored,) = store.catalog.verdicts.stream()
        assert stored.relation == Relation.DERIVED
        ((forward,), (backward,)) = (
            answer.matches
            for answer in find_matches([str(first), str(second)], store, load_embedder())
        )
    for match, derived, cropped in ((forward, "second", 0), (backward, "first", 1)):
        assert match.verdict
        assert match.verdict.edits
        assert (match.verdict.edits.derived_side, match.verdict.edits.mirrored) == (derived, True)
        assert match.verdict.edits.overlap[cropped] < 0.6
        assert match.verdict.edits.overlap[1 - cropped] == 1.0
    matrices = [
        np.array(match.verdict.homography).reshape(3, 3)
        for match in (forward, backward)
        if match.verdict
    ]
    assert np.allclose(
        matrices[0] @ matrices[1] / (matrices[0] @ matrices[1])[2, 2], np.eye(3), atol=1e-3
    )


def test_thumbnail_cache_keep_only_drops_the_others(tmp_path: Path) -> None:
    with ThumbnailCache(tmp_path, write=True) as cache:
        cache.put({bytes([number]) * 32: Thumbnail(b"picture", b"") for number in range(3)})
        for keep in ({bytes([0]) * 32, bytes([1]) * 32}, {bytes([1]) * 32}):
            cache.keep_only(keep)
            assert cache.get(bytes([number]) * 32 for number in range(3)).keys() == keep


def test_ingest_and_migrate_create_one_decoder_pool_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading, verifying and cropping share one pool of the given workers and readers."""
    photos = tmp_path / "photos"
    pools, real = list[tuple[int | None, int]](), DecoderPool.__init__

    def record(self: DecoderPool, workers: int | None = None, readers: int = 1) -> None:
        pools.append((workers, readers))
        real(self, workers, readers)

    monkeypatch.setattr(DecoderPool, "__init__", record)
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
        assert pools == [(1, 3)]
        list(migrate_store(store, load_embedder(model), options))
        assert pools == [(1, 3)] * 2


def test_verify_uses_the_stored_thumbnail(tmp_path: Path) -> None:
    """Not the file, which may hold something else by now."""
    photos = tmp_path / "photos"
    _, second = save_photo_and_copy(photos)
    with Store(tmp_path / "store", write=True) as store:
        ingest_and_count(store, photos)
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
        with ThumbnailCache(store.folder, write=True) as cache:
            cache.put({image.hash: stranger})
        (pair,) = ((stored.first, stored.second) for stored in store.catalog.verdicts.stream())
        (progress,) = verify(store, [pair])
        assert dict(progress.relations) == {Relation.UNRELATED: 1}


def test_find_groups_unrelated_images_with_close_vectors_are_not_grouped(tmp_path: Path) -> None:
    """Pixels decide, however close the vectors are."""
    photos = tmp_path / "photos"
    for seed in range(4):
        save_image(photos / f"{seed}.png", draw_textured_image(seed))
    with Store(tmp_path / "store", write=True) as store:
        ingest_and_count(store, photos)
        watermark = store.catalog.pairs.get_watermark()
        assert watermark
        close = store.search.find_pairs(watermark.floor)
        stored = list(store.catalog.verdicts.stream())
        assert {decode_verdict(verdict).relation for verdict in stored} <= {Relation.UNRELATED}
        assert len(stored) == len(close.score)
        assert find_groups(store) == []


def test_ingest_odd_images_get_cautious_verdicts(tmp_path: Path) -> None:
    """A truncated file, strips one pixel high, a panorama of 200 megapixels.

    Their verdicts stand when files are deleted or changed later.
    """
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
        ingest_and_count(store, folder)
        names = {
            known.image_id: Path(known.path).name
            for known in store.catalog.files.find_of_images(store.catalog.images.list_in_use())
        }
        relations = {
            frozenset((names[stored.first], names[stored.second])): stored.relation
            for stored in store.catalog.verdicts.stream()
        }
        panoramas = frozenset(("panorama.jpg", "panorama small.jpg"))
        assert relations.pop(frozenset(("whole.jpg", "cut.jpg"))) == Relation.DERIVED
        assert relations.pop(panoramas) == Relation.SAME_PICTURE
        strips = [
            relation for pair, relation in relations.items() if any("strip" in n for n in pair)
        ]
        assert set(strips) == {Relation.NOT_VERIFIABLE}
        assert set(relations.values()) <= {Relation.NOT_VERIFIABLE, Relation.UNRELATED}
        grouped = [
            (Path(group.keeper.path).name, Path(group.members[0].file.path).name)
            for group in find_groups(store)
        ]
        assert sorted(grouped) == [("panorama.jpg", "panorama small.jpg"), ("whole.jpg", "cut.jpg")]
        before, groups = load_verdicts(store), find_groups(store)
        (folder / "panorama.jpg").unlink()
        (folder / "whole.jpg").write_bytes(b"no photo any more")
        assert (load_verdicts(store), find_groups(store)) == (before, groups)
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

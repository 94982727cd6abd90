"""Decisions on the photos of real stores: entered, refused, and kept whatever happens to the store
or to its files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from indexes import Store, check, repair
from indexes.decisions import Decision, DecisionKind, encode_decision
from pipeline import (
    DecisionRefused,
    InvalidDecisionLine,
    UnknownDecision,
    UnknownPhoto,
    find_groups,
    find_matches,
    load_embedder,
    migrate_store,
)
from pipeline.decide.decide import decide, forget
from pipeline.decide.exchange import export_decisions, import_decisions
from pipeline.decided import find_rejected
from pipeline.verify.relation import Relation
from tests.support import onnx_models
from tests.support.decisions import decide as make_decision
from tests.support.images import draw_scene, save_image, save_scenes
from tests.support.ingest import ingest
from tests.support.migration import save_other_model

DIFFERENT, SAME, KEEP, REJECT = DecisionKind
SIZE = (480, 360)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four photos, two of them with a small copy."""
    folder = tmp_path / "photos"
    for number, name in enumerate("abcd"):
        scene = draw_scene(number + 1, SIZE)
        save_image(folder / f"{name}.jpg", scene, quality=92)
        if name in "ab":
            save_image(folder / f"{name} small.jpg", scene.resize((240, 180)))
    return folder


@pytest.fixture
def library(tmp_path: Path, photos: Path) -> Iterator[Store]:
    """A store of the photos, open for writing."""
    with Store(tmp_path / "library", write=True) as store:
        ingest(store, photos)
        yield store


def enter(store: Store, kind: DecisionKind, *files: Path, author: str = "ann") -> list[Decision]:
    return decide(store, kind, [os.fspath(file) for file in files], author).new


def list_groups(store: Store) -> set[tuple[str, ...]]:
    """List the names in each group: that of the keeper, then those of the members, sorted."""
    return {
        (
            Path(group.keeper.path).name,
            *sorted(Path(member.file.path).name for member in group.members),
        )
        for group in find_groups(store)
    }


def list_rejected(store: Store) -> list[tuple[str, str]]:
    return [(Path(item.path).name, item.relation) for item in find_rejected(store)]


def decide_all(store: Store, photos: Path) -> None:
    """Decide that the copy of a is none, that a is the same as b, which is kept; reject c."""
    enter(store, DIFFERENT, photos / "a.jpg", photos / "a small.jpg")
    enter(store, SAME, photos / "a.jpg", photos / "b.jpg")
    enter(store, KEEP, photos / "b.jpg")
    enter(store, REJECT, photos / "c.jpg")


def edit_metadata(photos: Path) -> None:
    """Add a comment to each photo; their pixels stay."""
    for file in photos.glob("*.jpg"):
        data = file.read_bytes()
        file.write_bytes(data[:2] + b"\xff\xfe\x00\x07hello" + data[2:])


def rename(photos: Path) -> None:
    for number, file in enumerate(sorted(photos.glob("*.jpg"))):
        (photos / str(number)).mkdir()
        file.rename(photos / str(number) / file.name)


def add_new_photos(photos: Path) -> None:
    """Add a hundred photos, among them a copy of a and one of b."""
    save_scenes(photos / "new", 98)
    save_image(photos / "new a.jpg", draw_scene(1, SIZE), quality=80)
    save_image(photos / "new b.jpg", draw_scene(2, SIZE), quality=80)


@pytest.mark.parametrize("change", [None, rename, edit_metadata, add_new_photos])
def test_decisions_hold_for_files_that_were_renamed_edited_or_added(
    library: Store, photos: Path, change: Callable[[Path], None] | None
) -> None:
    assert list_groups(library) == {("a.jpg", "a small.jpg"), ("b.jpg", "b small.jpg")}
    decide_all(library, photos)
    (kept,) = (item for item in library.catalog.decisions.list() if item.kind is KEEP)
    forget(library, [kept.id])
    assert list_groups(library) == {("a.jpg", "b small.jpg", "b.jpg")}
    enter(library, KEEP, photos / "b.jpg")
    if change:
        change(photos)
        ingest(library)
    new = ("new a.jpg", "new b.jpg") if change is add_new_photos else ()
    assert list_groups(library) == {("b.jpg", "a.jpg", "b small.jpg", *new)}
    relation = "identical pixels" if change is edit_metadata else "identical bytes"
    assert list_rejected(library) == [("c.jpg", relation)]


def test_decisions_survive_a_migration(library: Store, photos: Path, tmp_path: Path) -> None:
    decide_all(library, photos)
    enter(library, KEEP, photos / "a.jpg")
    model = load_embedder(save_other_model(tmp_path))
    for _ in migrate_store(library, model):
        pass
    # The other model is a small random one: only what is decided is sure to be found.
    ingest(library, embedder=model)  # type: ignore[arg-type] # any embedder
    (keeper,) = {group for group in list_groups(library) if "b.jpg" in group}
    assert keeper[0] == "a.jpg"
    assert list_rejected(library) == [("c.jpg", "identical bytes")]
    assert check(library.folder, read_all=True) == []


def test_rejected_photo_without_a_file_is_found_after_a_migration(
    library: Store, photos: Path, tmp_path: Path
) -> None:
    enter(library, REJECT, photos / "c.jpg")
    (photos / "c.jpg").unlink()
    ingest(library)
    small = onnx_models.save_model(tmp_path / "small", onnx_models.build_model())
    model = load_embedder(f"onnx:{small}")
    for _ in migrate_store(library, model):
        pass
    save_image(photos / "again.jpg", draw_scene(3, (400, 300)), quality=70)
    ingest(library, embedder=model)  # type: ignore[arg-type] # any embedder
    assert list_rejected(library) == [("again.jpg", "same picture")]


def test_ingest_into_a_store_whose_catalog_is_gone_keeps_the_decisions(
    library: Store, photos: Path
) -> None:
    decide_all(library, photos)
    before = library.catalog.decisions.list()
    library.close()
    for path in library.folder.glob("catalog.*"):
        path.unlink()
    with Store(library.folder, write=True) as store:
        ingest(store, photos)
        assert store.catalog.decisions.list() == before


def test_decisions_survive_a_lost_catalog(library: Store, photos: Path) -> None:
    decide_all(library, photos)
    before = library.catalog.decisions.list()
    library.close()
    (library.folder / "catalog.db").unlink()
    repair(library.folder)
    with Store(library.folder, write=True) as repaired:
        assert repaired.catalog.decisions.list() == before
        ingest(repaired)
        assert list_groups(repaired) == {("b.jpg", "a.jpg", "b small.jpg")}


def test_better_copy_is_not_rejected_with_a_worse_one(library: Store, photos: Path) -> None:
    enter(library, REJECT, photos / "a small.jpg")
    assert list_rejected(library) == [("a small.jpg", "identical bytes")]
    enter(library, REJECT, photos / "a.jpg")
    assert [name for name, _ in list_rejected(library)] == ["a small.jpg", "a.jpg"]


def test_rejected_photo_that_returns_re_encoded_is_found(
    library: Store, photos: Path, tmp_path: Path
) -> None:
    """Its last file was deleted, and compaction dropped what nothing needs."""
    enter(library, REJECT, photos / "c.jpg")
    enter(library, REJECT, photos / "d.jpg")
    forget(library, [library.catalog.decisions.list()[1].id])
    for name in "cd":
        (photos / f"{name}.jpg").unlink()
    assert ingest(library).rejected == []
    with library.lock_for_ingest():
        assert library.compact(full=True).vectors_dropped == 1
    for number, name in ((3, "c"), (4, "d")):
        save_image(tmp_path / f"{name} again.jpg", draw_scene(number, (240, 180)), quality=70)
    outside = [os.fspath(tmp_path / f"{name} again.jpg") for name in "cd"]
    first, second = find_matches(outside, library, load_embedder())
    assert first.rejection and first.rejection.relation is Relation.SAME_PICTURE
    assert (first.matches, second.rejection) == ((), None)
    for file in outside:
        Path(file).rename(photos / Path(file).name)
    coverage = ingest(library)
    assert [(Path(item.path).name, item.relation) for item in coverage.rejected] == [
        ("c again.jpg", "same picture")
    ]
    assert coverage.warnings == []  # no later ingest could do more about a photo that is gone
    assert list_rejected(library) == [("c again.jpg", "same picture")]
    again = photos / "c again.jpg"
    (inside,) = find_matches([os.fspath(again)], library, load_embedder())
    assert inside.rejection == first.rejection
    # The rejected photo has no file, so there is nothing to group.
    assert list_groups(library) == {("a.jpg", "a small.jpg"), ("b.jpg", "b small.jpg")}
    # A second ingest verifies nothing again, and finds the same.
    assert [item.path for item in ingest(library).rejected] == [os.fspath(again)]
    # Who decides that they are different wants no report.
    save_image(photos / "c.jpg", draw_scene(3, SIZE), quality=92)
    enter(library, DIFFERENT, photos / "c.jpg", again)
    assert list_rejected(library) == []


def test_copies_of_a_deleted_photo_stay_on_its_side(library: Store, photos: Path) -> None:
    """One is older than the deletion, one newer; both are copies of the small photo, too."""
    scene = draw_scene(1, SIZE)
    save_image(photos / "a old.jpg", scene, quality=85)
    ingest(library)
    enter(library, DIFFERENT, photos / "a.jpg", photos / "a small.jpg")
    (photos / "a.jpg").unlink()
    save_image(photos / "a new.jpg", scene, quality=80)
    ingest(library)
    with library.lock_for_ingest():
        library.compact(full=True)
    assert list_groups(library) == {("a old.jpg", "a new.jpg"), ("b.jpg", "b small.jpg")}
    forget(library, [library.catalog.decisions.list()[0].id])
    assert ("a old.jpg", "a new.jpg", "a small.jpg") in list_groups(library)


def test_other_exposure_of_a_rejected_photo_is_not_rejected(library: Store, photos: Path) -> None:
    """Pixels alone say that both are the same picture; one has other sub-seconds."""
    for quality, subseconds in ((92, "10"), (88, "20"), (84, None)):
        exif = Image.Exif()
        if subseconds:
            exif[0x0110] = "Camera 1"
            exif.get_ifd(0x8769).update({0x9003: "2024:05:01 10:00:00", 0x9291: subseconds})
        save_image(photos / f"{quality}.jpg", draw_scene(6, SIZE), quality=quality, exif=exif)
    ingest(library)
    enter(library, REJECT, photos / "92.jpg")
    assert list_rejected(library) == [("84.jpg", "same picture"), ("92.jpg", "identical bytes")]


def test_decision_is_entered_during_an_ingest(library: Store, photos: Path) -> None:
    with library.lock_for_ingest(), Store(library.folder, write=True) as other:
        (decision,) = enter(other, KEEP, photos / "a.jpg")
    assert library.catalog.decisions.list() == [decision]


def test_unknown_photo_can_only_be_rejected(library: Store, tmp_path: Path) -> None:
    unknown = save_image(tmp_path / "new\x1b.jpg", draw_scene(9, SIZE))
    for kind, files in ((KEEP, [unknown]), (SAME, [unknown, tmp_path / "photos" / "a.jpg"])):
        with pytest.raises(UnknownPhoto, match=r"new\\x1b.jpg' is not in the store"):
            enter(library, kind, *files)
    (decision,) = enter(library, REJECT, unknown)
    unknown.rename(tmp_path / "photos" / "back.jpg")
    assert [item.decision for item in ingest(library).rejected] == [decision.id]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "unreadable"),
        (b"", "empty"),
        (b"\xff\xd8\xff\xe0 cut", "no picture|damaged|truncated"),
    ],
)
def test_file_that_is_no_photo_is_refused(
    library: Store, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "odd.jpg"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UnknownPhoto, match=f"odd.jpg' is no photo to decide on: .*({reason})"):
        enter(library, REJECT, file)
    assert library.catalog.decisions.list() == []


def test_file_of_the_library_is_known_by_its_path_while_it_is_away(
    library: Store, photos: Path
) -> None:
    before = {image.hash for _, image in library.catalog.images.get(range(1, 9))}
    away = photos / "a.jpg"
    away.rename(photos.parent / "elsewhere.jpg")
    (decision,) = enter(library, KEEP, away)
    assert decision.contents[0].hash in before
    # Another photo that took its place is not the one that was ingested.
    save_image(away, draw_scene(2, SIZE), quality=92)
    (other,) = enter(library, KEEP, away)
    (b_decision, *_) = decide(library, KEEP, [os.fspath(photos / "b.jpg")], "ann").new
    assert other.contents[0].hash == b_decision.contents[0].hash


def test_contradictions_are_refused_with_the_other_decision(library: Store, photos: Path) -> None:
    a, b, c, d = (photos / f"{name}.jpg" for name in "abcd")
    (different,) = enter(library, DIFFERENT, a, b)
    enter(library, SAME, b, c)
    (last,) = enter(library, SAME, c, d, author="bob")
    for kind, files, other in (
        (SAME, (a, b), different),
        (SAME, (d, a), different),
        (DIFFERENT, (a, b, d), last),
        (DIFFERENT, (b, d), last),
    ):
        with pytest.raises(DecisionRefused, match=f"contradicts.*{other.id}.*by {other.author} on"):
            enter(library, kind, *files)
    (kept,) = enter(library, KEEP, a)
    with pytest.raises(DecisionRefused, match=f"reject a.jpg contradicts keep a.jpg .*{kept.id}"):
        enter(library, REJECT, a)
    copy = photos / "copy.jpg"
    copy.write_bytes(a.read_bytes())
    for kind in (SAME, DIFFERENT):
        with pytest.raises(DecisionRefused, match="have the same bytes"):
            enter(library, kind, a, copy)
    assert len(library.catalog.decisions.list()) == 4
    forget(library, [different.id[:6].upper()])
    enter(library, SAME, a, b)


def test_deciding_again_changes_nothing_but_which_photo_is_kept(
    library: Store, photos: Path
) -> None:
    a, small = photos / "a.jpg", photos / "a small.jpg"
    (decision,) = enter(library, DIFFERENT, a, photos / "b.jpg")
    again = decide(library, DIFFERENT, [os.fspath(photos / "b.jpg"), os.fspath(a)], "bob")
    assert (again.new, again.known) == ([], [decision])
    for kept in (a, small, a):
        enter(library, KEEP, kept)
        assert next(iter(list_groups(library) - {("b.jpg", "b small.jpg")}))[0] == kept.name
    assert len(library.catalog.decisions.list()) == 3


def test_forget_takes_all_ids_or_none(library: Store, photos: Path) -> None:
    (first,) = enter(library, KEEP, photos / "a.jpg")
    (second,) = enter(library, KEEP, photos / "b.jpg")
    for ids in ([first.id, "0123"], [first.id[:3]], [""], ["x\x1b234"]):
        with pytest.raises(UnknownDecision, match="no decision starts with"):
            forget(library, ids)
    assert forget(library, [second.id, first.id]) == [second, first]
    assert library.catalog.decisions.list() == []


def test_export_imports_into_another_store_once(
    library: Store, photos: Path, tmp_path: Path
) -> None:
    decide_all(library, photos)
    lines = [line.encode() + b"\r\n" for line in export_decisions(library)]
    before = library.catalog.decisions.list()
    assert import_decisions(library, lines).new == []
    with Store(tmp_path / "other", write=True) as other:
        assert len(import_decisions(other, [*lines, b"\n"]).new) == 4
        merged = import_decisions(other, lines[::-1])
        assert (merged.new, len(merged.known)) == ([], 4)
        assert other.catalog.decisions.list() == before
        ingest(other, photos)
        assert list_groups(other) == list_groups(library)


def test_import_with_a_bad_line_or_a_contradiction_changes_nothing(store: Store) -> None:
    sound, other = make_decision(DIFFERENT, 1, 2), make_decision(KEEP, 4)
    good = encode_decision(other).encode()
    for bad, message in (
        (b"\xff", "line 2 is no decision: no UTF-8"),
        (b"7", "line 2 is no decision: no JSON object"),
        (json.dumps({"version": 2}).encode(), "perhaps a newer neardup"),
        (b" " * (1 << 22) + b"{", "longer than"),
    ):
        with pytest.raises(InvalidDecisionLine, match=message):
            import_decisions(store, [good, bad])
    import_decisions(store, [encode_decision(sound).encode()])
    chain = [make_decision(SAME, 1, 3, minute=1), make_decision(SAME, 3, 2, minute=2)]
    with pytest.raises(DecisionRefused, match=sound.id):
        import_decisions(store, [good, *(encode_decision(item).encode() for item in chain)])
    # Contents that would make one image of two different ones.
    first, second = sound.contents
    forged = replace(other, contents=(replace(first, pixel_hash=second.pixel_hash),))
    with pytest.raises(DecisionRefused, match=f"keep 1.jpg contradicts different .*{sound.id}"):
        import_decisions(store, [encode_decision(forged).encode()])
    assert store.catalog.decisions.list() == [sound]
    later = make_decision(KEEP, 4, minute=1, author="bob")
    for decision, kept in ((other, other), (later, later), (other, later)):
        import_decisions(store, [encode_decision(decision).encode()])
        assert set(store.catalog.decisions.list()) == {sound, kept}

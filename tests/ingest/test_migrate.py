"""A store is brought to another model: all of it at once, whatever comes between, and then it is as if it had always had that model."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from indexes import SpaceMismatch, Store, check
from indexes.records import SavedThresholds
from indexes.upkeep.migration import PendingMigration
from pipeline import (
    Coverage,
    IncompleteMigration,
    IngestOptions,
    PaidCallLimit,
    ServiceUnavailable,
    find_groups,
    find_matches,
    ingest_roots,
    load_embedder,
    migrate_store,
    resolve_roots,
)
from pipeline import thumbnails as pictures
from pipeline.embed.embedder import Embedder
from pipeline.ingest.ingest import Progress
from pipeline.thumbnails import ImageUnavailable
from tests.support import onnx_models
from tests.support.embedders import CountingEmbedder, PaidEmbedder
from tests.support.images import draw_scene, make_six_files, save_image
from tests.support.ingest import ingest
from tests.support.stores import downgrade_store

Run = Callable[..., tuple[int, str, str]]
Contents = tuple[str | None, list[Any], list[tuple[frozenset[bytes], float]]]


@pytest.fixture
def small(tmp_path: Path) -> str:
    return f"onnx:{onnx_models.save_model(tmp_path / 'models', onnx_models.build_model())}"


@pytest.fixture
def library(tmp_path: Path, photos: Path) -> Path:
    """As filled() makes it."""
    return filled(tmp_path / "library", photos)


def filled(folder: Path, photos: Path) -> Path:
    """A store of photos of many kinds, with vectors of neardup-1, of which one photo is gone."""
    for number in range(12):
        save_image(photos / "more" / f"{number}.jpg", draw_scene(number + 10))
    save_image(photos / "blank.png", draw_scene(1).resize((1, 1)).resize((50, 50)))
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:2000])
    with Store(folder, write=True) as store:
        ingest(store, photos)
        (photos / "more" / "3.jpg").unlink()
        ingest(store)
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Contents, Contents]:
    """A store as `library`, of photos that no test changes; what it holds, and what it is to hold with the small model."""
    folder = tmp_path_factory.mktemp("shared")
    photos, model = (
        make_six_files(folder / "photos"),
        onnx_models.save_model(folder / "models", onnx_models.build_model()),
    )
    library = filled(folder / "library", photos)
    return library, held(library), fresh(folder / "fresh", photos, f"onnx:{model}")


@pytest.fixture
def copied(shared: tuple[Path, Contents, Contents], tmp_path: Path) -> Path:
    """A copy of the shared store, of a test's own."""
    return Path(shutil.copytree(shared[0], tmp_path / "library"))


def fresh(folder: Path, roots: Path, model: str) -> Contents:
    with Store(folder, write=True) as store:
        for _ in ingest_roots(
            resolve_roots(store, [str(roots)]).found, store, load_embedder(model)
        ):
            pass
        return contents(store)


def contents(store: Store) -> Contents:
    """The model, the groups, and the pairs with their scores, by content."""
    with store.catalog.snapshot():
        hashes = {
            id_: image.hash
            for id_, image in store.catalog.images.get(store.catalog.images.list_in_use())
        }
        space, pairs = (
            store.space,
            store.find_pairs(-1.0 if store.space is None else store.space.floor),
        )
        images: dict[int, list[int]] = {}
        for image, vector in store.catalog.images.find_of_vectors(
            [*pairs.left.tolist(), *pairs.right.tolist()]
        ):
            images.setdefault(vector, []).append(image)
        named = [
            (
                frozenset(hashes[image] for end in (left, right) for image in images[end]),
                round(score, 9),
            )
            for left, right, score in zip(
                pairs.left.tolist(), pairs.right.tolist(), pairs.score.tolist(), strict=True
            )
        ]
        groups = [
            replace(group, related=()) for group in find_groups(store)
        ]  # what is verified after the switch may not be yet
    return str(space), groups, sorted(named, key=lambda pair: (sorted(pair[0]), pair[1]))


def held(folder: Path) -> Contents:
    with Store(folder) as store:
        return contents(store)


def kept(folder: Path) -> list[Any]:
    """What a migration leaves as it is."""
    with Store(folder) as store:
        tables = [
            store.catalog.fetch_rows(f"SELECT * FROM {table}")
            for table in ("files", "failures", "roots")
        ]
        return [
            *tables,
            store.catalog.fetch_rows("SELECT * FROM runs WHERE outcome != 'migrated'"),
            store.catalog.fetch_rows(
                "SELECT id, hash, width, height, format, size FROM images WHERE id IN (SELECT image FROM files)"
            ),
        ]


def migrated(store: Store, embedder: Embedder, **given: Any) -> int:
    """How many pictures it took."""
    embedded = 0
    for progress in migrate_store(store, embedder, **given):
        embedded = progress.coverage.embedded
    return embedded


def assert_clean(folder: Path) -> None:
    assert check(folder, read_all=True) == []
    assert not (folder / "next").exists()
    assert not list((folder / "tmp").iterdir())
    with Store(folder) as store:
        assert {row.blake3 for row in store.catalog.vectors.list_segments()} == {
            file.stem for file in (folder / "segments").iterdir()
        }


def test_it_is_as_if_the_store_had_always_had_the_model(
    library: Path, photos: Path, tmp_path: Path, small: str
) -> None:
    before = kept(library)
    expected = fresh(tmp_path / "fresh", photos, small)
    assert expected[1] != held(library)[1]
    with Store(library, write=True) as store:
        assert migrated(store, load_embedder(small)) == 16
        assert contents(store) == expected
        assert store.model == small
    assert_clean(library)
    assert kept(library) == before
    assert json.loads((library / "store.json").read_bytes().splitlines()[0])["model"] == small
    save_image(photos / "new.jpg", draw_scene(99))
    with Store(library, write=True) as store:
        coverage = ingest(store, embedder=CountingEmbedder(small))
        assert (coverage.new, coverage.embedded) == (1, 1)
        assert contents(store) == fresh(tmp_path / "fresh", photos, small)
        assert migrated(store, load_embedder()) == 17  # and back
        assert contents(store) == fresh(tmp_path / "back", photos, "neardup-1")
    assert_clean(library)


def test_an_ingest_after_it_embeds_nothing_and_queries_are_answered(
    run: Run, photos: Path, small: str, tmp_path: Path
) -> None:
    run("ingest", photos)
    code, out, err = run("migrate", "--model", small, "--json")
    assert (code, json.loads(out)) == (
        0,
        {
            "schema_version": 3,
            "model": small,
            "migrated": True,
            "images": 5,
            "embedded": 5,
            "waiting": 0,
            "dropped": None,
        },
    )
    assert "0 photos embedded" in run("ingest")[2]
    assert small in run("status")[1]
    assert run("query", photos / "a small.jpg")[1].startswith(
        f"{photos / 'a small.jpg'}: in the library, "
    )
    outside = save_image(tmp_path / "outside.jpg", draw_scene(1, (500, 375)))
    assert "a.png" in run("query", outside)[1]
    code, _, err = run("migrate", "--model", small)
    assert code == 0
    assert "already" in err
    code, _, err = run(
        "migrate",
        "--model",
        "neardup-1",
        "--threads",
        "1",
        "--batch",
        "2",
        "--decoders",
        "1",
        "--readers",
        "2",
    )
    assert code == 0
    assert "5 of 5 photos now embedded with neardup-1, 5 in this run\n" in err
    assert "calibrate" not in err


def test_what_was_chosen_for_the_other_model_is_forgotten_and_told(
    run: Run, copied: Path, small: str
) -> None:
    with Store(copied, write=True) as store:
        store.save_thresholds(SavedThresholds(0.6, 0.9))
    code, _, err = run("migrate", "--model", small)
    assert code == 0
    assert (
        f"were for the other model and are forgotten; `neardup calibrate --save --store {copied}` finds new ones\n"
        in err
    )
    assert json.loads(run("status", "--json")[1])["saved_thresholds"] is None


def test_who_stops_it_is_told_which_model_answers_now(
    run: Run, photos: Path, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(coverage: Coverage) -> Iterator[Progress]:
        signal.raise_signal(signal.SIGINT)
        yield Progress(0, 1, coverage)

    run("ingest", photos)
    with monkeypatch.context() as here:
        here.setattr(
            "pipeline.ingest.migrate.find_pairs", lambda store, options, coverage: stopped(coverage)
        )
        code, _, err = run("migrate", "--model", small)
        assert code == 130
        assert "continues from there, and the store answers as before\n" in err
    assert "neardup-1" in run("status")[1]
    monkeypatch.setattr(
        "pipeline.ingest.migrate.verify_new_pairs",
        lambda store, embedder, decoders, options, coverage: stopped(coverage),
    )
    code, _, err = run("migrate", "--model", small)
    assert code == 130
    assert f"continues from there, and the store now uses {small}\n" in err


def test_pairs_that_could_not_be_looked_at_are_told(
    run: Run, photos: Path, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pictures,
        "read_images",
        lambda store, decoders, about, view: ((id_, ImageUnavailable("away")) for id_ in about),
    )
    assert "not verified, because of a photo" in run("ingest", photos)[2]
    code, _, err = run("migrate", "--model", small)
    assert code == 0
    assert re.search(
        r"^neardup: \d+ close pairs? (was|were) not verified, because of a photo \(\d+ away\); the next ingest tries again$",
        err,
        re.MULTILINE,
    )


def test_a_store_of_an_older_format_and_preprocessing_needs_no_ingest_before(
    photos: Path, tmp_path: Path, run: Run
) -> None:
    library = tmp_path / "library"
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:2000])
    run("ingest", photos)
    before, expected = kept(library), held(library)
    with Store(library, write=True) as store, store.catalog.transaction():
        store.catalog.write("UPDATE space SET preprocess = 'decode-1'")
    downgrade_store(library)
    code, _, err = run("migrate", "--model", "neardup-1")
    assert code == 0, err
    assert ", 5 in this run" in err
    assert held(library) == expected
    assert kept(library) == before
    assert_clean(library)


def test_a_store_that_holds_nothing(run: Run, tmp_path: Path) -> None:
    assert run("migrate", "--model", "neardup-1")[0] == 10
    assert not (tmp_path / "library").exists()
    (tmp_path / "empty").mkdir()
    with Store(tmp_path / "library", write=True):
        pass
    code, _, err = run("migrate", "--model", "neardup-1")
    assert code == 2
    assert "ingest FOLDER --model neardup-1" in err
    run("ingest", tmp_path / "empty")
    assert run("migrate", "--model", "google:x")[0] == 2


def test_a_store_without_any_photo_left(library: Path, photos: Path, small: str) -> None:
    shutil.rmtree(photos)
    photos.mkdir()
    with Store(library, write=True) as store:
        ingest(store, options=IngestOptions(accept_missing=True))
        assert migrated(store, load_embedder(small)) == 0
        assert store.model == small
        assert store.catalog.vectors.list_segments() == []
    assert_clean(library)


@pytest.mark.parametrize("stop", [1, 5, 14])
def test_stopped_anywhere_it_goes_on_and_an_ingest_may_come_between(
    library: Path, photos: Path, tmp_path: Path, small: str, stop: int
) -> None:
    before = held(library)
    with Store(library, write=True) as store:
        with closing(
            migrate_store(store, load_embedder(small), IngestOptions(batch_size=2, commit_images=1))
        ) as run:
            next(progress for progress in run if progress.done == stop)
        assert contents(store) == before
        assert check(library, read_all=True) == []
        save_image(photos / "between.jpg", draw_scene(77))
        (photos / "more" / "4.jpg").unlink()
        assert ingest(store).embedded == 1
        assert (library / "next").is_dir()
        counting = CountingEmbedder(small)
        assert (
            migrated(store, counting, options=IngestOptions(with_crops=False))
            == counting.embedded
            <= 16 - stop // 2 * 2 + 2
        )
        assert contents(store) == fresh(tmp_path / "fresh", photos, small)
    assert_clean(library)


def test_a_photo_that_was_moved_meanwhile_keeps_its_new_vector(tmp_path: Path, small: str) -> None:
    """The second store knows it by its old path, at which another photo was found since."""
    root, options = (
        tmp_path / "root",
        IngestOptions(batch_size=1, commit_images=1),
    )  # a segment for each, enough to be merged
    for number in range(10):
        save_image(root / f"{number:02}.png", draw_scene(number, (64, 48)))
    with Store(tmp_path / "library", write=True) as store:
        ingest(store, root)
        with closing(migrate_store(store, load_embedder(small), options)) as begun:
            next(progress for progress in begun if progress.done == 4)
        (root / "00.png").rename(root / "zz.png")
        save_image(root / "00.png", draw_scene(99, (64, 48)))
        ingest(store)
        migrated(store, load_embedder(small), options=options)
        assert len(store.catalog.vectors.list_segments()) < 8
        assert store.catalog.images.find_unembedded() == set()
        assert contents(store) == fresh(tmp_path / "fresh", root, small)
    assert_clean(tmp_path / "library")


def test_one_that_was_begun_for_another_model(
    copied: Path, small: str, run: Run, tmp_path: Path
) -> None:
    other = f"onnx:{onnx_models.save_model(tmp_path / 'other', onnx_models.build_model('NCHW'), layout='NCHW')}"
    with (
        Store(copied, write=True) as store,
        closing(
            migrate_store(store, load_embedder(small), IngestOptions(batch_size=1, commit_images=1))
        ) as begun,
    ):
        next(progress for progress in begun if progress.done == 5)
    with Store(copied, write=True) as store, pytest.raises(SpaceMismatch, match="--restart"):
        migrated(store, load_embedder(other))
    code, _, err = run("migrate", "--model", other)
    assert code == 2
    assert f"go on with `neardup migrate --model {small} --store {copied}`" in err
    assert f"begin anew with `neardup migrate --model {other} --restart --store {copied}`" in err
    waits = f"neardup-1; a migration to {small} is pending, 5 of 17 photos embedded; "
    code, _, err = run("migrate", "--model", "neardup-1")
    assert code == 0
    assert waits in err
    assert f"`neardup migrate --model neardup-1 --restart --store {copied}` drops it" in err
    code, _, err = run("migrate", "--model", "neardup-1", "--restart")
    assert code == 0
    assert f"the migration to {small} (5 photos) was dropped\n" in err
    assert "nothing to do" not in err
    assert not (copied / "next").exists()
    assert "nothing to do" in run("migrate", "--model", "neardup-1", "--restart")[2]
    with (
        Store(copied, write=True) as store,
        closing(migrate_store(store, load_embedder(small))) as begun,
    ):
        next(progress for progress in begun if progress.done == 5)
    assert run("migrate", "--model", other, "--restart")[0] == 0
    assert_clean(copied)


def test_one_that_was_begun_for_another_model_and_embedded_nothing(
    copied: Path, small: str, run: Run, tmp_path: Path
) -> None:
    other = f"onnx:{onnx_models.save_model(tmp_path / 'other', onnx_models.build_model('NCHW'), layout='NCHW')}"
    with Store(copied, write=True) as store, pytest.raises(ServiceUnavailable):
        migrated(store, PaidEmbedder(0, other), options=IngestOptions(batch_size=1))
    assert json.loads(run("status", "--json")[1])["migration"]["model"] == other
    assert run("migrate", "--model", small)[0] == 0
    assert_clean(copied)


def test_status_tells_of_a_migration_that_has_not_ended(
    library: Path, photos: Path, small: str, run: Run
) -> None:
    assert json.loads(run("status", "--json")[1])["migration"] is None
    assert "migration" not in run("status")[1]
    with (
        Store(library, write=True) as store,
        closing(
            migrate_store(store, load_embedder(small), IngestOptions(batch_size=1, commit_images=1))
        ) as begun,
    ):
        next(progress for progress in begun if progress.done == 9)
    found = json.loads(run("status", "--json")[1])
    done = found["migration"]["done"]
    go_on, drop = (
        f"neardup migrate --model {words} --store {library}"
        for words in (small, "neardup-1 --restart")
    )
    assert found["model"] == "neardup-1"
    assert found["migration"] == {
        "model": small,
        "done": done,
        "images": 17,
        "resume": go_on,
        "abort": drop,
    }
    assert 8 <= done <= 9
    line = f"migration   to {small} is running or did not finish, {done} of 17 photos embedded; `{go_on}` resumes it, `{drop}` drops it"
    assert line in run("status")[1].splitlines()
    (photos / "a small.jpg").unlink()
    (photos / "b.jpg").unlink()  # both are done by now
    with Store(library, write=True) as store:
        ingest(store)
        assert store.get_pending_migration() == PendingMigration(small, done - 2, 15)
    assert run(*drop.split()[1:])[0] == 0
    assert json.loads(run("status", "--json")[1])["migration"] is None
    assert run(*go_on.split()[1:])[0] == 0
    assert json.loads(run("status", "--json")[1])["migration"] is None


def test_the_commands_that_status_prints_can_be_pasted(
    copied: Path, tmp_path: Path, run: Run
) -> None:
    model = f"onnx:{onnx_models.save_model(tmp_path / 'my models', onnx_models.build_model())}"
    with (
        Store(copied, write=True) as store,
        closing(migrate_store(store, load_embedder(model))) as begun,
    ):
        next(begun)
    go_on = json.loads(run("status", "--json")[1])["migration"]["resume"]
    assert shlex.split(go_on)[1:] == ["migrate", "--model", model, "--store", str(copied)]


def test_photos_that_are_away_are_waited_for_or_left_out(
    library: Path, photos: Path, tmp_path: Path, small: str, run: Run
) -> None:
    before = held(library)
    shutil.move(photos / "more", tmp_path / "away")
    save_image(photos / "c.webp", draw_scene(60))  # not what the store knows
    shutil.move(photos / "blank.png", tmp_path / "blank.png")
    with (
        Store(library, write=True) as store,
        pytest.raises(IncompleteMigration, match="13 of 17 pictures"),
    ):
        migrated(store, load_embedder(small))
    assert held(library) == before
    code, _, err = run("migrate", "--model", small)
    assert code == 8
    assert "--leave-out" in err
    code, _, err = run("migrate", "--model", small, "--leave-out")
    assert code == 3
    assert f"4 of 17 photos now embedded with {small}, " in err
    assert "in this run; 13 are not compared until an ingest finds their files\n" in err
    assert "13 photos have no vector and are not compared" in run("groups")[2]
    assert json.loads(run("migrate", "--model", small, "--json")[1])["waiting"] == 13
    assert [finding.problem.split()[0] for finding in check(library, read_all=True)] == ["13"]
    with Store(library) as store:
        assert store.catalog.files.get_counts().images == 17
    shutil.move(tmp_path / "away", photos / "more")
    shutil.move(tmp_path / "blank.png", photos / "blank.png")
    with Store(library, write=True) as store:
        assert ingest(store, embedder=CountingEmbedder(small)).embedded == 12
        assert store.catalog.images.find_unembedded() == set()
        assert contents(store) == fresh(tmp_path / "fresh", photos, small)
    assert_clean(library)


def test_another_copy_stands_for_one_that_was_changed(
    library: Path, photos: Path, small: str
) -> None:
    save_image(photos / "a.png", draw_scene(62))
    with Store(library, write=True) as store:
        assert migrated(store, load_embedder(small)) == 16


def test_times_that_changed_cost_nothing(library: Path, photos: Path, small: str) -> None:
    for photo in photos.iterdir():
        photo.chmod(0o600)
        os.utime(photo, ns=(1, 1))
    with Store(library, write=True) as store:
        assert migrated(store, load_embedder(small)) == 16


def test_a_file_that_was_changed_does_not_count(library: Path, photos: Path, small: str) -> None:
    save_image(photos / "b.jpg", draw_scene(61))
    save_image(photos / "a.png", draw_scene(62))
    with Store(library, write=True) as store:
        with pytest.raises(IncompleteMigration, match="1 of 17 pictures"):
            migrated(store, load_embedder(small))
        migrated(store, load_embedder(small), leave_out=True)
        assert len(store.catalog.images.find_unembedded()) == 1


def test_a_model_that_is_paid_for_is_asked_once_for_each_picture(copied: Path, small: str) -> None:
    with Store(copied, write=True) as store:
        paid = PaidEmbedder(7, small)
        with pytest.raises(ServiceUnavailable):
            migrated(store, paid, options=IngestOptions(batch_size=4))
        paid.patience = 100
        with pytest.raises(PaidCallLimit):
            migrated(store, paid, options=IngestOptions(batch_size=4, max_paid_calls=3))
        assert paid.answered.total() == 10
        migrated(store, paid, options=IngestOptions(batch_size=4))
        assert set(paid.answered.values()) == {1}
        assert paid.answered.total() == 16


@pytest.mark.parametrize("patience", [13, 15])
def test_no_answer_is_lost_when_the_last_batch_fails(
    copied: Path, small: str, patience: int
) -> None:
    with Store(copied, write=True) as store:
        paid = PaidEmbedder(patience, small)
        with pytest.raises(ServiceUnavailable):
            migrated(store, paid, options=IngestOptions(batch_size=5))
        assert paid.answered.total() == patience
        paid.patience = 100
        assert migrated(store, paid, options=IngestOptions(batch_size=5)) == 16 - patience
        assert set(paid.answered.values()) == {1}


def run_alone(library: Path, model: str, **environment: str) -> subprocess.Popen[bytes]:
    words = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "migrate",
        "--model",
        model,
        "--store",
        os.fspath(library),
        "--batch",
        "2",
        "--decoders",
        "1",
    ]
    return subprocess.Popen(
        words, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def assert_old_or_new(library: Path, old: Contents, new: Contents, model: str) -> None:
    assert check(library, read_all=True) == []
    assert held(library) in (old, new)
    with Store(library, write=True) as store:
        migrated(store, load_embedder(model))
        assert contents(store) == new
        store.prepare()
    assert_clean(library)


@pytest.mark.parametrize(
    ("failpoint", "done"),
    [
        ("join pairs found:1", False),
        ("migration linked", False),
        ("migration committed", True),
        ("migration swept", True),
        *(
            (f"commit {moment}:{number}", None)
            for moment in ("begun", "written", "done", "sealed")
            for number in (1, 2, 3, 4)
        ),
    ],
)
def test_killed_at_a_failpoint(
    shared: tuple[Path, Contents, Contents],
    copied: Path,
    small: str,
    failpoint: str,
    done: bool | None,
) -> None:
    _, old, new = shared
    assert run_alone(copied, small, NEARDUP_FAILPOINT=failpoint).wait() == -signal.SIGKILL
    if done is not None:
        assert held(copied) == (new if done else old)
    assert_old_or_new(copied, old, new, small)


def test_an_ingest_sweeps_what_a_killed_switch_left(copied: Path, small: str) -> None:
    assert (
        run_alone(copied, small, NEARDUP_FAILPOINT="migration committed").wait() == -signal.SIGKILL
    )
    assert (copied / "next").is_dir()
    with Store(copied) as store:
        assert store.get_pending_migration() is None  # it has ended
    with Store(copied, write=True) as store:
        assert ingest(store, embedder=CountingEmbedder(small)).embedded == 0
    assert_clean(copied)
    assert json.loads((copied / "store.json").read_bytes().splitlines()[0])["model"] == small


def test_killed_at_random_moments(
    shared: tuple[Path, Contents, Contents], tmp_path: Path, small: str
) -> None:
    library, old, new = shared
    shutil.copytree(library, tmp_path / "undisturbed")
    began = time.monotonic()
    assert run_alone(tmp_path / "undisturbed", small).wait() == 0
    length, rng, killed = time.monotonic() - began, random.Random(0), 0
    for number in range(12):
        folder = tmp_path / str(number)
        shutil.copytree(library, folder)
        process = run_alone(folder, small)
        time.sleep(rng.uniform(0.3, 1.0) * length)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        assert_old_or_new(folder, old, new, small)
        shutil.rmtree(folder)
    assert killed > 3


def test_without_hard_links_segments_are_copied(
    copied: Path, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    with Store(copied, write=True) as store:
        assert migrated(store, load_embedder(small)) == 16
    assert_clean(copied)


@pytest.fixture
def ends_while_others_wait(
    library: Path, small: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A migration to `small` that has begun, and that ends when somebody has found the store locked and would sleep a little."""
    with (
        Store(library, write=True) as store,
        closing(migrate_store(store, load_embedder(small))) as migration,
    ):
        next(migration)
        clock = {name: getattr(time, name) for name in ("monotonic", "monotonic_ns")}
        monkeypatch.setattr(
            "indexes.durable.locks.time",
            SimpleNamespace(sleep=lambda seconds: list(migration), **clock),
        )
        yield


def test_an_ingest_that_waited_goes_on_with_the_new_model(
    library: Path, photos: Path, small: str, run: Run, tmp_path: Path, ends_while_others_wait: None
) -> None:
    save_image(photos / "new.jpg", draw_scene(99))
    code, _, err = run("ingest", "--lock-timeout", "60", "--verbose")
    assert code == 3, err  # for the broken photo
    assert f"{small}: " in err
    assert "1 new" in err
    assert "; 1 photo embedded" in err
    assert held(library) == fresh(tmp_path / "fresh", photos, small)


def test_an_ingest_that_waited_does_not_go_on_with_another_model_than_was_named(
    library: Path, photos: Path, small: str, run: Run, ends_while_others_wait: None
) -> None:
    save_image(photos / "new.jpg", draw_scene(99))
    code, _, err = run("ingest", "--lock-timeout", "60", "--model", "neardup-1")
    assert code == 2
    assert (
        f"was migrated to {small} while this command waited, but --model says neardup-1; leave --model out"
        in err
    )
    code, _, err = run("ingest", "--model", "neardup-1")
    assert code == 2
    assert "while this command waited" not in err


def test_a_query_never_compares_vectors_of_two_models(
    library: Path, photos: Path, tmp_path: Path, small: str
) -> None:
    class Slow(CountingEmbedder):
        def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
            with Store(library, write=True) as writer:
                migrated(writer, load_embedder(small))
            return super().encode(inputs)

    outside = save_image(tmp_path / "outside.jpg", draw_scene(1, (500, 375)))
    with Store(library) as store, pytest.raises(SpaceMismatch):
        list(find_matches([str(outside), str(photos / "a.png")], store, Slow()))


def test_who_reads_meanwhile_is_answered_by_one_model(
    shared: tuple[Path, Contents, Contents], copied: Path, small: str
) -> None:
    _, old, new = shared
    process = run_alone(copied, small)
    seen = []
    with Store(copied) as store:
        while process.poll() is None:
            seen.append(contents(store))
            assert seen[-1] in (old, new)
        assert contents(store) == new
    assert old in seen
    assert process.returncode == 0


def test_status_tells_of_the_pairs_that_there_are_now(
    library: Path, photos: Path, small: str, run: Run
) -> None:
    before = json.loads(run("status", "--json")[1])
    assert run("migrate", "--model", small)[0] == 0
    now = json.loads(run("status", "--json")[1])
    with Store(library) as store:
        assert store.space is not None
        floor, pairs = store.space.floor, len(store.find_pairs(store.space.floor).left)
    assert (now["join"]["floor"], now["join"]["pairs"], now["pairs"]) == (floor, pairs, pairs)
    assert now["join"] != before["join"]
    assert now["last_run"] == before["last_run"]
    save_image(photos / "new.jpg", draw_scene(1, (300, 225)))
    run("ingest")
    later = json.loads(run("status", "--json")[1])
    assert 0 < later["join"]["pairs"] == later["pairs"] - pairs
    assert f"pairs       {later['pairs']} known" in run("status")[1]
    assert run("migrate", "--model", "neardup-1")[0] == 0
    assert json.loads(run("status", "--json")[1])["join"]["floor"] == before["floor"]


def test_of_an_ended_migration_without_pictures_no_join_is_told(
    library: Path, photos: Path, small: str, run: Run
) -> None:
    shutil.rmtree(photos)
    photos.mkdir()
    run("ingest", "--accept-missing")
    assert run("migrate", "--model", small)[0] == 0
    assert json.loads(run("status", "--json")[1])["join"] is None


def test_where_nothing_can_be_embedded_leaving_out_is_no_way(
    library: Path, photos: Path, tmp_path: Path, small: str, run: Run
) -> None:
    before = held(library)
    shutil.move(photos, tmp_path / "away")
    code, _, err = run("migrate", "--model", small, "--leave-out")
    assert code == 8
    assert "17 of 17 pictures could not be embedded" in err
    assert "--leave-out" not in err
    assert held(library) == before


def test_a_file_that_is_not_the_store_s_model_any_more_is_named(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    file = onnx_models.save_model(tmp_path / "models", onnx_models.build_model())
    run("ingest", photos, "--model", f"onnx:{file}")
    sound, outside = file.read_bytes(), save_image(photos / "new.jpg", draw_scene(98))
    file.write_bytes(onnx_models.build_model(outputs=("rows", "more")))
    for words in (["ingest"], ["query", outside], ["check", "--sample", "2"]):
        code, _, err = run(*words)
        assert code == 2
        assert "leave --model out" not in err
        assert (
            f"{file} is no longer the file that {tmp_path / 'library'} was made with (sha256 "
            in err
        )
        assert (
            f"put it back, or `neardup migrate --model onnx:{file} --store {tmp_path / 'library'}`"
            in err
        )
    file.write_bytes(sound)
    card = json.loads(file.with_suffix(".json").read_text())
    file.with_suffix(".json").write_text(json.dumps(card | {"preprocess": {"size": 9}}))
    code, _, err = run("ingest")
    assert code == 2
    assert "is no longer what" in err
    assert "squash-9" in err
    file.with_suffix(".json").write_text(json.dumps(card))
    assert run("ingest")[0] == 0


def test_a_model_whose_folder_was_moved_is_found_again_where_it_is_said_to_be(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    run(
        "ingest",
        photos,
        "--model",
        f"onnx:{onnx_models.save_model(tmp_path / 'models', onnx_models.build_model())}",
    )
    (tmp_path / "models").rename(tmp_path / "moved")
    (tmp_path / "models").mkdir()
    outside = save_image(tmp_path / "outside.jpg", draw_scene(98))
    for words in (["ingest"], ["query", outside], ["compare", outside, photos / "a.png"]):
        code, _, err = run(*words)
        assert code == 1
        assert "If its folder was moved: --model onnx:NEW/small.onnx is accepted" in err
    shutil.copy(tmp_path / "moved" / "small.json", tmp_path / "models")
    assert run("ingest")[0] == 0  # nothing is new, so no model is needed
    assert "onnx:NEW/small.onnx is accepted" in run("query", outside)[2]
    assert run("ingest", "--model", f"onnx:{tmp_path / 'moved' / 'small.onnx'}")[0] == 0
    assert (
        json.loads(run("status", "--json")[1])["model"]
        == f"onnx:{tmp_path / 'moved' / 'small.onnx'}"
    )
    assert run("query", outside)[0] == 0


@pytest.mark.parametrize("model", ["", "google:", "onnx:", "open_clip:"])
def test_a_model_without_a_name_is_none(run: Run, photos: Path, model: str) -> None:
    run("ingest", photos)
    for words in (
        ["ingest"],
        ["migrate"],
        ["query", photos / "a.png"],
        ["compare", photos / "a.png", photos / "b.jpg"],
    ):
        code, _, err = run(*words, "--model", model)
        assert code == 2
        assert f"unknown model {model!r}" in err

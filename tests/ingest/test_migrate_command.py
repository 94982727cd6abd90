"""`neardup migrate`, and what other commands report of a migration."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from indexes import SpaceMismatch, Store, check
from indexes.records import SavedThresholds
from indexes.upkeep.migration import PendingMigration
from pipeline import (
    IncompleteMigration,
    IngestOptions,
    ServiceUnavailable,
    load_embedder,
    migrate_store,
)
from pipeline.ingest.progress import IngestContext, Progress, Stage
from tests.support import onnx_models
from tests.support.embedders import CountingEmbedder, PaidEmbedder
from tests.support.images import draw_scene, save_image
from tests.support.ingest import ingest
from tests.support.migration import (
    assert_clean,
    build_contents,
    collect_contents,
    migrate,
    read_contents,
    read_kept_rows,
    save_other_model,
)
from tests.support.pair_verification import keep_thumbnails_away
from tests.support.stores import downgrade_store

Run = Callable[..., tuple[int, str, str]]


def test_ingest_after_migrate_embeds_nothing_and_queries_work(
    run: Run, photos: Path, small_model: str, tmp_path: Path
) -> None:
    run("ingest", photos)
    code, out, err = run("migrate", "--model", small_model, "--json")
    assert (code, json.loads(out)) == (
        0,
        {
            "schema_version": 3,
            "model": small_model,
            "migrated": True,
            "images": 5,
            "embedded": 5,
            "waiting": 0,
            "dropped": None,
        },
    )
    assert "0 images embedded" in run("ingest")[2]
    assert small_model in run("status")[1]
    assert run("query", photos / "a small.jpg")[1].startswith(
        f"{photos / 'a small.jpg'}: in the library, "
    )
    outside = save_image(tmp_path / "outside.jpg", draw_scene(1, (500, 375)))
    assert "a.png" in run("query", outside)[1]
    code, _, err = run("migrate", "--model", small_model)
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
    assert "5 of 5 images now embedded with neardup-1, 5 in this run\n" in err
    assert "calibrate" not in err


def test_migrate_saved_thresholds_drops_them_and_reports_it(
    run: Run, store_copy: Path, small_model: str
) -> None:
    with Store(store_copy, write=True) as store:
        store.save_thresholds(SavedThresholds(0.6, 0.9))
    code, _, err = run("migrate", "--model", small_model)
    assert code == 0
    assert (
        "were for the other model and are forgotten;"
        f" `neardup calibrate --save --store {store_copy}` finds new ones\n" in err
    )
    assert json.loads(run("status", "--json")[1])["saved_thresholds"] is None


def test_migrate_stopped_reports_the_current_model(
    run: Run, photos: Path, small_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(context: IngestContext) -> Iterator[Progress]:
        signal.raise_signal(signal.SIGINT)
        yield Progress(Stage.JOINING, 0, 1, context.coverage)

    run("ingest", photos)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.ingest.migrate.find_pairs", interrupt)
        code, _, err = run("migrate", "--model", small_model)
        assert code == 130
        assert "continues from there, and the store answers as before\n" in err
    assert "neardup-1" in run("status")[1]
    monkeypatch.setattr("pipeline.ingest.migrate.verify_new_pairs", interrupt)
    code, _, err = run("migrate", "--model", small_model)
    assert code == 130
    assert f"continues from there, and the store now uses {small_model}\n" in err


def test_migrate_unverified_pairs_reports_them(
    run: Run, photos: Path, small_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_thumbnails_away(monkeypatch)
    assert "could not be verified" in run("ingest", photos)[2]
    code, _, err = run("migrate", "--model", small_model)
    assert code == 0
    assert re.search(
        r"^neardup: \d+ candidate pairs? could not be verified \(\d+ away\);"
        r" the next ingest tries again$",
        err,
        re.MULTILINE,
    )


def test_migrate_older_store_format_needs_no_ingest(photos: Path, tmp_path: Path, run: Run) -> None:
    store_path = tmp_path / "library"
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:2000])
    run("ingest", photos)
    before, expected = read_kept_rows(store_path), read_contents(store_path)
    with Store(store_path, write=True) as store, store.catalog.transaction():
        store.catalog.write("UPDATE space SET preprocess = 'decode-1'")
    downgrade_store(store_path)
    code, _, err = run("migrate", "--model", "neardup-1")
    assert code == 0, err
    assert ", 5 in this run" in err
    assert read_contents(store_path) == expected
    assert read_kept_rows(store_path) == before
    assert_clean(store_path)


def test_migrate_empty_or_missing_store_fails(run: Run, tmp_path: Path) -> None:
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


def test_migrate_pending_for_other_model_needs_restart(
    store_copy: Path, small_model: str, run: Run, tmp_path: Path
) -> None:
    other = save_other_model(tmp_path)
    with (
        Store(store_copy, write=True) as store,
        closing(
            migrate_store(
                store, load_embedder(small_model), IngestOptions(batch_size=1, commit_images=1)
            )
        ) as migration,
    ):
        next(progress for progress in migration if progress.done == 5)
    with Store(store_copy, write=True) as store, pytest.raises(SpaceMismatch, match="--restart"):
        migrate(store, load_embedder(other))
    code, _, err = run("migrate", "--model", other)
    assert code == 2
    assert f"resume it with `neardup migrate --model {small_model} --store {store_copy}`" in err
    assert (
        f"start over with `neardup migrate --model {other} --restart --store {store_copy}`" in err
    )
    pending = f"neardup-1; a migration to {small_model} is pending, 5 of 17 images embedded; "
    code, _, err = run("migrate", "--model", "neardup-1")
    assert code == 0
    assert pending in err
    assert f"`neardup migrate --model neardup-1 --restart --store {store_copy}` drops it" in err
    code, _, err = run("migrate", "--model", "neardup-1", "--restart")
    assert code == 0
    assert f"the migration to {small_model} (5 images) was dropped\n" in err
    assert "nothing to do" not in err
    assert not (store_copy / "next").exists()
    assert "nothing to do" in run("migrate", "--model", "neardup-1", "--restart")[2]
    with (
        Store(store_copy, write=True) as store,
        closing(migrate_store(store, load_embedder(small_model))) as migration,
    ):
        next(progress for progress in migration if progress.done == 5)
    assert run("migrate", "--model", other, "--restart")[0] == 0
    assert_clean(store_copy)


def test_migrate_pending_for_other_model_without_vectors_is_replaced(
    store_copy: Path, small_model: str, run: Run, tmp_path: Path
) -> None:
    other = save_other_model(tmp_path)
    with Store(store_copy, write=True) as store, pytest.raises(ServiceUnavailable):
        migrate(store, PaidEmbedder(0, other), options=IngestOptions(batch_size=1))
    assert json.loads(run("status", "--json")[1])["migration"]["model"] == other
    assert run("migrate", "--model", small_model)[0] == 0
    assert_clean(store_copy)


def test_status_migrate_unfinished_reports_progress_and_commands(
    store_path: Path, photos: Path, small_model: str, run: Run
) -> None:
    assert json.loads(run("status", "--json")[1])["migration"] is None
    assert "migration" not in run("status")[1]
    with (
        Store(store_path, write=True) as store,
        closing(
            migrate_store(
                store, load_embedder(small_model), IngestOptions(batch_size=1, commit_images=1)
            )
        ) as migration,
    ):
        next(progress for progress in migration if progress.done == 9)
    status = json.loads(run("status", "--json")[1])
    done = status["migration"]["done"]
    resume, abort = (
        f"neardup migrate --model {words} --store {store_path}"
        for words in (small_model, "neardup-1 --restart")
    )
    assert status["model"] == "neardup-1"
    assert status["migration"] == {
        "model": small_model,
        "done": done,
        "images": 17,
        "resume": resume,
        "abort": abort,
    }
    assert 8 <= done <= 9
    line = (
        f"migration   to {small_model} is running or did not finish,"
        f" {done} of 17 images embedded;"
        f" `{resume}` resumes it, `{abort}` drops it"
    )
    assert line in run("status")[1].splitlines()
    (photos / "a small.jpg").unlink()
    (photos / "b.jpg").unlink()  # both are embedded by now
    with Store(store_path, write=True) as store:
        ingest(store)
        assert store.get_pending_migration() == PendingMigration(small_model, done - 2, 15)
    assert run(*abort.split()[1:])[0] == 0
    assert json.loads(run("status", "--json")[1])["migration"] is None
    assert run(*resume.split()[1:])[0] == 0
    assert json.loads(run("status", "--json")[1])["migration"] is None


def test_status_migrate_unfinished_prints_quoted_commands(
    store_copy: Path, tmp_path: Path, run: Run
) -> None:
    model = f"onnx:{onnx_models.save_model(tmp_path / 'my models', onnx_models.build_model())}"
    with (
        Store(store_copy, write=True) as store,
        closing(migrate_store(store, load_embedder(model))) as migration,
    ):
        next(migration)
    resume = json.loads(run("status", "--json")[1])["migration"]["resume"]
    assert shlex.split(resume)[1:] == ["migrate", "--model", model, "--store", str(store_copy)]


def test_migrate_absent_files_fails_or_leaves_them_out(
    store_path: Path, photos: Path, tmp_path: Path, small_model: str, run: Run
) -> None:
    before = read_contents(store_path)
    shutil.move(photos / "more", tmp_path / "away")
    save_image(photos / "c.webp", draw_scene(60))  # another content
    shutil.move(photos / "blank.png", tmp_path / "blank.png")
    with (
        Store(store_path, write=True) as store,
        pytest.raises(IncompleteMigration, match="13 of 17 images"),
    ):
        migrate(store, load_embedder(small_model))
    assert read_contents(store_path) == before
    code, _, err = run("migrate", "--model", small_model)
    assert code == 8
    assert "--leave-out" in err
    code, _, err = run("migrate", "--model", small_model, "--leave-out")
    assert code == 3
    assert f"4 of 17 images now embedded with {small_model}, " in err
    assert "in this run; 13 are not compared until an ingest finds their files\n" in err
    assert "13 images have no vector and are not compared" in run("groups")[2]
    assert json.loads(run("migrate", "--model", small_model, "--json")[1])["waiting"] == 13
    assert [finding.problem.split()[0] for finding in check(store_path, read_all=True)] == ["13"]
    with Store(store_path) as store:
        assert store.catalog.files.get_counts().images == 17
    shutil.move(tmp_path / "away", photos / "more")
    shutil.move(tmp_path / "blank.png", photos / "blank.png")
    with Store(store_path, write=True) as store:
        assert ingest(store, embedder=CountingEmbedder(small_model)).embedded == 12
        assert store.catalog.images.find_unembedded() == set()
        assert collect_contents(store) == build_contents(tmp_path / "fresh", photos, small_model)
    assert_clean(store_path)


@pytest.fixture
def migration_ends_while_others_wait(
    store_path: Path, small_model: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Start a migration to `small_model` that ends when another process waits for the lock."""
    with (
        Store(store_path, write=True) as store,
        closing(migrate_store(store, load_embedder(small_model))) as migration,
    ):
        next(migration)
        clock = {name: getattr(time, name) for name in ("monotonic", "monotonic_ns")}
        monkeypatch.setattr(
            "indexes.durable.locks.time",
            SimpleNamespace(sleep=lambda seconds: list(migration), **clock),
        )
        yield


def test_ingest_waiting_for_migration_uses_the_new_model(
    store_path: Path,
    photos: Path,
    small_model: str,
    run: Run,
    tmp_path: Path,
    migration_ends_while_others_wait: None,
) -> None:
    save_image(photos / "new.jpg", draw_scene(99))
    code, _, err = run("ingest", "--lock-timeout", "60", "--verbose")
    assert code == 0, err  # the truncated photo was reported before
    assert f"{small_model}: " in err
    assert "1 new" in err
    assert "; 1 image embedded" in err
    assert read_contents(store_path) == build_contents(tmp_path / "fresh", photos, small_model)


def test_ingest_waiting_for_migration_with_old_model_fails(
    store_path: Path,
    photos: Path,
    small_model: str,
    run: Run,
    migration_ends_while_others_wait: None,
) -> None:
    save_image(photos / "new.jpg", draw_scene(99))
    code, _, err = run("ingest", "--lock-timeout", "60", "--model", "neardup-1")
    assert code == 2
    assert (
        f"was migrated to {small_model} while this command waited,"
        " but --model says neardup-1; leave --model out" in err
    )
    code, _, err = run("ingest", "--model", "neardup-1")
    assert code == 2
    assert "while this command waited" not in err


def test_status_after_migrate_reports_the_new_pairs(
    store_path: Path, photos: Path, small_model: str, run: Run
) -> None:
    before = json.loads(run("status", "--json")[1])
    assert run("migrate", "--model", small_model)[0] == 0
    after = json.loads(run("status", "--json")[1])
    with Store(store_path) as store:
        assert store.space is not None
        floor, pairs = store.space.floor, len(store.search.find_pairs(store.space.floor).left)
    assert (after["join"]["floor"], after["join"]["pairs"], after["pairs"]) == (floor, pairs, pairs)
    assert after["join"] != before["join"]
    assert after["last_run"] == before["last_run"]
    save_image(photos / "new.jpg", draw_scene(1, (300, 225)))
    run("ingest")
    later = json.loads(run("status", "--json")[1])
    assert 0 < later["join"]["pairs"] == later["pairs"] - pairs
    assert f"pairs       {later['pairs']} known" in run("status")[1]
    assert run("migrate", "--model", "neardup-1")[0] == 0
    assert json.loads(run("status", "--json")[1])["join"]["floor"] == before["floor"]


def test_status_after_migrate_without_images_has_no_join(
    store_path: Path, photos: Path, small_model: str, run: Run
) -> None:
    shutil.rmtree(photos)
    photos.mkdir()
    run("ingest", "--accept-missing")
    assert run("migrate", "--model", small_model)[0] == 0
    assert json.loads(run("status", "--json")[1])["join"] is None


def test_migrate_leave_out_without_any_image_fails(
    store_path: Path, photos: Path, tmp_path: Path, small_model: str, run: Run
) -> None:
    before = read_contents(store_path)
    shutil.move(photos, tmp_path / "away")
    code, _, err = run("migrate", "--model", small_model, "--leave-out")
    assert code == 8
    assert "17 of 17 images could not be embedded" in err
    assert "--leave-out" not in err
    assert read_contents(store_path) == before


def test_model_file_changed_is_named_in_the_error(run: Run, photos: Path, tmp_path: Path) -> None:
    file = onnx_models.save_model(tmp_path / "models", onnx_models.build_model())
    run("ingest", photos, "--model", f"onnx:{file}")
    original, outside = file.read_bytes(), save_image(photos / "new.jpg", draw_scene(98))
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
    file.write_bytes(original)
    card = json.loads(file.with_suffix(".json").read_text())
    file.with_suffix(".json").write_text(json.dumps(card | {"preprocess": {"size": 9}}))
    code, _, err = run("ingest")
    assert code == 2
    assert "is no longer what" in err
    assert "squash-9" in err
    file.with_suffix(".json").write_text(json.dumps(card))
    assert run("ingest")[0] == 0


def test_model_file_moved_is_accepted_at_its_new_path(
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
    assert run("ingest")[0] == 0  # without new files no model is loaded
    assert "onnx:NEW/small.onnx is accepted" in run("query", outside)[2]
    assert run("ingest", "--model", f"onnx:{tmp_path / 'moved' / 'small.onnx'}")[0] == 0
    assert (
        json.loads(run("status", "--json")[1])["model"]
        == f"onnx:{tmp_path / 'moved' / 'small.onnx'}"
    )
    assert run("query", outside)[0] == 0


@pytest.mark.parametrize("model", ["", "google:", "onnx:", "open_clip:"])
def test_model_without_name_is_unknown(run: Run, photos: Path, model: str) -> None:
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

"""A migrated store equals one that was built with the new model, whatever interrupts it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from math import inf
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indexes import SpaceMismatch, Store, check
from pipeline import (
    IncompleteMigration,
    IngestOptions,
    PaidCallLimit,
    ServiceUnavailable,
    find_matches,
    load_embedder,
    migrate_store,
)
from pipeline.cli.main import main
from tests.support.embedders import CountingEmbedder, PaidEmbedder
from tests.support.forks import FORKSERVER
from tests.support.images import draw_scene, save_image, save_scenes
from tests.support.ingest import ingest
from tests.support.migration import (
    Contents,
    assert_clean,
    build_contents,
    collect_contents,
    migrate,
    read_contents,
    read_kept_rows,
)


def test_migrate_equals_a_store_built_with_the_new_model(
    store_path: Path, photos: Path, tmp_path: Path, small_model: str
) -> None:
    before = read_kept_rows(store_path)
    expected = build_contents(tmp_path / "fresh", photos, small_model)
    assert expected[1] != read_contents(store_path)[1]
    with Store(store_path, write=True) as store:
        assert migrate(store, load_embedder(small_model)) == 16
        assert collect_contents(store) == expected
        assert store.model == small_model
    assert_clean(store_path)
    assert read_kept_rows(store_path) == before
    assert (
        json.loads((store_path / "store.json").read_bytes().splitlines()[0])["model"] == small_model
    )
    save_image(photos / "new.jpg", draw_scene(99))
    with Store(store_path, write=True) as store:
        coverage = ingest(store, embedder=CountingEmbedder(small_model))
        assert (coverage.new, coverage.embedded) == (1, 1)
        assert collect_contents(store) == build_contents(tmp_path / "fresh", photos, small_model)
        assert migrate(store, load_embedder()) == 17  # back to the first model
        assert collect_contents(store) == build_contents(tmp_path / "back", photos, "neardup-1")
    assert_clean(store_path)


def test_migrate_store_without_files_drops_all_segments(
    store_path: Path, photos: Path, small_model: str
) -> None:
    shutil.rmtree(photos)
    photos.mkdir()
    with Store(store_path, write=True) as store:
        ingest(store, options=IngestOptions(accept_missing=True))
        assert migrate(store, load_embedder(small_model)) == 0
        assert store.model == small_model
        assert store.catalog.vectors.list_segments() == []
    assert_clean(store_path)


@pytest.mark.parametrize("stop", [1, 5, 14])
def test_migrate_stopped_resumes_after_an_ingest(
    store_path: Path, photos: Path, tmp_path: Path, small_model: str, stop: int
) -> None:
    before = read_contents(store_path)
    with Store(store_path, write=True) as store:
        with closing(
            migrate_store(
                store, load_embedder(small_model), IngestOptions(batch_size=2, commit_images=1)
            )
        ) as run:
            next(progress for progress in run if progress.done == stop)
        assert collect_contents(store) == before
        assert check(store_path, read_all=True) == []
        save_image(photos / "between.jpg", draw_scene(77))
        (photos / "more" / "4.jpg").unlink()
        assert ingest(store).embedded == 1
        assert (store_path / "next").is_dir()
        counting = CountingEmbedder(small_model)
        assert (
            migrate(store, counting, options=IngestOptions(with_crops=False))
            == counting.embedded
            <= 16 - stop // 2 * 2 + 2
        )
        assert collect_contents(store) == build_contents(tmp_path / "fresh", photos, small_model)
    assert_clean(store_path)


def test_migrate_file_moved_meanwhile_keeps_its_new_vector(
    tmp_path: Path, small_model: str
) -> None:
    """The new store knows the image by its old path, where another photo is by then."""
    root = tmp_path / "root"
    # A segment for each image: enough of them to be merged.
    options = IngestOptions(batch_size=1, commit_images=1)
    save_scenes(root, 10)
    with Store(tmp_path / "library", write=True) as store:
        ingest(store, root)
        with closing(migrate_store(store, load_embedder(small_model), options)) as migration:
            next(progress for progress in migration if progress.done == 4)
        (root / "00.png").rename(root / "zz.png")
        save_image(root / "00.png", draw_scene(99, (64, 48)))
        ingest(store)
        migrate(store, load_embedder(small_model), options=options)
        assert len(store.catalog.vectors.list_segments()) < 8
        assert store.catalog.images.find_unembedded() == set()
        assert collect_contents(store) == build_contents(tmp_path / "fresh", root, small_model)
    assert_clean(tmp_path / "library")


def test_migrate_changed_file_embeds_another_copy(
    store_path: Path, photos: Path, small_model: str
) -> None:
    save_image(photos / "a.png", draw_scene(62))
    with Store(store_path, write=True) as store:
        assert migrate(store, load_embedder(small_model)) == 16


def test_migrate_changed_times_embeds_all(store_path: Path, photos: Path, small_model: str) -> None:
    for photo in photos.iterdir():
        photo.chmod(0o600)
        os.utime(photo, ns=(1, 1))
    with Store(store_path, write=True) as store:
        assert migrate(store, load_embedder(small_model)) == 16


def test_migrate_changed_content_is_incomplete(
    store_path: Path, photos: Path, small_model: str
) -> None:
    save_image(photos / "b.jpg", draw_scene(61))
    save_image(photos / "a.png", draw_scene(62))
    with Store(store_path, write=True) as store:
        with pytest.raises(IncompleteMigration, match="1 of 17 images"):
            migrate(store, load_embedder(small_model))
        migrate(store, load_embedder(small_model), leave_out=True)
        assert len(store.catalog.images.find_unembedded()) == 1


def test_migrate_paid_model_embeds_each_image_once(store_copy: Path, small_model: str) -> None:
    with Store(store_copy, write=True) as store:
        paid = PaidEmbedder(7, small_model)
        with pytest.raises(ServiceUnavailable):
            migrate(store, paid, options=IngestOptions(batch_size=4))
        paid.patience = 100
        with pytest.raises(PaidCallLimit):
            migrate(store, paid, options=IngestOptions(batch_size=4, max_paid_calls=3))
        assert paid.answered.total() == 10
        migrate(store, paid, options=IngestOptions(batch_size=4))
        assert set(paid.answered.values()) == {1}
        assert paid.answered.total() == 16


@pytest.mark.parametrize("patience", [13, 15])
def test_migrate_outage_in_last_batch_loses_no_vector(
    store_copy: Path, small_model: str, patience: int
) -> None:
    with Store(store_copy, write=True) as store:
        paid = PaidEmbedder(patience, small_model)
        with pytest.raises(ServiceUnavailable):
            migrate(store, paid, options=IngestOptions(batch_size=5))
        assert paid.answered.total() == patience
        paid.patience = 100
        assert migrate(store, paid, options=IngestOptions(batch_size=5)) == 16 - patience
        assert set(paid.answered.values()) == {1}


def start_migrate_process(store_path: Path, model: str, failpoint: str = "") -> ForkServerProcess:
    """Start `neardup migrate` in a process of its own, which may end at a failpoint."""
    arguments = ["--model", model, "--store", os.fspath(store_path), "--batch", "2"]
    process = FORKSERVER.Process(
        target=run_main, args=(["migrate", *arguments, "--decoders", "1"], failpoint)
    )
    process.start()
    return process


def run_main(arguments: list[str], failpoint: str) -> None:
    os.environ["NEARDUP_FAILPOINT"] = failpoint
    with Path(os.devnull).open("w") as sys.stdout, Path(os.devnull).open("w") as sys.stderr:
        main(arguments)


def kill_at_failpoint(store_path: Path, model: str, failpoint: str) -> None:
    process = start_migrate_process(store_path, model, failpoint)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def assert_old_or_new(store_path: Path, old: Contents, new: Contents, model: str) -> None:
    assert check(store_path, read_all=True) == []
    assert read_contents(store_path) in (old, new)
    with Store(store_path, write=True) as store:
        migrate(store, load_embedder(model))
        assert collect_contents(store) == new
        store.prepare()
    assert_clean(store_path)


@pytest.mark.parametrize(
    ("failpoint", "is_done"),
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
def test_migrate_killed_at_failpoint_leaves_old_or_new_store(
    migration_case: tuple[Path, Contents, Contents],
    store_copy: Path,
    small_model: str,
    failpoint: str,
    is_done: bool | None,
) -> None:
    _, old, new = migration_case
    kill_at_failpoint(store_copy, small_model, failpoint)
    if is_done is not None:
        assert read_contents(store_copy) == (new if is_done else old)
    assert_old_or_new(store_copy, old, new, small_model)


def test_ingest_after_killed_commit_sweeps_leftovers(store_copy: Path, small_model: str) -> None:
    kill_at_failpoint(store_copy, small_model, "migration committed")
    assert (store_copy / "next").is_dir()
    with Store(store_copy) as store:
        assert store.get_pending_migration() is None  # it was committed
    with Store(store_copy, write=True) as store:
        assert ingest(store, embedder=CountingEmbedder(small_model)).embedded == 0
    assert_clean(store_copy)
    assert (
        json.loads((store_copy / "store.json").read_bytes().splitlines()[0])["model"] == small_model
    )


def test_migrate_killed_at_random_moments_leaves_old_or_new_store(
    migration_case: tuple[Path, Contents, Contents], tmp_path: Path, small_model: str
) -> None:
    store_path, old, new = migration_case
    rng, max_seconds = random.Random(0), inf
    for number in range(9):
        folder = tmp_path / str(number)
        shutil.copytree(store_path, folder)
        start = time.monotonic()
        process = start_migrate_process(folder, small_model)
        if number:
            process.join(rng.uniform(0.3, 1.0) * max_seconds)
            process.kill()
        process.join()
        if process.exitcode == 0:  # on a machine that is busy at first, later runs take less time
            max_seconds = min(max_seconds, time.monotonic() - start)
        else:
            assert process.exitcode == -signal.SIGKILL
        assert_old_or_new(folder, old, new, small_model)
        shutil.rmtree(folder)


def test_migrate_without_hard_links_copies_segments(
    store_copy: Path, small_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", deny)
    with Store(store_copy, write=True) as store:
        assert migrate(store, load_embedder(small_model)) == 16
    assert_clean(store_copy)


def test_query_during_migration_raises_space_mismatch(
    store_path: Path, photos: Path, tmp_path: Path, small_model: str
) -> None:
    class MigratingEmbedder(CountingEmbedder):
        def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
            with Store(store_path, write=True) as writer:
                migrate(writer, load_embedder(small_model))
            return super().encode(inputs)

    outside = save_image(tmp_path / "outside.jpg", draw_scene(1, (500, 375)))
    with Store(store_path) as store, pytest.raises(SpaceMismatch):
        list(find_matches([str(outside), str(photos / "a.png")], store, MigratingEmbedder()))


def test_reader_during_migration_gets_answers_of_one_model(
    migration_case: tuple[Path, Contents, Contents], store_copy: Path, small_model: str
) -> None:
    _, old, new = migration_case
    process = start_migrate_process(store_copy, small_model)
    answers = []
    with Store(store_copy) as store:
        while process.is_alive():
            answers.append(collect_contents(store))
            assert answers[-1] in (old, new)
        assert collect_contents(store) == new
    assert old in answers
    assert process.exitcode == 0

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from indexes import DiskFull, Root, Store
from indexes.store import Batch
from pipeline import (
    Coverage,
    IngestOptions,
    InvalidEmbedding,
    PaidCallLimit,
    ServiceUnavailable,
    UnusableModel,
    ingest_roots,
)
from pipeline.embed.embedder import embed
from tests.support.embedders import CountingEmbedder, PaidEmbedder
from tests.support.images import draw_scene, save_image, save_scenes
from tests.support.ingest import ingest


def test_ingest_invalid_embeddings_stores_nothing(empty_store: Store, photos: Path) -> None:
    class NanEmbedder(CountingEmbedder):
        def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
            return np.full((len(inputs), self.space.dim), np.nan, np.float32)

    with pytest.raises(InvalidEmbedding):
        ingest(empty_store, photos, embedder=NanEmbedder())
    assert empty_store.catalog.images.list_in_use() == []


def test_embed_too_many_rows_raises() -> None:
    class ExtraRowEmbedder(CountingEmbedder):
        def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
            return np.ones((len(inputs) + 1, self.space.dim), np.float32)

    with pytest.raises(InvalidEmbedding, match="expected"):
        embed(ExtraRowEmbedder(), [np.zeros((192, 192, 3), np.uint8)])


@pytest.mark.parametrize(
    ("batch", "patience"),
    [*((8, patience) for patience in (0, 1, 7, 8, 13, 29)), (9, 27), (9, 28), (9, 29)],
)
def test_ingest_resumed_after_outage_pays_for_no_image_twice(
    empty_store: Store, tmp_path: Path, batch: int, patience: int
) -> None:
    save_scenes(tmp_path / "root", 30)
    # Shares its pixels with an image that the service may not answer.
    save_image(tmp_path / "root" / "copy.bmp", draw_scene(29, (64, 48)))
    save_image(tmp_path / "root" / "blank.png", Image.new("RGB", (64, 48)))
    options, first, second = (
        IngestOptions(batch_size=batch),
        PaidEmbedder(patience),
        PaidEmbedder(1000),
    )
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        ingest(empty_store, tmp_path / "root", embedder=first, options=options)
    last = empty_store.catalog.runs.get_last()
    assert last is not None
    assert last.outcome == "interrupted"
    assert len(empty_store.catalog.images.list_in_use()) >= patience
    coverage = ingest(empty_store, embedder=second, options=options)
    assert sum(first.answered.values()) == patience
    assert set((first.answered + second.answered).values()) == {1}
    assert len(first.answered + second.answered) == 30
    assert (coverage.embedded, coverage.new) == (30 - patience, coverage.seen - coverage.unchanged)
    assert len(empty_store.catalog.images.list_in_use()) == 32


@pytest.mark.parametrize("files", [30, 32])
def test_ingest_failing_model_keeps_earlier_batches(
    empty_store: Store, tmp_path: Path, files: int
) -> None:
    """Also if the last batch is partial, and if embeddings were not committed yet."""
    save_scenes(tmp_path / "root", files)

    class FailingEmbedder(CountingEmbedder):
        def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
            if self.embedded == 24:
                raise UnusableModel("it cannot be run")
            return super().encode(inputs)

    with pytest.raises(UnusableModel):
        ingest(
            empty_store,
            tmp_path / "root",
            embedder=FailingEmbedder(),
            options=IngestOptions(batch_size=8),
        )
    assert len(empty_store.catalog.images.list_in_use()) == 24
    assert ingest(empty_store, options=IngestOptions(batch_size=8)).embedded == files - 24


def test_ingest_without_consent_or_beyond_limit_raises(
    empty_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_scenes(tmp_path / "root", 30)
    monkeypatch.setattr("pipeline.embed.paid_calls.MAX_UNCONFIRMED_CALLS", 29)
    paid = PaidEmbedder(1000)
    with pytest.raises(PaidCallLimit, match="30 files take up to 30 paid requests"):
        ingest(empty_store, tmp_path / "root", embedder=paid)
    assert not paid.answered
    with pytest.raises(PaidCallLimit, match="20 paid requests were made"):
        ingest(empty_store, embedder=paid, options=IngestOptions(batch_size=8, max_paid_calls=20))
    assert len(paid.answered) == 20
    # The 10 files that are left need no consent.
    assert ingest(empty_store, embedder=paid).unchanged == 20
    assert set(paid.answered.values()) == {1}
    save_image(tmp_path / "root" / "more.png", draw_scene(100, (64, 48)))
    monkeypatch.setattr("pipeline.embed.paid_calls.MAX_UNCONFIRMED_CALLS", 0)
    assert (
        ingest(empty_store, embedder=paid, options=IngestOptions(accept_paid_calls=True)).embedded
        == 1
    )


def test_ingest_accepted_cost_keeps_call_limit(
    empty_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_scenes(tmp_path / "root", 30)
    monkeypatch.setattr("pipeline.embed.paid_calls.MAX_UNCONFIRMED_CALLS", 10)
    paid = PaidEmbedder(1000)
    with pytest.raises(PaidCallLimit, match="20 paid requests were made"):
        ingest(
            empty_store,
            tmp_path / "root",
            embedder=paid,
            options=IngestOptions(batch_size=8, max_paid_calls=20, accept_paid_calls=True),
        )
    assert len(paid.answered) == 20
    assert (
        ingest(
            empty_store,
            embedder=paid,
            options=IngestOptions(batch_size=8, max_paid_calls=10, accept_paid_calls=True),
        ).embedded
        == 10
    )


class BatchPricedEmbedder(PaidEmbedder):
    """An embedder that takes two requests for every six images."""

    def count_paid_calls(self, image_count: int) -> int:
        return 2 * math.ceil(image_count / 6)


def test_ingest_limit_below_batch_cost_continues_each_run(
    empty_store: Store, tmp_path: Path
) -> None:
    save_scenes(tmp_path / "root", 14)
    # Their names sort after the numbers.
    save_image(tmp_path / "root" / "a copy.bmp", draw_scene(0, (64, 48)))
    save_image(tmp_path / "root" / "a copy of one that waits.bmp", draw_scene(13, (64, 48)))
    save_image(tmp_path / "root" / "blank.png", Image.new("RGB", (64, 48)))
    paid, stored_counts = BatchPricedEmbedder(1000), []
    for _ in range(2):
        with pytest.raises(PaidCallLimit, match="2 paid requests were made"):
            ingest(
                empty_store,
                tmp_path / "root",
                embedder=paid,
                options=IngestOptions(batch_size=20, max_paid_calls=3),
            )
        stored_counts.append(len(empty_store.catalog.images.list_in_use()))
    assert stored_counts == [6 + 2, 12 + 2]
    assert (
        ingest(
            empty_store, embedder=paid, options=IngestOptions(batch_size=20, max_paid_calls=3)
        ).embedded
        == 2
    )
    assert len(empty_store.catalog.images.list_in_use()) == 17
    assert set(paid.answered.values()) == {1}
    assert len(paid.answered) == 14


def test_ingest_limit_below_image_cost_raises(empty_store: Store, photos: Path) -> None:
    paid = BatchPricedEmbedder(1000)
    with pytest.raises(
        PaidCallLimit,
        match="1 image takes up to 2 paid requests to neardup-1, and --max-calls allows 1",
    ):
        ingest(empty_store, photos, embedder=paid, options=IngestOptions(max_paid_calls=1))
    assert not paid.answered


def test_ingest_failed_commit_counts_nothing(
    empty_store: Store, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:2000])
    save_image(photos / "moving.gif", draw_scene(5), save_all=True, append_images=[draw_scene(6)])

    def raise_disk_full(batch: Batch) -> None:
        raise DiskFull("no room")

    with monkeypatch.context() as patch:
        patch.setattr(empty_store, "add", raise_disk_full)
        with pytest.raises(DiskFull):
            ingest(empty_store, photos)
    last = empty_store.catalog.runs.get_last()
    assert last is not None
    assert last.coverage == Coverage(seen=8)
    assert ingest(empty_store).flagged == {"animated": 1}


def test_ingest_paid_batch_is_committed_at_once(empty_store: Store, tmp_path: Path) -> None:
    save_scenes(tmp_path / "root", 30)
    with closing(
        ingest_roots(
            [Root(str(tmp_path / "root"))],
            empty_store,
            PaidEmbedder(1000),
            IngestOptions(batch_size=8),
        )
    ) as run:
        next(progress for progress in run if progress.done == 9)
        # What another process would find if this one were killed now.
        with Store(empty_store.folder) as reader:
            assert len(reader.catalog.images.list_in_use()) == 8

"""Steps that commands share: a store opened for writing, its model, and consent to costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexes import SpaceMismatch, Store, StoreMissing
from pipeline import PaidCallLimit, RootNotFound, load_embedder
from pipeline.cli.options import IngestArguments
from pipeline.cli.session import (
    choose_embedder,
    open_for_writing,
    require_consent_to_query,
    run_ingest,
)
from pipeline.embed.embedder import DEFAULT_MODEL
from tests.support.embedders import CountingEmbedder, PaidEmbedder
from tests.support.images import draw_scene, save_image

OTHER_MODEL = "neardup-0"


def test_store_is_created_only_for_a_folder_that_exists(tmp_path: Path) -> None:
    folder, photos = tmp_path / "store", tmp_path / "photos"
    file = save_image(tmp_path / "photo.png", draw_scene(1))
    with pytest.raises(StoreMissing):
        open_for_writing(folder)
    for roots in ([str(tmp_path / "nothing")], [str(file)], [""]):
        with pytest.raises(RootNotFound):
            open_for_writing(folder, roots)
    assert not folder.exists()
    photos.mkdir()
    open_for_writing(folder, [str(tmp_path / "nothing"), str(photos)]).close()
    assert folder.is_dir()
    open_for_writing(folder).close()  # an existing store needs no root
    open_for_writing(folder, [str(tmp_path / "nothing")]).close()


def test_ingest_names_only_the_roots_that_were_named(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_image(tmp_path / name / "photo.png", draw_scene(1))
    (tmp_path / "link").symlink_to(tmp_path / "one")
    with Store(tmp_path / "store", write=True) as store:
        first = run_ingest(store, [str(tmp_path / "two")], IngestArguments())
        assert first.root_paths == [str(tmp_path / "two")]
        named = [str(tmp_path / "link"), str(tmp_path / "nothing")]
        second = run_ingest(store, named, IngestArguments())
        assert second.root_paths == [str(tmp_path / "one")]
        assert second.coverage.absent_roots == [str(tmp_path / "nothing")]
        everything = run_ingest(store, [], IngestArguments())
        assert everything.coverage.seen == 2


def test_model_is_the_named_one_else_that_of_the_store_else_the_default(tmp_path: Path) -> None:
    assert choose_embedder(None, None).name == DEFAULT_MODEL
    assert choose_embedder(None, OTHER_MODEL).name == OTHER_MODEL
    with Store(tmp_path / "store", write=True) as store:
        assert choose_embedder(store, None).name == DEFAULT_MODEL
        other = load_embedder(OTHER_MODEL)
        store.bind(other.space, other.name)
        assert choose_embedder(store, None).name == OTHER_MODEL
        assert choose_embedder(store, OTHER_MODEL).name == OTHER_MODEL


def test_model_of_another_space_is_refused_unless_the_store_is_empty(tmp_path: Path) -> None:
    save_image(tmp_path / "photos" / "photo.png", draw_scene(1))
    with Store(tmp_path / "store", write=True) as store:
        bound = load_embedder(DEFAULT_MODEL)
        store.bind(bound.space, bound.name)
        assert choose_embedder(store, OTHER_MODEL, unless_empty=True).name == OTHER_MODEL
        with pytest.raises(SpaceMismatch):
            choose_embedder(store, OTHER_MODEL)
        run_ingest(store, [str(tmp_path / "photos")], IngestArguments())
        with pytest.raises(SpaceMismatch):
            choose_embedder(store, OTHER_MODEL, unless_empty=True)


def test_paid_query_is_announced_and_large_one_needs_consent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    paid = PaidEmbedder(patience=0)
    with pytest.raises(PaidCallLimit, match="ask about fewer files"):
        require_consent_to_query(paid, 1001, False)
    assert capsys.readouterr().err == ""
    require_consent_to_query(paid, 1000, False)
    assert "1,000" in capsys.readouterr().err
    require_consent_to_query(paid, 1001, True)
    assert "1,001" in capsys.readouterr().err
    require_consent_to_query(CountingEmbedder(), 1001, False)
    assert capsys.readouterr().err == ""

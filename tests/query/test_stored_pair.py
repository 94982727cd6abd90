from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from indexes import Root, Store
from pipeline import ingest_roots, load_embedder
from pipeline.decode.pool import DecoderPool
from pipeline.errors import UnknownPhoto
from pipeline.query.compare import compare
from pipeline.query.stored_pair import compare_stored
from pipeline.report.comparison_image import Panel, draw_panels
from pipeline.verify.relation import Relation
from tests.support.images import draw_textured_image, save_image


@pytest.fixture
def decoders() -> Iterator[DecoderPool]:
    with DecoderPool(1) as pool:
        yield pool


def read_hash(path: Path) -> bytes:
    return blake3(path.read_bytes()).digest()


def test_stored_images_are_compared_as_their_files_are_and_without_them(
    tmp_path: Path, decoders: DecoderPool
) -> None:
    photo, folder = draw_textured_image(1, (900, 600)), tmp_path / "photos"
    first = save_image(folder / "a.jpg", photo, quality=90)
    second = save_image(folder / "b.jpg", photo.crop((0, 0, 700, 600)).resize((560, 480)))
    other = save_image(folder / "c.jpg", draw_textured_image(2, (900, 600)))
    files = [first, second, other]
    hashes = [read_hash(file) for file in files]
    with Store(tmp_path / "store", write=True) as store:
        for _ in ingest_roots([Root(str(folder))], store, load_embedder()):
            pass
        for file in files:
            file.rename(tmp_path / file.name)
        stored = compare_stored(store, hashes, decoders)
        assert stored.files == tuple(map(str, files))
        of_files = compare([str(tmp_path / file.name) for file in files], load_embedder())
        for pair in stored.iter_pairs():
            relation = stored.get_relation(*pair, 0.9)
            assert relation == of_files.get_relation(*pair, 0.9)
            assert stored.verdicts[pair] == of_files.verdicts[pair]
        assert stored.get_relation(0, 1, 0.9) is Relation.DERIVED
        assert stored.scores == pytest.approx(of_files.scores, abs=1e-6)
        assert set(draw_panels(stored)) == set(Panel)
        swapped = compare_stored(store, hashes[1::-1], decoders)
        assert swapped.verdicts[0, 1] == stored.verdicts[0, 1].swap_sides()
        with pytest.raises(UnknownPhoto, match="no file of the library"):
            compare_stored(store, [hashes[0], bytes(32)], decoders)

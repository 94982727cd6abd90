"""Ingest in one call."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from indexes import Root, Store
from pipeline import (
    Coverage,
    IngestOptions,
    ingest_roots,
    load_embedder,
)
from tests.support.embedders import CountingEmbedder


def ingest(
    store: Store,
    *roots: Path | Root,
    embedder: CountingEmbedder | None = None,
    options: IngestOptions | None = None,
) -> Coverage:
    wanted = [
        root if isinstance(root, Root) else Root(str(root)) for root in roots
    ] or store.catalog.roots.list()
    *_, last = ingest_roots(wanted, store, embedder or load_embedder(), options)
    coverage = last.coverage
    without = Counter(coverage.skipped) + Counter(coverage.failed)
    scanned = {
        "hidden",
        "trash",
        "excluded",
        "reached before",
        "broken link",
        "special file",
        "a store",
        "unreadable folder",
    }
    files_without = sum(
        number
        for reason, number in without.items()
        if reason not in scanned and not reason.startswith("unreadable folder")
    )
    assert (
        coverage.seen
        == coverage.new + coverage.changed + coverage.unchanged + coverage.moved + files_without
    )
    return coverage

"""Ingest in one call, into a store or a new one, and the groups that come of it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from indexes import Root, Store
from pipeline import Coverage, IngestOptions, find_groups, ingest_roots, load_embedder
from tests.support.embedders import CountingEmbedder

# Reasons of entries that a scan skips, so that they are not among the files seen.
SCAN_REASONS = {
    "hidden",
    "trash",
    "excluded",
    "reached before",
    "broken link",
    "special file",
    "a store",
    "library of another program",
    "thumbnail of a page",
    "moved by neardup",
    "unreadable folder",
}


def ingest(
    store: Store,
    *roots: Path | Root,
    embedder: CountingEmbedder | None = None,
    options: IngestOptions | None = None,
) -> Coverage:
    """Ingest `roots`, or all roots of the store; check that every file seen is counted once."""
    given = [root if isinstance(root, Root) else Root(str(root)) for root in roots]
    wanted = given or store.catalog.roots.list()
    *_, last = ingest_roots(wanted, store, embedder or load_embedder(), options)
    coverage = last.coverage
    reasons = Counter(coverage.skipped) + Counter(coverage.failed)
    files_without_image = sum(
        count
        for reason, count in reasons.items()
        if reason not in SCAN_REASONS and not reason.startswith("unreadable folder")
    )
    files_with_image = coverage.new + coverage.changed + coverage.unchanged + coverage.moved
    assert coverage.seen == files_with_image + files_without_image
    return coverage


def make_store(folder: Path, *roots: Path) -> Store:
    """Make a store in `folder`, open for writing, and ingest `roots` into it."""
    store = Store(folder, write=True)
    ingest(store, *roots)
    return store


def list_groups(store: Store, root: Path, threshold: float = 0.85) -> list[tuple[str, list[str]]]:
    """Return the keeper and the members of each group as paths relative to `root`."""
    return [
        (
            os.path.relpath(group.keeper.path, root),
            [os.path.relpath(member.file.path, root) for member in group.members],
        )
        for group in find_groups(store, threshold)
    ]

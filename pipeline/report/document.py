"""Parts of JSON documents that several commands print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from indexes.coverage import Coverage
from indexes.records import Counts, Run, Space
from indexes.store import Store
from pipeline.decode.read import Failure

# Raised only when a field changes its meaning or is removed; fields may be added without it.
SCHEMA_VERSION = 3


def make_document(content: Mapping[str, Any]) -> dict[str, Any]:
    """Put the version of the JSON schema before the content of a document."""
    return {"schema_version": SCHEMA_VERSION, **content}


def serialize_space(space: Space) -> dict[str, Any]:
    """Serialize a vector space; its floor and threshold are fields of the document around it."""
    return {key: value for key, value in asdict(space).items() if key not in ("floor", "threshold")}


def serialize_failure(failure: Failure) -> dict[str, str]:
    """Serialize why a file gave no image."""
    return {"reason": failure.reason, "detail": failure.detail or ""}


def serialize_coverage(
    store: Store, folders: Sequence[str] = (), ingest_coverage: Coverage | None = None
) -> dict[str, Any]:
    """Serialize what an answer covers: the counts of files and images below `folders` (all without
    any), the outcome of the last ingest, and the coverage of an ingest that this command ran.
    """
    counts = store.catalog.files.get_counts(folders)
    document = serialize_counts(counts, store.catalog.runs.get_last())
    if ingest_coverage:
        document["ingest"] = ingest_coverage.to_dict()
    return document


def serialize_counts(counts: Counts, last_run: Run | None) -> dict[str, Any]:
    """Serialize counts of files and images, and the outcome of the last ingest."""
    return asdict(counts) | {"last_ingest": last_run.outcome if last_run else None}

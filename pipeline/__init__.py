"""The verbs, in the order they happen: scan, decode, embed, ingest; then query, cluster, report.

Names are loaded by their first use, so that `neardup --help` needs no numpy and no model.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.decode.read import Failure
    from pipeline.embed.embedder import Embedder, load
    from pipeline.errors import (
        BadDecoder,
        BadDestination,
        BadModel,
        BadOutput,
        BadRoot,
        BadRule,
        BadVerifier,
        LeftBehind,
        MissingExtra,
        MissingKey,
        PipelineError,
        TooManyCalls,
        Unanswered,
        UnknownModel,
    )
    from pipeline.grouping.cluster import Group, Match
    from pipeline.grouping.keep_rules import Keep, Photo
    from pipeline.ingest.batch_writer import Coverage, IngestOptions
    from pipeline.ingest.ingest import Progress, ingest_roots, resolve_roots
    from pipeline.ingest.migrate import migrate_store
    from pipeline.query.compare import Comparison, compare
    from pipeline.query.groups import find_groups
    from pipeline.query.matches import Answer, find_matches

_HOMES = {
    "grouping.cluster": ("Group", "Match"),
    "embed.embedder": ("Embedder", "load"),
    "errors": (
        "BadDecoder",
        "BadDestination",
        "BadModel",
        "BadOutput",
        "BadRoot",
        "BadRule",
        "BadVerifier",
        "LeftBehind",
        "MissingExtra",
        "MissingKey",
        "PipelineError",
        "TooManyCalls",
        "Unanswered",
        "UnknownModel",
    ),
    "ingest.ingest": ("Progress", "ingest_roots", "resolve_roots"),
    "grouping.keep_rules": ("Keep", "Photo"),
    "ingest.migrate": ("migrate_store",),
    "decode.read": ("Failure",),
    "ingest.batch_writer": ("Coverage", "IngestOptions"),
    "query.groups": ("find_groups",),
    "query.matches": ("Answer", "find_matches"),
    "query.compare": ("Comparison", "compare"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Answer",
    "BadDecoder",
    "BadDestination",
    "BadModel",
    "BadOutput",
    "BadRoot",
    "BadRule",
    "BadVerifier",
    "Comparison",
    "Coverage",
    "Embedder",
    "Failure",
    "Group",
    "IngestOptions",
    "Keep",
    "LeftBehind",
    "Match",
    "MissingExtra",
    "MissingKey",
    "Photo",
    "PipelineError",
    "Progress",
    "TooManyCalls",
    "Unanswered",
    "UnknownModel",
    "compare",
    "find_groups",
    "find_matches",
    "ingest_roots",
    "load",
    "migrate_store",
    "resolve_roots",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

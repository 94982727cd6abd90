"""The verbs, in the order they happen: scan, decode, embed, ingest; then query, cluster, report.

Names are loaded by their first use, so that `neardup --help` needs no numpy and no model.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.ask import Answer, find_matches
    from pipeline.cluster import Group, Match
    from pipeline.comparison import Comparison, compare
    from pipeline.embedder import Embedder, embed, load
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
    from pipeline.ingest import Progress, ingest_roots, resolve_roots
    from pipeline.keep import Keep, Photo
    from pipeline.migrate import migrate_store
    from pipeline.query import find_groups
    from pipeline.reading import Failure
    from pipeline.writer import Coverage, IngestOptions

_HOMES = {
    "cluster": ("Group", "Match"),
    "embedder": ("Embedder", "embed", "load"),
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
    "ingest": ("Progress", "ingest_roots", "resolve_roots"),
    "keep": ("Keep", "Photo"),
    "migrate": ("migrate_store",),
    "reading": ("Failure",),
    "writer": ("Coverage", "IngestOptions"),
    "query": ("find_groups",),
    "ask": ("Answer", "find_matches"),
    "comparison": ("Comparison", "compare"),
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
    "embed",
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

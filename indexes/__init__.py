"""What is on disk and how it is searched: unit vectors in FAISS inner-product segments, the truth in one SQLite catalog.

Names are loaded by their first use, so that a process that decodes has no need of the database.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexes.caches.crops import Parts
    from indexes.caches.thumbnails import Thumb, Thumbs
    from indexes.catalog.pairs import Frontier, SegmentRow
    from indexes.catalog.verdicts import CROWD, Judged
    from indexes.errors import (
        BadThreshold,
        BadVector,
        NoSpace,
        SpaceMismatch,
        StoreDamaged,
        StoreError,
        StoreLocked,
        StoreMissing,
        StoreVersion,
    )
    from indexes.join.exact import Recall
    from indexes.join.planner import Plan, Way
    from indexes.records import Choice, File, Image, Known, Root, Space, Stat
    from indexes.store import Batch, Joining, Store, check, repair
    from indexes.upkeep.compaction import Compaction
    from indexes.upkeep.migration import Begun
    from indexes.upkeep.repair import Finding, Repair
    from indexes.vectors.segments import Scored, alike, cosines

_HOMES = {
    "upkeep.compaction": ("Compaction",),
    "upkeep.repair": ("Finding", "Repair"),
    "errors": (
        "BadThreshold",
        "BadVector",
        "NoSpace",
        "SpaceMismatch",
        "StoreDamaged",
        "StoreError",
        "StoreLocked",
        "StoreMissing",
        "StoreVersion",
    ),
    "catalog.verdicts": ("CROWD", "Judged"),
    "join.exact": ("Recall",),
    "join.planner": ("Plan", "Way"),
    "records": ("Choice", "File", "Image", "Known", "Root", "Space", "Stat"),
    "vectors.segments": ("Scored", "alike", "cosines"),
    "store": ("Batch", "Joining", "Store", "check", "repair"),
    "upkeep.migration": ("Begun",),
    "caches.crops": ("Parts",),
    "caches.thumbnails": ("Thumb", "Thumbs"),
    "catalog.pairs": ("Frontier", "SegmentRow"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BadThreshold",
    "BadVector",
    "Batch",
    "Begun",
    "CROWD",
    "Choice",
    "Compaction",
    "File",
    "Finding",
    "Frontier",
    "Image",
    "Joining",
    "Judged",
    "Known",
    "NoSpace",
    "Parts",
    "Plan",
    "Recall",
    "Repair",
    "Root",
    "Scored",
    "SegmentRow",
    "Space",
    "SpaceMismatch",
    "Stat",
    "Store",
    "StoreDamaged",
    "StoreError",
    "StoreLocked",
    "StoreMissing",
    "StoreVersion",
    "Thumb",
    "Thumbs",
    "Way",
    "alike",
    "check",
    "cosines",
    "repair",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

"""What is on disk and how it is searched: unit vectors in FAISS inner-product segments, the truth in one SQLite catalog."""

from indexes.catalog import File, Image, Known, Root, Space, Stat
from indexes.compact import Compaction
from indexes.damage import Finding, Repair
from indexes.errors import BadVector, NoSpace, SpaceMismatch, StoreDamaged, StoreError, StoreLocked, StoreMissing, StoreVersion
from indexes.join import Recall
from indexes.plan import Plan, Way
from indexes.segments import Scored, cosines
from indexes.store import Batch, Joining, Store, check, repair
from indexes.vectors import Frontier, SegmentRow

__all__ = [
    "BadVector",
    "Batch",
    "Compaction",
    "File",
    "Finding",
    "Frontier",
    "Image",
    "Joining",
    "Known",
    "NoSpace",
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
    "Way",
    "check",
    "cosines",
    "repair",
]

"""What is on disk and how it is searched: unit vectors in FAISS inner-product segments, the truth in one SQLite catalog."""

from indexes.catalog import File, Image, Known, Root, SegmentRow, Space, Stat
from indexes.errors import BadVector, NoSpace, SpaceMismatch, StoreDamaged, StoreError, StoreLocked, StoreMissing, StoreVersion
from indexes.segments import Scored, cosines
from indexes.store import Batch, Store

__all__ = [
    "BadVector",
    "Batch",
    "File",
    "Image",
    "Known",
    "NoSpace",
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
    "cosines",
]

"""What a person chose for the groups of a store, in a database beside the catalog."""

from __future__ import annotations

from enum import StrEnum


class ReviewState(StrEnum):
    """What was chosen for a group. The values are stored, and printed unchanged."""

    ACCEPTED = "accepted"  # all but the keeper may go
    KEPT_ALL = "kept all"
    SEPARATED = "separated"  # decided not to be duplicates
    REJECTED = "rejected"  # a photo of it was thrown away
    SKIPPED = "skipped"

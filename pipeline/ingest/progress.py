"""The stages of an ingest, and the progress that it reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from indexes.coverage import Coverage
from indexes.join.planner import JoinPlan
from indexes.store import Store
from pipeline.decode.pool import DecoderPool
from pipeline.decode.read import Failure
from pipeline.embed.embedder import Embedder
from pipeline.embed.paid_calls import PaidCallEstimate
from pipeline.ingest.coverage import EarlierProblems, IngestOptions


class Stage(StrEnum):
    """A stage of an ingest, in the order in which they run."""

    LISTING = "listing"  # counts files that the scan met
    READING = "reading"  # counts files that were decoded and embedded
    METADATA = "metadata"  # counts images whose metadata was read again
    JOINING = "joining"  # counts blocks of vectors, in units of the join
    VERIFYING = "verifying"  # counts pairs
    CROPPING = "cropping"  # counts images whose crops were embedded


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of an ingest: `done` of `total` items of a stage.

    `total` is None while files are listed and while crops are compared. `failure` is what just
    failed. `plan` comes with the join, and `paid_calls` once, before the first paid request.
    """

    stage: Stage
    done: int
    total: int | None
    coverage: Coverage
    failure: Failure | None = None
    plan: JoinPlan | None = None
    paid_calls: PaidCallEstimate | None = None


@dataclass(frozen=True, slots=True)
class IngestContext:
    """The resources that all steps of a run share, and the coverage that they fill in.

    `earlier` are the problems of the run before, `verified_images` those of pairs that this run
    verified, by id.
    """

    store: Store
    embedder: Embedder
    decoders: DecoderPool
    options: IngestOptions
    coverage: Coverage
    earlier: EarlierProblems = field(default_factory=EarlierProblems)
    verified_images: set[int] = field(default_factory=set)

"""The stages of an ingest after its files are stored: join new vectors, then verify new pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from indexes.caches.thumbnails import ThumbnailCache
from indexes.coverage import (
    CropReport,
    JoinReport,
    RecallReport,
    VerificationReport,
)
from indexes.store import Store
from pipeline.decode.formats import format_reason
from pipeline.ingest.progress import IngestContext, Progress, Stage
from pipeline.verify.verdict import VERDICT_VERSION


def find_pairs(context: IngestContext) -> Iterator[Progress]:
    """Find the pairs of new vectors, and report the join in the coverage."""
    for step in context.store.join(context.options.join_method):
        recall = None
        if step.recall:
            lower_bound = round(step.recall.lower_bound_95, 5)
            recall = RecallReport(step.recall.sampled, step.recall.found, lower_bound)
        plan = step.plan
        context.coverage.join = JoinReport(
            plan.method.value, plan.reason, plan.watermark.floor, step.pair_count, recall
        )
        yield Progress(Stage.JOINING, step.done, step.total, context.coverage, plan=plan)


def verify_new_pairs(context: IngestContext) -> Iterator[Progress]:
    """Verify the candidates without a verdict, then those that crops propose.

    Reports both in the coverage. Nothing is read if no file came or went since a run that verified
    all. Where one went, a pair that was left out can be a candidate.
    """
    store, coverage = context.store, context.coverage
    watermark = store.catalog.pairs.get_watermark()
    if watermark is None:
        return
    coverage.verification = VerificationReport(VERDICT_VERSION)
    # Crops are not embedded where each would cost a paid request.
    with_crops = context.options.with_crops and context.embedder.count_paid_calls(1) == 0
    has_come = coverage.new or coverage.changed or coverage.moved or coverage.embedded
    has_other_hubs = coverage.gone or coverage.left_out or coverage.metadata_read
    has_changes = has_come or has_other_hubs or coverage.join is not None
    if not has_changes and store.catalog.runs.is_fully_verified(
        VERDICT_VERSION, with_crops=with_crops
    ):
        coverage.crops = CropReport() if with_crops else None
        return
    tried = set[tuple[int, int]]()
    # A verdict that relates two images makes candidates of further pairs.
    while pairs := _find_untried_pairs(store, watermark.floor, tried):
        from pipeline.ingest.verify_pairs import verify_and_report  # loads OpenCV

        tried.update(pairs)
        yield from verify_and_report(context, pairs)
    yield from _verify_decided(context, coverage.verification, watermark.floor)
    if with_crops:
        from pipeline.ingest.crop_pairs import verify_crop_pairs  # loads OpenCV

        yield from verify_crop_pairs(context, watermark.floor, tried)
    _discard_unneeded_thumbnails(store)
    _warn_of_unfinished_pairs(context)


def _verify_decided(
    context: IngestContext, report: VerificationReport, floor: float
) -> Iterator[Progress]:
    """Verify what is near the rejected and other decided images that no file holds any more."""
    pairs = context.store.catalog.decisions.find_unverified_pairs(floor, VERDICT_VERSION)
    if pairs:
        from pipeline.ingest.verify_pairs import verify_and_report  # loads OpenCV

        unverified, provisional = report.unverified, report.provisional
        yield from verify_and_report(context, pairs)
        # Their files are gone for good: no later ingest could do more, so none is promised.
        report.unverified, report.provisional = unverified, provisional


def _find_untried_pairs(
    store: Store, floor: float, tried: Collection[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Find the candidates without a verdict that this run has not tried to verify."""
    pairs = store.catalog.verdicts.find_unverified_pairs(floor, VERDICT_VERSION)
    return [pair for pair in pairs if pair not in tried]


def _discard_unneeded_thumbnails(store: Store) -> None:
    """Discard the thumbnails of images that are in no pair and in no group.

    Should a later photo come near one of them, its file is decoded again.
    """
    with ThumbnailCache(store.folder, write=True) as thumbnails:
        thumbnails.discard(store.catalog.images.find_lone())


def _warn_of_unfinished_pairs(context: IngestContext) -> None:
    report = context.coverage.verification
    assert report is not None, "the caller begins the report"
    if report.unverified:
        one = report.unverified.total() == 1
        subject = "candidate pair" if one else "candidate pairs"
        _add_warning(context, report.unverified, f"{subject} could not be verified")
    if report.provisional:
        one = report.provisional.total() == 1
        subject = "copy" if one else "copies"
        _add_warning(
            context,
            report.provisional,
            f"{subject} could not be checked for upscaling, because the larger image is unreadable",
        )


def _add_warning(context: IngestContext, reasons: Counter[str], problem: str) -> None:
    listed = ", ".join(
        f"{count:,} {format_reason(reason)}" for reason, count in sorted(reasons.items())
    )
    context.coverage.warnings.append(
        f"{reasons.total():,} {problem} ({listed}); the next ingest tries again"
    )

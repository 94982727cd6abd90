"""STAGE 1: folders -> files -> pictures -> unit vectors -> store, in batches, safe to stop at any moment and to run again."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from indexes.caches.crops import CropCache
from indexes.join.planner import JoinPlan
from indexes.paths import format_command
from indexes.records import Root
from indexes.store import Store
from pipeline.decode.formats import RETRY_REASONS
from pipeline.decode.pool import DecoderPool
from pipeline.decode.read import Failure
from pipeline.embed.embedder import Embedder
from pipeline.embed.paid_calls import PaidCallEstimate
from pipeline.errors import RootNotFound
from pipeline.ingest.batch_writer import (
    BatchWriter,
    Coverage,
    CropReport,
    IngestOptions,
    JoinReport,
    RecallReport,
    UnreadablePath,
    VerificationReport,
)
from pipeline.ingest.reconcile import RootDiff, diff_root, files_under
from pipeline.scan import Skipped, SourceFile, is_below, scan
from pipeline.verify.verdict import VERDICT_VERSION

# Of what could not be looked at, for one and for several.
PAIR_WARNINGS = {
    "unverified": (
        "close pair was not verified, because of a photo",
        "close pairs were not verified, because of a photo",
    ),
    "provisional": (
        "copy may be no more than enlarged: its larger photo cannot be read",
        "copies may be no more than enlarged: the larger photos cannot be read",
    ),
}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ingest is: `done` of `total` files that must be read, total is None while folders are listed; then, in its own units, the
    join of what is new, with its `plan`. `failure`: what just failed.
    """

    done: int
    total: int | None
    coverage: Coverage
    failure: Failure | None = None
    plan: JoinPlan | None = None
    is_verifying: bool = False  # then of pairs that are looked at
    is_processing_crops: bool = False  # or of pictures whose parts are embedded
    paid_calls: PaidCallEstimate | None = None  # once, before the first request


@dataclass(frozen=True)
class ResolvedRoots:
    """The roots of a run, and the paths that were asked for but are no folders."""

    found: list[Root]
    absent_paths: list[str]


def resolve_roots(
    store: Store,
    paths: Sequence[str],
    excludes: Sequence[str] | None = None,
    hidden: bool | None = None,
) -> ResolvedRoots:
    """The roots to ingest: those at `paths` and what is remembered below them; with no `paths`, all that are remembered.

    A root that is known keeps its excludes and its view of hidden files unless new ones are given; an empty pattern clears them. Raises
    BadRoot when nothing is left to do.
    """
    known = {root.path: root for root in store.catalog.roots.list()}
    wanted, absent = list(known) if not paths else [], []
    for path in paths:
        real = os.path.realpath(path)
        if real == "/":
            raise RootNotFound("/ is the whole machine; name the folders that hold photos")
        if path and (real in known or os.path.isdir(real)):  # noqa: PTH112 - never raises, whatever a dead mount answers
            wanted.append(real)
        else:
            absent.append(path)
    if not wanted:
        listed = ", ".join(map(ascii, absent))
        raise RootNotFound(
            f"{listed} is no folder"
            if absent
            else f"no folder is remembered yet; name one: `{format_command(store.folder, 'ingest', 'FOLDER')}`"
        )
    roots = {path: root for path, root in known.items() if is_below(path, wanted)}
    for path in wanted:
        before = known.get(path, Root(path))
        patterns = (
            before.excludes
            if excludes is None
            else tuple(pattern for pattern in excludes if pattern)
        )
        roots[path] = Root(path, patterns, before.include_hidden if hidden is None else hidden)
    return ResolvedRoots(list(roots.values()), absent)


def ingest_roots(
    roots: Sequence[Root], store: Store, embedder: Embedder, options: IngestOptions | None = None
) -> Generator[Progress]:
    """Bring the store up to date with the files below `roots`, which are remembered. Safe to stop at any yield and to run again.

    A file is read again only when its size, times or inode changed; content that is known is never embedded again. Files that vanished
    leave the answers, but not those of a root that is away. The last Progress holds the whole coverage. Close the iterator before the store
    when stopping early: that commits what is embedded. Raises StoreLocked beside another ingest, and SpaceMismatch for an embedder of
    another space than the store's, which a migration may have changed while this waited.
    """
    options = options or IngestOptions()
    with store.lock_for_ingest(options.lock_timeout_seconds):
        yield from ingest_locked(roots, store, embedder, options)


def ingest_locked(
    roots: Sequence[Root], store: Store, embedder: Embedder, options: IngestOptions
) -> Generator[Progress]:
    """As ingest_roots, for one who has `store.exclusive` already, so that nobody changes the store's model after it was looked up."""
    roots = [
        Root(os.path.realpath(root.path), root.excludes, root.include_hidden) for root in roots
    ]
    store.prepare()
    store.add_roots(roots)
    coverage = Coverage()
    run = store.begin_run()
    outcome = "interrupted"
    try:
        yield from _ingest(roots, store, embedder, options, coverage)
        outcome = "complete"
    finally:
        store.end_run(run, outcome, coverage.as_dict())


@dataclass
class _ScanResult:
    """What a scan met: files to read, ids of known files, paths of those that changed and of those that
    are as they were but whose vector was lost.
    """

    to_read: list[SourceFile] = field(default_factory=list)
    known_file_ids: set[int] = field(default_factory=set)
    changed_paths: set[str] = field(default_factory=set)
    unembedded_paths: set[str] = field(default_factory=set)


def _ingest(
    roots: Sequence[Root],
    store: Store,
    embedder: Embedder,
    options: IngestOptions,
    coverage: Coverage,
) -> Iterator[Progress]:
    present = [root for root in roots if os.path.isdir(root.path)]  # noqa: PTH112 - never raises, whatever a dead mount answers
    seen = _ScanResult()
    with DecoderPool(options.decoders, options.readers) as decoders:
        yield from _scan(present, store, seen, coverage, decoders)
        remembered = store.catalog.roots.list()
        unreadable = [one.path for one in coverage.unreadable_paths]
        losses = [
            diff_root(store, root, remembered, seen.known_file_ids, unreadable) for root in present
        ]
        writer = BatchWriter(
            store, embedder, options, coverage, seen.changed_paths, seen.unembedded_paths, losses
        )
        if seen.to_read:
            estimate = writer.require_consent(len(seen.to_read))
            store.bind(embedder.space, embedder.name)
            yield Progress(0, len(seen.to_read), coverage, paid_calls=estimate)
            with writer:
                # Two batches ahead: decoding goes on while one is embedded, and while the model is loaded for the first.
                for done, result in enumerate(
                    decoders.stream(
                        seen.to_read, embedder.preprocess, writer.claim, 2 * writer.batch_size
                    ),
                    1,
                ):
                    writer.add(result)
                    yield Progress(
                        done,
                        len(seen.to_read),
                        coverage,
                        result if isinstance(result, Failure) else None,
                    )

        for loss in losses:
            _apply_diff(store, loss, writer.moved_file_ids, options, coverage)
        for root in roots:
            if root not in present:
                _apply_absent_root(store, root, remembered, options, coverage)
        yield from find_pairs(store, options, coverage)
        yield from verify_new_pairs(store, embedder, decoders, options, coverage)
        compaction = store.compact()
        if compaction.bytes_written or compaction.vectors_dropped:
            coverage.compaction = compaction
        yield Progress(len(seen.to_read), len(seen.to_read), coverage)


def find_pairs(store: Store, options: IngestOptions, coverage: Coverage) -> Iterator[Progress]:
    """Find the pairs that new pictures make; notes in the coverage how."""
    for now in store.join(options.join_method):
        recall = None
        if now.recall:
            recall = RecallReport(
                now.recall.sampled, now.recall.found, round(now.recall.lower_bound_95, 5)
            )
        plan = now.plan
        coverage.join = JoinReport(
            plan.method.value, plan.reason, plan.watermark.floor, now.pair_count, recall
        )
        yield Progress(now.done, now.total, coverage, plan=now.plan)


def verify_new_pairs(
    store: Store,
    embedder: Embedder,
    decoders: DecoderPool,
    options: IngestOptions,
    coverage: Coverage,
) -> Iterator[Progress]:
    """Verify the pairs that nobody has looked at, those of pictures within pictures last; notes in the coverage what they are."""
    frontier = store.catalog.pairs.get_watermark()
    if frontier is None:
        return
    coverage.verification = VerificationReport(VERDICT_VERSION)
    inside = options.with_crops and embedder.count_paid_calls(1) == 0
    # Where no file came since the last run had looked at all, nothing is read to know it.
    came = coverage.join is not None or coverage.new or coverage.changed or coverage.moved
    if not came and store.catalog.runs.is_fully_verified(VERDICT_VERSION, with_crops=inside):
        coverage.crops = CropReport() if inside else None
        return
    pairs = store.catalog.verdicts.find_unverified_pairs(frontier.floor, VERDICT_VERSION)
    yield from _verify(store, pairs, decoders, options, coverage)
    if inside:
        yield from _verify_crops(
            store, embedder, frontier.floor, pairs, decoders, options, coverage
        )
    for name, said in PAIR_WARNINGS.items():
        counts: Counter[str] = getattr(coverage.verification, name)
        if number := counts.total():
            why = ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()))
            coverage.warnings.append(
                f"{number:,} {said[number > 1]} ({why}); the next ingest tries again"
            )


def _verify(
    store: Store,
    pairs: Sequence[tuple[int, int]],
    decoders: DecoderPool,
    options: IngestOptions,
    coverage: Coverage,
) -> Iterator[Progress]:
    told = coverage.verification
    if not pairs or told is None:
        return
    from pipeline.ingest.verify_pairs import verify_candidates  # loads OpenCV

    before = replace(told)
    for now in verify_candidates(store, pairs, decoders, options.decoders):
        told.pairs = before.pairs + now.done
        told.relations = before.relations + now.relations
        told.unverified = before.unverified + now.unverified
        told.provisional = before.provisional + now.provisional
        yield Progress(now.done, now.total, coverage, is_verifying=True)


def _verify_crops(
    store: Store,
    embedder: Embedder,
    floor: float,
    tried_pairs: Sequence[tuple[int, int]],
    decoders: DecoderPool,
    options: IngestOptions,
    coverage: Coverage,
) -> Iterator[Progress]:
    """Compare parts of pictures with whole ones, and verify the pairs that come of it, but for those that were tried already."""
    from pipeline.embed import crops as inside

    space = store.space
    if space is None or store.catalog.files.get_counts().images > inside.MAX_IMAGES_FOR_CROPS:
        coverage.crops = CropReport()
        coverage.warnings.append(
            f"pictures within pictures are looked for among {inside.MAX_IMAGES_FOR_CROPS:,} pictures at most; these were only compared whole"
        )
        return
    with CropCache(store.folder, space, write=True) as parts:
        lacking = (
            inside.find_images_without_crops(store, parts, embedder)
            if embedder.space == space
            else []
        )
        for done in (
            inside.fill_crop_cache(store, parts, embedder, lacking, decoders) if lacking else ()
        ):
            yield Progress(done, len(lacking), coverage, is_processing_crops=True)
        pairs = [np.empty((0, 2), np.int64)]
        if not store.catalog.runs.has(parts.run_key):  # the catalog began anew, or was brought back
            parts.replace_compared_images({}, None)
        images = inside.load_comparable_images(store, parts)
        for found in inside.propose_pairs(store, parts, images):
            pairs.append(found)
            yield Progress(0, None, coverage, is_processing_crops=True)
        seen, proposed = set(tried_pairs), np.concatenate(pairs)
        new = [
            pair
            for pair in store.catalog.verdicts.find_unverified_pairs(
                floor, VERDICT_VERSION, proposed
            )
            if pair not in seen
        ]
        yield from _verify(store, new, decoders, options, coverage)
        # A pair that could not be looked at is proposed again the next time: nothing else would.
        waits = set[tuple[int, int]]()
        if coverage.verification and coverage.verification.unverified:
            waits = set(
                store.catalog.verdicts.find_unverified_pairs(floor, VERDICT_VERSION, proposed)
            ) - set(store.catalog.verdicts.find_unverified_pairs(floor, VERDICT_VERSION))
        waiting = {image for pair in waits for image in pair}
        again = {image.hash for _, image in store.catalog.images.get(waiting)}
        parts.replace_compared_images(
            {hash_: about for hash_, about in images.items() if hash_ not in again},
            store.catalog.runs.get_newest_key(),
        )
        left = [
            id_
            for id_, image in store.catalog.images.get(lacking)
            if not images.get(image.hash, (0, False))[1]
        ]
        coverage.crops = CropReport(sum(has_parts for _, has_parts in images.values()), len(left))


def _scan(
    roots: Sequence[Root],
    store: Store,
    scan_result: _ScanResult,
    coverage: Coverage,
    decoders: DecoderPool,
) -> Iterator[Progress]:
    found_again: dict[int, int] = {}
    lost = store.catalog.images.find_unembedded()
    for found in scan(roots):
        if isinstance(found, Skipped):
            (coverage.failed if found.is_failure else coverage.skipped)[found.reason] += 1
            if found.is_failure:
                coverage.unreadable_paths.append(
                    UnreadablePath(found.path, found.reason, found.detail)
                )
                failure = Failure(SourceFile(found.path), found.reason, found.detail)
                yield Progress(coverage.seen, None, coverage, failure)
            continue
        coverage.seen += 1
        known = store.catalog.files.get_by_path(found.path)
        if known:
            scan_result.known_file_ids.add(known.id)
        if (
            known
            and found.is_unchanged_since(known.stat)
            and known.reason not in RETRY_REASONS
            and known.image_id not in lost
        ):
            if known.reason is None:
                coverage.unchanged += 1
            else:
                coverage.count(known.reason)
            device = found.require_stat().device
            if known.is_missing or device != known.stat.device:
                found_again[known.id] = device
        else:
            scan_result.to_read.append(found)
            decoders.start(len(scan_result.to_read))  # they are ready when the scan is done
            if known and known.image_id in lost and found.is_unchanged_since(known.stat):
                scan_result.unembedded_paths.add(found.path)
            elif known:
                scan_result.changed_paths.add(found.path)
        if coverage.seen % 500 == 0:
            yield Progress(coverage.seen, None, coverage)
    if found_again:
        store.mark_present(found_again)


def _apply_diff(
    store: Store,
    diff: RootDiff,
    moved_file_ids: Collection[int],
    options: IngestOptions,
    coverage: Coverage,
) -> None:
    """Take files out of the answers that are not below a root any more, unless it looks as if their drive is away."""
    away = {
        known.id for known in (() if options.accept_missing else diff.find_missing(moved_file_ids))
    }
    if away:
        store.mark_missing(away)
        coverage.missing += len(away)
        coverage.warnings.append(
            f"{len(away)} of {diff.file_count} files below {ascii(diff.root.path)} are missing; is a drive away?"
            " They stay in the answers, marked. If they are deleted, run again with --accept-missing"
        )
    gone = [
        known.id
        for known in diff.vanished
        if known.id not in away and known.id not in moved_file_ids
    ]
    coverage.gone += len(gone)
    coverage.left_out += len(diff.left_out)
    store.remove_files(gone + diff.left_out)


def _apply_absent_root(
    store: Store,
    root: Root,
    known_roots: Sequence[Root],
    options: IngestOptions,
    coverage: Coverage,
) -> None:
    """Mark the files of a root that is away, or forget it with them when that was asked for by its name."""
    held = [known.id for known in files_under(store, root, known_roots)]
    if root.path in options.roots_to_remove:
        store.remove_files(held)
        store.remove_root(root.path)
        coverage.gone += len(held)
    else:
        store.mark_missing(held)
        coverage.missing += len(held)
        coverage.absent_roots.append(root.path)

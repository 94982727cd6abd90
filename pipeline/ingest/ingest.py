"""Ingest folders: scan, decode, embed, store, join, verify, compact.

Every stage commits as it goes, so an ingest may stop at any moment and be run again.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from indexes.caches.thumbnails import ThumbnailCache
from indexes.coverage import Coverage, RejectedPath, UnreadablePath
from indexes.paths import quote
from indexes.records import FLAG_DAMAGED, CatalogFile, Root, RunOutcome
from indexes.store import Store
from pipeline.decided import find_rejected
from pipeline.decode.formats import RETRY_REASONS
from pipeline.decode.pool import DecoderPool
from pipeline.decode.read import Failure
from pipeline.embed.embedder import Embedder
from pipeline.ingest.batch_writer import BatchWriter, FileHistory
from pipeline.ingest.coverage import (
    EarlierProblems,
    IngestOptions,
    count_without_image,
    is_failure,
)
from pipeline.ingest.metadata import read_missing_metadata
from pipeline.ingest.pairs import find_pairs, verify_new_pairs
from pipeline.ingest.progress import IngestContext, Progress, Stage
from pipeline.ingest.reconcile import RootDiff, apply_absent_root, apply_diff, diff_root
from pipeline.ingest.roots import is_folder
from pipeline.name_rules import NameRules
from pipeline.scan import Skipped, SourceFile, scan_by_rules

# Files between two reports of a scan.
FILES_PER_SCAN_REPORT = 500


def ingest_roots(
    roots: Sequence[Root], store: Store, embedder: Embedder, options: IngestOptions | None = None
) -> Generator[Progress]:
    """Bring the store up to date with the files below `roots`, and remember the roots.

    A file is read again only if its size, times or inode changed; content that the store has is
    never embedded again. Vanished files leave the answers, but not the files of an absent root.
    The last Progress holds the whole coverage.

    Safe to stop at any yield and to run again. To stop early, close the iterator before the
    store: that commits what was embedded. Raises StoreLocked beside another ingest, and
    SpaceMismatch if the store has another space than the embedder, perhaps because a migration
    ended while this waited for the lock.
    """
    options = options or IngestOptions()
    with store.lock_for_ingest(options.lock_timeout_seconds):
        yield from ingest_locked(roots, store, embedder, options)


def ingest_locked(
    roots: Sequence[Root], store: Store, embedder: Embedder, options: IngestOptions
) -> Generator[Progress]:
    """Ingest `roots` like ingest_roots, for a caller that holds the ingest lock of the store.

    Such a caller can choose the embedder by the model of the store, which no one else changes.
    """
    roots = [
        Root(os.path.realpath(root.path), root.excludes, root.include_hidden) for root in roots
    ]
    store.prepare()
    store.add_roots(roots)
    coverage = Coverage()
    earlier = EarlierProblems.from_run(store.catalog.runs.get_last())
    run_id = store.begin_run()
    outcome = RunOutcome.INTERRUPTED
    try:
        with DecoderPool(options.decoders, options.readers) as decoders:
            yield from _run_stages(
                IngestContext(store, embedder, decoders, options, coverage, earlier), roots
            )
        outcome = RunOutcome.COMPLETE
    finally:
        store.end_run(run_id, outcome, coverage)


def _run_stages(context: IngestContext, roots: Sequence[Root]) -> Iterator[Progress]:
    store, coverage = context.store, context.coverage
    present = [root for root in roots if is_folder(root.path)]

    # Before the scan, which has images that are decoded in another way now embedded again.
    yield from read_missing_metadata(context)
    scanned = _ScanResult()
    rules = [NameRules(root) for root in present]
    yield from _scan(context, rules, scanned)
    absent = [root for root in roots if root not in present]
    coverage.warnings += _warn_of_unused_excludes(rules, absent)

    known_roots = store.catalog.roots.list()
    unreadable = [unreadable.path for unreadable in coverage.unreadable_paths]
    diffs = [
        diff_root(store, root, known_roots, scanned.known_file_ids, unreadable) for root in present
    ]
    history = FileHistory(
        scanned.changed_paths,
        scanned.unembedded_paths,
        scanned.failed_paths,
        _list_moved_failures(diffs) if context.earlier.are_known else frozenset(),
        diffs,
    )
    moved_file_ids = set[int]()
    if scanned.to_read:
        with ThumbnailCache(store.folder, write=True) as thumbnails:
            writer = BatchWriter(
                store, context.embedder, context.options, coverage, history, thumbnails
            )
            yield from _read_files(context, scanned.to_read, writer)
        moved_file_ids = writer.moved_file_ids

    for diff in diffs:
        apply_diff(store, diff, moved_file_ids, context)
    for root in absent:
        apply_absent_root(store, root, known_roots, context)

    yield from find_pairs(context)
    yield from verify_new_pairs(context)
    # After a run that was stopped, and in an older store, no pair may have been compared.
    has_compared_all = context.earlier.are_known and not coverage.metadata_read
    if coverage.verification and (coverage.verification.pairs or not has_compared_all):
        from pipeline.ingest.bit_rot import flag_rotten_copies  # loads Pillow

        new_images = context.verified_images if has_compared_all else None
        for _ in flag_rotten_copies(context, new_images):
            coverage.flagged[FLAG_DAMAGED] += 1
            yield Progress(Stage.VERIFYING, 1, 1, coverage)

    coverage.rejected = [
        RejectedPath(rejected.path, rejected.relation, rejected.decision.id)
        for rejected in find_rejected(store, [root.path for root in roots])
    ]
    compaction = store.compact()
    if compaction.bytes_written or compaction.vectors_dropped:
        coverage.compaction = compaction
    file_count = len(scanned.to_read)
    yield Progress(Stage.READING, file_count, file_count, coverage)


@dataclass
class _ScanResult:
    """The outcome of a scan: the files to read, and what the catalog has of the files seen."""

    to_read: list[SourceFile] = field(default_factory=list)
    known_file_ids: set[int] = field(default_factory=set)
    changed_paths: set[str] = field(default_factory=set)
    # Paths of unchanged files whose image has no vector.
    unembedded_paths: set[str] = field(default_factory=set)
    # Paths of files of equal size that failed in a run before, and are tried again.
    failed_paths: set[str] = field(default_factory=set)


def _scan(
    context: IngestContext, rules: Sequence[NameRules], scanned: _ScanResult
) -> Iterator[Progress]:
    """List the files below the roots, count those that need no reading, and collect the others."""
    store, coverage, earlier = context.store, context.coverage, context.earlier
    present_devices: dict[int, int] = {}  # of unchanged files to mark as present, by id
    unembedded_images = store.catalog.images.find_unembedded()
    for entry in scan_by_rules(rules):
        if isinstance(entry, Skipped):
            if failure := _count_skipped(entry, context):
                yield Progress(Stage.LISTING, coverage.seen, None, coverage, failure)
            continue
        coverage.seen += 1
        known = store.catalog.files.get_by_path(entry.path)
        if known:
            scanned.known_file_ids.add(known.id)
        if known and _is_up_to_date(known, entry, unembedded_images):
            if known.reason is None:
                coverage.unchanged += 1
            else:
                count_without_image(coverage, known.reason)
                coverage.new_problems += is_failure(known.reason) and not earlier.are_known
            device = entry.require_stat().device
            if known.is_missing or device != known.stat.device:
                present_devices[known.id] = device
        else:
            scanned.to_read.append(entry)
            context.decoders.start(len(scanned.to_read))  # so that they are ready after the scan
            if known and earlier.are_known and _failed_before(known, entry):
                scanned.failed_paths.add(entry.path)
            if known and _has_lost_vector(known, entry, unembedded_images):
                scanned.unembedded_paths.add(entry.path)
            elif known:
                scanned.changed_paths.add(entry.path)
        if coverage.seen % FILES_PER_SCAN_REPORT == 0:
            yield Progress(Stage.LISTING, coverage.seen, None, coverage)
    if present_devices:
        store.mark_present(present_devices)


def _warn_of_unused_excludes(
    rules: Sequence[NameRules], absent_roots: Sequence[Root]
) -> Iterator[str]:
    """Yield a warning for each exclude that matched nothing below any root that has it.

    A root that is away, or empty as the folder of a drive is that is not mounted, shows nothing.
    """
    unused = dict.fromkeys(
        pattern for of_root in rules if of_root.has_names for pattern in of_root.find_unused()
    )
    for pattern in unused:
        with_pattern = [of_root for of_root in rules if of_root.has_exclude(pattern)]
        if all(pattern in of_root.find_unused() for of_root in with_pattern) and not any(
            pattern in root.excludes for root in absent_roots
        ):
            yield (
                f"no file or folder matches the exclude {quote(pattern)}; name a file or folder,"
                " or its path below the folder that is ingested"
            )


def _count_skipped(skipped: Skipped, context: IngestContext) -> Failure | None:
    """Count an entry that the scan skipped; return a failure if the user should act on it."""
    coverage = context.coverage
    if not skipped.is_failure:
        coverage.skipped[skipped.reason] += 1
        return None
    coverage.failed[skipped.reason] += 1
    coverage.new_problems += skipped.path not in context.earlier.unreadable_paths
    coverage.unreadable_paths.append(UnreadablePath(skipped.path, skipped.reason, skipped.detail))
    return Failure(SourceFile(skipped.path), skipped.reason, skipped.detail)


def _is_up_to_date(known: CatalogFile, file: SourceFile, unembedded_images: set[int]) -> bool:
    return (
        file.is_unchanged_since(known.stat)
        and known.reason not in RETRY_REASONS
        and known.image_id not in unembedded_images
    )


def _failed_before(known: CatalogFile, file: SourceFile) -> bool:
    """Tell if a file of this size failed before, touched since or not."""
    return is_failure(known.reason) and file.require_stat().size == known.stat.size


def _list_moved_failures(diffs: Sequence[RootDiff]) -> frozenset[tuple[int, int, int]]:
    """Return (inode, size, time of modification) of the failed files that have vanished."""
    return frozenset(
        (file.stat.inode, file.stat.size, file.stat.mtime_ns)
        for diff in diffs
        for file in diff.vanished
        if is_failure(file.reason)
    )


def _has_lost_vector(known: CatalogFile, file: SourceFile, unembedded_images: set[int]) -> bool:
    return known.image_id in unembedded_images and file.is_unchanged_since(known.stat)


def _read_files(
    context: IngestContext, files: Sequence[SourceFile], writer: BatchWriter
) -> Iterator[Progress]:
    """Decode, embed and store files, after the user agreed to pay for it where it costs money."""
    embedder, coverage, total = context.embedder, context.coverage, len(files)
    paid_calls = writer.require_consent(total)
    context.store.bind(embedder.space, embedder.name)
    yield Progress(Stage.READING, 0, total, coverage, paid_calls=paid_calls)
    # Two batches ahead: files are decoded while a batch is embedded, and while the model is
    # loaded for the first one.
    prefetch = 2 * writer.batch_size
    preprocess = replace(embedder.preprocess, with_thumbnail=True)
    results = context.decoders.stream(files, preprocess, writer.claim, prefetch)
    # Closed here after an error: the garbage collector may run in a thread of the generator, which
    # cannot wait for itself.
    with writer, closing(results):
        for done, result in enumerate(results, 1):
            writer.add(result)
            failure = result if isinstance(result, Failure) else None
            yield Progress(Stage.READING, done, total, coverage, failure)

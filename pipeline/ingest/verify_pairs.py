"""Verify candidate pairs and store the verdicts.

Pairs are verified on the thumbnails of the store, so that a pair always has the same pixels,
whenever it is proposed. Only the upscale check of copies of other sizes reads a file, that of the
larger image. While that file is away the verdict is provisional, and a later run repeats only the
check.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from indexes.caches.thumbnails import ThumbnailCache
from indexes.paths import CACHES_NAME, VERIFYING_MARKER_NAME
from indexes.store import Store
from pipeline.decode.decode import Decoded
from pipeline.decode.formats import FailureReason
from pipeline.decode.pool import DecoderPool
from pipeline.ingest.progress import IngestContext, Progress, Stage
from pipeline.thumbnails import ImageUnavailable, Thumbnails, UnavailableReason, read_images
from pipeline.verify.inputs import CRASHED_VERIFIER_REASON, build_verify_input, load_features
from pipeline.verify.pool import MAX_ITEMS_WITHOUT_WORKERS, VerifierPool
from pipeline.verify.upscaling import (
    CENTER_FULL_RES,
    CenterSpectra,
    UpscaleCheck,
    compute_spectra_from_decoded,
)
from pipeline.verify.verdict import VERDICT_VERSION, Verdict, decode_verdict, encode_verdict

# Pairs that are verified together and committed at once; an ingest that is stopped waits for them.
PAIRS_PER_BLOCK = 200
# Reasons for an unread file that may not hold in the next run.
RETRYABLE_REASONS = (
    UnavailableReason.AWAY,
    UnavailableReason.CHANGED,
    FailureReason.UNREADABLE,
)
# Spectra in memory: 40 MB.
MAX_CACHED_SPECTRA = 5_000


@dataclass
class VerificationProgress:
    """The progress of a verification: `done` of `total` pairs.

    `relations` counts the verdicts, `unverified` by reason the pairs that could not be verified,
    and `provisional` by reason the verdicts whose upscale check is still due.
    """

    done: int
    total: int
    relations: Counter[str] = field(default_factory=Counter)
    unverified: Counter[str] = field(default_factory=Counter)
    provisional: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class PairVerdict:
    """A verdict on two images, by id.

    `retry_reason` says why the upscale check has to be repeated; None if it is done, or cannot
    succeed.
    """

    first: int
    second: int
    verdict: Verdict
    retry_reason: str | None = None


def verify_and_report(
    context: IngestContext, pairs: Sequence[tuple[int, int]]
) -> Iterator[Progress]:
    """Verify pairs of images, by id, and add the counts to the verification of the coverage."""
    report = context.coverage.verification
    assert report is not None, "the caller begins the report"
    before = replace(report)
    yield Progress(Stage.VERIFYING, 0, len(pairs), context.coverage)
    context.verified_images.update(image for pair in pairs for image in pair)
    steps = verify_candidates(
        context.store,
        pairs,
        context.decoders,
        context.options.decoders,
        had_crash=CRASHED_VERIFIER_REASON in before.unverified,
    )
    for step in steps:
        report.pairs = before.pairs + step.done
        report.relations = before.relations + step.relations
        report.unverified = before.unverified + step.unverified
        report.provisional = before.provisional + step.provisional
        yield Progress(Stage.VERIFYING, step.done, step.total, context.coverage)


def verify_candidates(
    store: Store,
    pairs: Sequence[tuple[int, int]],
    decoders: DecoderPool,
    worker_count: int | None = None,
    *,
    had_crash: bool = False,
) -> Iterator[VerificationProgress]:
    """Verify pairs of images, by id, in `worker_count` processes; by default one per usable core.

    `had_crash`: an earlier pair of this ingest crashed a worker.
    A pair is left for the next run if one of its files is away, or changed since its ingest.
    Safe to stop at any yield: the verdicts counted so far are stored. The caller holds the ingest
    lock of the store.
    """
    progress = VerificationProgress(0, len(pairs))
    # The marker stays if this process is killed, or if a pair crashed a worker. As long as it
    # exists nothing is verified in this process, where a pair that crashes would end the ingest.
    marker = store.folder / CACHES_NAME / VERIFYING_MARKER_NAME
    max_without_workers = 0 if marker.exists() else MAX_ITEMS_WITHOUT_WORKERS
    with (
        ThumbnailCache(store.folder, write=True) as cache,
        VerifierPool(worker_count, max_without_workers) as verifiers,
    ):
        with suppress(OSError):
            marker.touch()
        thumbnails = Thumbnails(store, cache, decoders)
        completer = _VerdictCompleter(store, decoders)
        provisional_pairs = store.catalog.verdicts.find_provisional_pairs(VERDICT_VERSION)
        pending = deque[_PendingBlock]()
        for start in range(0, len(pairs), PAIRS_PER_BLOCK):
            block = pairs[start : start + PAIRS_PER_BLOCK]
            pending.append(_start_block(block, store, provisional_pairs, thumbnails, verifiers))
            # The thumbnails of a block are loaded while the block before it is verified.
            if len(pending) > 1:
                yield _finish_block(pending.popleft(), store, completer, progress)
        while pending:
            yield _finish_block(pending.popleft(), store, completer, progress)
    with suppress(OSError):
        if not had_crash and CRASHED_VERIFIER_REASON not in progress.unverified:
            marker.unlink()


@dataclass(frozen=True)
class _PendingBlock:
    """A block of pairs that is being verified.

    `pairs` are being verified, in the order of `wait_for_verdicts`; `upscale_checks` are
    provisional verdicts that lack only the upscale check; `unverified` has the reason of each pair
    that cannot be verified. Together they are the `pair_count` pairs of the block.
    """

    pair_count: int
    pairs: list[tuple[int, int]]
    upscale_checks: list[PairVerdict]
    unverified: list[str]
    wait_for_verdicts: Callable[[], list[Verdict | None]]


def _start_block(
    block: Sequence[tuple[int, int]],
    store: Store,
    provisional_pairs: Collection[tuple[int, int]],
    thumbnails: Thumbnails,
    verifiers: VerifierPool,
) -> _PendingBlock:
    """Load the inputs of a block and submit its pairs to the verifiers."""
    upscale_checks = _load_provisional_verdicts(block, store, provisional_pairs)
    checked = {frozenset((stored.first, stored.second)) for stored in upscale_checks}
    new_pairs = [pair for pair in block if frozenset(pair) not in checked]
    images = {image for pair in new_pairs for image in pair}
    loaded, failed = load_features(thumbnails, images, verifiers.extract_features)
    inputs = {id_: build_verify_input(*stored) for id_, stored in loaded.items()}
    pixel_hashes = {id_: image.pixel_hash for id_, (image, _) in loaded.items()}
    pairs = [_sort_by_hash(pair, pixel_hashes) for pair in new_pairs if inputs.keys() >= set(pair)]
    unverified = [
        failed[first if first in failed else second]
        for first, second in new_pairs
        if first in failed or second in failed
    ]
    wait = verifiers.submit_pairs([(inputs[first], inputs[second]) for first, second in pairs])
    return _PendingBlock(len(block), pairs, upscale_checks, unverified, wait)


def _load_provisional_verdicts(
    block: Sequence[tuple[int, int]],
    store: Store,
    provisional_pairs: Collection[tuple[int, int]],
) -> list[PairVerdict]:
    """Load the verdicts of the pairs of a block that are provisional, in either order."""
    verdicts = []
    for first, second in block:
        for pair in ((first, second), (second, first)):
            if pair in provisional_pairs:
                stored = store.catalog.verdicts.get(*pair)
                verdicts.append(PairVerdict(stored.first, stored.second, decode_verdict(stored)))
    return verdicts


def _sort_by_hash(pair: tuple[int, int], pixel_hashes: Mapping[int, bytes]) -> tuple[int, int]:
    """Sort a pair by its pixels, so that its verdict does not depend on the order of ingestion.

    Nor on which of several files with equal pixels is verified: the last digits differ by the side.
    """
    first, second = pair
    return pair if pixel_hashes[first] < pixel_hashes[second] else (second, first)


def _finish_block(
    block: _PendingBlock, store: Store, completer: _VerdictCompleter, progress: VerificationProgress
) -> VerificationProgress:
    """Wait for the verdicts of a block, complete them, store them, and count them in `progress`."""
    verdicts = block.wait_for_verdicts()
    verified = [
        PairVerdict(first, second, verdict)
        for (first, second), verdict in zip(block.pairs, verdicts, strict=True)
        if verdict is not None
    ]
    new = completer.complete(verified)
    completed = completer.complete(block.upscale_checks)
    # A provisional verdict that could not be completed is stored already.
    to_store = new + [pair for pair in completed if pair.retry_reason is None]
    store.save_verdicts(
        encode_verdict(
            pair.first,
            pair.second,
            pair.verdict,
            is_provisional=pair.retry_reason is not None,
        )
        for pair in to_store
    )
    crashed = [CRASHED_VERIFIER_REASON] * (len(verdicts) - len(verified))
    progress.done += block.pair_count
    progress.relations.update(pair.verdict.relation for pair in to_store)
    progress.unverified.update(block.unverified + crashed)
    progress.provisional.update(
        pair.retry_reason for pair in new + completed if pair.retry_reason is not None
    )
    return progress


class _VerdictCompleter:
    """Completes verdicts by the upscale check; keeps the spectra that it computed."""

    def __init__(self, store: Store, decoders: DecoderPool) -> None:
        self._store = store
        self._decoders = decoders
        self._spectra: dict[int, CenterSpectra | ImageUnavailable] = {}  # by image id

    def complete(self, verdicts: Sequence[PairVerdict]) -> list[PairVerdict]:
        """Return the verdicts in their order, completed where the larger image can be read."""
        if len(self._spectra) > MAX_CACHED_SPECTRA:
            self._spectra.clear()
        check = UpscaleCheck({(pair.first, pair.second): pair.verdict for pair in verdicts})
        self._load_spectra(check.larger_images - self._spectra.keys())
        completed = check.apply(
            {
                id_: spectrum
                for id_ in check.larger_images
                if isinstance(spectrum := self._spectra.get(id_), CenterSpectra)
            }
        )
        return [
            PairVerdict(
                first,
                second,
                verdict,
                self._find_retry_reason(check.get_larger_image((first, second))),
            )
            for (first, second), verdict in completed.items()
        ]

    def _find_retry_reason(self, larger_image: int | None) -> str | None:
        if larger_image is None:
            return None
        result = self._spectra.get(larger_image, ImageUnavailable(UnavailableReason.AWAY))
        if isinstance(result, ImageUnavailable) and result.reason in RETRYABLE_REASONS:
            return result.reason
        return None

    def _load_spectra(self, image_ids: Collection[int]) -> None:
        images = dict(self._store.catalog.images.get(image_ids))
        for id_, result in read_images(self._store, self._decoders, images, CENTER_FULL_RES):
            self._spectra[id_] = (
                compute_spectra_from_decoded(result) if isinstance(result, Decoded) else result
            )

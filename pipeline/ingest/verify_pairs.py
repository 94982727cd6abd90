"""STAGE 1, its end: candidates that nobody has looked at yet are verified, and what was found is kept.

Pictures are verified as they are kept in the store's thumbs: the same pixels, whenever a pair comes up. Only of copies of other sizes is
the larger one's file read again, to see whether it was only enlarged; where that is away, a later run does this alone.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from indexes.caches.cache import CACHE_FOLDER
from indexes.caches.thumbnails import ThumbnailCache
from indexes.store import Store
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.thumbnails import Thumbnails, read_images
from pipeline.verify.inputs import POISONED_VERIFIER, build_verify_input, load_features
from pipeline.verify.pool import MAX_ITEMS_WITHOUT_WORKERS, VerifierPool
from pipeline.verify.relation import Side
from pipeline.verify.upscaling import (
    CENTER_FULL_RES,
    RadialSpectrum,
    larger_side,
    radial_spectrum,
    with_upscaling,
)
from pipeline.verify.verdict import VERDICT_VERSION, Verdict, decode_verdict, encode_verdict

PAIRS_PER_BLOCK = 400  # pairs that are verified together, and kept in one commit
RETRYABLE_REASONS = ("away", "changed", "unreadable")  # what may be otherwise the next time
MAX_CACHED_SPECTRA = 5_000  # pictures whose details are held: 40 MB


@dataclass
class VerificationProgress:
    """How far it is: pairs `done` of `total`, those with each relation, why others could not be looked at, and why it is not known of some
    with a relation whether the larger one was only enlarged.
    """

    done: int
    total: int
    relations: Counter[str] = field(default_factory=Counter)
    unverified: Counter[str] = field(default_factory=Counter)
    provisional: Counter[str] = field(default_factory=Counter)


def verify_candidates(
    store: Store,
    pairs: Sequence[tuple[int, int]],
    decoders: DecoderPool,
    worker_count: int | None = None,
) -> Iterator[VerificationProgress]:
    """Look at pairs of the store's images, by id, on `count` cores; all by default.

    A pair whose photos are away, or changed since they were ingested, stays for the next time. Stop it at any yield: what was yielded is
    kept. Call it with `store.exclusive` held.
    """
    looked, begun = VerificationProgress(0, len(pairs)), deque[_PendingBlock]()
    # It stays where this process is ended, and where something ends those that verify: then nothing is looked at in this one the next time.
    mark = store.folder / CACHE_FOLDER / "verifying"
    few = 0 if mark.exists() else MAX_ITEMS_WITHOUT_WORKERS
    with (
        ThumbnailCache(store.folder, write=True) as thumbs,
        VerifierPool(worker_count, few) as verifiers,
    ):
        with suppress(OSError):
            mark.touch()
        pictures, details = Thumbnails(store, thumbs, decoders), _UpscaleChecker(store, decoders)
        unsure = store.catalog.verdicts.find_provisional_pairs(VERDICT_VERSION)
        for start in range(0, len(pairs), PAIRS_PER_BLOCK):
            begun.append(
                _start_block(
                    pairs[start : start + PAIRS_PER_BLOCK], store, unsure, pictures, verifiers
                )
            )
            if (
                len(begun) > 1
            ):  # the pictures of one block are fetched while the block before it is verified
                yield _finish_block(begun.popleft(), store, details, looked)
        while begun:
            yield _finish_block(begun.popleft(), store, details, looked)
    with suppress(OSError):
        if POISONED_VERIFIER not in looked.unverified:
            mark.unlink()


@dataclass(frozen=True)
class _PendingBlock:
    """`pairs` that are being verified, and what gives their evidence; those that `lack` only a look at the larger; and why those of others,
    of `count` in all, cannot be looked at.
    """

    pair_count: int
    pairs: list[tuple[int, int]]
    upscale_checks: list[tuple[int, int, Verdict]]
    unverified: list[str]
    wait_for_verdicts: Callable[[], list[Verdict | None]]


def _start_block(
    block: Sequence[tuple[int, int]],
    store: Store,
    provisional_pairs: Collection[tuple[int, int]],
    thumbnails: Thumbnails,
    verifiers: VerifierPool,
) -> _PendingBlock:
    """`unsure`: pairs, the first first, of which only the larger is to be looked at again."""
    count = len(block)
    lack = [
        store.catalog.verdicts.get(*pair)
        for one, other in block
        for pair in ((one, other), (other, one))
        if pair in provisional_pairs
    ]
    done = {frozenset((one.first, one.second)) for one in lack}
    block = [pair for pair in block if frozenset(pair) not in done]
    found, failed = load_features(
        thumbnails, {image for pair in block for image in pair}, verifiers.extract_features
    )
    drawings = {id_: build_verify_input(*one) for id_, one in found.items()}
    # By the order of contents, not of their coming, so that evidence does not depend on it.
    pairs = [
        (one, other) if drawings[one].hash < drawings[other].hash else (other, one)
        for one, other in block
        if one in drawings and other in drawings
    ]
    unseen = [
        failed[one if one in failed else other]
        for one, other in block
        if one in failed or other in failed
    ]
    return _PendingBlock(
        count,
        pairs,
        [(one.first, one.second, decode_verdict(one)) for one in lack],
        unseen,
        verifiers.submit_pairs([(drawings[first], drawings[second]) for first, second in pairs]),
    )


def _finish_block(
    block: _PendingBlock,
    store: Store,
    upscale_checker: _UpscaleChecker,
    progress: VerificationProgress,
) -> VerificationProgress:
    """What was found is kept, and counted in `looked`."""
    told = [
        (*pair, evidence)
        for pair, evidence in zip(block.pairs, block.wait_for_verdicts(), strict=True)
    ]
    verified = [
        (first, second, evidence) for first, second, evidence in told if evidence is not None
    ]
    new, again = upscale_checker.check(verified), upscale_checker.check(block.upscale_checks)
    judged = new + [one for one in again if not one[-1]]
    store.save_verdicts(
        encode_verdict(first, second, evidence, is_provisional=bool(unsure))
        for first, second, evidence, unsure in judged
    )
    progress.done += block.pair_count
    progress.relations.update(evidence.relation for _, _, evidence, _ in judged)
    progress.unverified.update(block.unverified + [POISONED_VERIFIER] * (len(told) - len(verified)))
    progress.provisional.update(unsure for *_, unsure in new + again if unsure)
    return progress


class _UpscaleChecker:
    """Which of two copies was only made larger, by a closer look at the larger one's file."""

    def __init__(self, store: Store, decoders: DecoderPool) -> None:
        self._store, self._decoders = store, decoders
        self._spectra: dict[int, RadialSpectrum | str] = {}  # or why there is none

    def check(
        self, verdicts: Sequence[tuple[int, int, Verdict]]
    ) -> list[tuple[int, int, Verdict, str]]:
        """The same, with what is known of it; and why another look is due, where the larger one's file is away."""
        if len(self._spectra) > MAX_CACHED_SPECTRA:
            self._spectra.clear()
        sides = [larger_side(evidence) for *_, evidence in verdicts]
        larger = [
            None if side is None else first if side is Side.FIRST else second
            for side, (first, second, _) in zip(sides, verdicts, strict=True)
        ]
        self._load_spectra(
            {image for image in larger if image is not None and image not in self._spectra}
        )
        done = []
        for (first, second, evidence), side, image in zip(verdicts, sides, larger, strict=True):
            detail = self._spectra.get(image, "away") if image is not None else ""
            if side is None or isinstance(detail, str):
                assert isinstance(detail, str)
                done.append(
                    (first, second, evidence, detail if detail in RETRYABLE_REASONS else "")
                )
            else:
                done.append((first, second, with_upscaling(evidence, side, detail), ""))
        return done

    def _load_spectra(self, images: Collection[int]) -> None:
        about = dict(self._store.catalog.images.get(images))
        for id_, result in read_images(self._store, self._decoders, about, CENTER_FULL_RES):
            self._spectra[id_] = (
                radial_spectrum(result.pixels, (about[id_].width, about[id_].height))
                if isinstance(result, Decoded)
                else result.reason
            )

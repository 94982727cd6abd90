"""STAGE 1, its end: candidates that nobody has looked at yet are verified, and what was found is kept.

Pictures are verified as they are kept in the store's thumbs: the same pixels, whenever a pair comes up. Only of copies of other sizes is
the larger one's file read again, to see whether it was only enlarged; where that is away, a later run does this alone.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from indexes import Store, Thumbs
from indexes.caches.cache import FOLDER
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import Decoders
from pipeline.thumbnails import Pictures, read_images
from pipeline.verify.inputs import POISONED, drawing, sketched
from pipeline.verify.pool import FEW, Verifiers
from pipeline.verify.upscaling import CLOSE, Detail, detailed, larger, seen
from pipeline.verify.verdict import FIRST, SECOND, VERSION, Evidence, evidence_of, kept

BLOCK = 400  # pairs that are verified together, and kept in one commit
AWAY = ("away", "changed", "unreadable")  # what may be otherwise the next time
MOST = 5_000  # pictures whose details are held: 40 MB


@dataclass
class Looked:
    """How far it is: pairs `done` of `total`, those with each relation, why others could not be looked at, and why it is not known of some
    with a relation whether the larger one was only enlarged.
    """

    done: int
    total: int
    found: Counter[str] = field(default_factory=Counter)
    unseen: Counter[str] = field(default_factory=Counter)
    unsure: Counter[str] = field(default_factory=Counter)


def verify_candidates(store: Store, pairs: Sequence[tuple[int, int]], decoders: Decoders, count: int | None = None) -> Iterator[Looked]:
    """Look at pairs of the store's images, by id, on `count` cores; all by default.

    A pair whose photos are away, or changed since they were ingested, stays for the next time. Stop it at any yield: what was yielded is
    kept. Call it with `store.exclusive` held.
    """
    looked, begun = Looked(0, len(pairs)), deque[_Begun]()
    # It stays where this process is ended, and where something ends those that verify: then nothing is looked at in this one the next time.
    mark = store.folder / FOLDER / "verifying"
    few = 0 if mark.exists() else FEW
    with Thumbs(store.folder, write=True) as thumbs, Verifiers(count, few) as verifiers:
        with suppress(OSError):
            mark.touch()
        pictures, details = Pictures(store, thumbs, decoders), _Details(store, decoders)
        unsure = store.catalog.judged_by(-VERSION)
        for start in range(0, len(pairs), BLOCK):
            begun.append(_begun(pairs[start : start + BLOCK], store, unsure, pictures, verifiers))
            if len(begun) > 1:  # the pictures of one block are fetched while the block before it is verified
                yield _kept(begun.popleft(), store, details, looked)
        while begun:
            yield _kept(begun.popleft(), store, details, looked)
    with suppress(OSError):
        if POISONED not in looked.unseen:
            mark.unlink()


@dataclass(frozen=True)
class _Begun:
    """`pairs` that are being verified, and what gives their evidence; those that `lack` only a look at the larger; and why those of others,
    of `count` in all, cannot be looked at.
    """

    count: int
    pairs: list[tuple[int, int]]
    lack: list[tuple[int, int, Evidence]]
    unseen: list[str]
    evidence: Callable[[], list[Evidence | None]]


def _begun(
    block: Sequence[tuple[int, int]], store: Store, unsure: Collection[tuple[int, int]], pictures: Pictures, verifiers: Verifiers
) -> _Begun:
    """`unsure`: pairs, the first first, of which only the larger is to be looked at again."""
    count = len(block)
    lack = [store.catalog.judged(*pair) for one, other in block for pair in ((one, other), (other, one)) if pair in unsure]
    done = {frozenset((one.first, one.second)) for one in lack}
    block = [pair for pair in block if frozenset(pair) not in done]
    found, failed = sketched(pictures, {image for pair in block for image in pair}, verifiers.features)
    drawings = {id_: drawing(*one) for id_, one in found.items()}
    # By the order of contents, not of their coming, so that evidence does not depend on it.
    pairs = [
        (one, other) if drawings[one].hash < drawings[other].hash else (other, one)
        for one, other in block
        if one in drawings and other in drawings
    ]
    unseen = [failed[one if one in failed else other] for one, other in block if one in failed or other in failed]
    return _Begun(
        count,
        pairs,
        [(one.first, one.second, evidence_of(one)) for one in lack],
        unseen,
        verifiers.verifying([(drawings[first], drawings[second]) for first, second in pairs]),
    )


def _kept(begun: _Begun, store: Store, details: _Details, looked: Looked) -> Looked:
    """What was found is kept, and counted in `looked`."""
    told = [(*pair, evidence) for pair, evidence in zip(begun.pairs, begun.evidence(), strict=True)]
    verified = [(first, second, evidence) for first, second, evidence in told if evidence is not None]
    new, again = details.of(verified), details.of(begun.lack)
    judged = new + [one for one in again if not one[-1]]
    store.judge(kept(first, second, evidence, whole=not unsure) for first, second, evidence, unsure in judged)
    looked.done += begun.count
    looked.found.update(evidence.relation for _, _, evidence, _ in judged)
    looked.unseen.update(begun.unseen + [POISONED] * (len(told) - len(verified)))
    looked.unsure.update(unsure for *_, unsure in new + again if unsure)
    return looked


class _Details:
    """Which of two copies was only made larger, by a closer look at the larger one's file."""

    def __init__(self, store: Store, decoders: Decoders) -> None:
        self._store, self._decoders = store, decoders
        self._seen: dict[int, Detail | str] = {}  # or why there is none

    def of(self, looked: Sequence[tuple[int, int, Evidence]]) -> list[tuple[int, int, Evidence, str]]:
        """The same, with what is known of it; and why another look is due, where the larger one's file is away."""
        if len(self._seen) > MOST:
            self._seen.clear()
        sides = [larger(evidence) for *_, evidence in looked]
        of = [{FIRST: first, SECOND: second}.get(side) for side, (first, second, _) in zip(sides, looked, strict=True)]
        self._read({image for image in of if image is not None and image not in self._seen})
        done = []
        for (first, second, evidence), side, image in zip(looked, sides, of, strict=True):
            detail = self._seen.get(image, "away") if image is not None else ""
            if isinstance(detail, str):
                done.append((first, second, evidence, detail if detail in AWAY else ""))
            else:
                done.append((first, second, detailed(evidence, side, detail), ""))
        return done

    def _read(self, images: Collection[int]) -> None:
        about = dict(self._store.catalog.images(images))
        for id_, result in read_images(self._store, self._decoders, about, CLOSE):
            self._seen[id_] = seen(result.view, (about[id_].width, about[id_].height)) if isinstance(result, Decoded) else result

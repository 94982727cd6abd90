"""STAGE 1: folders -> files -> pictures -> unit vectors -> store, in batches, safe to stop at any moment and to run again."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from indexes import Parts, Plan, Root, Store
from indexes.paths import command
from pipeline.decode.pool import Decoders
from pipeline.decode.read import RETRIED, Failure
from pipeline.embed.embedder import Embedder
from pipeline.errors import BadRoot
from pipeline.ingest.batch_writer import Coverage, IngestOptions, Writer, affordable
from pipeline.ingest.reconcile import Loss, find_loss, held_by
from pipeline.scan import NOTHING, Passed, SourceFile, is_below, scan
from pipeline.verify.verdict import VERSION

# Of what could not be looked at, for one and for several.
SAID = {
    "unseen": ("close pair was not verified, because of a photo", "close pairs were not verified, because of a photo"),
    "unsure": (
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
    plan: Plan | None = None
    verifying: bool = False  # then of pairs that are looked at
    parts: bool = False  # or of pictures whose parts are embedded
    calls: int = 0  # said once, before the first: how many paid requests it will take at most


@dataclass(frozen=True)
class Roots:
    """The roots of a run, and the paths that were asked for but are no folders."""

    found: list[Root]
    absent: list[str]


def resolve_roots(store: Store, paths: Sequence[str], excludes: Sequence[str] | None = None, hidden: bool | None = None) -> Roots:
    """The roots to ingest: those at `paths` and what is remembered below them; with no `paths`, all that are remembered.

    A root that is known keeps its excludes and its view of hidden files unless new ones are given; an empty pattern clears them. Raises
    BadRoot when nothing is left to do.
    """
    known = {root.path: root for root in store.catalog.roots()}
    wanted, absent = list(known) if not paths else [], []
    for path in paths:
        real = os.path.realpath(path)
        if real == "/":
            raise BadRoot("/ is the whole machine; name the folders that hold photos")
        if path and (real in known or os.path.isdir(real)):  # noqa: PTH112 - never raises, whatever a dead mount answers
            wanted.append(real)
        else:
            absent.append(path)
    if not wanted:
        listed = ", ".join(map(ascii, absent))
        raise BadRoot(
            f"{listed} is no folder" if absent else f"no folder is remembered yet; name one: `{command(store.folder, 'ingest', 'FOLDER')}`"
        )
    roots = {path: root for path, root in known.items() if is_below(path, wanted)}
    for path in wanted:
        before = known.get(path, Root(path))
        patterns = before.excludes if excludes is None else tuple(pattern for pattern in excludes if pattern)
        roots[path] = Root(path, patterns, before.hidden if hidden is None else hidden)
    return Roots(list(roots.values()), absent)


def ingest_roots(roots: Sequence[Root], store: Store, embedder: Embedder, options: IngestOptions | None = None) -> Generator[Progress]:
    """Bring the store up to date with the files below `roots`, which are remembered. Safe to stop at any yield and to run again.

    A file is read again only when its size, times or inode changed; content that is known is never embedded again. Files that vanished
    leave the answers, but not those of a root that is away. The last Progress holds the whole coverage. Close the iterator before the store
    when stopping early: that commits what is embedded. Raises StoreLocked beside another ingest, and SpaceMismatch for an embedder of
    another space than the store's, which a migration may have changed while this waited.
    """
    options = options or IngestOptions()
    with store.exclusive(options.wait_lock):
        yield from ingest_locked(roots, store, embedder, options)


def ingest_locked(roots: Sequence[Root], store: Store, embedder: Embedder, options: IngestOptions) -> Generator[Progress]:
    """As ingest_roots, for one who has `store.exclusive` already, so that nobody changes the store's model after it was looked up."""
    roots = [Root(os.path.realpath(root.path), root.excludes, root.hidden) for root in roots]
    store.prepare()
    store.remember(roots)
    coverage = Coverage()
    run = store.begin_run()
    outcome = "interrupted"
    try:
        yield from _ingest(roots, store, embedder, options, coverage)
        outcome = "complete"
    finally:
        store.end_run(run, outcome, coverage.as_dict())


@dataclass
class _Seen:
    """What a scan met: files to read, ids of known files, paths of those that changed and of those that
    are as they were but whose vector was lost.
    """

    todo: list[SourceFile] = field(default_factory=list)
    known: set[int] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)


def _ingest(roots: Sequence[Root], store: Store, embedder: Embedder, options: IngestOptions, coverage: Coverage) -> Iterator[Progress]:
    present = [root for root in roots if os.path.isdir(root.path)]  # noqa: PTH112 - never raises, whatever a dead mount answers
    seen = _Seen()
    with Decoders(options.decoders, options.readers) as decoders:
        yield from _scan(present, store, seen, coverage, decoders)
        remembered = store.catalog.roots()
        unreadable = [one["path"] for one in coverage.unseen]
        losses = [find_loss(store, root, remembered, seen.known, unreadable) for root in present]
        writer = Writer(store, embedder, options, coverage, seen.changed, seen.lost, losses)
        if seen.todo:
            calls = affordable(embedder, len(seen.todo), options)
            store.bind(embedder.space, embedder.name)
            yield Progress(0, len(seen.todo), coverage, calls=calls)
            with writer:
                # Two batches ahead: decoding goes on while one is embedded, and while the model is loaded for the first.
                for done, result in enumerate(decoders.stream(seen.todo, embedder.view, writer.wanted, 2 * writer.batch), 1):
                    writer.take(result)
                    yield Progress(done, len(seen.todo), coverage, result if isinstance(result, Failure) else None)

        for loss in losses:
            _settle(store, loss, writer.moved, options, coverage)
        for root in roots:
            if root not in present:
                _settle_absent(store, root, remembered, options, coverage)
        yield from find_pairs(store, options, coverage)
        yield from look(store, embedder, decoders, options, coverage)
        compaction = store.compact()
        if compaction.written or compaction.dropped:
            coverage.compaction = asdict(compaction)
        yield Progress(len(seen.todo), len(seen.todo), coverage)


def find_pairs(store: Store, options: IngestOptions, coverage: Coverage) -> Iterator[Progress]:
    """Find the pairs that new pictures make; notes in the coverage how."""
    for now in store.join(options.join):
        recall = {**asdict(now.recall), "at_least": round(now.recall.at_least, 5)} if now.recall else None
        coverage.join = {
            "way": now.plan.way.value,
            "why": now.plan.why,
            "floor": now.plan.frontier.floor,
            "pairs": now.pairs,
            "recall": recall,
        }
        yield Progress(now.done, now.total, coverage, plan=now.plan)


def look(store: Store, embedder: Embedder, decoders: Decoders, options: IngestOptions, coverage: Coverage) -> Iterator[Progress]:
    """Verify the pairs that nobody has looked at, those of pictures within pictures last; notes in the coverage what they are."""
    frontier = store.catalog.frontier()
    if frontier is None:
        return
    coverage.verification = {"version": VERSION, "pairs": 0, "found": {}, "unseen": {}, "unsure": {}}
    inside = options.parts and embedder.calls(1) == 0
    # Where no file came since the last run had looked at all, nothing is read to know it.
    came = coverage.join is not None or coverage.new or coverage.changed or coverage.moved
    if not came and store.catalog.is_verified(VERSION, parts=inside):
        coverage.parts = {"compared": 0, "lacking": 0} if inside else None
        return
    pairs = store.catalog.unjudged(frontier.floor, VERSION)
    yield from _verify(store, pairs, decoders, options, coverage)
    if inside:
        yield from _look_inside(store, embedder, frontier.floor, pairs, decoders, options, coverage)
    for name, said in SAID.items():
        if number := sum(coverage.verification[name].values()):
            why = ", ".join(f"{count:,} {reason}" for reason, count in coverage.verification[name].items())
            coverage.notes.append(f"{number:,} {said[number > 1]} ({why}); the next ingest tries again")


def _verify(
    store: Store, pairs: Sequence[tuple[int, int]], decoders: Decoders, options: IngestOptions, coverage: Coverage
) -> Iterator[Progress]:
    told = coverage.verification
    if not pairs or told is None:
        return
    from pipeline.ingest.verify_pairs import verify_candidates  # loads OpenCV

    before = {name: Counter(told[name]) for name in ("found", *SAID)}
    done = told["pairs"]
    for now in verify_candidates(store, pairs, decoders, options.decoders):
        told["pairs"] = done + now.done
        for name in ("found", *SAID):
            told[name] = dict(sorted((before[name] + getattr(now, name)).items()))
        yield Progress(now.done, now.total, coverage, verifying=True)


def _look_inside(
    store: Store,
    embedder: Embedder,
    floor: float,
    tried: Sequence[tuple[int, int]],
    decoders: Decoders,
    options: IngestOptions,
    coverage: Coverage,
) -> Iterator[Progress]:
    """Compare parts of pictures with whole ones, and verify the pairs that come of it, but for those that were tried already."""
    from pipeline.embed import crops as inside

    space = store.space
    if space is None or store.catalog.counts().images > inside.MOST:
        coverage.parts = {"compared": 0, "lacking": 0}
        coverage.notes.append(
            f"pictures within pictures are looked for among {inside.MOST:,} pictures at most; these were only compared whole"
        )
        return
    with Parts(store.folder, space, write=True) as parts:
        lacking = inside.lacking(store, parts, embedder) if embedder.space == space else []
        for done in inside.embed_parts(store, parts, embedder, lacking, decoders) if lacking else ():
            yield Progress(done, len(lacking), coverage, parts=True)
        pairs = [np.empty((0, 2), np.int64)]
        if not store.catalog.has_run(parts.run):  # the catalog began anew, or was brought back
            parts.note({}, "")
        images = inside.wanted(store, parts)
        for found in inside.propose(store, parts, images):
            pairs.append(found)
            yield Progress(0, None, coverage, parts=True)
        seen, proposed = set(tried), np.concatenate(pairs)
        new = [pair for pair in store.catalog.unjudged(floor, VERSION, proposed) if pair not in seen]
        yield from _verify(store, new, decoders, options, coverage)
        # A pair that could not be looked at is proposed again the next time: nothing else would.
        waits = set[tuple[int, int]]()
        if coverage.verification and coverage.verification["unseen"]:
            waits = set(store.catalog.unjudged(floor, VERSION, proposed)) - set(store.catalog.unjudged(floor, VERSION))
        waiting = {image for pair in waits for image in pair}
        again = {image.hash for _, image in store.catalog.images(waiting)}
        parts.note({hash_: about for hash_, about in images.items() if hash_ not in again}, store.catalog.newest_run())
        left = [id_ for id_, image in store.catalog.images(lacking) if not images.get(image.hash, (0, False))[1]]
        coverage.parts = {"compared": sum(has_parts for _, has_parts in images.values()), "lacking": len(left)}


def _scan(roots: Sequence[Root], store: Store, seen: _Seen, coverage: Coverage, decoders: Decoders) -> Iterator[Progress]:
    found_again: dict[int, int] = {}
    lost = store.catalog.unembedded()
    for found in scan(roots):
        if isinstance(found, Passed):
            (coverage.failed if found.trouble else coverage.skipped)[found.reason] += 1
            if found.trouble:
                coverage.unseen.append({"path": found.path, "reason": found.reason, "detail": found.detail})
                failure = Failure(SourceFile(found.path, NOTHING), found.reason, found.detail)
                yield Progress(coverage.seen, None, coverage, failure)
            continue
        coverage.seen += 1
        known = store.catalog.known(found.path)
        if known:
            seen.known.add(known.id)
        if known and found.stat.unchanged(known.stat) and known.reason not in RETRIED and known.image not in lost:
            if known.reason is None:
                coverage.unchanged += 1
            else:
                coverage.count(known.reason)
            if known.missing or found.stat.device != known.stat.device:
                found_again[known.id] = found.stat.device
        else:
            seen.todo.append(found)
            decoders.start(len(seen.todo))  # they are ready when the scan is done
            if known and known.image in lost and found.stat.unchanged(known.stat):
                seen.lost.add(found.path)
            elif known:
                seen.changed.add(found.path)
        if coverage.seen % 500 == 0:
            yield Progress(coverage.seen, None, coverage)
    if found_again:
        store.found(found_again)


def _settle(store: Store, loss: Loss, moved: Collection[int], options: IngestOptions, coverage: Coverage) -> None:
    """Take files out of the answers that are not below a root any more, unless it looks as if their drive is away."""
    away = {known.id for known in (() if options.accept_missing else loss.away(moved))}
    if away:
        store.missing(away)
        coverage.missing += len(away)
        coverage.notes.append(
            f"{len(away)} of {loss.held} files below {ascii(loss.root.path)} are missing; is a drive away?"
            " They stay in the answers, marked. If they are deleted, run again with --accept-missing"
        )
    gone = [known.id for known in loss.vanished if known.id not in away and known.id not in moved]
    coverage.gone += len(gone)
    coverage.left_out += len(loss.left_out)
    store.remove(gone + loss.left_out)


def _settle_absent(store: Store, root: Root, remembered: Sequence[Root], options: IngestOptions, coverage: Coverage) -> None:
    """Mark the files of a root that is away, or forget it with them when that was asked for by its name."""
    held = [known.id for known in held_by(store, root, remembered)]
    if root.path in options.forget:
        store.remove(held)
        store.forget(root.path)
        coverage.gone += len(held)
    else:
        store.missing(held)
        coverage.missing += len(held)
        coverage.absent_roots.append(root.path)

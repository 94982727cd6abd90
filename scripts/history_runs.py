"""Run histories of a library, and compare the groups at the end with those of one ingest."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

from PIL import Image
from threadpoolctl import threadpool_limits

from indexes import Root, Store
from pipeline import IngestOptions, find_groups, ingest_roots, load_embedder
from pipeline.embed.embedder import Embedder
from pipeline.report.groups import serialize_groups
from pipeline.verify.relation import COPY_RELATIONS, REPORTED_RELATIONS
from scripts.cached_stages import CachingEmbedder, StageCache, cache_stages
from scripts.history_pictures import save_pictures
from scripts.library_histories import ROOTS, Ending, Library, Night

# Blocks are small, so that there are many moments at which an ingest can end.
PAIRS_PER_BLOCK = 6
JOIN_BLOCK_ROWS = 5
# Of --few-candidates: the nearest, the likeliest originals, and arbitrary images.
FEW_CANDIDATES = {"FIRST_NEAREST": 2, "MAX_NEAREST": 3, "MAX_LARGEST": 1, "MAX_ARBITRARY": 1}

Groups = list[dict[str, Any]]  # as JSON


@dataclass
class HistoryContext:
    """The resources that all histories share.

    `contents` are names of files in `pictures`, a folder within `scratch`.
    """

    scratch: Path
    contents: list[str]
    cache: StageCache
    embedder: Embedder
    few_candidates: bool = False

    @property
    def pictures(self) -> Path:
        """The folder of the contents."""
        return self.scratch / "pictures"


@contextmanager
def make_small_steps(*, few_candidates: bool) -> Iterator[None]:
    """Have the ingests of this process work in small blocks, with a commit after each.

    With one thread for algebra: for matrices this small, more only wait for each other.
    """
    with ExitStack() as patches:
        patches.enter_context(threadpool_limits(1))
        patches.enter_context(
            patch("pipeline.ingest.verify_pairs.PAIRS_PER_BLOCK", PAIRS_PER_BLOCK)
        )
        patches.enter_context(patch("indexes.join.exact.BLOCK_ROWS", JOIN_BLOCK_ROWS))
        patches.enter_context(patch("indexes.join.join.MAX_UNCOMMITTED_SECONDS", -1.0))
        for name, limit in FEW_CANDIDATES.items() if few_candidates else ():
            patches.enter_context(patch(f"indexes.catalog.candidates.{name}", limit))
        yield


def run_night(context: HistoryContext, night: Night, library: Library, store: Path) -> bool:
    """Change the library and ingest it; tell if the ingest completed."""
    for change in night.changes:
        library.apply(change)
    task = (context.cache, night, library.folder, store, context.few_candidates)
    if night.ending is Ending.KILLED:
        process = FORKSERVER.Process(target=ingest_until_killed, args=task)
        process.start()
        process.join()
        if process.exitcode not in (0, -signal.SIGKILL):
            raise SystemExit(f"an ingest failed with {process.exitcode}: {night}")
        return process.exitcode == 0
    return ingest_night(context.embedder, night, library.folder, store)


def ingest_night(
    embedder: Embedder,
    night: Night,
    library: Path,
    store_folder: Path,
    after_step: Callable[[int], None] = lambda step: None,
) -> bool:
    """Ingest the roots of a night; a stopped ingest is closed as by Ctrl-C. Tell if it
    completed."""
    options = IngestOptions(
        batch_size=night.batch_size,
        commit_images=night.batch_size,
        decoders=1,
        accept_missing=night.accept_missing,
    )
    roots = [Root(str(library / root)) for root in night.roots]
    with Store(store_folder, write=True) as store:
        progress = ingest_roots(roots, store, embedder, options)
        steps = islice(progress, night.steps if night.ending is Ending.STOPPED else None)
        for number, _ in enumerate(steps, start=1):
            after_step(number)
        is_stopped = next(progress, None) is not None
        progress.close()
        if night.compact:
            store.compact(full=True)
    return not is_stopped


def ingest_until_killed(
    cache: StageCache, night: Night, library: Path, store: Path, few_candidates: bool
) -> None:
    """Ingest the roots of a night in this process, and kill it on the way."""

    def kill(step: int) -> None:
        if step == night.steps:
            os.kill(os.getpid(), signal.SIGKILL)

    if night.failpoint:
        os.environ["NEARDUP_FAILPOINT"] = f"{night.failpoint}:{night.steps}"
    embedder = CachingEmbedder(load_embedder(), cache)
    with cache_stages(cache), make_small_steps(few_candidates=few_candidates):
        ingest_night(
            embedder, night, library, store, (lambda step: None) if night.failpoint else kill
        )


FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["scripts.history_runs", "faiss", "pipeline.verify.verify"])


def read_groups(store_folder: Path) -> list[Groups]:
    """Read the groups of a store as JSON: those of copies, and those of all relations."""
    with Store(store_folder) as store:
        return [
            serialize_groups(find_groups(store, relations=relations), None, None, {})["groups"]
            for relations in (COPY_RELATIONS, REPORTED_RELATIONS)
        ]


@dataclass(frozen=True)
class Outcome:
    """The groups at the end of a history and those of one ingest; how many ingests ended how."""

    endings: Counter[Ending]
    nightly: list[Groups]
    at_once: list[Groups]

    @property
    def has_equal_groups(self) -> bool:
        """True if the law holds."""
        return self.nightly == self.at_once


def run_history(
    context: HistoryContext, history: Sequence[Night], *, is_uncached: bool = False
) -> Outcome:
    """Run a history in a new library, and ingest its last files into a store of their own.

    `is_uncached`: the latter computes everything again.
    """
    endings = Counter[Ending]()
    with (
        tempfile.TemporaryDirectory(dir=context.scratch) as name,
        make_small_steps(few_candidates=context.few_candidates),
    ):
        library, nightly, at_once = (
            Library(Path(name), context.pictures),
            *(Path(name) / store for store in ("nightly", "at once")),
        )
        with cache_stages(context.cache):
            for night in history:
                is_whole = run_night(context, night, library, nightly)
                endings[Ending.COMPLETE if is_whole else night.ending] += 1
        embedder = load_embedder() if is_uncached else context.embedder
        with nullcontext() if is_uncached else cache_stages(context.cache):
            ingest_night(embedder, history[-1], library.folder, at_once)
        return Outcome(endings, read_groups(nightly), read_groups(at_once))


def shrink_history(context: HistoryContext, history: Sequence[Night]) -> Sequence[Night]:
    """Leave out nights and changes, and complete ingests, as long as the groups differ."""
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for smaller in list_smaller_histories(history):
            if not run_history(context, smaller).has_equal_groups:
                history, is_smaller = smaller, True
                break
    return history


def list_smaller_histories(history: Sequence[Night]) -> Iterator[Sequence[Night]]:
    """Yield histories with a night or a change less, or with an ingest that completes."""
    for index in range(len(history) - 1):
        yield [*history[:index], *history[index + 1 :]]
    for index, night in enumerate(history[:-1]):
        variants = [
            replace(night, changes=(*night.changes[:at], *night.changes[at + 1 :]))
            for at in range(len(night.changes))
        ]
        variants.append(replace(night, ending=Ending.COMPLETE, compact=False, roots=ROOTS))
        for variant in variants:
            if variant != night:
                yield [*history[:index], variant, *history[index + 1 :]]


def prepare_context(
    scratch: Path,
    photos: Sequence[Image.Image],
    *,
    few_candidates: bool = False,
    only: Collection[str] = (),
) -> HistoryContext:
    """Save the pictures that are made of three photos, and fill the cache with their results.

    `only`: the names of the pictures to keep; by default all.
    """
    cache = StageCache()
    embedder = CachingEmbedder(load_embedder(), cache)
    (pictures := scratch / "pictures").mkdir()
    paths = save_pictures(pictures, photos)
    for path in paths:
        if only and path.name not in only:
            path.unlink()
    names = [path.name for path in paths if path.exists()]
    context = HistoryContext(scratch, names, cache, embedder, few_candidates)
    with cache_stages(cache), Store(scratch / "all", write=True) as store:
        for _ in ingest_roots([Root(str(pictures))], store, embedder, IngestOptions(decoders=1)):
            pass
    return context

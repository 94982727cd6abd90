"""What commands that write to a store begin with: it is opened, its model is chosen, and photos are ingested."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.console import print_message

if TYPE_CHECKING:
    from indexes.records import Space
    from indexes.store import Store
    from pipeline.embed.embedder import Embedder
    from pipeline.embed.paid_calls import PaidCallEstimate
    from pipeline.ingest.batch_writer import Coverage


def open_for_writing(store: Path, paths: Sequence[str] = ()) -> Store:
    """The store, brought to today's format, or made where there is a folder to fill it from: a mistyped name leaves nothing behind."""
    from indexes.errors import StoreMissing, StoreVersionMismatch
    from indexes.store import Store
    from pipeline.errors import RootNotFound

    if not any(os.path.isdir(path) for path in paths):  # noqa: PTH112 - never raises, whatever a dead mount answers
        try:
            Store(store).close()
        except StoreVersionMismatch:
            pass  # an older one is brought up to date below, and any other refused
        except StoreMissing:
            if paths:
                raise RootNotFound(f"{', '.join(map(ascii, paths))} is no folder") from None
            raise
    return Store(store, write=True)


def run_ingest(
    store: Store,
    paths: Sequence[str],
    model: str | None,
    excludes: Sequence[str],
    hidden: bool | None,
    accept_missing: bool,
    lock_timeout: float,
    join: str | None = None,
    crops: bool = True,
    decoders: int | None = None,
    readers: int = 1,
    threads: int | None = None,
    batch: int | None = None,
    verbose: bool = False,
    max_calls: int | None = None,
    allow_cost: bool = False,
) -> tuple[Coverage, list[str]]:
    """Ingest and show how it goes; returns the coverage and the real paths of the roots."""
    from indexes.join.planner import JoinMethod
    from indexes.paths import format_command
    from pipeline.cli.progress import StoppedBySignal, run_with_progress
    from pipeline.ingest.batch_writer import IngestOptions
    from pipeline.ingest.ingest import ingest_locked, resolve_roots
    from pipeline.report.answers import pluralize
    from pipeline.report.status import format_extra_hints
    from pipeline.workers.cpus import count_usable_cores

    named = {os.path.realpath(path) for path in paths}
    options = IngestOptions(
        batch_size=batch,
        decoders=decoders,
        readers=readers,
        accept_missing=accept_missing,
        roots_to_remove=frozenset(named) if accept_missing else frozenset[str](),
        join_method=JoinMethod(join) if join else None,
        with_crops=crops,
        max_paid_calls=max_calls,
        accept_paid_calls=allow_cost,
    )
    before = store.space
    # From here on nobody else changes the store's folders and its model.
    with store.lock_for_ingest(lock_timeout), explain_model_errors(store, model):
        roots = resolve_roots(store, paths, excludes or None, hidden)
        embedder = _choose_embedder_after_wait(store, before, model, threads)
        if model is not None and store.space == embedder.space:
            store.bind(
                embedder.space, embedder.name
            )  # from today on its file is found there, even if nothing is new
        if verbose:
            cores = count_usable_cores()
            read = f"{pluralize(readers, 'file')} {'is' if readers == 1 else 'are'} read at a time"
            work = f"{pluralize(decoders or cores, 'process decodes', 'processes decode')}, {read}"
            print_message(
                f"{embedder.name}: {pluralize(threads or cores, 'thread')}, batches of {batch or embedder.batch_size}; {work}"
            )
        try:
            coverage = run_with_progress(
                ingest_locked(roots.found, store, embedder, options), store.folder
            )
        except StoppedBySignal as stopped:
            print_message(
                "stopped; what was committed is kept, the same command goes on from there"
            )
            sys.exit(stopped.exit_code)
    coverage.absent_roots.extend(roots.absent_paths)
    for path in coverage.absent_roots:
        forget = format_command(store.folder, "ingest", path, "--accept-missing")
        known = (
            f"what is known of it stays in the answers, marked; if it is gone for good: `{forget}`"
        )
        print_message(
            f"neardup: {ascii(path)} is no folder{' now; ' + known if path not in roots.absent_paths else ''}"
        )
    for note in (*coverage.warnings, *format_extra_hints(coverage)):
        print_message(f"neardup: {note}")
    return coverage, [root.path for root in roots.found if root.path in named]


def announce_paid_calls(estimate: PaidCallEstimate) -> None:
    """Print how many paid requests a step takes at most; nothing where it takes none."""
    if estimate.calls:
        print_message(estimate.describe())


def require_consent_to_query(embedder: Embedder, file_count: int, allow_cost: bool) -> None:
    """Announce the paid requests of `file_count` files. Raises PaidCallLimit without consent."""
    from pipeline.embed.paid_calls import PaidCallBudget

    budget = PaidCallBudget(embedder, is_cost_accepted=allow_cost)
    estimate = budget.estimate(file_count)
    budget.require_consent(estimate, "ask about fewer files")
    announce_paid_calls(estimate)


def choose_embedder(
    store: Store | None, model: str | None, threads: int | None = None, unless_empty: bool = False
) -> Embedder:
    """The model that was asked for, else the store's own; a store is never left for another model unasked."""
    from pipeline.embed.embedder import DEFAULT_MODEL, load_embedder

    bound = store.model if store else None
    embedder = load_embedder(model if model is not None else bound or DEFAULT_MODEL, threads)
    if store and bound and model is not None and model != bound:
        store.require_space(embedder.space, unless_empty=unless_empty)
    return embedder


@contextmanager
def explain_model_errors(store: Store, model: str | None) -> Iterator[None]:
    """While a store is used with its own model, because `model` is none, say what became of that, where it cannot be used any more."""
    from indexes.errors import SpaceMismatch
    from pipeline.errors import UnusableModel

    bound, name = store.space, store.model
    try:
        yield
    except (SpaceMismatch, UnusableModel) as error:
        if model is not None or bound is None or name is None or store.space != bound:
            raise
        file = _parse_model_file(name)
        if isinstance(error, SpaceMismatch):
            raise SpaceMismatch(_format_model_change(store, bound, name, file)) from error
        if file is None or file.exists():
            raise
        found = name.removesuffix(str(file)) + str(Path("NEW") / file.name)
        raise UnusableModel(
            f"{error}. If its folder was moved: --model {found} is accepted where the weights are the same, and `ingest` remembers it"
        ) from error


def _parse_model_file(model: str) -> Path | None:
    """The file that a model's name names."""
    backend, _, rest = model.partition(":")
    path = rest if backend == "onnx" else rest.partition("@")[2] if backend == "open_clip" else ""
    return Path(path) if path else None


def _format_model_change(store: Store, bound_space: Space, name: str, file: Path | None) -> str:
    from indexes.paths import format_command
    from pipeline.embed.embedder import load_embedder

    now = load_embedder(name).space
    migrate = f"`{format_command(store.folder, 'migrate', '--model', name)}` embeds the photos again with what it is now"
    if file and now.weights != bound_space.weights:
        return f"{file} is no longer the file that {store.folder} was made with (sha256 {bound_space.weights[:12]}...); put it back, or {migrate}"
    return f"{name} is no longer what {store.folder} was made with: that was {bound_space}, and it is {now}; put it back, or {migrate}"


def _choose_embedder_after_wait(
    store: Store, previous_space: Space | None, model: str | None, threads: int | None
) -> Embedder:
    """As embedder_of(), of a store that had the space `before` when it was opened; says so where another ended in between."""
    from indexes.errors import SpaceMismatch
    from indexes.paths import format_command

    try:
        return choose_embedder(store, model, threads, unless_empty=True)
    except SpaceMismatch as error:
        if store.space == previous_space:
            raise
        migrate = format_command(store.folder, "migrate", "--model", model or "")
        raise SpaceMismatch(
            f"{store.folder} was brought to the model {store.model} while this waited for it, and --model says {model}; leave --model out"
            f" to go on with {store.model}, or bring the store to the other with `{migrate}`"
        ) from error

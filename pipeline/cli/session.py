"""Steps that commands share: open a store for writing, choose its model, ingest into it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.console import EXIT_SKIPPED, print_message, print_warning

if TYPE_CHECKING:
    from indexes.records import Space
    from indexes.store import Store
    from pipeline.cli.options import IngestArguments
    from pipeline.embed.embedder import Embedder
    from pipeline.embed.paid_calls import PaidCallEstimate
    from pipeline.ingest.coverage import Coverage
    from pipeline.ingest.roots import ResolvedRoots


def exit_for_problems(coverage: Coverage, arguments: IngestArguments) -> None:
    """Exit with EXIT_SKIPPED if an ingest had new problems; with --strict, if it had any."""
    if coverage.has_problems if arguments.strict else coverage.has_new_problems:
        sys.exit(EXIT_SKIPPED)


@dataclass(frozen=True)
class IngestResult:
    """The coverage of an ingest, and the real paths of the roots that were named for it."""

    coverage: Coverage
    root_paths: list[str]


def open_for_writing(store: Path, roots: Sequence[str] = ()) -> Store:
    """Open a store for writing and bring it to the current format.

    A store is created only if one of `roots` is a folder to fill it from, so that a mistyped path
    leaves nothing behind. Raises StoreMissing, or RootNotFound if roots were named.
    """
    from indexes.errors import StoreMissing, StoreVersionMismatch
    from indexes.store import Store
    from pipeline.errors import RootNotFound
    from pipeline.scan import explain_no_folder

    if not any(os.path.isdir(root) for root in roots):  # noqa: PTH112 - never raises
        try:
            Store(store).close()
        except StoreVersionMismatch:
            pass  # opening it for writing migrates an older store and refuses a newer one
        except StoreMissing:
            if roots:
                raise RootNotFound(", ".join(map(explain_no_folder, roots))) from None
            raise
    return Store(store, write=True)


def require_folders(paths: Sequence[str]) -> None:
    """Raise RootNotFound unless all paths are folders now; an absent one would seem empty."""
    from pipeline.errors import RootNotFound
    from pipeline.scan import explain_no_folder

    absent = [path for path in paths if not os.path.isdir(path)]  # noqa: PTH112 - never raises
    if absent:
        raise RootNotFound(", ".join(map(explain_no_folder, absent)))


def run_ingest(store: Store, roots: Sequence[str], arguments: IngestArguments) -> IngestResult:
    """Ingest folders (all that are remembered without any), showing progress and warnings.

    Exits with 128 + its number if a signal stopped the ingest.
    """
    from pipeline.cli.progress import StoppedBySignal, run_with_progress
    from pipeline.embed.model_errors import explain_model_errors
    from pipeline.ingest.ingest import ingest_locked
    from pipeline.ingest.roots import resolve_roots

    named = {os.path.realpath(root) for root in roots}
    options = arguments.to_ingest_options(named)
    space_before = store.space
    # While the lock is held, no other command changes the store's folders or its model.
    with (
        store.lock_for_ingest(options.lock_timeout_seconds),
        explain_model_errors(store, arguments.model),
    ):
        resolved = resolve_roots(store, roots, arguments.excludes or None, arguments.hidden)
        embedder = _choose_embedder_after_wait(
            store, space_before, arguments.model, arguments.threads
        )
        if arguments.model is not None and store.space == embedder.space:
            # Remembers where the file of the model is now, even if no image is new.
            store.bind(embedder.space, embedder.name)
        if arguments.verbose:
            _print_division_of_work(embedder, arguments)
        try:
            coverage = run_with_progress(
                ingest_locked(resolved.roots, store, embedder, options), store.folder
            )
        except StoppedBySignal as stopped:
            print_message(
                "stopped; nothing done so far is lost, and the same command continues from there"
            )
            sys.exit(stopped.exit_code)
    _print_ingest_warnings(store, coverage, resolved)
    return IngestResult(coverage, [root.path for root in resolved.roots if root.path in named])


def _print_division_of_work(embedder: Embedder, arguments: IngestArguments) -> None:
    from pipeline.report.format import pluralize
    from pipeline.workers.cpus import count_usable_cores

    cores = count_usable_cores()
    threads = pluralize(arguments.threads or cores, "thread")
    batches = f"batches of {arguments.batch or embedder.batch_size}"
    decoders = pluralize(arguments.decoders or cores, "decoder process", "decoder processes")
    readers = f"{pluralize(arguments.readers, 'file')} read at a time"
    print_message(f"{embedder.name}: {threads}, {batches}; {decoders}, {readers}")


def _print_ingest_warnings(store: Store, coverage: Coverage, resolved: ResolvedRoots) -> None:
    """Print what the ingest warns about, after adding named paths that are no folders to it."""
    from indexes.paths import format_command, quote
    from pipeline.report.ingest import format_extra_hints
    from pipeline.scan import explain_no_folder

    coverage.absent_roots.extend(resolved.absent_paths)
    coverage.new_problems += len(resolved.absent_paths)
    for path in coverage.absent_roots:
        if path in resolved.absent_paths:
            print_warning(explain_no_folder(path))
        else:
            forget = format_command(store.folder, "ingest", path, "--accept-missing")
            print_warning(
                f"{quote(path)} no longer exists as a folder; its images stay in the answers,"
                f" marked missing; if they are gone for good: `{forget}`"
            )
    for warning in (*coverage.warnings, *format_extra_hints(coverage)):
        print_warning(warning)


def announce_paid_calls(estimate: PaidCallEstimate) -> None:
    """Print how many paid requests a step takes at most; nothing if it takes none."""
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
    """Load the model that was named, else the store's own, else the default one.

    Raises SpaceMismatch for a named model of another space than the store's; with `unless_empty`
    only if the store has vectors.
    """
    from pipeline.embed.embedder import DEFAULT_MODEL, load_embedder

    bound_model = store.model if store else None
    embedder = load_embedder(model if model is not None else bound_model or DEFAULT_MODEL, threads)
    if store and bound_model and model is not None and model != bound_model:
        store.require_space(embedder.space, unless_empty=unless_empty)
    return embedder


def _choose_embedder_after_wait(
    store: Store, space_before: Space | None, model: str | None, threads: int | None
) -> Embedder:
    """Choose the embedder of a store whose space may have changed while this waited for its lock.

    `space_before` is the space from before the wait. Raises SpaceMismatch, which says so.
    """
    from indexes.errors import SpaceMismatch
    from indexes.paths import format_command

    try:
        return choose_embedder(store, model, threads, unless_empty=True)
    except SpaceMismatch as error:
        if store.space == space_before or model is None:
            raise
        migrate = format_command(store.folder, "migrate", "--model", model)
        raise SpaceMismatch(
            f"{store.folder} was migrated to {store.model} while this command waited, but --model"
            f" says {model}; leave --model out to continue with {store.model}, or migrate the store"
            f" again with `{migrate}`"
        ) from error

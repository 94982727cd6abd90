"""What commands that write to a store begin with: it is opened, its model is chosen, and photos are ingested."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.console import tell

if TYPE_CHECKING:
    from indexes import Space, Store
    from pipeline.embed.embedder import Embedder
    from pipeline.ingest.batch_writer import Coverage


def opened_to_write(store: Path, paths: Sequence[str] = ()) -> Store:
    """The store, brought to today's format, or made where there is a folder to fill it from: a mistyped name leaves nothing behind."""
    from indexes import Store, StoreMissing, StoreVersion
    from pipeline.errors import BadRoot

    if not any(os.path.isdir(path) for path in paths):  # noqa: PTH112 - never raises, whatever a dead mount answers
        try:
            Store(store).close()
        except StoreVersion:
            pass  # an older one is brought up to date below, and any other refused
        except StoreMissing:
            if paths:
                raise BadRoot(f"{', '.join(map(ascii, paths))} is no folder") from None
            raise
    return Store(store, write=True)


def ingested(
    store: Store,
    paths: Sequence[str],
    model: str | None,
    excludes: Sequence[str],
    hidden: bool | None,
    accept_missing: bool,
    wait_lock: float,
    join: str | None = None,
    parts: bool = True,
    decoders: int | None = None,
    readers: int = 1,
    threads: int | None = None,
    batch: int | None = None,
    verbose: bool = False,
    max_calls: int | None = None,
    yes: bool = False,
) -> tuple[Coverage, list[str]]:
    """Ingest and show how it goes; returns the coverage and the real paths of the roots."""
    from indexes import Way
    from indexes.paths import command
    from pipeline.cli.progress import Stopped, watch
    from pipeline.decode.pool import usable_cores
    from pipeline.ingest.batch_writer import IngestOptions
    from pipeline.ingest.ingest import ingest_locked, resolve_roots
    from pipeline.report.answers import counted
    from pipeline.report.status import unread_text

    named = {os.path.realpath(path) for path in paths}
    options = IngestOptions(
        batch=batch,
        decoders=decoders,
        readers=readers,
        accept_missing=accept_missing,
        forget=frozenset(named) if accept_missing else frozenset[str](),
        join=Way(join) if join else None,
        parts=parts,
        max_calls=max_calls,
        yes=yes,
    )
    before = store.space
    # From here on nobody else changes the store's folders and its model.
    with store.exclusive(wait_lock), own_model(store, model):
        roots = resolve_roots(store, paths, excludes or None, hidden)
        embedder = _embedder_after(store, before, model, threads)
        if model is not None and store.space == embedder.space:
            store.bind(embedder.space, embedder.name)  # from today on its file is found there, even if nothing is new
        if verbose:
            cores = usable_cores()
            read = f"{counted(readers, 'file')} {'is' if readers == 1 else 'are'} read at a time"
            work = f"{counted(decoders or cores, 'process decodes', 'processes decode')}, {read}"
            tell(f"{embedder.name}: {counted(threads or cores, 'thread')}, batches of {batch or embedder.batch}; {work}")
        try:
            coverage = watch(ingest_locked(roots.found, store, embedder, options), store.folder)
        except Stopped as stopped:
            tell("stopped; what was committed is kept, the same command goes on from there")
            sys.exit(stopped.exit_code)
    coverage.absent_roots.extend(roots.absent)
    for path in coverage.absent_roots:
        forget = command(store.folder, "ingest", path, "--accept-missing")
        known = f"what is known of it stays in the answers, marked; if it is gone for good: `{forget}`"
        tell(f"neardup: {ascii(path)} is no folder{' now; ' + known if path not in roots.absent else ''}")
    for note in (*coverage.notes, *unread_text(coverage)):
        tell(f"neardup: {note}")
    return coverage, [root.path for root in roots.found if root.path in named]


def agree_to_ask(embedder: Embedder, files: int, yes: bool, times: int = 1) -> None:
    """Say how many paid requests so many questions about so many files take at most. Raises TooManyCalls when nobody agreed to that."""
    from pipeline.embed.embedder import is_agreed
    from pipeline.errors import TooManyCalls
    from pipeline.report.answers import counted

    if calls := embedder.calls(files) * times:
        about = f"up to {counted(calls, 'paid request')} for {counted(files * times, 'file')}"
        if not is_agreed(calls, None, yes):
            raise TooManyCalls(f"{about} to {embedder.name}; say --yes to make them, or ask about fewer files")
        tell(about)


def embedder_of(store: Store | None, model: str | None, threads: int | None = None, unless_empty: bool = False) -> Embedder:
    """The model that was asked for, else the store's own; a store is never left for another model unasked."""
    from pipeline.embed.embedder import DEFAULT, load

    bound = store.model if store else None
    embedder = load(model if model is not None else bound or DEFAULT, threads)
    if store and bound and model is not None and model != bound:
        store.require(embedder.space, unless_empty=unless_empty)
    return embedder


@contextmanager
def own_model(store: Store, model: str | None) -> Iterator[None]:
    """While a store is used with its own model, because `model` is none, say what became of that, where it cannot be used any more."""
    from indexes import SpaceMismatch
    from pipeline.errors import BadModel

    bound, name = store.space, store.model
    try:
        yield
    except (SpaceMismatch, BadModel) as error:
        if model is not None or bound is None or name is None or store.space != bound:
            raise
        file = _file_of(name)
        if isinstance(error, SpaceMismatch):
            raise SpaceMismatch(_changed(store, bound, name, file)) from error
        if file is None or file.exists():
            raise
        found = name.removesuffix(str(file)) + str(Path("NEW") / file.name)
        raise BadModel(
            f"{error}. If its folder was moved: --model {found} is accepted where the weights are the same, and `ingest` remembers it"
        ) from error


def _file_of(model: str) -> Path | None:
    """The file that a model's name names."""
    backend, _, rest = model.partition(":")
    path = rest if backend == "onnx" else rest.partition("@")[2] if backend == "open_clip" else ""
    return Path(path) if path else None


def _changed(store: Store, bound: Space, name: str, file: Path | None) -> str:
    from indexes.paths import command
    from pipeline.embed.embedder import load

    now = load(name).space
    migrate = f"`{command(store.folder, 'migrate', '--model', name)}` embeds the photos again with what it is now"
    if file and now.weights != bound.weights:
        return f"{file} is no longer the file that {store.folder} was made with (sha256 {bound.weights[:12]}...); put it back, or {migrate}"
    return f"{name} is no longer what {store.folder} was made with: that was {bound}, and it is {now}; put it back, or {migrate}"


def _embedder_after(store: Store, before: Space | None, model: str | None, threads: int | None) -> Embedder:
    """As embedder_of(), of a store that had the space `before` when it was opened; says so where another ended in between."""
    from indexes import SpaceMismatch
    from indexes.paths import command

    try:
        return embedder_of(store, model, threads, unless_empty=True)
    except SpaceMismatch as error:
        if store.space == before:
            raise
        migrate = command(store.folder, "migrate", "--model", model or "")
        raise SpaceMismatch(
            f"{store.folder} was brought to the model {store.model} while this waited for it, and --model says {model}; leave --model out"
            f" to go on with {store.model}, or bring the store to the other with `{migrate}`"
        ) from error

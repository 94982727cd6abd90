"""The command line: parse, call one function, print, map errors to exit codes. Answers go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from indexes import Space, Store
    from pipeline.embedder import Embedder
    from pipeline.writer import Coverage

# Exit codes: some inputs were left out; the store is not what was written; --exit-code and there are near-duplicates.
SKIPPED, DAMAGED, FOUND = 3, 4, 20
SHOWN = 10  # lines of one kind


class Commands(click.Group):
    """Lists commands in the order of use and turns our errors into messages with exit codes."""

    def make_context(self, *given: Any, **named: Any) -> click.Context:
        """As click does it; an early Ctrl-C ends with the code of any other."""
        try:
            return super().make_context(*given, **named)
        except KeyboardInterrupt:
            sys.exit(130)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As they were added."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        """Run a command; any error that is not ours is a bug, and shows its traceback."""
        from indexes.durable import FULL
        from indexes.errors import NoSpace, StoreError
        from pipeline.errors import PipelineError

        try:
            return super().invoke(ctx)
        except (PipelineError, StoreError) as error:
            _tell(f"neardup: {error}")
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(130)
        except OSError as error:
            if error.errno not in FULL:
                raise
            _tell(f"neardup: the answer could not be written: {error.strerror}; free some space, and ask again")
            ctx.exit(NoSpace.exit_code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="neardup", prog_name="neardup")
def main() -> None:
    """Find near-duplicate photos in large libraries.

    \b
    neardup dedupe ~/Pictures          near-duplicates in a folder
    neardup ingest                     every night: what is new in all folders
    neardup query holiday.jpg          do I have this already?
    """
    # What Pillow says of odd files is counted, not printed.
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    for stream in filter(None, (sys.stdout, sys.stderr)):  # none where it was closed
        stream.reconfigure(errors="backslashreplace")


def _store_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--store",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="NEARDUP_STORE",
        default=_default_store,
        show_default="$XDG_DATA_HOME/neardup/default",
        help="Folder of the store; also NEARDUP_STORE.",
    )(command)


def _default_store() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "neardup" / "default"


_COUNT = click.IntRange(min=1)
_AT_ONCE = click.IntRange(1, 64)  # a thousand decoders would take the memory of the whole machine before their first picture
_PATH = click.Path(readable=False)  # what cannot be read is told of each path, by us

_model_option = click.option(
    "--model",
    metavar="NAME",
    help="A name of `neardup models`, onnx:PATH or open_clip:ARCH@FILE.  [default: the store's, else neardup-0]",
)
_threshold_option = click.option(
    "--threshold", type=click.FloatRange(-1, 1), metavar="COSINE", help="Least score of a near-duplicate.  [default: the model's]"
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_wait_option = click.option(
    "--wait-lock", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Wait for another ingest to end."
)
_yes_option = click.option("--yes", is_flag=True, help="Make more than 1,000 paid requests, as many as it takes or --max-calls allows.")
_data_option = click.option("--data", is_flag=True, help="Read every byte, and compute every stored score again.")
_exit_option = click.option("--exit-code", is_flag=True, help="Exit with 20 when there are near-duplicates.")


def _ingest_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "--exclude",
            "excludes",
            multiple=True,
            metavar="PATTERN",
            help="Leave out names or relative paths like this; repeatable, remembered; '' clears.",
        ),
        click.option("--hidden/--no-hidden", default=None, help="Look into hidden files and folders too; remembered."),
        click.option("--accept-missing", is_flag=True, help="Missing files are deleted, no drive is away; a ROOT that is gone, forgotten."),
        _wait_option,
        click.option(
            "--join",
            type=click.Choice(["exact", "buckets"]),
            help="How pairs are looked for.  [default: exact, but buckets where that would take minutes]",
        ),
        click.option("--verbose", is_flag=True, help="Print how the work is divided."),
    ):
        command = option(command)
    return _work_options(command)


def _work_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--decoders", type=_AT_ONCE, metavar="N", help="Processes that decode.  [default: one for each core]"),
        click.option(
            "--readers",
            type=_AT_ONCE,
            default=1,
            metavar="N",
            help="Files read at a time; more serve SSDs and network drives.  [default: 1]",
        ),
        click.option("--threads", type=_AT_ONCE, metavar="N", help="Threads of the model.  [default: one for each core]"),
        click.option(
            "--batch", type=click.IntRange(1, 4096), metavar="N", help="Pictures embedded at a time.  [default: as the model likes]"
        ),
        click.option("--max-calls", type=_COUNT, metavar="N", help="Make so many paid requests at most, and go on another time."),
        _yes_option,
    ):
        command = option(command)
    return command


@main.command()
@click.argument("roots", nargs=-1, metavar="[ROOT]...", type=_PATH)
@_ingest_options
@_store_option
@_model_option
@_json_option
def ingest(roots: Sequence[str], store: Path, model: str | None, as_json: bool, **given: Any) -> None:
    """Bring the store up to date with folders of photos.

    \b
    neardup ingest ~/Pictures /mnt/nas/photos     add folders; they are remembered
    neardup ingest                                refresh all of them: the nightly call
    neardup ingest ~/Pictures --exclude '*.gif' --exclude 'raw/*'

    Only what is new or changed is read, only new content is embedded. Stop it with Ctrl-C at any moment; the same command goes on from
    there. Exit code 3: done, but some photos could not be read or a folder is away.
    """
    from pipeline.report import coverage_text

    with _opened_to_write(store, roots) as opened:
        coverage, _ = _ingest(opened, roots, model, **given)
    if as_json:
        _print_json(coverage.as_dict())
    else:
        _tell(coverage_text(coverage))
    if coverage.troubled:
        sys.exit(SKIPPED)


def _opened_to_write(store: Path, paths: Sequence[str] = ()) -> Store:
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


def _ingest(
    store: Store,
    paths: Sequence[str],
    model: str | None,
    excludes: Sequence[str],
    hidden: bool | None,
    accept_missing: bool,
    wait_lock: float,
    join: str | None = None,
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
    from pipeline.ingest import ingest_locked, resolve_roots
    from pipeline.terminal import Stopped, watch
    from pipeline.writer import IngestOptions

    named = {os.path.realpath(path) for path in paths}
    options = IngestOptions(
        batch=batch,
        decoders=decoders,
        readers=readers,
        accept_missing=accept_missing,
        forget=frozenset(named) if accept_missing else frozenset[str](),
        join=Way(join) if join else None,
        max_calls=max_calls,
        yes=yes,
    )
    before = store.space
    with store.exclusive(wait_lock):  # from here on nobody else changes the store's folders and its model
        roots = resolve_roots(store, paths, excludes or None, hidden)
        embedder = _embedder_after(store, before, model, threads)
        if verbose:
            cores = os.cpu_count() or 1
            work = f"{decoders or cores} processes decode, {readers} files are read at a time"
            _tell(f"{embedder.name}: {threads or cores} threads, batches of {batch or embedder.batch}; {work}")
        try:
            coverage = watch(ingest_locked(roots.found, store, embedder, options))
        except Stopped as stopped:
            _tell("stopped; what was committed is kept, the same command goes on from there")
            sys.exit(stopped.exit_code)
    coverage.absent_roots.extend(roots.absent)
    for path in coverage.absent_roots:
        known = "what is known of it stays in the answers, marked; if it is gone for good: neardup ingest FOLDER --accept-missing"
        _tell(f"neardup: {ascii(path)} is no folder{' now; ' + known if path not in roots.absent else ''}")
    for note in coverage.notes:
        _tell(f"neardup: {note}")
    return coverage, [root.path for root in roots.found if root.path in named]


def _embedder(store: Store | None, model: str | None, threads: int | None = None) -> Embedder:
    """The model that was asked for, else the store's own; a store is never left for another model unasked."""
    from pipeline.embedder import DEFAULT, load

    bound = store.model if store else None
    embedder = load(model or bound or DEFAULT, threads)
    if store and bound and model and model != bound:
        store.require(embedder.space)
    return embedder


def _embedder_after(store: Store, before: Space | None, model: str | None, threads: int | None) -> Embedder:
    """As _embedder(), of a store that had the space `before` when it was opened; says so where another ended in between."""
    from indexes import SpaceMismatch

    try:
        return _embedder(store, model, threads)
    except SpaceMismatch as error:
        if store.space == before:
            raise
        raise SpaceMismatch(
            f"{store.folder} was brought to the model {store.model} while this waited for it, and --model says {model}; leave --model out"
            f" to go on with {store.model}, or bring the store to the other with `neardup migrate --model {model}`"
        ) from error


@main.command()
@click.argument("files", nargs=-1, metavar="[FILE]...", type=_PATH)
@click.option("-0", "--null", "null", is_flag=True, help="Paths on standard input end with NUL, as from find -print0.")
@_store_option
@_model_option
@_threshold_option
@_json_option
@_exit_option
def query(
    files: Sequence[str], null: bool, store: Path, model: str | None, threshold: float | None, as_json: bool, exit_code: bool
) -> None:
    """Ask whether photos are in the library already.

    \b
    neardup query holiday.jpg                     best first
    neardup query ~/Downloads/*.jpg --json
    find /media/card -name '*.jpg' -print0 | neardup query -0 -

    FILE may lie inside the library or outside; nothing is added. Without FILE, or with -, paths are read from standard input.
    """
    from indexes import Store
    from pipeline.query import find_matches
    from pipeline.report import answer_json, answer_text, failure_text, unfinished_text

    with Store(store) as opened:
        if unfinished := unfinished_text(opened):
            _tell(f"neardup: {unfinished}")
        answers = []
        for answer in find_matches(_paths(files, null), opened, _embedder(opened, model), threshold):
            answers.append(answer)
            if answer.failure:
                _tell(f"neardup: {failure_text(answer.file, answer.failure.reason, answer.failure.detail)}")
            if not as_json:
                _print(answer_text(answer))
    if as_json:
        _print_json([answer_json(answer) for answer in answers])
    if exit_code and any(answer.matches for answer in answers):
        sys.exit(FOUND)
    if any(answer.failure for answer in answers):
        sys.exit(SKIPPED)


def _paths(files: Sequence[str], null: bool) -> Iterator[str]:
    if not files and sys.stdin.isatty():
        raise click.UsageError("name a FILE, or send paths to standard input")
    for file in files or ("-",):
        if file == "-":
            ending = b"\0" if null else b"\n"
            yield from (os.fsdecode(path) for path in sys.stdin.buffer.read().split(ending) if path)
        else:
            yield file


@main.command()
@click.argument("under", nargs=-1, metavar="[FOLDER]...", type=_PATH)
@_store_option
@_threshold_option
@_json_option
@_exit_option
def groups(under: Sequence[str], store: Path, threshold: float | None, as_json: bool, exit_code: bool) -> None:
    """Print groups of near-duplicates from what is stored.

    \b
    neardup groups
    neardup groups --threshold 0.95 --json
    neardup groups ~/Pictures/2024                only among the photos below this folder

    No photo is read, so drives may be away. Each member is at or above the threshold to its keeper; any threshold down to the store's
    floor works.
    """
    from indexes import Store
    from pipeline.errors import BadRoot

    with Store(store) as opened:
        for folder in under:
            if not opened.catalog.counts([os.path.realpath(folder)]).files:
                raise BadRoot(f"the store has no photo below {ascii(folder)}; ingest it first, or see `neardup status` for its roots")
        found = _print_groups(opened, threshold, [os.path.realpath(folder) for folder in under], None, as_json)
    if exit_code and found:
        sys.exit(FOUND)


@main.command()
@click.argument("roots", nargs=-1, required=True, metavar="ROOT...", type=_PATH)
@click.option("--against-all", is_flag=True, help="Compare with the whole store, not only among the photos below ROOT.")
@_ingest_options
@_store_option
@_model_option
@_threshold_option
@_json_option
@_exit_option
def dedupe(
    roots: Sequence[str],
    against_all: bool,
    store: Path,
    model: str | None,
    threshold: float | None,
    as_json: bool,
    exit_code: bool,
    **given: Any,
) -> None:
    """Ingest folders, then print the groups of near-duplicates in them.

    \b
    neardup dedupe ~/Pictures
    neardup dedupe ~/Pictures --threshold 0.9 --json > groups.json
    neardup dedupe /media/card --against-all      what of the card is in the library?

    Nothing is moved or deleted. The first run embeds every photo; the next one only what is new.
    """
    from pipeline.report import coverage_text

    with _opened_to_write(store, roots) as opened:
        coverage, real = _ingest(opened, roots, model, **given)
        _tell(coverage_text(coverage))
        found = _print_groups(opened, threshold, real, coverage, as_json, against_all)
    if exit_code and found:
        sys.exit(FOUND)
    if coverage.troubled:
        sys.exit(SKIPPED)


def _print_groups(
    store: Store, threshold: float | None, under: Sequence[str], coverage: Coverage | None, as_json: bool, against_all: bool = False
) -> bool:
    from pipeline.query import find_groups
    from pipeline.report import coverage_json, groups_json, groups_text, unfinished_text

    if unfinished := unfinished_text(store):
        _tell(f"neardup: {unfinished}")
    with store.catalog.snapshot():  # a migration may end meanwhile
        space, found = store.space, find_groups(store, threshold, under, against_all=against_all)
    if as_json:
        least = threshold if threshold is not None or space is None else space.threshold
        _print_json(groups_json(found, space, least, coverage_json(store, under, coverage)))
    else:
        _print(groups_text(found))
    return bool(found)


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="A B [C]...", type=_PATH)
@_store_option
@_model_option
@_threshold_option
@_json_option
@_exit_option
def compare(files: Sequence[str], store: Path, model: str | None, threshold: float | None, as_json: bool, exit_code: bool) -> None:
    """Print the cosine of each pair of photos.

    \b
    neardup compare a.jpg b.jpg                   one score
    neardup compare a.jpg b.jpg c.jpg             the matrix
    neardup compare a.jpg b.jpg --exit-code       20 when they are near-duplicates

    Works without a store; where there is one, its model is used.
    """
    from indexes import Store, StoreMissing
    from pipeline.query import compare
    from pipeline.report import comparison_json, comparison_text, failure_text

    if len(files) < 2:
        raise click.UsageError("name two photos or more")
    try:
        with Store(store) as opened:
            embedder = _embedder(None, model or opened.model)
    except StoreMissing:
        embedder = _embedder(None, model)
    comparison = compare(files, embedder)
    least = embedder.space.threshold if threshold is None else threshold
    for file, failure in comparison.failures():
        _tell(f"neardup: {failure_text(file, failure.reason, failure.detail)}")
    if as_json:
        _print_json(comparison_json(comparison, embedder.space, least))
    else:
        _print(comparison_text(comparison, least))
    if exit_code and any(comparison.relation(one, other, least) for one, other in comparison.pairs()):
        sys.exit(FOUND)
    if comparison.failures():
        sys.exit(SKIPPED)


@main.command()
@click.option("--failures", is_flag=True, help="List every file that has no picture, with the reason.")
@_store_option
@_json_option
def status(failures: bool, store: Path, as_json: bool) -> None:
    """Show what a store holds and how the last ingest ended.

    \b
    neardup status
    neardup status --failures                     which files could not be read, and why
    """
    from indexes import Store
    from pipeline.report import failure_text, status_json, status_text

    with Store(store) as opened:
        opened.verify()
        about = status_json(opened)
        failed = list(opened.catalog.failures()) if failures else []
    if as_json:
        listed = [{"path": path, "reason": reason, "detail": detail} for path, reason, detail in failed]
        _print_json(about | ({"failures": listed} if failures else {}))
    elif failures:
        _print(failure_text(path, reason, detail) for path, reason, detail in failed)
    else:
        _print(status_text(about))


@main.command()
@_json_option
def models(as_json: bool) -> None:
    """List the models that --model knows by name.

    \b
    neardup models                                name, dimension, side of its pictures in pixels
    neardup models --json

    Those of open_clip are downloaded when they are first used; they are listed where the extra `clip` is installed. Beside these, any
    ONNX file with a card is a model: onnx:PATH.
    """
    from dataclasses import asdict

    from pipeline.embedder import models as all_known

    known = all_known()
    if as_json:
        _print_json([asdict(model) for model in known.found])
    else:
        width = max(len(model.name) for model in known.found)
        _print(f"{model.name:{width}}  {model.dim:5}  {model.size:4}" for model in known.found)
    for missing in known.missing:
        _tell(f"neardup: {missing}")


@main.command()
@_data_option
@click.option("--sample", type=click.IntRange(min=0), default=0, metavar="N", help="Embed N photos again and compare their vectors.")
@click.option("--max-calls", type=_COUNT, metavar="N", help="Refuse a sample that may take more paid requests.")
@_yes_option
@_store_option
@_json_option
def check(data: bool, sample: int, max_calls: int | None, yes: bool, store: Path, as_json: bool) -> None:
    """Look whether a store is what was written.

    \b
    neardup check                                 files, their times and sizes, ids: well under a second
    neardup check --data                          every byte, every vector, every pair
    neardup check --sample 100                    do photos still give the vectors that are stored?

    Nothing is changed. Exit code 4 when something is wrong; each line names a file or a part of the catalog.
    """
    from indexes import Store
    from indexes import check as findings
    from pipeline import audit
    from pipeline.report import check_json, check_text

    found = findings(store, data=data)
    again = []
    if sample and not found:
        with Store(store) as opened:
            embedder, images = _embedder(opened, None), audit.sample(opened, sample)
            if calls := audit.agreed(embedder, len(images), max_calls, yes):
                _tell(f"up to {calls:,} paid requests for {len(images):,} photos")
            again = list(audit.reembed(opened, embedder, images))
    if as_json:
        _print_json(check_json(found, again))
    else:
        _print(check_text(found, again))
    if sample and len(again) < sample:
        why = "the rest changed, is away, or is not there at all" if not found else "mend the store first: `neardup repair`"
        _tell(f"neardup: {len(again)} of {sample} photos were embedded again; {why}")
    if found or not all(audited.same for audited in again):
        sys.exit(DAMAGED)


@main.command()
@_data_option
@click.option("--yes", is_flag=True, help="Do it; without, only what would be done is printed.")
@_store_option
def repair(data: bool, yes: bool, store: Path) -> None:
    """Go on without what is damaged, and make it again from the photos.

    \b
    neardup repair                                what would be done
    neardup repair --data --yes

    The catalog is saved first. Damaged segments go to the store's quarantine folder, their photos are embedded again; a damaged catalog
    goes there with all segments, and everything is embedded again. No photo is touched, nothing is deleted.
    """
    from indexes import Store
    from indexes import check as findings
    from indexes import repair as set_aside
    from pipeline.report import check_text, coverage_text, intended_text, repair_text

    if not yes:
        found = findings(store, data=data)
        _print(check_text(found, []))
        if found:
            _tell(f"neardup: nothing was changed; `neardup repair --yes` {intended_text(found, os.fspath(store / 'catalog.db'))}")
            sys.exit(DAMAGED)
        return
    found, done = set_aside(store, data=data)
    _print(check_text(found, []))
    if not found:
        return
    if done:
        _print(repair_text(done))
    with Store(store, write=True) as opened:
        if not opened.catalog.roots():
            _tell("neardup: which folders it held could not be read any more; name them again: neardup ingest FOLDER")
            sys.exit(SKIPPED)
        coverage, _ = _ingest(opened, (), done.model if done else None, (), None, accept_missing=False, wait_lock=0.0)
        left = list(opened.catalog.files_of(opened.catalog.unembedded()))
        for known in left[:SHOWN]:
            _tell(f"neardup: {ascii(known.path)} could not be embedded again; it comes back when `neardup ingest` finds it")
        if len(left) > SHOWN:
            _tell(f"neardup: {len(left) - SHOWN:,} others could not either")
    _tell(coverage_text(coverage))
    if coverage.troubled:
        sys.exit(SKIPPED)


@main.command()
@click.option("--model", required=True, metavar="NAME", help="The new model: a name of `neardup models`, onnx:PATH or open_clip:ARCH@FILE.")
@click.option("--leave-out", is_flag=True, help="Go on without photos that are away or cannot be read; an ingest embeds them when it can.")
@click.option("--restart", is_flag=True, help="Drop what was embedded for a new model before.")
@_work_options
@_wait_option
@_store_option
@_json_option
def migrate(
    model: str,
    leave_out: bool,
    restart: bool,
    store: Path,
    as_json: bool,
    wait_lock: float,
    decoders: int | None,
    readers: int,
    threads: int | None,
    batch: int | None,
    max_calls: int | None,
    yes: bool,
) -> None:
    """Embed all photos again with another model.

    \b
    neardup migrate --model onnx:sscd.onnx
    neardup migrate --model onnx:sscd.onnx --leave-out     although a drive is away
    neardup migrate --model neardup-0 --restart            stay with the store's model: drop what was begun

    The store answers with its old model until everything is embedded, and changes to the new one in a moment. Stop it with Ctrl-C at any
    moment; the same command goes on from there. Files, folders and runs stay as they are. Exit code 8: nothing was changed, because some
    photos are away or cannot be read.
    """
    from pipeline.migrate import migrate_store
    from pipeline.report import SCHEMA_VERSION, migration_text
    from pipeline.terminal import Stopped, watch
    from pipeline.writer import IngestOptions

    with _opened_to_write(store) as opened:
        before = opened.space
        if before is None:
            raise click.UsageError(f"{store} has no photos yet, so there is nothing to migrate: neardup ingest FOLDER --model {model}")
        embedder = _embedder(None, model, threads)
        options = IngestOptions(batch, decoders=decoders, readers=readers, wait_lock=wait_lock, max_calls=max_calls, yes=yes)
        try:
            coverage = watch(migrate_store(opened, embedder, options, leave_out=leave_out, restart=restart))
        except Stopped as stopped:
            _tell("stopped; what was committed is kept, the same command goes on from there, and the store answers as before")
            sys.exit(stopped.exit_code)
        images, waiting = opened.catalog.counts().images, len(opened.catalog.unembedded())
    if as_json:
        done = {"model": embedder.name, "migrated": before != embedder.space, "images": images, "embedded": coverage.embedded}
        _print_json({"schema_version": SCHEMA_VERSION, **done, "waiting": waiting})
    elif before == embedder.space:
        _tell(f"{store} has the model {embedder.name} already; nothing to do")
    else:
        _tell(migration_text(embedder.name, images, coverage.embedded, waiting))
    if waiting:
        sys.exit(SKIPPED)


@main.command()
@_wait_option
@_store_option
@_json_option
def compact(wait_lock: float, store: Path, as_json: bool) -> None:
    """Merge all segments and drop the vectors of photos that are gone.

    \b
    neardup compact
    neardup compact --wait-lock 600               after an ingest that is running

    An ingest does what is needed by itself; this goes further. Answers stay the same, and other commands may run meanwhile.
    """
    from dataclasses import asdict

    from pipeline.report import SCHEMA_VERSION, compaction_text

    with _opened_to_write(store) as opened, opened.exclusive(wait_lock):
        opened.prepare()
        done = opened.compact(full=True)
    if as_json:
        _print_json({"schema_version": SCHEMA_VERSION, **asdict(done)})
    else:
        _print([compaction_text(done)])


@main.command()
@_store_option
@_json_option
def doctor(store: Path, as_json: bool) -> None:
    """Show what this installation can do.

    \b
    neardup doctor                                versions, formats, cores, GPU, where the store is

    Works without a store. Add it to a report of a bug.
    """
    from pipeline.doctor import doctor_text, examine

    about = examine(store)
    if as_json:
        _print_json(about)
    else:
        _print(doctor_text(about))


# --- output ---


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))  # ASCII: bytes of a path that are no UTF-8 come as \udcXX, and os.fsencode gives them back


def _tell(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    main()

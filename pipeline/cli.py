"""The command line: parse, call one function, print, map errors to exit codes. Answers go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click

if TYPE_CHECKING:
    from indexes import Store
    from pipeline.embedder import Embedder
    from pipeline.ingest import Coverage, Progress

SKIPPED, FOUND = 3, 20  # exit codes: some inputs were left out; --exit-code and there are near-duplicates
SHOWN_FAILURES = 10
LINE_EVERY = 60.0  # seconds between lines of progress where no terminal shows a bar


class Commands(click.Group):
    """Lists commands in the order of use and turns our errors into messages with exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As they were added."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        """Run a command; any error that is not ours is a bug, and shows its traceback."""
        from indexes.errors import StoreError
        from pipeline.errors import PipelineError

        try:
            return super().invoke(ctx)
        except (PipelineError, StoreError) as error:
            _tell(f"neardup: {error}")
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            _tell("stopped; what was committed is kept, the same command goes on from there")
            ctx.exit(130)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="neardup", prog_name="neardup")
def main() -> None:
    """Find near-duplicate photos in large libraries.

    \b
    neardup dedupe ~/Pictures          near-duplicates in a folder
    neardup ingest                     every night: what is new in all folders
    neardup query holiday.jpg          do I have this already?
    """
    warnings.filterwarnings("ignore", module="PIL")  # what Pillow says of odd files is counted, not printed
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # text streams, but for odd embeddings of Python


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


_model_option = click.option(
    "--model", metavar="NAME", help="neardup-0, open_clip:ARCH/PRETRAINED or open_clip:ARCH@FILE.  [default: the store's, else neardup-0]"
)
_threshold_option = click.option(
    "--threshold", type=click.FloatRange(-1, 1), metavar="COSINE", help="Least score of a near-duplicate.  [default: the model's]"
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_exit_option = click.option("--exit-code", is_flag=True, help="Exit with 20 when there are near-duplicates.")


def _ingest_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "--exclude",
            "excludes",
            multiple=True,
            metavar="PATTERN",
            help="Leave out names or relative paths like this; repeatable, remembered.",
        ),
        click.option("--hidden/--no-hidden", default=None, help="Look into hidden files and folders too; remembered."),
        click.option("--accept-missing", is_flag=True, help="Files that are missing are deleted, however many; no drive is away."),
        click.option("--wait-lock", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Wait for another ingest to end."),
    ):
        command = option(command)
    return command


@main.command()
@click.argument("roots", nargs=-1, metavar="[ROOT]...", type=click.Path())
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


def _opened_to_write(store: Path, paths: Sequence[str]) -> Store:
    """The store, made when it is missing and there is a folder to fill it from: a mistyped name leaves nothing behind."""
    from indexes import Store, StoreMissing
    from pipeline.errors import BadRoot

    if not any(Path(path).is_dir() for path in paths):
        try:
            Store(store).close()
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
) -> tuple[Coverage, list[str]]:
    """Ingest and show how it goes; returns the coverage and the real paths of the roots."""
    from pipeline.ingest import IngestOptions, ingest_roots, resolve_roots

    roots, absent = resolve_roots(store, paths, excludes or None, hidden)
    options = IngestOptions(accept_missing=accept_missing, wait_lock=wait_lock)
    _stop_politely()
    with _silent_decoders():
        coverage = _shown(ingest_roots(roots, store, _embedder(store, model), options))
    coverage.absent_roots.extend(absent)
    for path in coverage.absent_roots:
        _tell(f"neardup: {ascii(path)} is no folder now; what is known of it stays in the answers")
    for note in coverage.notes:
        _tell(f"neardup: {note}")
    return coverage, [root.path for root in roots]


def _embedder(store: Store | None, model: str | None) -> Embedder:
    """The model that was asked for, else the store's own; a store is never left for another model unasked."""
    from pipeline.embedder import DEFAULT, load

    bound = store.model if store else None
    embedder = load(model or bound or DEFAULT)
    if store and bound and model and model != bound:
        store.require(embedder.space)
    return embedder


@main.command()
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path())
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
    from pipeline.report import answer_json, answer_text

    with Store(store) as opened:
        answers = []
        for answer in find_matches(_paths(files, null), opened, _embedder(opened, model), threshold):
            answers.append(answer)
            if answer.failure:
                _tell_failure(answer.file, answer.failure.reason, answer.failure.detail)
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
@click.argument("under", nargs=-1, metavar="[FOLDER]...", type=click.Path())
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

    with Store(store) as opened:
        found = _print_groups(opened, threshold, [os.path.realpath(folder) for folder in under], None, as_json)
    if exit_code and found:
        sys.exit(FOUND)


@main.command()
@click.argument("roots", nargs=-1, required=True, metavar="ROOT...", type=click.Path())
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
    from pipeline.report import coverage_json, groups_json, groups_text

    found = find_groups(store, threshold, under, against_all=against_all)
    space = store.space
    if as_json:
        least = threshold if threshold is not None or space is None else space.threshold
        _print_json(groups_json(found, space, least, coverage_json(store, under, coverage)))
    else:
        _print(groups_text(found))
    return bool(found)


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="A B [C]...", type=click.Path())
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
    from pipeline.report import comparison_json, comparison_text

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
        _tell_failure(file, failure.reason, failure.detail)
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
    from pipeline.report import printable, status_json, status_text

    with Store(store) as opened:
        about = status_json(opened)
        failed = list(opened.catalog.failures()) if failures else []
    if as_json:
        listed = [{"path": path, "reason": reason, "detail": detail} for path, reason, detail in failed]
        _print_json(about | ({"failures": listed} if failures else {}))
    elif failures:
        _print(f"{printable(path)}: {reason}{f' ({printable(detail)})' if detail else ''}" for path, reason, detail in failed)
    else:
        _print(status_text(about))


# --- output ---


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))  # ASCII: bytes of a path that are no UTF-8 come as \udcXX, and os.fsencode gives them back


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _tell_failure(path: str, reason: str, detail: str) -> None:
    from pipeline.report import printable

    _tell(f"neardup: {printable(path)}: {reason}{f' ({printable(detail)})' if detail else ''}")


def _stop_politely() -> None:
    """The first Ctrl-C or SIGTERM commits what is embedded and stops; the second stops at once, which loses only that."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)
        _tell("\nstopping; once more to stop at once")
        if number == signal.SIGTERM:
            sys.exit(143)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


@contextmanager
def _silent_decoders() -> Iterator[None]:
    """Let what C libraries write to the terminal about odd files go nowhere; our own messages, and tracebacks, still reach it."""
    ours = sys.stderr
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        with os.fdopen(os.dup(kept), "w", errors="backslashreplace", buffering=1) as still:
            if _is_descriptor_2(ours):
                sys.stderr = still
            os.dup2(nowhere, 2)
            try:
                yield
            finally:
                os.dup2(kept, 2)
                sys.stderr = ours
    finally:
        os.close(nowhere)
        os.close(kept)


def _is_descriptor_2(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 2
    except OSError:  # captured, in a test or an embedding program
        return False


def _shown(progress: Iterator[Progress]) -> Coverage:
    """Run an ingest and show it: a bar on a terminal, else a line a minute; failures as they come, up to a few."""
    from pipeline.decode import SKIPPED as NO_PHOTOS

    told = 0

    def watched() -> Iterator[Progress]:
        nonlocal told
        for now in progress:
            if now.failure and now.failure.reason not in NO_PHOTOS:
                told += 1
                if told <= SHOWN_FAILURES:
                    _tell_failure(now.failure.source.path, now.failure.reason, now.failure.detail)
                elif told == SHOWN_FAILURES + 1:
                    _tell("neardup: further failures are not listed here; see `neardup status --failures`")
            yield now

    last = _bar(watched()) if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else _lines(watched())
    return last.coverage


def _bar(progress: Iterator[Progress]) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.0f} images/s" if task.speed and task.total else "")

    last = None
    with Bar(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn(), console=Console(stderr=True)
    ) as bar:
        task = bar.add_task("listing", total=None)
        for last in progress:
            bar.update(task, description="listing" if last.total is None else "reading", completed=last.done, total=last.total)
    assert last is not None  # the last one always comes
    return last


def _lines(progress: Iterator[Progress]) -> Progress:
    last = None
    began = since = time.monotonic()
    for last in progress:
        now = time.monotonic()
        if last.total is None or last.done == 0:
            began = now
        if now - since >= LINE_EVERY:
            since = now
            speed = last.done / max(now - began, 1e-9)
            left = (
                f", {speed:.0f} images/s, {(last.total - last.done) / max(speed, 1e-9) / 60:.0f} min left"
                if last.total and last.done
                else ""
            )
            _tell(f"{last.done:,} of {last.total:,} files read{left}" if last.total is not None else f"{last.done:,} files listed")
    assert last is not None  # the last one always comes
    return last


if __name__ == "__main__":
    main()

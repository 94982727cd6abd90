"""Photos in, and what is asked of them: ingest, query, groups, dedupe, compare."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.console import FOUND, SKIPPED, show, show_json, tell
from pipeline.cli.options import (
    PATH,
    exit_option,
    ingest_options,
    json_option,
    keep_option,
    model_option,
    named,
    pay_option,
    relations_option,
    store_option,
    strictness_option,
    threshold_option,
)
from pipeline.cli.session import agree_to_ask, embedder_of, ingested, opened_to_write, own_model

if TYPE_CHECKING:
    from indexes import Space, Store
    from pipeline.grouping.cluster import Group
    from pipeline.ingest.batch_writer import Coverage
    from pipeline.query.compare import Comparison


@click.command()
@click.argument("roots", nargs=-1, metavar="[ROOT]...", type=PATH)
@ingest_options
@store_option
@model_option
@json_option
def ingest(roots: Sequence[str], store: Path, model: str | None, as_json: bool, **given: Any) -> None:
    """Bring the store up to date with folders of photos.

    \b
    neardup ingest ~/Pictures /mnt/nas/photos     add folders; they are remembered
    neardup ingest                                refresh all of them: the nightly call
    neardup ingest ~/Pictures --exclude '*.gif' --exclude 'raw/*'

    Only what is new or changed is read, only new content is embedded. Stop it with Ctrl-C at any moment; the same command goes on from
    there. Exit code 3: done, but some photos could not be read or a folder is away.
    """
    from pipeline.report.answers import SCHEMA_VERSION
    from pipeline.report.status import coverage_text

    with opened_to_write(store, roots) as opened:
        coverage, _ = ingested(opened, roots, model, **given)
    if as_json:
        show_json({"schema_version": SCHEMA_VERSION, **coverage.as_dict()})
    else:
        tell(coverage_text(coverage))
    if coverage.troubled:
        sys.exit(SKIPPED)


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...", type=PATH)
@click.option("-0", "--null", "null", is_flag=True, help="Paths on standard input end with NUL, as from find -print0.")
@store_option
@model_option
@threshold_option
@strictness_option
@relations_option
@json_option
@exit_option
@pay_option
def query(
    files: Sequence[str],
    null: bool,
    store: Path,
    model: str | None,
    threshold: float | None,
    strictness: float | None,
    relations: frozenset[str] | None,
    as_json: bool,
    exit_code: bool,
    yes: bool,
) -> None:
    """Ask whether photos are in the library already.

    \b
    neardup query holiday.jpg                     best first
    neardup query ~/Downloads/*.jpg --json
    find /media/card -name '*.jpg' -print0 | neardup query -0 -

    FILE may lie inside the library or outside; nothing is added. Without FILE, or with -, paths are read from standard input.
    """
    from indexes import Store
    from pipeline.grouping.cluster import TOLD
    from pipeline.query.freshness import answer_now, since_text
    from pipeline.query.matches import find_matches
    from pipeline.report.answers import answer_text, answers_json, failure_text
    from pipeline.report.status import warnings_text

    with Store(store) as opened:
        for warning in warnings_text(opened):
            tell(f"neardup: {warning}")
        answers = []
        with own_model(opened, model):
            paths, embedder = list(_paths(files, null)), embedder_of(opened, model)
            agree_to_ask(embedder, len(paths), yes)
            for found in find_matches(paths, opened, embedder, threshold, relations or TOLD, strictness):
                answer = answer_now(found)
                answers.append(answer)
                if answer.failure:
                    tell(f"neardup: {failure_text(answer.file, answer.failure.reason, answer.failure.detail)}")
                if not as_json:
                    show(answer_text(answer))
                if since := since_text(match.photo for match in answer.matches):
                    tell(f"neardup: {since}")
    if as_json:
        show_json(answers_json(answers))
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


@click.command()
@click.argument("under", nargs=-1, metavar="[FOLDER]...", type=PATH)
@store_option
@threshold_option
@strictness_option
@relations_option
@keep_option
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="OUT.html", help="Write a page to look at, too.")
@json_option
@exit_option
def groups(
    under: Sequence[str],
    store: Path,
    threshold: float | None,
    strictness: float | None,
    relations: frozenset[str] | None,
    rules: Sequence[str],
    html: Path | None,
    as_json: bool,
    exit_code: bool,
) -> None:
    """Print groups of near-duplicates from what is stored.

    \b
    neardup groups
    neardup groups --threshold 0.95 --json
    neardup groups ~/Pictures/2024                only among the photos below this folder
    neardup groups --html groups.html             a page to look at, with its pictures beside it
    neardup groups --keep folder:Albums,date      keep what is in a folder called Albums, then the oldest

    No photo is read, so drives may be away. Each member was verified against its keeper. A threshold leaves out pairs whose pictures are
    less alike to the model; any down to the store's floor works.
    """
    from indexes import Store
    from indexes.paths import command
    from pipeline.errors import BadRoot
    from pipeline.grouping.cluster import COPIES
    from pipeline.grouping.keep_rules import Keep

    keep = Keep(named(rules))
    if html:
        from pipeline.report.gallery import require_place, write_gallery

        require_place(html)  # before anything is printed, which somebody would have to wait for again
    with Store(store) as opened:
        for folder in under:
            if not opened.catalog.counts([os.path.realpath(folder)]).files:
                status = command(store, "status")
                raise BadRoot(f"the store has no photo below {ascii(folder)}; ingest it first, or see `{status}` for its roots")
        asked = {"threshold": threshold, "strictness": strictness, "relations": relations or COPIES, "keep": keep}
        found, warnings = _print_groups(opened, [os.path.realpath(folder) for folder in under], None, as_json, **asked)
        if html:
            write_gallery(found, opened, html, warnings)
    if exit_code and found:
        sys.exit(FOUND)


@click.command()
@click.argument("roots", nargs=-1, required=True, metavar="ROOT...", type=PATH)
@click.option("--against-all", is_flag=True, help="Compare with the whole store, not only among the photos below ROOT.")
@ingest_options
@store_option
@model_option
@threshold_option
@strictness_option
@relations_option
@keep_option
@json_option
@exit_option
def dedupe(
    roots: Sequence[str],
    against_all: bool,
    store: Path,
    model: str | None,
    threshold: float | None,
    strictness: float | None,
    relations: frozenset[str] | None,
    rules: Sequence[str],
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
    from pipeline.grouping.cluster import COPIES
    from pipeline.grouping.keep_rules import Keep
    from pipeline.report.status import coverage_text

    keep = Keep(named(rules))  # before hours of work
    with opened_to_write(store, roots) as opened:
        if threshold is not None:
            opened.check_score(threshold)
        coverage, real = ingested(opened, roots, model, **given)
        tell(coverage_text(coverage))
        asked = {"threshold": threshold, "strictness": strictness, "relations": relations or COPIES, "keep": keep}
        found, _ = _print_groups(opened, real, coverage, as_json, against_all=against_all, **asked)
    if exit_code and found:
        sys.exit(FOUND)
    if coverage.troubled:
        sys.exit(SKIPPED)


def _print_groups(
    store: Store, under: Sequence[str], coverage: Coverage | None, as_json: bool, **asked: Any
) -> tuple[list[Group], list[str]]:
    """The groups, and what is to be read with them; `asked`: as find_groups() has it."""
    from pipeline.query.freshness import as_now, since_text
    from pipeline.query.groups import find_groups, limits
    from pipeline.report.answers import coverage_json, groups_json, groups_text
    from pipeline.report.status import warnings_text

    with store.catalog.snapshot():  # a migration may end meanwhile
        space, found = store.space, find_groups(store, under=under, look=as_now, **asked)
        within = limits(store, space, asked["threshold"], asked["strictness"]) if space else None
        warnings = list(warnings_text(store))
    photos = [photo for group in found for photo in group.photos]
    warnings += [since] if (since := since_text(photos)) else []
    for warning in warnings:
        tell(f"neardup: {warning}")
    for rule in asked["keep"].idle(photo.path for photo in photos) if found else ():
        tell(f"neardup: no photo of these groups is in a folder of {ascii(rule)}, so that rule kept none")
    if as_json:
        show_json(groups_json(found, space, within, coverage_json(store, under, coverage)))
    else:
        show(groups_text(found))
    return found, warnings


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="A B [C]...", type=PATH)
@store_option
@model_option
@threshold_option
@json_option
@exit_option
@pay_option
def compare(
    files: Sequence[str], store: Path, model: str | None, threshold: float | None, as_json: bool, exit_code: bool, yes: bool
) -> None:
    """Print what each pair of photos is to each other, and their cosine.

    \b
    neardup compare a.jpg b.jpg                   one score
    neardup compare a.jpg b.jpg c.jpg             the matrix
    neardup compare a.jpg b.jpg --exit-code       20 when they are near-duplicates

    Works without a store; where there is one, its model is used.
    """
    from pipeline.grouping.cluster import TOLD
    from pipeline.report.answers import comparison_json, comparison_text

    if len(files) < 2:
        raise click.UsageError("name two photos or more")
    comparison, space = _compared(files, store, model, yes)
    least = space.threshold if threshold is None else threshold
    if as_json:
        show_json(comparison_json(comparison, space, least))
    else:
        show(comparison_text(comparison, least))
    if exit_code and any(comparison.relation(one, other, least) in TOLD for one, other in comparison.pairs()):
        sys.exit(FOUND)
    if comparison.failures():
        sys.exit(SKIPPED)


def _compared(files: Sequence[str], store: Path, model: str | None, yes: bool) -> tuple[Comparison, Space]:
    """Files against each other, by the store's own model where there is a store; what failed is told."""
    from indexes import Store, StoreMissing
    from pipeline.query.compare import compare
    from pipeline.report.answers import failure_text

    try:
        with Store(store) as opened, own_model(opened, model):
            embedder = embedder_of(None, opened.model if model is None else model)
    except StoreMissing:
        embedder = embedder_of(None, model)
    agree_to_ask(embedder, len(files), yes)
    comparison = compare(files, embedder)
    for file, failure in comparison.failures():
        tell(f"neardup: {failure_text(file, failure.reason, failure.detail)}")
    return comparison, embedder.space


@click.command()
@click.argument("first", metavar="A", type=PATH)
@click.argument("second", metavar="B", type=PATH)
@click.option("--image", type=click.Path(dir_okay=False, path_type=Path), metavar="OUT.png", help="Draw what was seen.")
@store_option
@model_option
@json_option
@pay_option
def explain(first: str, second: str, image: Path | None, store: Path, model: str | None, as_json: bool, yes: bool) -> None:
    """Say why two photos are what they are to each other.

    \b
    neardup explain a.jpg b.jpg
    neardup explain a.jpg b.jpg --image why.png   side by side, laid on each other, the difference, the tiles

    Works without a store; where there is one, its model is used.
    """
    from PIL import Image

    from pipeline.errors import BadDestination
    from pipeline.report.answers import comparison_json, explained_text
    from pipeline.report.comparison_image import explained

    if image and os.path.lexists(image):
        raise BadDestination(f"{image} is there already and is left as it is; name a new file")
    if image:
        written = Image.registered_extensions().get(image.suffix.lower()) in Image.SAVE
        if not (written and os.access(image.parent, os.W_OK | os.X_OK)):
            raise BadDestination(f"{image} cannot be written; name a .png or .jpg in a folder that is there and may be written to")
    comparison, space = _compared([first, second], store, model, yes)
    if as_json:
        show_json(comparison_json(comparison, space, space.threshold))
    else:
        show(explained_text(comparison, space.threshold))
    if image and (drawn := explained(comparison)):
        try:
            drawn.save(image)
        except (OSError, ValueError) as error:
            raise BadDestination(f"{image} cannot be written ({error}); name a .png or .jpg in a folder that is there") from error
    if comparison.failures():
        sys.exit(SKIPPED)

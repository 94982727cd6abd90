"""Photos in, and what is asked of them: ingest, query, groups, dedupe, compare."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.console import EXIT_FOUND, EXIT_SKIPPED, print_json, print_lines, print_message
from pipeline.cli.options import (
    PATH_TYPE,
    allow_cost_option,
    exit_option,
    ingest_options,
    json_option,
    keep_option,
    min_agreement_option,
    model_option,
    relations_option,
    split_rules,
    store_option,
    threshold_option,
)
from pipeline.cli.session import (
    choose_embedder,
    explain_model_errors,
    open_for_writing,
    require_consent_to_query,
    run_ingest,
)

if TYPE_CHECKING:
    from indexes.records import Space
    from indexes.store import Store
    from pipeline.grouping.cluster import Group
    from pipeline.ingest.batch_writer import Coverage
    from pipeline.query.compare import Comparison
    from pipeline.verify.relation import Relation


@click.command()
@click.argument("roots", nargs=-1, metavar="[ROOT]...", type=PATH_TYPE)
@ingest_options
@store_option
@model_option
@json_option
def ingest(
    roots: Sequence[str], store: Path, model: str | None, as_json: bool, **options: Any
) -> None:
    """Bring the store up to date with folders of photos.

    \b
    neardup ingest ~/Pictures /mnt/nas/photos     add folders; they are remembered
    neardup ingest                                refresh all of them: the nightly call
    neardup ingest ~/Pictures --exclude '*.gif' --exclude 'raw/*'

    Only what is new or changed is read, only new content is embedded. Stop it with Ctrl-C at any moment; the same command goes on from
    there. Exit code 3: done, but some photos could not be read or a folder is away.
    """
    from pipeline.report.answers import SCHEMA_VERSION
    from pipeline.report.status import format_coverage

    with open_for_writing(store, roots) as opened:
        coverage, _ = run_ingest(opened, roots, model, **options)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, **coverage.as_dict()})
    else:
        print_message(format_coverage(coverage))
    if coverage.has_problems:
        sys.exit(EXIT_SKIPPED)


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...", type=PATH_TYPE)
@click.option(
    "-0",
    "--null",
    "null",
    is_flag=True,
    help="Paths on standard input end with NUL, as from find -print0.",
)
@store_option
@model_option
@threshold_option
@min_agreement_option
@relations_option
@json_option
@exit_option
@allow_cost_option
def query(
    files: Sequence[str],
    null: bool,
    store: Path,
    model: str | None,
    threshold: float | None,
    min_agreement: float | None,
    relations: frozenset[Relation] | None,
    as_json: bool,
    exit_code: bool,
    allow_cost: bool,
) -> None:
    """Ask whether photos are in the library already.

    \b
    neardup query holiday.jpg                     best first
    neardup query ~/Downloads/*.jpg --json
    find /media/card -name '*.jpg' -print0 | neardup query -0 -

    FILE may lie inside the library or outside; nothing is added. Without FILE, or with -, paths are read from standard input.
    """
    from indexes.store import Store
    from pipeline.query.freshness import format_stale_warning, refresh_answer
    from pipeline.query.matches import find_matches
    from pipeline.report.answers import format_answer, format_failure, serialize_answers
    from pipeline.report.status import format_warnings
    from pipeline.verify.relation import QUERY_RELATIONS

    with Store(store) as opened:
        for warning in format_warnings(opened):
            print_message(f"neardup: {warning}")
        answers = []
        with explain_model_errors(opened, model):
            paths, embedder = list(_read_paths(files, null)), choose_embedder(opened, model)
            require_consent_to_query(embedder, len(paths), allow_cost)
            for found in find_matches(
                paths, opened, embedder, threshold, relations or QUERY_RELATIONS, min_agreement
            ):
                answer = refresh_answer(found)
                answers.append(answer)
                if answer.failure:
                    print_message(
                        f"neardup: {format_failure(answer.file, answer.failure.reason, answer.failure.detail)}"
                    )
                if not as_json:
                    print_lines(format_answer(answer))
                if since := format_stale_warning(match.file for match in answer.matches):
                    print_message(f"neardup: {since}")
    if as_json:
        print_json(serialize_answers(answers))
    if exit_code and any(answer.matches for answer in answers):
        sys.exit(EXIT_FOUND)
    if any(answer.failure for answer in answers):
        sys.exit(EXIT_SKIPPED)


def _read_paths(files: Sequence[str], is_null_separated: bool) -> Iterator[str]:
    if not files and sys.stdin.isatty():
        raise click.UsageError("name a FILE, or send paths to standard input")
    for file in files or ("-",):
        if file == "-":
            ending = b"\0" if is_null_separated else b"\n"
            yield from (os.fsdecode(path) for path in sys.stdin.buffer.read().split(ending) if path)
        else:
            yield file


@click.command()
@click.argument("under", nargs=-1, metavar="[FOLDER]...", type=PATH_TYPE)
@store_option
@threshold_option
@min_agreement_option
@relations_option
@keep_option
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT.html",
    help="Write a page to look at, too.",
)
@json_option
@exit_option
def groups(
    under: Sequence[str],
    store: Path,
    threshold: float | None,
    min_agreement: float | None,
    relations: frozenset[Relation] | None,
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
    from indexes.paths import format_command
    from indexes.store import Store
    from pipeline.errors import RootNotFound
    from pipeline.grouping.keep_rules import KeepRules
    from pipeline.query.freshness import refresh_status
    from pipeline.query.groups import GroupOptions
    from pipeline.verify.relation import COPY_RELATIONS

    keep = KeepRules(split_rules(rules))
    if html:
        from pipeline.report.gallery import require_writable_page, write_gallery

        require_writable_page(
            html
        )  # before anything is printed, which somebody would have to wait for again
    with Store(store) as opened:
        for folder in under:
            if not opened.catalog.files.get_counts([os.path.realpath(folder)]).files:
                status = format_command(store, "status")
                raise RootNotFound(
                    f"the store has no photo below {ascii(folder)}; ingest it first, or see `{status}` for its roots"
                )
        asked = {
            "threshold": threshold,
            "min_agreement": min_agreement,
            "relations": relations or COPY_RELATIONS,
            "options": GroupOptions(keep_rules=keep, refresh_status=refresh_status),
        }
        found, warnings = _print_groups(
            opened, [os.path.realpath(folder) for folder in under], None, as_json, **asked
        )
        if html:
            write_gallery(found, opened, html, warnings)
    if exit_code and found:
        sys.exit(EXIT_FOUND)


@click.command()
@click.argument("roots", nargs=-1, required=True, metavar="ROOT...", type=PATH_TYPE)
@click.option(
    "--against-all",
    is_flag=True,
    help="Compare with the whole store, not only among the photos below ROOT.",
)
@ingest_options
@store_option
@model_option
@threshold_option
@min_agreement_option
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
    min_agreement: float | None,
    relations: frozenset[Relation] | None,
    rules: Sequence[str],
    as_json: bool,
    exit_code: bool,
    **options: Any,
) -> None:
    """Ingest folders, then print the groups of near-duplicates in them.

    \b
    neardup dedupe ~/Pictures
    neardup dedupe ~/Pictures --threshold 0.9 --json > groups.json
    neardup dedupe /media/card --against-all      what of the card is in the library?

    Nothing is moved or deleted. The first run embeds every photo; the next one only what is new.
    """
    from pipeline.grouping.keep_rules import KeepRules
    from pipeline.query.freshness import refresh_status
    from pipeline.query.groups import GroupOptions
    from pipeline.report.status import format_coverage
    from pipeline.verify.relation import COPY_RELATIONS

    keep = KeepRules(split_rules(rules))  # before hours of work
    with open_for_writing(store, roots) as opened:
        if threshold is not None:
            opened.check_threshold(threshold)
        coverage, real = run_ingest(opened, roots, model, **options)
        print_message(format_coverage(coverage))
        asked = {
            "threshold": threshold,
            "min_agreement": min_agreement,
            "relations": relations or COPY_RELATIONS,
            "options": GroupOptions(against_all, keep, refresh_status),
        }
        found, _ = _print_groups(opened, real, coverage, as_json, **asked)
    if exit_code and found:
        sys.exit(EXIT_FOUND)
    if coverage.has_problems:
        sys.exit(EXIT_SKIPPED)


def _print_groups(
    store: Store, folders: Sequence[str], coverage: Coverage | None, as_json: bool, **options: Any
) -> tuple[list[Group], list[str]]:
    """The groups, and what is to be read with them; `asked`: as find_groups() has it."""
    from pipeline.query.freshness import format_stale_warning
    from pipeline.query.groups import find_groups
    from pipeline.query.thresholds import resolve_thresholds
    from pipeline.report.answers import format_groups, serialize_coverage, serialize_groups
    from pipeline.report.status import format_warnings

    with store.catalog.snapshot():  # a migration may end meanwhile
        space, found = (
            store.space,
            find_groups(store, folders=folders, **options),
        )
        within = (
            resolve_thresholds(store, space, options["threshold"], options["min_agreement"])
            if space
            else None
        )
        warnings = list(format_warnings(store))
    photos = [photo for group in found for photo in group.files]
    warnings += [since] if (since := format_stale_warning(photos)) else []
    for warning in warnings:
        print_message(f"neardup: {warning}")
    keep_rules = options["options"].keep_rules
    for rule in keep_rules.find_unused(photo.path for photo in photos) if found else ():
        print_message(
            f"neardup: no photo of these groups is in a folder of {ascii(rule)}, so that rule kept none"
        )
    if as_json:
        print_json(
            serialize_groups(found, space, within, serialize_coverage(store, folders, coverage))
        )
    else:
        print_lines(format_groups(found))
    return found, warnings


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="A B [C]...", type=PATH_TYPE)
@store_option
@model_option
@threshold_option
@json_option
@exit_option
@allow_cost_option
def compare(
    files: Sequence[str],
    store: Path,
    model: str | None,
    threshold: float | None,
    as_json: bool,
    exit_code: bool,
    allow_cost: bool,
) -> None:
    """Print what each pair of photos is to each other, and their cosine.

    \b
    neardup compare a.jpg b.jpg                   one score
    neardup compare a.jpg b.jpg c.jpg             the matrix
    neardup compare a.jpg b.jpg --exit-code       20 when they are near-duplicates

    Works without a store; where there is one, its model is used.
    """
    from pipeline.report.answers import format_comparison, serialize_comparison
    from pipeline.verify.relation import QUERY_RELATIONS

    if len(files) < 2:
        raise click.UsageError("name two photos or more")
    comparison, space = _compare_files(files, store, model, allow_cost)
    least = space.threshold if threshold is None else threshold
    if as_json:
        print_json(serialize_comparison(comparison, space, least))
    else:
        print_lines(format_comparison(comparison, least))
    if exit_code and any(
        comparison.get_relation(one, other, least) in QUERY_RELATIONS
        for one, other in comparison.iter_pairs()
    ):
        sys.exit(EXIT_FOUND)
    if comparison.list_failures():
        sys.exit(EXIT_SKIPPED)


def _compare_files(
    files: Sequence[str], store: Path, model: str | None, allow_cost: bool
) -> tuple[Comparison, Space]:
    """Files against each other, by the store's own model where there is a store; what failed is told."""
    from indexes.errors import StoreMissing
    from indexes.store import Store
    from pipeline.query.compare import compare
    from pipeline.report.answers import format_failure

    try:
        with Store(store) as opened, explain_model_errors(opened, model):
            embedder = choose_embedder(None, opened.model if model is None else model)
    except StoreMissing:
        embedder = choose_embedder(None, model)
    require_consent_to_query(embedder, len(files), allow_cost)
    comparison = compare(files, embedder)
    for file, failure in comparison.list_failures():
        print_message(f"neardup: {format_failure(file, failure.reason, failure.detail)}")
    return comparison, embedder.space


@click.command()
@click.argument("first", metavar="A", type=PATH_TYPE)
@click.argument("second", metavar="B", type=PATH_TYPE)
@click.option(
    "--image",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT.png",
    help="Draw what was seen.",
)
@store_option
@model_option
@json_option
@allow_cost_option
def explain(
    first: str,
    second: str,
    image: Path | None,
    store: Path,
    model: str | None,
    as_json: bool,
    allow_cost: bool,
) -> None:
    """Say why two photos are what they are to each other.

    \b
    neardup explain a.jpg b.jpg
    neardup explain a.jpg b.jpg --image why.png   side by side, laid on each other, the difference, the tiles

    Works without a store; where there is one, its model is used.
    """
    from PIL import Image

    from pipeline.errors import OutputNotWritable
    from pipeline.report.answers import format_explanation, serialize_comparison
    from pipeline.report.comparison_image import draw_comparison

    if image and os.path.lexists(image):
        raise OutputNotWritable(f"{image} is there already and is left as it is; name a new file")
    if image:
        written = Image.registered_extensions().get(image.suffix.lower()) in Image.SAVE
        if not (written and os.access(image.parent, os.W_OK | os.X_OK)):
            raise OutputNotWritable(
                f"{image} cannot be written; name a .png or .jpg in a folder that is there and may be written to"
            )
    comparison, space = _compare_files([first, second], store, model, allow_cost)
    if as_json:
        print_json(serialize_comparison(comparison, space, space.threshold))
    else:
        print_lines(format_explanation(comparison, space.threshold))
    if image and (drawn := draw_comparison(comparison)):
        try:
            drawn.save(image)
        except (OSError, ValueError) as error:
            raise OutputNotWritable(
                f"{image} cannot be written ({error}); name a .png or .jpg in a folder that is there"
            ) from error
    if comparison.list_failures():
        sys.exit(EXIT_SKIPPED)

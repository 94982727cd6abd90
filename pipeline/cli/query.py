"""neardup query: check whether files are already in the library."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from pipeline.cli.console import (
    EXIT_FOUND,
    EXIT_SKIPPED,
    EXIT_USAGE,
    print_json,
    print_lines,
    print_warning,
)
from pipeline.cli.options import (
    ModelArguments,
    OutputArguments,
    SearchArguments,
    model_arguments,
    output_arguments,
    search_arguments,
    store_option,
)
from pipeline.cli.session import choose_embedder, require_consent_to_query
from pipeline.cli.values import PATH_TYPE

if TYPE_CHECKING:
    from indexes.store import Store
    from pipeline.query.matches import Answer

MAX_PATH_BYTES = 4096  # Linux allows no longer one


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...", type=PATH_TYPE)
@click.option(
    "-0",
    "--null",
    "is_null_separated",
    is_flag=True,
    help="Paths on standard input end with NUL, as those of find -print0 do.",
)
@store_option
@model_arguments
@search_arguments
@output_arguments
def query(
    files: Sequence[str],
    is_null_separated: bool,
    store: Path,
    model: ModelArguments,
    search: SearchArguments,
    output: OutputArguments,
) -> None:
    """Check whether photos are already in the library.

    \b
    neardup query holiday.jpg                     best match first
    neardup query ~/Downloads/*.jpg --json
    find /media/card -name '*.jpg' -print0 | neardup query -0 -

    FILE may be inside the library or outside; nothing is added. Without FILE, or with -, paths are
    read from standard input.
    """
    from indexes.store import Store
    from pipeline.embed.model_errors import explain_model_errors
    from pipeline.report.format import format_failure
    from pipeline.report.matches import (
        format_answer,
        format_featureless_count,
        serialize_answers,
    )
    from pipeline.report.status import format_warnings

    answers = []
    with Store(store) as opened:
        for warning in format_warnings(opened):
            print_warning(warning)
        with explain_model_errors(opened, model.model):
            paths = list(_read_paths(files, is_null_separated))
            for answer in _find_answers(opened, paths, model, search):
                answers.append(answer)
                if failure := answer.failure:
                    print_warning(format_failure(answer.file, failure.reason, failure.detail))
                if not output.as_json:
                    print_lines(format_answer(answer))
                _print_stale_warning(opened, answer)
        featureless = opened.catalog.files.get_counts().featureless
    if output.as_json:
        print_json(serialize_answers(answers, featureless))
    elif featureless:
        print_lines([format_featureless_count(featureless)])
    if output.exit_code and any(_has_copy(answer) for answer in answers):
        sys.exit(EXIT_FOUND)
    if any(answer.failure for answer in answers):
        sys.exit(EXIT_SKIPPED)


def _has_copy(answer: Answer) -> bool:
    """Tell if a file has a match that no person decided to be different."""
    from indexes.decisions import DecisionKind

    return any(
        match.decision is None or match.decision.kind is not DecisionKind.DIFFERENT
        for match in answer.matches
    )


def _read_paths(files: Sequence[str], is_null_separated: bool) -> Iterator[str]:
    """Yield the files that were named, and those on standard input in the place of each -."""
    if not files and sys.stdin.isatty():
        raise click.UsageError("name a FILE, or send paths to standard input")
    for file in files or ("-",):
        if file == "-":
            yield from _read_listed_paths(is_null_separated)
        else:
            yield file


def _read_listed_paths(is_null_separated: bool) -> Iterator[str]:
    """Yield the paths on standard input; exit with EXIT_USAGE if it holds no list of them."""
    from pipeline.decode.formats import SIGNATURE_BYTES, has_image_signature, has_jxl_signature

    data = sys.stdin.buffer.read(SIGNATURE_BYTES)
    if has_image_signature(data) or has_jxl_signature(data):
        # A path can start with the same letters, such as BM.
        data += sys.stdin.buffer.read(MAX_PATH_BYTES)
        first = data.split(b"\0" if is_null_separated else b"\n")[0].removesuffix(b"\r")
        if b"\0" in first or not os.path.lexists(first):
            _refuse_input("holds a photo, not paths; name its file instead: `neardup query FILE`")
    data += sys.stdin.buffer.read()
    if is_null_separated:
        yield from (os.fsdecode(path) for path in data.split(b"\0") if path)
        return
    if b"\0" in data:
        _refuse_input("holds NUL bytes, so it is no list of paths; that of find -print0 needs -0")
    for path in data.removeprefix(codecs.BOM_UTF8).split(b"\n"):
        # Lists from Windows end their lines with CR LF; a name can end with CR too.
        is_name = not path.endswith(b"\r") or os.path.lexists(path)
        if name := path if is_name else path.removesuffix(b"\r"):
            yield os.fsdecode(name)


def _refuse_input(reason: str) -> NoReturn:
    print_warning(f"standard input {reason}")
    sys.exit(EXIT_USAGE)


def _find_answers(
    store: Store, paths: Sequence[str], model: ModelArguments, search: SearchArguments
) -> Iterator[Answer]:
    """Yield an answer for each path; files of the library are checked for changes on disk."""
    from pipeline.query.freshness import refresh_answer
    from pipeline.query.matches import find_matches
    from pipeline.verify.relation import QUERY_RELATIONS

    embedder = choose_embedder(store, model.model)
    require_consent_to_query(embedder, len(paths), model.allow_cost)
    relations = search.relations or QUERY_RELATIONS
    for answer in find_matches(
        paths, store, embedder, search.threshold, relations, search.min_agreement
    ):
        yield refresh_answer(answer)


def _print_stale_warning(store: Store, answer: Answer) -> None:
    from pipeline.report.status import format_stale_warning

    if warning := format_stale_warning(store, (match.file for match in answer.matches)):
        print_warning(warning)

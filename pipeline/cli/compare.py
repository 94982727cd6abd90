"""neardup compare: print the relation and the score of each pair of a few images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.console import (
    EXIT_FOUND,
    EXIT_SKIPPED,
    print_json,
    print_lines,
    print_warning,
)
from pipeline.cli.options import (
    ModelArguments,
    OutputArguments,
    compare_threshold_option,
    model_arguments,
    output_arguments,
    store_option,
)
from pipeline.cli.session import choose_embedder, require_consent_to_query
from pipeline.cli.values import PATH_TYPE

if TYPE_CHECKING:
    from indexes.records import Space
    from pipeline.embed.embedder import Embedder
    from pipeline.grouping.decisions import Decisions
    from pipeline.query.compare import Comparison


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="A B [C]...", type=PATH_TYPE)
@store_option
@model_arguments
@compare_threshold_option
@output_arguments
def compare(
    files: Sequence[str],
    store: Path,
    model: ModelArguments,
    threshold: float | None,
    output: OutputArguments,
) -> None:
    """Print the relation and the cosine of each pair of photos.

    \b
    neardup compare a.jpg b.jpg                   one score
    neardup compare a.jpg b.jpg c.jpg             the matrix
    neardup compare a.jpg b.jpg --exit-code       20 if they are near-duplicates

    Works without a store; if there is one, its model is used. A threshold leaves out pairs that
    score lower, except exact copies.
    """
    from pipeline.report.comparison import format_comparison, serialize_comparison
    from pipeline.verify.relation import QUERY_RELATIONS

    if len(files) < 2:
        raise click.UsageError("name two or more images")
    comparison, space = compare_files(files, store, model)
    similar = space.threshold if threshold is None else threshold
    if output.as_json:
        decisions = load_decisions_if_any(store)
        print_json(serialize_comparison(comparison, space, similar, threshold, decisions))
    else:
        print_lines(format_comparison(comparison, similar, threshold))
    relations = {
        comparison.get_relation(*pair, similar)
        for pair in comparison.iter_pairs()
        if not comparison.is_below(*pair, threshold)
    }
    if output.exit_code and relations & QUERY_RELATIONS:
        sys.exit(EXIT_FOUND)
    if comparison.list_failures():
        sys.exit(EXIT_SKIPPED)


def compare_files(
    files: Sequence[str], store: Path, model: ModelArguments
) -> tuple[Comparison, Space]:
    """Compare files with each other by the model of the store, if there is one; print failures."""
    from pipeline.query.compare import compare
    from pipeline.report.format import format_failure

    embedder = _choose_embedder(store, model.model)
    require_consent_to_query(embedder, len(files), model.allow_cost)
    comparison = compare(files, embedder)
    for file, failure in comparison.list_failures():
        print_warning(format_failure(file, failure.reason, failure.detail))
    return comparison, embedder.space


def load_decisions_if_any(store: Path) -> Decisions:
    """Load the decisions of a store; none if there is no store."""
    from indexes.errors import StoreMissing
    from indexes.store import Store
    from pipeline.decided import load_decisions
    from pipeline.grouping.decisions import NO_DECISIONS

    try:
        with Store(store) as opened:
            return load_decisions(opened)
    except StoreMissing:
        return NO_DECISIONS


def _choose_embedder(store: Path, model: str | None) -> Embedder:
    """Load the model that was named, else that of the store, else the default one."""
    from indexes.errors import StoreMissing
    from indexes.store import Store
    from pipeline.embed.model_errors import explain_model_errors

    try:
        with Store(store) as opened, explain_model_errors(opened, model):
            return choose_embedder(None, opened.model if model is None else model)
    except StoreMissing:
        return choose_embedder(None, model)

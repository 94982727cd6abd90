"""neardup dedupe: ingest folders and print the groups in them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from pipeline.cli.console import EXIT_FOUND, print_message
from pipeline.cli.groups import GroupQuery, print_groups
from pipeline.cli.options import (
    GroupArguments,
    IngestArguments,
    OutputArguments,
    group_arguments,
    ingest_arguments,
    output_arguments,
    store_option,
)
from pipeline.cli.session import exit_for_problems, open_for_writing, run_ingest
from pipeline.cli.values import PATH_TYPE


@click.command()
@click.argument("roots", nargs=-1, required=True, metavar="ROOT...", type=PATH_TYPE)
@click.option(
    "--against-all",
    is_flag=True,
    help="Compare with the whole store, not only among the photos below ROOT.",
)
@ingest_arguments
@store_option
@group_arguments
@output_arguments
def dedupe(
    roots: Sequence[str],
    against_all: bool,
    arguments: IngestArguments,
    store: Path,
    search: GroupArguments,
    output: OutputArguments,
) -> None:
    """Ingest folders, then print the groups of near-duplicates in them.

    \b
    neardup dedupe ~/Pictures
    neardup dedupe ~/Pictures --threshold 0.9 --json > groups.json
    neardup dedupe /media/card --against-all      which photos of the card are in the library?

    Nothing is moved or deleted. The first run embeds every photo; later runs only new ones.
    """
    from pipeline.report.ingest import format_coverage

    search.parse_keep_rules()  # an invalid rule fails before hours of work
    with open_for_writing(store, roots) as opened:
        if search.threshold is not None:
            opened.search.check_threshold(search.threshold)
        result = run_ingest(opened, roots, arguments)
        print_message(format_coverage(result.coverage))
        query = GroupQuery(search, result.root_paths, against_all)
        printed = print_groups(opened, query, result.coverage, output.as_json)
    if output.exit_code and printed.groups:
        sys.exit(EXIT_FOUND)
    exit_for_problems(result.coverage, arguments)

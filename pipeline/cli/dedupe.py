"""neardup dedupe: ingest folders and print the groups in them."""

from __future__ import annotations

import os
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
    ScopeArguments,
    group_arguments,
    ingest_arguments,
    output_arguments,
    scope_arguments,
    store_option,
)
from pipeline.cli.session import (
    exit_for_problems,
    open_for_writing,
    require_folders,
    run_ingest,
)
from pipeline.cli.values import PATH_TYPE


@click.command()
@click.argument("roots", nargs=-1, required=True, metavar="ROOT...", type=PATH_TYPE)
@scope_arguments
@ingest_arguments
@store_option
@group_arguments
@output_arguments
def dedupe(
    roots: Sequence[str],
    scope: ScopeArguments,
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
    neardup dedupe new --against ~/Pictures       only groups across the two

    Nothing is moved or deleted. The first run embeds every photo; later runs only new ones.
    """
    from pipeline.report.ingest import format_coverage

    search.parse_keep_rules()  # an invalid rule fails before hours of work
    if scope.against_all and scope.against:
        raise click.UsageError(
            "--against-all compares with the folders of --against, too; leave one of the two out"
        )
    require_folders(scope.against)
    with open_for_writing(store, [*roots, *scope.against]) as opened:
        if search.threshold is not None:
            opened.search.check_threshold(search.threshold)
        result = run_ingest(opened, [*roots, *scope.against], arguments)
        print_message(format_coverage(result.coverage))
        against = [os.path.realpath(other) for other in scope.against]
        own_paths = [path for path in map(os.path.realpath, roots) if path in result.root_paths]
        query = GroupQuery(search, own_paths, scope.against_all, against)
        printed = print_groups(opened, query, result.coverage, output.as_json)
    if output.exit_code and printed.groups:
        sys.exit(EXIT_FOUND)
    exit_for_problems(result.coverage, arguments)

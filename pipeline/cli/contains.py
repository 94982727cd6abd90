"""neardup contains: tell which photos of a folder are in another folder too."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from pipeline.cli.console import EXIT_FOUND, print_json, print_lines, print_message
from pipeline.cli.options import IngestArguments, ingest_arguments, json_option, store_option
from pipeline.cli.session import (
    exit_for_problems,
    open_for_writing,
    require_folders,
    run_ingest,
)
from pipeline.cli.values import PATH_TYPE


@click.command()
@click.argument("folder", metavar="A", type=PATH_TYPE)
@click.argument("other", metavar="B", type=PATH_TYPE)
@ingest_arguments
@store_option
@json_option
@click.option(
    "--exit-code",
    is_flag=True,
    help="Exit with 20 if every file of A is in B as the same or a better file.",
)
def contains(
    folder: str,
    other: str,
    arguments: IngestArguments,
    store: Path,
    as_json: bool,
    exit_code: bool,
) -> None:
    """Tell which photos of folder A are in folder B: as good, only lesser, or not at all.

    \b
    neardup contains /media/card ~/Pictures
    neardup contains old-backup ~/Pictures --exit-code --json > proof.json

    Ingests both folders first. As good is a file with the same bytes, or with the same picture and
    all of its metadata in no lower quality. Videos and other files are in B if a file with their
    bytes is; with any other one in A the exit code is never 20.
    """
    from pipeline.query.contains import find_contained, require_separate_folders
    from pipeline.report.contains import format_contained, serialize_contained
    from pipeline.report.ingest import format_coverage

    require_folders([folder, other])
    paths = os.path.realpath(folder), os.path.realpath(other)
    require_separate_folders(*paths)
    with open_for_writing(store, [folder, other]) as opened:
        result = run_ingest(opened, [folder, other], arguments)
        print_message(format_coverage(result.coverage))
        report = find_contained(opened, *paths)
    if as_json:
        print_json(serialize_contained(report, *paths))
    else:
        print_lines(format_contained(report, *paths))
    if exit_code and report.is_all_as_good:
        sys.exit(EXIT_FOUND)
    exit_for_problems(result.coverage, arguments)

"""neardup ingest: bring the store up to date with folders of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from pipeline.cli.console import print_json, print_message
from pipeline.cli.options import IngestArguments, ingest_arguments, json_option, store_option
from pipeline.cli.session import exit_for_problems, open_for_writing, run_ingest
from pipeline.cli.values import PATH_TYPE


@click.command()
@click.argument("roots", nargs=-1, metavar="[ROOT]...", type=PATH_TYPE)
@ingest_arguments
@store_option
@json_option
def ingest(roots: Sequence[str], arguments: IngestArguments, store: Path, as_json: bool) -> None:
    """Bring the store up to date with folders of photos.

    \b
    neardup ingest ~/Pictures /mnt/nas/photos     add folders; they are remembered
    neardup ingest                                refresh all of them: the nightly call
    neardup ingest ~/Pictures --exclude '*.gif' --exclude 'raw/*'

    Only new and changed files are read, and only new content is embedded. Stop it with Ctrl-C at
    any moment; the same command continues from there. Exit code 3: done, but there are photos that
    could not be read or are missing, and that the run before did not have; --strict counts all.
    """
    from pipeline.report.ingest import format_coverage, format_rejected_paths, serialize_ingest

    with open_for_writing(store, roots) as opened:
        coverage = run_ingest(opened, roots, arguments).coverage
    if as_json:
        print_json(serialize_ingest(coverage))
    else:
        print_message(format_coverage(coverage))
        for line in format_rejected_paths(coverage):
            print_message(line)
    exit_for_problems(coverage, arguments)

"""neardup status: show what a store holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.console import print_json, print_lines
from pipeline.cli.options import json_option, store_option

if TYPE_CHECKING:
    from indexes.coverage import UnreadablePath
    from indexes.store import Store


@click.command()
@click.option(
    "--failures",
    "list_failures",
    is_flag=True,
    help="List every file and folder that could not be read, with the reason.",
)
@store_option
@json_option
def status(list_failures: bool, store: Path, as_json: bool) -> None:
    """Show what a store holds and how the last ingest ended.

    \b
    neardup status
    neardup status --failures                     which files could not be read, and why
    """
    from indexes.store import Store
    from pipeline.report.format import format_failure
    from pipeline.report.status import format_status, report_status, serialize_status

    with Store(store) as opened:
        opened.check_segments()
        report = report_status(opened)
        failures = _collect_failures(opened) if list_failures else None
    if as_json:
        print_json(serialize_status(report, failures))
    elif failures is not None:
        print_lines(format_failure(item.path, item.reason, item.detail) for item in failures)
    else:
        print_lines(format_status(report))


def _collect_failures(store: Store) -> list[UnreadablePath]:
    """Collect the files without an image and the folders that were not read, ordered by path."""
    failures = list(store.catalog.files.list_failures())
    last_run = store.catalog.runs.get_last()
    # Folders are not in the catalog, only in the coverage of the run.
    if last_run and last_run.coverage:
        failures += last_run.coverage.unreadable_paths
    return sorted(failures, key=lambda failure: os.fsencode(failure.path))

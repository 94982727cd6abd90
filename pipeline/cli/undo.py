"""neardup undo: move the files of a run back."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from indexes.paths import format_command
from pipeline.cli.console import EXIT_SKIPPED, print_json, print_lines, print_message
from pipeline.cli.options import json_option, store_option


@click.command()
@click.argument("run", metavar="RUN")
@store_option
@json_option
def undo(run: str, store: Path, as_json: bool) -> None:
    """Undo a run: move its files back to where they were.

    \b
    neardup undo last                             the run that moved a file last
    neardup undo 20260131-101500-1a2b3c4d         a run of `neardup runs`

    A file that is now at the place of another is never replaced: that one stays in quarantine, and
    is named. A run that was cut off is undone as far as it came. Exit code 3: some files could not
    be moved back.
    """
    from indexes.store import Store
    from pipeline.actions.journal import find_journal
    from pipeline.actions.undo import undo_run
    from pipeline.report.actions import format_outcomes, serialize_outcomes

    with Store(store) as opened:
        roots = [root.path for root in opened.catalog.roots.list()]
    name = find_journal(store, run).stem
    outcomes = list(undo_run(store, run, roots))
    if as_json:
        print_json(serialize_outcomes(outcomes, name))
    else:
        print_lines(format_outcomes(outcomes, "moved back", ""))
    if any(not outcome.is_problem for outcome in outcomes):
        command = format_command(store, "ingest")
        print_message(f"the next `{command}` adds the files to the store again")
    if any(outcome.is_problem for outcome in outcomes):
        sys.exit(EXIT_SKIPPED)

"""neardup purge: delete what old runs hold in quarantine."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import click

from indexes.paths import format_command
from pipeline.cli.console import EXIT_SKIPPED, print_json, print_lines, print_message
from pipeline.cli.options import json_option, store_option
from pipeline.cli.session import open_for_writing
from pipeline.cli.values import AgeType


@click.command()
@click.option(
    "--older-than",
    type=AgeType(),
    default="30d",
    show_default=True,
    metavar="AGE",
    help="Time in quarantine: days or hours, such as 30d or 12h.",
)
@click.option("--yes", is_flag=True, help="Delete; without it, only print what would be deleted.")
@store_option
@json_option
def purge(older_than: timedelta, yes: bool, store: Path, as_json: bool) -> None:
    """Delete what has been in quarantine for long. This cannot be undone.

    \b
    neardup purge                                 what would be deleted
    neardup purge --older-than 90d --yes

    The keeper of each file is hashed again, and the file too. A file whose keeper is gone, changed
    or away stays in quarantine, and is named; so does a rejected photo whose decision
    was forgotten. Exit code 3: some files stay.
    """
    from indexes.store import Store
    from pipeline.actions.purge import purge_runs
    from pipeline.actions.rejections import Rejections
    from pipeline.report.actions import format_outcomes, serialize_outcomes

    # No decision is forgotten while what it rejects is deleted.
    with open_for_writing(store) if yes else Store(store) as opened:
        roots = [root.path for root in opened.catalog.roots.list()]
        rejections = Rejections(opened)
        outcomes = list(purge_runs(store, roots, older_than, rejections, dry_run=not yes))
    if as_json:
        print_json(serialize_outcomes(outcomes, None))
    else:
        print_lines(format_outcomes(outcomes, "deleted", "to delete"))
    if outcomes and not yes:
        hours = f"{older_than // timedelta(hours=1)}h"
        command = format_command(store, "purge", "--older-than", hours, "--yes")
        print_message(f"nothing was deleted yet; `{command}` deletes for good")
    if any(outcome.is_problem for outcome in outcomes):
        sys.exit(EXIT_SKIPPED)

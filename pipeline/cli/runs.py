"""neardup runs: list the plans that were applied."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.console import print_json, print_lines
from pipeline.cli.options import json_option, store_option


@click.command()
@store_option
@json_option
def runs(store: Path, as_json: bool) -> None:
    """List the plans that were applied, the oldest first, and what became of their files.

    \b
    neardup runs
    neardup runs --json
    """
    from indexes.store import Store
    from pipeline.actions.undo import list_runs
    from pipeline.report.actions import format_runs, serialize_runs

    Store(store).close()  # raises StoreMissing
    listed = list_runs(store)
    if as_json:
        print_json(serialize_runs(listed))
    else:
        print_lines(format_runs(listed))

"""neardup apply: apply a plan."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from indexes.paths import format_command
from pipeline.cli.console import EXIT_SKIPPED, print_json, print_lines, print_message
from pipeline.cli.options import json_option, store_option
from pipeline.cli.session import open_for_writing


@click.command()
@click.argument("plan", metavar="PLAN.json", type=click.Path(path_type=Path, readable=False))
@click.option("--yes", is_flag=True, help="Apply it; without it, only print what would be done.")
@click.option(
    "--confirm",
    type=click.IntRange(min=0),
    metavar="N",
    help="Confirm the number of files; required above 1,000, and above a fifth of the library.",
)
@store_option
@json_option
def apply(plan: Path, yes: bool, confirm: int | None, store: Path, as_json: bool) -> None:
    """Apply a plan: move each file away whose keeper is there, whole and not to go itself.

    \b
    neardup apply plan.json                       what would be done
    neardup apply plan.json --yes                 do it
    neardup apply plan.json --yes --confirm 1500  many files are confirmed by their number

    The bytes of every keeper are hashed again, and so are those of every file that was moved; one
    that is not as planned is moved back. A rejected photo is moved while its decision still stands.
    Nothing is deleted: `neardup undo` brings all of it back,
    but for the trash. A run that was cut off is continued by the same command. Exit code 3: done,
    but some files were left alone.
    """
    from indexes.store import Store
    from pipeline.actions.apply import apply_plan
    from pipeline.actions.moved_files import remove_moved_files
    from pipeline.actions.outcome import Status
    from pipeline.actions.plan import TRASH_WARNING, Action
    from pipeline.actions.plan_checks import require_confirmation, require_current
    from pipeline.actions.plan_file import name_run, read_plan
    from pipeline.actions.preview import preview_plan
    from pipeline.actions.rejections import Rejections
    from pipeline.cli.progress import follow_plan
    from pipeline.report.actions import format_outcomes, serialize_outcomes

    read = read_plan(plan)
    run = name_run(read)
    with open_for_writing(store) if yes else Store(store) as opened:
        roots = [root.path for root in opened.catalog.roots.list()]
        rejections = Rejections(opened)
        if yes:
            require_current(read, store, roots, rejections)  # before a person counts files
            require_confirmation(read, confirm)
            outcomes = follow_plan(apply_plan(read, store, roots, rejections), read)
            remove_moved_files(opened, read, outcomes)
        else:
            outcomes = list(preview_plan(read, store, roots, rejections))
    if as_json:
        print_json(serialize_outcomes(outcomes, run))
    else:
        print_lines(format_outcomes(outcomes, "done", "to act on"))
    statuses = {outcome.status for outcome in outcomes}
    if not yes and Status.LEFT in statuses and Status.PLANNED not in statuses:
        command = format_command(store, "plan")
        print_message(f"nothing can be done; make a new plan with `{command}`")
    elif not yes and statuses - {Status.DONE}:
        command = format_command(store, "apply", str(plan), "--yes")
        print_message(f"nothing was done yet; apply the plan with `{command}`")
    elif any(not outcome.is_problem for outcome in outcomes):
        if read.action is Action.TRASH:
            print_message(TRASH_WARNING)
        else:
            print_message(f"undo it with `{format_command(store, 'undo', run)}`")
    if any(outcome.is_problem for outcome in outcomes):
        sys.exit(EXIT_SKIPPED)

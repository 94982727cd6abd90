"""neardup migrate: embed all images again with another model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from indexes.paths import format_command
from pipeline.cli.console import EXIT_SKIPPED, print_json, print_message, print_warning
from pipeline.cli.options import (
    MODEL_NAME_FORMS,
    WorkArguments,
    json_option,
    store_option,
    work_arguments,
)
from pipeline.cli.session import choose_embedder, open_for_writing

if TYPE_CHECKING:
    from indexes.coverage import Coverage
    from indexes.records import Space
    from indexes.store import Store
    from pipeline.embed.embedder import Embedder
    from pipeline.report.maintenance import MigrationReport, PendingMigrationReport


@click.command()
@click.option("--model", required=True, metavar="NAME", help=f"Model to use: {MODEL_NAME_FORMS}.")
@click.option(
    "--leave-out",
    is_flag=True,
    help="Continue without photos that are away or cannot be read; an ingest embeds them later.",
)
@click.option("--restart", is_flag=True, help="Drop what was embedded for a new model before.")
@work_arguments
@store_option
@json_option
def migrate(
    model: str, leave_out: bool, restart: bool, work: WorkArguments, store: Path, as_json: bool
) -> None:
    """Embed all photos again with another model.

    \b
    neardup migrate --model onnx:sscd.onnx
    neardup migrate --model onnx:sscd.onnx --leave-out   although a drive is away
    neardup migrate --model neardup-0 --restart          keep the store's model, drop what was begun

    The store answers with its old model until everything is embedded, then switches to the new one
    in one step. Stop it with Ctrl-C at any moment; the same command continues from there. Files,
    folders and runs stay as they are. Exit code 8: nothing was changed, because some photos are
    away or cannot be read.
    """
    from pipeline.report.maintenance import (
        MigrationReport,
        report_pending_migration,
        serialize_migration,
    )

    with open_for_writing(store) as opened:
        space_before = _require_space(opened, model)
        had_saved_thresholds = opened.catalog.settings.get_saved_thresholds() is not None
        pending_before = opened.get_pending_migration()
        embedder = choose_embedder(None, model, work.threads)
        coverage = _run_migration(opened, embedder, work, leave_out=leave_out, restart=restart)
        report = MigrationReport(
            model=embedder.name,
            migrated=space_before != embedder.space,
            images=opened.catalog.files.get_counts().images,
            embedded=coverage.embedded,
            waiting=len(opened.catalog.images.find_unembedded()),
            dropped=pending_before if restart else None,
        )
        pending = report_pending_migration(opened)
    for warning in coverage.warnings:
        print_warning(warning)
    if as_json:
        print_json(serialize_migration(report))
    else:
        _print_outcome(store, report, pending, had_saved_thresholds)
    if report.waiting:
        sys.exit(EXIT_SKIPPED)


def _require_space(store: Store, model: str) -> Space:
    """Get the space of a store, or fail with exit code 2 if it has no vectors to migrate."""
    space = store.space
    if space is None:
        ingest = format_command(store.folder, "ingest", "FOLDER", "--model", model)
        raise click.UsageError(
            f"{store.folder} has no images yet, so there is nothing to migrate: `{ingest}`"
        )
    return space


def _run_migration(
    store: Store, embedder: Embedder, work: WorkArguments, *, leave_out: bool, restart: bool
) -> Coverage:
    """Migrate a store with progress; a signal ends the command with 128 + its number."""
    from pipeline.cli.progress import StoppedBySignal, run_with_progress
    from pipeline.ingest.migrate import migrate_store

    space_before = store.space
    updates = migrate_store(
        store, embedder, work.to_ingest_options(), leave_out=leave_out, restart=restart
    )
    try:
        return run_with_progress(updates, store.folder)
    except StoppedBySignal as stopped:
        answers = (
            "answers as before" if store.space == space_before else f"now uses {embedder.name}"
        )
        print_message(
            "stopped; nothing done so far is lost, and the same command continues from there,"
            f" and the store {answers}"
        )
        sys.exit(stopped.exit_code)


def _print_outcome(
    store: Path,
    report: MigrationReport,
    pending: PendingMigrationReport | None,
    had_saved_thresholds: bool,
) -> None:
    """Print what was dropped, what the store uses now, and what is still to be done."""
    from pipeline.report.format import pluralize
    from pipeline.report.maintenance import format_migration, format_pending_migration

    if dropped := report.dropped:
        images = pluralize(dropped.done, "image")
        print_message(f"the migration to {dropped.model} ({images}) was dropped")
    if pending:
        print_message(f"{store} uses {report.model}; {format_pending_migration(pending)}")
    elif not report.migrated:
        nothing = "" if report.dropped else "; nothing to do"
        print_message(f"{store} already uses {report.model}{nothing}")
    else:
        print_message(format_migration(report))
        if had_saved_thresholds:
            calibrate = format_command(store, "calibrate", "--save")
            print_message(
                "the saved thresholds were for the other model and are forgotten;"
                f" `{calibrate}` finds new ones"
            )

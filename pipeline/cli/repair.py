"""neardup repair: quarantine damaged parts of a store and rebuild them from the files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from indexes.paths import CATALOG_NAME, format_command, quote
from pipeline.cli.console import (
    EXIT_DAMAGED,
    EXIT_SKIPPED,
    print_lines,
    print_message,
    print_warning,
)
from pipeline.cli.options import IngestArguments, data_option, store_option
from pipeline.cli.session import run_ingest

if TYPE_CHECKING:
    from indexes.coverage import Coverage
    from indexes.store import Store


@click.command()
@data_option
@click.option("--yes", is_flag=True, help="Repair; without it, only print what would be done.")
@store_option
def repair(data: bool, yes: bool, store: Path) -> None:
    """Quarantine damaged parts and rebuild them from the photos.

    \b
    neardup repair                                what would be done
    neardup repair --data --yes

    The catalog is backed up first. Damaged segments go to the store's quarantine folder, and their
    photos are embedded again; a damaged catalog goes there with all segments, and every photo is
    embedded again. No photo is changed, nothing is deleted.
    """
    if yes:
        _repair(store, read_all=data)
    else:
        _print_plan(store, read_all=data)


def _print_plan(store: Path, *, read_all: bool) -> None:
    from indexes import check
    from pipeline.report.maintenance import format_check, format_repair_plan

    findings = check(store, read_all=read_all)
    print_lines(format_check(findings, []))
    if findings:
        repair = format_command(store, "repair", "--yes")
        plan = format_repair_plan(findings, os.fspath(store / CATALOG_NAME))
        print_warning(f"nothing was changed; `{repair}` {plan}")
        sys.exit(EXIT_DAMAGED)


def _repair(store: Path, *, read_all: bool) -> None:
    from indexes import Store, repair
    from pipeline.report.ingest import format_coverage
    from pipeline.report.maintenance import format_check, format_repair

    findings, report = repair(store, read_all=read_all)
    print_lines(format_check(findings, []))
    if not findings:
        return
    if report:
        print_lines(format_repair(report))
    with Store(store, write=True) as opened:
        coverage = _embed_again(opened, report.model if report else None)
    print_message(format_coverage(coverage))
    if coverage.has_problems:
        sys.exit(EXIT_SKIPPED)


def _embed_again(store: Store, model: str | None) -> Coverage:
    """Ingest all folders of a repaired store, and print which images could not be embedded again.

    Exits with EXIT_SKIPPED if the repair could not recover the folders.
    """
    if not store.catalog.roots.list():
        ingest = format_command(store.folder, "ingest", "FOLDER")
        print_warning(f"the store's folders could not be recovered; name them again: `{ingest}`")
        sys.exit(EXIT_SKIPPED)
    coverage = run_ingest(store, (), IngestArguments(model=model)).coverage
    _print_unembedded(store)
    return coverage


def _print_unembedded(store: Store) -> None:
    from pipeline.report.format import MAX_LISTED_ITEMS

    unembedded = store.catalog.images.find_unembedded()
    files = list(store.catalog.files.find_of_images(unembedded))
    ingest = format_command(store.folder, "ingest")
    for file in files[:MAX_LISTED_ITEMS]:
        print_warning(
            f"{quote(file.path)} could not be embedded again; `{ingest}` embeds it once it can be"
            " read"
        )
    if len(files) > MAX_LISTED_ITEMS:
        print_warning(f"{len(files) - MAX_LISTED_ITEMS:,} more could not be embedded either")

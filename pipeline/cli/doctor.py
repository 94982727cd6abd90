"""neardup doctor: show what this installation can do."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.console import print_json, print_lines
from pipeline.cli.options import json_option, store_option


@click.command()
@store_option
@json_option
def doctor(store: Path, as_json: bool) -> None:
    """Show what this installation can do.

    \b
    neardup doctor                                versions, formats, cores, GPU, where the store is

    Works without a store. Add its output to bug reports.
    """
    from pipeline.report.doctor import (
        format_doctor_report,
        inspect_installation,
        serialize_doctor_report,
    )

    report = inspect_installation(store)
    if as_json:
        print_json(serialize_doctor_report(report))
    else:
        print_lines(format_doctor_report(report))

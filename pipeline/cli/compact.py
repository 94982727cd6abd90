"""neardup compact: merge segments and drop vectors that no image needs."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.console import print_json, print_lines
from pipeline.cli.options import json_option, lock_timeout_option, store_option
from pipeline.cli.session import open_for_writing


@click.command()
@lock_timeout_option
@store_option
@json_option
def compact(lock_timeout: float, store: Path, as_json: bool) -> None:
    """Merge all segments and drop the vectors of deleted photos.

    \b
    neardup compact
    neardup compact --lock-timeout 600               wait for an ingest that is running

    An ingest merges what is needed by itself; this goes further. Answers stay the same, and other
    commands may run at the same time.
    """
    from pipeline.report.maintenance import format_compaction, serialize_compaction

    with open_for_writing(store) as opened, opened.lock_for_ingest(lock_timeout):
        opened.prepare()
        report = opened.compact(full=True)
    if as_json:
        print_json(serialize_compaction(report))
    else:
        print_lines([format_compaction(report)])

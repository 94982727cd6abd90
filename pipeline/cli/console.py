"""What commands print: answers to stdout, everything else to stderr; and what they exit with."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

import click

# Exit codes: some inputs were left out; the store is not what was written; --exit-code and there are near-duplicates.
EXIT_SKIPPED, EXIT_DAMAGED, EXIT_FOUND = 3, 4, 20


def print_lines(lines: Iterable[str]) -> None:
    """Print an answer for people."""
    _require_output()
    for line in lines:
        click.echo(line)


def print_json(value: object) -> None:
    """Print an answer for programs; in ASCII, so that bytes of a path that are no UTF-8 come as \\udcXX, which os.fsencode gives back."""
    _require_output()
    click.echo(json.dumps(value, indent=2))


def _require_output() -> None:
    from pipeline.errors import PipelineError

    if sys.stdout is None:  # as Python has it where a shell closed it; click says nothing then
        raise PipelineError(
            "standard output is closed, so the answer is lost; send it to /dev/null if that is meant"
        )


def print_message(line: str) -> None:
    """Print what is no answer, to stderr."""
    click.echo(line, err=True)

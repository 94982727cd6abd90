"""Print answers to stdout and everything else to stderr; the exit codes of commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

import click

from indexes.paths import escape_bytes

# Exit codes that are no errors; those of errors are in pipeline.errors and indexes.errors.
EXIT_USAGE = 2  # as click has it
EXIT_SKIPPED = 3  # done, but some files were left out
EXIT_DAMAGED = 4  # the store is damaged
EXIT_FOUND = 20  # --exit-code was given, and there are near-duplicates


def print_lines(lines: Iterable[str]) -> None:
    """Print an answer for people."""
    _require_output()
    for line in lines:
        click.echo(line)


def print_json(document: object) -> None:
    """Print an answer for programs, in ASCII.

    Bytes of a path that are not UTF-8 become \\udcXX, which os.fsencode() turns back into bytes.
    """
    _require_output()
    click.echo(json.dumps(document, indent=2))


def _require_output() -> None:
    """Raise PipelineError if stdout is closed: Python sets it to None, and click prints nothing."""
    from pipeline.errors import PipelineError

    if sys.stdout is None:
        raise PipelineError(
            "standard output is closed, so the answer is lost; redirect it to /dev/null to drop it"
        )


def print_message(line: str) -> None:
    """Print to stderr what does not belong to the answer; a path in it may be no UTF-8."""
    click.echo(escape_bytes(line), err=True)


def print_warning(line: str) -> None:
    """Print a warning to stderr, with the name of the program before it."""
    print_message(f"neardup: {line}")

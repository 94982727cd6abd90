"""What commands print: answers to stdout, everything else to stderr; and what they exit with."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click

# Exit codes: some inputs were left out; the store is not what was written; --exit-code and there are near-duplicates.
SKIPPED, DAMAGED, FOUND = 3, 4, 20


def show(lines: Iterable[str]) -> None:
    """Print an answer for people."""
    for line in lines:
        click.echo(line)


def show_json(value: object) -> None:
    """Print an answer for programs; in ASCII, so that bytes of a path that are no UTF-8 come as \\udcXX, which os.fsencode gives back."""
    click.echo(json.dumps(value, indent=2))


def tell(line: str) -> None:
    """Print what is no answer, to stderr."""
    click.echo(line, err=True)

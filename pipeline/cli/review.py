"""neardup review: serve a page to review groups in, and the HTTP API."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.console import print_lines, print_message
from pipeline.cli.decide import author_option, resolve_author
from pipeline.cli.options import store_option

if TYPE_CHECKING:
    from pipeline.review.web.server import Started

DEFAULT_PORT = 8757
MAX_PORT = 65_535
EXTRA_MODULES = ("jinja2", "starlette", "uvicorn")
EXIT_SIGNAL_BASE = 128  # an exit code is this and the number of a signal, as shells have it


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, MAX_PORT),
    default=DEFAULT_PORT,
    show_default=True,
    metavar="N",
    help="Port of 127.0.0.1; 0 for any that is free.",
)
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Listen on a Unix socket instead, for a container or a tunnel.",
)
@click.option("--read-only", "is_read_only", is_flag=True, help="Change nothing, and ask only.")
@author_option
@store_option
def review(
    port: int, socket_path: Path | None, is_read_only: bool, author: str | None, store: Path
) -> None:
    """Review groups on a page in a browser, and serve the HTTP API for programs.

    \b
    neardup review                                prints a link to open
    neardup review --read-only --port 0
    neardup review --socket /run/neardup.sock     for ssh -L 8757:/run/neardup.sock HOST

    Only this machine can connect, and only with the link, or with the token in the file
    review.token of the store. Runs until Ctrl-C. Needs `pip install 'neardup[review]'`.
    """
    try:
        from pipeline.review.web.server import ServerOptions, serve
    except ModuleNotFoundError as error:
        raise _explain_missing(error) from error
    options = ServerOptions(port, socket_path, resolve_author(author), is_read_only)
    sys.exit(EXIT_SIGNAL_BASE + serve(store, options, _announce))


def _explain_missing(error: ModuleNotFoundError) -> Exception:
    """Make the error for packages that are not installed; another module is a bug."""
    from pipeline.errors import MissingExtra

    if (error.name or "").partition(".")[0] not in EXTRA_MODULES:
        return error
    return MissingExtra(
        f"{error.name} is not installed; `pip install 'neardup[review]'` installs what"
        " `neardup review` needs"
    )


def _announce(started: Started) -> None:
    """Print where the server listens; the link alone goes to standard output."""
    if started.socket_path is not None:
        print_message(
            f"listening on {os.fspath(started.socket_path)}; through a tunnel from port PORT, put"
            " :PORT behind localhost"
        )
    print_lines([started.link])
    if started.token_path is None:
        print_message("the folder of the store is not writable, so programs have no token")
    else:
        print_message(f"token of programs: {os.fspath(started.token_path)}; stop with Ctrl-C")

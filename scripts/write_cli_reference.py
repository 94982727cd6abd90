"""Write docs/cli.md from the --help of all commands, so that help and documentation cannot differ.

python scripts/write_cli_reference.py            write it
python scripts/write_cli_reference.py --check    exit with 1 if it is out of date
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import click

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
HELP_COLUMNS = 100  # width of the help, whatever the terminal
INTRODUCTION = """\
# Command line

The `--help` of all commands, written by `scripts/write_cli_reference.py`; edit the commands in
`pipeline/cli/`, not this page. Exit codes: [json-and-exit-codes.md](json-and-exit-codes.md).
"""


def render_reference() -> str:
    """Render the page: the help of `neardup`, then a section for each command."""
    from pipeline.cli.main import main

    settings = dict(main.context_settings, terminal_width=HELP_COLUMNS)
    program = click.Context(main, info_name="neardup", **settings)
    sections = [INTRODUCTION, _render_help(program)]
    for name, command in main.commands.items():
        context = click.Context(
            command, parent=program, info_name=name, terminal_width=HELP_COLUMNS
        )
        sections += [f"## neardup {name}\n", _render_help(context)]
        if isinstance(command, click.Group):
            for inner_name, inner in command.commands.items():
                context_of_inner = click.Context(
                    inner, parent=context, info_name=inner_name, terminal_width=HELP_COLUMNS
                )
                title = f"### neardup {name} {inner_name}\n"
                sections += [title, _render_help(context_of_inner)]
    return "\n".join(sections)


def _render_help(context: click.Context) -> str:
    return f"```text\n{context.get_help()}\n```\n"


def main() -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only check that it is up to date")
    page = render_reference()
    if parser.parse_args().check:
        if not REFERENCE.exists() or REFERENCE.read_text() != page:
            sys.exit("docs/cli.md is out of date; run `python scripts/write_cli_reference.py`")
    else:
        REFERENCE.write_text(page)


if __name__ == "__main__":
    main()

"""The command line: parse, call one function, print, map errors to exit codes. Answers go to stdout, everything else to stderr."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import click

from pipeline.cli import library, tuning, upkeep
from pipeline.cli.console import print_message


class CommandGroup(click.Group):
    """Lists commands in the order of use and turns our errors into messages with exit codes."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """As click does it; an early Ctrl-C ends with the code of any other."""
        try:
            return super().make_context(*args, **kwargs)
        except KeyboardInterrupt:
            sys.exit(130)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As they were added."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        """Run a command; any error that is not ours is a bug, and shows its traceback."""
        from indexes.durable.files import DISK_FULL_ERRNOS
        from indexes.errors import DiskFull, StoreError
        from pipeline.errors import PipelineError

        try:
            return super().invoke(ctx)
        except (PipelineError, StoreError) as error:
            print_message(f"neardup: {error}")
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(130)
        except OSError as error:
            if error.errno not in DISK_FULL_ERRNOS:
                raise
            print_message(
                f"neardup: the answer could not be written: {error.strerror}; free some space, and ask again"
            )
            ctx.exit(DiskFull.exit_code)


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="neardup", prog_name="neardup")
def main() -> None:
    """Find near-duplicate photos in large libraries.

    \b
    neardup dedupe ~/Pictures          near-duplicates in a folder
    neardup ingest                     every night: what is new in all folders
    neardup query holiday.jpg          do I have this already?
    """
    # What Pillow says of odd files is counted, not printed.
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    for stream in filter(None, (sys.stdout, sys.stderr)):  # none where it was closed
        stream.reconfigure(errors="backslashreplace")


for command in (
    *(
        library.ingest,
        library.query,
        library.groups,
        library.dedupe,
        library.compare,
        library.explain,
    ),
    tuning.calibrate,
    *(
        upkeep.status,
        upkeep.models,
        upkeep.check,
        upkeep.repair,
        upkeep.migrate,
        upkeep.compact,
        upkeep.doctor,
    ),
):
    main.add_command(command)

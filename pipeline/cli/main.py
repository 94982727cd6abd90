"""The program `neardup`: its commands, and the exit code and message of each error."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import click

from pipeline.cli.apply import apply
from pipeline.cli.calibrate import calibrate
from pipeline.cli.check import check
from pipeline.cli.compact import compact
from pipeline.cli.compare import compare
from pipeline.cli.console import print_warning
from pipeline.cli.contains import contains
from pipeline.cli.decide import decide
from pipeline.cli.dedupe import dedupe
from pipeline.cli.doctor import doctor
from pipeline.cli.explain import explain
from pipeline.cli.groups import groups
from pipeline.cli.ingest import ingest
from pipeline.cli.migrate import migrate
from pipeline.cli.models import models
from pipeline.cli.plan import plan
from pipeline.cli.purge import purge
from pipeline.cli.query import query
from pipeline.cli.repair import repair
from pipeline.cli.review import review
from pipeline.cli.runs import runs
from pipeline.cli.status import status
from pipeline.cli.undo import undo

# In the order of their use, which is also that of `neardup --help`.
COMMANDS = (
    ingest,
    query,
    groups,
    dedupe,
    contains,
    decide,
    compare,
    explain,
    review,
    plan,
    apply,
    undo,
    purge,
    runs,
    calibrate,
    status,
    models,
    check,
    repair,
    migrate,
    compact,
    doctor,
)
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class CommandGroup(click.Group):
    """A group that keeps the order of its commands and turns our errors into exit codes."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse as click does; Ctrl-C while parsing exits with the same code as later."""
        try:
            return super().make_context(*args, **kwargs)
        except KeyboardInterrupt:
            sys.exit(EXIT_INTERRUPTED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order in which they were added; click sorts them."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - the type that click declares
        """Run a command; an error that is not ours is a bug and shows its traceback."""
        from indexes.durable.files import DISK_FULL_ERRNOS
        from indexes.errors import DiskFull, StoreError
        from pipeline.errors import PipelineError

        try:
            return super().invoke(ctx)
        except (PipelineError, StoreError) as error:
            print_warning(str(error))
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)
        except OSError as error:
            if error.errno not in DISK_FULL_ERRNOS:
                raise
            print_warning(
                f"the answer could not be written: {error.strerror}; free some space and try again"
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
    # What Pillow warns about in unusual files is counted as flags and failures, not printed.
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None where it was closed
        stream.reconfigure(errors="backslashreplace")


for command in COMMANDS:
    main.add_command(command)

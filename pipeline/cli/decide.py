"""neardup decide: enter, list, forget and exchange decisions about photos."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.console import print_json, print_lines, print_message
from pipeline.cli.options import json_option, store_option
from pipeline.cli.session import open_for_writing
from pipeline.cli.values import PATH_TYPE

if TYPE_CHECKING:
    from indexes.decisions import DecisionKind


class _OrderedGroup(click.Group):
    """A group that keeps the order of its commands; click sorts them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order in which they were added."""
        return list(self.commands)


author_option = click.option(
    "--author", metavar="NAME", help="Who decides.  [default: $USER]", envvar="USER"
)


@click.group(cls=_OrderedGroup)
def decide() -> None:
    """Decide what photos are to each other, once and for all.

    \b
    neardup decide different a.jpg b.jpg          never in one group, nor copies of them
    neardup decide same a.jpg b.jpg               in one group, whatever the pixels say
    neardup decide keep a.jpg                     the keeper of its group
    neardup decide reject a.jpg                   thrown away: reported when it comes back

    A decision is about the content of a photo, so it holds for renamed and copied files, and after
    its metadata was edited. No file is changed. A FILE is one of the library, or any photo.
    """


@decide.command()
@click.argument("files", nargs=-1, required=True, metavar="A B [C]...", type=PATH_TYPE)
@author_option
@store_option
def different(files: Sequence[str], author: str | None, store: Path) -> None:
    """Decide that photos are different: no two of them, and no copies of two, share a group.

    \b
    neardup decide different a.jpg b.jpg c.jpg

    A photo that is a copy of two of them goes to the group of the closer one.
    """
    from indexes.decisions import DecisionKind

    if len(files) < 2:
        raise click.UsageError("name two or more photos")
    _decide(store, DecisionKind.DIFFERENT, files, author)


@decide.command()
@click.argument("first", metavar="A", type=PATH_TYPE)
@click.argument("second", metavar="B", type=PATH_TYPE)
@author_option
@store_option
def same(first: str, second: str, author: str | None, store: Path) -> None:
    """Decide that two photos are the same: they share a group whatever the pixels say.

    \b
    neardup decide same a.jpg b.jpg
    """
    from indexes.decisions import DecisionKind

    _decide(store, DecisionKind.SAME, [first, second], author)


@decide.command()
@click.argument("file", metavar="FILE", type=PATH_TYPE)
@author_option
@store_option
def keep(file: str, author: str | None, store: Path) -> None:
    """Decide that a photo is the keeper of its group, before all rules.

    \b
    neardup decide keep a.jpg

    Of two such photos in one group, the one that was decided on later is kept.
    """
    from indexes.decisions import DecisionKind

    _decide(store, DecisionKind.KEEP, [file], author)


@decide.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=PATH_TYPE)
@author_option
@store_option
def reject(files: Sequence[str], author: str | None, store: Path) -> None:
    """Decide that photos are thrown away: each is reported when it comes back.

    \b
    neardup decide reject a.jpg
    neardup decide reject a.jpg b.jpg

    All of them are entered, or none. Nothing is moved or deleted: `neardup plan --rejected` plans
    that. From now on, files that hold such a photo or the same picture are listed by ingest,
    groups, dedupe and query. Reject a photo before you delete it, so that neardup can also find
    re-encoded copies of it.
    """
    from indexes.decisions import DecisionKind

    _decide(store, DecisionKind.REJECT, files, author)


def _decide(store: Path, kind: DecisionKind, files: Sequence[str], author: str | None) -> None:
    from pipeline.decide.decide import decide as enter_decision
    from pipeline.report.decisions import format_new_decisions

    with open_for_writing(store) as opened:
        merged = enter_decision(opened, kind, files, resolve_author(author))
    print_lines(format_new_decisions(merged.new, merged.known))


def resolve_author(author: str | None) -> str:
    """Return the name that was given, else that of the user; exits with 2 for one without end."""
    from indexes.decisions import MAX_AUTHOR_CHARS

    if author is None:
        try:
            author = getpass.getuser()
        except (OSError, KeyError):  # a user id without a name
            author = f"user {os.getuid()}"
    if not author.strip() or len(author) > MAX_AUTHOR_CHARS:
        raise click.UsageError(f"the author needs a name of 1 to {MAX_AUTHOR_CHARS} characters")
    return author


@decide.command(name="list")
@store_option
@json_option
def list_decisions(store: Path, as_json: bool) -> None:
    """List all decisions, the earliest first, with the files that hold their photos now."""
    from indexes.store import Store
    from pipeline.report.decisions import (
        find_decided_paths,
        format_decisions,
        serialize_decisions,
    )

    with Store(store) as opened, opened.catalog.snapshot():
        decisions = opened.catalog.decisions.list()
        paths = find_decided_paths(opened, decisions)
    if as_json:
        print_json(serialize_decisions(decisions, paths))
    else:
        print_lines(format_decisions(decisions, paths))


@decide.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@store_option
def forget(ids: Sequence[str], store: Path) -> None:
    """Forget decisions, by their ids in `neardup decide list`, or the first digits of these.

    \b
    neardup decide forget 3f9c
    """
    from pipeline.decide.decide import describe_decision
    from pipeline.decide.decide import forget as forget_decisions

    with open_for_writing(store) as opened:
        forgotten = forget_decisions(opened, ids)
    print_lines(f"forgotten: {describe_decision(decision)}" for decision in forgotten)


@decide.command(name="export")
@store_option
def export_lines(store: Path) -> None:
    """Print all decisions as JSON Lines, for `neardup decide import`.

    \b
    neardup decide export > decisions.jsonl
    """
    from indexes.store import Store
    from pipeline.decide.exchange import export_decisions

    with Store(store) as opened:
        print_lines(export_decisions(opened))


@decide.command(name="import")
@click.argument("file", metavar="FILE", type=PATH_TYPE)
@store_option
def import_lines(file: str, store: Path) -> None:
    """Add the decisions of an export; - reads standard input.

    \b
    neardup decide import decisions.jsonl

    Adds all decisions or none. Those that the store has already are passed over, so the import can
    be repeated.
    """
    from pipeline.decide.exchange import import_decisions
    from pipeline.report.format import pluralize

    with open_for_writing(store) as opened:
        merged = import_decisions(opened, _read_lines(file))
    print_message(
        f"{pluralize(len(merged.new), 'decision')} imported, {len(merged.known):,} known before"
    )


def _read_lines(file: str) -> Iterator[bytes]:
    """Yield the lines of a file, each cut where it is too long for a decision."""
    from indexes.decisions import MAX_LINE_CHARS
    from indexes.paths import quote
    from pipeline.errors import InvalidDecisionLine

    try:
        with sys.stdin.buffer if file == "-" else open(file, "rb") as lines:  # noqa: PTH123 - any bytes
            while line := lines.readline(MAX_LINE_CHARS + 1):
                yield line
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise InvalidDecisionLine(f"{quote(file)} cannot be read: {reason}") from error

"""neardup groups: print the groups of near-duplicates in a store."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from indexes.paths import quote
from pipeline.cli.console import (
    EXIT_FOUND,
    print_json,
    print_lines,
    print_message,
    print_warning,
)
from pipeline.cli.options import (
    GroupArguments,
    OutputArguments,
    group_arguments,
    output_arguments,
    store_option,
)
from pipeline.cli.values import PATH_TYPE, OutputFileType

if TYPE_CHECKING:
    from indexes.coverage import Coverage
    from indexes.store import Store
    from pipeline.grouping.cluster import Group
    from pipeline.grouping.keep_rules import KeepRules
    from pipeline.query.thresholds import Thresholds


@click.command()
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=PATH_TYPE)
@store_option
@group_arguments
@click.option(
    "--html",
    "page",
    type=OutputFileType("groups.html"),
    metavar="OUT.html",
    help="Write a page for a browser, too.",
)
@output_arguments
def groups(
    folders: Sequence[str],
    store: Path,
    search: GroupArguments,
    page: Path | None,
    output: OutputArguments,
) -> None:
    """Print the groups of near-duplicates in the store.

    \b
    neardup groups
    neardup groups --threshold 0.95 --json
    neardup groups ~/Pictures/2024                only among the photos below this folder
    neardup groups --html groups.html             a page with thumbnails, in a folder beside it
    neardup groups --keep folder:Albums,date      keep photos in a folder Albums, then the oldest

    No photo is read, so drives may be away. Each member was verified against its keeper. A
    threshold leaves out pairs whose photos score lower; any down to the store's floor works.
    """
    from indexes.store import Store

    search.parse_keep_rules()  # an invalid rule fails before anything is printed
    if page:
        from pipeline.report.gallery import require_writable_page, write_gallery

        require_writable_page(page)  # before an answer that would have to be computed again
    with Store(store) as opened:
        require_files_below(opened, folders)
        query = GroupQuery(search, [os.path.realpath(folder) for folder in folders])
        printed = print_groups(opened, query, None, output.as_json)
        if page:
            write_gallery(printed.groups, opened, page, printed.warnings)
            print_message(f"page written to {page}")
    if output.exit_code and printed.groups:
        sys.exit(EXIT_FOUND)


def require_files_below(store: Store, folders: Sequence[str]) -> None:
    """Raise RootNotFound if the store has no file below one of the folders."""
    from indexes.paths import format_command
    from pipeline.errors import RootNotFound

    for folder in folders:
        if not store.catalog.files.get_counts([os.path.realpath(folder)]).files:
            status = format_command(store.folder, "status")
            raise RootNotFound(
                f"the store has no file below {quote(folder)}; ingest it first, or see `{status}`"
                " for its folders"
            )


@dataclass(frozen=True)
class GroupQuery:
    """A query for groups: thresholds and rules, and the folders (real paths) to search.

    With `against_all`, groups with a file below the folders may have members anywhere; with
    `against`, real paths, each group has a file below the folders and one below these.
    """

    search: GroupArguments
    folders: Sequence[str]
    against_all: bool = False
    against: Sequence[str] = ()


@dataclass(frozen=True)
class PrintedGroups:
    """The groups that were printed, and the warnings that go with them."""

    groups: list[Group]
    warnings: list[str]


def print_groups(
    store: Store, query: GroupQuery, coverage: Coverage | None, as_json: bool
) -> PrintedGroups:
    """Find groups and print them, with warnings; `coverage` is of an ingest just before, if any."""
    from indexes.paths import quote
    from pipeline.decided import find_rejected
    from pipeline.report.decisions import format_rejected, serialize_rejected
    from pipeline.report.document import serialize_coverage
    from pipeline.report.groups import format_groups, serialize_groups
    from pipeline.report.status import format_stale_warning, format_warnings
    from pipeline.verify.relation import COPY_RELATIONS

    keep_rules = query.search.parse_keep_rules()
    with store.catalog.snapshot():  # a migration may end between the two questions
        space = store.space
        groups = _find_groups(store, query, keep_rules)
        thresholds = _resolve_thresholds(store, query.search)
        warnings = list(format_warnings(store))
        searched_folders = [*query.folders, *query.against]
        featureless = store.catalog.files.get_counts(searched_folders).featureless
        rejected = find_rejected(store, () if query.against_all else searched_folders)
    files = [file for group in groups for file in group.files]
    if stale := format_stale_warning(store, files):
        warnings.append(stale)
    for warning in warnings:
        print_warning(warning)
    if groups:
        for rule in keep_rules.find_unused(file.path for file in files):
            print_warning(f"no image in these groups matches the rule {quote(rule)}")
    if as_json:
        covered = serialize_coverage(store, searched_folders, coverage)
        covered["rejected"] = serialize_rejected(rejected)
        relations = query.search.relations or COPY_RELATIONS
        print_json(serialize_groups(groups, space, thresholds, covered, relations))
    else:
        print_lines([*format_groups(groups, featureless), *format_rejected(rejected)])
    return PrintedGroups(groups, warnings)


def _find_groups(store: Store, query: GroupQuery, keep_rules: KeepRules) -> list[Group]:
    from pipeline.query.assets import have_equal_bytes
    from pipeline.query.freshness import refresh_status
    from pipeline.query.groups import GroupOptions, find_groups
    from pipeline.verify.relation import COPY_RELATIONS

    return find_groups(
        store,
        query.search.threshold,
        query.folders,
        relations=query.search.relations or COPY_RELATIONS,
        min_agreement=query.search.min_agreement,
        options=GroupOptions(
            query.against_all,
            query.against,
            keep_rules,
            refresh_status,
            have_equal_content=have_equal_bytes,
        ),
    )


def _resolve_thresholds(store: Store, search: GroupArguments) -> Thresholds | None:
    """Resolve the thresholds that groups were found with; None for an empty store."""
    from pipeline.query.thresholds import resolve_thresholds

    space = store.space
    if space is None:
        return None
    return resolve_thresholds(store, space, search.threshold, search.min_agreement)

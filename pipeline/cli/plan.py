"""neardup plan: plan which files can go, in a file to read before it is applied."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from indexes.paths import format_command, quote
from pipeline.cli.console import print_json, print_lines, print_message, print_warning
from pipeline.cli.groups import require_files_below
from pipeline.cli.options import (
    json_option,
    keep_option,
    make_relations_option,
    pass_options,
    store_option,
)
from pipeline.cli.values import PATH_TYPE, SHARE, OutputFileType
from pipeline.verify.relation import Relation

if TYPE_CHECKING:
    from indexes.store import Store
    from pipeline.actions.plan import Plan
    from pipeline.actions.plan_options import PlanOptions
    from pipeline.grouping.cluster import Group
    from pipeline.grouping.keep_rules import KeepRules

_ACTION_WORDS = ("quarantine", "move", "hardlink", "reflink", "symlink", "trash", "report")


@dataclass(frozen=True, kw_only=True)
class PlanArguments:
    """Options of a plan, as they were given on the command line."""

    action: str
    to: str | None
    relations: frozenset[Relation] | None
    min_confidence: float | None
    rules: Sequence[str]
    references: Sequence[str]
    protect: Sequence[str]
    unprotect: Sequence[str]
    earlier: Path | None
    rejected: bool
    merge_metadata: bool

    def to_plan_options(self) -> PlanOptions:
        """Build the options of the pipeline. Raises PlanRefused and InvalidKeepRule."""
        from pipeline.actions.plan import Action
        from pipeline.actions.plan_options import PlanOptions
        from pipeline.errors import PlanRefused

        if self.rejected:
            self._require_sound_with_rejected()
        if self.to == "":  # its real path would be the current folder
            raise PlanRefused("--to has no name; name the folder to move to")
        options = PlanOptions(
            Action(self.action),
            os.path.realpath(self.to) if self.to is not None else None,
            self.relations or frozenset({Relation.IDENTICAL_BYTES}),
            self.min_confidence,
            tuple(_resolve_folder(folder) for folder in self.references),
            self._parse_keep_rules(),
            self.rejected,
            self.merge_metadata,
        )
        options.require_sound()
        return options

    def _require_sound_with_rejected(self) -> None:
        from pipeline.errors import PlanRefused

        if self.merge_metadata:
            raise PlanRefused("--merge-metadata is for keepers, and rejected photos have none")
        if self.relations or self.min_confidence is not None or self.earlier:
            raise PlanRefused(
                "--rejected goes without --relations, --min-confidence and --from: decisions say"
                " what can go"
            )

    def _parse_keep_rules(self) -> KeepRules:
        """Parse the rules of all --keep; reference folders come before them."""
        from pipeline.grouping.folder_patterns import FOLDER_PREFIX
        from pipeline.grouping.keep_rules import KeepRules

        named = [rule.strip() for rules in self.rules for rule in rules.split(",")]
        if not self.references:
            return KeepRules(named)
        folders = [FOLDER_PREFIX + glob.escape(_resolve_folder(path)) for path in self.references]
        return KeepRules([*folders, *([] if "original" in named else ["original"]), *named])


_plan_arguments = pass_options(
    "arguments",
    PlanArguments,
    (
        click.option(
            "--action",
            type=click.Choice(_ACTION_WORDS),
            default="quarantine",
            show_default=True,
            help="Action on each file: move it to a quarantine folder at the top of its"
            " root, or to the folder of --to; replace it by a link to the keeper, or by a copy that"
            " shares its blocks (reflink); put it in the trash; or nothing.",
        ),
        click.option("--to", type=PATH_TYPE, metavar="FOLDER", help="Folder of --action move."),
        make_relations_option("identical bytes only; identical adds identical pixels"),
        click.option(
            "--min-confidence",
            type=SHARE,
            metavar="P",
            help="Least probability of a copy; required for relations wider than identical.",
        ),
        keep_option,
        click.option(
            "--reference",
            "references",
            multiple=True,
            type=PATH_TYPE,
            metavar="FOLDER",
            help="Keep every photo below FOLDER, and prefer it to others; repeatable.",
        ),
        click.option(
            "--protect",
            multiple=True,
            type=PATH_TYPE,
            metavar="FOLDER",
            help="Never act on photos below FOLDER; repeatable, remembered.",
        ),
        click.option(
            "--unprotect",
            multiple=True,
            type=PATH_TYPE,
            metavar="FOLDER",
            help="Protect FOLDER no longer; repeatable.",
        ),
        click.option(
            "--from",
            "earlier",
            type=click.Path(path_type=Path, readable=False),
            metavar="GROUPS.json",
            help="Act only on members that an earlier `groups --json` lists, where they are still"
            " what it says.",
        ),
        click.option(
            "--rejected",
            is_flag=True,
            help="Move the photos that `neardup decide reject` threw away, and verified copies of"
            " them; they have no keeper. Only with the actions quarantine and move.",
        ),
        click.option(
            "--merge-metadata",
            is_flag=True,
            help="Add to an XMP sidecar of each keeper what it lacks and its copies have: date,"
            " place, rating, keywords, caption, title. Photos themselves are never written to.",
        ),
    ),
)


@click.command()
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=PATH_TYPE)
@_plan_arguments
@click.option(
    "--output",
    type=OutputFileType("plan.json"),
    metavar="PLAN.json",
    help="Write the plan to a new file, for `neardup apply`.",
)
@click.option(
    "--html",
    "page",
    type=OutputFileType("plan.html"),
    metavar="OUT.html",
    help="Write a page for a browser, too, with each keeper and what can go for it, or the rejected"
    " photos.",
)
@store_option
@json_option
def plan(
    folders: Sequence[str],
    arguments: PlanArguments,
    output: Path | None,
    page: Path | None,
    store: Path,
    as_json: bool,
) -> None:
    """Plan which near-duplicates can go, and for which keeper; nothing is touched.

    \b
    neardup plan                                  files with identical bytes
    neardup plan --output plan.json               the same, in a file to apply
    neardup plan --relations identical,same --min-confidence 0.99
    neardup plan --from groups.json               only what an earlier answer lists
    neardup plan ~/Pictures/phone --protect ~/Pictures/albums --action hardlink
    neardup plan --merge-metadata --relations identical
    neardup plan --rejected --output plan.json    photos that were thrown away

    Each file of a group is kept, planned, or left alone with the reason. A plan file is never
    changed: one that was edited is refused.
    """
    from indexes.store import Store
    from pipeline.actions.plan_file import require_new_file, write_plan
    from pipeline.report.actions import format_plan, serialize_plan_answer

    options = arguments.to_plan_options()
    if output:
        require_new_file(output)
    if output and page and os.path.realpath(output) == os.path.realpath(page):
        raise click.UsageError("--output and --html name one file; name two")
    if page:
        from pipeline.report.gallery import require_writable_page

        require_writable_page(page)
    with Store(store) as opened:
        require_files_below(opened, folders)
        made, groups = _make_plan(opened, folders, arguments, options)
        if page:
            _write_page(opened, made, groups, page)
    if output:
        write_plan(made, output)
    if as_json:
        print_json(serialize_plan_answer(made, os.fspath(output) if output else None))
    else:
        print_lines(format_plan(made, groups))
    if output and made.victim_count:
        command = format_command(store, "apply", os.fspath(output))
        print_message(f"plan written to {quote(os.fspath(output))}; see what it does: `{command}`")
    elif made.victim_count and not as_json:
        print_message("no file was written; name one with --output to apply the plan")


def _make_plan(
    store: Store, folders: Sequence[str], arguments: PlanArguments, options: PlanOptions
) -> tuple[Plan, Sequence[Group]]:
    """Make a plan, and return the groups that it was made of, too."""
    from pipeline.actions.earlier_groups import EarlierAnswer, read_earlier_groups, select_groups
    from pipeline.actions.plan import LeftFile
    from pipeline.actions.planner import make_plan
    from pipeline.actions.protection import change_protection
    from pipeline.actions.rejected_planner import make_rejected_plan
    from pipeline.cli.progress import follow_comparisons
    from pipeline.query.freshness import refresh_status
    from pipeline.query.groups import GroupOptions, find_groups
    from pipeline.query.vouched import verify_vouched_members
    from pipeline.report.actions import format_returned
    from pipeline.report.status import format_warnings

    earlier = read_earlier_groups(arguments.earlier) if arguments.earlier else None
    made_with = earlier or EarlierAnswer(())
    protect = tuple(map(_resolve_folder, arguments.protect))
    unprotect = tuple(os.path.realpath(folder) for folder in arguments.unprotect)
    settings = change_protection(store.folder, protect, unprotect)
    with store.catalog.snapshot():
        groups = find_groups(
            store,
            made_with.min_score,
            () if arguments.rejected else folders,
            relations=made_with.relations,
            min_agreement=made_with.min_agreement,
            options=GroupOptions(keep_rules=options.keep_rules, refresh_status=refresh_status),
        )
        left = list[LeftFile]()
        if earlier is not None:
            groups, left = select_groups(groups, earlier.groups)
        if arguments.rejected:
            below = [os.path.realpath(folder) for folder in folders]
            made = make_rejected_plan(store, groups, options, settings, below)
        else:
            if options.min_confidence is not None:
                with follow_comparisons() as report:
                    groups = verify_vouched_members(store, groups, report)
            made = make_plan(store, groups, options, settings, left)
        warnings = [*format_warnings(store), *format_returned(store)]
    for warning in (*warnings, *made.warnings):
        print_warning(warning)
    return made, groups


def _write_page(store: Store, plan: Plan, groups: Sequence[Group], page: Path) -> None:
    from pipeline.report.actions import show_plan
    from pipeline.report.gallery import write_gallery, write_page
    from pipeline.report.rejected_page import find_rejected_files, render_rejected_page

    if plan.rejected:
        files = find_rejected_files(plan, store)
        write_page(
            list(files.values()),
            store,
            page,
            lambda images: render_rejected_page(plan, files, images),
        )
    else:
        write_gallery(show_plan(plan, groups), store, page, plan.warnings)
    print_message(f"page written to {page}")


def _resolve_folder(folder: str) -> str:
    """Return the real path of a folder. Raises RootNotFound: a typo would protect nothing."""
    from pipeline.errors import RootNotFound
    from pipeline.ingest.roots import is_folder
    from pipeline.scan import explain_no_folder

    if not is_folder(folder):
        raise RootNotFound(explain_no_folder(folder))
    return os.path.realpath(folder)

"""Plans, and what came of them, as JSON and text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from indexes.paths import escape_unprintable, format_command
from indexes.store import Store
from pipeline.actions.outcome import Outcome, Status
from pipeline.actions.plan import Action, Merge, Part, Plan, Victim
from pipeline.actions.plan_file import name_run, serialize_plan
from pipeline.actions.undo import RunSummary, count_returned_files
from pipeline.grouping.cluster import Group
from pipeline.grouping.match import Match
from pipeline.report.document import make_document
from pipeline.report.format import format_bytes, pluralize
from pipeline.report.matches import describe_match_edits

_INTENTIONS = {
    Action.QUARANTINE: "to move to quarantine",
    Action.MOVE: "to move",
    Action.HARDLINK: "to replace by hard links",
    Action.REFLINK: "to replace by reflinks",
    Action.SYMLINK: "to replace by symbolic links",
    Action.TRASH: "to put in the trash",
    Action.REPORT: "that could go",
}

# --- plan ---


def serialize_plan_answer(plan: Plan, file: str | None) -> dict[str, Any]:
    """Serialize the answer of `plan`: the plan as its file has it, and where that is."""
    return make_document(
        {
            "file": file,
            "run": name_run(plan),
            "victims": plan.victim_count,
            "plan": serialize_plan(plan),
        }
    )


def format_plan(plan: Plan, groups: Sequence[Group] = ()) -> Iterable[str]:
    """Yield a block of lines for each keeper or decision, then the files left, then a summary.

    `groups` are those that the plan was made of, for the edits of its victims.
    """
    matches = {match.file.path: match for group in groups for match in group.members}
    for group in plan.groups:
        if group.keeper is None:
            decided_by = escape_unprintable(group.victims[0].decided_by)
            yield f"rejected by {decided_by} (decision {escape_unprintable(group.id)})"
        else:
            for part in group.keeper.parts:
                yield f"keep  {_format_part(part)}   {escape_unprintable(group.keeper.reason)}"
        for victim in group.victims:
            relation = _format_relation(victim, matches.get(victim.parts[0].path))
            for part in victim.parts:
                yield f"      {_format_part(part)}   {relation}"
        if group.merge:
            yield from _format_merge(group.merge)
        yield ""
    wanted = [left for left in plan.left if not left.is_unwanted]
    for left in wanted:
        yield f"left  {escape_unprintable(left.path)}   {escape_unprintable(left.reason)}"
    if unwanted := len(plan.left) - len(wanted):
        yield (
            f"left  {pluralize(unwanted, 'near-duplicate')} of other relations; ask for them with"
            " --relations"
        )
    if plan.left:
        yield ""
    if not plan.victim_count:
        yield "nothing to do"
        return
    to_free = format_bytes(plan.bytes_to_free)
    yield f"{pluralize(plan.victim_count, 'file')} {_INTENTIONS[plan.action]}, {to_free} to free"


def _format_merge(merge: Merge) -> Iterable[str]:
    """Yield a line for each file that fields come from, and one for each value passed over."""
    verb = "adds to" if merge.before else "writes"
    yield f"      {verb} {escape_unprintable(merge.sidecar)}"
    for path in dict.fromkeys(field.path for field in merge.fields):
        of_path = tuple(field for field in merge.fields if field.path == path)
        summary = replace(merge, fields=of_path).summary
        yield f"            {summary} of {escape_unprintable(path)}"
    for field in merge.passed_over:
        value = escape_unprintable(field.value)
        yield f"            not the {field.name} {value} of {escape_unprintable(field.path)}"


def _format_part(part: Part) -> str:
    return f"{escape_unprintable(part.path)}   {format_bytes(part.stat.size)}"


def _format_relation(victim: Victim, match: Match | None) -> str:
    """Format the relation of a victim to its keeper, with its edits where the match tells them."""
    if victim.confidence is None:
        return victim.relation
    is_known = match is not None and match.relation is victim.relation
    edits = describe_match_edits(match, "the keeper") if match and is_known else []
    described = ", ".join([victim.relation, *edits])
    return f"{described}; probability of a copy {victim.confidence:.3f}"


def show_plan(plan: Plan, groups: Sequence[Group]) -> list[Group]:
    """Return the groups of a plan, of those that it was made of, for a page with pictures."""
    files = {file.path: file for group in groups for file in group.files}
    matches = {match.file.path: match for group in groups for match in group.members}
    shown = list[Group]()
    for group in plan.groups:
        if group.keeper is None:
            continue
        members = list[Match]()
        for victim in group.victims:
            path = victim.parts[0].path
            is_same = path in matches and matches[path].relation is victim.relation
            equal = Match(files[path], victim.relation, 1.0)
            members.append(matches[path] if is_same else equal)
        keeper = files[group.keeper.parts[0].path]
        shown.append(Group(group.id, keeper, tuple(members), group.keeper.reason))
    return shown


# --- apply, undo, purge ---


def serialize_outcomes(outcomes: Sequence[Outcome], run: str | None) -> dict[str, Any]:
    """Serialize the outcome of each file; a field that has nothing to say is left out."""
    return make_document(
        {
            "run": run,
            "files": [
                {
                    "path": outcome.path,
                    "status": outcome.status,
                    "bytes": outcome.size,
                    **({"target": outcome.target} if outcome.target else {}),
                    **({"detail": outcome.detail} if outcome.detail else {}),
                }
                for outcome in outcomes
            ],
        }
    )


def format_outcomes(outcomes: Sequence[Outcome], done: str, planned: str) -> Iterable[str]:
    """Yield a line for each file, then a summary, in which `done` and `planned` are the verbs."""
    for outcome in outcomes:
        line = f"{outcome.status:<14} {escape_unprintable(outcome.path)}"
        if outcome.target and outcome.status is not Status.LEFT:
            line += f" -> {escape_unprintable(outcome.target)}"
        yield f"{line}: {escape_unprintable(outcome.detail)}" if outcome.detail else line
    if outcomes:
        yield ""
    yield "; ".join(_summarize(outcomes, done, planned)) or "nothing to do"


def _summarize(outcomes: Sequence[Outcome], done: str, planned: str) -> Iterable[str]:
    for status, words in (
        (Status.PLANNED, planned),
        (Status.DONE, done),
        (Status.LEFT, "left alone"),
        (Status.STUCK, "moved and not moved back"),
    ):
        of_status = [outcome for outcome in outcomes if outcome.status is status]
        if of_status:
            size = sum(outcome.size for outcome in of_status)
            in_bytes = f", {format_bytes(size)}" if size else ""
            yield f"{pluralize(len(of_status), 'file')} {words}{in_bytes}"


def format_returned(store: Store) -> Iterable[str]:
    """Yield a warning if files came back by an undo since the last ingest: a plan has none."""
    if count := count_returned_files(store):
        came_back = pluralize(count, "file has come back", "files have come back")
        ingest = format_command(store.folder, "ingest")
        yield (
            f"{came_back} by `neardup undo` and not been ingested since, so no plan has"
            f" them; `{ingest}` adds them"
        )


# --- runs ---


def serialize_runs(runs: Sequence[RunSummary]) -> dict[str, Any]:
    """Serialize the runs of a store."""
    return make_document({"runs": [asdict(run) for run in runs]})


def format_runs(runs: Sequence[RunSummary]) -> Iterable[str]:
    """Yield a line for each run."""
    for run in runs:
        counts = ", ".join(f"{count:,} {state}" for state, count in sorted(run.counts.items()))
        held = f"   {format_bytes(run.bytes_held)} in quarantine" if run.bytes_held else ""
        yield f"{run.run}   {run.started[:19]}   {run.action}   {counts or 'nothing done'}{held}"
    if not runs:
        yield "no plan was applied yet"

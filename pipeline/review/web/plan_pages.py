"""The pages of plans: what was accepted, applied after its number was typed, and undone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from indexes.errors import StoreError
from pipeline.actions.entries import MOVED_STATES
from pipeline.actions.plan import Action, LeftFile, Part, Plan
from pipeline.actions.undo import RunSummary, list_runs
from pipeline.errors import PipelineError
from pipeline.review.web.bodies import PLAN_FIELDS, parse_plan_options, read_body
from pipeline.review.web.documents import JsonResponse
from pipeline.review.web.problems import Problem, translate_error
from pipeline.review.web.rendering import Renderer
from pipeline.review.web.runs import Runs, list_problems, serialize_progress
from pipeline.review.web.service import Document, Service
from pipeline.verify.relation import COPY_RELATIONS, REPORTED_RELATIONS

MAX_SHOWN_GROUPS = 200  # of a plan; its file has all
MAX_SHOWN_FILES = 100  # that a plan leaves, for each reason
MAX_KEPT_PLANS = 20  # whose groups that were passed over are remembered
MAX_SHOWN_RUNS = 100  # the newest ones
ACTION_WORDS = {
    Action.QUARANTINE: "Move to quarantine",
    Action.MOVE: "Move to a folder",
    Action.TRASH: "Put in the system trash",
    Action.HARDLINK: "Replace by hard links",
    Action.REFLINK: "Replace by reflinks",
    Action.SYMLINK: "Replace by symbolic links",
}

T = TypeVar("T")


class PlanPages:
    """The routes of plans and runs; all but those that show runs are for who may change files."""

    def __init__(self, service: Service, renderer: Renderer) -> None:
        """Answer for `service`."""
        self._service, self._renderer = service, renderer
        self._runs = Runs(service.folder, service.listing)
        self._passed_over = dict[str, list[Document]]()  # by the id of a plan

    def list_routes(self) -> list[Route]:
        """List the routes; none where nothing may be changed."""
        if self._service.is_read_only:
            return []
        return [
            Route("/plan", self._get_start, methods=["GET"]),
            Route("/plan", self._post_plan, methods=["POST"]),
            Route("/plan/{plan_id}", self._get_plan, methods=["GET"]),
            Route("/plan/{plan_id}/apply", self._post_apply, methods=["POST"]),
            Route("/runs/current", self._get_progress, methods=["GET"]),
            Route("/runs/{run}/undo", self._post_undo, methods=["POST"]),
        ]

    def close(self) -> None:
        """End what goes on."""
        self._runs.close()

    # --- plans ---

    async def _get_start(self, request: Request) -> Response:
        """Show what was accepted, with what a plan of it can do, and earlier runs."""
        service = self._service

        def render() -> Response:
            values = {
                "progress": service.listing.count_progress(),
                "accepted": service.listing.count_accepted(),
                "relations": [item for item in REPORTED_RELATIONS if item in COPY_RELATIONS],
                "actions": ACTION_WORDS,
                "runs": _show_runs(list_runs(service.folder)),
                "current": self._runs.progress,
                "problems": self._list_problems(),
            }
            return self._renderer.render("plan_start.html", values)

        return await service.threads.run_quick(render)

    async def _post_plan(self, request: Request) -> Response:
        """Make a plan, and answer with the address of its page."""

        async def make() -> Document:
            options = parse_plan_options(await read_body(request, PLAN_FIELDS))
            with self._service.threads.hold_heavy():
                document, plan_id = await self._service.threads.run_heavy(
                    lambda: self._service.make_plan(options)
                )
            self._passed_over[plan_id] = document["passed_over"]
            for old in list(self._passed_over)[:-MAX_KEPT_PLANS]:
                del self._passed_over[old]
            return {"address": f"/plan/{plan_id}"}

        return await _answer_json(make)

    async def _get_plan(self, request: Request) -> Response:
        """Show a plan, and what became of it if it was applied."""
        plan_id, service = request.path_params["plan_id"], self._service

        def render() -> Response:
            plan = service.read_plan(plan_id)
            runs = [run for run in list_runs(service.folder) if run.run == plan_id]
            values = {
                "progress": service.listing.count_progress(),
                "plan": plan,
                "plan_id": plan_id,
                "action_words": ACTION_WORDS.get(plan.action, plan.action),
                "groups": self._show_groups(plan),
                "left": _sort_by_reason(plan.left),
                "passed_over": self._passed_over.get(plan_id, []),
                "run": _show_runs(runs)[0] if runs else None,
                "current": self._runs.progress,
                "problems": self._list_problems(),
            }
            return self._renderer.render("plan.html", values)

        return await service.threads.run_quick(render)

    def _show_groups(self, plan: Plan) -> list[dict[str, Any]]:
        """Return the first groups of a plan: keeper and victims, each with its picture."""
        return [
            {
                "keeper": self._show_part(group.keeper.parts[0]),
                "reason": group.keeper.reason,
                "victims": [
                    {
                        **self._show_part(victim.parts[0]),
                        "relation": victim.relation,
                        "confidence": victim.confidence,
                        "others": [part.path for part in victim.parts[1:]],
                    }
                    for victim in group.victims
                ],
                "merge": group.merge.summary if group.merge else "",
            }
            for group in plan.groups[:MAX_SHOWN_GROUPS]
            if group.keeper is not None
        ]

    def _show_part(self, part: Part) -> dict[str, Any]:
        picture = self._service.picture_ids.encode(bytes.fromhex(part.blake3))
        return {"path": part.path, "bytes": part.stat.size, "picture": picture}

    def _list_problems(self) -> list[tuple[str, str]]:
        progress = self._runs.progress
        return list_problems(progress.problems) if progress else []

    # --- runs ---

    async def _post_apply(self, request: Request) -> Response:
        """Start to apply a plan."""

        async def start() -> Document:
            confirmed = (await read_body(request, ("files",))).get_count("files")
            plan_id = request.path_params["plan_id"]
            await self._service.threads.run_quick(
                lambda: self._runs.start_apply(self._service.read_plan(plan_id), confirmed)
            )
            return serialize_progress(self._runs.progress)

        return await _answer_json(start)

    async def _post_undo(self, request: Request) -> Response:
        """Start to undo a run."""

        async def start() -> Document:
            run = request.path_params["run"]
            await self._service.threads.run_quick(lambda: self._runs.start_undo(run))
            return serialize_progress(self._runs.progress)

        return await _answer_json(start)

    async def _get_progress(self, request: Request) -> Response:
        return JsonResponse(serialize_progress(self._runs.progress))


async def _answer_json(work: Callable[[], Awaitable[Document]]) -> Response:
    """Answer a script of a page: with a document, or with why there is none."""
    try:
        return JsonResponse(await work())
    except (Problem, PipelineError, StoreError) as error:
        problem = translate_error(error)
        return JsonResponse({"detail": problem.detail}, problem.status)


def _sort_by_reason(left: Sequence[LeftFile]) -> list[dict[str, Any]]:
    """Sort files that a plan leaves by their reasons, the most frequent one first."""
    paths = defaultdict[str, list[str]](list)
    for file in left:
        paths[file.reason].append(file.path)
    reasons = sorted(paths, key=lambda reason: -len(paths[reason]))
    return [
        {"reason": reason, "count": len(paths[reason]), "paths": paths[reason][:MAX_SHOWN_FILES]}
        for reason in reasons
    ]


def _show_runs(runs: Sequence[RunSummary]) -> list[dict[str, Any]]:
    """Return the newest runs, the newest first, with what can be undone."""
    return [
        {
            "run": run.run,
            "started": run.started[:16].replace("T", " "),
            "action": run.action,
            "counts": _format_counts(run),
            "undoable": _count_undoable(run),
            "bytes_held": run.bytes_held,
        }
        for run in reversed(runs[-MAX_SHOWN_RUNS:])
    ]


def _format_counts(run: RunSummary) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in sorted(run.counts.items()))


def _count_undoable(run: RunSummary) -> int:
    if run.action is Action.TRASH:
        return 0
    return sum(run.counts.get(state, 0) for state in MOVED_STATES)

"""The HTTP API: each route calls one function in a thread, and answers with its document."""

from __future__ import annotations

import re
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from indexes.decisions import DecisionKind
from pipeline.review.choices import BULK_CHOICES, Choice, Place, Reviewer
from pipeline.review.filters import parse_filter
from pipeline.review.listing import MAX_PAGE_GROUPS
from pipeline.review.web.bodies import PLAN_FIELDS, parse_plan_options, read_body
from pipeline.review.web.documents import (
    Document,
    JsonResponse,
    load_page,
    serialize_outcome,
    serialize_place,
    serialize_single_group,
)
from pipeline.review.web.openapi import build_openapi
from pipeline.review.web.pictures import CACHE_CONTROL, Picture, draw_pair, make_tag
from pipeline.review.web.problems import Problem, make_busy_problem
from pipeline.review.web.service import Service
from pipeline.review.web.uploads import MAX_NAME_CHARS, receive_upload
from pipeline.verify.verdict import VERDICT_VERSION

API_ROOT = "/api/v1"
DEFAULT_PAGE_GROUPS = 50
PAGE_PARAMETERS = ("limit", "cursor")  # of a page of groups, beside those of its filter


class Api:
    """The routes of the API of a service."""

    def __init__(self, service: Service) -> None:
        """Answer for `service`."""
        self._service, self._threads = service, service.threads

    def list_routes(self) -> list[Route]:
        """List the routes; those that change the store only where it may be changed."""
        reading = [
            Route(f"{API_ROOT}/openapi.json", self._get_openapi, methods=["GET"]),
            Route(f"{API_ROOT}/query", self._post_query, methods=["POST"]),
            Route(f"{API_ROOT}/groups", self._get_groups, methods=["GET"]),
            Route(f"{API_ROOT}/groups/{{group_id}}", self._get_group, methods=["GET"]),
            Route(f"{API_ROOT}/pairs/{{a}}/{{b}}", self._get_pair, methods=["GET"]),
            Route(f"{API_ROOT}/pairs/{{a}}/{{b}}/picture", self._get_pair_picture, methods=["GET"]),
            Route(f"{API_ROOT}/status", self._get_status, methods=["GET"]),
            Route(f"{API_ROOT}/decisions", self._get_decisions, methods=["GET"]),
            Route(f"{API_ROOT}/plans/{{id}}", self._get_plan, methods=["GET"]),
        ]
        changing = [
            Route(f"{API_ROOT}/groups/{{group_id}}/choices", self._post_choice, methods=["POST"]),
            Route(f"{API_ROOT}/choices", self._post_choices, methods=["POST"]),
            Route(f"{API_ROOT}/choices/last", self._delete_choice, methods=["DELETE"]),
            Route(f"{API_ROOT}/place", self._get_place, methods=["GET"]),
            Route(f"{API_ROOT}/place", self._put_place, methods=["PUT"]),
            Route(f"{API_ROOT}/decisions", self._post_decision, methods=["POST"]),
            Route(f"{API_ROOT}/decisions/{{id}}", self._delete_decision, methods=["DELETE"]),
            Route(f"{API_ROOT}/plans", self._post_plan, methods=["POST"]),
        ]
        return reading if self._service.is_read_only else [*reading, *changing]

    async def _get_openapi(self, request: Request) -> Response:
        return JsonResponse(build_openapi(is_read_only=self._service.is_read_only))

    async def _post_query(self, request: Request) -> Response:
        """Answer what an uploaded file is to the library."""
        name = request.query_params.get("name", "")
        if len(name) > MAX_NAME_CHARS:
            raise Problem(HTTPStatus.BAD_REQUEST, f"name is at most {MAX_NAME_CHARS} characters")
        with self._threads.hold_heavy():
            async with receive_upload(request, name) as path:
                document = await self._threads.run_heavy(lambda: self._service.query(path, name))
        return JsonResponse(document)

    # --- groups ---

    async def _get_groups(self, request: Request) -> Response:
        """Answer with a page of groups."""
        service, parameters = self._service, request.query_params
        group_filter = parse_filter(parameters, PAGE_PARAMETERS)
        limit = _parse_limit(parameters.get("limit"))

        def load() -> Document:
            require_built(service)
            cursor = parameters.get("cursor") or None
            return load_page(service.listing, group_filter, cursor, limit, service.picture_ids)

        return JsonResponse(await self._threads.run_quick(load))

    async def _get_group(self, request: Request) -> Response:
        service, group_id = self._service, request.path_params["group_id"]
        group_filter = parse_filter(request.query_params)

        def load() -> Document:
            require_built(service)
            group = service.listing.get(group_id)
            neighbors = service.listing.find_neighbors(group_id, group_filter)
            return serialize_single_group(group, neighbors, service.picture_ids)

        return JsonResponse(await self._threads.run_quick(load))

    async def _post_choice(self, request: Request) -> Response:
        """Make a choice for one group."""
        body = await read_body(request, ("choice", "paths"))
        choice, paths = Choice(body.get_word("choice", list(Choice))), body.get_paths()
        group_id, reviewer = request.path_params["group_id"], self._get_reviewer()
        outcome = await self._threads.run_quick(lambda: reviewer.choose(group_id, choice, paths))
        return JsonResponse(serialize_outcome(outcome))

    async def _post_choices(self, request: Request) -> Response:
        """Make a choice for all groups of a filter."""
        body = await read_body(request, ("choice", "filter", "expected_count"))
        choice = Choice(body.get_word("choice", list(BULK_CHOICES)))
        group_filter = parse_filter(body.get_fields("filter"))
        expected, reviewer = body.get_count("expected_count"), self._get_reviewer()
        with self._threads.hold_heavy():
            outcome = await self._threads.run_heavy(
                lambda: reviewer.choose_all(choice, group_filter, expected)
            )
        return JsonResponse(serialize_outcome(outcome))

    async def _delete_choice(self, request: Request) -> Response:
        """Take back the last choice."""
        outcome = await self._threads.run_quick(self._get_reviewer().undo)
        if outcome is None:
            raise Problem(HTTPStatus.NOT_FOUND, "there is no choice to take back")
        return JsonResponse(serialize_outcome(outcome))

    async def _get_place(self, request: Request) -> Response:
        """Answer where the person was last."""
        place = await self._threads.run_quick(self._get_reviewer().get_place)
        return JsonResponse(serialize_place(place))

    async def _put_place(self, request: Request) -> Response:
        """Remember where the person is."""
        body = await read_body(request, ("group", "filter"))
        place = Place(body.get_text("group"), parse_filter(body.get_fields("filter")))
        reviewer = self._get_reviewer()
        await self._threads.run_quick(lambda: reviewer.save_place(place))
        return JsonResponse(serialize_place(place))

    def _get_reviewer(self) -> Reviewer:
        assert self._service.reviewer is not None  # there is no route to it otherwise
        return self._service.reviewer

    # --- pairs ---

    async def _get_pair(self, request: Request) -> Response:
        """Explain how two photos are related."""
        first, second = self._decode_pair(request)
        with self._threads.hold_heavy():
            document = await self._threads.run_heavy(lambda: self._service.explain(first, second))
        return JsonResponse(document)

    async def _get_pair_picture(self, request: Request) -> Response:
        """Draw what was compared of two photos."""
        first, second = self._decode_pair(request)
        view = request.query_params.get("view", "sheet")
        tag = make_tag("pair", first, second, view, VERDICT_VERSION)
        if (unchanged := answer_if_unchanged(request, tag)) is not None:
            return unchanged
        with self._threads.hold_heavy():
            picture = await self._threads.run_heavy(
                lambda: draw_pair(self._service.compare(first, second), view)
            )
        return answer_picture(picture, tag)

    def _decode_pair(self, request: Request) -> tuple[bytes, bytes]:
        first, second = (decode_picture_id(self._service, request, name) for name in ("a", "b"))
        if first == second:
            raise Problem(HTTPStatus.BAD_REQUEST, "the two photos are one")
        return first, second

    # --- the store, its decisions, plans ---

    async def _get_status(self, request: Request) -> Response:
        return JsonResponse(await self._threads.run_quick(self._service.report_status))

    async def _get_decisions(self, request: Request) -> Response:
        return JsonResponse(await self._threads.run_quick(self._service.list_decisions))

    async def _post_decision(self, request: Request) -> Response:
        """Enter a decision on files of the library."""
        body = await read_body(request, ("kind", "paths"))
        kind, paths = DecisionKind(body.get_word("kind", list(DecisionKind))), body.get_paths()
        _require_number(kind, len(paths))
        document = await self._threads.run_quick(lambda: self._service.decide(kind, paths))
        return JsonResponse(document, HTTPStatus.CREATED)

    async def _delete_decision(self, request: Request) -> Response:
        """Forget a decision."""
        decision_id = request.path_params["id"]
        return JsonResponse(
            await self._threads.run_quick(lambda: self._service.forget(decision_id))
        )

    async def _post_plan(self, request: Request) -> Response:
        """Plan what was accepted."""
        options = parse_plan_options(await read_body(request, PLAN_FIELDS))
        with self._threads.hold_heavy():
            document, plan_id = await self._threads.run_heavy(
                lambda: self._service.make_plan(options)
            )
        response = JsonResponse(document, HTTPStatus.CREATED)
        response.headers["Location"] = f"{API_ROOT}/plans/{plan_id}"
        return response

    async def _get_plan(self, request: Request) -> Response:
        plan_id = request.path_params["id"]
        return JsonResponse(await self._threads.run_quick(lambda: self._service.get_plan(plan_id)))


def require_built(service: Service) -> None:
    """Raise Problem (503) while there is no listing of groups."""
    if not service.listing.is_built:
        reason = service.listing_failure or "the groups are being listed; ask again in a moment"
        raise make_busy_problem(reason)


def decode_picture_id(service: Service, request: Request, name: str = "picture") -> bytes:
    """Return the hash of the image that a part of the path names. Raises Problem (404)."""
    image_hash = service.picture_ids.decode(request.path_params[name])
    if image_hash is None:
        raise Problem(HTTPStatus.NOT_FOUND, "there is no picture with this id")
    return image_hash


def answer_if_unchanged(request: Request, tag: str) -> Response | None:
    """Return the answer to a browser that has a picture already, else None."""
    known = (item.strip() for item in request.headers.get("if-none-match", "").split(","))
    if tag not in known:
        return None
    return Response(None, HTTPStatus.NOT_MODIFIED, {"ETag": tag, "Cache-Control": CACHE_CONTROL})


def answer_picture(picture: Picture, tag: str) -> Response:
    """Answer with a picture, which never changes."""
    headers = {"ETag": tag, "Cache-Control": CACHE_CONTROL, "Content-Disposition": "inline"}
    return Response(picture.content, HTTPStatus.OK, headers, picture.media_type)


def _parse_limit(text: str | None) -> int:
    if not text:
        return DEFAULT_PAGE_GROUPS
    if not re.fullmatch("[0-9]{1,6}", text) or not 1 <= int(text) <= MAX_PAGE_GROUPS:
        raise Problem(HTTPStatus.BAD_REQUEST, f"limit is a number from 1 to {MAX_PAGE_GROUPS}")
    return int(text)


def _require_number(kind: DecisionKind, count: int) -> None:
    """Raise Problem unless a decision of a kind can be about so many photos."""
    is_right = {
        DecisionKind.DIFFERENT: count >= 2,
        DecisionKind.SAME: count == 2,
        DecisionKind.KEEP: count == 1,
        DecisionKind.REJECT: count == 1,
    }[kind]
    if not is_right:
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            "paths are two or more for different, two for same, one for keep and reject",
        )

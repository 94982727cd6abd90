"""The pages to review groups in: the list of groups, and a group."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from pipeline.errors import InvalidFilter, UnknownGroup
from pipeline.review.choices import Place
from pipeline.review.cursors import encode_cursor
from pipeline.review.filters import FILTER_FIELDS, NO_FILTER, GroupFilter, parse_filter
from pipeline.review.web.cards import list_tree, make_cards, make_row
from pipeline.review.web.rendering import Renderer
from pipeline.review.web.service import Service
from pipeline.verify.relation import COPY_RELATIONS, REPORTED_RELATIONS

PAGE_GROUPS = 50
# What the filter offers; another value of an address is kept.
SIZE_STEPS = ((100_000, "100 kB"), (1_000_000, "1 MB"), (10_000_000, "10 MB"), (10**8, "100 MB"))
CONFIDENCE_STEPS = ("0.5", "0.9", "0.99", "0.999")


class Pages:
    """The routes of the pages to review groups in."""

    def __init__(self, service: Service, renderer: Renderer) -> None:
        """Answer for `service`."""
        self._service, self._renderer = service, renderer

    def list_routes(self) -> list[Route]:
        """List the routes."""
        return [
            Route("/", self._enter, methods=["GET"]),
            Route("/groups", self._get_groups, methods=["GET"]),
            Route("/groups/{group_id}", self._get_group, methods=["GET"]),
        ]

    async def _enter(self, request: Request) -> Response:
        """Lead to where the person was, or show the list."""
        place = await self._service.threads.run_quick(self._find_place)
        if request.query_params or place == Place(None, NO_FILTER):
            return await self._get_groups(request)
        query = urlencode(place.filter.to_query())
        path = f"/groups/{place.group_id}" if place.group_id else "/groups"
        response = RedirectResponse(f"{path}?{query}" if query else path, HTTPStatus.SEE_OTHER)
        response.headers["Cache-Control"] = "no-store"
        return response

    def _find_place(self) -> Place:
        """Return where the person was, without a group that is not listed any more."""
        if self._service.reviewer is None:
            return Place(None, NO_FILTER)
        place = self._service.reviewer.get_place()
        is_listed = place.group_id and self._service.listing.find_listed(place.group_id)
        return place if is_listed else Place(None, place.filter)

    # --- the list ---

    async def _get_groups(self, request: Request) -> Response:
        """Show a page of groups."""
        parameters = request.query_params
        return await self._service.threads.run_quick(lambda: self._render_groups(parameters))

    def _render_groups(self, parameters: QueryParams) -> Response:
        service = self._service
        listing = service.listing
        values: dict[str, Any] = {
            "failure": service.listing_failure,
            "is_built": listing.is_built,
            "is_stale": False,
            "relations": [item for item in REPORTED_RELATIONS if item in COPY_RELATIONS],
            "sizes": SIZE_STEPS,
            "confidences": CONFIDENCE_STEPS,
            "error": None,
        }
        fields = _join_fields(parameters)
        status = HTTPStatus.OK
        try:
            group_filter = parse_filter(fields)
        except InvalidFilter as error:
            group_filter, status, values["error"] = NO_FILTER, HTTPStatus.BAD_REQUEST, str(error)
        values |= {"fields": fields, "query": group_filter.to_query(), "progress": None}
        if values["is_built"]:
            values["is_stale"] = listing.is_stale()
            values |= self._load_rows(group_filter, parameters)
        return self._renderer.render("groups.html", values, status)

    def _load_rows(self, group_filter: GroupFilter, parameters: QueryParams) -> dict[str, Any]:
        """Load the rows after a cursor, or from a group on, or the first ones with their count."""
        listing = self._service.listing
        cursor, first_id = parameters.get("cursor") or None, parameters.get("from") or ""
        if cursor is None and (found := listing.find_listed(first_id)) is not None:
            previous = listing.find_neighbors(found.id, group_filter).previous
            before = listing.find_listed(previous) if previous else None
            cursor = encode_cursor(before.rank, before.path) if before else None
        page = listing.page(group_filter, cursor, PAGE_GROUPS)
        progress = listing.count_progress()
        is_fragment = "cursor" in parameters  # more rows for a list that has the count
        is_empty_store = not progress.groups and not self._count_files()
        return {
            "rows": [make_row(group, self._service.picture_ids) for group in page.groups],
            "next_cursor": page.next_cursor,
            "starts_later": cursor is not None and not is_fragment,
            "count": None if is_fragment else listing.count(group_filter),
            "progress": progress,
            "is_empty_store": is_empty_store,
        }

    def _count_files(self) -> int:
        with self._service.stores.use() as store:
            return store.catalog.files.get_counts().files

    # --- a group ---

    async def _get_group(self, request: Request) -> Response:
        """Show a group, with links to those before and after it."""
        group_id, parameters = request.path_params["group_id"], request.query_params
        group_filter = parse_filter(_join_fields(parameters))

        def render() -> Response:
            listing = self._service.listing
            values: dict[str, Any] = {
                "query": group_filter.to_query(),
                "progress": listing.count_progress(),
                "group_id": group_id,
            }
            try:
                group = listing.get(group_id)
                neighbors = listing.find_neighbors(group_id, group_filter)
            except UnknownGroup:
                return self._renderer.render("gone.html", values, HTTPStatus.NOT_FOUND)
            cards = make_cards(group, self._service.picture_ids)
            values |= {
                "group": group,
                "keeper": cards[0],
                "members": cards[1:],
                "tree": list_tree(cards),
                "neighbors": neighbors,
            }
            return self._renderer.render("group.html", values)

        return await self._service.threads.run_quick(render)


def _join_fields(parameters: QueryParams) -> Mapping[str, str]:
    """Join what a form sends several times: the relations, which are one parameter otherwise."""
    fields = {name: parameters.get(name, "") for name in FILTER_FIELDS}
    if relations := parameters.getlist("relations"):
        fields["relations"] = ",".join(relations)
    return fields

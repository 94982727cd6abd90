"""The pages for a browser."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from indexes.paths import escape_unprintable
from pipeline.report.format import format_bytes, pluralize
from pipeline.review.filters import parse_filter
from pipeline.review.web.documents import load_page
from pipeline.review.web.service import Service

PAGE_GROUPS = 50


class Pages:
    """The routes of the pages of a service."""

    def __init__(self, service: Service) -> None:
        """Answer for `service`."""
        self._service = service
        self._environment = Environment(
            loader=PackageLoader("pipeline.review.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        filters = {"printable": escape_unprintable, "bytes": format_bytes, "count": pluralize}
        self._environment.filters.update(filters)

    def list_routes(self) -> list[Route]:
        """List the routes."""
        return [Route("/", self._get_groups, methods=["GET"])]

    async def _get_groups(self, request: Request) -> Response:
        """Show a page of groups."""
        service, parameters = self._service, request.query_params
        group_filter = parse_filter(parameters)

        def render() -> bytes:
            values: dict[str, Any] = {"answer": None, "failure": service.listing_failure}
            if service.listing.is_built:
                cursor = parameters.get("cursor") or None
                values["answer"] = load_page(
                    service.listing, group_filter, cursor, PAGE_GROUPS, service.picture_ids
                )
            return self._render("groups.html", **values, query=group_filter.to_query())

        return make_page(await service.threads.run_quick(render))

    def _render(self, template: str, **values: Any) -> bytes:
        """Render a template; text of it that is no UTF-8 is escaped."""
        text = self._environment.get_template(template).render(
            csrf=self._service.credentials.csrf,
            is_read_only=self._service.is_read_only,
            **values,
        )
        return text.encode("utf-8", "backslashreplace")


def make_page(content: bytes, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Answer with a page that no browser keeps."""
    return Response(content, status, {"Cache-Control": "no-store"}, "text/html")

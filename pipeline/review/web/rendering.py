"""Render the templates of the pages; all text in them is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response

from indexes.paths import escape_unprintable
from pipeline.report.format import format_bytes, pluralize
from pipeline.review.web.service import Service


class Renderer:
    """Renders pages of a service."""

    def __init__(self, service: Service) -> None:
        """Load the templates of this package."""
        self._environment = Environment(
            loader=PackageLoader("pipeline.review.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        filters = {"printable": escape_unprintable, "bytes": format_bytes, "count": pluralize}
        self._environment.filters.update(filters)
        self._environment.globals.update(
            csrf=service.credentials.csrf, is_read_only=service.is_read_only
        )

    def render(
        self, template: str, values: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK
    ) -> Response:
        """Answer with a page that no browser keeps; text of it that is no UTF-8 is escaped."""
        text = self._environment.get_template(template).render(values)
        content = text.encode("utf-8", "backslashreplace")
        return Response(content, status, {"Cache-Control": "no-store"}, "text/html")

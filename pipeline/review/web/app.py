"""The application: routes of pages, pictures, static files and the API behind one guard."""

from __future__ import annotations

import asyncio
import logging
import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from importlib.resources import files

from blake3 import blake3
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from indexes.errors import StoreError
from pipeline.errors import PipelineError
from pipeline.review.web.api import (
    Api,
    answer_if_unchanged,
    answer_picture,
    decode_picture_id,
)
from pipeline.review.web.guard import STATIC_PREFIX, Guard, IsHostAllowed
from pipeline.review.web.pages import Pages
from pipeline.review.web.pictures import (
    DEFAULT_SIDE_PX,
    MAX_SIDE_PX,
    MIN_SIDE_PX,
    load_stored_thumbnail,
    make_tag,
)
from pipeline.review.web.plan_pages import PlanPages
from pipeline.review.web.problems import Problem, handle_error
from pipeline.review.web.rendering import Renderer
from pipeline.review.web.service import Service
from pipeline.review.web.stores import STORE_IDLE_SECONDS

STATIC_CACHE_CONTROL = "no-cache"  # kept, and asked for again by its tag


def make_app(service: Service, is_host_allowed: IsHostAllowed) -> ASGIApp:
    """Make the application of a service. Closes the service when it ends."""

    @asynccontextmanager
    async def live(app: Starlette) -> AsyncIterator[None]:
        upkeep = asyncio.create_task(_keep_up(service))
        try:
            yield
        finally:
            upkeep.cancel()
            with suppress(asyncio.CancelledError):
                await upkeep
            await asyncio.to_thread(plan_pages.close)
            await asyncio.to_thread(service.close)

    renderer = Renderer(service)
    pages, plan_pages = Pages(service, renderer), PlanPages(service, renderer)
    pictures = Pictures(service)
    routes = [
        *Api(service).list_routes(),
        *pages.list_routes(),
        *plan_pages.list_routes(),
        Route("/pictures/{picture}/thumb", pictures.get_thumbnail, methods=["GET"]),
        Route("/pictures/{picture}/full", pictures.get_large, methods=["GET"]),
        Route(f"{STATIC_PREFIX}{{name}}", StaticFiles().get, methods=["GET"]),
    ]
    errors = (Problem, PipelineError, StoreError, HTTPException, Exception)
    app = Starlette(
        routes=routes,
        lifespan=live,
        exception_handlers={error: handle_error for error in errors},
    )
    app.router.redirect_slashes = False
    return Guard(app, service.credentials, is_host_allowed)


async def _keep_up(service: Service) -> None:
    """Build the listing of groups whenever the store has changed, and close unused stores.

    A failure, such as a store that is being repaired, is shown until a later try succeeds.
    """
    while True:
        try:
            await asyncio.to_thread(service.listing.refresh)
            service.listing_failure = None
        except (PipelineError, StoreError) as error:
            service.listing_failure = str(error)
        except Exception:
            logging.getLogger(__name__).exception("the groups could not be listed")
            service.listing_failure = "the groups could not be listed; the terminal says why"
        service.stores.close_idle(unless_used=True)
        await asyncio.sleep(STORE_IDLE_SECONDS)


class Pictures:
    """The routes of pictures: by opaque ids, never by paths."""

    def __init__(self, service: Service) -> None:
        """Answer for `service`."""
        self._service, self._threads = service, service.threads

    async def get_thumbnail(self, request: Request) -> Response:
        """Answer with a thumbnail: of the cache, else made from a file."""
        image_hash = decode_picture_id(self._service, request)
        tag = make_tag("thumb", image_hash)
        if (unchanged := answer_if_unchanged(request, tag)) is not None:
            return unchanged
        picture = await self._threads.run_quick(
            lambda: load_stored_thumbnail(self._service.folder, image_hash)
        )
        if picture is None:
            with self._threads.hold_heavy():
                picture = await self._threads.run_heavy(
                    lambda: self._service.make_picture(image_hash)
                )
        return answer_picture(picture, tag)

    async def get_large(self, request: Request) -> Response:
        """Answer with a picture decoded from a file, its long side at most `max` pixels."""
        image_hash = decode_picture_id(self._service, request)
        side_px = _parse_side(request.query_params.get("max", str(DEFAULT_SIDE_PX)))
        tag = make_tag("full", image_hash, side_px)
        if (unchanged := answer_if_unchanged(request, tag)) is not None:
            return unchanged
        with self._threads.hold_heavy():
            picture = await self._threads.run_heavy(
                lambda: self._service.make_picture(image_hash, side_px)
            )
        return answer_picture(picture, tag)


def _parse_side(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5):
        raise Problem(HTTPStatus.BAD_REQUEST, "max is a number of pixels")
    return min(max(int(text), MIN_SIDE_PX), MAX_SIDE_PX)


class StaticFiles:
    """Scripts and styles of this package, loaded once: no path is made of what a request says."""

    def __init__(self) -> None:
        """Load all files."""
        folder = files("pipeline.review.web") / "static"
        self._content = {
            item.name: item.read_bytes()
            for item in folder.iterdir()
            if item.is_file() and not item.name.startswith(".")
        }

    async def get(self, request: Request) -> Response:
        """Answer with a file by its name."""
        name = request.path_params["name"]
        content = self._content.get(name)
        if content is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        headers = {
            "ETag": f'"{blake3(content).hexdigest()[:32]}"',
            "Cache-Control": STATIC_CACHE_CONTROL,
        }
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(None, HTTPStatus.NOT_MODIFIED, headers)
        media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(content, HTTPStatus.OK, headers, media_type)

"""Uploaded files: streamed to a private folder, however long they claim to be."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path, PurePosixPath

from starlette.requests import ClientDisconnect, Request

from pipeline.decode.formats import IMAGE_SUFFIXES, RAW_SUFFIXES
from pipeline.review.web.problems import Problem

MAX_UPLOAD_BYTES = 1 << 28  # larger than all raw files of today's cameras
MAX_JSON_BYTES = 1 << 20
MAX_NAME_CHARS = 1000  # of the name that a client gives its file
STALLED_SECONDS = 30.0  # without a byte, after which an upload is given up
# A name that is safe in any folder; others are replaced, because a decoder may act on a name.
PLAIN_NAME_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ .()-]{0,99}")


@asynccontextmanager
async def receive_upload(request: Request, name: str) -> AsyncIterator[Path]:
    """Save the body of a request to a file that is deleted afterwards, and yield its path.

    The file is named as the client says, `name`, if that is a plain name of a photo: burst numbers
    and suffixes count. Raises Problem for an empty or too long body, and one that stops.
    """
    with tempfile.TemporaryDirectory(prefix="neardup-upload-") as folder:
        path = Path(folder) / choose_name(name)
        size = 0
        with path.open("xb") as file:
            async for chunk in _iter_chunks(request, MAX_UPLOAD_BYTES):
                size += len(chunk)
                await asyncio.to_thread(file.write, chunk)
        if not size:
            raise Problem(
                HTTPStatus.BAD_REQUEST, "the body of the request is the file; it is empty"
            )
        yield path


async def receive_json_body(request: Request) -> bytes:
    """Receive a small body. Raises Problem for one that is too long, or stops."""
    return b"".join([chunk async for chunk in _iter_chunks(request, MAX_JSON_BYTES)])


async def _iter_chunks(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the body of a request in chunks; what it says of its length is only used to refuse."""
    # The connection stays: a client that gets to send all sees this answer, and nothing is kept.
    too_large = Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is longer than {max_bytes:,} bytes"
    )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise too_large
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send the bytes of the file as they are")
    received, chunks = 0, request.stream()
    while True:
        try:
            chunk = await asyncio.wait_for(anext(chunks, None), STALLED_SECONDS)
        except TimeoutError as error:
            raise Problem(
                HTTPStatus.REQUEST_TIMEOUT,
                f"no byte came for {STALLED_SECONDS:.0f} s",
                {"Connection": "close"},
            ) from error
        except ClientDisconnect as error:
            raise Problem(HTTPStatus.BAD_REQUEST, "the body ended before its end") from error
        if chunk is None:
            return
        received += len(chunk)
        if received > max_bytes:
            raise too_large
        yield chunk


def choose_name(name: str) -> str:
    """Choose the name under which an upload is saved, given the one that the client says."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in IMAGE_SUFFIXES | RAW_SUFFIXES:
        return "upload"
    return name if PLAIN_NAME_PATTERN.fullmatch(name) else f"upload{suffix}"

"""Build the listing of groups in a child process, so that the memory it takes goes with it."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from indexes.caches.groups import GroupCache
from indexes.errors import StoreError
from indexes.store import Store
from pipeline.errors import PipelineError, ReviewFailed
from pipeline.query.assets import have_equal_bytes
from pipeline.query.components import find_groups_and_components
from pipeline.query.freshness import refresh_status
from pipeline.query.groups import GroupOptions
from pipeline.review.rows import make_component_row, make_group_row
from pipeline.workers.pool import WorkerKind
from pipeline.workers.process import receive_line, report_ready

FORMAT = 1  # of the rows; a listing of another one is built again
GROUPS_PER_COMMIT = 500  # so that no other writer of the cache waits long
MAX_BUILD_SECONDS = 24 * 3600.0

Answer = dict[str, Any]

# What `neardup groups` finds without options.
GROUP_OPTIONS = GroupOptions(refresh_status=refresh_status, have_equal_content=have_equal_bytes)


class StoreState(NamedTuple):
    """A state of a store, which another run and every commit change."""

    run: str | None
    generation: int

    def __str__(self) -> str:
        """Format the state as the listing has it; that of a listing in another form differs."""
        return f"{FORMAT} {self.run} {self.generation}"

    def follows(self, before: StoreState) -> bool:
        """Tell if one commit, which was no run, led from a state to this one."""
        return self == before._replace(generation=before.generation + 1)


def read_state(store: Store) -> StoreState:
    """Read the present state of a store."""
    with store.catalog.snapshot():
        return StoreState(store.catalog.runs.get_newest_key(), store.catalog.get_generation())


def build_listing(store_folder: Path, cache_folder: Path) -> tuple[int, str]:
    """Write the groups of a store as a new build; returns its number and the state it is of.

    Nothing shows it until it is adopted. Raises StoreError, also for a cache that cannot be
    written.
    """
    with Store(store_folder) as store, store.catalog.snapshot():
        state = str(read_state(store))
        groups, components = find_groups_and_components(store, GROUP_OPTIONS)
    with GroupCache(cache_folder, write=True) as cache:
        build = cache.begin_build()
        rows = map(make_group_row, groups)
        while chunk := list(islice(rows, GROUPS_PER_COMMIT)):
            cache.put_groups(build, chunk)
        component_rows = map(make_component_row, components)
        while components_chunk := list(islice(component_rows, GROUPS_PER_COMMIT)):
            cache.put_components(build, components_chunk)
    return build, state


def serve(channel_fd: str, memory_fd: str, store_folder: str, cache_folder: str) -> None:
    """Report that the worker is ready, then build a listing for each line that comes."""
    with (
        socket.socket(fileno=int(channel_fd)) as channel,
        channel.makefile("rb") as lines,
        suppress(ConnectionError),
    ):
        report_ready(channel.fileno())
        for _ in lines:
            answer = _answer(Path(store_folder), Path(cache_folder))
            channel.sendall(json.dumps(answer).encode("ascii") + b"\n")


def _answer(store_folder: Path, cache_folder: Path) -> Answer:
    try:
        build, state = build_listing(store_folder, cache_folder)
    except (StoreError, PipelineError, OSError) as error:
        return {"error": str(error)}
    return {"build": build, "state": state}


def make_builder(store_folder: Path, cache_folder: Path) -> WorkerKind[None, Answer]:
    """Describe the child process that runs build_listing() for these folders.

    Its answer has the fields `build` and `state`, or `error`, a message.
    """
    return WorkerKind(
        name="builder of the listing",
        module=__name__,
        exchange=_exchange,
        make_start_error=ReviewFailed,
        args=(store_folder, cache_folder),
    )


def _exchange(channel: socket.socket, memory_fd: int, request: None) -> Answer:
    channel.sendall(b"build\n")
    answer = json.loads(receive_line(channel, MAX_BUILD_SECONDS))
    return {key: value if key == "build" else str(value) for key, value in answer.items()}

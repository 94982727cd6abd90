"""Choose the roots of a run: the folders that were named, and those of the store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from indexes.paths import format_command
from indexes.records import Root
from indexes.store import Store
from pipeline.errors import RootNotFound
from pipeline.scan import explain_no_folder, is_below


@dataclass(frozen=True)
class ResolvedRoots:
    """The roots of a run, and the paths that were named but are not folders."""

    roots: list[Root]
    absent_paths: list[str]


def resolve_roots(
    store: Store,
    paths: Sequence[str],
    excludes: Sequence[str] | None = None,
    hidden: bool | None = None,
) -> ResolvedRoots:
    """Return the roots to ingest: those at `paths` and the roots of the store below them.

    Without `paths` they are all roots of the store. A root of the store keeps its excludes and
    its setting for hidden files unless new ones are given; an empty pattern clears the excludes.
    Raises RootNotFound if no root is left.
    """
    known = {root.path: root for root in store.catalog.roots.list()}
    wanted: list[str] = [] if paths else list(known)
    absent: list[str] = []
    for path in paths:
        real = os.path.realpath(path)
        if real == "/":
            raise RootNotFound("/ is the whole machine; name the folders that hold images")
        if path and (real in known or is_folder(real)):
            wanted.append(real)
        else:
            absent.append(path)
    if not wanted:
        raise _make_root_not_found(store, absent)
    roots = {path: root for path, root in known.items() if is_below(path, wanted)}
    for path in wanted:
        roots[path] = _update_root(known.get(path, Root(path)), excludes, hidden)
    return ResolvedRoots(list(roots.values()), absent)


def is_folder(path: str) -> bool:
    """Tell if a path is a folder now; a dead mount is none."""
    return os.path.isdir(path)  # noqa: PTH112 - never raises, not even for a dead mount


def _make_root_not_found(store: Store, absent_paths: Sequence[str]) -> RootNotFound:
    if absent_paths:
        return RootNotFound(", ".join(map(explain_no_folder, absent_paths)))
    ingest = format_command(store.folder, "ingest", "FOLDER")
    return RootNotFound(f"the store has no folders yet; name one: `{ingest}`")


def _update_root(root: Root, excludes: Sequence[str] | None, hidden: bool | None) -> Root:
    patterns = root.excludes
    if excludes is not None:
        patterns = tuple(pattern for pattern in excludes if pattern)
    return Root(root.path, patterns, root.include_hidden if hidden is None else hidden)

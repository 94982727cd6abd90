"""Render a page of rejected photos that are planned to be moved: none of them has a keeper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath

from indexes.paths import escape_unprintable
from indexes.store import Store
from pipeline.actions.plan import Plan, PlannedGroup, Victim
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.report.format import format_bytes, pluralize
from pipeline.report.gallery_page import PageImages, escape_html, render_card, render_head


def find_rejected_files(plan: Plan, store: Store) -> dict[str, LibraryFile]:
    """Find the rejected photos of a plan in the store, by path; some may be gone from it."""
    found = dict[str, LibraryFile]()
    for group in plan.groups:
        for victim in group.victims:
            path = victim.parts[0].path
            file = store.catalog.files.get_by_path(path)
            if file is not None and file.image_id is not None:
                ((_, image),) = store.catalog.images.get([file.image_id])
                found[path] = LibraryFile(path, file.stat, image)
    return found


def render_rejected_page(
    plan: Plan, files: Mapping[str, LibraryFile], images: PageImages
) -> Iterator[str]:
    """Yield the parts of a page of the rejected photos of a plan, by their decisions.

    `files` are the photos by path.
    """
    count = sum(len(group.victims) for group in plan.groups)
    title = pluralize(count, "rejected photo") if count else "No rejected photos"
    about = (
        f"{format_bytes(plan.bytes_to_free)} to free. Decisions threw these photos away, so no copy"
        " of them is kept. Nothing was moved or deleted."
    )
    yield render_head(title, about, plan.warnings)
    for group in plan.groups:
        yield from _render_group(group, files, images)


def _render_group(
    group: PlannedGroup, files: Mapping[str, LibraryFile], images: PageImages
) -> Iterator[str]:
    size = sum(part.stat.size for victim in group.victims for part in victim.parts)
    decided_by = escape_html(f"rejected by {group.victims[0].decided_by} (decision {group.id})")
    yield f"<section><h2>{format_bytes(size)} <span>{decided_by}</span></h2><ul>\n"
    for victim in group.victims:
        file = files.get(victim.parts[0].path)
        if file is not None:
            card = render_card(file, str(victim.relation), (), _describe(victim), images)
            yield f'<li class="card">{card}</li>\n'
    yield "</ul></section>\n"


def _describe(victim: Victim) -> str:
    """Format the folder of a victim, and the names of what goes with it."""
    path = PurePath(victim.parts[0].path)
    names: Sequence[str] = [PurePath(part.path).name for part in victim.parts[1:]]
    return escape_unprintable(", ".join([f"in {path.parent}", *(f"with {name}" for name in names)]))

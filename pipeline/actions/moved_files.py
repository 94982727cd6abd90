"""Take files that were moved away out of the catalog."""

from __future__ import annotations

from collections.abc import Iterable

from indexes.store import Store
from pipeline.actions.outcome import Outcome, Status
from pipeline.actions.plan import REPLACING_ACTIONS, Plan


def remove_moved_files(store: Store, plan: Plan, outcomes: Iterable[Outcome]) -> None:
    """Remove the files that a plan moved away from the catalog, by the outcomes of apply_plan().

    Else the next ingest would take many that vanished at once for those of a drive that is away.
    """
    if plan.action in REPLACING_ACTIONS:
        return
    victims = {part.path for part, is_victim in plan.iter_parts() if is_victim}
    done = [outcome.path for outcome in outcomes if outcome.status is Status.DONE]
    moved = [path for path in done if path in victims]  # not a sidecar that was extended
    files = [store.catalog.files.get_by_path(path) for path in moved]
    store.remove_files([file.id for file in files if file])

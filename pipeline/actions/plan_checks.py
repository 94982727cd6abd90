"""Check a plan before it is applied: by what it says of itself, and by what the store knows now."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from indexes.paths import quote
from pipeline.actions.folders import find_root, is_plain_path, split_path
from pipeline.actions.plan import REJECTED_ACTIONS, REPLACING_ACTIONS, Action, Part, Plan, Victim
from pipeline.actions.protection import load_settings
from pipeline.actions.rejections import Rejections
from pipeline.decode.metadata.fields import FieldName, is_field_value
from pipeline.errors import PlanRefused
from pipeline.grouping.asset_names import XMP_SUFFIX, parse_name
from pipeline.scan import is_below
from pipeline.verify.relation import Relation

# A plan of more files, or of a larger share of the library, has to be confirmed by their number.
MAX_UNCONFIRMED_FILES = 1_000
MAX_UNCONFIRMED_SHARE = 0.2
MAX_ALWAYS_UNCONFIRMED_FILES = 5  # of any library: in a small one a few files are a large share


def require_current(
    plan: Plan, store_folder: Path, roots: Sequence[str], rejections: Rejections | None
) -> None:
    """Raise PlanRefused unless a plan can be applied to a store as it is now.

    `roots` are the store's folders. Without `rejections` no photo counts as rejected.
    """
    settings = load_settings(store_folder)
    require_applicable(plan, settings.store_id, roots, settings.protected)
    for root in roots:
        if _is_away(root, plan):
            raise PlanRefused(f"{quote(root)} is not there; mount its drive, then apply the plan")
    if plan.rejected and rejections is not None:
        rejections.require_current(plan.ingest_run)


def _is_away(root: str, plan: Plan) -> bool:
    """Tell if a root with files of a plan is not there: its drive is not mounted.

    The mount point of a drive that is away is an empty folder on another device.
    """
    parts = [part for part, _ in plan.iter_parts() if find_root(part.path, [root])]
    if not parts:
        return False
    try:
        device = os.stat(root).st_dev  # noqa: PTH116 - may be no UTF-8
        if any(part.stat.device == device for part in parts):
            return False
        with os.scandir(root) as found:
            return next(found, None) is None
    except OSError:
        return True


def require_confirmation(plan: Plan, confirmed: int | None) -> None:
    """Raise PlanRefused if a plan of many files is not confirmed by their number."""
    count = plan.victim_count
    files = f"{count:,} file{'s' * (count != 1)}"
    is_large = count > MAX_UNCONFIRMED_FILES or (
        count > MAX_ALWAYS_UNCONFIRMED_FILES and count > MAX_UNCONFIRMED_SHARE * plan.library_files
    )
    if confirmed is not None and confirmed != count:
        raise PlanRefused(f"the plan acts on {files}, not on {confirmed:,}")
    if is_large and confirmed is None:
        raise PlanRefused(
            f"the plan acts on {count:,} of {plan.library_files:,} files; read it, then confirm"
            f" their number with --confirm {count}"
        )


def require_applicable(
    plan: Plan, store_id: str, roots: Sequence[str], protected: Sequence[str]
) -> None:
    """Raise PlanRefused unless a plan is one of this store, and safe by what it says of itself.

    `roots` are the store's folders. Every path must lie below one of them, no victim in a protected
    folder or be a keeper, nor a hard link of a file of its own keeper. Only identical bytes may be
    replaced. Groups have a keeper, but for those of a plan of rejected photos, which only moves.
    """
    if plan.store_id != store_id:
        raise PlanRefused("the plan was made from another store; name that one with --store")
    if plan.action is Action.REPORT:
        raise PlanRefused("the plan is a report, to be read; make one with another --action")
    if plan.action is Action.MOVE and not is_plain_path(plan.destination or ""):
        raise PlanRefused(f"the plan moves to {quote(plan.destination or '')}, which is no path")
    if plan.rejected and plan.action not in REJECTED_ACTIONS:
        raise PlanRefused(f"rejected photos are only moved, and the plan is a {plan.action}")
    keepers, victims = set[str](), set[str]()
    for part, is_victim in plan.iter_parts():
        if find_root(part.path, roots) is None:
            raise PlanRefused(f"the plan names {quote(part.path)}, below none of the store's roots")
        if is_victim and is_below(part.path, protected):
            raise PlanRefused(
                f"{quote(part.path)} is in a folder that was protected since; make a new plan"
            )
        if is_victim and part.path in victims:
            raise PlanRefused(f"the plan names {quote(part.path)} twice")
        (victims if is_victim else keepers).add(part.path)
    if both := keepers & victims:
        raise PlanRefused(f"the plan keeps {quote(min(both))} and would move it; make a new plan")
    for group in plan.groups:
        if plan.rejected and group.keeper is not None:
            raise PlanRefused("the plan is one of rejected photos, and has a keeper")
        for victim in group.victims:
            if not victim.parts:
                raise PlanRefused("the plan has a victim without a file")
            if not plan.rejected:
                _require_sound(plan.action, group.keeper_parts, victim)
    _require_sound_merges(plan, protected, victims)


def _require_sound(action: Action, keeper_parts: Sequence[Part], victim: Victim) -> None:
    if not keeper_parts:
        raise PlanRefused("the plan has a group without a keeper")
    inodes = {part.inode for part in keeper_parts}
    if any(part.inode in inodes for part in victim.parts):
        raise PlanRefused("a victim of the plan is a hard link of a keeper; make a new plan")
    kept = {part.blake3 for part in keeper_parts}
    is_identical = all(part.blake3 in kept for part in victim.parts)
    if victim.relation is Relation.IDENTICAL_BYTES and not is_identical:
        path = quote(victim.parts[0].path)
        raise PlanRefused(f"the plan says that {path} has the keeper's bytes, and it has others")
    if action in REPLACING_ACTIONS and not is_identical:
        raise PlanRefused(f"only identical bytes can be replaced by a {action}")


def _require_sound_merges(plan: Plan, protected: Sequence[str], victims: Collection[str]) -> None:
    """Raise PlanRefused unless each merge is into a sidecar of its keeper, and of no other."""
    sidecars = set[str]()
    for group in plan.groups:
        merge = group.merge
        if merge is None:
            continue
        path = merge.sidecar
        keeper = group.keeper_parts[0].path if group.keeper_parts else ""
        if not is_sidecar_of(path, keeper):
            raise PlanRefused(f"the plan writes to {quote(path)}, no XMP sidecar of a keeper")
        if is_below(path, protected):
            raise PlanRefused(f"{quote(path)} is in a folder that is protected; make a new plan")
        if path in sidecars or path in victims or not group.victims:
            raise PlanRefused(f"the plan writes to {quote(path)} and has another use for it")
        sidecars.add(path)
        is_one_value = all(
            name is FieldName.KEYWORD or len(values) == 1
            for name, values in merge.get_fields().items()
        )
        is_sound = all(is_field_value(field.name, field.value) for field in merge.fields)
        if not (merge.fields and is_one_value and is_sound):
            raise PlanRefused(f"the plan writes to {quote(path)} what is no metadata")
        if merge.before is not None and merge.before.path != path:
            raise PlanRefused(f"the plan writes to {quote(path)} and names another sidecar")


def is_sidecar_of(path: str, keeper: str) -> bool:
    """Tell if a path is that of an XMP sidecar of a photo: IMG_1.jpg.xmp or IMG_1.xmp, any case."""
    (folder, name), (keeper_folder, _) = split_path(path), split_path(keeper)
    photo = parse_name(keeper)
    sidecar = parse_name(name)
    return (
        is_plain_path(path)
        and folder == keeper_folder
        and sidecar.suffix == XMP_SUFFIX
        and sidecar.stem in (photo.whole, photo.stem)
    )

"""Make a plan of the rejected photos that are in the library; decisions stand in for keepers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from indexes.paths import quote
from indexes.store import Store
from pipeline.actions.folders import Refused
from pipeline.actions.plan import LeftFile, Plan, PlannedGroup, Victim
from pipeline.actions.plan_options import PlanOptions
from pipeline.actions.planned_files import PlannedFiles
from pipeline.actions.planner import assemble_plan
from pipeline.actions.protection import ActionSettings
from pipeline.actions.rejected_copies import RejectedCopies
from pipeline.decided import (
    RejectedFile,
    find_kept_hashes,
    find_rejections,
    make_rejection_rank_key,
)
from pipeline.grouping.cluster import Group
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.query.assets import LibraryAssets
from pipeline.scan import is_below
from pipeline.verify.relation import EXACT_RELATIONS, Relation

# Relations of a file to the rejected photo that it holds, see find_rejected().
REJECTED_RELATIONS = EXACT_RELATIONS | {Relation.SAME_PICTURE}


@dataclass(frozen=True)
class _Library:
    """The assets of a library, the photos that decisions keep, and keepers that have to stay."""

    store: Store
    assets: LibraryAssets
    copies: RejectedCopies
    kept: frozenset[bytes]
    needing_copies: Mapping[str, str]  # of a keeper: a member that is not rejected


def make_rejected_plan(
    store: Store,
    groups: Sequence[Group],
    options: PlanOptions,
    settings: ActionSettings,
    folders: Sequence[str] = (),
) -> Plan:
    """Make a plan of the files that hold a rejected photo; with `folders`, real paths, those below.

    `groups` are all groups of copies of the store: a keeper of copies that are not rejected is
    left. A victim goes with all parts of its asset but those that another asset shares, which are
    hashed. The stat of each file is read from disk. Raises PlanRefused.
    """
    options = replace(options, relations=REJECTED_RELATIONS, rejected=True)
    options.require_sound()
    files = PlannedFiles([root.path for root in store.catalog.roots.list()], options.destination)
    rejections, kept = find_rejections(store), find_kept_hashes(store)
    assets, needed = LibraryAssets(store), _find_needed(groups, rejections, kept)
    library = _Library(store, assets, RejectedCopies(store, assets, files), kept, needed)
    stay = (settings.protected, options.reference_folders)
    victims = defaultdict[str, list[Victim]](list)  # by the id of the decision
    moved, left = set[str](), list[LeftFile]()
    wanted = [path for path in rejections if not folders or is_below(path, folders)]
    # A photo before its parts: they go with it.
    for path in sorted(wanted, key=lambda path: (assets.is_part(path), path)):
        if path in moved:
            continue
        item = min(rejections[path], key=make_rejection_rank_key)
        try:
            _require_free(item, library, stay)
            item = library.copies.choose(rejections[path])
            victim = _make_victim(item, library, files)
        except Refused as refused:
            left.append(LeftFile(path, item.decision.id, str(refused)))
        else:
            moved.update(part.path for part in victim.parts)
            victims[item.decision.id].append(victim)
    planned = [PlannedGroup(id_, None, tuple(listed)) for id_, listed in victims.items()]
    return assemble_plan(store, options, settings, files, planned, left)


def _find_needed(
    groups: Sequence[Group],
    rejections: Mapping[str, Sequence[RejectedFile]],
    kept: frozenset[bytes],
) -> dict[str, str]:
    """Find the keepers of copies that are not rejected: path of the keeper, path of such a copy.

    A copy that is away counts, and so does one that is rejected and that a decision keeps.
    """
    going = {items[0].image.hash for items in rejections.values()} - kept
    needed = dict[str, str]()
    for group in groups:
        for match in group.members:
            image = match.file.image
            if image.hash not in going or image.pixel_hash in kept:
                needed.setdefault(group.keeper.path, match.file.path)
    return needed


def _require_free(
    item: RejectedFile, library: _Library, stay: tuple[Sequence[str], Sequence[str]]
) -> None:
    """Raise Refused if a rejected file is to stay by its place, or by what needs it.

    `stay` are the protected and the reference folders.
    """
    protected, references = stay
    if is_below(item.path, protected):
        raise Refused("in a protected folder")
    if is_below(item.path, references):
        raise Refused("in a reference folder")
    if not library.kept.isdisjoint((item.image.hash, item.image.pixel_hash)):
        raise Refused("decided to be kept")
    primary = library.assets.get_primary(item.path)
    if primary != item.path:
        raise Refused(f"belongs to {quote(primary)}, which stays")
    if member := library.needing_copies.get(item.path):
        raise Refused(f"the keeper of {quote(member)}, which is not rejected")


def _make_victim(item: RejectedFile, library: _Library, files: PlannedFiles) -> Victim:
    """Make a victim of a rejected file with its asset. Raises Refused with the reason against it.

    A copy goes only if it is at most as good as the rejected photo, see RejectedCopies.
    """
    known = library.store.catalog.files.get_by_path(item.path)
    if known is None:
        raise Refused("not in the library any more")
    part = files.inspect(LibraryFile(item.path, known.stat, item.image))
    files.require_device(part)
    others = [other for other in library.assets.get_parts(item.path) if not other.is_shared]
    library.copies.require_parts(item, others)
    for other in others:
        if other.hash in library.kept:
            raise Refused(f"{quote(other.path)} belongs to it, and is decided to be kept")
    author, day = item.decision.author, f"{item.decision.time:%Y-%m-%d}"
    return Victim(
        (part, *files.read_parts(others)),
        item.relation,
        None,
        f"{item.relation} of a rejected photo",
        f"{author} on {day}",
    )

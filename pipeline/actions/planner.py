"""Make a plan of groups: which files can go for which keeper, and why the others cannot."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from indexes.paths import quote
from indexes.store import Store
from pipeline.actions.folders import Refused
from pipeline.actions.foreign_catalogs import find_catalog_warnings
from pipeline.actions.journal import format_now
from pipeline.actions.merge_planner import MergePlanner
from pipeline.actions.plan import (
    REJECTED_ACTIONS,
    REPLACING_ACTIONS,
    Action,
    Keeper,
    LeftFile,
    Merge,
    Part,
    Plan,
    PlannedGroup,
    Victim,
)
from pipeline.actions.planned_files import PlannedFiles
from pipeline.actions.protection import ActionSettings
from pipeline.errors import PlanRefused
from pipeline.grouping.assets import AssetPart, find_without_counterpart
from pipeline.grouping.cluster import Group
from pipeline.grouping.keep_rules import KeepRules, LibraryFile
from pipeline.grouping.losses import is_compressed_less
from pipeline.grouping.match import Match
from pipeline.scan import is_below
from pipeline.verify.relation import COPY_RELATIONS, EXACT_RELATIONS, Relation

SAME_BYTES_REASON = "the best of the files with these bytes"
PROTECTED_REASON = "has the same bytes, in a protected folder"


@dataclass(frozen=True)
class PlanOptions:
    """The choices of a person for a plan.

    `relations` are those of victims to their keepers. `min_confidence` (>=) is required where one
    of them is wider than identical pixels. Files in `reference_folders`, real paths, are kept.
    `rejected`: the plan is one of rejected photos, see make_rejected_plan(). `merge_metadata`: what
    keepers lack of the metadata of their victims is added to sidecars, see MergePlanner.
    """

    action: Action = Action.QUARANTINE
    destination: str | None = None
    relations: frozenset[Relation] = frozenset({Relation.IDENTICAL_BYTES})
    min_confidence: float | None = None
    reference_folders: tuple[str, ...] = ()
    keep_rules: KeepRules = field(default_factory=KeepRules)
    rejected: bool = False
    merge_metadata: bool = False

    def require_sound(self) -> None:
        """Raise PlanRefused for choices that no plan can follow."""
        if others := self.relations - COPY_RELATIONS:
            raise PlanRefused(f"a file that is `{min(others)}` is no copy, so it is never a victim")
        if self.rejected and self.action not in REJECTED_ACTIONS:
            raise PlanRefused(
                f"rejected photos are only moved: --action quarantine or move, not {self.action}"
            )
        is_wide = self.relations - EXACT_RELATIONS and not self.rejected
        if is_wide and self.min_confidence is None:
            raise PlanRefused(
                "relations wider than identical pixels need --min-confidence P, the least"
                " probability of a copy: 0.99, for example"
            )
        if self.action in REPLACING_ACTIONS and self.relations != {Relation.IDENTICAL_BYTES}:
            raise PlanRefused(f"{self.action} is only for identical bytes; leave --relations out")
        if (self.action is Action.MOVE) != (self.destination is not None):
            raise PlanRefused("--action move and --to FOLDER belong together")


def make_plan(
    store: Store,
    groups: Sequence[Group],
    options: PlanOptions,
    settings: ActionSettings,
    left: Sequence[LeftFile] = (),
) -> Plan:
    """Make a plan of the groups of a store; each file in them is a keeper, a victim, or left.

    `left` are files that are left already, with their reasons.
    The stat of each file is read from disk. Only files that belong to a photo are hashed, because
    the store does not know their bytes. Raises PlanRefused.
    """
    options.require_sound()
    roots = tuple(root.path for root in store.catalog.roots.list())
    planner = _Planner(options, roots, settings.protected)
    planned = [made for group in groups for made in planner.plan_group(group)]
    planner.leave_second_paths(store, groups)
    return assemble_plan(store, options, settings, planner.files, planned, (*left, *planner.left))


def assemble_plan(
    store: Store,
    options: PlanOptions,
    settings: ActionSettings,
    files: PlannedFiles,
    planned: Sequence[PlannedGroup],
    left: Sequence[LeftFile],
) -> Plan:
    """Assemble a plan of its groups, which were read by `files`, and of the files that are left."""
    roots = tuple(root.path for root in store.catalog.roots.list())
    victims = [part for group in planned for victim in group.victims for part in victim.parts]
    return Plan(
        created=format_now(),
        store_id=settings.store_id,
        ingest_run=store.catalog.runs.get_newest_key() or "",
        action=options.action,
        destination=options.destination,
        relations=tuple(sorted(options.relations)),
        min_confidence=options.min_confidence,
        roots=roots,
        protected=settings.protected,
        library_files=store.catalog.files.get_counts().files,
        bytes_to_free=files.sum_bytes_to_free(victims),
        groups=tuple(planned),
        left=tuple(left),
        warnings=tuple(find_catalog_warnings([part.path for part in victims], roots)),
        rejected=options.rejected,
    )


class _Planner:
    """Plans group by group; collects the files that are left, with what was read of the others."""

    def __init__(
        self, options: PlanOptions, roots: Sequence[str], protected: Sequence[str]
    ) -> None:
        self.left = list[LeftFile]()
        self._options, self._protected = options, protected
        self.files = PlannedFiles(roots, options.destination)
        self._merges = MergePlanner(protected)

    def plan_group(self, group: Group) -> Iterator[PlannedGroup]:
        """Yield the keepers of a group with their victims; none without a victim."""
        for split in _split_group(group, self._options):
            keeper, matches, reason = self._prefer_protected(*split)
            victims = list[Victim]()
            try:
                kept = self.files.inspect(keeper)
            except Refused as refused:
                for match in matches:
                    self._leave(match.file, group, f"its keeper: {refused}")
                continue
            for match in matches:
                try:
                    victims.append(self._make_victim(match, kept, keeper))
                except Refused as refused:
                    self._leave(match.file, group, str(refused))
            merge = None
            if self._options.merge_metadata:
                merge, victims = self._plan_merge(keeper, matches, victims, group)
            if victims:
                hashes = {part.blake3 for victim in victims for part in victim.parts[1:]}
                parts = [
                    part for part in self.files.read_parts(keeper.parts) if part.blake3 in hashes
                ]
                yield PlannedGroup(group.id, Keeper((kept, *parts), reason), tuple(victims), merge)
        for match in _find_unwanted(group, self._options):
            self._leave(match.file, group, f"{match.relation}: not among the relations asked for")

    def _plan_merge(
        self,
        keeper: LibraryFile,
        matches: Sequence[Match],
        victims: Sequence[Victim],
        group: Group,
    ) -> tuple[Merge | None, list[Victim]]:
        """Plan what a keeper gets; return it, and the victims that can go."""
        files = {match.file.path: match.file for match in matches}
        known = [(files[victim.parts[0].path], victim) for victim in victims]
        planned = self._merges.plan(keeper, known)
        for path, reason in planned.refused.items():
            self._leave(files[path], group, reason)
        kept = [victim for file, victim in known if file.path not in planned.refused]
        return planned.merge, kept

    def _leave(self, file: LibraryFile, group: Group, reason: str) -> None:
        self.left.append(LeftFile(file.path, group.id, reason))

    def _is_kept(self, file: LibraryFile) -> bool:
        return is_below(file.path, [*self._protected, *self._options.reference_folders])

    def _prefer_protected(
        self, keeper: LibraryFile, matches: Sequence[Match], reason: str
    ) -> tuple[LibraryFile, Sequence[Match], str]:
        """Keep a protected file with the bytes of the keeper in its stead, if there is one."""
        if self._is_kept(keeper):
            return keeper, matches, reason
        for match in matches:
            is_equal = match.relation is Relation.IDENTICAL_BYTES
            if is_equal and match.file.is_present and self._is_kept(match.file):
                others = [other for other in matches if other is not match]
                swapped = Match(keeper, Relation.IDENTICAL_BYTES, 1.0)
                return match.file, [swapped, *others], PROTECTED_REASON
        return keeper, matches, reason

    def _make_victim(self, match: Match, kept: Part, keeper: LibraryFile) -> Victim:
        """Make a victim of a member with its asset. Raises Refused with the reason against it."""
        if is_below(match.file.path, self._protected):
            raise Refused("in a protected folder")
        if is_below(match.file.path, self._options.reference_folders):
            raise Refused("in a reference folder")
        if match.without_counterpart:
            raise Refused(f"{quote(match.without_counterpart[0])} has no copy beside the keeper")
        _require_no_more(match, keeper)
        confidence = self._require_confidence(match)
        part = self.files.inspect(match.file)
        if (part.stat.device, part.stat.inode) == (kept.stat.device, kept.stat.inode):
            raise Refused("a hard link of the keeper: nothing would be freed")
        needs_device = self._options.action in (Action.HARDLINK, Action.REFLINK)
        if needs_device and part.stat.device != kept.stat.device:
            raise Refused("on another device than its keeper")
        self.files.require_device(part)
        parts = part, *self._take_parts(match.file, keeper.parts)
        return Victim(parts, match.relation, confidence, f"{match.relation} of the keeper")

    def _take_parts(self, file: LibraryFile, keeper_parts: Sequence[AssetPart]) -> list[Part]:
        """Take the other parts of the asset of a victim; each has a copy at the keeper.

        Those that are shared with another asset stay. Raises Refused for a part without a copy.
        """
        own = [part for part in file.parts if not part.is_missing and not part.is_shared]
        without = find_without_counterpart(own, keeper_parts, self._have_equal_bytes)
        if without:
            raise Refused(f"{quote(without[0].path)} has no copy beside the keeper")
        if own and self._options.action in REPLACING_ACTIONS:
            raise Refused("a photo with files that belong to it is not replaced by a link")
        return self.files.read_parts(own)

    def _have_equal_bytes(self, first: AssetPart, second: AssetPart) -> bool:
        if first.stat.size != second.stat.size:
            return False
        return self.files.read_part(first).blake3 == self.files.read_part(second).blake3

    def _require_confidence(self, match: Match) -> float | None:
        """Return the probability of a copy, None where hashes decide; raises Refused below."""
        if match.relation in EXACT_RELATIONS:
            return None
        judgement = match.verdict.judgement if match.verdict else None
        if judgement is None:
            raise Refused(f"{match.relation}: no probability of a copy is known of this pair")
        if judgement.copy < (self._options.min_confidence or 0.0):
            raise Refused(f"{match.relation}: the probability of a copy is {judgement.copy:.3f}")
        return round(judgement.copy, 6)

    def leave_second_paths(self, store: Store, groups: Sequence[Group]) -> None:
        """Name the paths by which files of groups are reached a second time: they stay as well."""
        inodes, listed, group_by_hash = set[tuple[int, int]](), set[str](), dict[bytes, str]()
        for group in groups:
            for file in group.files:
                inodes.update(_find_inode(file.path))
                listed.add(file.path)
                group_by_hash[file.image.hash] = group.id
        ids = store.catalog.images.get_ids(list(group_by_hash))
        group_by_image = {ids[hash_]: id_ for hash_, id_ in group_by_hash.items() if hash_ in ids}
        for other in store.catalog.files.find_of_images(group_by_image):
            is_other = other.path not in listed and other.image_id is not None
            if is_other and not inodes.isdisjoint(_find_inode(other.path)):
                reason = "another path of a file that is listed: a hard link, or by a link"
                self.left.append(LeftFile(other.path, group_by_image[other.image_id or 0], reason))


def _require_no_more(match: Match, keeper: LibraryFile) -> None:
    """Raise Refused if a copy may be the better file: as many pixels in many more bytes."""
    image, kept = match.file.image, keeper.image
    if (
        match.relation not in EXACT_RELATIONS
        and image.pixel_count == kept.pixel_count
        and is_compressed_less(image, kept)
    ):
        raise Refused(
            "has as many pixels as its keeper in many more bytes, so it may be the better one;"
            " choose with `neardup decide keep`"
        )


def _find_inode(path: str) -> set[tuple[int, int]]:
    """Return the device and inode of the file that a path leads to; empty if it leads to none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - may be no UTF-8
    except (OSError, ValueError):
        return set()
    return {(status.st_dev, status.st_ino)}


def _split_group(
    group: Group, options: PlanOptions
) -> Iterator[tuple[LibraryFile, list[Match], str]]:
    """Yield each file to keep with the members that can go for it, and why it is kept.

    Members that have the bytes of each other, and not a relation to the keeper that was asked for,
    have a keeper among themselves.
    """
    wanted = [match for match in group.members if match.relation in options.relations]
    if wanted:
        yield group.keeper, wanted, group.reason
    if Relation.IDENTICAL_BYTES not in options.relations:
        return
    for matches in _group_by_bytes(group, options):
        rank_key = options.keep_rules.make_equal_pixels_rank_key
        first, *others = sorted(matches, key=lambda match: rank_key(match.file))
        equal = [Match(match.file, Relation.IDENTICAL_BYTES, 1.0) for match in others]
        yield first.file, equal, SAME_BYTES_REASON


def _group_by_bytes(group: Group, options: PlanOptions) -> list[list[Match]]:
    by_hash = defaultdict[bytes, list[Match]](list)
    for match in group.members:
        if match.relation not in options.relations:
            by_hash[match.file.image.hash].append(match)
    return [matches for matches in by_hash.values() if len(matches) > 1]


def _find_unwanted(group: Group, options: PlanOptions) -> list[Match]:
    """Return the members that no relation asked for, and no file with their bytes, accounts for."""
    accounted = set[str]()
    if Relation.IDENTICAL_BYTES in options.relations:
        equal = _group_by_bytes(group, options)
        accounted = {match.file.path for matches in equal for match in matches}
    return [
        match
        for match in group.members
        if match.relation not in options.relations and match.file.path not in accounted
    ]

"""Make a plan of groups: which files can go for which keeper, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from indexes.metadata import ImageMetadata
from indexes.paths import quote
from indexes.store import Store
from pipeline.actions.better_copies import require_no_better
from pipeline.actions.folders import Refused
from pipeline.actions.foreign_catalogs import find_catalog_warnings
from pipeline.actions.journal import format_now
from pipeline.actions.merge_planner import MergePlanner
from pipeline.actions.plan import (
    REPLACING_ACTIONS,
    TRASH_WARNING,
    UNWANTED_REASON,
    Action,
    Keeper,
    LeftFile,
    Merge,
    Part,
    Plan,
    PlannedGroup,
    Victim,
)
from pipeline.actions.plan_options import PlanOptions
from pipeline.actions.planned_files import PlannedFiles
from pipeline.actions.protection import ActionSettings
from pipeline.actions.second_paths import find_second_paths
from pipeline.actions.shared_parts import add_shared_parts
from pipeline.actions.trials import Trial, list_equal_files, list_members
from pipeline.decided import find_kept_hashes
from pipeline.grouping.assets import AssetPart, find_without_counterpart
from pipeline.grouping.cluster import Group
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.grouping.losses import LOSSLESS_FORMATS
from pipeline.grouping.match import Match
from pipeline.query.assets import LibraryAssets, find_asset_folders
from pipeline.scan import is_below
from pipeline.verify.relation import EXACT_RELATIONS, Relation

SAME_BYTES_REASON = "the best of the files with these bytes"
PROTECTED_REASON = "has the same bytes, in a protected folder"


def make_plan(
    store: Store,
    groups: Sequence[Group],
    options: PlanOptions,
    settings: ActionSettings,
    left: Sequence[LeftFile] = (),
) -> Plan:
    """Make a plan of the groups of a store; each file in them is a keeper, a victim, or left.

    `left` are files that are left already. The stat of each file is read from disk. Only files that
    belong to a photo are hashed, because the store does not know their bytes. Raises PlanRefused.
    """
    options.require_sound()
    roots = tuple(root.path for root in store.catalog.roots.list())
    kept_hashes = find_kept_hashes(store)
    planner = _Planner(
        options, roots, settings.protected, kept_hashes, _load_lossless_metadata(store, groups)
    )
    planned = [made for group in groups for made in planner.plan_group(group)]
    left = (*left, *planner.left, *find_second_paths(store, groups))
    return assemble_plan(store, options, settings, planner.files, planned, left)


def _load_lossless_metadata(store: Store, groups: Sequence[Group]) -> dict[bytes, ImageMetadata]:
    """Load the metadata of lossless members that are the same picture, by the blake3 of images."""
    hashes = {
        match.file.image.hash
        for group in groups
        for match in group.members
        if match.relation is Relation.SAME_PICTURE and match.file.image.format in LOSSLESS_FORMATS
    }
    ids = store.catalog.images.get_ids(list(hashes))
    by_id = {id_: hash_ for hash_, id_ in ids.items()}
    return {by_id[id_]: metadata for id_, metadata in store.catalog.metadata.get(by_id)}


def assemble_plan(
    store: Store,
    options: PlanOptions,
    settings: ActionSettings,
    files: PlannedFiles,
    planned: Sequence[PlannedGroup],
    left: Sequence[LeftFile],
) -> Plan:
    """Assemble a plan of its groups, which were read by `files`, and of the files that are left."""
    if options.action not in REPLACING_ACTIONS:
        assets = LibraryAssets(store, find_asset_folders(store))
        planned, staying = add_shared_parts(planned, assets, files)
        left = (*left, *staying)
    roots = tuple(root.path for root in store.catalog.roots.list())
    victims = [part for group in planned for victim in group.victims for part in victim.parts]
    warnings = find_catalog_warnings([part.path for part in victims], roots)
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
        warnings=(*warnings, *_warn_of_action(options, roots)),
        rejected=options.rejected,
    )


def _warn_of_action(options: PlanOptions, roots: Sequence[str]) -> Iterator[str]:
    """Yield a warning of a trash that cannot be undone, and of each root that the files stay in."""
    if options.action is Action.TRASH:
        yield TRASH_WARNING
    destination = options.destination
    for root in roots:
        if destination is not None and (destination == root or is_below(destination, [root])):
            yield (
                f"{quote(destination)} is in {quote(root)}, so the next `neardup ingest` finds the"
                " moved files there, unless an --exclude leaves that folder out"
            )


class _Planner:
    """Plans group by group; collects the files that are left, with what was read of the others."""

    def __init__(
        self,
        options: PlanOptions,
        roots: Sequence[str],
        protected: Sequence[str],
        decided: frozenset[bytes],
        metadata: Mapping[bytes, ImageMetadata],
    ) -> None:
        """Plan below `roots`; `decided` are the hashes of photos that a person decided to keep.

        `metadata` is that of lossless images, by their blake3.
        """
        self.left = list[LeftFile]()
        self._metadata = metadata
        self._options, self._protected, self._decided = options, protected, decided
        self.files = PlannedFiles(roots, options.destination)
        self._merges = MergePlanner(protected)

    def plan_group(self, group: Group) -> Iterator[PlannedGroup]:
        """Yield the keepers of a group with their victims; none without a victim.

        Files with the bytes of each other that cannot all go for the keeper of the group have one
        among themselves, where more can go for that. So a plan of wider relations has each victim
        of a plan of narrower ones.
        """
        relations = self._options.relations
        wanted = [match for match in group.members if match.relation in relations]
        trials = [self._try(group.keeper, wanted, group.reason)]
        if Relation.IDENTICAL_BYTES in relations:
            for files in list_equal_files(group, trials[0]):
                rank_key = self._options.keep_rules.make_equal_pixels_rank_key
                first, *others = sorted(files, key=rank_key)
                matches = [Match(other, Relation.IDENTICAL_BYTES, 1.0) for other in others]
                trials += trials[0].give_to(self._try(first, matches, SAME_BYTES_REASON))
        for trial in trials:
            merge = self._plan_merge(trial) if self._options.merge_metadata else None
            if trial.kept and trial.victims:
                yield self._make_group(group, trial, trial.kept, merge)
        reasons = {path: why for trial in trials[::-1] for path, why in trial.refused.items()}
        acting = [trial for trial in trials if trial.victims]
        accounted = {path for trial in acting for path in (*trial.victims, trial.keeper.path)}
        for path, match in list_members(group, trials[0].keeper).items():
            if path not in accounted:
                unwanted = f"{match.relation}: {UNWANTED_REASON}"
                self._leave(match.file, group, reasons.get(path, unwanted))

    def _try(self, keeper: LibraryFile, matches: Sequence[Match], reason: str) -> Trial:
        """Find out which files can go for a keeper, or for a protected one with its bytes."""
        trial = Trial(*self._prefer_protected(keeper, matches, reason))
        try:
            kept = trial.kept = self.files.inspect(trial.keeper)
        except Refused as refused:
            paths = [match.file.path for match in trial.matches]
            reason = f"its keeper {quote(trial.keeper.path)}: {refused}"
            trial.refused.update(dict.fromkeys(paths, reason))
            return trial
        for match in trial.matches:
            try:
                trial.victims[match.file.path] = self._make_victim(match, kept, trial.keeper)
            except Refused as refused:
                trial.refused[match.file.path] = str(refused)
        return trial

    def _make_group(
        self, group: Group, trial: Trial, kept: Part, merge: Merge | None
    ) -> PlannedGroup:
        victims = tuple(trial.victims.values())
        hashes = {part.blake3 for victim in victims for part in victim.parts[1:]}
        parts = [
            part for part in self.files.read_parts(trial.keeper.parts) if part.blake3 in hashes
        ]
        return PlannedGroup(group.id, Keeper((kept, *parts), trial.reason), victims, merge)

    def _plan_merge(self, trial: Trial) -> Merge | None:
        """Plan what a keeper gets, and leave the victims that cannot go without more of it."""
        files = {match.file.path: match.file for match in trial.matches}
        known = [(files[path], victim) for path, victim in trial.victims.items()]
        planned = self._merges.plan(trial.keeper, known)
        for path, reason in planned.refused.items():
            trial.refused[path] = reason
            del trial.victims[path]
        return planned.merge

    def _leave(self, file: LibraryFile, group: Group, reason: str) -> None:
        self.left.append(LeftFile(file.path, group.id, reason))

    def _is_kept(self, file: LibraryFile) -> bool:
        return is_below(file.path, [*self._protected, *self._options.reference_folders])

    def _is_decided(self, file: LibraryFile) -> bool:
        """Tell if a person decided to keep a photo."""
        return not self._decided.isdisjoint((file.image.hash, file.image.pixel_hash))

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
        if self._is_decided(match.file) and match.file.image.pixel_hash != keeper.image.pixel_hash:
            raise Refused("decided to be kept")
        require_no_better(
            match,
            keeper,
            is_decided=self._is_decided(keeper),
            metadata=self._metadata.get(match.file.image.hash),
        )
        confidence = self._require_confidence(match)
        part = self.files.inspect(match.file)
        if part.inode == kept.inode:
            raise Refused("a hard link of the keeper: nothing would be freed")
        needs_device = self._options.action in (Action.HARDLINK, Action.REFLINK)
        if needs_device and part.stat.device != kept.stat.device:
            raise Refused("on another device than its keeper")
        self.files.require_device(part)
        parts = part, *self._take_parts(match.file, keeper.parts)
        return Victim(parts, match.relation, confidence, f"{match.relation} of the keeper")

    def _take_parts(self, file: LibraryFile, keeper_parts: Sequence[AssetPart]) -> list[Part]:
        """Take the other parts of the asset of a victim; each has a copy at the keeper.

        Those that are shared with another asset stay, see add_shared_parts(). Raises Refused for a
        part without a copy.
        """
        own = [part for part in file.parts if not part.is_missing and not part.is_shared]
        without = find_without_counterpart(own, keeper_parts, self._have_equal_bytes)
        if without:
            raise Refused(f"{quote(without[0].path)} has no copy beside the keeper")
        self.files.require_no_hard_link(own, keeper_parts)
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

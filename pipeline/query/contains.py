"""Tell which files of a folder are in another folder too: as good, only lesser, or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from indexes.coverage import UnreadablePath
from indexes.decisions import DecisionKind
from indexes.paths import quote
from indexes.records import CatalogFile
from indexes.store import Store
from pipeline.errors import OverlappingFolders
from pipeline.grouping.cluster import select_best_files, trace_files
from pipeline.grouping.copy_views import list_views
from pipeline.grouping.decisions import NO_DECISIONS
from pipeline.grouping.edges import Edge, Neighbor, list_neighbors
from pipeline.grouping.keep_rules import KeepRules, LibraryFile
from pipeline.grouping.losses import is_compressed_less
from pipeline.grouping.match import Match, get_exact_relation, make_match_rank_key
from pipeline.grouping.provenance import Provenance
from pipeline.query.files import load_files
from pipeline.query.freshness import refresh_status
from pipeline.query.groups import build_edges
from pipeline.query.snapshot import load_snapshot
from pipeline.query.thresholds import resolve_thresholds
from pipeline.scan import is_below
from pipeline.verify.relation import COPY_RELATIONS, Relation
from pipeline.verify.verdict import MIN_NAMED_CHANGED_SHARE

# Reasons why files below a folder are not compared, beside those of an ingest.
NOT_SCANNED, NOT_SCANNED_DETAIL = "not scanned", "hidden, excluded, or new since the ingest"
UNREADABLE_FOLDER = "unreadable folder"


class Containment(StrEnum):
    """A way in which a folder contains a file; the values are printed as they are."""

    AS_GOOD = "as good"
    LESSER = "lesser"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class ContainedFile:
    """A file, how another folder contains it, and the best file for it there, if there is one."""

    file: LibraryFile
    containment: Containment
    counterpart: Match | None = None


@dataclass(frozen=True)
class ContainsReport:
    """The files of a folder, by path, and how another folder contains them.

    `other_files` hold no image that could be read (videos, sidecars, broken photos), and have the
    bytes of a file in the other folder: by path, with the path of that file. `not_compared` are
    those without such a file.
    """

    files: Sequence[ContainedFile]
    other_files: Mapping[str, str]
    not_compared: Sequence[UnreadablePath]

    def select(self, containment: Containment) -> list[ContainedFile]:
        """Return the files that are contained in this way."""
        return [file for file in self.files if file.containment is containment]

    @property
    def is_all_as_good(self) -> bool:
        """True if no file would be lost with the folder; False for a folder without photos."""
        are_as_good = all(file.containment is Containment.AS_GOOD for file in self.files)
        return bool(self.files) and are_as_good and not self.not_compared

    @property
    def share(self) -> float:
        """The share of the photos that is there as good, 0 to 1; 0 for no photos."""
        return len(self.select(Containment.AS_GOOD)) / len(self.files) if self.files else 0.0


def find_contained(store: Store, folder: str, other: str) -> ContainsReport:
    """Find how the files below `folder` are contained below `other`, both real paths.

    A file is there as good if one that is present has the same bytes; or the same pixels or picture
    as a whole, with all kinds of metadata, and the keep rules that tell quality do not put it
    after. Any other copy is lesser: cropped, edited, smaller, without its date. Files that changed
    or went since the last ingest count as absent on either side.

    Raises OverlappingFolders if one folder lies in the other.
    """
    require_separate_folders(folder, other)
    with store.catalog.snapshot():
        own_files = _load_files_below(store, folder)
        without_image = [
            failure
            for failure in store.catalog.files.list_failures()
            if is_below(failure.path, [folder])
        ]
        scanned = list(store.catalog.files.find_under(folder))
        other_files = _find_other_files(scanned, store, folder, other)
        counterparts = _Counterparts(store, folder, other)
    present = (file for file in own_files if not file.is_away)
    files = sorted(map(counterparts.find, present), key=lambda item: item.file.path)
    not_compared = [item for item in without_image if item.path not in other_files]
    not_compared += _find_unscanned(folder, {file.path for file in scanned})
    return ContainsReport(files, other_files, not_compared)


def _find_unscanned(folder: str, known: Collection[str]) -> list[UnreadablePath]:
    """Find the files and unreadable folders below a folder that no ingest has read.

    They are hidden, excluded, or new. Links are passed over: nothing is lost with them.
    """
    found, folders = list[UnreadablePath](), [folder]
    while folders:
        path = folders.pop()
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif not entry.is_symlink() and entry.path not in known:
                        found.append(UnreadablePath(entry.path, NOT_SCANNED, NOT_SCANNED_DETAIL))
        except OSError as error:
            found.append(UnreadablePath(path, UNREADABLE_FOLDER, error.strerror))
    return sorted(found, key=lambda item: item.path)


def _find_other_files(
    scanned: Iterable[CatalogFile], store: Store, folder: str, other: str
) -> dict[str, str]:
    """Find the files without an image that have the bytes of one in another folder, which is there.

    `scanned` are the files below `folder`. Only files of equal size are read, each once.
    """
    by_size = defaultdict[int, list[str]](list)
    for file in store.catalog.files.find_under(other):
        is_link = is_below(os.path.realpath(file.path), [folder])
        if file.image_id is None and file.stat.size and not is_link:
            by_size[file.stat.size].append(file.path)
    digest = cache(_digest)
    found = {}
    for file in scanned:
        if file.image_id is None and (candidates := by_size.get(file.stat.size)):
            own = digest(file.path)
            equal = (path for path in candidates if own and digest(path) == own)
            if counterpart := next(equal, None):
                found[file.path] = counterpart
    return found


def _digest(path: str) -> bytes | None:
    """Return the digest of a regular file; None if it cannot be read."""
    try:
        # O_NONBLOCK: a file may have become a FIFO since it was listed.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
            is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            return hashlib.file_digest(file, "blake2b").digest() if is_regular else None
    except (OSError, ValueError):
        return None


def require_separate_folders(folder: str, other: str) -> None:
    """Raise OverlappingFolders if one real path is, or lies below, the other."""
    if folder == other or is_below(folder, [other]) or is_below(other, [folder]):
        raise OverlappingFolders(
            f"{quote(folder)} and {quote(other)} have files in common; name two folders that lie"
            " side by side, because a file cannot stand for itself"
        )


def _load_files_below(store: Store, folder: str) -> list[LibraryFile]:
    """Load the files below a folder, with their present status."""
    loaded = load_files(store, store.catalog.images.list_in_use(), [folder])
    return [refresh_status(file) for files in loaded.values() for file in files]


class _Counterparts:
    """The files below a folder that can stand for those of another one."""

    def __init__(self, store: Store, folder: str, other: str) -> None:
        """Load the files and verdicts of both folders, in a snapshot of the catalog."""
        self._folder = folder
        self._keep_rules = KeepRules()
        self._others = defaultdict[bytes, list[LibraryFile]](list)
        self._neighbors: Mapping[bytes, Sequence[Neighbor]] = {}
        self._provenance: Mapping[bytes, Provenance] = {}
        self._decisions = NO_DECISIONS
        if store.space is None:
            return
        thresholds = resolve_thresholds(store, store.space)
        snapshot = load_snapshot(store, thresholds, (folder, other), refresh_status)
        self._decisions = snapshot.decisions
        edges = build_edges(snapshot, self._keep_rules)
        neighbors = list_neighbors(edges, snapshot.files)
        best_files = select_best_files(snapshot.files, self._keep_rules)
        views = list_views(best_files, neighbors, COPY_RELATIONS)
        self._neighbors = neighbors
        self._provenance = trace_files(views, best_files, neighbors, snapshot.exposures)
        # Not those of the snapshot, which has each file once: a hard link to one of the first
        # folder can stand for it.
        for file in _load_files_below(store, other):
            if self._can_stand(file):
                self._others[file.image.pixel_hash].append(file)

    def _can_stand(self, file: LibraryFile) -> bool:
        """Tell if a file is there, and not through a link into the first folder."""
        return file.is_present and not is_below(os.path.realpath(file.path), [self._folder])

    def find(self, file: LibraryFile) -> ContainedFile:
        """Find the best counterpart of a file."""
        if not file.is_present:
            return ContainedFile(file, Containment.ABSENT)
        matches = sorted(self._find_matches(file), key=make_match_rank_key)
        for match in matches:
            if self._is_as_good(match, file):
                return ContainedFile(file, Containment.AS_GOOD, match)
        if matches:
            return ContainedFile(file, Containment.LESSER, matches[0])
        return ContainedFile(file, Containment.ABSENT)

    def _find_matches(self, file: LibraryFile) -> Iterator[Match]:
        image = file.image
        for other in self._others.get(image.pixel_hash, ()):
            relation = get_exact_relation(other.image, image) or Relation.IDENTICAL_PIXELS
            yield Match(other, relation, 1.0)
        for neighbor in self._neighbors.get(image.pixel_hash, ()):
            edge = neighbor.edge
            if edge.relation in COPY_RELATIONS and not self._are_different(edge):
                verdict = edge.verdict
                if verdict and edge.left != image.pixel_hash:
                    verdict = verdict.swap_sides()
                for other in self._others.get(neighbor.pixel_hash, ()):
                    yield Match(other, edge.relation, edge.score, verdict)

    def _are_different(self, edge: Edge) -> bool:
        """Tell if a person decided that the two images of an edge are different."""
        decision = self._decisions.find_on_pair(edge.left, edge.right)
        return decision is not None and decision.kind is DecisionKind.DIFFERENT

    def _is_as_good(self, match: Match, file: LibraryFile) -> bool:
        if match.relation == Relation.IDENTICAL_BYTES:
            return True
        if not set(file.image.metadata_kinds) <= set(match.file.image.metadata_kinds):
            return False
        if match.relation == Relation.IDENTICAL_PIXELS:
            return True
        edits = match.verdict.edits if match.verdict else None
        if match.relation != Relation.SAME_PICTURE or edits is None:
            return False
        if edits.changed_regions or edits.changed_share >= MIN_NAMED_CHANGED_SHARE:
            return False
        if is_compressed_less(file.image, match.file.image):
            return False  # by its bytes, where what a rule measures does not tell
        return self._make_quality_key(match.file) <= self._make_quality_key(file)

    def _make_quality_key(self, file: LibraryFile) -> tuple[Any, ...]:
        provenance = self._provenance.get(file.image.pixel_hash, Provenance())
        return self._keep_rules.make_quality_key(file, provenance)

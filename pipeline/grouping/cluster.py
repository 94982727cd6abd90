"""Form groups: a keeper with its members, each with its relation to the keeper, and the reason."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.grouping.assignment import assign_to_keepers
from pipeline.grouping.copy_views import Views, count_marks, list_views
from pipeline.grouping.edges import Edge, Neighbor, list_neighbors
from pipeline.grouping.exposures import Exposures
from pipeline.grouping.keep_rules import KeepRules, LibraryFile
from pipeline.grouping.lineage import find_parents
from pipeline.grouping.match import Match, get_exact_relation, make_match_rank_key
from pipeline.grouping.provenance import Provenance, trace_provenance
from pipeline.verify.relation import (
    COPY_RELATIONS,
    REPORTED_RELATIONS,
    SCENE_RELATIONS,
    Relation,
)
from pipeline.verify.verdict import Verdict


@dataclass(frozen=True, slots=True)
class RelatedFile:
    """A file that has an edge to a member of a group without being a match of its keeper."""

    file: LibraryFile
    member: LibraryFile
    relation: Relation
    score: float


@dataclass(frozen=True, slots=True)
class Group:
    """A keeper, the files that match it, closest first, and the reason to keep it.

    `id` is the start of the hash of the keeper's content, so it outlives renames and other ingests.
    `related` are files that have an edge to the keeper or a member, but are not members.
    """

    id: str
    keeper: LibraryFile
    members: tuple[Match, ...]
    reason: str
    related: tuple[RelatedFile, ...] = ()

    @property
    def files(self) -> tuple[LibraryFile, ...]:
        """The keeper, then the members."""
        return (self.keeper, *(member.file for member in self.members))


def form_groups(
    files_by_pixel_hash: Mapping[bytes, Sequence[LibraryFile]],
    edges: Iterable[Edge],
    relations: Iterable[Relation] = COPY_RELATIONS,
    keep_rules: KeepRules | None = None,
    exposures: Exposures | None = None,
) -> list[Group]:
    """Group images that have an edge of one of `relations` to a keeper; sorted by keeper path.

    All files with one pixel hash are one image, which the best of them represents. Edges to images
    without files are ignored. No group holds two images that `exposures` tells apart.
    """
    wanted, keep_rules = frozenset(relations), keep_rules or KeepRules()
    neighbors = list_neighbors(edges, files_by_pixel_hash)
    best_files = select_best_files(files_by_pixel_hash, keep_rules)
    exposures = exposures or Exposures({})
    views = list_views(best_files, neighbors, wanted & COPY_RELATIONS)
    provenance = trace_files(views, best_files, neighbors, exposures)
    alterations = {image: item.alterations for image, item in provenance.items()}
    rank_keys = {
        pixel_hash: keep_rules.make_rank_key(file, provenance[pixel_hash])
        for pixel_hash, file in best_files.items()
    }
    groups = list[Group]()
    if not SCENE_RELATIONS.isdisjoint(wanted):
        exposures = Exposures({})
    for pixel_hash, taken in assign_to_keepers(neighbors, rank_keys, wanted, exposures).items():
        keeper = best_files[pixel_hash]
        taken_hashes = [neighbor.pixel_hash for neighbor in taken]
        by_edits = sorted(
            taken_hashes, key=lambda hash_: (len(alterations[hash_]), rank_keys[hash_])
        )
        parents = find_parents(pixel_hash, by_edits, views, alterations)
        matches = _build_matches(keeper, files_by_pixel_hash[pixel_hash])
        for neighbor in taken:
            edge, parent = neighbor.edge, parents.get(neighbor.pixel_hash)
            verdict = _orient_verdict(edge, keeper)
            voucher = best_files[edge.voucher] if edge.voucher else None
            made_from = best_files[parent] if parent and parent != pixel_hash else None
            matches += [
                Match(file, edge.relation, edge.score, verdict, voucher, made_from)
                for file in files_by_pixel_hash[neighbor.pixel_hash]
            ]
        members = [match for match in matches if match.relation in wanted]
        if not members:
            continue
        if taken:
            other_keys = [rank_keys[hash_] for hash_ in taken_hashes]
            reason = keep_rules.explain_choice(rank_keys[pixel_hash], other_keys)
        else:
            reason = _explain_among_equals(keeper, files_by_pixel_hash[pixel_hash], keep_rules)
        groups.append(
            Group(
                keeper.image.hash.hex()[:16],
                keeper,
                tuple(sorted(members, key=make_match_rank_key)),
                reason,
                _find_related_files({pixel_hash, *taken_hashes}, neighbors, best_files),
            )
        )
    return sorted(groups, key=lambda group: group.keeper.path)


def select_best_files(
    files_by_pixel_hash: Mapping[bytes, Sequence[LibraryFile]], keep_rules: KeepRules
) -> dict[bytes, LibraryFile]:
    """Select the file of each image that the keep rules put first."""
    return {
        pixel_hash: min(files, key=keep_rules.make_equal_pixels_rank_key)
        for pixel_hash, files in files_by_pixel_hash.items()
    }


def trace_files(
    views: Views,
    best_files: Mapping[bytes, LibraryFile],
    neighbors: Mapping[bytes, Sequence[Neighbor]],
    exposures: Exposures,
) -> dict[bytes, Provenance]:
    """Trace the provenance of files, by pixel hash, from the views of their copies."""
    images = {pixel_hash: file.image for pixel_hash, file in best_files.items()}
    marks = {image: count_marks(image, neighbors[image]) for image in images}
    return trace_provenance(views, images, exposures.metadata, marks)


def _explain_among_equals(
    keeper: LibraryFile, files: Iterable[LibraryFile], keep_rules: KeepRules
) -> str:
    """Explain the choice of a keeper among files with equal pixels."""
    rank_key = keep_rules.make_equal_pixels_rank_key
    other_keys = [rank_key(file) for file in files if file is not keeper]
    return keep_rules.explain_choice(rank_key(keeper), other_keys, equal_pixels=True)


def _find_related_files(
    group_hashes: Collection[bytes],
    neighbors: Mapping[bytes, Sequence[Neighbor]],
    best_files: Mapping[bytes, LibraryFile],
) -> tuple[RelatedFile, ...]:
    """Return the images next to a group, each by its closest edge; closest first, then by path."""
    closest: dict[bytes, tuple[tuple[int, float, str], RelatedFile]] = {}
    for pixel_hash in group_hashes:
        member = best_files[pixel_hash]
        for neighbor in neighbors[pixel_hash]:
            if neighbor.pixel_hash in group_hashes:
                continue
            relation, score = neighbor.edge.relation, neighbor.edge.score
            rank_key = REPORTED_RELATIONS.index(relation), -score, member.path
            known = closest.get(neighbor.pixel_hash)
            if known is None or rank_key < known[0]:
                file = best_files[neighbor.pixel_hash]
                closest[neighbor.pixel_hash] = (
                    rank_key,
                    RelatedFile(file, member, relation, score),
                )
    ranked = sorted(closest.values(), key=lambda entry: (entry[0], entry[1].file.path))
    return tuple(related for _, related in ranked)


def _build_matches(keeper: LibraryFile, files: Iterable[LibraryFile]) -> list[Match]:
    """Build the matches of the other files with the pixels of a keeper."""
    return [
        Match(file, get_exact_relation(file.image, keeper.image) or Relation.SIMILAR, 1.0)
        for file in files
        if file is not keeper
    ]


def _orient_verdict(edge: Edge, first_file: LibraryFile) -> Verdict | None:
    """Return the verdict of an edge with the image of `first_file` as its first."""
    if edge.verdict is None or first_file.image.pixel_hash == edge.left:
        return edge.verdict
    return edge.verdict.swap_sides()

"""Form groups: a keeper with its members, each with its relation to the keeper, and the reason."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from indexes.decisions import Decision
from pipeline.grouping.assignment import assign_to_keepers
from pipeline.grouping.copy_views import Views, count_marks, list_views
from pipeline.grouping.decisions import NO_DECISIONS, Decisions
from pipeline.grouping.edges import Edge, Neighbor, list_neighbors
from pipeline.grouping.exposures import Exposures
from pipeline.grouping.keep_rules import KeepRules, LibraryFile
from pipeline.grouping.lineage import find_parents
from pipeline.grouping.match import Match, get_exact_relation, make_match_rank_key
from pipeline.grouping.provenance import Provenance, trace_provenance
from pipeline.grouping.units import Link, Separations, Units, find_sides
from pipeline.verify.relation import (
    COPY_RELATIONS,
    REPORTED_RELATIONS,
    SCENE_RELATIONS,
    Relation,
)
from pipeline.verify.verdict import Verdict


@dataclass(frozen=True, slots=True)
class RelatedFile:
    """A file that has an edge to a member of a group without being a match of its keeper.

    `decision` is that of a person by which it is none, if there is one.
    """

    file: LibraryFile
    member: LibraryFile
    relation: Relation
    score: float
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A keeper, the files that match it, closest first, and the reason to keep it.

    `id` is the start of the hash of the keeper's content, so it outlives renames and other ingests.
    `related` are files that have an edge to the keeper or a member, but are not members.
    `decision` is that of a person to keep the keeper, if it decided.
    """

    id: str
    keeper: LibraryFile
    members: tuple[Match, ...]
    reason: str
    related: tuple[RelatedFile, ...] = ()
    decision: Decision | None = None

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
    decisions: Decisions = NO_DECISIONS,
) -> list[Group]:
    """Group images that have an edge of one of `relations` to a keeper; sorted by keeper path.

    All files with one pixel hash are one image, which the best of them represents. Edges to images
    without files are ignored, but for those of decided images. No group holds two images that
    `exposures` or `decisions` tell apart; images that are decided to be the same share one, unless
    only exact copies are wanted.
    """
    wanted, edges = frozenset(relations), list(edges)
    keep_rules = (keep_rules or KeepRules()).with_kept(decisions.kept)
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
    if not SCENE_RELATIONS.isdisjoint(wanted):
        exposures = Exposures({})
    units = Units(rank_keys, decisions, wanted)
    sides = find_sides(units, rank_keys, edges, decisions, wanted)
    separations = Separations(exposures, units, decisions, sides)
    assigned = assign_to_keepers(
        units.contract(neighbors, wanted),
        {image: key for image, key in rank_keys.items() if units.get_best(image) == image},
        wanted,
        separations if decisions.has_pairs else exposures,  # which is a tenth faster on the whole
        {
            units.get_best(image)
            for image, file in best_files.items()
            if decisions.kept.get_order(file.image)
        },
    )
    groups = list[Group]()
    for image, taken in assigned.items():
        links = units.link_images(image, taken, neighbors, wanted)
        by_edits = sorted(links, key=lambda hash_: (len(alterations[hash_]), rank_keys[hash_]))
        parents = find_parents(image, by_edits, views, alterations)
        keeper, keeper_files = best_files[image], files_by_pixel_hash[image]
        matches = _build_matches(keeper, keeper_files)
        for hash_, link in links.items():
            match = _build_match(link, keeper, best_files, parents.get(hash_), decisions)
            matches += [replace(match, file=file) for file in files_by_pixel_hash[hash_]]
        members = [match for match in matches if match.relation in wanted or match.decision]
        if not members:
            continue
        if links:
            keeper_key, other_keys = rank_keys[image], [rank_keys[hash_] for hash_ in links]
        else:
            rank_key = keep_rules.make_equal_pixels_rank_key
            keeper_key = rank_key(keeper)
            other_keys = [rank_key(file) for file in keeper_files if file is not keeper]
        groups.append(
            Group(
                keeper.image.hash.hex()[:16],
                keeper,
                tuple(sorted(members, key=make_match_rank_key)),
                keep_rules.explain_choice(keeper_key, other_keys, equal_pixels=not links),
                _find_related_files({image, *links}, neighbors, best_files, separations),
                keep_rules.find_decision(keeper_key, other_keys),
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


def _build_match(
    link: Link,
    keeper: LibraryFile,
    best_files: Mapping[bytes, LibraryFile],
    parent: bytes | None,
    decisions: Decisions,
) -> Match:
    """Build the match of the best file of an image, made from `parent` if that is no keeper."""
    edge, own_hash = link.edge, keeper.image.pixel_hash
    return Match(
        best_files[edge.right if edge.left == own_hash else edge.left],
        edge.relation,
        edge.score,
        _orient_verdict(edge, keeper),
        best_files[edge.voucher] if edge.voucher else None,
        best_files[parent] if parent and parent != own_hash else None,
        decisions.find_on_pair(*link.decided_pair) if link.decided_pair else None,
    )


def _find_related_files(
    group_hashes: Collection[bytes],
    neighbors: Mapping[bytes, Sequence[Neighbor]],
    best_files: Mapping[bytes, LibraryFile],
    separations: Separations,
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
                related = RelatedFile(file, member, relation, score)
                closest[neighbor.pixel_hash] = rank_key, related
    ranked = sorted(closest.values(), key=lambda entry: (entry[0], entry[1].file.path))
    return tuple(
        replace(related, decision=separations.find_decision(*_get_pixel_hashes(related)))
        for _, related in ranked
    )


def _get_pixel_hashes(related: RelatedFile) -> tuple[bytes, bytes]:
    return related.file.image.pixel_hash, related.member.image.pixel_hash


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

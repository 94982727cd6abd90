"""Matches of a few files in the library: identify, search, verify.

Each step turns the record of the step before into its own: StoredQuery or NewQuery (identify.py),
Searched (search.py), Verified (verification.py), Answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from indexes.decisions import Decision, DecisionKind
from indexes.metadata import NO_METADATA
from indexes.records import Image
from indexes.store import Store
from pipeline.decided import load_decisions
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.decode.read import Failure
from pipeline.embed.embedder import Embedder
from pipeline.grouping.decisions import Decisions
from pipeline.grouping.exposures import Exposures, NamedMetadata
from pipeline.grouping.frames import relate_frames
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.grouping.match import Match, decide_relation, get_exact_relation, make_match_rank_key
from pipeline.query.assets import LibraryAssets, merge_assets
from pipeline.query.files import is_file_at
from pipeline.query.identify import (
    Query,
    StoredQuery,
    embed_queries,
    embed_query_crops,
    identify_files,
)
from pipeline.query.search import NearImage, search_store
from pipeline.query.standing import Standing, find_standing
from pipeline.query.thresholds import resolve_thresholds
from pipeline.query.verification import QueryVerifier, Verified
from pipeline.verify.relation import (
    EXACT_RELATIONS,
    QUERY_RELATIONS,
    REPORTED_RELATIONS,
    Relation,
)

FILES_PER_BATCH = 32  # files that are embedded and searched together


@dataclass(frozen=True, slots=True)
class Rejection:
    """A decision to reject a photo, and the relation of that photo and the file of a query."""

    relation: Relation
    decision: Decision


@dataclass(frozen=True, slots=True)
class Answer:
    """The matches of one file in the library, closest first.

    `identical` are the other files of the library with the same bytes or pixels, closest first,
    whichever relations were asked for. `in_library`: the file itself is in the library. `flags` are
    those of its image; `is_featureless`: it is compared with nothing but exact copies. `failure` is
    the reason why the file has no image to search for. `rejection`: a person rejected this photo,
    or one that it is the same picture as. `standing`: how the file stands to the library, as far as
    the relations that were asked for show it; None if it failed.
    """

    file: str
    matches: tuple[Match, ...] = ()
    identical: tuple[Match, ...] = ()
    in_library: bool = False
    flags: tuple[str, ...] = ()
    failure: Failure | None = None
    is_featureless: bool = False
    rejection: Rejection | None = None
    standing: Standing | None = None


@dataclass(frozen=True)
class MatchOptions:
    """Requested thresholds, None for those of the store, and the relations that match."""

    threshold: float | None = None
    min_agreement: float | None = None
    relations: frozenset[Relation] = QUERY_RELATIONS


def find_matches(
    files: Iterable[str],
    store: Store,
    embedder: Embedder,
    threshold: float | None = None,
    relations: Iterable[Relation] = QUERY_RELATIONS,
    min_agreement: float | None = None,
) -> Iterator[Answer]:
    """Find the files of the library that match each file, inside the library or outside.

    Yields one answer per file, in order. Matches are sorted by relation, then by score; a file
    never matches itself. `threshold` and `min_agreement` are those of find_groups(). A new image
    is decoded, embedded and verified with each stored image near it. A file whose content is stored
    costs none of these: its verdicts are stored too, and the model is not loaded for it.
    """
    options = MatchOptions(threshold, min_agreement, frozenset(relations))
    with DecoderPool() as decoders:
        yield from match_files(files, store, embedder, decoders, options)


def match_files(
    files: Iterable[str],
    store: Store,
    embedder: Embedder,
    decoders: DecoderPool,
    options: MatchOptions,
) -> Iterator[Answer]:
    """Find the files of the library that match each file, as find_matches() does.

    `decoders` outlive the answers, for a program that asks again and again.
    """
    remaining = iter(files)
    if store.space is None:
        while batch := list(islice(remaining, FILES_PER_BATCH)):
            identified = identify_files(batch, store, embedder, decoders)
            for file, item in zip(batch, identified, strict=True):
                failure = item if isinstance(item, Failure) else None
                yield Answer(file, failure=failure, standing=None if failure else Standing.NEW)
        return
    decisions, assets = load_decisions(store), LibraryAssets(store)
    threshold, min_agreement = options.threshold, options.min_agreement
    with QueryVerifier(store, decoders) as verifier:
        while batch := list(islice(remaining, FILES_PER_BATCH)):
            identified = identify_files(batch, store, embedder, decoders)
            queries = _embed_new(identified, store, embedder, decoders, options)
            searched = search_store(queries, store, threshold, min_agreement, decisions)
            verified = iter(verifier.verify(searched))
            for file, item in zip(batch, identified, strict=True):
                if isinstance(item, Failure):
                    yield Answer(file, failure=item)
                else:
                    found = next(verified)
                    answer = _build_answer(file, found, options.relations, decisions)
                    path = found.searched.query.source.path
                    yield replace(answer, matches=merge_assets(answer.matches, path, assets))


def _embed_new(
    identified: Sequence[StoredQuery | Decoded | Failure],
    store: Store,
    embedder: Embedder,
    decoders: DecoderPool,
    options: MatchOptions,
) -> list[Query]:
    """Return the queries of the files that have an image, in order, with new images embedded."""
    decoded = [item for item in identified if isinstance(item, Decoded)]
    new_queries = embed_queries(decoded, embedder, store)
    if any(query.embedding for query in new_queries):
        thresholds = resolve_thresholds(
            store, embedder.space, options.threshold, options.min_agreement
        )
        if thresholds.with_crops:
            new_queries = embed_query_crops(new_queries, embedder, store, decoders)
    embedded = iter(new_queries)
    return [
        item if isinstance(item, StoredQuery) else next(embedded)
        for item in identified
        if not isinstance(item, Failure)
    ]


def _build_answer(
    file: str, verified: Verified, relations: frozenset[Relation], decisions: Decisions
) -> Answer:
    """Select the files near a query whose relation to it is one of `relations`.

    Those that are decided to be the same are among them, unless only exact copies are wanted.
    """
    query, thresholds = verified.searched.query, verified.searched.thresholds
    own_hash = query.image.pixel_hash
    metadata = query.image.metadata or NO_METADATA
    named = defaultdict[bytes, list[NamedMetadata]](list)
    named[own_hash].append(NamedMetadata(metadata, [query.source.path]))
    for near in verified.searched.near_images:
        named[near.image.pixel_hash].append(_name_metadata(near))
    exposures = Exposures(named)
    in_library, matches, identical = False, [], []
    related = list[tuple[Image, Relation, Decision | None]]()
    own_key = decisions.get_known_hash(query.image)
    with_same = not relations <= EXACT_RELATIONS
    for near in verified.searched.near_images:
        verdict = verified.verdicts.get(near.image.pixel_hash)
        exact = get_exact_relation(near.image, query.image)
        relation = exact or decide_relation(
            verdict,
            near.score,
            thresholds.similar,
            thresholds.min_agreement,
            exposure_difference=exposures.find_difference(own_hash, near.image.pixel_hash),
        )
        relation = relate_frames(relation, metadata.frames, near.metadata.frames)
        decision = decisions.find_on_pair(own_key, decisions.get_known_hash(near.image))
        related.append((near.image, relation, decision))
        is_same = decision is not None and decision.kind is DecisionKind.SAME
        if is_same and with_same and relation not in relations:
            relation = Relation.SAME_BY_DECISION
        for library_file in near.files:
            if _is_same_file(library_file, query):
                in_library = True
                continue
            match = Match(library_file, relation, near.score, verdict, decision=decision)
            if exact:
                identical.append(match)
            if relation in relations or relation is Relation.SAME_BY_DECISION:
                matches.append(match)
    return Answer(
        file,
        tuple(sorted(matches, key=make_match_rank_key)),
        tuple(sorted(identical, key=make_match_rank_key)),
        in_library,
        query.image.flags,
        is_featureless=query.image.is_featureless,
        rejection=_find_rejection(query.image, related, decisions),
        standing=find_standing(
            query, matches, exposures, is_identical=in_library or bool(identical)
        ),
    )


def _find_rejection(
    image: Image,
    related: Iterable[tuple[Image, Relation, Decision | None]],
    decisions: Decisions,
) -> Rejection | None:
    """Find the rejected photo that an image is closest to; images decided to differ are none."""
    found = []
    if decision := decisions.find_rejection(image):
        has_bytes = image.hash in {content.hash for content in decision.contents}
        relation = Relation.IDENTICAL_BYTES if has_bytes else Relation.IDENTICAL_PIXELS
        found.append(Rejection(relation, decision))
    for near, relation, on_pair in related:
        is_different = on_pair is not None and on_pair.kind is DecisionKind.DIFFERENT
        if relation is Relation.SAME_PICTURE and not is_different:
            if decision := decisions.find_rejection(near):
                found.append(Rejection(relation, decision))
    return min(found, key=_rank_rejection, default=None)


def _rank_rejection(rejection: Rejection) -> tuple[int, str]:
    return REPORTED_RELATIONS.index(rejection.relation), rejection.decision.id


def _name_metadata(near: NearImage) -> NamedMetadata:
    return NamedMetadata(near.metadata, [file.path for file in near.files])


def _is_same_file(file: LibraryFile, query: Query) -> bool:
    if file.path == query.source.path:
        return True
    stat = query.source.stat
    return (
        stat is not None
        and not file.is_missing
        and file.image.hash == query.image.hash
        and is_file_at(file.path, stat)  # a hard link to it
    )

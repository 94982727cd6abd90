"""Verify members with their keeper that only other copies relate to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from indexes.caches.thumbnails import ThumbnailCache
from indexes.store import Store
from pipeline.decode.pool import DecoderPool
from pipeline.grouping.cluster import Group
from pipeline.grouping.match import Match, make_match_rank_key
from pipeline.thumbnails import Thumbnails
from pipeline.verify.inputs import build_verify_input, load_features
from pipeline.verify.pool import VerifierPool
from pipeline.verify.relation import COPY_RELATIONS
from pipeline.verify.verdict import Verdict

MAX_PAIRS_AT_A_TIME = 256  # whose thumbnails and features are in memory together
_Pair = tuple[bytes, bytes]  # the hashes of a keeper and of a member


def verify_vouched_members(
    store: Store,
    groups: Sequence[Group],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[Group]:
    """Verify each member that has a voucher with its keeper; nothing is stored.

    `report` gets how many pairs are done, and how many there are, now and then.

    An ingest compares an image in a crowd with a few of its copies, which need not include the
    keeper. A member whose own verdict makes it a copy gets that in place of the voucher; the others
    are returned as they were, as are those whose thumbnail is missing and whose file is away.
    """
    pairs = {
        (group.keeper.image.hash, member.file.image.hash)
        for group in groups
        for member in group.members
        if member.voucher and not member.decision
    }
    if not pairs:
        return list(groups)
    verdicts = _verify_pairs(store, sorted(pairs), report)
    return [_replace_vouchers(group, verdicts) for group in groups]


def _verify_pairs(
    store: Store, pairs: Sequence[_Pair], report: Callable[[int, int], None]
) -> dict[_Pair, Verdict]:
    """Verify pairs; the keeper is the first image of each verdict."""
    verdicts = dict[_Pair, Verdict]()
    with (
        ThumbnailCache(store.folder, write=False) as cache,
        DecoderPool() as decoders,
        VerifierPool() as verifiers,
    ):
        thumbnails = Thumbnails(store, cache, decoders)
        for start in range(0, len(pairs), MAX_PAIRS_AT_A_TIME):
            report(start, len(pairs))
            batch = pairs[start : start + MAX_PAIRS_AT_A_TIME]
            verdicts |= _verify_batch(store, batch, thumbnails, verifiers)
        report(len(pairs), len(pairs))
    return verdicts


def _verify_batch(
    store: Store, pairs: Sequence[_Pair], thumbnails: Thumbnails, verifiers: VerifierPool
) -> dict[_Pair, Verdict]:
    """Verify pairs as an ingest does: one verdict each, whichever of the two is the keeper."""
    ids = store.catalog.images.get_ids(list({hash_ for pair in pairs for hash_ in pair}))
    loaded, _ = load_features(thumbnails, ids.values(), verifiers.extract_features)
    known = {image.hash: (image, thumbnail) for image, thumbnail in loaded.values()}
    sorted_pairs = {
        pair: tuple(sorted(pair, key=lambda hash_: known[hash_][0].pixel_hash))
        for pair in pairs
        if known.keys() >= set(pair)
    }
    inputs = [
        (build_verify_input(*known[first]), build_verify_input(*known[second]))
        for first, second in sorted_pairs.values()
    ]
    found = zip(sorted_pairs.items(), verifiers.verify(inputs), strict=True)
    return {
        pair: verdict if pair == sorted_pair else verdict.swap_sides()
        for (pair, sorted_pair), verdict in found
        if verdict is not None
    }


def _replace_vouchers(group: Group, verdicts: dict[_Pair, Verdict]) -> Group:
    """Replace the vouchers of members by their verdicts, where these make them copies."""

    def verify(member: Match) -> Match:
        verdict = verdicts.get((group.keeper.image.hash, member.file.image.hash))
        if member.voucher is None or verdict is None or verdict.relation not in COPY_RELATIONS:
            return member
        return replace(member, relation=verdict.relation, verdict=verdict, voucher=None)

    members = sorted(map(verify, group.members), key=make_match_rank_key)
    return replace(group, members=tuple(members))

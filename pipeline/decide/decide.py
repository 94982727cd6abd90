"""Enter decisions, refuse contradictions, and forget decisions again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import combinations

from indexes.caches.thumbnails import ThumbnailCache
from indexes.decisions import PAIR_KINDS, DecidedContent, Decision, DecisionKind
from indexes.paths import escape_unprintable, format_command, quote
from indexes.store import Store
from pipeline.decide.identify import identify_contents
from pipeline.decode.pool import DecoderPool
from pipeline.errors import DecisionRefused, UnknownDecision
from pipeline.grouping.decisions import Decisions, format_origin
from pipeline.thumbnails import Thumbnails

MIN_PREFIX_DIGITS = 4  # of an id that is not given whole
MAX_NAMES_IN_MESSAGE = 4
IMAGES_PER_BLOCK = 200  # whose thumbnails are in memory together


@dataclass(frozen=True)
class MergedDecisions:
    """All decisions after new ones were merged into them: those that are `new`, and those that were
    `known`, by an earlier decision of the same kind on the same contents.

    `replaced` are those of before that gave way to a later one.
    """

    all: list[Decision]
    new: list[Decision] = field(default_factory=list)
    known: list[Decision] = field(default_factory=list)
    replaced: list[Decision] = field(default_factory=list)


def decide(store: Store, kind: DecisionKind, files: Sequence[str], author: str) -> MergedDecisions:
    """Enter a decision of `author` on the photos in `files`, which need not be in the library.

    To keep or to reject several photos is a decision on each; all are entered, or none. Only a
    rejected photo may be unknown to the store. Deciding again what is decided changes nothing, but
    that the latest one to keep wins. Raises UnknownPhoto, and DecisionRefused for photos with equal
    pixels and for a contradiction.
    """
    is_rejected = kind is DecisionKind.REJECT
    contents = identify_contents(files, store, allow_unknown=is_rejected)
    if kind in PAIR_KINDS:
        _refuse_equal(files, contents, kind)
    now = datetime.now(UTC)
    if kind in PAIR_KINDS:
        return merge_into(store, [Decision(kind, tuple(contents), author, now)])
    each = {content.hash: content for content in contents}.values()
    return merge_into(store, [Decision(kind, (content,), author, now) for content in each])


def _refuse_equal(
    files: Sequence[str], contents: Sequence[DecidedContent], kind: DecisionKind
) -> None:
    for (left, first), (right, second) in combinations(zip(files, contents, strict=True), 2):
        if first.hash == second.hash or first.pixel_hash == second.pixel_hash:
            what = "bytes" if first.hash == second.hash else "pixels"
            always = "they are one image" if kind is DecisionKind.DIFFERENT else "they always are"
            raise DecisionRefused(
                f"{quote(left)} and {quote(right)} have the same {what}, so no decision that they"
                f" are {kind} is possible: {always}"
            )


def merge_into(store: Store, decisions: Sequence[Decision]) -> MergedDecisions:
    """Add decisions to those of a store, all or none; raises DecisionRefused.

    Stores the thumbnails of their photos, by which copies are found once the files are gone.
    """
    merged = MergedDecisions([])

    def merge_all(before: Sequence[Decision]) -> Sequence[Decision]:
        nonlocal merged
        images = store.catalog.images.get(store.catalog.decisions.find_images().values())
        pixel_hashes = {image.hash: image.pixel_hash for _, image in images}
        merged = merge(before, decisions, pixel_hashes)
        _refuse_contradictions(store, merged, pixel_hashes)
        return merged.all

    store.update_decisions(merge_all)
    _store_thumbnails(store, merged.new)
    return merged


def _store_thumbnails(store: Store, decisions: Sequence[Decision]) -> None:
    """Decode the decided images of a store that have no thumbnail, because they are in no pair."""
    hashes = dict.fromkeys(item.hash for decision in decisions for item in decision.contents)
    ids = list(store.catalog.images.get_ids(list(hashes)).values())
    with ThumbnailCache(store.folder, write=True) as cache, DecoderPool() as decoders:
        thumbnails = Thumbnails(store, cache, decoders)
        for start in range(0, len(ids), IMAGES_PER_BLOCK):
            thumbnails.load(ids[start : start + IMAGES_PER_BLOCK])


def merge(
    before: Sequence[Decision], added: Iterable[Decision], pixel_hashes: Mapping[bytes, bytes]
) -> MergedDecisions:
    """Merge decisions into earlier ones, without a look at contradictions.

    Of two of one kind on the same contents one stays: that which was there; of two to keep a photo,
    the later one.
    """
    added = sorted(added, key=lambda decision: decision.order)
    keys = Decisions([*before, *added], pixel_hashes)
    by_subject = {keys.get_subject(decision): decision for decision in before}
    kept = {decision.id: decision for decision in before}
    earlier_ids = set(kept)
    merged = MergedDecisions([])
    for decision in added:
        subject = keys.get_subject(decision)
        twin = by_subject.get(subject)
        is_later = twin and decision.kind is DecisionKind.KEEP and decision.order > twin.order
        if twin is None or is_later:
            if twin:
                del kept[twin.id]
                merged.replaced.extend([twin] if twin.id in earlier_ids else [])
            by_subject[subject] = kept[decision.id] = decision
            merged.new.append(decision)
        else:
            merged.known.append(twin)
    merged.all.extend(kept.values())
    return merged


def _refuse_contradictions(
    store: Store, merged: MergedDecisions, pixel_hashes: Mapping[bytes, bytes]
) -> None:
    """Raise DecisionRefused if a new decision and another one cannot both hold."""
    new_ids = {decision.id for decision in merged.new}
    for first, second in Decisions(merged.all, pixel_hashes).find_contradictions():
        if new_ids.isdisjoint({first.id, second.id}):
            continue
        new, other = (first, second) if first.id in new_ids else (second, first)
        forget = format_command(store.folder, "decide", "forget", other.id)
        raise DecisionRefused(
            f"{_describe_photos(new)} contradicts {describe_decision(other)},"
            f" {format_origin(other)}; to decide otherwise, forget that one: `{forget}`"
        )


def describe_decision(decision: Decision) -> str:
    """Describe a decision by its kind, its photos and its id, for a message."""
    return f"{_describe_photos(decision)} (decision {decision.id})"


def _describe_photos(decision: Decision) -> str:
    names = [escape_unprintable(content.name) or "?" for content in decision.contents]
    more = len(names) - MAX_NAMES_IN_MESSAGE
    listed = ", ".join(names[:MAX_NAMES_IN_MESSAGE]) + (f" and {more:,} more" if more > 0 else "")
    return f"{decision.kind} {listed}"


def forget(store: Store, ids: Sequence[str]) -> list[Decision]:
    """Forget decisions, by their ids or the first digits of these; all or none.

    Raises UnknownDecision for one that there is not, or not only one.
    """
    forgotten = dict[str, Decision]()

    def remove(before: Sequence[Decision]) -> Sequence[Decision]:
        for id_ in ids:
            matching = [item for item in before if _is_meant(item, id_)]
            if len(matching) != 1:
                known = format_command(store.folder, "decide", "list")
                number = "more than one decision starts" if matching else "no decision starts"
                raise UnknownDecision(f"{number} with {quote(id_)}; `{known}` lists them")
            forgotten[matching[0].id] = matching[0]
        return [decision for decision in before if decision.id not in forgotten]

    store.update_decisions(remove)
    return list(forgotten.values())


def take_back(store: Store, ids: Collection[str], replaced: Sequence[Decision]) -> list[Decision]:
    """Forget decisions by their whole ids, and enter again those that they `replaced`.

    Those that were forgotten since are passed over, and one that was replaced stays away where a
    later one on its contents, or a contradiction to it, was entered since. Returns what was
    forgotten.
    """
    forgotten = list[Decision]()

    def restore(before: Sequence[Decision]) -> Sequence[Decision]:
        forgotten[:] = [decision for decision in before if decision.id in ids]
        left = [decision for decision in before if decision.id not in ids]
        images = store.catalog.images.get(store.catalog.decisions.find_images().values())
        pixel_hashes = {image.hash: image.pixel_hash for _, image in images}
        for decision in replaced:
            merged = merge(left, [decision], pixel_hashes)
            with suppress(DecisionRefused):
                _refuse_contradictions(store, merged, pixel_hashes)
                left = merged.all
        return left

    store.update_decisions(restore)
    return forgotten


def _is_meant(decision: Decision, id_: str) -> bool:
    return len(id_) >= MIN_PREFIX_DIGITS and decision.id.startswith(id_.lower())

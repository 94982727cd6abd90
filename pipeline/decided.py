"""The decisions of a store with what the store knows of their contents, and rejected files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from indexes.decisions import Decision, DecisionKind
from indexes.metadata import NO_METADATA
from indexes.records import CatalogFile, Image
from indexes.store import Store
from pipeline.grouping.decisions import NO_DECISIONS, Decisions
from pipeline.grouping.exposures import NamedMetadata, compare_files
from pipeline.grouping.losses import is_compressed_less
from pipeline.scan import is_below
from pipeline.verify.relation import REPORTED_RELATIONS, Relation

# Pixels of a copy over those of a rejected photo, up to which it counts as rejected, too.
MAX_PIXEL_RATIO = 1.25


@dataclass(frozen=True, slots=True)
class RejectedFile:
    """A file of the library that holds a rejected photo, or a verified copy of one.

    `relation` is that of the rejected photo and the file: identical bytes, identical pixels, or the
    same picture. `rejected` is the rejected photo itself, None if the store does not have it.
    """

    path: str
    image: Image
    relation: Relation
    decision: Decision
    rejected: Image | None = None


def load_decisions(store: Store) -> Decisions:
    """Load the decisions of a store, with the pixel hashes that it has of their contents."""
    with store.catalog.snapshot():
        decisions = store.catalog.decisions.list()
        if not decisions:
            return NO_DECISIONS
        ids = store.catalog.decisions.find_images().values()
        images = store.catalog.images.get(ids)
        return Decisions(decisions, {image.hash: image.pixel_hash for _, image in images})


def find_kept_hashes(store: Store) -> frozenset[bytes]:
    """Find the blake3 and the pixel hash of each photo that was decided to be kept."""
    return frozenset(
        hash_
        for decision in store.catalog.decisions.list()
        if decision.kind is DecisionKind.KEEP
        for content in decision.contents
        for hash_ in (content.hash, content.pixel_hash)
    )


def find_rejected(store: Store, folders: Sequence[str] = ()) -> list[RejectedFile]:
    """Find the files that hold a rejected photo or the same picture; with `folders`, those below.

    Ordered by path, each with its closest rejected photo. Missing files are left out, and so are
    copies that hold more than the rejected photo, and images that are decided to be different from
    it, or are another exposure.
    """
    found = find_rejections(store, folders)
    return [min(found[path], key=make_rejection_rank_key) for path in sorted(found)]


def find_rejections(store: Store, folders: Sequence[str] = ()) -> dict[str, list[RejectedFile]]:
    """Find each rejected photo that a file holds, or is the same picture as, by path.

    The files are those of find_rejected(); the newest decision comes first.
    """
    found = dict[str, list[RejectedFile]]()
    with store.catalog.snapshot():
        decisions = load_decisions(store)
        for decision in decisions.all:
            if decision.kind is not DecisionKind.REJECT:
                continue
            for image, rejected, relation, files in _find_copies(store, decision, decisions):
                for file in files:
                    is_wanted = not folders or is_below(file.path, folders)
                    if is_wanted and not file.is_missing:
                        item = RejectedFile(file.path, image, relation, decision, rejected)
                        found.setdefault(file.path, []).insert(0, item)
    return found


def make_rejection_rank_key(item: RejectedFile) -> int:
    """Make a sort key that puts the closest rejected photo of a file first."""
    return REPORTED_RELATIONS.index(item.relation)


def _find_copies(
    store: Store, decision: Decision, decisions: Decisions
) -> Iterator[tuple[Image, Image | None, Relation, list[CatalogFile]]]:
    """Yield the images that are a rejected one or a verified copy of it, with that and their files.

    The rejected one is None if the store does not have it.
    """
    catalog = store.catalog
    (content,) = decision.contents
    stored = dict(catalog.images.get(catalog.images.get_ids([content.hash]).values()))
    own_hashes = {content.pixel_hash, *(image.pixel_hash for image in stored.values())}
    equal_ids = {id_ for hash_ in own_hashes for id_ in catalog.images.find_by_pixel_hash(hash_)}
    copies = {
        id_ for hash_ in own_hashes for id_ in _find_same_pictures(store, hash_, decisions)
    } - equal_ids
    images = dict(catalog.images.get(equal_ids | copies))
    files = _group_files(store, images)
    rejected = [_name_metadata(store, id_, files) for id_ in stored]
    for id_, image in images.items():
        relation = Relation.SAME_PICTURE
        if id_ in equal_ids:
            is_own = image.hash == content.hash
            relation = Relation.IDENTICAL_BYTES if is_own else Relation.IDENTICAL_PIXELS
        elif all(_holds_more(image, item) for item in stored.values()) or any(
            _are_two_exposures(_name_metadata(store, id_, files), item) for item in rejected
        ):
            continue
        yield image, next(iter(stored.values()), None), relation, files.get(id_, [])


def _holds_more(image: Image, rejected: Image) -> bool:
    """Tell if a copy holds more than the photo that was rejected, which was perhaps the worse one.

    It has more pixels, or as many and is compressed much less.
    """
    has_more_pixels = image.pixel_count > MAX_PIXEL_RATIO * rejected.pixel_count
    return has_more_pixels or is_compressed_less(image, rejected)


def _find_same_pictures(store: Store, pixel_hash: bytes, decisions: Decisions) -> Iterator[int]:
    """Yield the images in use whose newest verdict says that they are the same picture."""
    relations = dict[bytes, str]()
    for first, second, verdict in store.catalog.verdicts.find_of_image(pixel_hash):
        relations[second if first == pixel_hash else first] = verdict.relation
    for other, relation in relations.items():
        decision = decisions.find_on_pair(pixel_hash, other)
        is_different = decision is not None and decision.kind is DecisionKind.DIFFERENT
        if relation == Relation.SAME_PICTURE and not is_different:
            yield from store.catalog.images.find_by_pixel_hash(other)


def _group_files(store: Store, images: Mapping[int, Image]) -> dict[int, list[CatalogFile]]:
    files = dict[int, list[CatalogFile]]()
    for file in store.catalog.files.find_of_images(images):
        if file.image_id is not None:
            files.setdefault(file.image_id, []).append(file)
    return files


def _name_metadata(
    store: Store, image_id: int, files: Mapping[int, Sequence[CatalogFile]]
) -> NamedMetadata:
    metadata = dict(store.catalog.metadata.get([image_id])).get(image_id, NO_METADATA)
    return NamedMetadata(metadata, [file.path for file in files.get(image_id, ())])


def _are_two_exposures(first: NamedMetadata, second: NamedMetadata) -> bool:
    difference = compare_files(first, second)
    return difference is not None and difference.is_certain

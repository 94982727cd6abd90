"""Tell which copies of a rejected photo go with it: those that are at most as good.

A person who rejects a gray, enlarged or re-encoded version means that one, not its original.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from indexes.metadata import NO_METADATA, ImageMetadata
from indexes.paths import quote
from indexes.records import FileStat, Image
from indexes.store import Store
from pipeline.actions.better_copies import find_loss, is_lossless_beside
from pipeline.actions.folders import Refused
from pipeline.actions.planned_files import PlannedFiles
from pipeline.decided import RejectedFile, make_rejection_rank_key
from pipeline.grouping.alterations import MIN_FILTERED_GAIN
from pipeline.grouping.assets import AssetPart, find_without_counterpart
from pipeline.grouping.cluster import select_best_files, trace_files
from pipeline.grouping.copy_views import list_views
from pipeline.grouping.edges import Edge, list_neighbors
from pipeline.grouping.exposures import Exposures, NamedMetadata
from pipeline.grouping.keep_rules import BASE_CRITERIA, KEEP_RULES, KeepRules, LibraryFile
from pipeline.grouping.losses import is_compressed_less
from pipeline.grouping.provenance import Provenance
from pipeline.query.assets import LibraryAssets
from pipeline.query.files import load_files
from pipeline.verify.relation import COPY_RELATIONS, EXACT_RELATIONS, Relation, Side
from pipeline.verify.verdict import Verdict, decode_verdict

REJECTED = "the rejected photo"
# Rules that tell how much of its photo a file holds. Pixels and bytes are compared pair by pair.
_RULES = ("original", "resolution", "format")
_KNOWN_RELATIONS = COPY_RELATIONS | {Relation.SIMILAR, Relation.SAME_TEMPLATE}
_UNKNOWN_STAT = FileStat(0, 0, 0, 0, 0)  # of a rejected photo that no file holds; no rule asks


@dataclass(frozen=True)
class _Family:
    """The copies of a rejected photo: best files, provenance and metadata by pixel hash.

    `verdicts` are those of the rejected photo and each copy, that photo first.
    """

    files: Mapping[bytes, LibraryFile]
    provenance: Mapping[bytes, Provenance]
    metadata: Mapping[bytes, Sequence[ImageMetadata]]
    verdicts: Mapping[bytes, Verdict]


class RejectedCopies:
    """Compares the copies of rejected photos with these, by verdicts, provenance and parts."""

    def __init__(
        self, store: Store, assets: LibraryAssets | None = None, files: PlannedFiles | None = None
    ) -> None:
        """Use the catalog of `store`, which has to stay open.

        Without `assets` and `files`, which reads parts of them, only images are compared.
        """
        self._store, self._assets, self._files = store, assets, files
        self._families = dict[bytes, _Family]()

    def choose(self, items: Sequence[RejectedFile]) -> RejectedFile:
        """Choose the rejected photo, of those of one file, that the file goes with.

        The closest one comes first. Raises Refused if the file is better than each.
        """
        reasons = list[str]()
        for item in sorted(items, key=make_rejection_rank_key):
            reason = self._find_advantage(item)
            if not reason:
                return item
            reasons.append(reason)
        raise Refused(reasons[0])

    def require_parts(self, item: RejectedFile, parts: Sequence[AssetPart]) -> None:
        """Raise Refused if a part of a copy has none with its bytes beside the rejected photo."""
        if item.relation in EXACT_RELATIONS or item.rejected is None or not self._assets:
            return
        ids = self._store.catalog.images.get_ids([item.rejected.hash])
        others = [
            part
            for file in self._store.catalog.files.find_of_images(list(ids.values()))
            for part in self._assets.get_parts(file.path)
        ]
        if without := find_without_counterpart(parts, others, self._have_equal_bytes):
            raise Refused(f"{quote(without[0].path)} has no copy beside {REJECTED}")

    def _have_equal_bytes(self, first: AssetPart, second: AssetPart) -> bool:
        if self._files is None or first.stat.size != second.stat.size:
            return False
        return self._files.read_part(first).blake3 == self._files.read_part(second).blake3

    def _find_advantage(self, item: RejectedFile) -> str:
        """Return in words what a file has that a rejected photo lacks; empty for nothing."""
        rejected, image = item.rejected, item.image
        if item.relation in EXACT_RELATIONS:
            return ""
        if rejected is None:
            return f"nothing is known of {REJECTED} any more"
        if rejected.pixel_hash not in self._families:
            self._families[rejected.pixel_hash] = _find_family(self._store, rejected)
        family = self._families[rejected.pixel_hash]
        verdict = family.verdicts.get(image.pixel_hash)
        if verdict is None or verdict.edits is None or image.pixel_hash not in family.files:
            return f"nothing is known of it and {REJECTED}"
        if loss := find_loss(verdict, REJECTED):
            return loss
        is_upscaled = verdict.edits.upscaled_side is Side.SECOND
        if image.pixel_count > rejected.pixel_count and not is_upscaled:
            return f"has more pixels than {REJECTED}"
        if is_compressed_less(image, rejected):
            return f"compressed less than {REJECTED}"
        metadata = family.metadata.get(image.pixel_hash, ())
        if any(is_lossless_beside(image, known, rejected) for known in metadata or (NO_METADATA,)):
            return f"lossless, and {REJECTED} is not"
        if kinds := sorted({*image.metadata_kinds} - {*rejected.metadata_kinds}):
            return f"has metadata that {REJECTED} lacks: {', '.join(kinds)}"
        hashes = image.pixel_hash, rejected.pixel_hash
        own, other = ((family.files[hash_], family.provenance[hash_]) for hash_ in hashes)
        # Compressed again, an enlarged photo has new detail, but it stays one of the same size.
        is_same_size = image.pixel_count == rejected.pixel_count
        if is_same_size and verdict.edits.detail_gain <= MIN_FILTERED_GAIN:
            own = own[0], replace(own[1], is_upscaled=other[1].is_upscaled)
        for criterion in (*BASE_CRITERIA, *(rule for name in _RULES for rule in KEEP_RULES[name])):
            if criterion.reason != "most pixels" and criterion.key(*own) < criterion.key(*other):
                return f"better than {REJECTED}: {criterion.reason}"
        return ""


def _find_family(store: Store, rejected: Image) -> _Family:
    """Find the copies of a rejected photo and the copies of these, and trace their provenance."""
    own = rejected.pixel_hash
    found = dict[tuple[bytes, bytes], tuple[Relation, Verdict]]()
    family = {own}
    for hash_ in [own, *sorted(_add_verdicts(store, own, found))]:
        family |= {hash_, *_add_verdicts(store, hash_, found)}
    for hash_ in family:
        _add_verdicts(store, hash_, found)
    images = store.catalog.images
    ids = [id_ for hash_ in sorted(family) for id_ in images.find_by_pixel_hash(hash_)]
    files, metadata = defaultdict[bytes, list[LibraryFile]](list), _load_metadata(store, ids)
    for of_image in load_files(store, ids).values():
        files[of_image[0].image.pixel_hash] += of_image
    files.setdefault(own, [LibraryFile("", _UNKNOWN_STAT, rejected)])
    edges = [
        Edge(left, right, relation, 1.0, verdict)
        for (left, right), (relation, verdict) in found.items()
    ]
    neighbors = list_neighbors(edges, files)
    best_files = select_best_files(files, KeepRules())
    views = list_views(best_files, neighbors, COPY_RELATIONS)
    exposures = Exposures(
        {image: [NamedMetadata(item, ()) for item in items] for image, items in metadata.items()}
    )
    verdicts = {
        right if left == own else left: verdict if left == own else verdict.swap_sides()
        for (left, right), (_, verdict) in found.items()
        if own in (left, right)
    }
    traced = trace_files(views, best_files, neighbors, exposures)
    return _Family(best_files, traced, metadata, verdicts)


def _add_verdicts(
    store: Store, pixel_hash: bytes, found: dict[tuple[bytes, bytes], tuple[Relation, Verdict]]
) -> set[bytes]:
    """Add the newest verdict on each pair of an image to `found`; return the copies of it."""
    newest = {
        (first, second): stored
        for first, second, stored in store.catalog.verdicts.find_of_image(pixel_hash)
    }
    copies = set[bytes]()
    for pair, stored in newest.items():
        if stored.relation not in _KNOWN_RELATIONS:
            continue
        if pair not in found:
            found[pair] = Relation(stored.relation), decode_verdict(stored)
        if found[pair][0] in COPY_RELATIONS:
            copies |= {*pair} - {pixel_hash}
    return copies


def _load_metadata(store: Store, ids: Sequence[int]) -> dict[bytes, list[ImageMetadata]]:
    """Load the metadata of all contents of images, by pixel hash."""
    loaded = defaultdict[bytes, list[ImageMetadata]](list)
    images = dict(store.catalog.images.get(ids))
    for id_, metadata in store.catalog.metadata.get(ids):
        loaded[images[id_].pixel_hash].append(metadata)
    return dict(loaded)

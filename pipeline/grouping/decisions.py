"""Decisions of people about images: which share a group, which never do, and which are kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

from indexes.decisions import DecidedContent, Decision, DecisionKind
from indexes.paths import escape_unprintable
from indexes.records import Image

_PAIR_WORDS = {DecisionKind.DIFFERENT: "to be different ", DecisionKind.SAME: "to be the same "}


def format_origin(decision: Decision) -> str:
    """Format who decided, and when: by ann on 2026-11-30."""
    return f"by {escape_unprintable(decision.author)} on {decision.time:%Y-%m-%d}"


def format_decision(decision: Decision) -> str:
    """Format a decision where its photos are known: decided to be the same by ann on 2026-11-30."""
    return f"decided {_PAIR_WORDS.get(decision.kind, '')}{format_origin(decision)}"


class Partition:
    """Disjoint sets of keys that are united one by one; a key alone is a set."""

    def __init__(self) -> None:
        """Have every key alone."""
        self._parents: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[bytes]:
        """Yield all keys that were united with another, or with themselves."""
        return iter(self._parents)

    def __contains__(self, key: bytes) -> bool:
        """Tell if a key was united with another, or with itself."""
        return key in self._parents

    def find(self, key: bytes) -> bytes:
        """Return the least key of the set of a key, which stands for all of them."""
        root = key
        while (parent := self._parents.get(root, root)) != root:
            root = parent
        while self._parents.get(key, root) != root:
            self._parents[key], key = root, self._parents[key]
        return root

    def unite(self, first: bytes, second: bytes) -> bytes:
        """Unite the sets of two keys; returns the key that stands for both."""
        low, high = sorted((self.find(first), self.find(second)))
        self._parents[high] = self._parents[low] = low
        return low


def unite_hashes(
    contents: Iterable[DecidedContent], pixel_hashes: Mapping[bytes, bytes]
) -> Partition:
    """Unite the hash and the pixel hash of each content, and the one that the store has now.

    Contents with one hash in common become one, as those whose metadata alone differs.
    `pixel_hashes` are those that the store has, by hash; a newer decoder can give another one.
    """
    hashes = Partition()
    for content in contents:
        hashes.unite(content.hash, content.pixel_hash)
        hashes.unite(content.hash, pixel_hashes.get(content.hash, content.pixel_hash))
    return hashes


class KeptImages:
    """The images that a person decided to keep; of several in one group the latest counts."""

    def __init__(self, decisions: Sequence[Decision], hashes: Partition) -> None:
        """Take those of `decisions` that keep an image; the earliest comes first."""
        self._decisions = [item for item in decisions if item.kind is DecisionKind.KEEP]
        self._hashes = hashes
        self._of_bytes, self._of_pixels = dict[bytes, int](), dict[bytes, int]()
        for order, decision in enumerate(self._decisions, 1):
            (content,) = decision.contents
            self._of_bytes[content.hash] = order
            self._of_pixels[hashes.find(content.pixel_hash)] = order

    def get_order(self, image: Image) -> int:
        """Return the number of the latest decision to keep the pixels of an image; 0 if none."""
        return self._of_pixels.get(self._hashes.find(image.pixel_hash), 0)

    def get_order_of_bytes(self, image: Image) -> int:
        """Return the number of the latest decision to keep exactly these bytes; 0 if none."""
        return self._of_bytes.get(image.hash, 0)

    def get(self, order: int) -> Decision | None:
        """Return the decision with this number; None for 0."""
        return self._decisions[order - 1] if order else None

    def describe(self, order: int, other_orders: Iterable[int]) -> str:
        """Describe the decision with this number, and those that it wins against."""
        others = sorted({other for other in other_orders if 0 < other < order}, reverse=True)
        decisive = format_decision(self._decisions[order - 1])
        earlier = [format_origin(self._decisions[other - 1]) for other in others]
        return f"{decisive}, later than another {' and '.join(earlier)}" if earlier else decisive


class Decisions:
    """All decisions of a store, ready for the questions of groups and queries.

    Images are known by their pixel hash, or by the hash of their bytes if that is decided on.
    Contradictions are refused when they are entered; should there be any, as after a change of the
    decoder, an image pair that is decided to be different stays apart, and the later one of the
    decisions that join them counts for nothing.
    """

    def __init__(
        self,
        decisions: Iterable[Decision] = (),
        pixel_hashes: Mapping[bytes, bytes] | None = None,
    ) -> None:
        """Take decisions in any order; `pixel_hashes` are those that the store has, by hash."""
        self.all = sorted(decisions, key=lambda decision: decision.order)
        self._by_id = {decision.id: decision for decision in self.all}
        contents = (content for decision in self.all for content in decision.contents)
        self._hashes = unite_hashes(contents, pixel_hashes or {})
        self.kept = KeptImages(self.all, self._hashes)
        # Of each decided image, or of all that are the same as it, by the key that stands for them:
        # the position of its content in each decision that keeps it apart.
        self._sides: dict[bytes, dict[str, int]] = defaultdict(dict)
        self._same = Partition()
        self._joined = set[bytes]()
        self._same_by_key = defaultdict[bytes, list[Decision]](list)
        self._rejections = dict[bytes, Decision]()  # the latest of each key
        for decision in self.all:
            if decision.kind is DecisionKind.DIFFERENT:
                for position, key in enumerate(self._list_keys(decision)):
                    self._sides[key].setdefault(decision.id, position)
        for decision in self.all:
            if decision.kind is DecisionKind.SAME:
                first, *others = keys = self._list_keys(decision)
                for other in others:
                    self._join(first, other)
                for key in keys:
                    self._same_by_key[key].append(decision)
            elif decision.kind is DecisionKind.REJECT:
                self._rejections[self._list_keys(decision)[0]] = decision

        # Ready for graphs with millions of edges, and no decision is about most of them.
        self._sides_by_hash = {
            hash_: sides
            for hash_ in self._hashes
            if (sides := self._sides.get(self.find_root(hash_)))
        }

    @property
    def has_pairs(self) -> bool:
        """True if any decision is about two images or more."""
        return bool(self._sides or self._joined)

    def _list_keys(self, decision: Decision) -> list[bytes]:
        return [self._hashes.find(content.hash) for content in decision.contents]

    def _join(self, first: bytes, second: bytes) -> None:
        roots = self._same.find(first), self._same.find(second)
        if roots[0] == roots[1] or self._find_side_conflict(*roots):
            return
        sides = self._sides.pop(roots[0], {}) | self._sides.pop(roots[1], {})
        root = self._same.unite(*roots)
        if sides:
            self._sides[root] = sides
        self._joined |= {first, second}

    def _find_side_conflict(self, first: bytes, second: bytes) -> str | None:
        """Return the first decision that has two roots on different sides."""
        sides, other_sides = self._sides.get(first, {}), self._sides.get(second, {})
        conflicts = (id_ for id_, side in sides.items() if other_sides.get(id_, side) != side)
        return min(conflicts, key=lambda id_: self._by_id[id_].order, default=None)

    def get_known_hash(self, content: Image | DecidedContent) -> bytes:
        """Return the hash by which decisions know an image: of its bytes, else of its pixels."""
        return content.hash if content.hash in self._hashes else content.pixel_hash

    def get_subject(self, decision: Decision) -> tuple[DecisionKind, frozenset[bytes]]:
        """Return the kind of a decision and the images that it is about, to compare with others."""
        return decision.kind, frozenset(self._list_keys(decision))

    def find_contradictions(self) -> Iterator[tuple[Decision, Decision]]:
        """Yield pairs of decisions that cannot both hold, perhaps through others."""
        kept = dict[bytes, Decision]()
        for decision in self.all:
            keys = self._list_keys(decision)
            if decision.kind is DecisionKind.KEEP:
                kept[keys[0]] = decision
            if decision.kind is DecisionKind.DIFFERENT and len(set(keys)) < len(keys):
                # Another decision has contents that make one image of two of these.
                joining = (other for other in self.all if not self._is_apart(keys, other))
                yield from ((decision, other) for other in joining if other != decision)
            if decision.kind is not DecisionKind.SAME:
                continue
            for left, right in combinations(keys, 2):
                roots = self._same.find(left), self._same.find(right)
                if id_ := self._find_side_conflict(*roots):
                    yield decision, self._by_id[id_]
        yield from ((kept[key], self._rejections[key]) for key in kept if key in self._rejections)

    def _is_apart(self, keys: Sequence[bytes], other: Decision) -> bool:
        """Tell if another decision is about none of the images that occur twice in `keys`."""
        repeated = {key for key in keys if keys.count(key) > 1}
        return repeated.isdisjoint(self._list_keys(other))

    def find_root(self, pixel_hash: bytes) -> bytes:
        """Return the key that stands for all images that are decided to be the same as this one."""
        return self._same.find(self._hashes.find(pixel_hash))

    def find_units(self, pixel_hashes: Iterable[bytes]) -> list[list[bytes]]:
        """Return the sets of two or more of these images that are decided to be the same."""
        if not self._joined:
            return []
        units = defaultdict[bytes, list[bytes]](list)
        for pixel_hash in pixel_hashes:
            if self._hashes.find(pixel_hash) in self._joined:
                units[self.find_root(pixel_hash)].append(pixel_hash)
        return [unit for unit in units.values() if len(unit) > 1]

    def get_sides(self, pixel_hash: bytes) -> Mapping[str, int]:
        """Return the position of an image in each decision that keeps it apart, by id.

        Those of all images that are decided to be the same as this one are among them.
        """
        return self._sides_by_hash.get(pixel_hash, {})

    def get(self, id_: str) -> Decision:
        """Return the decision with this id."""
        return self._by_id[id_]

    def find_on_pair(self, left: bytes, right: bytes) -> Decision | None:
        """Return the decision on two images, perhaps through others that are the same as they are.

        Where several decisions join two images, it is one that names the right one, directly
        beside the left one if there is such a decision.
        """
        left_key, right_key = self._hashes.find(left), self._hashes.find(right)
        if left_key == right_key:
            return None
        if id_ := self._find_side_conflict(self.find_root(left), self.find_root(right)):
            return self._by_id[id_]
        if self.find_root(left) != self.find_root(right):
            return None
        joining = self._same_by_key[right_key]
        direct = (decision for decision in joining if left_key in self._list_keys(decision))
        return next(direct, joining[0] if joining else None)

    def find_rejection(self, image: Image) -> Decision | None:
        """Return the latest decision to reject the bytes or the pixels of an image."""
        keys = {self._hashes.find(image.hash), self._hashes.find(image.pixel_hash)}
        found = [self._rejections[key] for key in keys if key in self._rejections]
        return max(found, key=lambda decision: decision.order, default=None)


NO_DECISIONS = Decisions()

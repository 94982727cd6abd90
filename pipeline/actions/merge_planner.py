"""Plan which fields of victims their keeper lacks, and in which sidecar of it they are added."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from indexes.paths import quote
from pipeline.actions.folders import Refused, opened_folder, split_path
from pipeline.actions.held_files import open_regular, stat_name
from pipeline.actions.plan import FieldSource, Merge, Victim
from pipeline.actions.sidecar_files import SidecarFile, read_sidecar
from pipeline.actions.xmp_extension import extend_xmp
from pipeline.decode.metadata.fields import (
    FieldName,
    Fields,
    MetadataUnreadable,
    combine_fields,
    make_comparison_key,
)
from pipeline.decode.metadata.photo_fields import (
    MAX_JSON_BYTES,
    read_photo_fields,
    read_takeout_fields,
)
from pipeline.decode.metadata.xmp import MAX_XMP_BYTES, parse_xmp
from pipeline.grouping.asset_names import JSON_SUFFIX, XMP_SUFFIX, parse_name
from pipeline.grouping.assets import AssetPart
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.scan import is_below


@dataclass(frozen=True)
class PlannedMerge:
    """A merge, if there is something to add, and victims that stay, each with the reason."""

    merge: Merge | None
    refused: dict[str, str]


@dataclass(frozen=True)
class _Offer:
    """The fields of a file of a victim; `victim` is the path of its photo."""

    victim: str
    path: str
    fields: Fields


class MergePlanner:
    """Plans the merges of a plan; remembers which XMP files its folders have."""

    def __init__(self, protected: Sequence[str]) -> None:
        """Plan no merge below the folders `protected`."""
        self._protected = protected
        self._targets = set[str]()
        # Names of sidecars, each with its photo where one has its exact name; by folder, then by
        # name in lower case.
        self._xmp_names = dict[str, dict[str, list[tuple[str | None, str]]]]()

    def plan(
        self, keeper: LibraryFile, victims: Sequence[tuple[LibraryFile, Victim]]
    ) -> PlannedMerge:
        """Plan what is added for a keeper. A victim whose fields would be lost is refused.

        Of victims with other values for a field the first one counts.
        """
        offers, refused = list[_Offer](), dict[str, str]()
        for file, victim in victims:
            path = file.path
            try:
                is_equal = victim.parts[0].blake3 == keeper.image.hash.hex()
                offers += [
                    _Offer(path, source, fields)
                    for source, fields in _iter_fields(file, file.parts, is_equal)
                    if fields
                ]
            except (Refused, MetadataUnreadable) as error:
                refused[path] = f"its metadata cannot be read: {error}"
        offers = [offer for offer in offers if offer.victim not in refused]
        if not offers:
            return PlannedMerge(None, refused)
        target = self._find_sidecar(keeper)
        try:
            own = list(_iter_fields(keeper, self._list_sidecars(keeper, target)))
        except (Refused, MetadataUnreadable) as error:
            reason = f"the metadata of its keeper cannot be read: {error}"
            return PlannedMerge(None, refused | {offer.victim: reason for offer in offers})
        added, passed_over = _choose_fields(offers, combine_fields(fields for _, fields in own))
        if not added:
            return PlannedMerge(None, refused)
        try:
            merge = self._make_merge(target, added, passed_over, own)
        except (Refused, MetadataUnreadable) as error:
            reason = f"its {{}} cannot be added to {quote(target)}: {error}"
            for offer, source in (*added, *passed_over):
                refused.setdefault(offer.victim, reason.format(source.name))
            return PlannedMerge(None, refused)
        return PlannedMerge(merge, refused)

    def _make_merge(
        self,
        target: str,
        added: Sequence[tuple[_Offer, FieldSource]],
        passed_over: Sequence[tuple[_Offer, FieldSource]],
        own: Sequence[tuple[str, Fields]],
    ) -> Merge:
        """Make a merge that was tried out. Raises Refused and MetadataUnreadable."""
        if is_below(target, self._protected):
            raise Refused("in a protected folder")
        if target in self._targets:  # names are compared without case, so it can have two
            raise Refused("it is the sidecar of another photo, too")
        before = _read_if_there(target)
        packet = parse_xmp(before.content) if before else None
        fields = [source for _, source in added]
        is_keyword_added = any(source.name is FieldName.KEYWORD for source in fields)
        if is_keyword_added and (packet is None or not packet.has(FieldName.KEYWORD)):
            # Programs read the keywords of a sidecar in place of those in the photo.
            fields = [*_list_keywords(own), *fields]
        order = list(FieldName)
        merge = Merge(
            target,
            before.part if before else None,
            tuple(sorted(fields, key=lambda source: order.index(source.name))),
            tuple(source for _, source in passed_over),
        )
        extend_xmp(before.content if before else None, merge.get_fields())
        self._targets.add(target)
        return merge

    def _find_sidecar(self, keeper: LibraryFile) -> str:
        """Find the sidecar to extend: IMG_1.jpg.xmp, else its own IMG_1.xmp, else a new first one.

        An IMG_1.xmp that is the sidecar of another photo, too, is none.
        """
        if whole := self._find_whole_name_sidecars(keeper):
            return whole[0]
        stem = parse_name(keeper.path).stem
        own = [
            part.path
            for part in keeper.parts
            if parse_name(part.path) == parse_name(stem + XMP_SUFFIX)
            and not part.is_shared
            and not part.is_missing
        ]
        return own[0] if own else keeper.path + XMP_SUFFIX

    def _find_whole_name_sidecars(self, keeper: LibraryFile) -> list[str]:
        """Find files IMG_1.jpg.xmp, in any case, on disk: an ingest may not have met one yet."""
        folder, name = split_path(keeper.path)
        if folder not in self._xmp_names:
            found = defaultdict[str, list[tuple[str | None, str]]](list)
            try:
                names = os.listdir(folder)  # noqa: PTH208 - may be no UTF-8
            except OSError:
                names = []
            present = set(names)
            for other in sorted(names):
                if parse_name(other).suffix == XMP_SUFFIX:
                    # Where names differ by case alone, it is the sidecar of one photo.
                    owner = other[: -len(XMP_SUFFIX)]
                    found[other.lower()].append((owner if owner in present else None, other))
            self._xmp_names[folder] = found
        known = self._xmp_names[folder].get((name + XMP_SUFFIX).lower(), [])
        own = [other for owner, other in known if owner in (None, name)]
        own.sort(key=lambda other: other != name + XMP_SUFFIX)
        return [f"{folder.rstrip('/')}/{other}" for other in own]

    def _list_sidecars(self, keeper: LibraryFile, target: str) -> list[str | AssetPart]:
        found = self._find_whole_name_sidecars(keeper)
        known = [part for part in keeper.parts if part.path not in found]
        first = [target] if target in found else []
        return [*first, *(path for path in found if path != target), *known]


def _iter_fields(
    file: LibraryFile, sidecars: Iterable[str | AssetPart], is_equal: bool = False
) -> Iterator[tuple[str, Fields]]:
    """Yield the fields of the sidecars of a photo and of itself, each with its path.

    What a person keeps in a sidecar is newer than what the photo has, and the JSON of Google
    Takeout knows least. With `is_equal`, the photo has the bytes of its keeper: it adds nothing.
    Raises Refused and MetadataUnreadable.
    """
    paths = [
        sidecar if isinstance(sidecar, str) else sidecar.path
        for sidecar in sidecars
        if isinstance(sidecar, str) or not sidecar.is_missing
    ]
    by_suffix = {
        suffix: [path for path in paths if parse_name(path).suffix == suffix]
        for suffix in (XMP_SUFFIX, JSON_SUFFIX)
    }
    own = [] if is_equal else [file.path]
    for path in (*by_suffix[XMP_SUFFIX], *own, *by_suffix[JSON_SUFFIX]):
        try:
            yield path, _read_fields(path, is_photo=path == file.path)
        except MetadataUnreadable as error:
            raise MetadataUnreadable(f"{quote(path)}: {error}") from error


def _read_fields(path: str, *, is_photo: bool) -> Fields:
    if not is_photo:
        if parse_name(path).suffix == XMP_SUFFIX:
            read = _read_if_there(path)
            return parse_xmp(read.content).read_fields() if read else {}
        read = _read_if_there(path, MAX_JSON_BYTES)
        return read_takeout_fields(read.content) if read else {}
    folder_path, name = split_path(path)
    with opened_folder(folder_path) as folder:
        descriptor = open_regular(folder, name, path)
    with os.fdopen(descriptor, "rb") as opened:
        return read_photo_fields(opened)


def _read_if_there(path: str, max_bytes: int = MAX_XMP_BYTES) -> SidecarFile | None:
    folder_path, name = split_path(path)
    with opened_folder(folder_path) as folder:
        if stat_name(folder, name) is None:
            return None
        return read_sidecar(folder, name, path, max_bytes)


def _choose_fields(
    offers: Sequence[_Offer], own: Fields
) -> tuple[list[tuple[_Offer, FieldSource]], list[tuple[_Offer, FieldSource]]]:
    """Choose the values that a keeper lacks, and those that an earlier victim has otherwise."""
    added, passed_over = list[tuple[_Offer, FieldSource]](), list[tuple[_Offer, FieldSource]]()
    keys, chosen = defaultdict[FieldName, set[str]](set), dict[FieldName, str]()
    for name, values in own.items():
        keys[name].update(make_comparison_key(name, value) for value in values)
    for offer in offers:
        for name, values in offer.fields.items():
            for value in values:
                key = make_comparison_key(name, value)
                item = offer, FieldSource(name, value, offer.path)
                if key in keys[name]:
                    continue
                if name is FieldName.KEYWORD or not keys[name]:
                    keys[name].add(key)
                    added.append(item)
                    chosen[name] = offer.victim
                elif chosen.get(name, offer.victim) != offer.victim:
                    passed_over.append(item)
    return added, passed_over


def _list_keywords(own: Sequence[tuple[str, Fields]]) -> list[FieldSource]:
    """List the keywords of a keeper, each once, with the file that has it."""
    sources = dict[str, FieldSource]()
    for path, fields in own:
        for keyword in fields.get(FieldName.KEYWORD, ()):
            key = make_comparison_key(FieldName.KEYWORD, keyword)
            sources.setdefault(key, FieldSource(FieldName.KEYWORD, keyword, path))
    return list(sources.values())

"""Find the assets of a folder: files that belong together, and what one has that another lacks.

The catalog has a row for every file that a scan reads, also for those without an image, so assets
need no table of their own: they follow from names, times and sizes. Files of two folders never
belong together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain

from indexes.records import FileStat, FolderFile
from pipeline.decode.live_photos import LIVE_VIDEO_SUFFIXES, parse_content_id
from pipeline.grouping.asset_names import (
    CAMERA_SUFFIXES,
    HEIC_SUFFIXES,
    JSON_SUFFIX,
    XMP_SUFFIX,
    AssetName,
    FileKind,
    get_kind,
    get_shared_stem,
    is_json_of_media,
    iter_json_stems,
    iter_owner_names,
    iter_owner_stems,
    parse_name,
)

# The film of a live photo lasts 3 s: a few MB, and 20 MB even at the 400 MB a minute of 4K at 60
# frames a second. A larger one beside a photo of its name is a film of its own.
MAX_LIVE_VIDEO_BYTES = 40_000_000


class PartRole(StrEnum):
    """The role of a part in its asset; the values are printed as they are."""

    RAW = "raw"
    VIDEO = "video"
    SIDECAR = "sidecar"


@dataclass(frozen=True, slots=True)
class AssetPart:
    """A file of an asset beside its primary one.

    `hash` is the blake3 of its bytes; None if it was not read. `is_missing` as of a file.
    `is_shared`: it belongs to another asset, too, and has to stay with that.
    """

    path: str
    stat: FileStat
    role: PartRole
    hash: bytes | None = None
    is_missing: bool = False
    is_shared: bool = False

    @property
    def bytes_to_free(self) -> int:
        """The bytes on disk that are free once the asset is gone."""
        return 0 if self.is_missing or self.is_shared else self.stat.size


@dataclass(frozen=True, slots=True)
class Asset:
    """Files that belong together: the path of the primary one, and the others, by role and path.

    The primary is the photo that is displayed, a raw photo where there is no other, or a film.
    """

    primary: str
    parts: tuple[AssetPart, ...]


@dataclass(frozen=True, slots=True)
class FolderAssets:
    """The assets of a folder that have more than one file, by the path of their primary.

    `orphans` are the halves of assets: sidecars and films of live photos whose photo is not there.
    """

    assets: tuple[Asset, ...] = ()
    orphans: tuple[FolderFile, ...] = ()


@dataclass(slots=True)
class _Owner:
    """A photo or film, and what was found to belong to it."""

    file: FolderFile
    name: AssetName
    kind: FileKind
    parts: list[tuple[FolderFile, PartRole]] = field(default_factory=list)

    @property
    def takes_parts(self) -> bool:
        """True if it can have a raw file, or the film of a live photo."""
        return self.kind is FileKind.PHOTO and self.name.suffix in CAMERA_SUFFIXES


def find_assets(files: Iterable[FolderFile]) -> FolderAssets:
    """Find the assets among the files of one folder; their order does not matter.

    Names are compared without case. Each file is in one asset at most, but for an XMP file of the
    stem that several have.
    """
    named = [(file, parse_name(file.path)) for file in sorted(files, key=lambda file: file.path)]
    by_kind = defaultdict[FileKind, list[tuple[FolderFile, AssetName]]](list)
    for file, name in named:
        by_kind[get_kind(name, has_image=file.hash is not None)].append((file, name))
    owners = _find_owners(by_kind)
    has_json = any(name.suffix == JSON_SUFFIX for _, name in by_kind[FileKind.SIDECAR])
    sidecars = _Sidecars(owners if by_kind[FileKind.SIDECAR] else (), has_json=has_json)
    other_stems = {name.stem for _, name in by_kind[FileKind.OTHER]}
    owned = {file.path for owner in owners for file, _ in owner.parts}
    orphans = [
        file
        for file, _ in by_kind[FileKind.VIDEO]
        if parse_content_id(file.detail) is not None and file.path not in owned
    ]
    for file, name in by_kind[FileKind.SIDECAR]:
        own = sidecars.find_owners(name)
        for owner in own:
            owner.parts.append((file, PartRole.SIDECAR))
        is_sidecar = name.suffix != JSON_SUFFIX or is_json_of_media(name)
        if not own and is_sidecar and name.stem not in other_stems:
            orphans.append(file)
    return FolderAssets(_make_assets(owners), tuple(sorted(orphans, key=lambda file: file.path)))


def _find_owners(
    by_kind: dict[FileKind, list[tuple[FolderFile, AssetName]]],
) -> list[_Owner]:
    """Find the photos and films that are no part of another; of one stem, the best first.

    A raw file and the film of a live photo are parts of a photo where one takes them.
    """
    owners = defaultdict[str, list[_Owner]](list)
    photos = sorted(by_kind[FileKind.PHOTO], key=_make_photo_rank_key)
    raws = sorted(by_kind[FileKind.RAW], key=_make_photo_rank_key)
    for file, name in photos:
        owners[get_shared_stem(name)].append(_Owner(file, name, FileKind.PHOTO))
    for file, name in raws:
        of_stem = owners[get_shared_stem(name)]
        takers = (owner for owner in of_stem if owner.takes_parts or owner.kind is FileKind.RAW)
        taker = next((owner for owner in takers if _can_show(owner.file, file)), None)
        if taker:
            taker.parts.append((file, PartRole.RAW))
        else:
            of_stem.append(_Owner(file, name, FileKind.RAW))
    by_content_id = dict[str, _Owner]()
    for owner in chain.from_iterable(owners.values()):
        if owner.takes_parts and owner.file.content_id is not None:
            by_content_id.setdefault(owner.file.content_id, owner)
    for file, name in by_kind[FileKind.VIDEO]:
        of_stem = owners[get_shared_stem(name)]
        taker = None
        if name.suffix in LIVE_VIDEO_SUFFIXES:
            photos_of_stem = [owner for owner in of_stem if owner.takes_parts]
            taker = _find_live_photo(file, photos_of_stem, by_content_id)
        if taker:
            taker.parts.append((file, PartRole.VIDEO))
        else:
            of_stem.append(_Owner(file, name, FileKind.VIDEO))
    return list(chain.from_iterable(owners.values()))


def _find_live_photo(
    film: FolderFile, of_stem: Sequence[_Owner], by_content_id: Mapping[str, _Owner]
) -> _Owner | None:
    """Find the photo that a film belongs to: by its content identifier, else by its stem.

    The photos of its stem, the best first, and one of each identifier in the folder.
    """
    content_id = parse_content_id(film.detail)
    if content_id is None:
        return of_stem[0] if of_stem and film.stat.size <= MAX_LIVE_VIDEO_BYTES else None
    # Programs that write a photo again drop its identifier.
    without = (owner for owner in of_stem if owner.file.content_id is None)
    same = (owner for owner in of_stem if owner.file.content_id == content_id)
    return next(same, None) or by_content_id.get(content_id) or next(without, None)


def _make_photo_rank_key(item: tuple[FolderFile, AssetName]) -> tuple[bool, bool, bool, str]:
    """Rank the photos of one stem: one that was read first, then a HEIC, then a native raw file."""
    file, name = item
    return file.hash is None, name.suffix not in HEIC_SUFFIXES, name.suffix == ".dng", file.path


def _can_show(photo: FolderFile, raw: FolderFile) -> bool:
    """Tell if a photo can stand for a raw file of its stem.

    It was read, or neither was; and they were not taken at two times, as far as metadata says: the
    counter of a camera starts again after 9,999 photos.
    """
    is_one_time = None in (photo.taken_at, raw.taken_at) or photo.taken_at == raw.taken_at
    return is_one_time and (photo.hash is not None or raw.hash is None)


class _Sidecars:
    """The owners of the sidecars of a folder."""

    def __init__(self, owners: Iterable[_Owner], *, has_json: bool) -> None:
        # Dictionaries of owners: each once, the best first.
        self._by_stem = defaultdict[str, dict[int, _Owner]](dict)
        self._by_whole_name = defaultdict[str, dict[int, _Owner]](dict)
        self._by_json_stem = defaultdict[str, dict[int, _Owner]](dict)
        for number, owner in enumerate(owners):
            for name in (owner.name, *(parse_name(file.path) for file, _ in owner.parts)):
                self._by_stem[name.stem][number] = owner
                self._by_whole_name[name.whole][number] = owner
                for stem in iter_json_stems(name) if has_json else ():
                    self._by_json_stem[stem][number] = owner

    def find_owners(self, name: AssetName) -> Sequence[_Owner]:
        """Find what a sidecar belongs to; several only of an XMP file."""
        if name.suffix == JSON_SUFFIX:
            found = list(self._by_json_stem.get(name.stem, {}).values())
            # Of two long names that begin alike, nothing tells which one it is.
            return found if len(found) == 1 else ()
        for whole_name in iter_owner_names(name):
            if found := list(self._by_whole_name.get(whole_name, {}).values()):
                return found[:1]
        for stem in iter_owner_stems(name):
            if found := list(self._by_stem.get(stem, {}).values()):
                return found if name.suffix == XMP_SUFFIX else found[:1]
        return ()


def _make_assets(owners: Sequence[_Owner]) -> tuple[Asset, ...]:
    owner_counts = Counter(file.path for owner in owners for file, _ in owner.parts)
    roles = list(PartRole)
    assets = []
    for owner in owners:
        parts = sorted(owner.parts, key=lambda part: (roles.index(part[1]), part[0].path))
        made = (
            AssetPart(
                file.path, file.stat, role, file.hash, file.is_missing, owner_counts[file.path] > 1
            )
            for file, role in parts
        )
        if owner.parts:
            assets.append(Asset(owner.file.path, tuple(made)))
    return tuple(sorted(assets, key=lambda asset: asset.primary))


def are_of_equal_size(first: AssetPart, second: AssetPart) -> bool:
    """Tell if two parts have equal content, as far as a catalog knows: its hash, else its size."""
    if first.hash is not None and second.hash is not None:
        return first.hash == second.hash
    return first.stat.size == second.stat.size


def find_without_counterpart(
    parts: Iterable[AssetPart],
    others: Iterable[AssetPart],
    have_equal_content: Callable[[AssetPart, AssetPart], bool] = are_of_equal_size,
) -> tuple[AssetPart, ...]:
    """Find the parts of an asset that have no counterpart among the parts of another.

    A counterpart is there, has the role, of a sidecar the suffix too, and equal content. Each
    stands for one part. A shared part needs none: it stays where it is.
    """
    free = [other for other in others if not other.is_missing]
    without = []
    for part in parts:
        if part.is_shared:
            continue
        for other in free:
            if _are_alike(part, other) and have_equal_content(part, other):
                free.remove(other)
                break
        else:
            without.append(part)
    return tuple(without)


def _are_alike(first: AssetPart, second: AssetPart) -> bool:
    if first.role is not second.role:
        return False
    suffixes = parse_name(first.path).suffix, parse_name(second.path).suffix
    return first.role is not PartRole.SIDECAR or suffixes[0] == suffixes[1]

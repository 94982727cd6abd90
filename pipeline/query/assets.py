"""The assets of a library: which files in the folders of photos belong to them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from indexes.records import FolderFile
from indexes.store import Store
from pipeline.decode.formats import RAW_SUFFIXES, has_raw_suffix
from pipeline.grouping.asset_names import THM_SUFFIX
from pipeline.grouping.assets import (
    AssetPart,
    FolderAssets,
    PartRole,
    are_of_equal_size,
    find_assets,
    find_without_counterpart,
)
from pipeline.grouping.cluster import Group
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.grouping.match import Match
from pipeline.verify.relation import Relation

MAX_WHOLE_BYTES = 1 << 20  # of a part that is compared whole
# Of a larger one samples are compared, evenly spread from its start to its end: reading raw files
# and films whole would take minutes per answer. Before a file is acted on, all of it is hashed.
SAMPLE_BYTES = 1 << 16
SAMPLE_COUNT = 5


class LibraryAssets:
    """The assets of a library, found folder by folder when they are asked for."""

    def __init__(self, store: Store, folders: Collection[str] | None = None) -> None:
        """Use the catalog of `store`, which has to stay open.

        Only photos in `folders` have assets, see find_asset_folders(); None stands for any folder,
        which is faster for the few photos of a query.
        """
        self._store, self._folders = store, folders
        self._parts_by_primary = dict[str, tuple[AssetPart, ...]]()
        self._primary_by_part = dict[str, str | None]()  # None for an orphan
        self._owners_by_part = defaultdict[str, list[str]](list)
        self._loaded_folders = set[str]()

    def get_parts(self, path: str) -> tuple[AssetPart, ...]:
        """Get the parts of the asset whose primary is at a path; none if there is no such asset."""
        self._load(_get_folder(path))
        return self._parts_by_primary.get(path, ())

    def is_part(self, path: str) -> bool:
        """Tell if a file is a part of an asset, or what is left of one: no photo of its own."""
        self._load(_get_folder(path))
        return path in self._primary_by_part

    def get_primary(self, path: str) -> str:
        """Get the path of the primary of the asset that a file belongs to, or its own."""
        self._load(_get_folder(path))
        return self._primary_by_part.get(path) or path

    def get_owners(self, path: str) -> Sequence[str]:
        """Get the paths of the primaries of all assets that a part belongs to."""
        self._load(_get_folder(path))
        return self._owners_by_part.get(path, ())

    def add_parts(self, file: LibraryFile) -> LibraryFile:
        """Return a file of the library with the other parts of its asset."""
        parts = self.get_parts(file.path)
        return replace(file, parts=parts) if parts else file

    def _load(self, folder: str) -> None:
        if folder in self._loaded_folders:
            return
        self._loaded_folders.add(folder)
        if self._folders is not None and folder not in self._folders:
            return
        found = _find_in_folder(self._store, folder)
        self._primary_by_part.update((orphan.path, None) for orphan in found.orphans)
        for asset in found.assets:
            self._parts_by_primary[asset.primary] = asset.parts
            self._primary_by_part.update((part.path, asset.primary) for part in asset.parts)
            for part in asset.parts:
                self._owners_by_part[part.path].append(asset.primary)


def find_asset_folders(store: Store) -> frozenset[str]:
    """Find the folders that can have assets: they have a file that is no photo, or a raw photo."""
    suffixes = {*RAW_SUFFIXES, THM_SUFFIX}
    return frozenset(map(_get_folder, store.catalog.files.list_without_image_or_ending(suffixes)))


def find_orphans(store: Store) -> list[FolderFile]:
    """Find all sidecars and films of live photos whose photo is not there, by path."""
    found = (_find_in_folder(store, folder).orphans for folder in find_asset_folders(store))
    return sorted((file for files in found for file in files), key=lambda file: file.path)


def _find_in_folder(store: Store, folder: str) -> FolderAssets:
    return find_assets(store.catalog.files.find_in_folder(folder))


def _get_folder(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def select_primary_files(
    files_by_image: Mapping[bytes, Sequence[LibraryFile]], assets: LibraryAssets
) -> dict[bytes, list[LibraryFile]]:
    """Select the files that are no parts of assets, with their parts; images without one go."""
    selected = defaultdict[bytes, list[LibraryFile]](list)
    for image, files in files_by_image.items():
        for file in files:
            if not assets.is_part(file.path):
                selected[image].append(assets.add_parts(file))
    return dict(selected)


def mark_without_counterpart(
    group: Group, have_equal_content: Callable[[AssetPart, AssetPart], bool] = are_of_equal_size
) -> Group:
    """Return a group whose members say which of their parts the asset of the keeper lacks."""
    others = _list_parts(group.keeper)
    members = []
    for member in group.members:
        # A raw photo holds more than the pixels that were compared.
        is_equal = member.relation == Relation.IDENTICAL_BYTES
        parts = member.file.parts if is_equal else _list_parts(member.file)
        without = find_without_counterpart(parts, others, have_equal_content) if parts else ()
        paths = tuple(part.path for part in without)
        members.append(replace(member, without_counterpart=paths) if paths else member)
    return replace(group, members=tuple(members))


def _list_parts(file: LibraryFile) -> list[AssetPart]:
    """List the parts of the asset of a file, with the file itself if it is a raw photo."""
    if not has_raw_suffix(file.path):
        return list(file.parts)
    own = AssetPart(file.path, file.stat, PartRole.RAW, file.image.hash, not file.is_present)
    return [own, *file.parts]


def have_equal_bytes(part: AssetPart, kept: AssetPart) -> bool:
    """Tell if a part that is kept has the content of another one, and is there as it was ingested.

    Where the catalog does not have both hashes, parts of equal size are compared as they are on
    disk: small ones whole, because a rating changes no size; others by samples, because the raw
    files of some cameras all have one size. False for a part that cannot be read now.
    """
    if not are_of_equal_size(part, kept) or not _is_as_ingested(kept):
        return False
    if part.hash is not None and kept.hash is not None:
        return True
    contents = [_read(path, part.stat.size) for path in (part.path, kept.path)]
    return contents[0] is not None and contents[0] == contents[1]


def _is_as_ingested(part: AssetPart) -> bool:
    try:
        status = os.stat(part.path)  # noqa: PTH116 - the path may not be valid UTF-8
    except (OSError, ValueError):
        return False
    return (status.st_size, status.st_mtime_ns) == (part.stat.size, part.stat.mtime_ns)


def _read(path: str, size: int) -> list[bytes] | None:
    """Read a file of `size` bytes, or samples of a large one; None if that fails."""
    positions, length = [0], size + 1
    if size > MAX_WHOLE_BYTES:
        length = SAMPLE_BYTES
        step = (size - SAMPLE_BYTES) // (SAMPLE_COUNT - 1)
        positions = [number * step for number in range(SAMPLE_COUNT)]
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - the path may not be valid UTF-8
            return [os.pread(file.fileno(), length, position) for position in positions]
    except (OSError, ValueError):
        return None


def merge_assets(
    matches: Iterable[Match], queried_path: str, assets: LibraryAssets
) -> tuple[Match, ...]:
    """Return matches without those of one asset with the queried file, or with another match.

    The primary of an asset stays, with its parts; a part stays if its primary is no match.
    """
    matches = list(matches)
    if not matches:
        return ()
    own = assets.get_primary(queried_path)
    paths = {match.file.path for match in matches}
    kept = []
    for match in matches:
        primary = assets.get_primary(match.file.path)
        if primary != own and (primary == match.file.path or primary not in paths):
            kept.append(replace(match, file=assets.add_parts(match.file)))
    return tuple(kept)

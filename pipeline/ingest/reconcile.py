"""Files in the catalog that a scan did not see: moved, deleted, left out, or away with a drive."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from indexes.paths import quote
from indexes.records import CatalogFile, Root
from indexes.store import Store
from pipeline.ingest.progress import IngestContext
from pipeline.scan import is_below

# Share of the files of a root: if more vanish at once, its drive is more likely to be
# disconnected than they are to be deleted.
MAX_VANISHED_SHARE = 0.2
# This many files may always vanish from a root that keeps others: a person deleted them.
MAX_VANISHED_FILES = 5


@dataclass
class RootDiff:
    """The files of a root that a scan did not see, of `file_count` in the catalog.

    `vanished` files do not exist any more; `left_out` are ids of files that exist and are excluded
    or hidden now.
    """

    root: Root
    file_count: int = 0
    vanished: list[CatalogFile] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)

    def find_missing(self, moved_file_ids: Collection[int]) -> list[CatalogFile]:
        """Return the vanished files to keep in the answers: their drive may be disconnected.

        Files that were moved do not count as lost. Returns none if few files were lost, which is
        taken as a deletion.
        """
        lost = [file for file in self.vanished if file.id not in moved_file_ids]
        is_root_empty = len(self.vanished) == self.file_count
        max_deleted = max(MAX_VANISHED_FILES, MAX_VANISHED_SHARE * self.file_count)
        return lost if is_root_empty or len(lost) > max_deleted else []


def diff_root(
    store: Store,
    root: Root,
    known_roots: Sequence[Root],
    seen_file_ids: Collection[int],
    unreadable_paths: Sequence[str],
) -> RootDiff:
    """Compare the files of `root` in the catalog with the ids of the files seen.

    Files below unreadable paths are in neither list: they may exist.
    """
    diff = RootDiff(root)
    for file in iter_files_of_root(store, root, known_roots):
        diff.file_count += 1
        if file.id in seen_file_ids or is_below(file.path, unreadable_paths):
            continue
        try:
            # Links are followed, for their target may be away.
            os.stat(file.path)  # noqa: PTH116 - the path may not be UTF-8
        except (FileNotFoundError, NotADirectoryError):
            diff.vanished.append(file)
        except OSError:
            continue  # whether it exists cannot be known now
        else:
            diff.left_out.append(file.id)
    return diff


def apply_diff(
    store: Store,
    diff: RootDiff,
    moved_file_ids: Collection[int],
    context: IngestContext,
) -> None:
    """Remove vanished and left-out files from the catalog; mark those that may only be away."""
    coverage = context.coverage
    missing = [] if context.options.accept_missing else diff.find_missing(moved_file_ids)
    missing_ids = {file.id for file in missing}
    if missing_ids:
        store.mark_missing(missing_ids)
        coverage.missing += len(missing_ids)
        coverage.new_problems += context.earlier.count_new(missing)
        coverage.warnings.append(
            f"{len(missing_ids)} of {diff.file_count} files below {quote(diff.root.path)} are"
            " missing; is a drive disconnected? They stay in the answers, marked as missing."
            " If you deleted them, run again with --accept-missing"
        )
    gone = [
        file.id
        for file in diff.vanished
        if file.id not in missing_ids and file.id not in moved_file_ids
    ]
    coverage.gone += len(gone)
    coverage.left_out += len(diff.left_out)
    store.remove_files(gone + diff.left_out)


def apply_absent_root(
    store: Store,
    root: Root,
    known_roots: Sequence[Root],
    context: IngestContext,
) -> None:
    """Mark the files of an absent root as missing, or remove the root if the options name it."""
    coverage, earlier = context.coverage, context.earlier
    files = list(iter_files_of_root(store, root, known_roots))
    file_ids = [file.id for file in files]
    if root.path in context.options.roots_to_remove:
        store.remove_files(file_ids)
        store.remove_root(root.path)
        coverage.gone += len(file_ids)
    else:
        store.mark_missing(file_ids)
        coverage.missing += len(file_ids)
        coverage.absent_roots.append(root.path)
        # The run before may have been one of other roots; then the files tell.
        is_known = root.path in earlier.absent_roots or (files and earlier.are_known)
        coverage.new_problems += earlier.count_new(files) if is_known else max(1, len(files))


def iter_files_of_root(
    store: Store, root: Root, known_roots: Sequence[Root]
) -> Iterator[CatalogFile]:
    """Yield the catalog's files below `root` that are not below another root inside it."""
    inner_roots = [known.path for known in known_roots if is_below(known.path, [root.path])]
    for file in store.catalog.files.find_under(root.path):
        if not is_below(file.path, inner_roots):
            yield file

"""Known files that a scan did not meet: moved, deleted, left out on purpose, or only away with their drive."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from indexes.records import CatalogFile, Root
from indexes.store import Store
from pipeline.scan import is_below

MAX_VANISHED_SHARE = 0.2  # of a root's files: when more than this vanish at once, a drive is likelier to be away than they to be deleted
MAX_VANISHED_FILES = 5  # this many may always vanish while others stay: a person tidied up


@dataclass
class RootDiff:
    """What a root does not hold any more, of `held` files that it held: those that vanished, and those that are there but left out now."""

    root: Root
    file_count: int = 0
    vanished: list[CatalogFile] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)

    def find_missing(self, moved_file_ids: Collection[int]) -> list[CatalogFile]:
        """Vanished files, less those that `moved` elsewhere, that must stay in the answers, because their drive may only be away."""
        lost = [known for known in self.vanished if known.id not in moved_file_ids]
        nothing_left = len(self.vanished) == self.file_count
        return (
            lost
            if nothing_left
            or len(lost) > max(MAX_VANISHED_FILES, MAX_VANISHED_SHARE * self.file_count)
            else []
        )


def diff_root(
    store: Store,
    root: Root,
    known_roots: Sequence[Root],
    seen_file_ids: Collection[int],
    unreadable_paths: Sequence[str],
) -> RootDiff:
    """Compare what the store holds of `root` with the ids of files that were `seen`; folders that could not be listed prove nothing."""
    loss = RootDiff(root)
    for known in files_under(store, root, known_roots):
        loss.file_count += 1
        if known.id in seen_file_ids or is_below(known.path, unreadable_paths):
            continue
        try:
            os.stat(known.path)  # noqa: PTH116 - a path that may be no UTF-8; links are followed, for their target may be away
        except (FileNotFoundError, NotADirectoryError):
            loss.vanished.append(known)
        except OSError:
            continue  # cannot be looked at now
        else:
            loss.left_out.append(known.id)
    return loss


def files_under(store: Store, root: Root, known_roots: Sequence[Root]) -> Iterator[CatalogFile]:
    """Files below `root` that are not below another remembered root inside it."""
    inside = [other.path for other in known_roots if is_below(other.path, [root.path])]
    return (
        known
        for known in store.catalog.files.find_under(root.path)
        if not is_below(known.path, inside)
    )

"""Known files that a scan did not meet: moved, deleted, left out on purpose, or only away with their drive."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from indexes import Known, Root, Store
from pipeline.scan import is_below

SHARE = 0.2  # of a root's files: when more than this vanish at once, a drive is likelier to be away than they to be deleted
FEW = 5  # this many may always vanish while others stay: a person tidied up


@dataclass
class Loss:
    """What a root does not hold any more, of `held` files that it held: those that vanished, and those that are there but left out now."""

    root: Root
    held: int = 0
    vanished: list[Known] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)

    def away(self, moved: Collection[int]) -> list[Known]:
        """Vanished files, less those that `moved` elsewhere, that must stay in the answers, because their drive may only be away."""
        lost = [known for known in self.vanished if known.id not in moved]
        nothing_left = len(self.vanished) == self.held
        return lost if nothing_left or len(lost) > max(FEW, SHARE * self.held) else []


def find_loss(store: Store, root: Root, remembered: Sequence[Root], seen: Collection[int], unreadable: Sequence[str]) -> Loss:
    """Compare what the store holds of `root` with the ids of files that were `seen`; folders that could not be listed prove nothing."""
    loss = Loss(root)
    for known in held_by(store, root, remembered):
        loss.held += 1
        if known.id in seen or is_below(known.path, unreadable):
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


def held_by(store: Store, root: Root, remembered: Sequence[Root]) -> Iterator[Known]:
    """Files below `root` that are not below another remembered root inside it."""
    inside = [other.path for other in remembered if is_below(other.path, [root.path])]
    return (known for known in store.catalog.known_under(root.path) if not is_below(known.path, inside))

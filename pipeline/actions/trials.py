"""Try which files of a group can go for a keeper, and find those that may go for another one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.actions.plan import Part, Victim
from pipeline.grouping.cluster import Group
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.grouping.match import Match
from pipeline.verify.relation import Relation


@dataclass
class Trial:
    """A keeper, and which of its matches can go for it: victims, or reasons against it, by path.

    `kept` is None if the keeper cannot be one.
    """

    keeper: LibraryFile
    matches: Sequence[Match]
    reason: str
    kept: Part | None = None
    victims: dict[str, Victim] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def give_to(self, other: Trial) -> list[Trial]:
        """Give files to a trial with another keeper, if one can go there that cannot go here.

        Returns that trial, or nothing. What it refuses stays here.
        """
        for path, reason in other.refused.items():
            self.refused.setdefault(path, reason)
        if other.victims.keys() <= self.victims.keys():
            return []
        for path in (other.keeper.path, *other.victims):
            self.victims.pop(path, None)
        return [other]


def list_equal_files(group: Group, trial: Trial) -> list[list[LibraryFile]]:
    """List files with the bytes of each other, where not all of them can go for the keeper.

    Of those with the bytes of the keeper itself, only the ones that cannot go.
    """
    by_hash = defaultdict[bytes, list[LibraryFile]](list)
    for path, match in list_members(group, trial.keeper).items():
        hash_ = match.file.image.hash
        if path not in trial.victims or hash_ != trial.keeper.image.hash:
            by_hash[hash_].append(match.file)
    return [
        files
        for files in by_hash.values()
        if len(files) > 1 and not trial.victims.keys() >= {file.path for file in files}
    ]


def list_members(group: Group, keeper: LibraryFile) -> dict[str, Match]:
    """List the files of a group by path, but for the one that is kept, which may be a member."""
    first = Match(group.keeper, Relation.IDENTICAL_BYTES, 1.0)
    matches = {match.file.path: match for match in (first, *group.members)}
    del matches[keeper.path]
    return matches

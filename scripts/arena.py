"""The arena: sets of pictures from many sources with the truth about them, and pairs of these.

ARENA is a folder of sets. `sets.csv` gives each set its role, `fit` or `check`; `truth.csv` of a
set gives each file its group (files of one group are copies of one photo), its kind and its scene.
Constants and models are fitted on `fit` sets; of `check` sets only totals are read.
"""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, pairwise
from pathlib import Path

MAX_COPY_PAIRS_PER_GROUP = 60
MAX_SCENE_PAIRS_PER_SET = 400  # beside neighbors, which are all listed
MAX_SAME_EDIT_PAIRS_PER_SET = 100  # the same edit of two photos
MAX_STRANGER_PAIRS_PER_SET = 60


class Role(StrEnum):
    """The use of a set."""

    FIT = "fit"
    CHECK = "check"


class Truth(StrEnum):
    """The relation of two pictures, as their source knows it."""

    COPY = "copy"
    NEIGHBOR = "neighbor"  # another shot: the next frame, or another exposure of a bracket
    SHOT = "shot"  # of one scene, not next to each other
    TEMPLATE = "template"  # other content in the same surroundings
    STRANGER = "stranger"


@dataclass(frozen=True, slots=True)
class Picture:
    """A file of a set; files of one `group` are copies of one photo. `scene` is "" if unknown."""

    path: Path
    set_name: str
    group: str
    kind: str
    scene: str

    @property
    def is_edited(self) -> bool:
        """Tell if the picture is a copy that was made by one edit."""
        return self.kind not in ("original", "burst", "template", "other", "re-exported")


@dataclass(frozen=True, slots=True)
class TruePair:
    """Two pictures and the truth about them; `kind` says how a copy was made, else ""."""

    first: Picture
    second: Picture
    truth: Truth
    kind: str = ""


def list_sets(arena: Path, role: Role | None = None) -> list[str]:
    """List the names of the sets with a role; of all sets without one."""
    with (arena / "sets.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    return [row["set"] for row in rows if role is None or row["role"] == role]


def read_pictures(arena: Path, set_name: str) -> list[Picture]:
    """Read the pictures of a set, in the order of their names."""
    with (arena / set_name / "truth.csv").open() as lines:
        rows = sorted(csv.DictReader(lines), key=lambda row: row["file"])
    return [
        Picture(
            arena / set_name / row["file"],
            set_name,
            row["group"],
            row["kind"].removeprefix("copy:"),
            row["scene"] or "",
        )
        for row in rows
    ]


def list_pairs(pictures: Sequence[Picture]) -> list[TruePair]:
    """List the pairs of a set whose truth is known: copies, pictures that are alike, strangers.

    Each copy is paired with its original; without one, all copies of a photo are paired. Pictures
    are alike if they are of one scene, or the same edit of two photos. Drawn with a fixed seed.
    """
    rng = random.Random(len(pictures))
    return [
        *_list_copies(pictures, rng),
        *_list_alike(pictures, rng),
        *_draw_strangers(pictures, rng),
    ]


def _group_by(pictures: Iterable[Picture], field: str) -> dict[str, list[Picture]]:
    grouped = defaultdict[str, list[Picture]](list)
    for picture in pictures:
        grouped[getattr(picture, field)].append(picture)
    return grouped


def _list_copies(pictures: Sequence[Picture], rng: random.Random) -> Iterator[TruePair]:
    for members in _group_by(pictures, "group").values():
        originals = [picture for picture in members if picture.kind == "original"]
        if originals:
            pairs = [(originals[0], copy) for copy in members if copy is not originals[0]]
        else:
            pairs = list(combinations(members, 2))
        truths = [TruePair(first, second, Truth.COPY, second.kind) for first, second in pairs]
        yield from _draw(truths, MAX_COPY_PAIRS_PER_GROUP, rng)


def _list_alike(pictures: Sequence[Picture], rng: random.Random) -> Iterator[TruePair]:
    by_scene = _group_by((picture for picture in pictures if picture.scene), "scene")
    others = list[TruePair]()
    for scene in by_scene.values():
        series = [picture for picture in scene if picture.kind == "burst"]
        neighbors = set(pairwise(series))
        for first, second in combinations(scene, 2):
            if first.group == second.group:
                continue
            if (first, second) in neighbors:
                yield TruePair(first, second, Truth.NEIGHBOR)
            else:
                others.append(TruePair(first, second, Truth.SHOT if series else Truth.TEMPLATE))
    yield from _draw(others, MAX_SCENE_PAIRS_PER_SET, rng)
    edited = _group_by((picture for picture in pictures if picture.is_edited), "kind")
    same_edit = [
        TruePair(first, second, Truth.TEMPLATE)
        for copies in edited.values()
        for first, second in combinations(copies, 2)
        if first.group != second.group
        and not (first.scene and first.scene == second.scene)  # is listed already
    ]
    yield from _draw(same_edit, MAX_SAME_EDIT_PAIRS_PER_SET, rng)


def _draw(pairs: list[TruePair], most: int, rng: random.Random) -> list[TruePair]:
    return rng.sample(pairs, most) if len(pairs) > most else pairs


def _draw_strangers(pictures: Sequence[Picture], rng: random.Random) -> list[TruePair]:
    strangers = [
        TruePair(first, second, Truth.STRANGER)
        for first, second in combinations(pictures, 2)
        if first.group != second.group
        and not (first.scene and first.scene == second.scene)
        and not (first.is_edited and first.kind == second.kind)
    ]
    return _draw(strangers, MAX_STRANGER_PAIRS_PER_SET, rng)

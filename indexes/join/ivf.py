"""Almost every pair of a large library at or above a threshold, at a cost well below its square, and how many it finds.

k-means parts the space into lists. Each vector lives in the list of its nearest centre and visits the lists of the next few; two vectors
meet when one lives where the other lives or visits. Where a border runs is chance, so the space is parted several times over: what one
partition separates far, another does not. How many lists must be visited is asked of pairs that exact search finds for a sample of rows:
as many as the one that needs most. Of all pairs, at least 0.05 ** (1 / n) need no more than the largest of n independent draws, with 95 %
confidence and whatever their distribution is (Wilks, "Determination of sample sizes for setting tolerance limits", 1941).
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from indexes.catalog.pairs import Frontier, Ids
from indexes.join.exact import BLOCK, TILE, Prefix, Recall, Shelf, Step, decided, proposed
from indexes.vectors import segments
from indexes.vectors.segments import Scored, joined

# Measured on 200,000 isotropic vectors at .75, for a recall of .9995 with 2,048 lists: one partition needs 132 visits, two need 17 each,
# three 8, four 5; on CLIP-like ones at .90: 12, 8, 6, 4.
PARTITIONS = 3
SAMPLED = 3000  # pairs that choose how many lists are visited: 0.05 ** (1 / 3000) is .999
MOST_SAMPLED = 0.25  # share of the rows that are asked for their pairs at most
SLACK = 1.5  # lists visited, beside what the sample needs, where it is too small to show that
TRAINED, ROUNDS = 48, 5  # rows for each centre, and rounds, of k-means: its cost stays below that of placing the rows
ASKED = 1 << 11  # rows that are asked for their pairs at a time
GROUP = 64  # lists whose visitors are looked up at a time
BUDGET = 1 << 29  # bytes of prefixes that are made once; those of larger libraries are made for each list


def lists_for(rows: int) -> int:
    """How many lists are made: about 2 sqrt(rows), where placing a row costs about as much as comparing it."""
    return 1 << max(2, round(math.log2(2 * math.sqrt(max(rows, 1)))))


def pairs(shelf: Shelf, frontier: Frontier, prefix: Prefix, *, threads: int | None = None) -> Iterator[Step]:
    """Pairs of vectors with score >= frontier.floor of which one is beyond frontier.through, each once, as ids, left < right.

    The last step has the recall, and the frontier of a join that is done; one that is stopped before begins anew.
    """
    work = _Work(shelf, frontier, prefix)
    rng = np.random.default_rng(1)
    count = min(lists_for(len(shelf.ids)), len(shelf.ids))
    middles = [_centres(shelf, count, rng) for _ in range(PARTITIONS)]
    with ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="join") as pool:
        asking = _Sample(work, middles, rng, pool)
        for share in asking.until(SAMPLED):
            yield Step(frontier, _nothing(), int(500 * share), 1000)
        judges = len(asking.judges)
        slack = 1.0 if judges >= SAMPLED else SLACK
        visited = min(count, math.ceil(slack * int(asking.judges.max(initial=1))))
        recall = Recall(judges, judges, count, visited)
        missed = asking.needed > visited
        parts = [Scored(asking.left[missed], asking.right[missed], asking.score[missed])]
        yield Step(frontier, joined(parts), 500, 1000)  # they are pairs all the same
        visits: list[Visits] = []
        for number, part in enumerate(middles):
            visits.append(work.visits(part, visited))
            for done, found in _met(work, visits, count, pool):
                yield Step(frontier, found, 500 + 500 * (number * count + done) // (PARTITIONS * count), 1000)
    through = int(shelf.ids[-1])
    reached = replace(frontier, through=through, until=0, earlier=0, recall=min(frontier.recall, recall.at_least))
    yield Step(reached, _nothing(), 1000, 1000, recall)


def _centres(shelf: Shelf, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    rows = np.sort(rng.permutation(len(shelf.ids))[: TRAINED * count])
    return segments.centres(Prefix(None).of(shelf.take(rows)), count, ROUNDS)


def _nothing() -> Scored:
    return joined([])


Visits = NDArray[np.integer[Any]]  # (rows, lists): where each row lives, then where it visits


class _Work:
    """What is compared: the rows of a shelf by their prefixes, made once where memory allows."""

    def __init__(self, shelf: Shelf, frontier: Frontier, prefix: Prefix) -> None:
        self.shelf, self.floor, self.prefix = shelf, frontier.floor, prefix
        self.old = shelf.up_to(frontier.through)
        rows = len(shelf.ids)
        width = prefix.width(shelf.stretch(0, 1).shape[1])
        self._made: NDArray[np.float32] | None = None
        if rows * width * 4 <= BUDGET:
            self._made = np.empty((rows, width), np.float32)
            for start in range(0, rows, BLOCK):
                self._made[start : start + BLOCK] = prefix.of(shelf.stretch(start, min(start + BLOCK, rows)))
        self._space = threading.local()

    def rows(self, which: Ids) -> NDArray[np.float32]:
        """The prefixes of some rows."""
        return self.prefix.of(self.shelf.take(which)) if self._made is None else self._made[which]

    def stretch(self, start: int, stop: int) -> NDArray[np.float32]:
        """The prefixes of rows from `start` up to `stop`."""
        return self.prefix.of(self.shelf.stretch(start, stop)) if self._made is None else self._made[start:stop]

    def near(self, some: NDArray[np.float32], facing: NDArray[np.float32]) -> tuple[Ids, Ids]:
        """Numbers of the rows of two prefixes that may be a pair."""
        if not hasattr(self._space, "tile"):
            self._space.tile = np.empty(TILE * BLOCK, np.float32)
        lefts, rights = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for start in range(0, len(some), TILE):
            for first in range(0, len(facing), BLOCK):
                left, right = proposed(some[start : start + TILE], facing[first : first + BLOCK], self._space.tile, self.floor)
                lefts.append(left + start)
                rights.append(right + first)
        return np.concatenate(lefts), np.concatenate(rights)

    def visits(self, middles: NDArray[np.float32], count: int) -> Visits:
        """The lists that each row lives in and visits, nearest first: (rows, count)."""
        rows = len(self.shelf.ids)
        found = np.empty((rows, count), np.uint16 if len(middles) <= 1 << 16 else np.int32)
        for start in range(0, rows, 4 * BLOCK):
            stop = min(start + 4 * BLOCK, rows)
            found[start:stop] = segments.homes(Prefix(None).of(self.shelf.stretch(start, stop)), middles, count)
        return found


class _Sample:
    """Pairs that exact search finds for rows drawn at random, with how many lists must be visited for the two to meet.

    Of each row one pair, drawn at random, judges: pairs of one row are no independent draws, and a crowd of pictures that are all near each
    other would outvote everybody else.
    """

    def __init__(self, work: _Work, middles: Sequence[NDArray[np.float32]], rng: np.random.Generator, pool: Executor) -> None:
        self._work, self._middles, self._pool = work, middles, pool
        rows = len(work.shelf.ids)
        self._rng = rng
        self._order = work.old + rng.permutation(rows - work.old)  # at least one of a new pair is new
        self._chunk = min(ASKED, -(-len(self._order) // 16))
        self._most = MOST_SAMPLED * len(self._order)
        self._asked = np.zeros(rows, dtype=bool)
        self._next = 0
        self.left, self.right, self.score = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)  # ids
        self.needed = np.empty(0, np.int64)
        self.judges = np.empty(0, np.int64)  # what the pairs that judge needed

    @property
    def ended(self) -> bool:
        """Whether so many rows were asked that more would cost as much as an exact join."""
        return self._next >= self._most

    def until(self, wanted: int) -> Iterator[float]:
        """Ask more rows until there are so many pairs; the share that is there, or of the rows that may be asked, if that is more."""
        while len(self.judges) < wanted and not self.ended:
            some = self._order[self._next : self._next + self._chunk]
            self._next += self._chunk
            self._ask(np.sort(some))
            yield min(1.0, max(len(self.judges) / wanted, self._next / self._most))

    def _ask(self, some: Ids) -> None:
        rows = len(self._work.shelf.ids)
        with threadpool_limits(1, user_api="blas"):
            mine = self._work.rows(some)

            def search(start: int) -> Scored:
                left, right = self._work.near(mine, self._work.stretch(start, min(start + BLOCK, rows)))
                left, right = some[left], right + start
                new = ~self._asked[right] & ((right > left) | ~np.isin(right, some))  # each pair once
                new &= left != right
                return joined(list(decided(self._work.shelf, left[new], right[new], self._work.floor)))

            found = joined(list(self._pool.map(search, range(0, rows, BLOCK))))
        self._asked[some] = True
        pairs = ((found.left, found.right), (found.right, found.left))
        needed = np.minimum.reduce([self._rank(*pair, middles) for pair in pairs for middles in self._middles])
        self.needed = np.concatenate([self.needed, needed])
        left = self._work.shelf.rows(found.left)
        drawn = self._rng.permutation(len(left))
        ends = np.where(np.isin(left, some), left, self._work.shelf.rows(found.right))
        self.judges = np.concatenate([self.judges, needed[drawn[np.unique(ends[drawn], return_index=True)[1]]]])
        self.left, self.right = np.concatenate([self.left, found.left]), np.concatenate([self.right, found.right])
        self.score = np.concatenate([self.score, found.score])

    def _rank(self, visitors: Ids, hosts: Ids, middles: NDArray[np.float32]) -> Ids:
        """How many lists each visitor must visit to come to where its host lives."""
        ranks = np.empty(len(visitors), np.int64)
        for start in range(0, len(visitors), BLOCK):
            some = slice(start, start + BLOCK)
            near, far = (self._unit(ids[some]) @ middles.T for ids in (visitors, hosts))
            home = far.argmax(axis=1)
            ranks[some] = (near > near[np.arange(len(near)), home][:, np.newaxis]).sum(axis=1) + 1
        return ranks

    def _unit(self, ids: Ids) -> NDArray[np.float32]:
        return Prefix(None).of(self._work.shelf.take(self._work.shelf.rows(ids)))


def _meet(visits: Visits, left: Ids, right: Ids) -> NDArray[np.bool_]:
    """Whether one lives where the other lives or visits."""
    there = (visits[left] == visits[right, 0][:, np.newaxis]).any(axis=1)
    back = (visits[right] == visits[left, 0][:, np.newaxis]).any(axis=1)
    met: NDArray[np.bool_] = there | back
    return met


def _met(work: _Work, partitions: Sequence[Visits], count: int, pool: Executor) -> Iterator[tuple[int, Scored]]:
    """Pairs that meet in the last of some partitions and in none before it, list by list, with the number of lists that are done."""
    *before, visits = partitions
    home = visits[:, 0]
    by_home = np.argsort(home, kind="stable")
    bounds = np.searchsorted(home[by_home], np.arange(count + 1))

    def meet(part: tuple[int, Ids]) -> Scored:
        number, visitors = part
        living = by_home[bounds[number] : bounds[number + 1]]
        mine, theirs = work.rows(living), work.rows(visitors)
        found: list[Scored] = []
        for start in range(0, len(living), TILE):  # a crowd proposes all its pairs: a few rows' at a time
            some = slice(start, start + TILE)
            left, right = work.near(mine[some], mine[: start + TILE])
            left += start
            once = left > right
            left, right = living[left[once]], living[right[once]]
            hosts, guests = work.near(mine[some], theirs)
            hosts, guests = living[hosts + start], visitors[guests]
            # Two that live where the other visits meet twice; the first list counts.
            again = (visits[hosts] == home[guests][:, np.newaxis]).any(axis=1) & (home[guests] < number)
            left, right = np.concatenate([left, hosts[~again]]), np.concatenate([right, guests[~again]])
            new = (left >= work.old) | (right >= work.old)
            for earlier in before:
                new[new] = ~_meet(earlier, left[new], right[new])
            found.extend(decided(work.shelf, left[new], right[new], work.floor))
        return joined(found)

    with threadpool_limits(1, user_api="blas"):
        for first in range(0, count, GROUP):
            some, place = np.nonzero((visits[:, 1:] >= first) & (visits[:, 1:] < first + GROUP))
            lists = visits[some, place + 1]
            order = np.argsort(lists, kind="stable")
            some, lists = some[order], lists[order]
            numbers = range(first, min(first + GROUP, count))
            ends = np.searchsorted(lists, [*numbers, numbers.stop])
            parts = [(number, some[ends[at] : ends[at + 1]]) for at, number in enumerate(numbers)]
            yield numbers.stop, joined(list(pool.map(meet, parts)))

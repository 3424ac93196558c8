"""The end of a section in one pool, and whether what comes after it is what came after an earlier one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence, Set
from typing import NamedTuple

from .allocator import ADDRESS, SHIFT
from .pool import Pool
from .section import Section

_FREE, _IDLE = 0, 1
FIRST_TENSOR = 2
Part = tuple[int, int, bool]
"""A block by address: its size, who lets it go (_FREE, _IDLE, or the number of a tensor), whether it touches the one
before."""
FOREVER = 1 << 62


class States(NamedTuple):
    """The pool as far as it matters for sections to come."""

    every: tuple[Part, ...]
    """With each free block."""
    first: tuple[Part, ...]
    """Of idle ones with the first of a size only."""
    idle: dict[int, int]
    """The first idle block of each size."""
    counts: dict[int, int]
    """How many there are."""


class Moment:
    """The end of a section. States are worked out only where there is one to compare them with.

    Args:
        index: in the row of sections.
        pool: as it is now.
        largest: of the free blocks that the section took from.
        live: address, size and number of the tensors that may be let go in sections to come.
        least: the smallest request to come, in units.
        highest: the highest block of each size that a request was served from.
        wanted: sizes of free blocks that are never idle.
    """

    __slots__ = ("_states", "free", "highest", "index", "least", "live", "reserved", "served", "tail", "wanted")

    def __init__(
        self,
        index: int,
        pool: Pool,
        largest: int,
        live: list[tuple[int, int, int]],
        least: int,
        highest: dict[int, int],
        wanted: Set[int],
    ) -> None:
        self.index, self.reserved, self.free, self.live = index, pool.reserved, pool.free.copy(), live
        self.least, self.highest, self.wanted = least, highest, wanted
        self.served = len(pool.chosen)
        """How many requests were served from free blocks so far."""
        self.tail = _rest(pool, largest, least)
        """What is left of the largest free block that the section took from, if a request fits in it and no other is of
        its size; else 0. Its size has no say in the states: sections may take of it again and again."""
        self._states: States | None = None

    @property
    def sizes(self) -> tuple[frozenset[int], tuple[int, ...]]:
        """Sizes of the free blocks that a request fits in, and of each of them that is not idle. Where they differ,
        the states do, or are not worth a comparison."""
        free, highest, wanted = self.free, self.highest, self.wanted
        fits = free[bisect_left(free, self.least << SHIFT) :]
        if self.tail:
            fits.remove(self.tail)
        busy = [size for block in fits if block <= highest.get(size := block >> SHIFT, 0) or size in wanted]
        return frozenset([block >> SHIFT for block in fits]), tuple(busy)

    @property
    def states(self) -> States:
        """The pool as far as it matters for sections to come."""
        if self._states is None:
            self._states = self._find_states()
        return self._states

    def _find_states(self) -> States:
        """A block is idle if it is free, between walls, and above the highest of its size that a request was served
        from (`highest`). Let the state be the same as some sections ago, and no request served from what was idle then.
        What is idle now is not taken in the sections to come, in place of what was taken then: were it smaller and
        large enough, the first of its size would have been taken then; and where it is of equal size it is higher,
        as the first of its size is, then and now.
        """
        fits = bisect_left(self.free, self.least << SHIFT)
        blocks = [(block & ADDRESS, block >> SHIFT, _FREE) for block in self._beside_live(fits) + self.free[fits:]]
        blocks += self.live
        blocks.sort()
        every: list[Part] = []
        first: list[Part] = []
        idle: dict[int, int] = {}
        counts: dict[int, int] = {}
        end = -1
        last = len(blocks) - 1
        for at, (address, size, who) in enumerate(blocks):
            touches, end = address == end, address + size
            if who == _FREE and size << SHIFT | address == self.tail:
                size = 0
            elif who == _FREE and not touches and (at == last or blocks[at + 1][0] != end):
                block = size << SHIFT | address
                if size not in self.wanted and block > self.highest.get(size, 0):
                    every.append((size, _FREE, False))
                    counts[size] = counts.get(size, 0) + 1
                    if size not in idle:
                        idle[size] = block
                        first.append((size, _IDLE, False))
                    continue
            every.append((size, who, touches))
            first.append((size, who, touches))
        return States(tuple(every), tuple(first), idle, counts)

    def _beside_live(self, number: int) -> list[int]:
        """Of the first free blocks, which no request fits in, those that will be joined with what is let go. The others
        are walls, too."""
        starts = {address for address, _, _ in self.live}
        ends = {address + size for address, size, _ in self.live}
        return [
            block
            for block in self.free[:number]
            if block & ADDRESS in ends or (block & ADDRESS) + (block >> SHIFT) in starts
        ]

    def periods(self, then: Moment, row: Sequence[Section], pool: Pool) -> int:
        """How often what came since an earlier moment of the same state comes again in the same way, as far as the tail
        goes.

        Each time it is smaller by as much. It is taken from as before as long as it stays larger than what was taken
        in place of it, and than any request: what was not taken in place of it was larger, or too small.
        """
        shrinks = (then.tail >> SHIFT) - (self.tail >> SHIFT)
        if not shrinks:
            return FOREVER
        end = _end(self.tail)
        if shrinks < 0 or end != _end(then.tail) or end in {address for address, _, _ in self.live}:
            return 0
        served = pool.chosen[then.served : self.served]
        largest = max([request for section in row[then.index : self.index] for request in section.asked])
        others = max([block >> SHIFT for block in served if _end(block) != end], default=0)
        least = min([block >> SHIFT for block in served if _end(block) == end], default=0) - largest
        return max(0, (least - max(largest + pool.least_rest, others + 1)) // shrinks)


def _end(block: int) -> int:
    return (block & ADDRESS) + (block >> SHIFT)


def _rest(pool: Pool, block: int, least: int) -> int:
    """What is free at the end of what was a free block; 0 if that is less than `least`, or another is as large."""
    end = _end(block)
    start = pool.ends.get(end, end)
    size = end - start
    if size < max(least, 1) or bisect_left(pool.free, (size + 1) << SHIFT) - bisect_left(pool.free, size << SHIFT) > 1:
        return 0
    return size << SHIFT | start


class Match(NamedTuple):
    """An earlier moment of the same state."""

    then: Moment
    times: int
    """How often the sections since then come again."""
    taken: list[int]
    """Sizes of which idle blocks have been taken since; they are not the same, then, and want to be told apart."""


def match(earlier: Sequence[Moment], now: Moment, row: Sequence[Section], pool: Pool) -> Match | None:
    """The latest of the earlier moments whose state is that of now and which came before the same sections; rather one
    with the very same free blocks."""
    rough = None
    for then in reversed(earlier):
        times = _repeats(row, then.index, now.index)
        if not times:
            continue
        before, after = then.states, now.states
        if before.every != after.every and before.first != after.first:
            continue
        times = min(times, now.periods(then, row, pool))
        if not times:
            continue
        if before.every == after.every:
            return Match(then, times, [])
        if rough is None:
            # A lone idle block is as good as written down, whether it is taken or not.
            taken = [
                size for size, block in before.idle.items()
                if now.highest.get(size, 0) >= block and (before.counts[size] > 1 or after.counts.get(size, 0) > 1)
            ]  # fmt: skip
            rough = Match(then, times, taken)
    return rough


def _repeats(row: Sequence[Section], start: int, end: int) -> int:
    """How often row[start:end] comes again after it."""
    period, times = row[start:end], 0
    while row[end : end + len(period)] == period:
        times += 1
        end += len(period)
    return times

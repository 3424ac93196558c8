"""A tape played to the caching allocator, its equal layers only as often as the allocator's state is new.

`simulate(tape.requests(...))` plays every layer. But layers are one section played again and again, and what a pool
does next depends on little: which free blocks there are, in which order and beside what, and where the blocks lie
that are let go later on. A block that stays (what a cache keeps, a weight) is a wall, wherever it is. So the state is
written down at the end of each section: the free blocks and the blocks that may still be let go, by address, each
with its size and whether it touches the one before. Where it is the same as some sections ago and the same sections
follow, they do the same again, at other addresses: what is reserved grows by the same amount each time, and they need
not be played.

Layers that leave something behind also leave free blocks behind, between walls. They need not be the same in number:

- One that is smaller than the smallest request is a wall, too.
- Of those of one size that no request was served from so far, the state has the first only (see `_Player._state`).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from ..tape import Tape, Tensor
from .allocator import ADDRESS, SHIFT, UNIT, simulate
from .pool import Pool
from .section import Section, is_of, is_plain, units

State = tuple[tuple[int, int, bool], ...]
_FREE, _IDLE = 0, 1  # who lets a block go; other numbers: a tensor
_EXACT = (-1, _FREE, False)
"""At the end of a state that has each free block."""


def reserved(tape: Tape, standing: Sequence[int] = (), workspace: int = 0, beside: int = 0) -> int:
    """`simulate(tape.requests([*standing, beside], workspace)).peak_reserved`, to the byte.

    Args:
        standing: bytes of each tensor that is there before and stays.
        workspace: bytes taken before the first section (see `Tape.requests`).
        beside: bytes of one tensor more that stays.
    """
    tapes = {entry[0] for entry in tape.log if isinstance(entry, tuple)}
    if not all(is_plain(section) for section in tapes) or not is_plain(tape, outer=True):
        return simulate(tape.requests([*standing, beside], workspace)).peak_reserved
    total = 0
    for small in (False, True):
        played = ((section, Section(section, small)) for section in tapes)
        alike: dict[object, Section] = {}
        sections = {tape: alike.setdefault(section.asks, section) for tape, section in played}
        player = _Player(tape, sections, standing, workspace, beside, small)
        nbytes = player.play()
        if not player.is_sure():
            nbytes = _Player(tape, sections, standing, workspace, beside, small, skips=False).play()
        total += nbytes
    return total


@lru_cache(maxsize=16)
def _standing(standing: tuple[int, ...], small: bool) -> tuple[dict[int, list[int]], Pool]:
    """Blocks by bytes, and the pool, once the tensors that stay are there: a model's weights are the same each time."""
    pool = Pool(small)
    mine = [nbytes for nbytes in standing if is_of(small, nbytes)]
    blocks: dict[int, list[int]] = {}
    for nbytes, block in zip(mine, pool.play(map(units, mine)), strict=True):
        blocks.setdefault(nbytes, []).append(block)
    pool.chosen.clear()
    return blocks, pool


class _Moment(NamedTuple):
    """The end of a section, beside the pool's state."""

    index: int
    """In the row."""
    reserved: int
    asked: int
    """Units that the sections so far asked for, and let go of others."""
    tail: int
    """Units of the tail (see `_Player._tail`), 0 if there is none."""
    others: int
    """Units of the other free blocks."""
    idle: dict[int, int]
    """The first idle block of each size."""
    counts: Counter[int]
    """How many there are."""


class _Player:
    """One pool, and the tape's tensors in it."""

    def __init__(
        self,
        tape: Tape,
        sections: dict[Tape, Section],
        standing: Sequence[int],
        workspace: int,
        beside: int,
        small: bool,
        skips: bool = True,
    ) -> None:
        self.log, self.sections, self.small, self.skips = tape.log, sections, small, skips
        self.workspace = units(workspace) if is_of(small, workspace) else 0
        there, pool = _standing(tuple(standing), small)
        self.pool = pool.copy()
        adopted = {entry.bytes for entry in tape.log if isinstance(entry, Tensor)}
        adopted.update(*(section.adopted for section in self.sections.values()))
        self.youngest: dict[int, list[tuple[int, int]]] = {size: [] for size in adopted if is_of(small, size)}
        """Live tensors of the sizes that are freed by others, youngest last: block, and number if the outer tape made
        it, else -1."""
        self.sizes = [entry for entry in tape.log if isinstance(entry, int) and entry >= 0]
        """Bytes of what the outer tape makes, also of the other pool."""
        self.own: dict[int, int] = {}
        """Its live blocks by number."""
        for nbytes, candidates in self.youngest.items():
            candidates += [(block, -1) for block in there.get(nbytes, ())]
        if is_of(small, beside):
            (block,) = self.pool.play((units(beside),))
            if beside in self.youngest:
                self.youngest[beside].append((block, -1))
        requests = [units(nbytes) for nbytes in self.sizes if is_of(small, nbytes)]
        for section in self.sections.values():
            requests += [request for request in section.requests if request > 0]
        self.least = min([*requests, self.workspace or requests[0]]) if requests else 0
        """The smallest request, in units."""
        self.fewer: dict[int, int] = {}
        """Sizes of idle blocks that there are fewer of than there should be: the first of them."""
        self.depth: dict[int, int] = {}
        """How many of the youngest tensors of a size, from the oldest on, may lie elsewhere than they should."""
        self.sure = True

    def play(self) -> int:
        """Bytes that the pool has reserved in the end."""
        log, at, made = self.log, 0, 0
        if not self.sections:
            self._take_workspace()
        while at < len(log):
            entry = log[at]
            at += 1
            if isinstance(entry, tuple):
                row = [self.sections[entry[0]]] * entry[1]
                while at < len(log) and isinstance(following := log[at], tuple):
                    row += [self.sections[following[0]]] * following[1]
                    at += 1
                self._take_workspace()
                self._play_row(row)
            elif isinstance(entry, Tensor):
                if entry.bytes in self.youngest:
                    self._release(self._youngest(entry.bytes, foreign=True))
            elif entry >= 0:
                if is_of(self.small, entry):
                    self._make(made, entry)
                made += 1
            elif is_of(self.small, self.sizes[~entry]):
                self._free(~entry)
        return self.pool.reserved * UNIT

    def _take_workspace(self) -> None:
        if self.workspace:
            self.pool.play((self.workspace,))
            self.workspace = 0

    # -- tensors of the outer tape

    def _make(self, number: int, nbytes: int) -> None:
        (block,) = self.pool.play((units(nbytes),))
        self.own[number] = block
        if nbytes in self.youngest:
            self.youngest[nbytes].append((block, number))

    def _free(self, number: int) -> None:
        nbytes = self.sizes[number]
        if number not in self.own:  # taken for another of its size, which is the one that goes now
            self._release(self._youngest(nbytes))
            return
        block = self.own.pop(number)
        if nbytes in self.youngest:
            self.youngest[nbytes].remove((block, number))
        self._release(block)

    def _release(self, block: int) -> None:
        self.pool.play((0,), iter((block,)))

    def _youngest(self, nbytes: int, foreign: bool = False) -> int:
        """Takes the youngest live tensor of `nbytes`; `foreign`: that the outer tape did not make. -1 if none."""
        candidates = self.youngest[nbytes]
        for at in range(len(candidates) - 1, -1, -1):
            block, number = candidates[at]
            if number < 0 or not foreign:
                del candidates[at]
                self.own.pop(number, None)
                if number < 0 and at < self.depth.get(nbytes, 0):
                    self.sure = False
                return block
        return -1

    # -- sections

    def is_sure(self) -> bool:
        """Whether nothing that was played after sections were skipped depended on what they would have left."""
        fewer = self.fewer
        if self.sure and fewer:
            self.sure = all(fewer.get(block >> SHIFT, block + 1) > block for block in self.pool.chosen)
        return self.sure

    def _play_row(self, row: list[Section]) -> None:
        """Sections one after the other."""
        pool = self.pool
        # How many of the youngest tensors of a size a section frees. Where it leaves as many, the next one frees those.
        frees: Counter[int] = Counter()
        for section in {id(section): section for section in row if section.adopted and not section.shrinks}.values():
            frees |= Counter(section.adopted)
        wanted: set[int] = set()  # sizes of free blocks that are chosen anew in every section
        seen: dict[State, list[_Moment]] = {}
        highest: dict[int, int] = {}
        asked = index = 0
        while index < len(row):
            section = row[index]
            before = len(pool.chosen)
            self._play_section(section)
            asked += section.asked
            index += 1
            if index == len(row) or not self.skips:
                continue
            for block in pool.chosen[before:]:
                if block > highest.get(block >> SHIFT, 0):
                    highest[block >> SHIFT] = block
            if section.shrinks:
                seen.clear()
            exact, rough, now = self._state(frees, highest, wanted, index, asked, self._tail(row))
            then, times = _latest(seen.setdefault(exact, []), row, now)
            taken: list[int] = []
            if then is None:
                then, times = _latest(seen.setdefault(rough, []), row, now)
                if then is None:
                    continue
                # A lone idle block is as good as written down, whether it is taken or not.
                taken = [
                    size for size, block in then.idle.items()
                    if highest.get(size, 0) >= block and (then.counts[size] > 1 or now.counts[size] > 1)
                ]  # fmt: skip
            if taken:
                wanted.update(taken)
                seen.clear()
                continue
            if now.tail:
                times = min(times, _periods(then, now, pool.least_rest))
                if not times:
                    continue
                pool.shorten_last(times * (then.tail - now.tail))
            pool.reserved += times * (pool.reserved - then.reserved)
            del row[index : index + times * (index - then.index)]
            seen.clear()
            self.is_sure()
            pool.chosen.clear()
            for size, count in now.counts.items():
                if count != then.counts[size]:
                    self.fewer[size] = min(now.idle[size], self.fewer.get(size, now.idle[size]))
            for size, candidates in self.youngest.items():
                self.depth[size] = max(self.depth.get(size, 0), len(candidates) - frees[size])

    def _play_section(self, section: Section) -> None:
        blocks = self.pool.play(section.requests, map(self._youngest, section.adopted))
        for number, nbytes in section.left:
            if nbytes in self.youngest:
                self.youngest[nbytes].append((blocks[number], -1))

    def _tail(self, row: Sequence[Section]) -> int:
        """Units of the last free block where it is so large that a section takes of it only what fits nowhere else; 0
        if there is no such block. Its size has no say in the state: sections may take of it again and again."""
        free = self.pool.free
        if not free or (len(free) > 1 and free[-1] >> SHIFT == free[-2] >> SHIFT):
            return 0
        return free[-1] >> SHIFT if free[-1] >> SHIFT > 2 * max(section.asked for section in row) else 0

    def _state(
        self, frees: Counter[int], highest: dict[int, int], wanted: set[int], index: int, asked: int, tail: int
    ) -> tuple[State, State, _Moment]:
        """The pool as far as it matters for sections to come: with each free block, and with the first idle one of a
        size only; and what else is to be known of the moment.

        By address: the size of a block, who lets it go, whether it touches the one before.

        A block is idle if it is free, between walls, and above the highest of its size that a request was served from
        (`highest`). Let the state be the same as some sections ago, and no request served from what was idle then.
        What is idle now is not taken in the sections to come, in place of what was taken then: were it smaller and
        large enough, the first of its size would have been taken then; and where it is of equal size it is higher,
        as the first of its size is, then and now.
        """
        blocks = [(address, size, _FREE) for address, size in self.pool.size_at.items()]
        for number, block in self.own.items():
            blocks.append((block & ADDRESS, block >> SHIFT, ~number))
        sizes = len(self.youngest)
        for who, (nbytes, candidates) in enumerate(self.youngest.items(), _IDLE + 1):
            missing = frees[nbytes]
            for block, number in reversed(candidates):
                if not missing:
                    break
                if number < 0:
                    missing -= 1
                    blocks.append((block & ADDRESS, block >> SHIFT, who))
                who += sizes
        others = sum(self.pool.size_at.values()) - tail
        blocks.sort()
        every: list[tuple[int, int, bool]] = []
        state: list[tuple[int, int, bool]] = []
        first: dict[int, int] = {}
        counts: Counter[int] = Counter()
        end = -1
        last = len(blocks) - 1
        for at, (address, size, who) in enumerate(blocks):
            touches, end = address == end, address + size
            if size == tail and who == _FREE:
                every.append((0, _FREE, touches))
                state.append((0, _FREE, touches))
                continue
            if who == _FREE and not touches and (at == last or blocks[at + 1][0] != end):
                if size < self.least:
                    continue
                every.append((size, _FREE, False))
                block = size << SHIFT | address
                if size not in wanted and block > highest.get(size, 0):
                    counts[size] += 1
                    if size in first:
                        continue
                    first[size] = block
                    who = _IDLE
            else:
                every.append((size, who, touches))
            state.append((size, who, touches))
        return (*every, _EXACT), tuple(state), _Moment(index, self.pool.reserved, asked, tail, others, first, counts)


def _periods(then: _Moment, now: _Moment, least_rest: int) -> int:
    """How often what came between two moments of the same state comes again in the same way, as far as the tail goes.

    Unless its size is the same again, it has to be larger all the while than any other free block can be, and more has
    to be left of it than is not worth splitting; otherwise its size would have a say in what is chosen.
    """
    shrinks, grow = then.tail - now.tail, max(now.others - then.others, 0)
    if not shrinks:
        return sys.maxsize
    needed = 2 * (now.asked - then.asked) + least_rest
    if then.tail < needed + then.others or shrinks < 0 or now.tail < needed + now.others:
        return 0
    return (now.tail - needed - now.others) // (shrinks + grow) + 1


def _latest(moments: list[_Moment], row: Sequence[Section], now: _Moment) -> tuple[_Moment | None, int]:
    """The latest moment after which came what comes now, too, and how often that comes again; `now` joins them."""
    moments.append(now)
    for then in reversed(moments[:-1]):
        times = _repeats(row, then.index, now.index)
        if times:
            return then, times
    return None, 0


def _repeats(row: Sequence[Section], start: int, end: int) -> int:
    """How often row[start:end] comes again after it."""
    period, times = row[start:end], 0
    while row[end : end + len(period)] == period:
        times += 1
        end += len(period)
    return times

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
- Of those of one size that no request was served from so far, the state has the first only (see `Moment.states`).
- The last one, from which layers take a piece each, may be of any size as long as it is large (see `Moment.periods`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from ..tape import Tape, Tensor
from .allocator import ADDRESS, SHIFT, SMALL, UNIT, simulate
from .moment import FIRST_TENSOR, Moment, match
from .pool import Pool
from .section import Section, is_of, is_plain, split, units

_FEW = 20
"""A tensor that is less than one in so many bytes is little."""


def reserved(
    tape: Tape,
    standing: Sequence[int] = (),
    workspace: int = 0,
    beside: int = 0,
    made_later: Sequence[int] = (),
) -> int:
    """`simulate(tape.requests([*standing, beside], workspace)).peak_reserved`, to the byte.

    With `made_later` the tape is played twice, and this is of the second time. The first one ends with these tensors,
    which stay where they found room, such as the state that an optimizer makes in its first step; all else is let go,
    and segments without a live block go back to the driver, as they do before the card is full.

    Args:
        standing: bytes of each tensor that is there before and stays.
        workspace: bytes taken before the first section (see `Tape.requests`).
        beside: bytes of one tensor more that stays.
        made_later: bytes of each; for tapes without sections.
    """
    tapes = {entry[0] for entry in tape.log if isinstance(entry, tuple)}
    alone = split(tape) if not tapes else None
    if alone is not None and not (alone[0].adopted or alone[1].adopted):
        return _in_one_go(alone, tuple(standing), workspace, beside, made_later)
    assert not made_later, "only a tape without sections is played again"
    asked = {section: split(section) for section in tapes}
    pools = [(section, both) for section, both in asked.items() if both is not None]
    if len(pools) < len(asked) or not is_plain(tape):
        return simulate(tape.requests([*standing, beside], workspace)).peak_reserved
    total = 0
    for small in (False, True):
        alike: dict[object, Section] = {}
        sections = {section: alike.setdefault(both[small].asks, both[small]) for section, both in pools}
        player = _Player(tape, sections, standing, workspace, beside, small)
        nbytes = player.play()
        if not player.is_sure():
            nbytes = _Player(tape, sections, standing, workspace, beside, small, skips=False).play()
        total += nbytes
    return total


def _in_one_go(
    pools: tuple[Section, Section],
    standing: tuple[int, ...],
    workspace: int,
    beside: int,
    made_later: Sequence[int],
) -> int:
    """A tape without sections, which frees only what it made."""
    large, small = pools
    pool = _standing(standing, small=False)[1].copy()
    pool.play([units(nbytes) for nbytes in (beside, workspace) if is_of(False, nbytes)])
    later, small_later = _later(tuple(made_later))
    # What is made later may break the segments of the largest tensors; where those are little of it all, it may as well
    # have been there before.
    if later and max(large.requests, default=0) * _FEW * UNIT > sum(standing) + sum(made_later):
        blocks = pool.play(large.requests)
        pool.play(later)
        pool.play([0] * len(large.left), iter([blocks[number] for number, _ in large.left]))
        pool.release()
    else:
        pool.play(later)
    pool.play(large.requests)
    total = pool.reserved
    pool = _standing(standing, small=True)[1].copy()
    pool.play([units(nbytes) for nbytes in (beside, workspace) if is_of(True, nbytes)])
    pool.play(small_later)
    pool.play(small.requests)
    return (total + pool.reserved) * UNIT


@lru_cache(maxsize=16)
def _later(tensors: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Units of the large tensors, and of the small ones, put together: their segments are all alike, so it makes no
    difference when a small tensor was made, nor what else is in its segment."""
    whole, rest = divmod(sum([units(nbytes) for nbytes in tensors if is_of(True, nbytes)]), SMALL)
    return [units(nbytes) for nbytes in tensors if is_of(False, nbytes)], [SMALL] * whole + [rest] * (rest > 0)


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
            else:
                start = at - 1
                while at < len(log) and isinstance(log[at], int):
                    at += 1
                made = self._play_own(log[start:at], made)
        return self.pool.reserved * UNIT

    def _take_workspace(self) -> None:
        if self.workspace:
            self.pool.play((self.workspace,))
            self.workspace = 0

    # -- tensors of the outer tape

    def _play_own(self, entries: Sequence[object], made: int) -> int:
        """What the outer tape allocates and frees of its own, without a section in between. `made`: tensors so far."""
        requests: list[int] = []
        freed: list[int] = []
        new: dict[int, int] = {}  # tensors that are there at the end, among those that the requests make
        asked = 0
        for entry in entries:
            assert isinstance(entry, int)
            number = made if entry >= 0 else ~entry
            nbytes = self.sizes[number]
            made += entry >= 0
            if not is_of(self.small, nbytes):
                continue
            if entry >= 0:
                new[number] = asked
                asked += 1
                requests.append(units(nbytes))
            elif number in new:
                requests.append(~new.pop(number))
            elif number in self.own:
                block = self.own.pop(number)
                if nbytes in self.youngest:
                    self.youngest[nbytes].remove((block, number))
                requests.append(0)
                freed.append(block)
            else:  # taken for another of its size, which is the one that goes now
                self._play_requests(requests, freed, new)
                requests, freed, new, asked = [], [], {}, 0
                self._release(self._youngest(nbytes))
        self._play_requests(requests, freed, new)
        return made

    def _play_requests(self, requests: list[int], freed: list[int], new: dict[int, int]) -> None:
        blocks = self.pool.play(requests, iter(freed))
        for number, at in new.items():
            nbytes = self.sizes[number]
            self.own[number] = blocks[at]
            if nbytes in self.youngest:
                self.youngest[nbytes].append((blocks[at], number))

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
        most = max(section.asked for section in row)
        wanted: set[int] = set()  # sizes of free blocks that are chosen anew in every section
        seen: dict[object, list[Moment]] = {}
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
            now = Moment(
                index, pool.reserved, asked, pool.free.copy(), self._live(frees), self.least, most, highest.copy(),
                wanted,
            )  # fmt: skip
            earlier = seen.setdefault(now.sizes, [])
            found = match(earlier, now, row)
            earlier.append(now)
            if found is None:
                continue
            if found.taken:
                wanted = wanted.union(found.taken)
                seen.clear()
                continue
            then = found.then
            times = min(found.times, now.periods(then, pool.least_rest))
            if not times:
                continue
            if now.tail != then.tail:
                pool.shorten_last(times * (then.tail - now.tail))
            pool.reserved += times * (pool.reserved - then.reserved)
            del row[index : index + times * (index - then.index)]
            seen.clear()
            self.is_sure()
            pool.chosen.clear()
            for size, count in now.states.counts.items():
                if count != then.states.counts[size]:
                    first = now.states.idle[size]
                    self.fewer[size] = min(first, self.fewer.get(size, first))
            for size, candidates in self.youngest.items():
                self.depth[size] = max(self.depth.get(size, 0), len(candidates) - frees[size])

    def _play_section(self, section: Section) -> None:
        blocks = self.pool.play(section.requests, map(self._youngest, section.adopted))
        for number, nbytes in section.left:
            if nbytes in self.youngest:
                self.youngest[nbytes].append((blocks[number], -1))

    def _live(self, frees: Counter[int]) -> list[tuple[int, int, int]]:
        """Address, size and number of the tensors that may be let go in sections to come: those of the outer tape, and
        as many of the youngest of each size as a section frees."""
        live = [(block & ADDRESS, block >> SHIFT, ~number) for number, block in self.own.items()]
        sizes = len(self.youngest)
        for who, (nbytes, candidates) in enumerate(self.youngest.items(), FIRST_TENSOR):
            missing = frees[nbytes]
            for block, number in reversed(candidates):
                if not missing:
                    break
                if number < 0:
                    missing -= 1
                    live.append((block & ADDRESS, block >> SHIFT, who))
                who += sizes
        return live

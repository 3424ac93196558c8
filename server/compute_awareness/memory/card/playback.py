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
- The largest that layers take a piece each of may be of any size as long as it stays larger than what is taken in
  place of it (see `Moment.periods`).

What is freed after a row of layers has to be known, and what is beside it. So the last layers, which left it, are
played (see `n_kept`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby

from ..tape import Tape
from .allocator import ADDRESS, SHIFT, SMALL, UNIT, simulate
from .moment import FIRST_TENSOR, Moment, match, n_kept
from .parts import Frame, Parts, take_apart
from .pool import with_standing
from .section import Section, asking, is_of

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
    parts = Parts({}, {})
    if not take_apart(tape, parts):
        return simulate(tape.requests([*standing, beside], workspace)).peak_reserved
    alone = parts.sections.get(tape)
    if alone is not None and not (alone[0].adopted or alone[1].adopted):
        return _in_one_go(alone, tuple(standing), workspace, beside, made_later)
    assert not made_later, "only a tape without sections is played again"
    total = 0
    for small in (False, True):
        player = _Player(tape, parts, standing, workspace, beside, small)
        nbytes = player.play()
        if not player.is_sure():
            nbytes = _Player(tape, parts, standing, workspace, beside, small, skips=False).play()
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
    pool = with_standing(standing, small=False)[1].copy()
    pool.play([asking(nbytes) for nbytes in (beside, workspace) if is_of(False, nbytes)])
    later, small_later = _later(tuple(made_later))
    # What is made later may break the segments of the largest tensors; where those are little of it all, it may as well
    # have been there before.
    largest = (max(large.requests, default=0) >> SHIFT) * UNIT
    if later and largest * _FEW > sum(standing) + sum(made_later):
        blocks = pool.play(large.requests)
        pool.play(later)
        pool.play([0] * len(large.left), iter([blocks[number] for number, _ in large.left]))
        pool.release()
    else:
        pool.play(later)
    pool.play(large.requests)
    total = pool.reserved
    pool = with_standing(standing, small=True)[1].copy()
    pool.play([asking(nbytes) for nbytes in (beside, workspace) if is_of(True, nbytes)])
    pool.play(small_later)
    pool.play(small.requests)
    return (total + pool.reserved) * UNIT


@lru_cache(maxsize=16)
def _later(tensors: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Requests for the large tensors, and for the small ones, put together: their segments are all alike, so it makes
    no difference when a small tensor was made, nor what else is in its segment."""
    most = SMALL * UNIT
    whole, rest = divmod(sum([-(-nbytes // UNIT) * UNIT for nbytes in tensors if is_of(True, nbytes)]), most)
    small = [asking(most)] * whole + [asking(rest)] * (rest > 0)
    return [asking(nbytes) for nbytes in tensors if is_of(False, nbytes)], small


class _Player:
    """One pool, and the tape's tensors in it."""

    def __init__(
        self,
        tape: Tape,
        parts: Parts,
        standing: Sequence[int],
        workspace: int,
        beside: int,
        small: bool,
        skips: bool = True,
    ) -> None:
        self.tape, self.frames, self.small, self.skips = tape, parts.frames, small, skips
        self.workspace = asking(workspace) if is_of(small, workspace) else 0
        there, pool = with_standing(tuple(standing), small)
        self.pool = pool.copy()
        alike: dict[object, Section] = {}
        self.sections = {tape: alike.setdefault(both[small].asks, both[small]) for tape, both in parts.sections.items()}
        adopted = {nbytes for frame in parts.frames.values() for run in frame.runs for nbytes in run.foreign}
        adopted.update(*[section.adopted for section in alike.values()])
        self.youngest: dict[int, list[tuple[int, int]]] = {size: [] for size in adopted if is_of(small, size)}
        """Live tensors of the sizes that are freed by others, youngest last: block, and number if a frame made it, else
        -1."""
        self.sizes: list[int] = []
        """Bytes of what frames make, also of the other pool."""
        self.own: dict[int, int] = {}
        """Their live blocks by number, but for those that are never let go."""
        self.freed: set[int] = set()
        """The numbers of what the frame that made it lets go."""
        for nbytes, candidates in self.youngest.items():
            candidates += [(block, -1) for block in there.get(nbytes, ())]
        if is_of(small, beside):
            (block,) = self.pool.play((asking(beside),))
            if beside in self.youngest:
                self.youngest[beside].append((block, -1))
        sizes = {nbytes for frame in parts.frames.values() for nbytes in frame.sizes}
        requests = [asking(nbytes) for nbytes in sizes if is_of(small, nbytes)]
        requests += [request for section in alike.values() for request in section.asked]
        self.least = min([*requests, self.workspace or requests[0]]) if requests else 0
        """The smallest request."""
        self.fewer: dict[int, int] = {}
        """Sizes of idle blocks that there are fewer of than there should be: the least that one may lie at in place of
        which those would be chosen."""
        self.depth: dict[int, int] = {}
        """How many of the youngest tensors of a size, from the oldest on, may lie elsewhere than they should."""
        self.sure = True

    def play(self) -> int:
        """Bytes that the pool has reserved in the end."""
        frame = self.frames.get(self.tape)
        if frame is None or not any(run.row for run in frame.runs):
            self._take_workspace()
        if frame is None:
            self._play_row([self.sections[self.tape]], Counter())
        else:
            self._play_frame(frame)
        return self.pool.reserved * UNIT

    def _play_frame(self, frame: Frame) -> None:
        first = made = len(self.sizes)
        self.sizes += frame.sizes
        self.freed.update([first + number for number in frame.freed])
        mine = range(first, len(self.sizes))
        for at, run in enumerate(frame.runs):
            if run.own:
                made = self._play_own(run.own, first, made)
            elif run.foreign:
                blocks = [self._youngest(nbytes, mine) for nbytes in run.foreign if nbytes in self.youngest]
                self.pool.play([0] * len(blocks), iter(blocks))
            else:
                self._take_workspace()
                later = Counter([nbytes for other in frame.runs[at:] for nbytes in other.foreign])
                for is_frame, row in groupby(run.row, lambda entry: entry[0] in self.frames):
                    if is_frame:
                        for tape, times in row:
                            for _ in range(times):
                                self._play_frame(self.frames[tape])
                    else:
                        self._play_row([self.sections[tape] for tape, times in row for _ in range(times)], later)

    def _take_workspace(self) -> None:
        if self.workspace:
            self.pool.play((self.workspace,))
            self.workspace = 0

    # -- tensors of frames

    def _play_own(self, entries: Sequence[int], first: int, made: int) -> int:
        """What a frame allocates and frees of its own, in a row. `first`: the number of its first tensor; `made`: of
        the next, which is returned as it is then."""
        requests: list[int] = []
        freed: list[int] = []
        new: dict[int, int] = {}  # tensors that are there at the end, among those that the requests make
        asked = 0
        for entry in entries:
            number = made if entry >= 0 else first + ~entry
            nbytes = self.sizes[number]
            made += entry >= 0
            if not is_of(self.small, nbytes):
                continue
            if entry >= 0:
                new[number] = asked
                asked += 1
                requests.append(asking(nbytes))
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
            candidates = self.youngest.get(self.sizes[number])
            if candidates is not None:
                candidates.append((blocks[at], number))
            if candidates is not None or number in self.freed:
                self.own[number] = blocks[at]

    def _release(self, block: int) -> None:
        self.pool.play((0,), iter((block,)))

    def _youngest(self, nbytes: int, but: range = range(0)) -> int:
        """Takes the youngest live tensor of `nbytes` whose number is not one of `but`. -1 if there is none."""
        candidates = self.youngest[nbytes]
        for at in range(len(candidates) - 1, -1, -1):
            block, number = candidates[at]
            if number not in but:
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

    def _play_row(self, row: list[Section], later: Counter[int]) -> None:
        """Sections one after the other. `later`: bytes of what is freed after them that they may have left."""
        pool = self.pool
        # How many of the youngest tensors of a size a section frees. Where it leaves as many, the next one frees those.
        frees: Counter[int] = Counter()
        for section in set(row):
            if section.adopted and not section.shrinks:
                frees |= section.takes
        wanted: set[int] = set()  # sizes of free blocks that are chosen anew in every section
        seen: dict[object, list[Moment]] = {}
        highest: dict[int, int] = {}
        skipped = len(row) - n_kept(row, later - frees)
        skips = self.skips and len(row) > 1 and not self._goes_back(row, frees)
        index = 0
        while index < len(row):
            section = row[index]
            before = len(pool.chosen)
            self._play_section(section)
            index += 1
            # A moment is of use if a section may be skipped after it, or after another one.
            if not skips or index + (not seen) >= skipped:
                continue
            served = {*pool.chosen[before:]}
            highest = highest.copy()
            for block in served:
                if block > highest.get(block >> SHIFT, 0):
                    highest[block >> SHIFT] = block
            if section.shrinks:
                seen.clear()
            now = Moment(index, pool, max(served, default=0), self._live(frees), self.least, highest, wanted)
            earlier = seen.setdefault(now.sizes, [])
            found = match(earlier, now, row, pool)
            earlier.append(now)
            if found is None:
                continue
            if found.taken:
                wanted = wanted.union(found.taken)
                seen.clear()
                continue
            then = found.then
            period = index - then.index
            times = min(found.times, (skipped - index) // period)
            if not times:
                continue
            shrinks = (then.tail >> SHIFT) - (now.tail >> SHIFT)
            if shrinks:
                pool.shorten(now.tail, times * shrinks)
            pool.reserved += times * (pool.reserved - then.reserved)
            del row[index : index + times * period]
            skipped -= times * period
            seen.clear()
            self.is_sure()
            pool.chosen.clear()
            for size, count in now.states.counts.items():
                if count != then.states.counts.get(size, 0):
                    # Missing ones would lie where their sections opened segments: above all that the small pool has
                    # had so far, below all that the large one has.
                    first = now.states.idle[size] if self.small else size << SHIFT | pool.next_address
                    self.fewer[size] = min(first, self.fewer.get(size, first))
            for size, candidates in self.youngest.items():
                self.depth[size] = max(self.depth.get(size, 0), len(candidates) - frees[size])

    @staticmethod
    def _goes_back(row: Sequence[Section], frees: Counter[int]) -> bool:
        """Whether somewhere in a row sections free more than `frees` of a size, deeper than the last section left them:
        going back through layers, each frees what one of them saved, so none may be missing."""
        if not any(section.shrinks for section in row):
            return False
        lacks: dict[int, int] = {}
        for section in reversed(row):
            if lacks:
                left = section.leaves
                lacks = {nbytes: lack - left[nbytes] for nbytes, lack in lacks.items() if lack > left[nbytes]}
            for nbytes, count in section.takes.items():
                lacks[nbytes] = lack = lacks.get(nbytes, 0) + count
                if lack > frees[nbytes]:
                    return True
        return False

    def _play_section(self, section: Section) -> None:
        blocks = self.pool.play(section.requests, map(self._youngest, section.adopted))
        for number, nbytes in section.left:
            if nbytes in self.youngest:
                self.youngest[nbytes].append((blocks[number], -1))

    def _live(self, frees: Counter[int]) -> list[tuple[int, int, int]]:
        """Address, size and number of the tensors that may be let go in sections to come: those of tapes with
        sections, and as many of the youngest of each size as a section frees."""
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

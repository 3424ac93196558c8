"""Passes that each make what the pass before left anew and larger, as a key/value cache grows: played to the caching
allocator.

Of many passes those are given that change what is reserved (`turning_points`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import NamedTuple, TypeVar

from ..tape import Tape, Tensor
from .allocator import UNIT
from .parts import as_section
from .pool import Pool, with_standing
from .section import Section, asking, is_of

_Pass = TypeVar("_Pass")
_OF_THE_OTHER = -1
"""A tensor that grew out of the small pool in a pass that is not played: to `Pool.play`, none."""
_MOST_OF_A_CARD = 288 * 1024**3
"""No card has more; where it is full, torch gives back what lies idle."""


@dataclass(frozen=True)
class Later:
    """A pass after the first: for each of its layers, and last for what comes after them, what it asks for. A part
    frees what the same part left in the pass before, in the same order, and leaves as many."""

    parts: Sequence[Tape]


class Taken(NamedTuple):
    """Bytes that the allocator took from the driver."""

    reserved: int
    """In all."""
    later: int
    """Of that, after the first pass."""


@dataclass(frozen=True)
class Growing:
    """The first pass, whose sections are the layers, and the later ones.

    The first layer leaves the workspaces. Each leaves two tensors that grow, if any do, and after them what it hands on
    to the next one, which frees it. What comes after the layers leaves one tensor more, the last that the first pass
    makes outside them.
    """

    first: Tape
    later: Sequence[Later]
    grows: int
    """Bytes of each of the two tensors, in the first pass; 0 = none grows."""
    result: int
    """Bytes of what comes after the layers."""
    workspaces: Sequence[int]
    """Bytes of each."""
    stands_for: float = 1
    """How many passes each of the later ones stands for (see `turning_points`)."""
    fewer: Growing | None = None
    """The same with every other one of the passes that are played, where they stand for more and all are in `first`."""

    def requests(self, standing: Sequence[int] = ()) -> list[int]:
        """All of it, one by one, as `Tape.requests` gives a tape's."""
        return _Requests(self, standing).requests

    def reserved(self, standing: Sequence[int] = (), beside: int = 0, needed: int = 0) -> Taken:
        """What `simulate` says of the requests, and what passes that are left out would add. More than the largest card
        has only where so much is `needed`: bytes of the tensors at the peak.

        Twice as many passes that are played may take twice as much, as each leaves its segments idle, or hardly more
        than half of them, as later ones find room in what is idle. So those that are left out are taken to add what
        the second half of the played ones did."""
        taken, later = self._taken(tuple(standing), beside)
        more = 0
        fewer = replace(self, later=every_other(self.later)) if self.later else self.fewer
        if self.stands_for > 1 and fewer is not None:
            with_half = fewer._taken(tuple(standing), beside).reserved
            more = int(min(later, 2 * max(0, taken - with_half)) * (self.stands_for - 1))
        total = min(taken + more, max(_MOST_OF_A_CARD, needed))
        return Taken(total, max(0, later + total - taken))

    def _taken(self, standing: tuple[int, ...], beside: int) -> Taken:
        """By the passes that are played."""
        both = [self._played(small, standing, beside) for small in (False, True)]
        return Taken(*(UNIT * (one + other) for one, other in zip(*both, strict=True)))

    def _played(self, small: bool, standing: tuple[int, ...], beside: int) -> tuple[int, int]:
        """Of one pool, in its units."""
        pool = with_standing(standing, small)[1].copy()
        if is_of(small, beside):
            pool.play((asking(beside),))
        sections = _Sections(small)
        workspaces = sum(is_of(small, nbytes) for nbytes in self.workspaces)
        first = _First(pool, sections, is_of(small, self.grows), workspaces)
        first.play(self.first.log)
        before = pool.reserved if self.later else first.after_layers
        left = [*first.left, first.youngest(self.result)]
        for each in self.later:
            for at, part in enumerate(each.parts):
                section = sections[part]
                if section.requests or left[at]:
                    old = iter(left[at])
                    blocks = pool.play(section.requests, chain(old, repeat(_OF_THE_OTHER)))
                    # What grew into the large pool in a pass that is not played was let go there.
                    gone = list(old)
                    pool.play([0] * len(gone), iter(gone))
                    left[at] = [blocks[number] for number, _ in section.left]
        return pool.reserved, pool.reserved - before


def every_other(passes: Sequence[_Pass]) -> list[_Pass]:
    """The first and the last, and every other one in between."""
    return [*passes[:1], *passes[2:-1:2], *passes[1:][-1:]]


class _Requests:
    """The passes as requests; tensors are known by their number among all of them."""

    def __init__(self, growing: Growing, standing: Sequence[int]) -> None:
        self.requests = list(standing)
        self._made = len(self.requests)
        own: dict[int, tuple[int, int]] = {}  # live tensors outside the layers by number: their number here, and bytes
        handed_on: list[tuple[int, int]] = []

        def take(nbytes: int) -> int:
            for at, (mine, size) in enumerate(handed_on):
                if size == nbytes:
                    del handed_on[at]
                    return mine
            return own.pop(next(each for each in reversed(own) if own[each][1] == nbytes))[0]

        left: list[list[int]] = []
        number, skip = 0, len(growing.workspaces)
        for entry in growing.first.log:
            if isinstance(entry, tuple):
                for _ in range(entry[1]):
                    live = self._play(entry[0], take)[skip:]
                    grows = 2 * (growing.grows > 0)
                    left.append([number for number, _ in live[:grows]])
                    handed_on = live[grows:]
                    skip = 0
            elif isinstance(entry, Tensor):
                self.requests.append(~take(entry.bytes))
            elif entry < 0:
                if ~entry in own:  # else the first layer let it go
                    self.requests.append(~own.pop(~entry)[0])
            else:
                own[number] = self._new(entry), entry
                number += 1
        left.append([mine for mine, _ in own.values()][-1:])
        for each in growing.later:
            for at, part in enumerate(each.parts):
                others = iter(left[at])
                left[at] = [number for number, _ in self._play(part, lambda _, others=others: next(others))]

    def _new(self, nbytes: int) -> int:
        self.requests.append(nbytes)
        self._made += 1
        return self._made - 1

    def _play(self, part: Tape, take: Callable[[int], int]) -> list[tuple[int, int]]:
        """Number and bytes of what it leaves; `take` says which tensor it frees where it did not make it."""
        live: dict[int, tuple[int, int]] = {}
        number = 0
        for entry in part.log:
            if isinstance(entry, Tensor):
                if entry.bytes:
                    self.requests.append(~take(entry.bytes))
            elif isinstance(entry, int) and entry < 0:
                self.requests.append(~live.pop(~entry)[0])
            elif isinstance(entry, int):
                live[number] = self._new(entry), entry
                number += 1
        return list(live.values())


class _Sections(dict[Tape, Section]):
    """Of one pool, by tape."""

    def __init__(self, small: bool) -> None:
        super().__init__()
        self.small = small

    def __missing__(self, tape: Tape) -> Section:
        both = as_section(tape)
        if both is None:
            raise TypeError("a section without sections")
        self[tape] = both[self.small]
        return self[tape]


class _First:
    """The first pass in one pool.

    Args:
        grows: whether what grows is in this pool.
        workspaces: how many are.
    """

    def __init__(self, pool: Pool, sections: _Sections, grows: bool, workspaces: int) -> None:
        self.pool, self.sections, self._grows, self._skip = pool, sections, 2 * grows, workspaces
        self.left: list[list[int]] = []
        """Blocks that each layer left and that grow."""
        self._own: dict[int, tuple[int, int]] = {}
        """Bytes and block of each tensor outside the layers, by number."""
        self._handed_on: list[tuple[int, int]] = []
        """Bytes and block of what the last layer left for the next."""
        self.after_layers = 0
        """What was reserved when the first row of layers had been played."""

    def youngest(self, nbytes: int) -> list[int]:
        """The last block of this size that was made outside the layers and is there."""
        found = [block for size, block in self._own.values() if size == nbytes]
        return found[-1:]

    def play(self, log: Sequence[int | Tensor | tuple[Tape, int]]) -> None:
        pool, made, row = self.pool, 0, list[Section]()
        for at, entry in enumerate(log):
            if isinstance(entry, tuple):
                row += [self.sections[entry[0]]] * entry[1]
                if at + 1 == len(log) or not isinstance(log[at + 1], tuple):
                    self._play_row(row)
                    self.after_layers = self.after_layers or pool.reserved
                    row = []
            elif isinstance(entry, Tensor):
                if is_of(self.sections.small, entry.bytes):
                    pool.play((0,), iter((self._take(entry.bytes),)))
            elif entry < 0:
                pool.play((0,), iter([block for _, block in [self._own.pop(~entry, (0, -1))]]))
            else:
                if is_of(self.sections.small, entry):
                    self._own[made] = entry, pool.play((asking(entry),))[0]
                made += 1

    def _take(self, nbytes: int) -> int:
        """The block of a tensor that is let go: the layer before handed it on, or it is one outside the layers."""
        for at, (size, block) in enumerate(self._handed_on):
            if size == nbytes:
                del self._handed_on[at]
                return block
        return self._own.pop(next(number for number in reversed(self._own) if self._own[number][0] == nbytes))[1]

    def _play_row(self, row: list[Section]) -> None:
        """Layers one after the other. Where they leave nothing that grows, only until the pool is as it was."""
        seen: dict[object, int] = {}
        at = 0
        while at < len(row):
            section = row[at]
            blocks = self.pool.play(section.requests, map(self._take, section.adopted))
            left = [(nbytes, blocks[number]) for number, nbytes in section.left[self._skip :]]
            self._skip = 0
            self.left.append([block for _, block in left[: self._grows]])
            self._handed_on = left[self._grows :]
            at += 1
            if not self._grows:
                start = seen.setdefault((tuple(self.pool.free), *self._handed_on), at)
                period = row[start:at]
                while period and all(one is other for one, other in zip(row[at:], period, strict=False)):
                    if len(row) - at < len(period):
                        break
                    self.left += [[]] * len(period)
                    del row[at : at + len(period)]

"""A section of a tape as the pools of the allocator see it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

from .allocator import SMALL, UNIT

_SMALL_BYTES = SMALL * UNIT
_KEPT = 32
Entry = int | tuple[int]
"""Of a log, sizes by number: what is allocated, ~number of a tensor that is freed, or (what is freed of others,)."""


def is_of(small: bool, nbytes: int) -> bool:
    """Whether a tensor is in the small pool, or in the large one; one of no bytes is in none."""
    return 0 < nbytes <= _SMALL_BYTES if small else nbytes > _SMALL_BYTES


def units(nbytes: int) -> int:
    """Bytes in whole units of the allocator."""
    return -(-nbytes // UNIT)


class Section:
    """What a section asks one pool for, as `Pool.play` takes it; what it frees of others, and what it leaves.

    Args:
        asked: units of what it allocates, each size once.
        adopted: bytes of each tensor that it frees and did not make.
        left: number and bytes of what it makes and does not free.
    """

    def __init__(self, requests: list[int], asked: list[int], adopted: list[int], left: list[tuple[int, int]]) -> None:
        self.requests, self.asked, self.adopted, self.left = requests, asked, adopted, left

    @cached_property
    def takes(self) -> Counter[int]:
        """How many of each size it frees and did not make."""
        return Counter(self.adopted)

    @cached_property
    def leaves(self) -> Counter[int]:
        """How many of each size it leaves."""
        return Counter([nbytes for _, nbytes in self.left])

    @cached_property
    def shrinks(self) -> bool:
        """It frees more of a size than it leaves."""
        return any(count > self.leaves[nbytes] for nbytes, count in self.takes.items())

    @property
    def asks(self) -> tuple[object, ...]:
        """What is the same for sections that are alike in this pool."""
        return tuple(self.requests), tuple(self.adopted)


class Outline:
    """The log of a tape without sections, whatever its sizes are. How it is split into what the two pools are asked for
    depends only on which sizes are of which pool, so it is worked out once for all shapes that agree in that."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self.n_entries = len(entries)
        numbers = {entry[0] if isinstance(entry, tuple) else entry for entry in entries}
        self._numbers = sorted(number for number in numbers if number >= 0)
        """Which sizes it has."""
        self._known: dict[tuple[int, ...], tuple[_Half, _Half]] = {}

    def split(self, values: Sequence[int]) -> tuple[Section, Section]:
        """What it asks the large pool for, and the small one. `values`: bytes of each size."""
        sizes = [values[number] for number in self._numbers]
        pools = tuple([(nbytes <= _SMALL_BYTES) if nbytes else _NONE for nbytes in sizes])
        halves = self._known.get(pools)
        if halves is None:
            if len(self._known) == _KEPT:
                self._known.clear()
            halves = self._known[pools] = self._halves(dict(zip(self._numbers, pools, strict=True)))
        whole = [0, *[-(-nbytes // UNIT) for nbytes in sizes]]
        large, small = halves
        return large.filled(sizes, whole), small.filled(sizes, whole)

    def _halves(self, pools: dict[int, int]) -> tuple[_Half, _Half]:
        places = {number: place for place, number in enumerate(self._numbers)}
        halves = _Half(), _Half()
        numbers: list[tuple[int, int]] = []  # of each tensor, its pool and its number there
        for entry in self._entries:
            if isinstance(entry, tuple):
                if pools[entry[0]] != _NONE:
                    halves[pools[entry[0]]].adopt(places[entry[0]])
            elif entry >= 0:
                pool = pools[entry]
                numbers.append((pool, halves[pool].allocate(places[entry]) if pool != _NONE else 0))
            else:
                pool, number = numbers[~entry]
                if pool != _NONE:
                    halves[pool].free(number)
        return halves


_NONE = -1
"""The pool of a tensor of no bytes."""


class _Half:
    """What one pool is asked for, by places in the list of sizes."""

    def __init__(self) -> None:
        self.requests: list[int] = []
        """1 + the place of what is allocated; ~number of what is freed; 0 for one that it did not make."""
        self.places: list[int] = []
        """1 + the place, each once."""
        self.adopted: list[int] = []
        self.left: dict[int, int] = {}
        self.made = 0

    def allocate(self, place: int) -> int:
        requests, number = self.requests, self.made - 1
        if len(requests) > 1 and requests[-1] == ~number and requests[-2] == place + 1:
            # What came and went just before was in the same block, so it is as if it had stayed.
            requests.pop()
        else:
            requests.append(place + 1)
            if place + 1 not in self.places:
                self.places.append(place + 1)
            self.made += 1
            number += 1
        self.left[number] = place
        return number

    def free(self, number: int) -> None:
        self.requests.append(~number)
        del self.left[number]

    def adopt(self, place: int) -> None:
        self.requests.append(0)
        self.adopted.append(place)

    def filled(self, sizes: list[int], whole: list[int]) -> Section:
        """With the sizes in bytes, and in units."""
        return Section(
            [whole[request] if request >= 0 else request for request in self.requests],
            [whole[place] for place in self.places],
            [sizes[place] for place in self.adopted],
            [(number, sizes[place]) for number, place in self.left.items()],
        )

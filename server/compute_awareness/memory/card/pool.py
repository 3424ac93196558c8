"""One pool of the caching allocator without a capacity: what `allocator.simulate` does, with nothing counted but what
is reserved.

The small pool and the large one share nothing but the sum of what they reserve, and without a capacity nothing is
given back. So each can be played alone, and quicker: a block is one integer, size << SHIFT | address in units of 512
bytes, whether it is free or live.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

from .allocator import ADDRESS, SHIFT, SMALL, check_addresses, segment_size

_NONE: Iterator[int] = iter(())


class Pool:
    """Free blocks of one pool; a gap keeps segments from being neighbours."""

    def __init__(self, small: bool) -> None:
        self.free: list[int] = []
        self.size_at: dict[int, int] = {}
        """Sizes of the free blocks by where they start."""
        self.start_of: dict[int, int] = {}
        """Their starts by where they end."""
        self.chosen: list[int] = []
        """Free blocks that requests were served from, in order."""
        self.reserved = 0
        self._small = small
        self._next_address = 0
        self.least_rest = 1 if small else SMALL + 1
        """What is less than this is not split off."""

    def play(self, requests: Iterable[int], others: Iterator[int] = _NONE) -> list[int]:
        """Requests in units: n > 0 allocates, ~i frees what the i-th of these made, 0 frees the next of `others`, which
        are live blocks (-1: none). Returns the blocks that were made, freed or not."""
        free, size_at, start_of, least_rest = self.free, self.size_at, self.start_of, self.least_rest
        chosen = self.chosen.append
        blocks: list[int] = []
        for request in requests:
            if request > 0:
                at = bisect_left(free, request << SHIFT)
                if at < len(free):
                    block = free.pop(at)
                    chosen(block)
                    address, size = block & ADDRESS, block >> SHIFT
                    del size_at[address]
                    rest = size - request
                    if rest < least_rest:
                        del start_of[address + size]
                        blocks.append(block)
                        continue
                else:
                    address, size = self._next_address, segment_size(request)
                    self._next_address += size + 1
                    check_addresses(self._next_address)
                    self.reserved += size
                    rest = size - request
                    if rest < least_rest:
                        blocks.append(size << SHIFT | address)
                        continue
                blocks.append(request << SHIFT | address)
                start = address + request
                insort(free, rest << SHIFT | start)
                size_at[start] = rest
                start_of[address + size] = start
            else:
                block = blocks[~request] if request else next(others)
                if block < 0:
                    continue
                address = block & ADDRESS
                end = address + (block >> SHIFT)
                if address in start_of:
                    before = start_of.pop(address)
                    del free[bisect_left(free, size_at[before] << SHIFT | before)]
                    address = before
                if end in size_at:
                    after = size_at.pop(end)
                    del free[bisect_left(free, after << SHIFT | end)]
                    end += after
                size_at[address] = end - address
                start_of[end] = address
                insort(free, (end - address) << SHIFT | address)
        return blocks

    def shorten_last(self, size: int) -> None:
        """The largest free block loses so many units at its end."""
        block = self.free.pop()
        address, had = block & ADDRESS, block >> SHIFT
        del self.start_of[address + had]
        self.size_at[address] = had - size
        self.start_of[address + had - size] = address
        insort(self.free, (had - size) << SHIFT | address)

    def copy(self) -> Pool:
        """A pool in the same state that goes its own way."""
        other = Pool(self._small)
        other.free, other.chosen = self.free.copy(), self.chosen.copy()
        other.size_at, other.start_of = self.size_at.copy(), self.start_of.copy()
        other.reserved, other._next_address = self.reserved, self._next_address
        return other

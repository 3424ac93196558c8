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
        self.ends: dict[int, int] = {}
        """Both ends of each free block, each by the other."""
        self.chosen: list[int] = []
        """Free blocks that requests were served from, in order."""
        self.segments: dict[int, int] = {}
        """Size of each segment by where it starts."""
        self.reserved = 0
        self._small = small
        self._next_address = 0
        self.least_rest = 1 if small else SMALL + 1
        """What is less than this is not split off."""

    def play(self, requests: Iterable[int], others: Iterator[int] = _NONE) -> list[int]:
        """Requests in units: n > 0 allocates, ~i frees what the i-th of these made, 0 frees the next of `others`, which
        are live blocks (-1: none). Returns the blocks that were made, freed or not."""
        free, ends, least_rest = self.free, self.ends, self.least_rest
        chosen, take = self.chosen.append, ends.pop
        blocks: list[int] = []
        made = blocks.append
        for request in requests:
            if request > 0:
                at = bisect_left(free, request << SHIFT)
                if at < len(free):
                    block = free.pop(at)
                    chosen(block)
                    address = block & ADDRESS
                    end = take(address)
                    rest = end - address - request
                    if rest < least_rest:
                        del ends[end]
                        made(block)
                        continue
                else:
                    size = segment_size(request)
                    address = self._next_address
                    end = address + size
                    self._next_address = end + 1
                    self.segments[address] = size
                    check_addresses(end + 1)
                    self.reserved += size
                    rest = size - request
                    if rest < least_rest:
                        made(size << SHIFT | address)
                        continue
                made(request << SHIFT | address)
                address += request
                insort(free, rest << SHIFT | address)
            else:
                block = blocks[~request] if request else next(others)
                if block < 0:
                    continue
                address = block & ADDRESS
                end = address + (block >> SHIFT)
                if address in ends:
                    before = take(address)
                    del free[bisect_left(free, (address - before) << SHIFT | before)]
                    address = before
                if end in ends:
                    after = take(end)
                    del free[bisect_left(free, (after - end) << SHIFT | end)]
                    end = after
                insort(free, (end - address) << SHIFT | address)
            ends[address] = end
            ends[end] = address
        return blocks

    def release(self) -> None:
        """Segments without a live block go back to the driver (release_cached_blocks)."""
        kept: list[int] = []
        for block in self.free:
            address, size = block & ADDRESS, block >> SHIFT
            if self.segments.get(address) == size:
                del self.segments[address], self.ends[address], self.ends[address + size]
                self.reserved -= size
            else:
                kept.append(block)
        self.free[:] = kept

    def shorten_last(self, size: int) -> None:
        """The largest free block loses so many units at its end."""
        block = self.free.pop()
        address = block & ADDRESS
        end = self.ends.pop(address)
        del self.ends[end]
        self.ends[address] = end - size
        self.ends[end - size] = address
        insort(self.free, block - (size << SHIFT))

    def copy(self) -> Pool:
        """A pool in the same state that goes its own way."""
        other = Pool(self._small)
        other.free, other.chosen, other.ends = self.free.copy(), self.chosen.copy(), self.ends.copy()
        other.segments = self.segments.copy()
        other.reserved, other._next_address = self.reserved, self._next_address
        return other

"""One pool of the caching allocator without a capacity: what `allocator.simulate` does, with nothing counted but what
is reserved.

The small pool and the large one share nothing but the sum of what they reserve, and without a capacity nothing is
given back. So each can be played alone, and quicker: a block is one integer, size << SHIFT | address in units of 512
bytes, whether it is free or live.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from functools import lru_cache

from .allocator import ADDRESS, SHIFT, SMALL, TOP, _Segments, check_addresses, segment_size
from .section import asking, is_of

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
        self.next_address = 0 if small else TOP
        """Small segments begin here and the next one above, large ones end one below, and the next one below that."""
        self.least_rest = 1 if small else SMALL + 1
        """What is less than this is not split off."""

    def play(self, requests: Iterable[int], others: Iterator[int] = _NONE) -> list[int]:
        """Requests: size << SHIFT allocates, ~i frees what the i-th of these made, 0 frees the next of `others`, which
        are live blocks (-1: none). Returns the blocks that were made, freed or not."""
        free, ends, least_rest = self.free, self.ends, self.least_rest << SHIFT
        chosen, take = self.chosen.append, ends.pop
        blocks: list[int] = []
        made = blocks.append
        for request in requests:
            if request > 0:
                at = bisect_left(free, request)
                if at < len(free):
                    block = free.pop(at)
                    chosen(block)
                    address = block & ADDRESS
                    end = take(address)
                    rest = block - request
                    if rest < least_rest:
                        del ends[end]
                        made(block)
                        continue
                else:
                    size = segment_size(request >> SHIFT)
                    address = self._open(size)
                    end = address + size
                    self.reserved += size
                    block = size << SHIFT | address
                    rest = block - request
                    if rest < least_rest:
                        made(block)
                        continue
                made(request | address)
                size = request >> SHIFT
                address += size
                insort(free, rest + size)
            else:
                block = blocks[~request] if request else next(others)
                if block < 0:
                    continue
                address = block & ADDRESS
                end = address + (block >> SHIFT)
                if address in ends:
                    before = take(address)
                    lower = (address - before) << SHIFT | before
                    del free[bisect_left(free, lower)]
                    block += lower - address
                    address = before
                if end in ends:
                    after = take(end)
                    more = (after - end) << SHIFT
                    del free[bisect_left(free, more | end)]
                    block += more
                    end = after
                insort(free, block)
            ends[address] = end
            ends[end] = address
        return blocks

    def _open(self, size: int) -> int:
        """The address of a new segment."""
        address = self.next_address
        if self._small:
            self.next_address = address + size + 1
            check_addresses(self.next_address)
        else:
            address -= size + 1
            check_addresses(TOP - address)
            self.next_address = address
        self.segments[address] = size
        return address

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

    def shorten(self, block: int, size: int) -> None:
        """A free block loses so many units at its end."""
        del self.free[bisect_left(self.free, block)]
        address = block & ADDRESS
        end = self.ends.pop(address)
        del self.ends[end]
        self.ends[address] = end - size
        self.ends[end - size] = address
        insort(self.free, block - (size << SHIFT))

    @classmethod
    def large_of(cls, allocator: _Segments) -> Pool:
        """The large pool as an allocator has it, what is live in it left where it is."""
        pool = cls(False)
        pool.free = allocator.free_blocks[0].copy()
        for block in pool.free:
            start = block & ADDRESS
            end = start + (block >> SHIFT)
            pool.ends[start], pool.ends[end] = end, start
        pool.reserved = sum(size for address, size in allocator.segments.items() if address < TOP)
        pool.next_address = allocator.lowest
        return pool

    def copy(self) -> Pool:
        """A pool in the same state that goes its own way."""
        other = Pool(self._small)
        other.free, other.chosen, other.ends = self.free.copy(), self.chosen.copy(), self.ends.copy()
        other.segments = self.segments.copy()
        other.reserved, other.next_address = self.reserved, self.next_address
        return other


@lru_cache(maxsize=64)
def with_standing(standing: tuple[int, ...], small: bool) -> tuple[dict[int, list[int]], Pool]:
    """Blocks by bytes, and the pool, once the tensors that stay are there: a model's weights are the same each time."""
    pool = Pool(small)
    mine = [nbytes for nbytes in standing if is_of(small, nbytes)]
    blocks: dict[int, list[int]] = {}
    for nbytes, block in zip(mine, pool.play(map(asking, mine)), strict=True):
        blocks.setdefault(nbytes, []).append(block)
    pool.chosen.clear()
    return blocks, pool

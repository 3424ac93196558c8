"""PyTorch's CUDA caching allocator, played over a sequence of allocations and frees.

Read off torch's c10/cuda/CUDACachingAllocator.cpp and c10/core/AllocatorConfig.h (constants the same in 2.11 to 2.15):
requests are rounded up to 512 bytes; up to 1 MiB they come from segments of 2 MiB, up to 10 MiB from segments of
20 MiB, above that from a segment of their own in whole 2 MiB. The smallest free block that is large enough is taken
(of equal ones the lowest address), split where enough would be left, and joined with free neighbours when it is let
go. Segments go back to the driver only when it has nothing left.

One stream, default settings (no max_split_size, no rounding to powers of two), no CUDA graphs. Where the driver puts a
segment decides between free blocks of exactly equal size: on an H100 each large one lay below those before it (but for
what fits into the rest of 32 MiB that an earlier one began, which is left out here), small ones above each other.
Sizes and addresses are counted in units of 512 bytes inside, so that a free block sorts as one integer.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field

from ...errors import InputError

UNIT = 512
SMALL = 1024 * 1024 // UNIT  # kSmallSize: the largest request of the small pool, and the least that a split leaves
_SMALL_SEGMENT = 2 * SMALL  # kSmallBuffer
_LARGE_SEGMENT = 20 * SMALL  # large_segment_size
_MIN_LARGE = 10 * SMALL  # kMinLargeAlloc
_ROUND_LARGE = 2 * SMALL  # kRoundLarge
SHIFT = 40
ADDRESS = (1 << SHIFT) - 1
TOP = 1 << (SHIFT - 1)
"""Units that large segments have addresses for, from here down: 256 TiB. The small pool's addresses begin here."""


@dataclass(frozen=True)
class Reserved:
    """What the allocator took from the driver. Bytes."""

    peak_reserved: int
    """torch.cuda.max_memory_reserved()."""
    peak_allocated: int
    """torch.cuda.max_memory_allocated(): rounded requests, with the rest of a block that was not worth splitting."""
    reserved: int
    """At the end of the sequence."""
    allocated: int
    failed: int | None = None
    """The request, in bytes, that the driver could not meet: CUDA out of memory, nothing after it was played."""
    until: int | None = field(default=None, compare=False)
    """With any capacity from the one given to below this it goes as here; None = with any larger one."""


def simulate(requests: Iterable[int], capacity: int | None = None, expandable_segments: bool = False) -> Reserved:
    """Play `requests` (see `Tape.requests`: n >= 0 allocates n bytes, ~i frees what the i-th allocation made).

    Args:
        capacity: bytes the driver has for the allocator; None = enough. Where it would be exceeded, segments without
            a live block are given back and the request is tried once more, as torch does.
        expandable_segments: PYTORCH_ALLOC_CONF=expandable_segments:True.

    Raises:
        ValueError: `capacity` together with `expandable_segments`, which is not covered.
    """
    if expandable_segments and capacity is not None:
        raise ValueError("expandable segments are simulated without a capacity only")
    allocator = _Expandable() if expandable_segments else _Segments(None if capacity is None else capacity // UNIT)
    return _play(allocator, requests)


def _play(allocator: _Expandable | _Segments, requests: Iterable[int]) -> Reserved:
    """`simulate` on top of what the allocator has already."""
    blocks: list[int] = []  # address of each allocation; -1 for one of no bytes
    for request in requests:
        if request > 0:
            address = allocator.malloc((request + UNIT - 1) // UNIT)
            if address < 0:
                return allocator.result(request)
            blocks.append(address)
        elif request:
            address = blocks[~request]
            if address >= 0:
                allocator.free(address)
        else:
            blocks.append(-1)  # no bytes, no block
    return allocator.result(None)


class _Pools:
    """Free blocks by size and by address; live blocks by address. A gap keeps segments from being neighbours."""

    def __init__(self) -> None:
        self.free_blocks: tuple[list[int], list[int]] = ([], [])  # large, small: size << SHIFT | address, sorted
        self.size_at: dict[int, int] = {}  # free blocks by where they start
        self.start_of: dict[int, int] = {}  # and by where they end
        self.live: dict[int, int] = {}
        self.segments: dict[int, int] = {}
        self.reserved = self.peak_reserved = 0
        self.allocated = self.peak_allocated = 0
        self.least_missing: int | None = None
        """The smallest capacity that was wanted and not there."""

    def result(self, failed: int | None) -> Reserved:
        numbers = self.peak_reserved, self.peak_allocated, self.reserved, self.allocated
        until = None if self.least_missing is None else UNIT * self.least_missing
        return Reserved(*(UNIT * n for n in numbers), failed=failed, until=until)

    def _reserve(self, size: int) -> None:
        self.reserved += size
        if self.reserved > self.peak_reserved:
            self.peak_reserved = self.reserved

    def _take(self, pool: list[int], address: int, have: int, size: int, keep: int) -> int:
        """Hand out the first `size` units of a block that is off its pool's list; `keep` or more are split off."""
        rest = have - size
        if rest >= keep:
            start = address + size
            insort(pool, rest << SHIFT | start)
            self.size_at[start] = rest
            self.start_of[start + rest] = start
        else:
            size = have
        self.live[address] = size
        self.allocated += size
        if self.allocated > self.peak_allocated:
            self.peak_allocated = self.allocated
        return address

    def _release_to(self, pool: list[int], address: int) -> None:
        """A live block becomes free and is joined with its free neighbours."""
        size = self.live.pop(address)
        self.allocated -= size
        end = address + size
        before = self.start_of.pop(address, None)
        if before is not None:
            del pool[bisect_left(pool, self.size_at.pop(before) << SHIFT | before)]
            address = before
        after = self.size_at.pop(end, None)
        if after is not None:
            del pool[bisect_left(pool, after << SHIFT | end)]
            end += after
        self.size_at[address] = end - address
        self.start_of[end] = address
        insort(pool, (end - address) << SHIFT | address)


class _Segments(_Pools):
    """The default: segments from cudaMalloc. Those of the small pool have a range of addresses of their own."""

    def __init__(self, capacity: int | None) -> None:
        super().__init__()
        self.capacity = capacity
        self.lowest = self.next_small = TOP
        """Where the large segment that was opened last begins, and the next small one."""

    def malloc(self, size: int) -> int:
        """Address of a block of `size` units; -1 where the capacity does not allow it."""
        small = size <= SMALL
        pool = self.free_blocks[small]
        at = bisect_left(pool, size << SHIFT)
        if at < len(pool):
            found = pool.pop(at)
            address, have = found & ADDRESS, found >> SHIFT
            del self.size_at[address]
            del self.start_of[address + have]
        else:
            have = segment_size(size)
            if self._lacks(have):
                self.release_cached()
                if self._lacks(have):
                    return -1
            self._reserve(have)
            if small:
                address = self.next_small
                self.next_small += have + 1
            else:
                address = self.lowest = self.lowest - have - 1
                check_addresses(TOP - address)
            self.segments[address] = have
        return self._take(pool, address, have, size, 1 if small else SMALL + 1)

    def _lacks(self, have: int) -> bool:
        """Whether the driver has no `have` units more."""
        wanted = self.reserved + have
        if self.capacity is None or wanted <= self.capacity:
            return False
        self.least_missing = wanted if self.least_missing is None else min(self.least_missing, wanted)
        return True

    def free(self, address: int) -> None:
        self._release_to(self.free_blocks[address >= TOP], address)

    def played(self, requests: Iterable[int]) -> Reserved:
        """What `simulate` says of `requests` that come on top of what is there; nothing changes here. The peak is from
        now on."""
        other = copy(self)
        other.free_blocks = self.free_blocks[0].copy(), self.free_blocks[1].copy()
        other.size_at, other.start_of, other.live = self.size_at.copy(), self.start_of.copy(), self.live.copy()
        other.segments = self.segments.copy()
        other.peak_reserved, other.peak_allocated = self.reserved, self.allocated
        return _play(other, requests)

    def release_cached(self) -> None:
        """Segments without a live block go back to the driver (release_cached_blocks)."""
        for pool in self.free_blocks:
            kept = []
            for block in pool:
                address, size = block & ADDRESS, block >> SHIFT
                if self.segments.get(address) == size:
                    del self.segments[address], self.size_at[address], self.start_of[address + size]
                    self.reserved -= size
                else:
                    kept.append(block)
            pool[:] = kept


class _Expandable(_Pools):
    """expandable_segments:True: one range of addresses per pool, whose pages (2 MiB, 20 MiB) are mapped at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.bases = (0, TOP)
        self.ends: list[int] = list(self.bases)

    def malloc(self, size: int) -> int:
        small = size <= SMALL
        pool, end = self.free_blocks[small], self.ends[small]
        at = bisect_left(pool, size << SHIFT)
        if at < len(pool):
            # The block before the unmapped rest counts as endless: any other that is large enough is preferred.
            if (pool[at] & ADDRESS) + (pool[at] >> SHIFT) == end and at + 1 < len(pool):
                at += 1
            found = pool.pop(at)
            address, have = found & ADDRESS, found >> SHIFT
            del self.size_at[address]
            del self.start_of[address + have]
        else:
            address = self.start_of.pop(end, end)
            if address < end:
                del pool[bisect_left(pool, self.size_at.pop(address) << SHIFT | address)]
            page = _SMALL_SEGMENT if small else _LARGE_SEGMENT
            mapped = -(-(address + size - end) // page) * page
            self._reserve(mapped)
            self.ends[small] = end + mapped
            check_addresses(self.ends[0])
            have = end + mapped - address
        return self._take(pool, address, have, size, 1)

    def free(self, address: int) -> None:
        self._release_to(self.free_blocks[address >= self.bases[1]], address)


def check_addresses(used: int) -> None:
    """Raises InputError where a pool has opened more segments than there are addresses for."""
    if used > TOP:
        raise InputError("this takes more than 256 TiB on one device; check batch_size and seq_len")


def segment_size(size: int) -> int:
    """Units of the segment that is opened for a request of `size` units (get_allocation_size)."""
    if size <= SMALL:
        return _SMALL_SEGMENT
    if size < _MIN_LARGE:
        return _LARGE_SEGMENT
    return -(-size // _ROUND_LARGE) * _ROUND_LARGE

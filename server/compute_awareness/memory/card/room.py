"""Whether a run gets by with less than it reserves where there is room.

What torch keeps idle in its caching allocator shows on the card, and is no need: where the driver has nothing left,
torch gives back every segment without a live tensor and asks once more (release_cached_blocks in
c10/cuda/CUDACachingAllocator.cpp). On an H100 whose memory was capped, a forward pass ran so in 13.3 GiB for which
15.4 GiB are estimated where there is room, and where runs died, the simulated allocator died at the same request
(`tests/truth/test_at_the_edge.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .allocator import Reserved, simulate


class Order(Protocol):
    """What knows the order of its allocations, as a `Tape` does."""

    def requests(self, standing: Sequence[int] = (), workspace: int = 0) -> list[int]:
        """See `Tape.requests`."""
        ...


@dataclass(frozen=True)
class Requests:
    """What a run asks the caching allocator for, in order."""

    tensors: int
    """Bytes of its tensors at the peak."""
    standing: Sequence[int]
    """Bytes of each tensor that is there before, and stays."""
    beside: int
    """Bytes of one tensor more that stays."""
    events: Order = field(compare=False, repr=False)
    unsure: int = 0
    """Bytes more that are asked for, because not all that it does is among the events."""

    def played(self, capacity: int, workspace: int) -> Reserved:
        """In `capacity` bytes from the driver, `workspace` of cuBLAS among them."""
        return simulate(self.events.requests([*self.standing, self.beside], workspace), capacity)

    def run_in(self, capacity: int, workspace: int) -> bool:
        """Whether so many bytes are enough for the allocator."""
        least = self.tensors + self.unsure
        return capacity >= least and self.played(capacity - self.unsure, workspace).failed is None

"""Whether a run gets by with less than it reserves where there is room.

What torch keeps idle in its caching allocator shows on the card, and is no need: where the driver has nothing left,
torch gives back every segment without a live tensor and asks once more (release_cached_blocks in
c10/cuda/CUDACachingAllocator.cpp). On an H100 whose memory was capped, a forward pass ran so in 13.3 GiB for which
15.4 GiB are estimated where there is room, and where runs died, the simulated allocator died at the same request
(`tests/truth/test_at_the_edge.py`).

More room is not always better: segments are then given back at another request, and what lives at that moment pins
others. What a run gets is known within some hundred MiB (the context), so all of that is played.
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
        return simulate(self._with(workspace), capacity)

    def run_in(self, capacity: int, workspace: int, most: int = 0) -> bool:
        """Whether so many bytes are enough for the allocator, and any more up to `most`."""
        if capacity < self.tensors + self.unsure:
            return False
        requests = self._with(workspace)
        while True:
            played = simulate(requests, capacity - self.unsure)
            if played.failed is not None:
                return False
            if played.until is None or played.until + self.unsure > most:
                return True
            capacity = played.until + self.unsure

    def _with(self, workspace: int) -> list[int]:
        return self.events.requests([*self.standing, self.beside], workspace)

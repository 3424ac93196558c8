"""A section of a tape as one pool of the allocator sees it."""

from __future__ import annotations

import sys

from ..tape import Tape, Tensor
from .allocator import SMALL, UNIT

_SMALL_BYTES = SMALL * UNIT


def is_plain(tape: Tape, outer: bool = False) -> bool:
    """No sections within sections, and what is freed from elsewhere is found by its size."""
    for entry in tape.log:
        if isinstance(entry, Tensor):
            if entry.home is not None or entry.origin is not None:
                return False
        elif isinstance(entry, tuple) and not outer:
            return False
    return True


def is_of(small: bool, nbytes: int) -> bool:
    """Whether a tensor is in the small pool, or in the large one; one of no bytes is in none."""
    return 0 < nbytes <= _SMALL_BYTES if small else nbytes > _SMALL_BYTES


def units(nbytes: int) -> int:
    """Bytes in whole units of the allocator."""
    return -(-nbytes // UNIT)


class Section:
    """What a section asks one pool for, as `Pool.play` takes it; what it frees of others, and what it leaves."""

    def __init__(self, tape: Tape, small: bool) -> None:
        requests: list[int] = []
        adopted: list[int] = []
        numbers: list[int] = []  # of each tensor of the tape, among those of this pool
        sizes: list[int] = []
        freed: set[int] = set()
        low, high = (0, _SMALL_BYTES) if small else (_SMALL_BYTES, sys.maxsize)
        for entry in tape.log:
            if isinstance(entry, int):
                if entry < 0:
                    number = numbers[~entry]
                    if number >= 0:
                        requests.append(~number)
                        freed.add(number)
                elif low < entry <= high:
                    numbers.append(len(sizes))
                    sizes.append(entry)
                    requests.append(-(-entry // UNIT))
                else:
                    numbers.append(-1)
            elif isinstance(entry, Tensor) and low < entry.bytes <= high:
                requests.append(0)
                adopted.append(entry.bytes)
        self.requests = requests
        self.adopted = adopted
        """Bytes of each tensor that it frees and did not make."""
        self.left = [(number, nbytes) for number, nbytes in enumerate(sizes) if number not in freed]
        """Number and bytes of what it makes and does not free."""
        left = [nbytes for _, nbytes in self.left]
        self.asked = sum(request for request in requests if request > 0) + sum(map(units, adopted))
        """Units that it allocates, and frees of others, in all."""
        self.asks = tuple(requests), tuple(adopted)
        """What is the same for sections that are alike in this pool."""
        self.shrinks = any(adopted.count(nbytes) > left.count(nbytes) for nbytes in adopted)
        """It frees more of a size than it leaves."""

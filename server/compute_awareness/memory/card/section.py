"""A section of a tape as the pools of the allocator see it."""

from __future__ import annotations

from collections import Counter

from ..tape import Tape, Tensor
from .allocator import SMALL, UNIT

_SMALL_BYTES = SMALL * UNIT


def is_of(small: bool, nbytes: int) -> bool:
    """Whether a tensor is in the small pool, or in the large one; one of no bytes is in none."""
    return 0 < nbytes <= _SMALL_BYTES if small else nbytes > _SMALL_BYTES


def units(nbytes: int) -> int:
    """Bytes in whole units of the allocator."""
    return -(-nbytes // UNIT)


class Section:
    """What a section asks one pool for, as `Pool.play` takes it; what it frees of others, and what it leaves."""

    def __init__(self) -> None:
        self.requests: list[int] = []
        self.adopted: list[int] = []
        """Bytes of each tensor that it frees and did not make."""
        self.left: list[tuple[int, int]] = []
        """Number and bytes of what it makes and does not free."""
        self.takes: Counter[int] = Counter()
        """How many of each size it frees and did not make."""
        self.leaves: Counter[int] = Counter()
        """How many of each size it leaves."""
        self.shrinks = False
        """It frees more of a size than it leaves."""
        self.asked = 0
        """Units that it allocates, and frees of others, in all."""
        self.asks: tuple[object, ...] = ()
        """What is the same for sections that are alike in this pool."""

    def end(self, sizes: list[int], freed: set[int]) -> None:
        """All requests are there. `sizes`: bytes of what it makes; `freed`: the numbers of what it frees of that."""
        self.left = [(number, nbytes) for number, nbytes in enumerate(sizes) if number not in freed]
        self.takes, self.leaves = Counter(self.adopted), Counter([nbytes for _, nbytes in self.left])
        self.shrinks = any(count > self.leaves[nbytes] for nbytes, count in self.takes.items())
        self.asked = sum([request for request in self.requests if request > 0]) + sum(map(units, self.adopted))
        self.asks = tuple(self.requests), tuple(self.adopted)


def split(tape: Tape) -> tuple[Section, Section] | None:
    """What the tape asks the large pool for, and the small one; None where it has sections of its own, or frees tensors
    from elsewhere that are not known by their size."""
    pools = Section(), Section()
    sizes: tuple[list[int], list[int]] = ([], [])
    freed: tuple[set[int], set[int]] = (set(), set())
    numbers: list[int] = []  # of each tensor, twice its number among those of its pool, and 1 if that is the small one
    for entry in tape.log:
        if isinstance(entry, int):
            if entry > 0:
                small = entry <= _SMALL_BYTES
                mine, requests, size = sizes[small], pools[small].requests, -(-entry // UNIT)
                if len(requests) > 1 and requests[-1] == -len(mine) and requests[-2] == size:
                    # What came and went just before was in the same block, so it is as if it had stayed.
                    requests.pop()
                    freed[small].discard(len(mine) - 1)
                    numbers.append(2 * len(mine) - 2 + small)
                    mine[-1] = entry
                    continue
                numbers.append(2 * len(mine) + small)
                mine.append(entry)
                requests.append(size)
            elif entry:
                number = numbers[~entry]
                if number >= 0:
                    small, number = number & 1, number >> 1
                    pools[small].requests.append(~number)
                    freed[small].add(number)
            else:
                numbers.append(-1)
        elif isinstance(entry, tuple) or entry.home is not None or entry.origin is not None:
            return None
        elif entry.bytes:
            section = pools[entry.bytes <= _SMALL_BYTES]
            section.requests.append(0)
            section.adopted.append(entry.bytes)
    for section, mine, gone in zip(pools, sizes, freed, strict=True):
        section.end(mine, gone)
    return pools


def is_plain(tape: Tape) -> bool:
    """What a tape of sections frees from elsewhere is found by its size."""
    return not any(
        isinstance(entry, Tensor) and (entry.home is not None or entry.origin is not None) for entry in tape.log
    )

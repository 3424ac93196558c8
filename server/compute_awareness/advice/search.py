"""The largest whole number with which something fits, in few tries: memory grows nearly in a straight line."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Tried(NamedTuple):
    """One size: whether it fits, and the bytes it takes at most; None where it is refused."""

    fits: bool
    nbytes: int | None


def largest_below(tried: Callable[[int], Tried], free: int, low: int, at_low: Tried, high: int, at_high: Tried) -> int:
    """A number that fits while the next one does not, from `low`, which fits, up to `high`, which does not.

    Tries where the straight line between both ends meets `free` bytes, and the middle every third time: with memory
    that grows with the square of a size the line alone would come near from one side only. What takes more than is free
    and fits all the same (torch gives back what it keeps idle) is on no line: then the middle each time.
    """
    tries = 0
    while high - low > 1:
        middle = (low + high) // 2
        more, left = _more(at_low, at_high), free - (at_low.nbytes or 0)
        if tries % 3 < 2 and more and left >= 0:
            middle = min(max(low + left * (high - low) // more, low + 1), high - 1)
        tries += 1
        found = tried(middle)
        if found.fits:
            low, at_low = middle, found
        else:
            high, at_high = middle, found
    return low


def largest_up_to(tried: Callable[[int], Tried], free: int, most: int) -> int | None:
    """A number from 1 to `most` that fits while the next one does not; None where 1 does not fit, or `most` does."""
    low, at_low = 1, tried(1)
    if not at_low.fits:
        return None
    high = 2
    while True:
        at_high = tried(high)
        if not at_high.fits:
            return largest_below(tried, free, low, at_low, high, at_high)
        if high == most:
            return None
        further = 2 * high
        more = _more(at_low, at_high)
        if more:
            reach = high + (free - (at_high.nbytes or 0)) * (high - low) // more
            further = min(max(further, reach + 1), 16 * high)
        low, at_low, high = high, at_high, min(further, most)


def _more(at_low: Tried, at_high: Tried) -> int:
    """Bytes that the larger size takes more; 0 where one of the two was refused, or it takes no more."""
    if at_low.nbytes is None or at_high.nbytes is None:
        return 0
    return max(0, at_high.nbytes - at_low.nbytes)

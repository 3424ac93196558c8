"""How many runs of different size hold on one card at once. Sizes and capacity are bytes."""

from __future__ import annotations

from collections.abc import Sequence


def any_of(sizes: Sequence[int], capacity: int) -> int:
    """The most runs of which every choice fits: k such that the k largest fit together."""
    return _longest_prefix(sorted(sizes, reverse=True), capacity)


def most_of(sizes: Sequence[int], capacity: int) -> int:
    """The most runs of which some choice fits: the smallest ones together. No choice of more does."""
    return _longest_prefix(sorted(sizes), capacity)


def _longest_prefix(ordered: Sequence[int], capacity: int) -> int:
    total = 0
    for count, size in enumerate(ordered):
        total += size
        if total > capacity:
            return count
    return len(ordered)


def first_fit_decreasing(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `sizes` in groups that fit the capacity: each run, the largest first, joins the first group with room.

    At most 11/9 of the fewest groups and 6/9 of one more (Dosa, 2007).

    Raises:
        ValueError: a size above the capacity.
    """
    groups: list[list[int]] = []
    room: list[int] = []
    still_open: list[int] = []  # groups that the smallest run could still join
    smallest = min(sizes, default=0)
    for index in sorted(range(len(sizes)), key=lambda at: -sizes[at]):
        size = sizes[index]
        if size > capacity:
            raise ValueError(f"{size} bytes do not fit {capacity}")
        at = next((at for at in still_open if size <= room[at]), None)
        if at is None:
            at = len(groups)
            groups.append([])
            room.append(capacity)
            still_open.append(at)
        groups[at].append(index)
        room[at] -= size
        if room[at] < smallest:
            still_open.remove(at)
    return groups


def groups_at_least(sizes: Sequence[int], capacity: int) -> int:
    """No packing has fewer groups: all sizes together, or the runs above half the capacity, which never share."""
    if not sizes:
        return 0
    return max(-(-sum(sizes) // capacity), sum(1 for size in sizes if 2 * size > capacity))


def longest_first(hours: Sequence[float], machines: int) -> list[list[int]]:
    """Indices of `hours` for each machine: the longest run first, always to the machine that is done first.

    At most 4/3 of the shortest possible time (Graham, 1969).
    """
    shares: list[list[int]] = [[] for _ in range(machines)]
    done = [0.0] * machines
    for index in sorted(range(len(hours)), key=lambda at: -hours[at]):
        at = min(range(machines), key=done.__getitem__)
        shares[at].append(index)
        done[at] += hours[index]
    return shares

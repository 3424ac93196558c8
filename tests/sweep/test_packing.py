"""Packing against brute force: every claim of `packing` holds for every choice of runs."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_awareness.sweep.packing import any_of, first_fit_decreasing, groups_at_least, longest_first, most_of

SIZES = st.lists(st.integers(1, 30), min_size=0, max_size=7)
CAPACITY = st.integers(30, 60)
steady = settings(derandomize=True, deadline=None, database=None, max_examples=150)


def fewest_groups(sizes: list[int], capacity: int) -> int:
    """By trying: each run joins one of the groups so far or opens a new one."""

    def place(rest: list[int], room: tuple[int, ...]) -> int:
        if not rest:
            return len(room)
        size, *later = rest
        joined = [
            place(later, (*room[:at], left - size, *room[at + 1 :])) for at, left in enumerate(room) if size <= left
        ]
        return min([*joined, place(later, (*room, capacity - size))])

    return place(sizes, ())


@steady
@given(SIZES, CAPACITY)
def test_any_and_most_are_what_every_choice_shows(sizes: list[int], capacity: int) -> None:
    fits = {k: [sum(chosen) <= capacity for chosen in combinations(sizes, k)] for k in range(len(sizes) + 1)}
    assert any_of(sizes, capacity) == max(k for k, found in fits.items() if all(found))
    assert most_of(sizes, capacity) == max(k for k, found in fits.items() if any(found))


@steady
@given(SIZES, CAPACITY)
def test_first_fit_decreasing_packs_each_run_once_and_nearly_as_well_as_can_be(sizes: list[int], capacity: int) -> None:
    groups = first_fit_decreasing(sizes, capacity)
    assert sorted(at for group in groups for at in group) == list(range(len(sizes)))
    assert all(sum(sizes[at] for at in group) <= capacity for group in groups)
    best = fewest_groups(sizes, capacity)
    assert groups_at_least(sizes, capacity) <= best <= len(groups) <= 11 / 9 * best + 6 / 9


@steady
@given(st.lists(st.integers(1, 50), max_size=200), st.integers(50, 400))
def test_closed_groups_change_nothing(sizes: list[int], capacity: int) -> None:
    """Groups that no run can join are no longer looked at: the plain rule gives the same."""
    plain: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda at: -sizes[at]):
        for group in plain:
            if sum(sizes[at] for at in group) + sizes[index] <= capacity:
                group.append(index)
                break
        else:
            plain.append([index])
    assert first_fit_decreasing(sizes, capacity) == plain


def test_what_does_not_fit_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="61 bytes do not fit 60"):
        first_fit_decreasing([5, 61], 60)


@steady
@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 3))
def test_longest_first_is_within_four_thirds_of_the_shortest(hours: list[int], machines: int) -> None:
    shares = longest_first(hours, machines)
    assert len(shares) == machines and sorted(at for share in shares for at in share) == list(range(len(hours)))

    def shortest(rest: list[int], done: tuple[int, ...]) -> int:
        if not rest:
            return max(done)
        return min(shortest(rest[1:], (*done[:at], done[at] + rest[0], *done[at + 1 :])) for at in range(machines))

    longest = max(sum(hours[at] for at in share) for share in shares)
    assert longest <= shortest(hours, (0,) * machines) * 4 / 3

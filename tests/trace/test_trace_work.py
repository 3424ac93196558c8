"""The work of the steps of decoding between those that were traced."""

from __future__ import annotations

import pytest

from compute_awareness.trace.work import series


def traced(curve, first: int, last: int) -> dict[int, int]:
    """The steps that the worker traces: the first ones, and the last four."""
    return {n: curve(n) for n in (*range(first, first + 4), *range(last - 3, last + 1))}


def line(n: int) -> int:
    return 700 + 13 * n


def parabola(n: int) -> int:
    return 90 + 11 * n + 4 * n * n


@pytest.mark.parametrize("curve", [line, parabola, lambda n: 5])
def test_every_step_is_on_one_curve(curve):
    assert series(traced(curve, 2, 1000), 2, 1000) == (sum(map(curve, range(2, 1001))), True)


def test_without_a_cache_the_last_steps_are_enough():
    known = {n: parabola(n) for n in range(96, 101)}
    assert series(known, 2, 100) == (sum(map(parabola, range(2, 101))), True)
    assert series(known, 1, 1) == (parabola(1), True)


@pytest.mark.parametrize("full", [2, 3, 4, 5, 6, 50, 96, 97, 98, 99, 100, 300])
def test_a_sliding_window_gets_full_at_some_step(full):
    """All of it is right, though a bend in the middle is not seen."""

    def curve(n: int) -> int:  # one layer of two slides
        return 700 + 13 * n + 13 * min(n, full)

    assert series(traced(curve, 2, 100), 2, 100) == (sum(map(curve, range(2, 101))), full in (2, 100, 300))


def test_what_lies_on_neither_is_summed_between_the_known_steps_and_said_to_be_so():
    def curve(n: int) -> int:  # windows of two sizes
        return 700 + 13 * min(n, 20) + 13 * min(n, 60) + 13 * n

    total, exact = series(traced(curve, 2, 100), 2, 100)
    assert not exact
    assert total == pytest.approx(sum(map(curve, range(2, 101))), rel=0.05)
    uneven = {n: 372 - (n == 100) for n in range(96, 101)}  # the last step samples nothing more
    assert series(uneven, 1, 1) == (372, False)
    assert series(uneven, 1, 100) == (372 * 100 - 1, False)
    assert series({1: 8, 2: 3, 3: 5}, 1, 3) == (16, True)

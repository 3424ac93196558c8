"""Green means it runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_awareness.advice.verdict import judge
from compute_awareness.units import GIB


@pytest.mark.parametrize(
    ("low", "needed", "high", "free", "status"),
    [
        (8, 10, 12, 16, "fits"), (8, 10, 12, 12, "fits"), (8, 10, 12, 11, "tight"), (8, 10, 12, 10, "tight"),
        (8, 10, 12, 9, "tight"), (8, 10, 12, 8, "tight"), (8, 10, 12, 7, "does_not_fit"),
        (8, 10, 12, 0, "does_not_fit"),
        (8, 10, 12, None, "unknown"),
    ],
)  # fmt: skip
def test_status(low: int, needed: int, high: int, free: int | None, status: str) -> None:
    verdict = judge(needed * GIB, low * GIB, high * GIB, None if free is None else free * GIB, "RTX 4090")
    assert verdict.status == status
    assert verdict.needed_bytes == needed * GIB
    assert verdict.headroom_bytes == (None if free is None else (free - needed) * GIB)
    assert "GiB" in verdict.why and "RTX 4090" in verdict.why


def test_the_two_kinds_of_tight_are_told_apart() -> None:
    likely = judge(10 * GIB, 8 * GIB, 12 * GIB, 11 * GIB, "T4").why
    unlikely = judge(10 * GIB, 8 * GIB, 12 * GIB, 9 * GIB, "T4").why
    assert "should fit" in likely and "run out" not in likely
    assert "may run out" in unlikely


@given(*[st.integers(0, 10**15)] * 4)
def test_green_only_where_the_high_end_fits(needed: int, low: int, high: int, free: int) -> None:
    verdict = judge(needed, low, high, free, "a card")
    if verdict.status == "fits":
        assert free >= max(needed, high)
    if verdict.status == "does_not_fit":
        assert free < min(needed, low)

"""The largest size that fits is found in few tries, and estimates of one answer are made once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_awareness.advice import once
from compute_awareness.advice.search import Tried, largest_below, largest_up_to
from compute_awareness.workload import parse_workload

MOST = 1 << 20


class Growing:
    """Memory of `at_one * value ** power + fixed` bytes against `free`; counts how often it is asked."""

    def __init__(self, free: int, fixed: int, at_one: int, power: int, refused: int | None = None) -> None:
        self.free, self.fixed, self.at_one, self.power, self.refused = free, fixed, at_one, power, refused
        self.asked: list[int] = []

    def __call__(self, value: int) -> Tried:
        self.asked.append(value)
        if self.refused is not None and value >= self.refused:
            return Tried(False, None)
        nbytes = self.fixed + self.at_one * value**self.power
        return Tried(nbytes <= self.free, nbytes)

    @property
    def largest(self) -> int:
        value = int(max(0, self.free - self.fixed) // self.at_one) if self.power == 1 else 0
        while self.power > 1 and self.fixed + self.at_one * (value + 1) ** self.power <= self.free:
            value += 1
        return value if self.refused is None else min(value, self.refused - 1)


growing = st.builds(
    Growing,
    free=st.integers(0, 10**9),
    fixed=st.integers(0, 10**8),
    at_one=st.integers(100, 10**6),
    power=st.sampled_from([1, 2]),
    refused=st.none() | st.integers(1, 5000),
)


@given(growing)
def test_the_largest_number_is_found(grows):
    found = largest_up_to(grows, grows.free, MOST)
    if grows.largest == 0 or grows.largest >= MOST:
        assert found is None
    else:
        assert found == grows.largest
    assert len(grows.asked) <= 65  # twice the halvings of a million, at most


@given(growing, st.integers(2, 10**5))
def test_between_two_ends_the_largest_is_found(grows, high):
    if not grows(1).fits or grows(high).fits:
        return
    assert largest_below(grows, grows.free, 1, grows(1), high, grows(high)) == grows.largest
    assert largest_below(grows, grows.free, 1, grows(1), high, Tried(False, None)) == grows.largest


@pytest.mark.parametrize("largest", [1, 7, 1000, 123_456])
def test_in_a_straight_line_it_takes_few_tries(largest):
    grows = Growing(free=10**6 + 100 * largest, fixed=10**6, at_one=100, power=1)
    assert largest_below(grows, grows.free, 1, grows(1), 10**6, grows(10**6)) == largest
    assert len(grows.asked) <= 2 + 4


def test_what_fits_with_more_than_is_free_is_halved():
    """A pass without gradients gets by with less than it takes where there is room."""
    asked = []

    def tried(value: int) -> Tried:
        asked.append(value)
        return Tried(value <= 894, 10**9 + 10**6 * value)

    free = 10**9 + 10**6 * 606
    assert largest_below(tried, free, 1, tried(1), 2727, tried(2727)) == 894
    assert len(asked) <= 2 + 4 + 12


WORKLOAD = {"task": "activation_cache", "model": "gpt2-small", "batch_size": 1, "seq_len": 16}


def test_within_one_answer_an_estimate_is_made_once(monkeypatch):
    made = []
    real = once.estimate
    monkeypatch.setattr(once, "estimate", lambda *args: made.append(args) or real(*args))
    one, other = parse_workload(WORKLOAD), parse_workload(WORKLOAD | {"seq_len": 17})
    with once.each_estimate_once():
        first = once.estimated(one, "8.0")
        with once.each_estimate_once():  # an answer within an answer
            assert once.estimated(parse_workload(WORKLOAD), "8.0") is first
        assert once.estimated(one, "9.0") is not first
        assert once.estimated(other, "8.0").peak.tensors > first.peak.tensors
        assert len(made) == 3
    assert once.estimated(one, "8.0") == first
    assert len(made) == 4, "not longer than one answer"

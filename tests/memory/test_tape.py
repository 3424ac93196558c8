"""The ledger itself."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from compute_awareness.memory.tape import Tape

PLAIN = settings(derandomize=True, deadline=None, database=None)


def test_a_tensor_lives_until_its_last_holder_lets_go() -> None:
    tape = Tape()
    tensor = tape.new(100)
    tape.hold(tensor, "activation_cache")
    tape.drop(tensor)
    assert (tape.live, tape.by_component["activation_cache"], tape.by_component["temporaries"]) == (100, 100, 0)
    tape.drop(tensor)
    assert tape.live == 0
    assert tape.peak == 100


def test_the_peak_remembers_what_was_alive() -> None:
    tape = Tape()
    weights = tape.new(10, "weights")
    tape.touch(5)
    tape.drop(weights)
    tape.new(12, "logits")
    assert tape.peak == 15
    assert +tape.at_peak == {"weights": 10, "temporaries": 5}


@PLAIN
@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=30), st.integers(0, 30))
def test_a_section_on_a_tape_of_its_own_is_the_same_as_one_tape(steps: list[tuple[int, bool]], cut: int) -> None:
    """Playing the second half apart and appending it changes nothing, also where it frees what the first half made."""

    def play(tape: Tape, part: list[tuple[int, bool]], open_tensors: list[int]) -> list[int]:
        tensors = [tape.adopt(size, "temporaries") for size in open_tensors]
        for size, free_one in part:
            tensors.append(tape.new(size))
            if free_one:
                tape.drop(tensors.pop(0))
        return [tensor.bytes for tensor in tensors]

    whole = Tape()
    play(whole, steps, [])
    first, second = Tape(), Tape()
    still_open = play(first, steps[:cut], [])
    play(second, steps[cut:], still_open)
    first.append(second)
    assert (first.live, first.peak) == (whole.live, whole.peak)
    assert sum(first.at_peak.values()) == first.peak

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


def _stood(requests: list[int]) -> tuple[int, int]:
    """(bytes at the end, at the peak) of a sequence of requests; every tensor is freed once, after it was made."""
    sizes: list[int] = []
    live: set[int] = set()
    now = peak = 0
    for request in requests:
        if request >= 0:
            live.add(len(sizes))
            sizes.append(request)
            now += request
        else:
            live.remove(~request)
            now -= sizes[~request]
        peak = max(peak, now)
    return now, peak


@PLAIN
@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=30), st.integers(0, 30), st.integers(1, 5))
def test_the_requests_stand_as_high_as_the_tape(steps: list[tuple[int, bool]], cut: int, times: int) -> None:
    """Also where a section frees what was made before it, and where it is played more than once."""
    tape, section = Tape(), Tape()
    made = [tape.new(size) for size, _ in steps[:cut]]
    for size, free_one in steps[cut:]:
        section.new(size)
        if free_one and len(made) >= times:
            mine = made.pop().bytes
            section.drop(section.adopt(mine, "temporaries"))
            for _ in range(times - 1):  # one of this size for each time the section is played
                tape.new(mine)
    tape.append(section, times)
    assert _stood(tape.requests()) == (tape.live, tape.peak)
    assert _stood(tape.requests([7, 8], workspace=3)) == (tape.live + 18, tape.peak + 18)


@PLAIN
@given(st.lists(st.integers(-50, 50), max_size=20), st.integers(0, 100), st.integers(0, 5))
def test_a_section_appended_n_times_is_n_sections(steps: list[int], before: int, times: int) -> None:
    def play() -> tuple[Tape, Tape]:
        tape, section = Tape(), Tape()
        for _ in range(times):  # as much as the section may free
            for step in steps:
                tape.new(max(-step, 0), "buffers")
        tape.new(before, "weights")
        for step in steps:
            if step < 0:
                section.drop(section.adopt(-step, "buffers"))
            else:
                section.new(step, "kv_cache")
        return tape, section

    one, section = play()
    for _ in range(times):
        one.append(section)
    at_once, section = play()
    at_once.append(section, times)
    assert (at_once.live, at_once.peak, +at_once.by_component) == (one.live, one.peak, +one.by_component)
    assert +at_once.at_peak == +one.at_peak
    assert at_once.requests() == one.requests()


def test_an_adopted_tensor_is_the_one_it_came_from() -> None:
    tape = Tape()
    first, second = tape.new(10), tape.new(10)
    section = Tape()
    section.new(10)
    section.drop(section.adopt(10, "temporaries", origin=first))
    tape.append(section)
    assert tape.requests() == [10, 10, 10, ~0]
    # Without an origin it is the youngest of its size that the section did not make itself.
    other = Tape()
    other.new(10)
    other.drop(other.adopt(10, "temporaries"))
    tape.append(other)
    assert tape.requests() == [10, 10, 10, ~0, 10, ~2]
    tape.drop(second)
    assert tape.requests()[-1] == ~1


def test_a_tensor_taken_for_another_of_its_size_is_not_freed_twice() -> None:
    tape, section = Tape(), Tape()
    tape.new(10)
    held = tape.new(10)
    section.drop(section.adopt(10, "temporaries"))
    tape.append(section)
    tape.drop(held)
    assert _stood(tape.requests()) == (0, 20)


def test_a_section_played_again_frees_what_the_last_one_left() -> None:
    """A residual stream through three layers: each lets go of the output of the one before."""
    tape, layer = Tape(), Tape()
    tape.new(4)
    incoming = layer.adopt(4, "temporaries")
    layer.touch(9)
    layer.new(4)
    layer.drop(incoming)
    tape.append(layer, 3)
    assert tape.requests(workspace=5) == [4, 5, 9, ~2, 4, ~0, 9, ~4, 4, ~3, 9, ~6, 4, ~5]
    assert tape.live == 4


def test_the_workspace_comes_first_on_a_tape_without_sections() -> None:
    tape = Tape()
    tape.new(1)
    assert tape.requests([2, 3], workspace=5) == [2, 3, 5, 1]
    assert tape.requests() == [1]

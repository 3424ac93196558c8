"""What is left out of a backward pass has no say in what the allocator reserves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_awareness.memory import optimizer, parameters
from compute_awareness.memory.card import playback
from compute_awareness.memory.card.allocator import simulate
from compute_awareness.memory.card.passes import as_requests
from compute_awareness.memory.card.staging import THREADS, Kernels
from compute_awareness.memory.hooked import training
from compute_awareness.memory.hooked.run import Run
from compute_awareness.memory.tape import Tape
from compute_awareness.models.catalogue import find, names

MIB = 1024**2
PLAIN = settings(derandomize=True, deadline=None, database=None)


@settings(PLAIN, max_examples=40)
@given(st.data())
def test_a_training_step_reserves_what_the_whole_order_reserves(data: st.DataObject) -> None:
    """Any model of the catalogue, any shape; at its own depth or another."""
    draw = data.draw
    spec = find(draw(st.sampled_from(names())))
    assert spec is not None
    if spec.positional == "shortformer":
        return
    spec = spec.model_copy(update={"n_layers": draw(st.sampled_from([1, 2, 3, 12, 24, spec.n_layers]))})
    width, folded, adam = draw(st.sampled_from([2, 4])), draw(st.booleans()), draw(st.sampled_from(["adam", "sgd"]))
    run = Run(spec, draw(st.integers(1, 8)), draw(st.integers(1, 1024)), width, folded=folded, gradients=True)
    step: tuple[Any, ...] = run, adam, draw(st.integers(1, 2)), Kernels("9.0", handles=THREADS)
    tape, back = training.play_in_order(*step)
    trained = training.step(run, adam).trained
    standing = [32 * MIB, 32 * MIB, *parameters.tl_tensors(spec, width, folded)]
    standing += optimizer.state_tensors(adam, trained)
    whole = simulate(tape.requests(standing)).peak_reserved
    short = as_requests(tape, back)
    assert short.peak == tape.peak
    played = playback.reserved(short, standing)
    assert played == simulate(short.requests(standing)).peak_reserved, "playback is the plain simulation, quicker"
    assert played == pytest.approx(whole, rel=0.002)


def test_what_comes_and_goes_is_there_once() -> None:
    """The first layer that goes back is whole; of the others there is what it frees of others, and what it leaves."""
    forward, backward, tape = Tape(), Tape(), Tape()
    saved = forward.new(5)
    scratch = backward.new(3)
    backward.drop(saved, scratch)
    backward.new(2)
    for section in (forward, forward, forward, backward, backward, backward):
        tape.append(section)
    assert as_requests(tape, {backward}).requests() == [5, 5, 5, 3, ~2, ~3, 2, ~1, 2, ~0, 2]
    assert as_requests(tape, ()).requests() == [5, 5, 5, 3, ~2, ~3, 2, 3, ~1, ~5, 2, 3, ~0, ~7, 2]

"""The quick playback against the plain one: every layer's requests through the allocator, one by one."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_awareness.memory import parameters
from compute_awareness.memory.card import playback
from compute_awareness.memory.card.allocator import UNIT, _Segments, simulate
from compute_awareness.memory.card.section import units
from compute_awareness.memory.hooked import transformer as hooked
from compute_awareness.memory.huggingface import forward as huggingface
from compute_awareness.memory.tape import Tape, Tensor
from compute_awareness.models.catalogue import find, names
from compute_awareness.models.spec import ModelSpec

KIB, MIB = 1024, 1024 * 1024
PLAIN = settings(derandomize=True, deadline=None, database=None)

# Few sizes at a time, so that blocks fit again, and tensors are taken for others of their size.
PALETTES = st.lists(
    st.one_of(
        st.sampled_from([0, 1, 512, 100 * KIB, 700 * KIB, MIB, MIB + 1, 3 * MIB, 9 * MIB, 10 * MIB, 22 * MIB]),
        st.integers(1, 2 * MIB),
        st.integers(MIB, 45 * MIB),
    ),
    min_size=1,
    max_size=5,
)


@st.composite
def tapes(draw: st.DrawFn) -> Tape:
    """Tensors and sections, most of them played many times over; what a section frees may not be there at all."""
    palette = draw(PALETTES)
    size = st.sampled_from(palette)
    sections = []
    for _ in range(draw(st.integers(1, 3))):
        section = Tape()
        _play(draw, section, size, draw(st.integers(1, 14)))
        sections.append(section)
    tape = Tape()
    held: list[Tensor] = []
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            held += _play(draw, tape, size, draw(st.integers(1, 4)))
        elif held:
            tape.drop(held.pop(draw(st.integers(0, len(held) - 1))))
        period = draw(st.lists(st.sampled_from(sections), min_size=1, max_size=3))
        for _ in range(draw(st.integers(1, 30))):
            for section in period:
                tape.append(section)
        if draw(st.booleans()):
            tape.append(draw(st.sampled_from(sections)), draw(st.integers(1, 30)))
    _play(draw, tape, size, draw(st.integers(0, 6)))
    return tape


def _play(draw: st.DrawFn, tape: Tape, size: st.SearchStrategy[int], steps: int) -> list[Tensor]:
    """Allocates, frees its own, frees what was there before. Returns what is left of its own."""
    own: list[Tensor] = []
    for _ in range(steps):
        what = draw(st.integers(0, 9))
        if what >= 7 and own:
            tape.drop(own.pop(draw(st.integers(0, len(own) - 1))))
        elif what >= 6:
            tape.drop(tape.adopt(draw(size), "temporaries"))
        else:
            own.append(tape.new(draw(size)))
    return own


def _agree(tape: Tape, standing: list[int], workspace: int) -> None:
    plain = simulate(tape.requests(standing, workspace)).peak_reserved
    assert playback.reserved(tape, standing, workspace) == plain
    if standing:
        assert playback.reserved(tape, standing[:-1], workspace, beside=standing[-1]) == plain


@settings(PLAIN, max_examples=300)
@given(tapes(), PALETTES, st.sampled_from([0, 8 * MIB + 128 * KIB, 32 * MIB]))
def test_it_reserves_what_the_plain_simulation_reserves(tape: Tape, standing: list[int], workspace: int) -> None:
    _agree(tape, standing, workspace)
    _agree(tape, [], workspace)


def _spec(name: str, **changes: object) -> ModelSpec:
    spec = find(name)
    assert spec is not None
    return spec.model_copy(update=changes)


@settings(PLAIN, max_examples=60)
@given(st.data())
def test_a_model_reserves_what_the_plain_simulation_reserves(data: st.DataObject) -> None:
    """Any model of the catalogue, any shape, any hooks."""
    draw = data.draw
    spec = _spec(draw(st.sampled_from(names())))
    batch_size, seq_len = draw(st.integers(1, 8)), draw(st.integers(1, 2048))
    width = draw(st.sampled_from([2, 4]))
    workspace = draw(st.sampled_from([8 * MIB + 128 * KIB, 32 * MIB]))
    ending = draw(st.sampled_from(["", "hook_resid_post", "hook_z", "hook_pattern", "hook_k", "hook_scale", "none"]))
    gradients = draw(st.booleans())
    run = hooked.Run(spec, batch_size, seq_len, width, selects=lambda name: name.endswith(ending), gradients=gradients)
    _agree(hooked.forward(run).tape, parameters.tl_tensors(spec, width), workspace)
    if spec.has_hf_model:
        attention = huggingface.default_attention(spec)
        tape = huggingface.forward(spec, batch_size, seq_len, width, attention, kv_cache=draw(st.booleans()))
        _agree(tape, parameters.hf_tensors(spec, width), workspace)


@pytest.mark.parametrize("n_layers", [1, 2, 3, 7, 32, 200])
def test_layers_are_skipped_only_where_they_repeat(n_layers: int) -> None:
    """Also where the depth is far from what any catalogue has."""
    for name in ("gpt2", "llama-2-7b", "gemma-2-2b"):
        spec = _spec(name, n_layers=n_layers)
        for selects in (None, lambda name: True, lambda name: name.endswith("hook_resid_post")):
            run = hooked.Run(spec, 3, 300, 4, selects=selects)
            _agree(hooked.forward(run).tape, parameters.tl_tensors(spec, 4), 32 * MIB)


def test_a_deep_model_takes_hardly_more_requests_than_a_shallow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    played = []
    monkeypatch.setattr(playback.Pool, "play", _counting(playback.Pool.play, played))
    requests = []
    for n_layers in (20, 400):
        played.clear()
        tape = hooked.forward(hooked.Run(_spec("llama-2-7b", n_layers=n_layers), 4, 512, 2)).tape
        playback.reserved(tape, [], 32 * MIB)
        requests.append(len(played))
    assert requests[1] < requests[0] + 20, "but for what is left of a period"


def _counting(play: object, played: list[object]) -> object:
    def counted(self: playback.Pool, requests: object, others: object = iter(())) -> object:
        played.append(requests)
        return play(self, requests, others)  # pyright: ignore

    return counted


def test_what_is_left_in_a_block_that_an_earlier_layer_freed() -> None:
    """Layers leave free blocks between walls; the end takes more of them than were played."""
    tape, layer = Tape(), Tape()
    layer.new(12 * MIB)
    gone = layer.new(8 * MIB)
    layer.new(12 * MIB)
    layer.drop(gone)
    tape.append(layer, 40)
    for _ in range(39):
        tape.new(8 * MIB)
    _agree(tape, [], 0)
    for _ in range(5):
        tape.new(8 * MIB)
    _agree(tape, [], 0)


def test_other_layers_take_what_skipped_ones_would_have_left() -> None:
    tape, first, second = Tape(), Tape(), Tape()
    for nbytes in (*[12 * MIB - 1023] * 10, 2 * MIB + 700 * KIB):
        first.new(nbytes)
    second.new(8 * MIB + 700 * KIB)
    for _ in range(4):
        second.new(12 * MIB - 1023)
    second.drop(second.adopt(12 * MIB - 1023, "temporaries"))
    tape.append(first, 2)
    tape.append(second, 7)
    tape.append(first, 5)
    _agree(tape, [], 0)


def test_the_end_frees_what_layers_left_that_were_not_played() -> None:
    tape, layer, end = Tape(), Tape(), Tape()
    for _ in range(2):
        layer.new(12 * MIB)
        layer.touch(30 * MIB)
    for _ in range(70):
        end.drop(end.adopt(12 * MIB, "temporaries"))
    end.new(20 * MIB)
    end.new(16 * MIB)
    tape.append(layer, 40)
    tape.append(end)
    tape.new(40 * MIB)
    _agree(tape, [7 * MIB, 12 * MIB], 8 * MIB)


def test_sections_within_sections_and_known_origins_are_played_plainly() -> None:
    inner, outer, tape = Tape(), Tape(), Tape()
    inner.new(3 * MIB)
    outer.append(inner, 3)
    tape.append(outer, 5)
    _agree(tape, [5 * MIB], 8 * MIB)
    known = tape.new(12 * MIB)
    tape.new(12 * MIB)
    section = Tape()
    section.drop(section.adopt(12 * MIB, "temporaries", known))
    tape.append(section)
    tape.new(24 * MIB)
    _agree(tape, [5 * MIB], 8 * MIB)


@settings(PLAIN, max_examples=150)
@given(st.data())
def test_a_second_time_with_what_the_first_one_left(data: st.DataObject) -> None:
    """Against the plain allocator, which gives back whole segments in between."""
    draw = data.draw
    size = st.sampled_from([size for size in draw(PALETTES) if size > MIB] or [3 * MIB])
    tape, standing, later = Tape(), draw(st.lists(size, max_size=4)), draw(st.lists(size, min_size=1, max_size=6))
    for _ in range(draw(st.integers(1, 3))):
        _play_own(draw, tape, size)
    requests = tape.requests()
    plain = _Segments(None)
    for nbytes in standing:
        plain.malloc(units(nbytes))
    for first in (True, False):
        blocks: list[int] = []
        gone: set[int] = set()
        for request in requests:
            if request >= 0:
                blocks.append(plain.malloc(units(request)))
            else:
                plain.free(blocks[~request])
                gone.add(~request)
        if first:
            for nbytes in later:
                plain.malloc(units(nbytes))
            for number, block in enumerate(blocks):
                if number not in gone:
                    plain.free(block)
            plain._release_cached()
            plain.peak_reserved = plain.reserved
    with patch.object(playback, "_FEW", 10**9):
        assert playback.reserved(tape, standing, made_later=later) == plain.peak_reserved * UNIT
    there_before = simulate(tape.requests([*standing, *later])).peak_reserved
    with patch.object(playback, "_FEW", 0):
        assert playback.reserved(tape, standing, made_later=later) == there_before


def _play_own(draw: st.DrawFn, tape: Tape, size: st.SearchStrategy[int]) -> None:
    own = [tape.new(draw(size)) for _ in range(draw(st.integers(1, 8)))]
    for _ in range(draw(st.integers(0, len(own) - 1))):
        tape.drop(own.pop(draw(st.integers(0, len(own) - 1))))

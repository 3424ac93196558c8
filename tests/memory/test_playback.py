"""The quick playback against the plain one: every layer's requests through the allocator, one by one."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_awareness.memory import parameters
from compute_awareness.memory.card import playback
from compute_awareness.memory.card.allocator import UNIT, _Segments, simulate
from compute_awareness.memory.card.pool import Pool
from compute_awareness.memory.hooked import transformer as hooked
from compute_awareness.memory.huggingface import forward as huggingface
from compute_awareness.memory.recorded.recall import forget, recall
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


@st.composite
def nested(draw: st.DrawFn) -> Tape:
    """Tapes with sections as sections of others, between tensors of all sizes."""
    size = st.sampled_from(draw(PALETTES))
    inner = [draw(tapes()) for _ in range(draw(st.integers(1, 2)))]
    middle, outer = Tape(), Tape()
    for tape, sections in ((middle, inner), (outer, [middle, *inner])):
        held: list[Tensor] = []
        for _ in range(draw(st.integers(1, 4))):
            held += _play(draw, tape, size, draw(st.integers(0, 4)))
            tape.append(draw(st.sampled_from(sections)), draw(st.integers(1, 3)))
            if held:
                tape.drop(held.pop(draw(st.integers(0, len(held) - 1))))
    return outer


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


@settings(PLAIN, max_examples=100)
@given(nested(), PALETTES)
def test_sections_of_sections_reserve_what_the_plain_simulation_reserves(tape: Tape, standing: list[int]) -> None:
    _agree(tape, standing, 8 * MIB + 128 * KIB)


@settings(PLAIN, max_examples=60)
@given(st.data())
def test_a_recorded_tape_reserves_what_the_plain_simulation_reserves(data: st.DataObject) -> None:
    """Also where it goes on after it was recorded."""
    draw = data.draw
    shapes = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3000)), min_size=4, max_size=8))
    frees, with_sections = draw(st.booleans()), draw(st.booleans())

    def play(b: int, s: int) -> Tape:
        layer, tape = Tape(), Tape()
        for nbytes in (4 * b * s, 512 * b, 4 * b * s * s, 4 * b * s):
            layer.touch(nbytes)
            layer.drop(layer.new(nbytes), layer.new(700 * b * s))
        if frees:
            layer.drop(layer.adopt(700 * b * s, "temporaries"))
        layer.drop(layer.new(0))
        layer.new(700 * b * s)
        tape.append(layer.closed(), 20)
        tape.touch(4 * b * s)
        return (tape if with_sections else layer).closed()

    forget()
    for shape in [shapes[0], *shapes]:
        tape = recall(("layers", frees, with_sections), shape, play, with_log=True)
        _agree(tape, [3 * MIB], 8 * MIB)
        played = play(*shape)
        for each in (tape, played):
            held = each.new(12 * MIB)
            each.touch(30 * MIB)
            each.drop(held)
        assert tape.requests() == played.requests()
        _agree(tape, [3 * MIB], 8 * MIB)


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
    monkeypatch.setattr(Pool, "play", _counting(Pool.play, played))
    requests = []
    for n_layers in (20, 400):
        played.clear()
        tape = hooked.forward(hooked.Run(_spec("llama-2-7b", n_layers=n_layers), 4, 512, 2)).tape
        playback.reserved(tape, [], 32 * MIB)
        requests.append(len(played))
    assert requests[1] < requests[0] + 20, "but for what is left of a period"


def test_layers_that_eat_up_a_block_which_is_not_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    tape, layer = Tape(), Tape()
    for nbytes in (300 * KIB, 700 * KIB, 900 * KIB):
        hole = tape.new(nbytes)
        tape.new(10 * KIB)
        tape.drop(hole)
    layer.touch(20 * KIB)
    layer.new(6 * KIB)
    layer.touch(12 * KIB)
    tape.append(layer, 150)
    tape.new(800 * KIB)
    _agree(tape, [], 0)
    played = []
    monkeypatch.setattr(Pool, "play", _counting(Pool.play, played))
    playback.reserved(tape)
    assert len(played) < 30, "two or three at the beginning of a block and at its end"


@pytest.mark.parametrize("more", [0, 30 * MIB])
def test_layers_that_left_what_is_freed_later_are_not_all_played_twice(
    more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape, layer = Tape(), Tape()
    for nbytes in (12 * MIB, 30 * MIB, 12 * MIB, 12 * MIB):
        layer.new(nbytes)
        layer.touch(9 * MIB)
    tape.append(layer, 100)
    for _ in range(25):
        tape.drop(tape.adopt(12 * MIB, "temporaries"))
    tape.new(more)
    _agree(tape, [], 32 * MIB)
    played = []
    monkeypatch.setattr(Pool, "play", _counting(Pool.play, played))
    playback.reserved(tape)
    assert len(played) < (30 if more else 20)


def _counting(play: object, played: list[object]) -> object:
    def counted(self: Pool, requests: object, others: object = iter(())) -> object:
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


def test_what_is_known_otherwise_than_by_its_size_is_played_plainly() -> None:
    tape = Tape()
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
        plain.malloc(-(-nbytes // UNIT))
    for first in (True, False):
        blocks: list[int] = []
        gone: set[int] = set()
        for request in requests:
            if request >= 0:
                blocks.append(plain.malloc(-(-request // UNIT)))
            else:
                plain.free(blocks[~request])
                gone.add(~request)
        if first:
            for nbytes in later:
                plain.malloc(-(-nbytes // UNIT))
            for number, block in enumerate(blocks):
                if number not in gone:
                    plain.free(block)
            plain.release_cached()
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

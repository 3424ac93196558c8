"""Passes that grow, played quickly, against the plain simulation of the same requests; and which of them are played."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_awareness.memory import parameters
from compute_awareness.memory.card import growing
from compute_awareness.memory.card.allocator import simulate
from compute_awareness.memory.card.growing import Growing, every_other
from compute_awareness.memory.card.log import pairs
from compute_awareness.memory.card.turning_points import Turns, turning_points
from compute_awareness.memory.hooked import generate as hooked_generate
from compute_awareness.memory.hooked import generate_steps
from compute_awareness.memory.hooked.generate_steps import HookedPasses, is_played
from compute_awareness.memory.huggingface import forward as huggingface
from compute_awareness.memory.huggingface import steps
from compute_awareness.memory.huggingface.generate import Generate, generate
from compute_awareness.memory.tape import Tape
from compute_awareness.models.catalogue import find, names

MIB = 1024 * 1024
PLAIN = settings(derandomize=True, deadline=None, database=None)


def a_run(name: str, b: int, s: int, new_tokens: int, width: int, eager: bool, kv_cache: bool) -> Generate:
    spec = find(name)
    assert spec is not None
    attention = "eager" if eager else huggingface.default_attention(spec)
    unfused = attention == "sdpa" and huggingface.needs_math_kernel(spec, width, "9.0")
    return Generate(spec, b, s, new_tokens, width, attention, kv_cache, unfused)


def passes(run: Generate) -> Growing:
    return steps.Passes(run, generate(run)).growing(32 * MIB)


def every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (steps, generate_steps):
        monkeypatch.setattr(module, "turning_points", lambda _, first, last: Turns([*range(first + 1, last + 1)], 1))


@settings(PLAIN, max_examples=60)
@given(st.data())
def test_it_reserves_what_the_plain_simulation_reserves(data: st.DataObject) -> None:
    """Any model of the catalogue, any shape."""
    draw = data.draw
    name = draw(st.sampled_from([name for name in names() if (spec := find(name)) and spec.has_hf_model]))
    b, s = draw(st.sampled_from([1, 2, 4, 8, 32])), draw(st.integers(1, 900))
    run = a_run(
        name, b, s, draw(st.integers(1, 40)), draw(st.sampled_from([2, 4])), draw(st.booleans()), draw(st.booleans())
    )
    standing = parameters.hf_tensors(run.spec, run.width)
    made = replace(passes(run), stands_for=1)
    taken = made.reserved(standing)
    assert taken.reserved == simulate(made.requests(standing)).peak_reserved
    assert 0 <= taken.later < taken.reserved
    assert made.reserved(standing[:-1], standing[-1]).reserved > 0


@settings(PLAIN, max_examples=40)
@given(st.data())
def test_a_hooked_transformer_too(data: st.DataObject) -> None:
    draw = data.draw
    spec = find(draw(st.sampled_from(names())))
    assert spec is not None
    b, s, new_tokens = draw(st.sampled_from([1, 2, 4, 8])), draw(st.integers(1, 600)), draw(st.integers(1, 40))
    run = hooked_generate.Generate(spec, b, s, new_tokens, draw(st.sampled_from([2, 4])))
    if not is_played(run):
        assert spec.positional == "alibi" or (spec.positional == "rotary" and s + new_tokens > spec.context_tl)
        return
    standing = parameters.tl_tensors(spec, run.width)
    made = replace(HookedPasses(run, hooked_generate.generate(run)).growing(32 * MIB), stands_for=1)
    assert made.reserved(standing).reserved == simulate(made.requests(standing)).peak_reserved


@settings(PLAIN, max_examples=40)
@given(st.data())
def test_what_grows_out_of_the_small_pool(data: st.DataObject) -> None:
    """Between two passes that are played; what was small goes at the end of its layer's part, not in the middle."""
    draw = data.draw
    b, s, new_tokens = draw(st.sampled_from([1, 3, 7, 40])), draw(st.integers(1, 40)), draw(st.integers(100, 700))
    width = draw(st.sampled_from([2, 4]))
    spec = find(draw(st.sampled_from(["gpt2", "pythia-410m", "gemma-2-2b", "llama-3.2-1b", "pythia-70m"])))
    assert spec is not None
    if draw(st.booleans()):
        run = hooked_generate.Generate(spec, b, s, new_tokens, width)
        made = HookedPasses(run, hooked_generate.generate(run)).growing(32 * MIB)
        standing = parameters.tl_tensors(spec, width)
    else:
        made = passes(a_run(spec.name, b, s, new_tokens, width, draw(st.booleans()), draw(st.booleans())))
        standing = parameters.hf_tensors(spec, width)
    made = replace(made, stands_for=1)
    plain = simulate(made.requests(standing)).peak_reserved
    assert made.reserved(standing).reserved == pytest.approx(plain, rel=0.005, abs=2 * MIB)


@pytest.mark.parametrize(
    ("name", "b", "s", "new_tokens", "width", "eager", "kv_cache"),
    [
        ("gpt2", 8, 256, 64, 4, False, True), ("pythia-2.8b", 4, 512, 64, 2, False, True),
        ("llama-3.2-1b", 8, 1024, 64, 2, False, True), ("gemma-2-2b", 2, 512, 32, 2, True, True),
        ("qwen2.5-0.5b", 8, 700, 32, 2, False, False), ("gpt2-xl", 16, 700, 8, 4, False, True),
        ("phi-2", 4, 512, 58, 4, False, True), ("opt-125m", 32, 512, 8, 2, False, False),
    ],
)  # fmt: skip
def test_the_passes_that_are_left_out_change_little(
    monkeypatch: pytest.MonkeyPatch, name: str, b: int, s: int, new_tokens: int, width: int, eager: bool, kv_cache: bool
) -> None:
    run = a_run(name, b, s, new_tokens, width, eager, kv_cache)
    standing = parameters.hf_tensors(run.spec, run.width)
    few = passes(run)
    every_pass(monkeypatch)
    every = passes(run)
    assert len(few.later) < new_tokens - 1 or not kv_cache
    assert few.reserved(standing).reserved == pytest.approx(every.reserved(standing).reserved, rel=0.01)


def test_many_that_are_left_out_are_counted_by_those_that_are_played(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that cross many times 2 MiB, in every layer: what lies idle in the end is more than the run needs."""
    run = a_run("pythia-2.8b", 32, 700, 57, 2, False, False)
    standing = parameters.hf_tensors(run.spec, run.width)
    few = passes(run)
    assert few.stands_for > 1
    every_pass(monkeypatch)
    assert few.reserved(standing).reserved == pytest.approx(passes(run).reserved(standing).reserved, rel=0.15)


@pytest.mark.parametrize(
    ("name", "s", "new_tokens", "width", "within"),
    [
        ("opt-2.7b", 28, 205, 2, 0.15), ("codellama-7b", 6, 198, 4, 0.05), ("stablelm-base-alpha-7b", 3, 271, 2, 0.01),
    ],
)  # fmt: skip
def test_passes_that_find_room_in_what_earlier_ones_left_are_not_counted_again(
    monkeypatch: pytest.MonkeyPatch, name: str, s: int, new_tokens: int, width: int, within: float
) -> None:
    """Each of the passes that are played stands for several, most of which take hardly anything."""
    spec = find(name)
    assert spec is not None
    run, standing = hooked_generate.Generate(spec, 32, s, new_tokens, width), parameters.tl_tensors(spec, width)
    few = HookedPasses(run, hooked_generate.generate(run)).growing(32 * MIB)
    assert few.stands_for > 1.5
    every_pass(monkeypatch)
    every = HookedPasses(run, hooked_generate.generate(run)).growing(32 * MIB)
    assert few.reserved(standing).reserved == pytest.approx(every.reserved(standing).reserved, rel=within)


def test_a_prompt_of_one_token_without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run("qwen2.5-3b-instruct", 4, 1, 483, 4, False, False)
    standing = parameters.hf_tensors(run.spec, run.width)
    few = passes(run)
    every_pass(monkeypatch)
    assert few.reserved(standing).reserved == pytest.approx(passes(run).reserved(standing).reserved, rel=0.05)


def test_every_other_pass() -> None:
    assert [every_other(range(n)) for n in range(7)] == [
        [], [0], [0, 1], [0, 2], [0, 2, 3], [0, 2, 4], [0, 2, 4, 5],
    ]  # fmt: skip


def test_sizes_are_compared_of_the_same_tensors() -> None:
    first, last, other = Tape(), Tape(), Tape()
    for tape, times in ((first, 1), (last, 3)):
        held = tape.new(5)
        if times == 1:
            tape.drop(held)
        tape.new(7 * times)
        tape.new(0)
        tape.new(2 * times)
    other.new(50)
    assert pairs(first, last) == [(7, 21), (2, 6)]
    assert pairs(first, other) == []


@pytest.mark.parametrize("kv_cache", [True, False])
@pytest.mark.parametrize("s", [1, 7, 300])
def test_the_passes_make_the_same_tensors(monkeypatch: pytest.MonkeyPatch, s: int, kv_cache: bool) -> None:
    """Else sizes of one would be held against those of another, and the wrong passes played."""
    compared: list[tuple[int, int]] = []

    def counted(first: Tape, last: Tape) -> list[tuple[int, int]]:
        compared.append((len(_made(first)), len(_made(last))))
        return pairs(first, last)

    monkeypatch.setattr(steps, "pairs", counted)
    for name, eager in (("pythia-2.8b", False), ("codellama-7b", True), ("gemma-2-2b", True), ("gpt2", False)):
        passes(a_run(name, 8, s, 250, 4, eager, kv_cache))
    assert compared and all(first == last for first, last in compared)


def _made(tape: Tape) -> list[int]:
    return [entry for entry in tape.log if isinstance(entry, int) and entry >= 0]


def test_no_more_than_the_largest_card_has() -> None:
    run = a_run("llama-3-8b", 1, 1000, 1_000_000, 2, False, True)
    made, standing = passes(run), parameters.hf_tensors(run.spec, 2)
    assert made.reserved(standing).reserved == 288 * 1024**3
    assert made.reserved(standing, needed=400 * 1024**3).reserved == 400 * 1024**3


def test_which_lengths_are_played() -> None:
    assert turning_points([], 5, 5) == Turns([], 1)
    assert turning_points([], 5, 9) == Turns([9], 1)
    assert turning_points([(20 * MIB, 22 * MIB)], 100, 110) == Turns([101, 110], 1), "at 20 MiB a segment is full"
    assert turning_points([(11 * MIB, 14 * MIB)], 1100, 1400) == Turns([1201, 1400], 1)
    assert turning_points([(11 * MIB, 44 * MIB)], 1100, 2200).lengths[0] == 1149, "with the square of the length"
    many = turning_points([(100 * MIB, 200 * MIB)], 1000, 2000)
    assert len(many.lengths) <= 9 and many.stands_for == pytest.approx(50 / 8, rel=0.15)


def test_a_section_within_a_section_is_refused() -> None:
    inner, outer = growing.Tape(), growing.Tape()
    inner.new(MIB)
    outer.append(inner)
    with pytest.raises(TypeError):
        growing._Sections(small=True)[outer]

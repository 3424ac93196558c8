"""The memory bar draws the shares it was given."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from compute_awareness.cli.memory_bar import FREE, LIMIT, OVERHEAD, SWATCHES, cells, show_memory
from compute_awareness.preflight import preflight
from compute_awareness.workload import parse_workload

SIZES = st.lists(st.integers(0, 10**12), min_size=1, max_size=6)


@given(SIZES, st.one_of(st.none(), st.integers(0, 10**12)), st.integers(1, 120))
def test_every_part_has_its_share(sizes, free, width):
    parts = [(chr(ord("a") + i), n) for i, n in enumerate(sizes)]
    bar = cells(parts, free, width)
    whole = max(sum(sizes), free or 0)
    if whole == 0:
        assert bar == ""
        return
    assert len(bar) == width
    over = free is not None and sum(sizes) > free
    assert bar.count(LIMIT) == over
    for letter, n in parts:
        # Two rounded boundaries are each off by half a cell at most; the mark of the limit may cover one cell.
        assert abs(bar.count(letter) - n / whole * width) <= 1 + over
    if over:
        assert FREE not in bar
        assert bar.index(LIMIT) == min(width - 1, round((free or 0) / whole * width))


def test_an_example():
    assert cells([("W", 30), ("C", 30)], 120, 12) == "WWWCCC......"
    assert cells([("W", 30), ("C", 90)], 60, 12) == "WWWCCC|CCCCC"
    assert cells([("W", 30), ("C", 90)], None, 12) == "WWWCCCCCCCCC"


def test_letters_tell_the_components_apart():
    letters = [letter for letter, _ in SWATCHES.values()] + [OVERHEAD[0], FREE, LIMIT]
    assert len(set(letters)) == len(letters)


@pytest.mark.parametrize(("gpu", "loading"), [("2xA100-80GB", True), ("B200", True), ("8xT4", True), (None, False)])
def test_what_only_loading_takes_is_not_called_the_process(gpu, loading):
    """26 GiB of "context and allocator" were shown."""
    model = {"model": "llama-3-70b", "dtype": "bfloat16"} if loading else {"model": "gpt2"}
    answer = preflight(parse_workload({"task": "inference", **model}), gpu=gpu or "T4")
    shown = io.StringIO()
    verdict = answer.verdict
    show_memory(Console(file=shown, width=200), answer.estimate, verdict.needed_bytes, verdict.free_bytes, "it")
    assert ("what only loading the weights takes" in shown.getvalue()) == loading
    assert ("the process itself" in shown.getvalue()) != loading
    assert ("while the weights are loaded" in verdict.why) == loading

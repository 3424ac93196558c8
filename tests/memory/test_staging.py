"""What CUDA's sums take from the allocator, against what a card was seen to allocate."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_awareness.memory.card.allocator import simulate
from compute_awareness.memory.card.staging import Kernels, processors, staging_bytes
from compute_awareness.memory.sae import first_steps
from compute_awareness.memory.sae.matching_pursuit import Pursuit
from compute_awareness.memory.sae.step import Shape
from compute_awareness.memory.tape import Tape

MIB = 1024**2
CAPABILITIES = ["7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0"]


@pytest.mark.parametrize(
    ("rows", "columns", "mib"),
    [(4096, 24576, 132), (4096, 12288, 132), (4096, 18432, 135), (2048, 16384, 136), (1024, 50304, 147.375)],
)
def test_as_an_h100_allocated_them(rows: int, columns: int, mib: float) -> None:
    """benchmarks/gpu_truth_history.py on an H100, torch 2.11: bias gradients of SAEs and of an unembedding."""
    assert staging_bytes(rows, columns, processors("9.0")) == mib * MIB


def test_few_rows_or_columns_of_odd_number_take_none() -> None:
    assert staging_bytes(512, 2048, processors("9.0")) == 0
    assert staging_bytes(1024, 50257, processors("9.0")) == 0  # TransformerLens' gpt2, batch 2 of 512 tokens


@given(st.integers(1, 1 << 17), st.integers(1, 1 << 18), st.sampled_from(CAPABILITIES))
def test_it_stays_about_what_the_card_can_work_on_at_once(rows: int, columns: int, capability: str) -> None:
    """Each thread block on the card leaves its share once, and no more than every 256th row leaves one."""
    card = processors(capability)
    nbytes = staging_bytes(rows, columns, card)
    at_once = card.number * card.threads * 4 * 4 * 32  # 4 bytes; 4 columns a thread; as wide as the warp
    assert 0 <= nbytes <= max(2 * at_once, 4 * 128 * columns * -(-rows // 256))


def test_each_thread_takes_one_workspace_and_a_sum_leaves_nothing() -> None:
    tape, kernels = Tape(), Kernels("8.0")
    for thread in ("main", "main", "backward", "main"):
        kernels.product(tape, thread)
    assert tape.live == 2 * 8_519_680
    kernels.sum(tape, 4096, 24576)
    assert tape.live == 2 * 8_519_680 and tape.peak > 100 * MIB


@given(
    st.sampled_from(["standard", "topk", "abstopk", "batchtopk", "jumprelu", "gated", "matching_pursuit"]),
    st.sampled_from([256, 300, 768]), st.sampled_from([2048, 3001, 4096]), st.integers(1, 9000),
    st.sampled_from([*CAPABILITIES, None]),
)  # fmt: skip
def test_first_steps_that_are_recorded_are_those_that_are_played(
    architecture: str, d_in: int, d_sae: int, batch: int, capability: str | None
) -> None:
    """With the buffers as symbols of the recording, whose sizes are no formula of the batch."""
    pursuit = Pursuit(5) if architecture == "matching_pursuit" else None
    shape = Shape(architecture, d_in, d_sae, 16, batch, pursuit=pursuit)
    played = first_steps._played(replace(shape, kernels=Kernels(capability)), None, None)
    recalled = first_steps.first_steps(shape, None, None, capability)
    assert recalled.peak == played.peak
    assert simulate(recalled.requests()).peak_reserved == simulate(played.requests()).peak_reserved

"""From tensors to the card."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import compute_awareness
from compute_awareness.advice.gpu_table import all_gpus
from compute_awareness.estimates.assemble import assemble
from compute_awareness.estimator import estimate
from compute_awareness.memory.card.allocator import simulate
from compute_awareness.memory.card.device import (
    cpu_process_bytes,
    cpu_process_range,
    cublas_workspace,
    device_bytes,
    device_range,
    mps_process_bytes,
    mps_process_range,
    on_card,
    overheads,
    reserved_bytes,
    spread,
)
from compute_awareness.memory.estimate import Estimate
from compute_awareness.memory.tape import Tape
from compute_awareness.units import GIB, MIB
from compute_awareness.workload import parse_workload

OVERHEADS = json.loads(
    (Path(compute_awareness.__file__).parent / "facts" / "overheads.json").read_text(encoding="utf-8")
)
CAPABILITIES = [*sorted({gpu.compute_capability for gpu in all_gpus() if gpu.compute_capability}), None]
# Jobs whose extra memory is none of the context: several ranks (NCCL), CUDA graphs, torch.compile.
SINGLE = [o for o in OVERHEADS["context_observations"] if o["setting"] in ("single", "rank0")]


@given(st.integers(0, 200 * GIB), st.sampled_from(CAPABILITIES))
def test_each_step_adds_and_the_expected_figure_lies_in_the_range(tensors: int, capability: str | None) -> None:
    low, high = device_range(tensors, capability)
    reserved = reserved_bytes(tensors, capability)
    expected = device_bytes(tensors, capability)
    assert tensors + cublas_workspace(capability) <= reserved < expected
    assert tensors < low < expected < high
    assert reserved % (2 * MIB) == 0, "segments are of whole 2 MiB"


@given(st.integers(0, 200 * GIB), st.integers(0, 10 * GIB), st.sampled_from(CAPABILITIES))
def test_more_tensors_never_need_less(tensors: int, more: int, capability: str | None) -> None:
    assert device_bytes(tensors + more, capability) >= device_bytes(tensors, capability)
    for before, after in zip(device_range(tensors, capability), device_range(tensors + more, capability), strict=True):
        assert after >= before


def test_the_workspace_of_the_first_matrix_product() -> None:
    assert cublas_workspace("8.6") == 8519680
    assert cublas_workspace("9.0") == cublas_workspace("12.0") == cublas_workspace(None) == 32 * MIB
    # 8.1 MiB is below the allocator's 10 MiB threshold and so opens a segment of 20 MiB.
    assert reserved_bytes(0, "8.0") == 20 * MIB
    assert reserved_bytes(0, "9.0") == 32 * MIB


def test_the_allocators_constants_are_those_of_torch() -> None:
    allocator = OVERHEADS["caching_allocator"]
    assert (allocator["small_segment"], allocator["large_segment"], allocator["min_large_alloc"]) == (
        2 * MIB, 20 * MIB, 10 * MIB,
    )  # fmt: skip


ON_A_KNOWN_CARD = [o for o in SINGLE if o["compute_capability"]]


@pytest.mark.parametrize("seen", ON_A_KNOWN_CARD, ids=lambda o: f"{o['card']}-{o['mib']}")
def test_the_range_covers_every_context_seen(seen: dict[str, int]) -> None:
    tensors = 4 * GIB
    low, high = device_range(tensors, str(seen["compute_capability"]))
    workspace = cublas_workspace(str(seen["compute_capability"]))
    assert low <= tensors + workspace + seen["mib"] * MIB
    assert tensors * 1.1 + workspace + seen["mib"] * MIB <= high


def test_an_unknown_card_covers_every_single_process_context() -> None:
    low, high = device_range(4 * GIB, None)
    assert len(SINGLE) >= 20
    for seen in SINGLE:
        assert low <= 4 * GIB + cublas_workspace(None) + seen["mib"] * MIB <= high, seen["card"]


def test_a_context_grows_with_the_card() -> None:
    contexts = [device_bytes(0, cc) - reserved_bytes(0, cc) for cc in ("7.5", "8.6", "8.0", "9.0")]
    assert contexts == sorted(contexts)
    # A capability newer than the table falls back to its generation, then to the unknown card.
    assert device_bytes(0, "10.3") == device_bytes(0, "10.0")
    assert device_bytes(0, "15.0") == device_bytes(0, None)


def test_a_python_process_on_the_cpu() -> None:
    for tensors in (0, GIB, 50 * GIB):
        low, high = cpu_process_range(tensors)
        assert tensors < low < cpu_process_bytes(tensors) < high


def test_a_python_process_on_apples_gpu() -> None:
    for tensors in (0, GIB, 50 * GIB):
        low, high = mps_process_range(tensors)
        assert tensors < low < mps_process_bytes(tensors) < high
        assert high - cpu_process_range(tensors)[1] == GIB + 40 * MIB, "one heap of 1 GiB, one of 32, one of 8 MiB"


@given(
    st.integers(0, 200 * GIB), st.integers(0, 20 * GIB), st.sampled_from(CAPABILITIES), st.sampled_from([1, 2, 8]),
    st.one_of(st.none(), st.integers(0, 20 * GIB)), st.booleans(), st.integers(0, GIB),
)  # fmt: skip
def test_every_term_has_a_range_around_it_and_a_source(
    tensors: int, late: int, capability: str | None, n_gpus: int, waste: int | None, backward: bool, buffers: int
) -> None:
    workspaces = (1 + backward) * cublas_workspace(capability)
    played = None if waste is None else tensors + workspaces + waste
    terms = overheads(tensors, capability, played, late, n_gpus, backward=backward, buffers=buffers)
    names = ["allocator_rounding", "cublas_workspace", "cuda_context"]
    names += ["kernel_buffers"] * any(term.name == "kernel_buffers" for term in terms)
    names += ["backward_workspace", "backward_handle"] * backward + ["nccl"] * (n_gpus > 1)
    assert [term.name for term in terms] == names
    for term in terms:
        assert 0 <= term.low <= term.bytes <= term.high, term
        assert term.source
    low, high = spread(tensors, terms, late)
    assert low <= tensors + sum(term.bytes for term in terms) <= high - late
    if waste is not None:
        of_allocator = {"allocator_rounding", "cublas_workspace", "backward_workspace", "kernel_buffers"}
        assert tensors + sum(term.bytes for term in terms if term.name in of_allocator) == played
        rest = sum(term.high for term in terms if term.name in ("allocator_rounding", "kernel_buffers"))
        assert rest >= waste + int(0.02 * (tensors + late))


@given(st.integers(0, 200 * GIB), st.sampled_from(CAPABILITIES))
def test_without_a_sequence_the_terms_are_the_rule_of_thumb(tensors: int, capability: str | None) -> None:
    terms = overheads(tensors, capability)
    assert device_bytes(tensors, capability) == tensors + sum(term.bytes for term in terms)
    assert device_range(tensors, capability) == spread(tensors, terms)
    assert on_card(tensors, 0, capability) == (device_bytes(tensors, capability), *device_range(tensors, capability))


def test_an_estimate_for_one_card_is_carried_over_to_another() -> None:
    """What the allocator wastes is the estimate's own; the context and the workspace are those of the card."""
    played = simulate([4 * GIB, 3 * GIB, ~1, GIB, 3 * GIB, cublas_workspace("8.6")])
    terms = overheads(4 * GIB, "8.6", played.peak_reserved)
    waste = terms[0].bytes
    assert waste > 3 * GIB
    expected, low, high = on_card(4 * GIB, GIB, "9.0", terms)
    assert expected == 4 * GIB + waste + 32 * MIB + 692 * MIB
    assert low < expected < high - GIB
    assert on_card(4 * GIB, 0, "8.6", terms) == (
        4 * GIB + sum(term.bytes for term in terms), *spread(4 * GIB, terms),
    )  # fmt: skip


def test_a_backward_pass_has_a_cublas_handle_of_its_own_on_every_card() -> None:
    """Autograd's thread: a second workspace from the allocator, and on Hopper 64 MiB outside it (measured)."""
    terms = overheads(4 * GIB, "9.0", backward=True, buffers=100 * MIB)
    by_name = {term.name: term.bytes for term in terms}
    assert (by_name["backward_workspace"], by_name["backward_handle"]) == (32 * MIB, 64 * MIB)
    elsewhere, _, _ = on_card(4 * GIB, 0, "8.6", terms)
    without, _, _ = on_card(4 * GIB, 0, "8.6", [term for term in terms if not term.name.startswith("backward")])
    assert elsewhere - without == cublas_workspace("8.6")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_tensors_and_overheads_are_what_an_estimate_says_of_the_card(attention: str) -> None:
    workload = parse_workload(
        {"task": "inference", "model": "gpt2-small", "library": "transformers", "batch_size": 4, "seq_len": 512,
         "attention": attention}
    )  # fmt: skip
    made = estimate(workload)
    assert made.peak.tensors + sum(term.bytes for term in made.overheads) == made.peak.device
    assert made.peak.reserved == made.peak.tensors + made.overheads[0].bytes + made.overheads[1].bytes
    assert (made.range.low, made.range.high) == spread(made.peak.tensors, made.overheads, made.late_bytes)
    assert "simulation" in made.overheads[0].source
    # The logits of gpt2 fit in nothing that the layers left behind: more than any share of the tensors would tell.
    assert made.overheads[0].bytes > 0.12 * made.peak.tensors


def _assembled(weights: int, standing: list[int], with_events: bool) -> Estimate:
    """70 MiB are freed that no later tensor of 80 MiB fits in, beside the weights."""
    tape = Tape()
    tape.touch(70 * MIB)
    tape.new(80 * MIB)
    at_peak = Counter({"weights": weights, "temporaries": 80 * MIB})
    return assemble(
        {}, at_peak, at_peak, {}, "8.6", precision="exact", verified_on="", assumptions=[], warnings=[],
        events=tape if with_events else None, standing=standing,
    )  # fmt: skip


def test_the_allocator_is_simulated_where_the_order_is_known() -> None:
    weights = [100 * MIB, 40 * MIB]
    simulated = _assembled(140 * MIB, weights, True)
    assert simulated.peak.reserved == (140 + 20 + 70 + 80) * MIB, "20 are the workspace's segment"
    assert simulated.peak.reserved == simulated.peak.tensors + sum(term.bytes for term in simulated.overheads[:2])
    # A buffer that nobody listed counts as one tensor; a list that is too long is not believed.
    assert _assembled(150 * MIB, weights, True).peak.reserved == simulated.peak.reserved + 10 * MIB
    thumb = _assembled(140 * MIB, weights, False).peak
    assert (
        thumb.reserved == reserved_bytes(220 * MIB, "8.6") == _assembled(140 * MIB, [MIB, *weights], True).peak.reserved
    )


def test_the_cpu_process_figure_lies_in_the_range_of_a_real_import() -> None:
    """The import is measured in a child; the largest resident size must lie below what is said for no tensors."""
    import subprocess
    import sys

    code = "import torch, psutil; print(psutil.Process().memory_info().rss)"
    rss = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert rss < cpu_process_range(0)[1]

"""From tensors to the card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import compute_awareness
from compute_awareness.advice.gpu_table import all_gpus
from compute_awareness.memory.device import (
    cpu_process_bytes,
    cpu_process_range,
    cublas_workspace,
    device_bytes,
    device_range,
    reserved_bytes,
)
from compute_awareness.units import GIB, MIB

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


def test_the_cpu_process_figure_lies_in_the_range_of_a_real_import() -> None:
    """The import is measured in a child; the largest resident size must lie below what is said for no tensors."""
    import subprocess
    import sys

    code = "import torch, psutil; print(psutil.Process().memory_info().rss)"
    rss = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert rss < cpu_process_range(0)[1]

"""From live tensor bytes to what the card shows: caching allocator, library workspaces, CUDA context, NCCL.

Every term is an `Overhead` with a source: tensors and overheads add up to what nvidia-smi shows for the process. What
the allocator keeps is simulated where the sequence of allocations is known (`allocator.simulate`), else a rule of
thumb. Constants and the observations behind them are in `facts/overheads.json`.

Known: the allocator's rounding and segment sizes (torch 2.11 to 2.15, c10/core/AllocatorConfig.h) and the cuBLAS
workspace (torch CUDABlas). Measured on an H100 (`benchmarks/results/gpu_truth.json`): its context, what a backward pass
adds, and how much is reserved where the order of the allocations is not known. Seen, not measured here: the context of
other generations, taken from out-of-memory messages, and NCCL. Not counted: torch.compile and CUDA graphs, eager
module loading, convolution workspaces.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ...units import MIB
from ..estimate import Overhead


@cache
def _facts() -> dict[str, Any]:
    return json.loads((Path(__file__).parents[2] / "facts" / "overheads.json").read_text(encoding="utf-8"))


def _round_up(nbytes: int, unit: int) -> int:
    return -(-nbytes // unit) * unit


def _context(compute_capability: str | None) -> dict[str, Any]:
    """MiB outside torch's allocator: typical, low and high, for a compute capability such as "8.6"."""
    table = _facts()["context_mib"]
    if compute_capability is not None:
        for key in (compute_capability, compute_capability.split(".")[0]):
            if key in table:
                return table[key]
    return _facts()["context_mib_unknown"]


def cublas_workspace(compute_capability: str | None) -> int:
    """Bytes of the workspace that the first matrix product takes and keeps, one handle (thread) on one stream.

    torch takes it from its own caching allocator, so it counts in `max_memory_allocated`: 8.1 MiB before Hopper,
    32 MiB from compute capability 9.0 on. Where the capability is not known the larger one is returned.
    """
    sizes = _facts()["cublas_workspace_bytes"]
    if compute_capability is None or int(compute_capability.split(".")[0]) >= 9:
        return sizes["hopper_and_later"]
    return sizes["before_hopper"]


def _segments(nbytes: int) -> int:
    """Bytes of the segments around `nbytes` in large blocks: the last one is not full, nor is the small pool."""
    allocator = _facts()["caching_allocator"]
    if nbytes == 0:
        return 0
    return _round_up(nbytes, allocator["round_large"]) + allocator["small_segment"]


def workspace_segment(compute_capability: str | None) -> int:
    """Bytes of the segment around the cuBLAS workspace. One below 10 MiB opens a segment of 20 MiB."""
    allocator = _facts()["caching_allocator"]
    workspace = cublas_workspace(compute_capability)
    if workspace < allocator["min_large_alloc"]:
        return allocator["large_segment"]
    return _round_up(workspace, allocator["round_large"])


def overheads(
    tensors: int,
    capability: str | None,
    reserved: int | None = None,
    late_bytes: int = 0,
    n_gpus: int = 1,
    *,
    backward: bool = False,
    buffers: int = 0,
    order: str = "unknown",
    unsure: int = 0,
) -> list[Overhead]:
    """What one process takes on its card beside a peak of `tensors` live bytes, term by term.

    The expected figures add up, with `tensors`, to what nvidia-smi shows; the low and high ones to the range
    (`late_bytes` come on top of the high end, and widen the shares that are counted in per cent).

    Args:
        capability: compute capability such as "8.6"; None = a typical card.
        reserved: bytes that the simulated allocator took, the cuBLAS workspace among them; None = a rule of thumb.
        n_gpus: cards that torch.distributed spans; from 2 on NCCL's buffers are counted.
        backward: a backward pass is run. Autograd does so in a thread of its own, which has its own cuBLAS handle.
        buffers: bytes that CUDA's kernels take at the peak (`staging`), where that is known.
        order: with `reserved` None, what is known of the order: a row of `fragmentation` in `facts/overheads.json`.
        unsure: with `reserved`, bytes that it may be low by besides the usual margin.
    """
    workspace = cublas_workspace(capability)
    least = workspace
    if capability is None or int(capability.split(".")[0]) >= 10:
        least = _facts()["cublas_workspace_bytes"]["before_hopper"]
    rounding, low, high, source = _rounding(tensors, capability, reserved, late_bytes, backward, order)
    high += unsure
    buffers = min(buffers, rounding)
    rounding, high = rounding - buffers, high - buffers
    terms = [
        Overhead(name="allocator_rounding", bytes=rounding, low=low, high=high, source=source),
        # A model without a matrix product, or one whose peak is before it, reserves less than tensors and workspace.
        Overhead(
            name="cublas_workspace", bytes=workspace, low=least, high=workspace,
            source=_facts()["cublas_workspace_bytes"]["source"],
        ),
        _context_term(capability),
    ]  # fmt: skip
    if buffers:
        terms.append(
            Overhead(
                name="kernel_buffers", bytes=buffers, low=0, high=buffers,
                source="staging buffers of CUDA's sums over rows at the peak: torch's Reduce.cuh, compared on an H100",
            )
        )  # fmt: skip
    if backward:
        terms += _backward_terms(capability, workspace, least)
    if n_gpus > 1:
        terms.append(_nccl_term(n_gpus))
    return terms


def _rounding(
    tensors: int, capability: str | None, reserved: int | None, late_bytes: int, backward: bool, order: str
) -> tuple[int, int, int, str]:
    """(expected, low, high, source) of what the allocator reserves beside the tensors and the cuBLAS workspaces."""
    facts = _facts()
    allocator, fragmentation = facts["caching_allocator"], facts["fragmentation"]
    workspaces, most = cublas_workspace(capability) * (1 + backward), tensors + late_bytes
    if reserved is not None:
        expected = max(reserved - tensors - workspaces, 0)
        high = expected + int(most * fragmentation["simulated_margin"]) + allocator["large_segment"]
        return expected, 0, high, fragmentation["simulated_source"]
    known = fragmentation[order]
    around = workspace_segment(capability) * (1 + backward)
    expected = _segments(tensors + int(tensors * known["typical"])) + around
    high = _segments(most + int(most * known["high"])) + around + allocator["large_segment"]
    return expected - tensors - workspaces, 0, high - most - workspaces, known["source"]


def _backward_terms(capability: str | None, workspace: int, least: int) -> list[Overhead]:
    """What the autograd thread's cuBLAS handle takes: a workspace from the allocator, and memory of its own."""
    handle = _facts()["backward_handle_mib"]
    modern = capability is None or int(capability.split(".")[0]) >= 9
    usual = handle["hopper_and_later"] if modern else handle["before_hopper"]
    return [
        Overhead(
            name="backward_workspace", bytes=workspace, low=least, high=workspace,
            source="a second cuBLAS workspace: autograd runs backward in a thread of its own, handles are per thread",
        ),
        Overhead(
            name="backward_handle", bytes=usual * MIB, low=0, high=handle["hopper_and_later"] * MIB,
            source=handle["source"],
        ),
    ]  # fmt: skip


def _context_term(capability: str | None) -> Overhead:
    context = _context(capability)
    return Overhead(
        name="cuda_context",
        bytes=context["typical"] * MIB,
        low=context["low"] * MIB,
        high=(context["high"] + context.get("uncertainty", _facts()["uncertainty_mib"])) * MIB,
        source=context.get("source") or f"out-of-memory messages of public repositories: {context['seen_on']}",
    )


def _nccl_term(n_gpus: int) -> Overhead:
    adders = _facts()["adders_mib"]
    usual = adders["nccl_2_gpus"] if n_gpus == 2 else adders["nccl_4_to_8_gpus"]
    return Overhead(
        name="nccl", bytes=usual * MIB, low=adders["nccl_2_gpus"] * MIB,
        high=adders["nccl_first_collective_upper"] * MIB, source=adders["nccl_source"],
    )  # fmt: skip


def on_card(
    tensors: int, late_bytes: int, capability: str | None, terms: Sequence[Overhead] = ()
) -> tuple[int, int, int]:
    """(expected, low, high) bytes on a card of `capability` for an estimate that may have been made for another.

    What the allocator keeps is taken over from `terms`, the estimate's overheads (it differs between cards by the
    segment of the workspace at most); the workspace and the context are the card's own.
    """
    own = own_overheads(tensors, late_bytes, capability, terms)
    low, high = spread(tensors, own, late_bytes)
    return tensors + sum(term.bytes for term in own), low, high


def own_overheads(
    tensors: int, late_bytes: int, capability: str | None, terms: Sequence[Overhead] = ()
) -> list[Overhead]:
    """The terms that `on_card` adds up."""
    kept = {term.name: term for term in terms}
    own = overheads(tensors, capability, None, late_bytes, backward="backward_workspace" in kept)
    own = [kept.get(term.name, term) if term.name == "allocator_rounding" else term for term in own]
    return own + [term for term in terms if term.name in ("kernel_buffers", "nccl")]


def spread(tensors: int, terms: Sequence[Overhead], late_bytes: int = 0) -> tuple[int, int]:
    """(low, high) bytes on the card: the least and the most of every term, and at the high end what comes late."""
    low, high = sum(term.low for term in terms), sum(term.high for term in terms)
    return tensors + low, tensors + late_bytes + high


def left_for_allocator(free: int, tensors: int, terms: Sequence[Overhead]) -> tuple[int, int]:
    """Bytes of `free` that torch's allocator surely gets for a run whose order of allocations is known, and the most
    that it may get: without the most, and the least, that anything else takes. Off the former is a margin for what the
    order may be off (`fragmentation`, `tight_source`)."""
    margin = int(tensors * _facts()["fragmentation"]["tight_margin"]) + _facts()["caching_allocator"]["large_segment"]
    others = [term for term in terms if term.name not in ("allocator_rounding", "cublas_workspace")]
    return free - margin - sum(term.high for term in others), free - sum(term.low for term in others)


def reserved_bytes(tensors: int, compute_capability: str | None = None) -> int:
    """What `torch.cuda.max_memory_reserved()` shows for a peak of `tensors` live bytes in an unknown order.

    Segments of the caching allocator and the cuBLAS workspace, with 5 % for freed blocks that no later tensor fits
    (a rule of thumb for fixed shapes with expandable segments off; sequences of varying length waste more).
    """
    rounding = _rounding(tensors, compute_capability, None, 0, False, "unknown")[0]
    return tensors + rounding + cublas_workspace(compute_capability)


def device_bytes(tensors: int, compute_capability: str | None) -> int:
    """What nvidia-smi shows for the process at a peak of `tensors` live bytes: `reserved_bytes` and the CUDA context.

    The context is the usual one of the card's generation, at the upper end of what was seen on it. Where
    `compute_capability` is None, one that is enough for all but a few cards is counted.
    """
    return tensors + sum(term.bytes for term in overheads(tensors, compute_capability))


def device_range(tensors: int, compute_capability: str | None) -> tuple[int, int]:
    """(low, high) bytes on the card: no waste and the smallest context seen; 12 % waste and the largest plus 150 MiB.

    High covers every single-process context observation of `facts/overheads.json`. It is a safe figure for fixed
    shapes, not a bound: varying sequence lengths can waste more.
    """
    return spread(tensors, overheads(tensors, compute_capability))


def cpu_process_bytes(tensors: int) -> int:
    """RAM of a Python process that holds `tensors` bytes on the CPU, or in Apple's unified memory.

    Python, torch and TransformerLens take 0.46 GiB after import; with the scratch of a forward pass a run took 0.68 to
    0.75 GiB beside its tensors (measured, `facts/overheads.json`). There is no context and no rounding worth counting.
    """
    return tensors + _facts()["cpu_process_mib"]["typical"] * MIB


def cpu_process_range(tensors: int) -> tuple[int, int]:
    """(low, high) of `cpu_process_bytes`. High has 5 % for the heap and 1.25 GiB: a CUDA build of torch is larger."""
    process = _facts()["cpu_process_mib"]
    return tensors + process["low"] * MIB, tensors + tensors // 20 + process["high"] * MIB


def mps_process_bytes(tensors: int) -> int:
    """Unified memory of a Python process that holds `tensors` bytes on Apple's GPU.

    The tensors lie in the RAM, there is no context: `cpu_process_bytes`. Nothing was measured on MPS.
    """
    return cpu_process_bytes(tensors)


def mps_process_range(tensors: int) -> tuple[int, int]:
    """(low, high) of `mps_process_bytes`. High has one heap of each of torch's sizes that is not full.

    torch's MPS allocator packs tensors up to 1 MiB in heaps of 8 MiB, below 10 MiB in heaps of 32 MiB, below 512 MiB
    in heaps of 1 GiB; larger ones get a heap of their own in whole 2 MiB (ATen/mps/MPSAllocator.h). How much of a
    heap counts before it is used is Metal's business and was not measured. What Metal recommends as the most
    (two thirds to three quarters of the RAM) is `hardware.probe.apple.metal_working_set`.
    """
    low, high = cpu_process_range(tensors)
    return low, high + sum(_facts()["mps_allocator"]["heaps"])

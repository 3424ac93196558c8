"""From live tensor bytes to what the card shows: caching allocator, library workspaces, CUDA context.

A first cut that knows only how many bytes are alive at the peak, not which blocks they lie in. Constants and the
observations behind them are in `facts/overheads.json`.

Known: the allocator's rounding and segment sizes (torch 2.11 to 2.15, c10/core/AllocatorConfig.h) and the cuBLAS
workspace (torch CUDABlas). Seen, not measured here: the context per GPU generation, taken from out-of-memory messages.
A rule of thumb: fragmentation. Not counted: NCCL, torch.compile and CUDA graphs, eager module loading,
convolution workspaces.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from ..units import MIB


@cache
def _facts() -> dict[str, Any]:
    return json.loads((Path(__file__).parents[1] / "facts" / "overheads.json").read_text(encoding="utf-8"))


def _round_up(nbytes: int, unit: int) -> int:
    return -(-nbytes // unit) * unit


def _context(compute_capability: str | None) -> dict[str, int]:
    """MiB outside torch's allocator: typical, low and high, for a compute capability such as "8.6"."""
    table = _facts()["context_mib"]
    if compute_capability is not None:
        for key in (compute_capability, compute_capability.split(".")[0]):
            if key in table:
                return table[key]
    return _facts()["context_mib_unknown"]


def cublas_workspace(compute_capability: str | None) -> int:
    """Bytes of the workspace that the first matrix product takes and keeps, one handle on one stream.

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


def _workspace_segment(compute_capability: str | None) -> int:
    """Bytes of the segment around the cuBLAS workspace. One below 10 MiB opens a segment of 20 MiB."""
    allocator = _facts()["caching_allocator"]
    workspace = cublas_workspace(compute_capability)
    if workspace < allocator["min_large_alloc"]:
        return allocator["large_segment"]
    return _round_up(workspace, allocator["round_large"])


def reserved_bytes(tensors: int, compute_capability: str | None = None) -> int:
    """What `torch.cuda.max_memory_reserved()` shows for a peak of `tensors` live bytes.

    Segments of the caching allocator and the cuBLAS workspace, with 5 % for freed blocks that no later tensor fits
    (a rule of thumb for fixed shapes with expandable segments off; sequences of varying length waste more).
    """
    spare = int(tensors * _facts()["fragmentation"]["typical"])
    return _segments(tensors + spare) + _workspace_segment(compute_capability)


def device_bytes(tensors: int, compute_capability: str | None) -> int:
    """What nvidia-smi shows for the process at a peak of `tensors` live bytes: `reserved_bytes` and the CUDA context.

    The context is the usual one of the card's generation, at the upper end of what was seen on it. Where
    `compute_capability` is None, one that is enough for all but a few cards is counted.
    """
    return reserved_bytes(tensors, compute_capability) + _context(compute_capability)["typical"] * MIB


def device_range(tensors: int, compute_capability: str | None) -> tuple[int, int]:
    """(low, high) bytes on the card: no waste and the smallest context seen; 12 % waste and the largest plus 150 MiB.

    High covers every single-process context observation of `facts/overheads.json`. It is a safe figure for fixed
    shapes, not a bound: varying sequence lengths can waste more.
    """
    facts, context = _facts(), _context(compute_capability)
    low = tensors + cublas_workspace(compute_capability) + context["low"] * MIB
    waste = int(tensors * facts["fragmentation"]["high"])
    slack = facts["caching_allocator"]["large_segment"]
    high = _segments(tensors + waste) + slack + _workspace_segment(compute_capability)
    return low, high + (context["high"] + facts["uncertainty_mib"]) * MIB


def cpu_process_bytes(tensors: int) -> int:
    """RAM of a Python process that holds `tensors` bytes on the CPU, or in Apple's unified memory.

    Python, torch and TransformerLens take 0.46 GiB after import; with the scratch of a forward pass a run took 0.68 to
    0.75 GiB beside its tensors (measured, `facts/overheads.json`). There is no context and no rounding worth counting.
    On MPS the tensors lie in the same RAM and Metal's own heap is not counted: nothing was measured there.
    """
    return tensors + _facts()["cpu_process_mib"]["typical"] * MIB


def cpu_process_range(tensors: int) -> tuple[int, int]:
    """(low, high) of `cpu_process_bytes`. High has 5 % for the heap and 1.25 GiB: a CUDA build of torch is larger."""
    process = _facts()["cpu_process_mib"]
    return tensors + process["low"] * MIB, tensors + tensors // 20 + process["high"] * MIB

"""What a card's measurements say about our three peaks, and the few constants that they leave to be fitted.

Errors are (ours - measured) / measured in percent. No torch, no GPU: works on what `gpu_truth.py` wrote.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from compute_awareness.advice.gpu_table import all_gpus
from compute_awareness.estimator import estimate
from compute_awareness.memory.card.device import cublas_workspace
from compute_awareness.runtime.duration import estimate_time
from compute_awareness.workload import parse_workload

LEVELS = ("tensors", "reserved", "device")
MIB = 1024**2


def compared(workload: dict[str, Any], measured: dict[str, Any], capability: str | None) -> dict[str, Any]:
    """Our peaks beside the measured ones, by level. Bytes, and errors in percent where there is a measurement.

    tensors: what was asked of the allocator at its peak (on CUDA workspaces and buffers of kernels are among it, so
    they are in our figure, too). reserved: what the allocator took. device: what the driver shows for the process.
    """
    result = estimate(parse_workload(workload), capability)
    asked_for = ("cublas_workspace", "backward_workspace", "kernel_buffers")
    of_kernels = sum(term.bytes for term in result.overheads if term.name in asked_for)
    on_card = "requested" in measured
    levels = {
        "tensors": (result.peak.tensors + of_kernels * on_card, measured["requested" if on_card else "allocated"]),
        "reserved": (result.peak.reserved, measured.get("reserved")),
        "device": (result.peak.device, measured.get("device")),
    }
    row: dict[str, Any] = {"range": [result.range.low, result.range.high]}
    for level, (ours, real) in levels.items():
        row[level] = {"ours": ours, "truth": real}
        if real is not None:
            row[level]["error_percent"] = round(100 * (ours - real) / real, 4)
    if measured.get("device") is not None:
        row["in_range"] = result.range.low <= measured["device"] <= result.range.high
    return row


def timed(workload: dict[str, Any], measured: dict[str, Any], about: dict[str, Any]) -> dict[str, Any] | None:
    """Our range of seconds for one run (of an SAE: one step) beside the measured one; None where it is no such thing.

    With an activation store the language model runs for some steps and not for others.
    """
    card = next((gpu for gpu in all_gpus() if about["card"] in gpu.nvml_names), None)
    if card is None or "seconds" not in measured or (workload["task"] == "sae_training" and workload.get("model")):
        return None
    work = estimate(parse_workload(workload), about["compute_capability"]).work
    once = [part.model_copy(update={"times": part.times / work[0].times}) for part in work]
    time = estimate_time(once, card, "gpu", None)
    seconds = measured["seconds"] / measured["steps"]
    return {"low": time.low, "high": time.high, "measured": seconds, "in_range": time.low <= seconds <= time.high}


def split(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(two thirds, the held-out third) by the order of ids: the same whatever order they were measured in."""
    ordered = sorted(rows, key=lambda row: row["id"])
    return [r for n, r in enumerate(ordered) if n % 3 != 2], [r for n, r in enumerate(ordered) if n % 3 == 2]


def fit(rows: Sequence[dict[str, Any]], capability: str | None) -> dict[str, Any]:
    """The open constants from two thirds of the rows, and the errors on the held-out third with and without them.

    context: median of the driver's figure minus what the allocator reserved, with its least and most.
    workspace: median; known from the source, so a difference is a finding and not a fit.
    margin: what the allocator reserved beyond our `peak.reserved`, as a share of our tensors: the median moves the
    expected figure, the most is what the high end of the range needs.

    Raises:
        ValueError: fewer than three rows with a reading of the driver.
    """
    usable = [row for row in rows if row["measured"].get("device") is not None]
    if len(usable) < 3:
        raise ValueError(f"{len(usable)} rows with a reading of the driver; three are the least to fit and to hold out")
    train, held_out = split(usable)
    contexts = [row["measured"]["device"] - row["measured"]["reserved"] for row in train]
    margins = [_margin(row) for row in train]
    constants = {
        "context_mib": {
            "typical": round(statistics.median(contexts) / MIB), "low": round(min(contexts) / MIB),
            "high": round(max(contexts) / MIB),
        },
        "cublas_workspace_bytes": {
            "ours": cublas_workspace(capability),
            "measured": statistics.median_high(row["measured"].get("cublas_workspace") or 0 for row in train),
        },
        "margin": {"typical": round(statistics.median(margins), 5), "high": round(max(margins), 5)},
    }  # fmt: skip
    before = [row["compared"]["device"]["error_percent"] for row in held_out]
    after = [_refitted(row, constants) for row in held_out]
    return {
        "constants": constants, "fitted_on": len(train), "held_out": len(held_out),
        "device_error_percent": {"before": _spread(before), "after": _spread(after)},
        "tensors_error_percent": _spread([row["compared"]["tensors"]["error_percent"] for row in held_out]),
        "reserved_error_percent": _spread([row["compared"]["reserved"]["error_percent"] for row in held_out]),
        "in_range": sum(row["compared"]["in_range"] for row in held_out),
    }  # fmt: skip


def _margin(row: dict[str, Any]) -> float:
    ours = row["compared"]
    return (row["measured"]["reserved"] - ours["reserved"]["ours"]) / ours["tensors"]["ours"]


def _refitted(row: dict[str, Any], constants: dict[str, Any]) -> float:
    ours, real = row["compared"], row["measured"]["device"]
    device = ours["reserved"]["ours"] + constants["margin"]["typical"] * ours["tensors"]["ours"]
    device += constants["context_mib"]["typical"] * MIB
    return 100 * (device - real) / real


def _spread(errors: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(errors), 4), "lowest": round(min(errors), 4),
        "highest": round(max(errors), 4),
    }  # fmt: skip

"""An estimate for a person."""

from __future__ import annotations

from rich.console import Console

from ..memory.estimate import Estimate
from ..picture_of import workload_line
from ..units import gib, span
from .memory_bar import show_memory
from .show import bullets, heading, pairs, say, screen, table

PRECISION = {
    "exact": "exact: tensors to the byte",
    "close": "close: tensors within 2 %",
    "rough": "rough: the order of magnitude",
}


def time_words(estimate: Estimate) -> str | None:
    """`12 s to 2.1 h on an A100 (a wide range)`; None where the work was not counted."""
    time = estimate.time
    if time is None or not estimate.flops:
        return None
    return f"{span(time.low, time.high)} on {time.on} (a wide range)"


def show_estimate(estimate: Estimate) -> None:
    to = screen()
    say(to, workload_line(estimate.workload), "bold")
    say(to, estimate.summary)
    heading(to, "Memory at the peak")
    show_memory(to, estimate, estimate.peak.device, None, "the device")
    show_figures(to, estimate)
    show_hooks(to, estimate)
    show_notes(to, estimate)


def show_figures(to: Console, estimate: Estimate) -> None:
    peak = estimate.peak
    heading(to, "Figures")
    pairs(
        to,
        [
            ("tensors", f"{gib(peak.tensors)}   torch.cuda.max_memory_allocated"),
            ("reserved", f"{gib(peak.reserved)}   torch.cuda.max_memory_reserved"),
            ("device", f"{gib(peak.device)}   nvidia-smi"),
            ("range", f"{gib(estimate.range.low)} to {gib(estimate.range.high)} on the device"),
            ("precision", PRECISION[estimate.precision]),
            ("checked on", estimate.verified_on),
            ("RAM beside it", gib(estimate.host_bytes) if estimate.host_bytes else None),
            ("RAM to load", f"about {gib(estimate.loading_host_bytes)}" if estimate.loading_host_bytes else None),
            ("download", gib(estimate.download_bytes) if estimate.download_bytes is not None else "size not known"),
            ("work", f"{estimate.flops:.2e} floating-point operations" if estimate.flops else None),
            ("time", time_words(estimate)),
        ],
    )


def show_hooks(to: Console, estimate: Estimate) -> None:
    if not estimate.hooks:
        return
    heading(to, "Cache by hook family")
    rows = [(h.hook, h.count, gib(h.bytes) if h.bytes else "shared") for h in estimate.hooks]
    table(to, ("hook", "count", "bytes kept"), rows, right=(1, 2))


def show_notes(to: Console, estimate: Estimate) -> None:
    if estimate.warnings:
        heading(to, "Warnings")
        bullets(to, estimate.warnings, "!", "bold yellow")
    if estimate.assumptions:
        heading(to, "Assumptions")
        bullets(to, estimate.assumptions)

"""How long it takes, from peak rates and a stated share of them: a range, held against runs on an H100."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, Protocol

from ..memory.estimate import Time, WorkPart

# Shares of the peak that a run reaches. The best: large matrix products reach 75 to 85 % of the dense peak on NVIDIA
# cards and 50 to 68 % on AMD (stas00/ml-engineering, MAMF). The worst: with these, and what is below, 71 runs of every
# task on an H100 lay within the range (benchmarks/results/gpu_truth.json); other cards were not timed.
COMPUTE_SHARE = (0.25, 0.85)
AMD_SHARE = (0.15, 0.70)
BANDWIDTH_SHARE = (0.50, 0.90)
# How often more than the products themselves everything else reads and writes their activations, and their weights
# (which TransformerLens copies before it multiplies), at the most: counted from the operands of every operator that
# is no view, forward and backward (tests/truth/test_traffic.py: transformers 5.23, TransformerLens 3.9, SAELens 6.54).
AGAIN = {"activations": 10, "weights": 3}
# Seconds per kernel that Python starts: torch's dispatcher at the least (7.4 us for x.add_(1) on the H100 machine), a
# line of Python and hooks that keep what they are given at the most. It rules for small models and for decoding: on
# the H100 machine transformers took 10 to 23 us, TransformerLens 30 to 40, with a full cache 40 to 98.
KERNEL_SECONDS = (5e-6, 100e-6)
# 10^9 bytes/s at which offloaded weights come to a card: from ordinary RAM over PCIe (3 x16 at the worst, 5 x16 at the
# best), from disk (SATA to NVMe). Assumed; 8.5 from ordinary and 55 from pinned RAM were measured beside an H100.
CROSSING_GB_S = {"cpu": (3.0, 55.0), "disk": (0.5, 7.0)}
UNCALIBRATED = "uncalibrated: no run was timed"
TIMED = "the shares were held against runs on an H100 only"

# One CPU core, 10^9 operations/s, least and most. float32: 5 to 84 was measured on one core and two shared ones with
# torch 2.13, AVX-512 with two units gives more. Half precision: 0.1 to 1.3 was measured on a core without
# instructions for it, AMX gives far more.
CPU_GFLOPS_PER_CORE = {"float32": (5.0, 120.0), "bfloat16": (0.1, 300.0), "float16": (0.1, 120.0)}
CPU_BANDWIDTH_GB_S = (5.0, 200.0)
_CORES_ASSUMED = 4


class Card(Protocol):
    """What is needed of a row of the GPU table."""

    @property
    def name(self) -> str: ...
    @property
    def vendor(self) -> str: ...
    @property
    def tensor_tflops(self) -> float | None: ...
    @property
    def fp32_tflops(self) -> float | None: ...
    @property
    def bandwidth_gb_s(self) -> float: ...
    @property
    def bf16_native(self) -> bool: ...


class _Rates(NamedTuple):
    name: str
    vendor: str
    tensor_tflops: float
    fp32_tflops: float
    bandwidth_gb_s: float
    bf16_native: bool


# What durations are quoted for where no card is known: the figures of the A100 40 GB in the GPU table.
REFERENCE: Card = _Rates("an A100", "nvidia", 312, 19.5, 1555, True)


def peak_flops(card: Card, dtype: str) -> float | None:
    """The card's dense peak for matrix products in `dtype`, operations/s; None where the table does not know it.

    float32 runs on the ordinary units: torch leaves TF32 off for matrix products unless asked. bfloat16 without
    hardware for it (Turing, Volta, Pascal) is converted to float32 and gains nothing.
    """
    half = dtype == "float16" or (dtype == "bfloat16" and card.bf16_native)
    tflops = card.tensor_tflops if half and card.tensor_tflops else card.fp32_tflops
    return tflops * 1e12 if tflops else None


def estimate_time(
    work: Iterable[WorkPart], card: Card | None, kind: Literal["gpu", "mps", "cpu", "unknown"], cores: float | None
) -> Time:
    """Seconds for the work, as a range on a named device; parts come one after the other.

    The low figure overlaps arithmetic, traffic and the starting of kernels, and takes the best shares; the high figure
    adds them and takes the worst. Left out: start-up, downloads, loading, reading a data set. Several cards are no
    faster here: TransformerLens' `n_devices` runs the layers one after another.

    Args:
        card: the row of the GPU table; None = not known, the figures are then those of an A100 and say so.
        cores: CPU cores, for `kind` "cpu"; None = four.
    """
    low = high = 0.0
    parts = list(work)
    dtypes = list(dict.fromkeys(part.dtype for part in parts))
    known = card if card is not None and all(peak_flops(card, dtype) for dtype in dtypes) else REFERENCE
    for part in parts:
        least, most = _on_cpu(part, cores) if kind == "cpu" else _on_card(part, known)
        if part.crossing_bytes and kind != "cpu":  # hooks wait for the copies: nothing overlaps
            slow, fast = (rate * 1e9 for rate in CROSSING_GB_S[part.crossing_from])
            least, most = least + part.crossing_bytes / fast, most + part.crossing_bytes / slow
        low, high = low + part.times * least, high + part.times * most
    on = known.name
    if kind == "cpu":
        used = cores or _CORES_ASSUMED
        on = f"the CPU with {used:g} core{'s' * (used != 1)}"
    basis = _cpu_basis(dtypes) if kind == "cpu" else _card_basis(known, dtypes) + _crossing_basis(parts)
    return Time(low=low, high=high, on=on, basis=basis)


def _crossing_basis(parts: Iterable[WorkPart]) -> str:
    places = dict.fromkeys(part.crossing_from for part in parts if part.crossing_bytes)
    rates = [f"{CROSSING_GB_S[place][0]:g} to {CROSSING_GB_S[place][1]:g} GB/s from {place}" for place in places]
    return f"; offloaded weights at {', '.join(rates)} (assumed)" if rates else ""


def _on_card(part: WorkPart, card: Card) -> tuple[float, float]:
    """Seconds of one time, at the least and at the most."""
    peak, bandwidth = peak_flops(card, part.dtype) or 0.0, card.bandwidth_gb_s * 1e9
    worst, best = _share(card)
    least, most = (part.kernels * seconds for seconds in KERNEL_SECONDS)
    moved_least, moved_most = _moved(part)
    return (
        max(part.flops / (peak * best), moved_least / (bandwidth * BANDWIDTH_SHARE[1]), least),
        part.flops / (peak * worst) + moved_most / (bandwidth * BANDWIDTH_SHARE[0]) + most,
    )


def _share(card: Card) -> tuple[float, float]:
    return AMD_SHARE if card.vendor == "amd" else COMPUTE_SHARE


def _moved(part: WorkPart) -> tuple[int, int]:
    """Bytes that cross the memory each time, at the least (what the products read and write) and at the most."""
    weights = part.moved_bytes - part.activation_bytes
    again = AGAIN["activations"] * part.activation_bytes + AGAIN["weights"] * weights
    return part.moved_bytes, part.moved_bytes + again


def _on_cpu(part: WorkPart, cores: float | None) -> tuple[float, float]:
    """A wide range: neither clock nor vector units are looked at."""
    used = cores or _CORES_ASSUMED
    slow, fast = (rate * 1e9 * used for rate in CPU_GFLOPS_PER_CORE[part.dtype])
    moved_least, moved_most = _moved(part)
    return (
        max(part.flops / fast, moved_least / (CPU_BANDWIDTH_GB_S[1] * 1e9)),
        part.flops / slow + moved_most / (CPU_BANDWIDTH_GB_S[0] * 1e9) + part.kernels * KERNEL_SECONDS[1],
    )


def _card_basis(card: Card, dtypes: Iterable[str]) -> str:
    peaks = ", ".join(f"{(peak_flops(card, dtype) or 0) / 1e12:g} TFLOP/s in {dtype}" for dtype in dtypes)
    return (
        f"{_share(card)[0]:.0%} to {_share(card)[1]:.0%} of {peaks}; {BANDWIDTH_SHARE[0]:.0%} to "
        f"{BANDWIDTH_SHARE[1]:.0%} of {card.bandwidth_gb_s:g} GB/s; {KERNEL_SECONDS[0] * 1e6:g} to "
        f"{KERNEL_SECONDS[1] * 1e6:g} us a kernel; {TIMED}"
    )


def _cpu_basis(dtypes: Iterable[str]) -> str:
    rates = ", ".join(
        f"{CPU_GFLOPS_PER_CORE[d][0]:g} to {CPU_GFLOPS_PER_CORE[d][1]:g} GFLOP/s a core in {d}" for d in dtypes
    )
    return f"{rates}; {CPU_BANDWIDTH_GB_S[0]:g} to {CPU_BANDWIDTH_GB_S[1]:g} GB/s; {UNCALIBRATED}"

"""How long it takes, from peak rates and a stated share of them. Not calibrated on any run: a range."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from ..memory.estimate import Time

# Shares of the peak that a run reaches. The best: large matrix products reach 75 to 85 % of the dense peak on NVIDIA
# cards and 50 to 68 % on AMD (stas00/ml-engineering, MAMF). The worst: small batches, hooks and element-wise
# kernels between the products; assumed, not measured.
COMPUTE_SHARE = (0.15, 0.80)
BANDWIDTH_SHARE = (0.40, 0.90)

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
    def tensor_tflops(self) -> float | None: ...
    @property
    def fp32_tflops(self) -> float | None: ...
    @property
    def bandwidth_gb_s(self) -> float: ...
    @property
    def bf16_native(self) -> bool: ...


class _Rates(NamedTuple):
    name: str
    tensor_tflops: float
    fp32_tflops: float
    bandwidth_gb_s: float
    bf16_native: bool


# What durations are quoted for where no card is known: the figures of the A100 40 GB in the GPU table.
REFERENCE: Card = _Rates("an A100", 312, 19.5, 1555, True)


def peak_flops(card: Card, dtype: str) -> float | None:
    """The card's dense peak for matrix products in `dtype`, operations/s; None where the table does not know it.

    float32 runs on the ordinary units: torch leaves TF32 off for matrix products unless asked. bfloat16 without
    hardware for it (Turing, Volta, Pascal) is converted to float32 and gains nothing.
    """
    half = dtype == "float16" or (dtype == "bfloat16" and card.bf16_native)
    tflops = card.tensor_tflops if half and card.tensor_tflops else card.fp32_tflops
    return tflops * 1e12 if tflops else None


def estimate_time(
    flops: float,
    bytes_moved: float,
    card: Card | None,
    dtype: str,
    kind: Literal["gpu", "mps", "cpu", "unknown"],
    cores: float | None,
) -> Time:
    """Seconds for `flops` operations and `bytes_moved` bytes of memory traffic, as a range on a named device.

    The low figure overlaps arithmetic and traffic and takes the best shares, the high figure adds them and takes the
    worst. Left out: start-up, loading, and the launch of kernels, which rules for models below about 100 M
    parameters. Several cards are no faster here: TransformerLens' `n_devices` runs the layers one after another.

    Args:
        card: the row of the GPU table; None = not known, the figures are then those of an A100 and say so.
        cores: CPU cores, for `kind` "cpu"; None = four.
    """
    if kind == "cpu":
        return _on_cpu(flops, bytes_moved, cores, dtype)
    known = card if card is not None and peak_flops(card, dtype) else REFERENCE
    peak, bandwidth = peak_flops(known, dtype) or 0.0, known.bandwidth_gb_s * 1e9
    return Time(
        low=max(flops / (peak * COMPUTE_SHARE[1]), bytes_moved / (bandwidth * BANDWIDTH_SHARE[1])),
        high=flops / (peak * COMPUTE_SHARE[0]) + bytes_moved / (bandwidth * BANDWIDTH_SHARE[0]),
        on=known.name,
    )


def _on_cpu(flops: float, bytes_moved: float, cores: float | None, dtype: str) -> Time:
    """A wide range: neither clock nor vector units are looked at."""
    used = cores or _CORES_ASSUMED
    slow, fast = (rate * 1e9 * used for rate in CPU_GFLOPS_PER_CORE[dtype])
    return Time(
        low=max(flops / fast, bytes_moved / (CPU_BANDWIDTH_GB_S[1] * 1e9)),
        high=flops / slow + bytes_moved / (CPU_BANDWIDTH_GB_S[0] * 1e9),
        on=f"the CPU with {used:g} core{'s' * (used != 1)}",
    )

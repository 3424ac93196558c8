"""Durations are ranges from the card's peak rates."""

from __future__ import annotations

import pytest

from compute_awareness.advice.gpu_table import all_gpus
from compute_awareness.memory.estimate import WorkPart
from compute_awareness.runtime.duration import REFERENCE, estimate_time, peak_flops

BY_ID = {gpu.id: gpu for gpu in all_gpus()}


def work(flops: float, moved_bytes: float, dtype: str) -> list[WorkPart]:
    return [WorkPart(what="a run", flops=int(flops), moved_bytes=int(moved_bytes), dtype=dtype)]


def test_float32_does_not_run_on_tensor_cores() -> None:
    a100 = BY_ID["a100-80gb-sxm"]
    assert peak_flops(a100, "float32") == 19.5e12
    assert peak_flops(a100, "bfloat16") == peak_flops(a100, "float16") == 312e12


def test_bfloat16_without_hardware_gains_nothing() -> None:
    t4 = BY_ID["t4"]
    assert peak_flops(t4, "bfloat16") == peak_flops(t4, "float32") == 8.1e12
    assert peak_flops(t4, "float16") == 65e12


def test_the_reference_card_is_the_tables() -> None:
    row = BY_ID["a100-40gb-sxm"]
    for field in ("tensor_tflops", "fp32_tflops", "bandwidth_gb_s", "bf16_native"):
        assert getattr(REFERENCE, field) == getattr(row, field)


@pytest.mark.parametrize("gpu", all_gpus(), ids=lambda gpu: gpu.id)
def test_every_card_has_a_range(gpu: object) -> None:
    card = BY_ID[gpu.id]  # type: ignore[attr-defined]
    for dtype in ("float32", "bfloat16", "float16"):
        time = estimate_time(work(1e15, 1e12, dtype), card, "gpu", None)
        assert 0 < time.low < time.high
        assert time.on == (card.name if peak_flops(card, dtype) else "an A100")


def test_memory_traffic_bounds_what_has_little_arithmetic() -> None:
    card = BY_ID["rtx4090"]
    assert estimate_time(work(0, card.bandwidth_gb_s * 1e9, "float32"), card, "gpu", None).low >= 1
    # A known run: 795 TFLOP/s of 989 were reached on an H100 (stas00), so the low figure must not be above it.
    assert estimate_time(work(795e12, 0, "bfloat16"), BY_ID["h100-sxm"], "gpu", None).low <= 1.01


def test_unknown_cards_and_the_cpu() -> None:
    unknown = estimate_time(work(1e15, 0, "float32"), None, "unknown", None)
    assert unknown.on == "an A100"
    cpu = estimate_time(work(1e12, 0, "float32"), None, "cpu", 2)
    # 36 to 84 GFLOP/s were measured on two shared cores.
    assert cpu.low < 1e12 / 84e9 < 1e12 / 11e9 < cpu.high and cpu.on == "the CPU with 2 cores"
    assert estimate_time(work(1e12, 0, "bfloat16"), None, "cpu", 2).high > cpu.high
    assert estimate_time(work(0, 0, "float32"), None, "cpu", None).high == 0


def test_what_the_range_rests_on_is_said() -> None:
    amd = estimate_time(work(1e15, 0, "bfloat16"), BY_ID["mi300x"], "gpu", None)
    assert "15% to 70% of 1307 TFLOP/s in bfloat16" in amd.basis and "an H100 only" in amd.basis
    assert amd.low == pytest.approx(1e15 / (1307e12 * 0.70))
    cpu = estimate_time(work(1e12, 0, "float32"), None, "cpu", 2)
    assert "GFLOP/s a core" in cpu.basis and "uncalibrated" in cpu.basis


def test_parts_add_up_each_at_its_own_rate() -> None:
    """A language model in bfloat16 behind an SAE in float32: tensor cores for the one, none for the other."""
    card = BY_ID["a100-80gb-sxm"]
    lm = WorkPart(what="model", times=3, flops=10**15, moved_bytes=0, dtype="bfloat16")
    sae = WorkPart(what="SAE", times=2, flops=10**15, moved_bytes=0, dtype="float32")
    both, one, other = (estimate_time(parts, card, "gpu", None) for parts in ([lm, sae], [lm], [sae]))
    assert both.low == pytest.approx(one.low + other.low) and both.high == pytest.approx(one.high + other.high)
    assert one.low == pytest.approx(3 * 1e15 / (312e12 * 0.85))
    assert other.low == pytest.approx(2 * 1e15 / (19.5e12 * 0.85))


def test_starting_kernels_rules_small_models() -> None:
    """A step of decoding with GPT-2 reads 0.5 GB, which takes an A100 a third of a ms; 600 kernels take more."""
    step = [WorkPart(what="token", flops=25 * 10**7, moved_bytes=5 * 10**8, kernels=600, dtype="float32")]
    time = estimate_time(step, BY_ID["a100-40gb-sxm"], "gpu", None)
    assert time.low == pytest.approx(600 * 5e-6) and time.high > 600 * 100e-6

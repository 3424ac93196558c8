"""The arithmetic of SAE training memory, without torch; tests/truth/test_sae_training.py holds it against SAELens."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_awareness.errors import InputError
from compute_awareness.memory.sae.activation_store import check_store, refills
from compute_awareness.memory.sae.evaluation import first_evaluation
from compute_awareness.memory.sae.inference import Use, attached, encode
from compute_awareness.memory.sae.matching_pursuit import Pursuit, bytes_per_iteration
from compute_awareness.memory.sae.training import LanguageModelPart, Shape, sae_params
from compute_awareness.memory.sae.training import training_memory as memory_of
from compute_awareness.memory.tape import Tape
from compute_awareness.runtime.sae import Step

ARCHITECTURES = ("standard", "topk", "batchtopk", "jumprelu", "gated")
# Fitted to 29 measured points per architecture with d_sae several times d_in, to 0.7 %, before the step was written
# down: (W, Bf, Bd, f, Bk) in units of 4*d*f, 4*B*f, 4*B*d, 4*f and 4*B*k bytes; the largest one holds.
FITTED = {
    "standard": [(6, 8, 4, 8, 0), (8, 7, 5, 10, 0), (10, 5, 3, 7, 0)],
    "topk": [(7, 9, 4, 10, 3), (9, 7, 4, 10, 0), (10, 5, 3, 7, 0)],
    "batchtopk": [(7, 10, 4, 10, 2), (9, 8, 4, 10, 0), (10, 5, 3, 7, 0)],
    # measured on the CPU it was 9.25 Bf; one of them is a cast of bools that CUDA does inside the kernel
    "jumprelu": [(7, 8.25, 4, 10, 0), (10, 5, 3, 12, 0)],
    "gated": [(8, 11, 5, 14, 0), (10, 9, 5, 10, 0), (10, 5, 3, 14, 0), (11, 5, 5, 14, 0)],
}
MODEL = LanguageModelPart(weights=10**9, buffers=10**6, forward_peak=3 * 10**8, retained=4096 * 768 * 4)


def training_memory(
    architecture: str, d_in: int, d_sae: int, k: int, batch: int, context: int, n_batches: int, prompts: int, lm,
    **more,
):  # fmt: skip
    return memory_of(Shape(architecture, d_in, d_sae, k, batch, **more), context, n_batches, prompts, lm)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(derandomize=True, deadline=None, database=None)
@given(d_in=st.integers(64, 5120), expansion=st.integers(16, 64), batch=st.integers(1, 16_384))
def test_near_the_fitted_forms(architecture: str, d_in: int, expansion: int, batch: int) -> None:
    k, d_sae = 32, expansion * d_in
    units = (4 * d_in * d_sae, 4 * batch * d_sae, 4 * batch * d_in, 4 * d_sae, 4 * batch * k)
    fitted = max(sum(c * u for c, u in zip(form, units, strict=True)) for form in FITTED[architecture])
    memory = training_memory(architecture, d_in, d_sae, k, batch, 128, 64, 32, None)
    assert memory.peak == pytest.approx(fitted, rel=0.02)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("lm", [None, MODEL])
def test_components_add_up(architecture: str, lm: LanguageModelPart | None) -> None:
    memory = training_memory(architecture, 768, 24_576, 100, 4096, 128, 64, 32, lm)
    assert sum(memory.at_peak.values()) == memory.peak
    assert all(memory.components[name] >= size for name, size in memory.at_peak.items())
    params = sae_params(architecture, 768, 24_576)
    assert memory.components["sae_weights"] == 4 * params
    assert memory.components["gradients"] == 4 * params
    assert memory.components["optimizer_state"] == 8 * params
    assert memory.buffer_bytes == (64 * 128 * 768 * 4 if lm else 0)
    assert ("activation_store" in memory.components) == (lm is not None)


def test_parameters() -> None:
    # counted in the real classes, tests/truth/test_sae_training.py
    assert sae_params("standard", 768, 24_576) == 37_774_080
    assert sae_params("gated", 768, 24_576) - sae_params("jumprelu", 768, 24_576) == 24_576


def test_a_tiny_batch_is_weights_gradients_and_adam() -> None:
    memory = training_memory("standard", 4096, 65_536, 1, 1, 128, 64, 32, None)
    assert memory.phase == "optimizer step"
    # weights, two moments, gradients and foreach's list of square roots
    assert memory.peak == pytest.approx(5 * 4 * sae_params("standard", 4096, 65_536), rel=0.001)


def test_only_the_top_k_family_grows_when_latents_die() -> None:
    extra = {a: training_memory(a, 768, 24_576, 100, 4096, 128, 64, 32, None).dead_latents_extra for a in ARCHITECTURES}
    one = 4 * 4096 * 24_576
    assert extra["topk"] == pytest.approx(2 * one, rel=0.05)
    assert extra["batchtopk"] == pytest.approx(2 * one, rel=0.05)
    assert extra["standard"] == extra["jumprelu"] == extra["gated"] == 0


def test_matryoshka_of_one_width_is_batchtopk() -> None:
    """What would decode the narrower ones goes before the backward pass, and what it saved with it."""
    sizes = (128, 512, 8, 512, 128, 64, 32, None)
    one = training_memory("matryoshka_batchtopk", *sizes, matryoshka_widths=(512,))
    two = training_memory("matryoshka_batchtopk", *sizes, matryoshka_widths=(128, 512))
    assert one.peak == training_memory("batchtopk", *sizes).peak < two.peak


def test_more_iterations_are_saved_activations_and_no_scratch() -> None:
    few, many = (
        training_memory("matching_pursuit", 256, 512, 1, 1000, 128, 64, 32, None, pursuit=Pursuit(iterations))
        for iterations in (8, 64)
    )
    more = 56 * bytes_per_iteration(1000, 256, 4)
    assert many.peak - few.peak == many.components["sae_activations"] - few.components["sae_activations"] == more
    assert many.components["temporaries"] == few.components["temporaries"]


def test_a_large_buffer_is_worst_while_it_fills() -> None:
    # twice the new buffer beside the old one, and the model's last batch
    memory = training_memory("standard", 768, 3072, 1, 4096, 128, 4096, 32, MODEL)
    assert memory.phase == "filling the activation store"
    assert memory.components["activation_store"] >= 3 * memory.buffer_bytes
    assert memory.components["activation_store"] <= 3.1 * memory.buffer_bytes


def test_prompts_per_batch_do_not_multiply_the_buffer() -> None:
    few = training_memory("standard", 768, 3072, 1, 4096, 128, 1024, 4, MODEL)
    many = training_memory("standard", 768, 3072, 1, 4096, 128, 1024, 8, MODEL)
    assert few.buffer_bytes == many.buffer_bytes
    assert many.components["activation_store"] - few.components["activation_store"] < 0.05 * few.buffer_bytes


def test_a_buffer_that_saelens_refuses_is_still_estimated() -> None:
    refused = training_memory("standard", 768, 3072, 1, 4096, 128, 20, 32, MODEL)
    smallest = training_memory("standard", 768, 3072, 1, 4096, 128, 32, 32, MODEL)
    assert refused.peak == smallest.peak
    assert refused.buffer_bytes == 20 * 128 * 768 * 4


def test_check_store() -> None:
    message = check_store(4096, 128, 20, 32)
    assert message is not None
    assert "20 * 128 = 2560" in message
    assert "n_batches_in_buffer 32" in message
    assert check_store(4096, 128, 32, 1) is None


@settings(derandomize=True, deadline=None, database=None)
@given(batch=st.integers(1, 10**4), more=st.integers(0, 10**6), per_batch=st.integers(1, 10**5))
def test_a_refill_fills_the_buffer_and_no_more(batch: int, more: int, per_batch: int) -> None:
    buffer = batch + more
    for refill in refills(buffer, batch, per_batch):
        assert refill.after >= buffer
        assert refill.after < max(buffer, refill.left + 1) + per_batch
        assert refill.batches >= 1


def test_huge_sizes_answer_at_once() -> None:
    start = time.perf_counter()
    memory = training_memory("topk", 10**8, 10**8, 10**6, 10**15, 10**7, 10**9, 10**6, MODEL)
    assert memory.peak > 10**20
    assert time.perf_counter() - start < 2


def test_flops() -> None:
    # encoder and decoder, 2 * 768 * 24576 each, and twice that backward
    assert Step("standard", 768, 24_576, 10**6).in_saelens().flops == 6 * 2 * 768 * 24_576 * 10**6
    assert Step("gated", 768, 24_576, 1).in_saelens().flops == 13 * 2 * 768 * 24_576


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(InputError, match="nearest: batchtopk"):
        training_memory("batch_topk", 768, 3072, 1, 4096, 128, 64, 32, None)


@pytest.mark.parametrize("architecture", ["standard", "topk", "abstopk", "batchtopk", "jumprelu"])
def test_sixteen_bits_halve_what_the_sae_keeps(architecture: str) -> None:
    full = training_memory(architecture, 768, 24_576, 100, 4096, 128, 64, 32, None)
    half = training_memory(architecture, 768, 24_576, 100, 4096, 128, 64, 32, None, width=2)
    for name in ("sae_weights", "optimizer_state", "gradients"):
        assert half.components[name] == pytest.approx(full.components[name] / 2, rel=0.01)
    # firing_feats stays float32
    assert 0.5 * full.peak < half.peak < 0.62 * full.peak


def test_autocast_does_not_lower_the_peak() -> None:
    for architecture in ARCHITECTURES:
        plain = training_memory(architecture, 768, 24_576, 100, 4096, 128, 64, 32, None)
        cast = training_memory(architecture, 768, 24_576, 100, 4096, 128, 64, 32, None, autocast=True)
        assert cast.peak > 0.98 * plain.peak


def test_evaluation_is_a_phase_of_its_own() -> None:
    spike = Tape()
    spike.touch(10**11, "logits")
    shape = Shape("standard", 768, 24_576, 1, 4096)
    memory = memory_of(shape, 128, 64, 32, MODEL, evaluation=spike)
    assert memory.phase == "evaluation"
    assert memory.at_peak["logits"] == 10**11
    assert sum(memory.at_peak.values()) == memory.peak
    assert "gradients" not in memory.at_peak


def test_short_runs_never_evaluate() -> None:
    # SAELens' own defaults: 2 M tokens in batches of 4096 are 489 steps, the first evaluation is after 1000
    assert first_evaluation(2_000_000, 4096, 1000) is None
    assert first_evaluation(4096 * 1000, 4096, 1000) == 1000
    assert first_evaluation(4096 * 999 + 1, 4096, 1000) == 1000


def test_encoding_takes_a_few_times_the_features() -> None:
    bf = 4 * 4096 * 24_576
    for architecture, times in {"standard": 2, "topk": 2, "jumprelu": 4, "gated": 5}.items():
        tape = Tape()
        encode(tape, Use(architecture, 768, 24_576, 768, 32, 4096), tape.adopt(0, "temporaries"))
        assert tape.peak == pytest.approx(times * bf, rel=0.08)
        assert tape.live == bf


def test_the_error_term_runs_the_sae_twice() -> None:
    use = Use("standard", 768, 24_576, 768, 32, 4096)
    plain, twice = Tape(), Tape()
    for tape, error_term in ((plain, False), (twice, True)):
        source = tape.adopt(0, "temporaries")
        attached(tape, use, source, source, 4, error_term=error_term)
    assert twice.peak - plain.peak > 0.9 * 4 * use.features

"""Memory of an SAELens training run: SAE, Adam, the step, the activation store and the language model behind it.

The step and the store are played on one tape in the order of `SAETrainer.fit()` (sae_lens 6.54.12), so the peak, what
is alive at it and the moment of it come from one description. float32 SAE, Adam with foreach as torch 2.13 chooses on
CUDA, no autocast, no evaluation, no checkpoints, activation store on the SAE's device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import InputError, nearest
from .activation_store import LanguageModelPart, Refill, play_refill, worst_refills
from .sae_architectures import previous_output, train_step
from .sae_step import FLOAT, VECTORS, Ledger, Operations, Shape, sae_params
from .tape import Tensor

__all__ = ["LanguageModelPart", "SaeMemory", "sae_params", "training_flops", "training_memory"]

# Matrix products of d_in x d_sae per token, forward and backward. Each product has two gradients, also that of the
# input, because b_dec is subtracted from it. Gated: gate, magnitude, decoder, and once more gate and decoder for the
# auxiliary loss; the first gate only decides, no gradient passes it.
_PRODUCTS = {"standard": 2 + 4, "topk": 2 + 4, "batchtopk": 2 + 4, "jumprelu": 2 + 4, "gated": 5 + 8}


@dataclass(frozen=True)
class SaeMemory:
    """What an SAE training run takes. Bytes."""

    peak: int
    """Live tensor bytes at the worst moment."""
    at_peak: dict[str, int]
    """By component; adds up to `peak`."""
    components: dict[str, int]
    """Each component at its own largest."""
    phase: str
    """The worst moment: SAE forward, SAE backward, optimizer step, filling the activation store."""
    buffer_bytes: int
    """The store's nominal buffer, n_batches_in_buffer * context_size * d_in float32; 0 without a language model."""
    dead_latents_extra: int
    """How much higher the peak gets once d_in/2 latents are dead and the top-k family's auxiliary loss runs."""
    cpu_casts_extra: int
    """Part of `peak` that only torch's CPU kernels take: casts of bool masks, which CUDA does inside the kernel."""
    host_bytes: int
    """RAM of the activation store at its largest, where it is kept on the host; else 0."""


def training_flops(architecture: str, d_in: int, d_sae: int, training_tokens: int) -> int:
    """Floating-point operations of training the SAE on `training_tokens`, language model not included.

    Only matrix products, 2 * d_in * d_sae each per token: encoder and decoder forward and twice that backward makes 6,
    `gated` makes 13. Counted in sae_lens 6.54.12, saes/*.py.
    """
    return _PRODUCTS[architecture] * 2 * d_in * d_sae * training_tokens


def training_memory(
    architecture: str,
    d_in: int,
    d_sae: int,
    k: int,
    train_batch_size_tokens: int,
    context_size: int,
    n_batches_in_buffer: int,
    store_batch_size_prompts: int,
    lm: LanguageModelPart | None,
    store_on_host: bool = False,
) -> SaeMemory:
    """Peak of `SAETrainer.fit()` on float32 activations, latents alive.

    Args:
        architecture: standard, topk, batchtopk, jumprelu or gated.
        d_in, d_sae: width of the activations, number of latents.
        k: active latents per token (topk, batchtopk).
        train_batch_size_tokens: tokens per step.
        context_size, n_batches_in_buffer, store_batch_size_prompts: of the activation store; unused without `lm`.
        lm: the language model that fills the store; None = every batch comes as a tensor of its own, e.g. from disk.
        store_on_host: act_store_device="cpu": the store is in RAM, each batch is copied to the device.

    Raises:
        InputError: unknown architecture.
    """
    if architecture not in VECTORS:
        close = nearest(architecture, VECTORS, 1)
        hint = f"; nearest: {close[0]}" if close else ""
        raise InputError(f"architecture: {architecture!r} is not one of {', '.join(VECTORS)}{hint}")
    shape = Shape(architecture, d_in, d_sae, k, train_batch_size_tokens)
    buffer = n_batches_in_buffer * context_size
    candidates: list[Refill | None] = [None]
    host_bytes = 0
    if lm is not None and store_on_host:
        host_bytes = training_memory(
            architecture, d_in, d_sae, k, train_batch_size_tokens, context_size, n_batches_in_buffer,
            store_batch_size_prompts, lm,
        ).components["activation_store"]  # fmt: skip
    elif lm is not None:
        # A buffer below one training batch stops in SAELens (check_store); the smallest that runs is counted then.
        enough = max(buffer, train_batch_size_tokens)
        candidates = [*worst_refills(enough, train_batch_size_tokens, store_batch_size_prompts * context_size)]

    def worst(shape: Shape) -> Ledger:
        return max((_fit(shape, lm, refill) for refill in candidates), key=lambda tape: tape.peak)

    tape = worst(shape)
    dead_extra = cast_extra = 0
    if architecture in ("topk", "batchtopk"):
        dead_extra = max(0, worst(replace(shape, dead=True)).peak - tape.peak)
    if architecture == "jumprelu":
        cast_extra = tape.peak - worst(replace(shape, cpu_casts=False)).peak
    return SaeMemory(
        peak=tape.peak,
        at_peak={name: size for name, size in tape.at_peak.items() if size},
        components={name: size for name, size in tape.largest.items() if size},
        phase=tape.worst_phase,
        buffer_bytes=FLOAT * d_in * buffer if lm is not None else 0,
        dead_latents_extra=dead_extra,
        cpu_casts_extra=cast_extra,
        host_bytes=host_bytes,
    )


def _fit(shape: Shape, lm: LanguageModelPart | None, refill: Refill | None) -> Ledger:
    """The steady state of SAETrainer.fit(): with a store, one refill and the first step after it."""
    tape = Ledger()
    params = FLOAT * sae_params(shape.architecture, shape.d_in, shape.d_sae)
    tape.new(params, "sae_weights")
    tape.new(2 * params, "optimizer_state")
    # act_freq_scores and n_forward_passes_since_fired of the trainer
    tape.new(2 * FLOAT * shape.d_sae, "sae_activations")
    step = Operations(tape, shape)
    previous: list[Tensor] = []
    batch: list[Tensor] = []
    if lm is not None:
        tape.new(lm.weights, "weights")
        tape.new(lm.buffers, "buffers")
    if lm is None or refill is None:
        previous.append(step.keep(step.bd))
        previous += previous_output(step)
        if lm is not None:  # the store is in RAM; the model fills it while the step before is still held
            tape.phase = "filling the activation store"
            tape.touch(lm.forward_peak, "activations")
        batch.append(step.keep(step.bd))
    else:
        row = FLOAT * shape.d_in
        old = tape.new(row * refill.before, "activation_store")
        last_batch = tape.new(row * refill.per_batch, "activation_store")
        # The step before was given a view of the old buffer, so its output keeps all of it until this step is done.
        previous = [tape.hold(old), *previous_output(step)]
        play_refill(tape, refill, shape.d_in, lm, old, last_batch)
    train_step(step, batch, previous)
    return tape

"""Memory of an SAELens training run: SAE, Adam, the step, the activation store and the language model behind it.

The step and the store are played on one tape in the order of `SAETrainer.fit()` (sae_lens 6.54.12), so the peak, what
is alive at it and the moment of it come from one description. Adam with foreach as torch 2.13 chooses on CUDA, no
checkpoints, activation store on the SAE's device or in RAM.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...errors import InputError, nearest
from ..recorded.recall import recall
from ..tape import Tape, Tensor
from .activation_store import LanguageModelPart, Refill, play_refill, worst_refills
from .architectures import previous_output, train_step
from .step import FLOAT, INDEX, VECTORS, Ledger, Shape, sae_bytes, sae_params

__all__ = ["LanguageModelPart", "SaeMemory", "Shape", "sae_bytes", "sae_params", "training_memory"]

TOP_K_FAMILY = ("topk", "abstopk", "batchtopk", "matryoshka_batchtopk")


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
    host_bytes: int
    """RAM of the activation store at its largest, where it is kept on the host; else 0."""
    refill: Refill | None = None
    """The refill of the store before the worst moment; None without a store on the device."""


def training_memory(
    shape: Shape,
    context_size: int,
    n_batches_in_buffer: int,
    store_batch_size_prompts: int,
    lm: LanguageModelPart | None,
    *,
    store_on_host: bool = False,
    evaluation: Tape | None = None,
) -> SaeMemory:
    """Peak of `SAETrainer.fit()`, latents alive.

    Args:
        shape: of the SAE and its step.
        context_size, n_batches_in_buffer, store_batch_size_prompts: of the activation store; unused without `lm`.
        lm: the language model that fills the store; None = every batch comes as a tensor of its own, e.g. from disk.
        store_on_host: act_store_device="cpu": the store is in RAM, each batch is copied to the device.
        evaluation: one round of SAELens' evaluation above what stands then, see `sae_evaluation`; None = none.

    Raises:
        InputError: unknown architecture.
    """
    if shape.architecture not in VECTORS:
        close = nearest(shape.architecture, VECTORS, 1)
        hint = f"; nearest: {close[0]}" if close else ""
        raise InputError(f"architecture: {shape.architecture!r} is not one of {', '.join(VECTORS)}{hint}")
    buffer = n_batches_in_buffer * context_size
    candidates: list[Refill | None] = [None]
    host_bytes = 0
    if lm is not None and store_on_host:
        on_device = training_memory(shape, context_size, n_batches_in_buffer, store_batch_size_prompts, lm)
        host_bytes = on_device.components["activation_store"]
        tokens = INDEX * store_batch_size_prompts * context_size  # are where the model is
        lm = replace(lm, forward_peak=lm.forward_peak + tokens)
    elif lm is not None:
        # A buffer below one training batch stops in SAELens (check_store); the smallest that runs is counted then.
        enough = max(buffer, shape.batch)
        candidates = [*worst_refills(enough, shape.batch, store_batch_size_prompts * context_size)]

    def worst(shape: Shape) -> tuple[Fit, Refill | None]:
        played = [(fit(shape, lm, refill, evaluation), refill) for refill in candidates]
        return max(played, key=lambda each: each[0].tape.peak)

    fitted, refill = worst(shape)
    tape = fitted.tape
    dead_extra = 0
    if shape.architecture in TOP_K_FAMILY:
        dead_extra = max(0, worst(replace(shape, dead=True))[0].tape.peak - tape.peak)
    return SaeMemory(
        peak=tape.peak,
        at_peak={name: size for name, size in tape.at_peak.items() if size},
        components={name: size for name, size in fitted.largest.items() if size},
        phase=tape.worst_phase,
        buffer_bytes=FLOAT * shape.d_in * buffer if lm is not None else 0,
        dead_latents_extra=dead_extra,
        host_bytes=host_bytes,
        refill=refill,
    )


@dataclass(frozen=True)
class Fit:
    """A run of the trainer, and each component at its own largest."""

    tape: Tape
    largest: dict[str, int]


def fit(shape: Shape, lm: LanguageModelPart | None, refill: Refill | None, evaluation: Tape | None) -> Fit:
    """`fit_anew`, by what was recorded with another batch or refill where that fits."""
    if evaluation is not None:
        return fit_anew(shape, lm, refill, evaluation)
    kind = "SAE fit", replace(shape, batch=0), lm
    if refill is None:
        return recall((*kind, None), (shape.batch,), lambda b: fit_anew(replace(shape, batch=b), lm, None, None))
    return recall(
        (*kind, refill.per_batch),
        (shape.batch, refill.before, refill.left + 1, refill.batches),  # nothing may be left, and sizes begin at 1
        lambda b, before, left, batches: fit_anew(
            replace(shape, batch=b), lm, Refill(before, left - 1, batches, refill.per_batch), None
        ),
    )


def fit_anew(shape: Shape, lm: LanguageModelPart | None, refill: Refill | None, evaluation: Tape | None) -> Fit:
    """The steady state of SAETrainer.fit(): with a store, one refill and the first step after it; then evaluation."""
    tape = Ledger()
    tape.new(shape.param_bytes, "sae_weights")
    tape.new(2 * shape.param_bytes, "optimizer_state")
    # act_freq_scores and n_forward_passes_since_fired of the trainer
    tape.new(2 * FLOAT * shape.d_sae, "sae_activations")
    batch_bytes = FLOAT * shape.batch * shape.d_in
    if lm is not None:
        tape.new(lm.weights, "weights")
        tape.new(lm.buffers, "buffers")
    if lm is None or refill is None:
        previous = [tape.new(batch_bytes, "sae_activations"), *previous_output(tape, shape)]
        if lm is not None:  # the store is in RAM; the model fills it while the step before is still held
            tape.phase = "filling the activation store"
            tape.touch(lm.forward_peak, "activations")
        batch = tape.new(batch_bytes, "sae_activations")
    else:
        row = FLOAT * shape.d_in
        old = tape.new(row * refill.before, "activation_store")
        last_batch = tape.new(row * refill.per_batch, "activation_store")
        # The step before was given a view of the old buffer, so its output keeps all of it until this step is done.
        held: list[Tensor] = [tape.hold(old), *previous_output(tape, shape)]
        previous = held
        batch, _ = play_refill(tape, refill, shape.d_in, lm, old, last_batch)
    train_step(tape, shape, batch, previous)
    if evaluation is not None:
        tape.phase = "evaluation"
        tape.new(shape.logged_bytes, "sae_activations")  # the step that evaluates logs, too
        tape.append(evaluation)
    return Fit(tape.closed(), dict(tape.largest))

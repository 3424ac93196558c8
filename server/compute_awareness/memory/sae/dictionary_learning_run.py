"""Memory of dictionary_learning's trainSAE: trainers, Adam, the step; the ActivationBuffer and its language model.

Every trainer of `trainer_configs` is built before the first step and stays; they are updated one after the other on
the same batch. Read off dictionary_learning 0.1.0, training.py `trainSAE`. No wandb, no checkpoints.
"""

from __future__ import annotations

from dataclasses import replace

from ...errors import InputError, nearest
from ..recorded.recall import recall
from .activation_buffer import ActivationBuffer, play_next
from .activation_store import LanguageModelPart
from .dictionary_learning import CONSTRAINED, COUNTS, TRAINERS, update
from .step import FLOAT, INDEX, Ledger, Shape
from .training import Fit, SaeMemory


def training_memory(
    shape: Shape, n_saes: int = 1, buffer: ActivationBuffer | None = None, lm: LanguageModelPart | None = None
) -> SaeMemory:
    """Peak of trainSAE with `n_saes` trainers of this shape, latents alive. Bytes.

    Args:
        buffer, lm: where the activations come from; both None = every batch is a tensor of its own, which is at hand.

    Raises:
        InputError: a trainer that is not covered.
    """
    if shape.architecture not in TRAINERS:
        close = nearest(shape.architecture, TRAINERS, 1)
        hint = f"; nearest: {close[0]}" if close else ""
        raise InputError(f"architecture: {shape.architecture!r} is not one of {', '.join(TRAINERS)}{hint}")
    trained = train(shape, n_saes, buffer, lm)
    tape = trained.tape
    dead_extra = 0
    if "topk" in shape.architecture:
        dead_extra = max(0, train(replace(shape, dead=True), n_saes, buffer, lm).tape.peak - tape.peak)
    return SaeMemory(
        peak=tape.peak,
        at_peak={name: size for name, size in tape.at_peak.items() if size},
        components={name: size for name, size in trained.largest.items() if size},
        phase=tape.worst_phase,
        buffer_bytes=buffer.size * buffer.d_submodule * buffer.width if buffer is not None else 0,
        dead_latents_extra=dead_extra,
        host_bytes=0,
    )


def train(shape: Shape, n_saes: int, buffer: ActivationBuffer | None, lm: LanguageModelPart | None) -> Fit:
    """`train_anew`, by what was recorded with another batch where that fits."""

    def play(batch: int, out_batch_size: int) -> Fit:
        drawn = replace(buffer, out_batch_size=out_batch_size) if buffer is not None else None
        return train_anew(replace(shape, batch=batch), n_saes, drawn, lm)

    kind = "trainSAE", replace(shape, batch=0), n_saes, buffer and replace(buffer, out_batch_size=0), lm
    return recall(kind, (shape.batch, buffer.out_batch_size if buffer is not None else 1), play)


def train_anew(shape: Shape, n_saes: int, buffer: ActivationBuffer | None, lm: LanguageModelPart | None) -> Fit:
    """One trainer's update() in the steady state; the others stand by, alike. Before it a refresh of the buffer."""
    tape = Ledger()
    tape.new(n_saes * shape.param_bytes, "sae_weights")
    tape.new(2 * n_saes * shape.param_bytes, "optimizer_state")
    if shape.architecture in COUNTS:
        tape.new(n_saes * INDEX * shape.d_sae, "sae_activations")
    tape.phase = "between steps"
    own = []
    if shape.architecture in CONSTRAINED:
        tape.new((n_saes - 1) * shape.param_bytes, "gradients")
        own = [tape.new(shape.param_bytes, "gradients")]
    batch = tape.new(FLOAT * shape.batch * shape.d_in, "sae_activations")
    if buffer is not None and lm is not None:
        tape.new(lm.weights, "weights")
        tape.new(lm.buffers, "buffers")
        row = buffer.d_submodule * buffer.width
        full, read = tape.new(row * buffer.size, "activation_store"), tape.new(buffer.size, "activation_store")
        # the batch before, which the loop and its progress bar hold until they get the next
        before = [batch, tape.new(row * buffer.batch if buffer.width != FLOAT else 0, "sae_activations")]
        batch, *_ = play_next(tape, buffer, lm, full, read)
        tape.drop(*before)
    update(tape, shape, batch, own)
    return Fit(tape.closed(), dict(tape.largest))

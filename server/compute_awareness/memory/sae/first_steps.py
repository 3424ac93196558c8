"""SAE training from its first step on, as torch's caching allocator gets to see it.

The peak follows from the steady state (`training`). What the allocator reserves follows from how it came about: Adam's
state is made in the first step, after the step's largest tensors, so that it lies between freed blocks; CUDA's kernels
take workspaces and buffers from the same allocator. Played so, `simulate` gave what torch 2.11 reserved on an H100 to
the byte for three of six trainings, and within 8 MiB for the others (`benchmarks/results/gpu_truth.json`).
"""

from __future__ import annotations

from dataclasses import replace

from ..card.staging import Kernels, processors, staging_bytes
from ..recorded.recall import recall
from ..tape import Tape, Tensor
from .activation_store import LanguageModelPart, Refill, play_refill
from .architectures import train_step
from .step import FLOAT, Ledger, Shape


def first_steps(shape: Shape, lm: LanguageModelPart | None, refill: Refill | None, capability: str | None) -> Tape:
    """Two steps, with a store its largest refill between them. Parameters, language model and its buffers stand beside
    the tape.

    Args:
        refill: of the store on the device; None = every batch is a tensor of its own.
        capability: compute capability of the card, for what its kernels take; None = a typical card.
    """
    columns = tuple(dict.fromkeys((shape.d_sae, shape.d_in)))
    card = processors(capability)
    # Sizes of what is recorded begin at 1, and buffers and what is left of a store may be none.
    buffers = [1 + staging_bytes(shape.batch, each, card) for each in columns]
    kind = "SAE first steps", replace(shape, batch=0), lm, capability

    def kernels(buffers: tuple[int, ...]) -> Kernels:
        return Kernels(capability, {each: size - 1 for each, size in zip(columns, buffers, strict=True)})

    if refill is None:
        return recall(
            (*kind, None),
            (shape.batch, *buffers),
            lambda b, *buffers: _played(replace(shape, batch=b, kernels=kernels(buffers)), lm, None),
            with_log=True,
        )
    return recall(
        (*kind, refill.per_batch),
        (shape.batch, refill.before, refill.left + 1, refill.batches, *buffers),
        lambda b, before, left, batches, *buffers: _played(
            replace(shape, batch=b, kernels=kernels(buffers)), lm, Refill(before, left - 1, batches, refill.per_batch)
        ),
        with_log=True,
    )


def _played(shape: Shape, lm: LanguageModelPart | None, refill: Refill | None) -> Tape:
    tape = Ledger()
    for _ in range(2):  # act_freq_scores and n_forward_passes_since_fired
        tape.new(FLOAT * shape.d_sae, "sae_activations")
    batch_bytes = FLOAT * shape.batch * shape.d_in
    previous: list[Tensor] = []
    if lm is None or refill is None:
        for first in (True, False):
            if lm is not None:
                tape.touch(lm.forward_peak, "activations")
            batch = tape.new(batch_bytes, "sae_activations")
            previous = [batch, *train_step(tape, shape, batch, previous, first=first)]
        return tape.closed()
    row = FLOAT * shape.d_in
    tape.touch(lm.forward_peak, "activations")
    old = tape.new(row * refill.before, "activation_store")
    last_batch = tape.new(row * refill.per_batch, "activation_store")
    previous = [tape.hold(old), *train_step(tape, shape, old, previous, first=True)]
    buffer, _ = play_refill(tape, refill, shape.d_in, lm, old, last_batch)
    train_step(tape, shape, buffer, previous)
    return tape.closed()

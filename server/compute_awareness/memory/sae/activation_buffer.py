"""dictionary_learning's ActivationBuffer: activations of a language model, half of them fresh at each refresh.

Read off dictionary_learning 0.1.0, buffer.py `ActivationBuffer`. It is filled to n_ctxs * ctx_len activations in the
model's dtype; once fewer than half of them are unread, these are copied out, a new buffer is allocated beside them, and
texts run through the model (nnsight, stopped after the submodule) until it is full.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..tape import Tensor
from .activation_store import LanguageModelPart
from .step import FLOAT, INDEX, Ledger


@dataclass(frozen=True)
class ActivationBuffer:
    """`width`: bytes per number of the model's dtype, which the buffer has too. Every text fills ctx_len tokens."""

    n_ctxs: int
    ctx_len: int
    refresh_batch_size: int
    out_batch_size: int
    d_submodule: int
    width: int

    @property
    def size(self) -> int:
        """Activations in the full buffer."""
        return self.n_ctxs * self.ctx_len

    @property
    def unread(self) -> int:
        """Activations left unread when it refreshes: the first count below half of it."""
        served = (self.size - self.size // 2) // self.out_batch_size + 1
        return max(0, self.size - served * self.out_batch_size)

    @property
    def batch(self) -> int:
        """Activations that a batch has: no more than the buffer."""
        return min(self.out_batch_size, self.size)


def play_next(
    tape: Ledger, buffer: ActivationBuffer, lm: LanguageModelPart, full: Tensor, read: Tensor
) -> list[Tensor]:
    """next(buffer) with a refresh, above weights and what the caller holds: the batch as trainSAE hands it on.

    Args:
        full, read: the buffer before, and its flags; the buffer lets go of them here.
    Returns:
        The batch in float32, and the one in the model's dtype where that is another: the progress bar holds it.
    """
    row, tokens = buffer.d_submodule * buffer.width, buffer.refresh_batch_size * buffer.ctx_len
    tape.phase = "refreshing the activation buffer"
    flags = tape.new(buffer.size)
    places = tape.new(INDEX * buffer.unread)
    kept = tape.new(row * buffer.unread, "activation_store")
    tape.drop(flags, places, full)
    full = tape.new(row * buffer.size, "activation_store")
    tape.drop(kept)
    # the name `attn_mask` keeps the mask of the batch before
    mask = INDEX * tokens if buffer.size - buffer.unread > tokens else 0
    tape.touch(lm.forward_peak + mask, "activations")
    hidden = tape.new(lm.retained, "activations")
    flags, places = tape.new(tokens), tape.new(2 * INDEX * tokens)
    chosen = tape.new(row * tokens, "activations")
    tape.drop(flags, places, hidden)
    tape.new(buffer.size, "activation_store")
    tape.drop(read, chosen)
    return _draw(tape, buffer, row)


def _draw(tape: Ledger, buffer: ActivationBuffer, row: int) -> list[Tensor]:
    """The batch of __next__: some of the unread activations, in the order of a permutation of all."""
    flags = tape.new(buffer.size)
    unread = tape.new(INDEX * buffer.size)
    tape.drop(flags)
    order = tape.new(INDEX * buffer.size)
    chosen = tape.new(INDEX * buffer.batch)
    tape.drop(order)
    batch = tape.new(row * buffer.batch, "sae_activations")
    tape.drop(unread, chosen)
    if buffer.width == FLOAT:
        return [batch]
    return [tape.new(FLOAT * buffer.d_submodule * buffer.batch, "sae_activations"), batch]

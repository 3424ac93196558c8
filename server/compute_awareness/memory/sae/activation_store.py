"""SAELens' activation store: the buffer of language-model activations that training batches are cut from.

Read off sae_lens 6.54.12: training/mixing_buffer.py `mixing_buffer`, training/activations_store.py `get_activations`
and `get_data_loader`. Since 6.27.3 the buffer is n_batches_in_buffer * context_size tokens; store_batch_size_prompts
is no factor of it, though the runner's log line multiplies it in. It is float32 whatever the model's dtype is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..tape import Tensor
from .step import FLOAT, INDEX, Ledger

MIXING_FRACTION = 0.5  # activations_mixing_fraction, the default of LanguageModelSAERunnerConfig
# The buffer's size before a refill repeats sooner or later; this many refills are looked at for the largest.
_REFILLS = 4096


def smallest_buffer(train_batch_size_tokens: int, context_size: int) -> int:
    """The least n_batches_in_buffer with which SAELens' `mixing_buffer` does not stop."""
    return -(-train_batch_size_tokens // context_size)


def check_store(
    train_batch_size_tokens: int, context_size: int, n_batches_in_buffer: int, store_batch_size_prompts: int
) -> str | None:
    """The error SAELens itself will raise at the first batch, as a warning; None if it will not.

    `mixing_buffer` raises ValueError where n_batches_in_buffer * context_size < train_batch_size_tokens (tokens), as
    the defaults do (20 * 128 < 4096).
    """
    tokens = n_batches_in_buffer * context_size
    if tokens >= train_batch_size_tokens:
        return None
    enough = smallest_buffer(train_batch_size_tokens, context_size)
    return (
        f'SAELens will stop with "Buffer size must be greater than or equal to batch size": the buffer holds '
        f"n_batches_in_buffer * context_size = {n_batches_in_buffer} * {context_size} = {tokens} tokens, a training "
        f"batch takes {train_batch_size_tokens}. Give n_batches_in_buffer {enough} or more "
        f"(store_batch_size_prompts, here {store_batch_size_prompts}, does not count)"
    )


@dataclass(frozen=True)
class LanguageModelPart:
    """The language model that fills the store. Bytes.

    `forward_peak`: above weights and buffers, of one run_with_cache(names_filter=[hook], stop_at_layer=...) over
    store_batch_size_prompts * context_size tokens, what it returns included, the tokens not; `retained`: the cached
    activation.
    """

    weights: int
    buffers: int
    forward_peak: int
    retained: int


@dataclass(frozen=True)
class Refill:
    """One refill of the buffer, in tokens: what the buffer was, what is left of it, and how many batches join it."""

    before: int
    left: int
    batches: int
    per_batch: int

    @property
    def after(self) -> int:
        return self.left + self.batches * self.per_batch


def refills(
    buffer: int, train_batch: int, per_batch: int, mixing_fraction: float = MIXING_FRACTION
) -> Iterator[Refill]:
    """The refills after the first fill, until they repeat; there may be thousands. All figures in tokens.

    Args:
        buffer: n_batches_in_buffer * context_size.
        train_batch: train_batch_size_tokens.
        per_batch: tokens of one language-model batch.
    """
    keep = int(buffer * mixing_fraction)
    size = -(-buffer // per_batch) * per_batch
    seen: set[int] = set()
    while size not in seen and len(seen) < _REFILLS:
        seen.add(size)
        served = (size - keep) // train_batch * train_batch
        if served <= 0:
            served = train_batch
        left = size - served if size > served else 0
        batches = -(-(buffer - left) // per_batch) if left < buffer else 1
        yield Refill(size, left, batches, per_batch)
        size = left + batches * per_batch


def worst_refills(buffer: int, train_batch: int, per_batch: int) -> list[Refill]:
    """The refills that can be the highest: by the moment of joining, of shuffling, and by what stays afterwards.

    Of refills in a row that serve the same and are filled up with the same, each is larger or smaller than the one
    before by as much, so the first or the last of them is the highest.
    """
    joining = shuffling = staying = -1
    worst = [Refill(0, 0, 0, per_batch)] * 3
    keep = int(buffer * MIXING_FRACTION)
    size = -(-buffer // per_batch) * per_batch
    count = 0
    seen: set[int] = set()
    while size not in seen and count < _REFILLS:
        seen.add(size)
        # Without max(), which would take longer than the rest of a round.
        rounds = (size - keep) // train_batch
        if rounds < 1:
            rounds = 1
        served = rounds * train_batch
        left = size - served if size > served else 0
        batches = -(-(buffer - left) // per_batch) if left < buffer else 1
        step = left + batches * per_batch - size
        times = 1
        if size >= served and step:
            if step > 0:
                most = keep + served + train_batch - 1
                if batches > 1:
                    most = min(most, served + buffer - (batches - 1) * per_batch - 1)
                times = (most - size) // step + 1
            else:
                least = served + max(buffer - batches * per_batch, 0)
                if rounds > 1:
                    least = max(least, keep + served)
                times = (size - least) // -step + 1
            times = min(times, _REFILLS - count)
        for before in (size, size + (times - 1) * step) if times > 1 else (size,):
            after = before + step
            height = before + 2 * after
            joined = height - (per_batch if batches > 1 else after)
            refill = Refill(before, max(before - served, 0), batches, per_batch)
            if joined > joining:
                joining, worst[0] = joined, refill
            if height > shuffling:
                shuffling, worst[1] = height, refill
            if before + after > staying:
                staying, worst[2] = before + after, refill
        count += times
        size += times * step
    return list(dict.fromkeys(worst))


def play_refill(
    tape: Ledger, refill: Refill, d_in: int, lm: LanguageModelPart, old: Tensor, last_batch: Tensor
) -> tuple[Tensor, Tensor]:
    """Plays one refill on `tape`; returns the new buffer and the language model's last batch, which its frame holds.

    `old`, the buffer before, is let go of by the store here, but whoever holds a batch of it keeps it whole: batches
    are views. Only the last language-model batch of the refill is played, the ones before stand lower.
    """
    row = FLOAT * d_in
    tape.phase = "filling the activation store"
    # The first batch joins a view of the old buffer, later ones a tensor of their own.
    joined = refill.left + (refill.batches - 1) * refill.per_batch if refill.batches > 1 else 0
    growing = tape.new(row * joined, "activation_store")

    rows_of_tokens = tape.new(INDEX * refill.per_batch)
    tokens = tape.new(INDEX * refill.per_batch)
    tape.drop(rows_of_tokens)
    tape.touch(lm.forward_peak, "activations")
    cached = tape.new(lm.retained, "activations")
    batch = tape.new(row * refill.per_batch, "activation_store")
    tape.drop(cached, tokens, last_batch)

    complete = tape.new(row * refill.after, "activation_store")
    tape.drop(growing)
    order = tape.new(INDEX * refill.after)
    shuffled = tape.new(row * refill.after, "activation_store")
    tape.drop(order, complete, old)
    return shuffled, batch

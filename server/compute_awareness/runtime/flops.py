"""Floating-point operations of a forward pass: the matrix products, counted one by one."""

from __future__ import annotations

from ..models.spec import ModelSpec


def forward_flops(
    spec: ModelSpec, batch_size: int, seq_len: int, layers: int | None = None, logits: bool = True
) -> int:
    """Operations of one forward pass over `batch_size` x `seq_len` tokens: 2 m n k for each matrix product.

    Counts what `torch.utils.flop_counter.FlopCounterMode` counts (torch 2.13): projections, scores and their product
    with the values over the whole square (no library here skips the masked half, nor a sliding window), MLP, and the
    logits of every position. Norms, softmax, rotary angles and the embedding are not matrix products of any size.
    A backward pass takes twice as many.

    Args:
        layers: only the first `layers` blocks; None = all. `run_with_cache(stop_at_layer=n)` runs n of them.
        logits: whether the unembedding runs.
    """
    tokens = batch_size * seq_len
    blocks = spec.n_layers if layers is None else max(0, min(layers, spec.n_layers))
    projections = 2 * tokens * spec.d_model * (2 * spec.q_width + 2 * spec.kv_width)
    attention = 2 * 2 * tokens * seq_len * spec.q_width
    mlp = 2 * tokens * spec.d_model * spec.d_mlp * (3 if spec.gated_mlp else 2)
    unembed = 2 * tokens * spec.d_model * spec.d_vocab if logits else 0
    return blocks * (projections + attention + mlp) + unembed

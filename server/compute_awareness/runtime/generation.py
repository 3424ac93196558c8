"""The work of `generate`: the prompt's pass, then a pass for each new token but the last.

Counted in transformers 5.23 and TransformerLens 3.9. Sums over the steps are closed forms: a million new tokens take no
longer to count.
"""

from __future__ import annotations

from dataclasses import replace

from ..models.spec import ModelSpec
from . import flops
from .flops import KERNELS_PER_BLOCK, Shape
from .work import NOTHING, Work


def prompt(spec: ModelSpec, shape: Shape, every_logit: bool) -> Work:
    """The pass over the prompt. transformers unembeds the last position of each sequence, TransformerLens every one."""
    return flops.forward(spec, shape, logits=None if every_logit else shape.batch_size)


def decoding(spec: ModelSpec, shape: Shape, new_tokens: int, sliding_layers: int = 0) -> Work:
    """The passes after the prompt's, with a key/value cache: one token each, over a context that grows.

    Args:
        shape: of the prompt.
        sliding_layers: layers whose cache keeps no more than the window (transformers' DynamicSlidingWindowLayer).
    """
    steps, first = new_tokens - 1, shape.seq_len + 1
    one = replace(shape, seq_len=1, keys=0)
    empty = flops.total(flops.block_products(spec, one))
    per_key = flops.total(flops.block_products(spec, replace(one, keys=1))) - empty
    growing = sliding = (first + shape.seq_len + steps) * steps // 2
    if sliding_layers and spec.window is not None:
        below = min(max(spec.window - shape.seq_len, 0), steps)  # steps before the window is full
        sliding = (first + shape.seq_len + below) * below // 2 + (steps - below) * spec.window
    keys = growing * (spec.n_layers - sliding_layers) + sliding * sliding_layers
    blocks = (empty + Work(kernels=KERNELS_PER_BLOCK)) * spec.n_layers
    return (blocks + flops.unembedding(spec, shape.batch_size, shape.width)) * steps + per_key * keys


def recomputing(spec: ModelSpec, shape: Shape, new_tokens: int, every_logit: bool) -> Work:
    """The passes after the prompt's without a cache: the whole sequence again for each new token."""

    def block(seq_len: int) -> Work:
        return flops.total(flops.block_products(spec, replace(shape, seq_len=seq_len)))

    # a block's work is c + a * length + b * length^2
    none, one, two = block(0), block(1), block(2)
    rising = two - one * 2 + none
    square = Work(rising.flops // 2, rising.moved // 2, rising.activations // 2)
    linear = one - none - square
    first, last, steps = shape.seq_len + 1, shape.seq_len + new_tokens - 1, new_tokens - 1
    lengths = (first + last) * steps // 2
    squares = _squares(last) - _squares(first - 1)
    blocks = (none + Work(kernels=KERNELS_PER_BLOCK)) * steps + linear * lengths + square * squares
    rows = shape.batch_size * (lengths if every_logit else steps)
    ends = flops.unembedding(spec, rows, shape.width)
    if steps > 1:  # the weights are read in each step
        ends += Work(0, (steps - 1) * shape.width * spec.d_model * spec.d_vocab)
    return blocks * spec.n_layers + (ends if steps else NOTHING)


def _squares(n: int) -> int:
    """1 + 4 + ... + n^2"""
    return n * (n + 1) * (2 * n + 1) // 6

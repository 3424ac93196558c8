"""The matrix products of a language model, one by one: forward, backward, and with a part of the weights frozen.

Counts are those of `torch.utils.flop_counter.FlopCounterMode` (torch 2.13) on transformers 5.23 and TransformerLens
3.9 and 4.3, which tests/truth/test_flop_counts.py holds them to: projections, scores and their product with the values
over the whole square (no library here skips the masked half, nor what a sliding window masks), MLP, unembedding.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Literal

from ..models.spec import ModelSpec
from .work import NOTHING, Work, product

KERNELS_PER_BLOCK = 50
"""Kernels of one block's forward pass: 24 (GPT-2 in transformers) to 93 (Gemma 2 in TransformerLens) were counted,
and twice as many in the backward pass."""
WEIGHTS = ("q", "k", "v", "o", "gate", "up", "down")
"""Products of an activation with a weight; the others, `scores` and `values`, are of two activations."""
Kernel = Literal["products", "fused"]


@dataclass(frozen=True)
class Shape:
    """The tokens of one pass.

    `keys`: tokens that attention looks at, those of a cache among them; None = seq_len. `kernel`: "fused" is torch's
    flash, memory-efficient or cuDNN attention, "products" two products with the scores between them. `width`: bytes of
    a number.
    """

    batch_size: int
    seq_len: int
    width: int = 4
    keys: int | None = None
    kernel: Kernel = "products"

    @property
    def tokens(self) -> int:
        return self.batch_size * self.seq_len


def block_products(spec: ModelSpec, shape: Shape, elementwise: Container[str] = ()) -> dict[str, Work]:
    """The work of each product of one block's forward pass, by name; a model without MLP has none of its products.

    `elementwise`: products that TransformerLens multiplies out number by number and sums (`use_attn_result`: "o").
    `FlopCounterMode` does not count those as operations; what they write and read again is counted here.
    """
    tokens, width, keys = shape.tokens, shape.width, shape.seq_len if shape.keys is None else shape.keys
    heads = shape.batch_size * spec.n_heads
    scores = product(shape.seq_len, spec.d_head, keys, width, heads, weights=False)
    values = product(shape.seq_len, keys, spec.d_head, width, heads, weights=False)
    if shape.kernel == "fused":  # the scores stay in the kernel
        operands = width * (tokens * spec.q_width + shape.batch_size * keys * spec.kv_width)
        scores, values = (Work(work.flops, operands, operands) for work in (scores, values))
    products = {
        "q": product(tokens, spec.d_model, spec.q_width, width),
        "k": product(tokens, spec.d_model, spec.kv_width, width),
        "v": product(tokens, spec.d_model, spec.kv_width, width),
        "scores": scores,
        "values": values,
        "o": product(tokens, spec.q_width, spec.d_model, width),
    }
    if spec.d_mlp:
        if spec.gated_mlp:
            products["gate"] = product(tokens, spec.d_model, spec.d_mlp, width)
        products["up"] = product(tokens, spec.d_model, spec.d_mlp, width)
        products["down"] = product(tokens, spec.d_mlp, spec.d_model, width)
    for name in products:
        if name in elementwise:
            moved = width * products[name].flops  # flops / 2 numbers, written and read
            products[name] = Work(0, moved, moved)
    return products


def unembedding(spec: ModelSpec, rows: int, width: int) -> Work:
    """The logits of `rows` tokens."""
    return product(rows, spec.d_model, spec.d_vocab, width) if rows else NOTHING


def total(products: Mapping[str, Work]) -> Work:
    return sum(products.values(), NOTHING)


def forward(
    spec: ModelSpec,
    shape: Shape,
    *,
    layers: int | None = None,
    logits: int | None = None,
    elementwise: Container[str] = (),
) -> Work:
    """One forward pass.

    Args:
        layers: only the first `layers` blocks; None = all. `run_with_cache(stop_at_layer=n)` runs n of them.
        logits: tokens whose logits are computed; None = every one.
        elementwise: see `block_products`.
    """
    blocks = spec.n_layers if layers is None else max(0, min(layers, spec.n_layers))
    block = total(block_products(spec, shape, elementwise)) + Work(kernels=KERNELS_PER_BLOCK)
    return block * blocks + unembedding(spec, shape.tokens if logits is None else logits, shape.width)


def backward(
    spec: ModelSpec, shape: Shape, *, frozen: bool = False, elementwise: Container[str] = (), recomputed: Work = NOTHING
) -> Work:
    """The backward pass after `forward` with every logit: two gradients of every product.

    A fused kernel computes the scores again for its five products. `frozen`: no weight wants a gradient, activations
    do, from the embedding on. `recomputed`: what gradient checkpointing runs again in each block.
    """
    products = block_products(spec, shape, elementwise)
    block = recomputed + Work(kernels=2 * KERNELS_PER_BLOCK)
    for name, work in products.items():
        block += work * (1 if frozen and name in WEIGHTS else 2)
    if shape.kernel == "fused":
        block += products["scores"]
    return block * spec.n_layers + unembedding(spec, shape.tokens, shape.width) * (1 if frozen else 2)

"""The work of a training step: forward, backward, what checkpointing runs again, LoRA's adapters, the optimizer.

Counted in transformers 5.23 with peft 0.21 and torch 2.13 (utils/checkpoint.py, use_reentrant=False).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..models.spec import ModelSpec
from . import flops
from .flops import KERNELS_PER_BLOCK, Shape
from .work import NOTHING, Work, product

FLOAT32 = 4
KERNELS_PER_OPTIMIZER_STEP = 20
"""Of a foreach optimizer, roughly."""


PASS = "forward and backward pass"


def length(training_tokens: int | None, tokens_per_pass: int, accumulation: int) -> tuple[int, int, str]:
    """(passes, optimizer steps, a word on it) of a run; of one optimizer step where `training_tokens` is not given."""
    if training_tokens is None:
        said = "work and time are those of one optimizer step: the run's length is not known without training_tokens"
        return accumulation, 1, said
    passes = -(-training_tokens // tokens_per_pass)
    steps = -(-passes // accumulation)
    return passes, steps, f"{training_tokens} training_tokens are {passes} passes and {steps} optimizer steps"


@dataclass(frozen=True)
class Adapters:
    """peft's LoRA: its rank, and which linear layers of a block it adapts, in the order in which the block runs them.

    A block has four of them (q, k and v in one; up and gate in one, where there is a gate), six, or seven.
    """

    rank: int
    adapted: Sequence[bool]


def step(spec: ModelSpec, shape: Shape, *, checkpointing: bool = False, dropout: float = 0.0) -> Work:
    """Forward to the loss and backward, every weight trained."""
    again = _recomputed(spec, shape, None, dropout) if checkpointing else NOTHING
    return flops.forward(spec, shape) + flops.backward(spec, shape, recomputed=again)


def lora_step(
    spec: ModelSpec, shape: Shape, adapters: Adapters, *, checkpointing: bool = False, dropout: float = 0.0
) -> Work:
    """Forward to the loss and backward, the adapters alone trained.

    The model's weights have no gradients, and in the first block nothing before the first adapter has: the embedding
    wants none, unless with checkpointing, for which peft calls enable_input_require_grads.
    """
    again = _recomputed(spec, shape, adapters, dropout) if checkpointing else NOTHING
    first = _lora_block(spec, shape, adapters, checkpointing)
    block = first if checkpointing else _lora_block(spec, shape, adapters, True)
    kernels = Work(kernels=3 * KERNELS_PER_BLOCK)
    ends = flops.unembedding(spec, shape.tokens, shape.width) * 2  # the head itself, and the gradient of its input
    return first + block * (spec.n_layers - 1) + (again + kernels) * spec.n_layers + ends


def _widths(spec: ModelSpec, adapters: Adapters) -> dict[str, tuple[int, int, bool]]:
    """(input, output, whether it is adapted) of each linear layer, by the products that it makes."""
    d, q, kv, mlp = spec.d_model, spec.q_width, spec.kv_width, spec.d_mlp
    count = len(adapters.adapted)
    gated = 2 * mlp if spec.gated_mlp else mlp
    if count == 4:
        sizes = {"q k v": (d, q + 2 * kv), "o": (q, d), "gate up": (d, gated), "down": (mlp, d)}
    elif count == 6:
        sizes = {"q": (d, q), "k": (d, kv), "v": (d, kv), "o": (q, d), "up": (d, mlp), "down": (mlp, d)}
    else:
        sizes = {
            "q": (d, q), "k": (d, kv), "v": (d, kv), "o": (q, d), "gate": (d, mlp), "up": (d, mlp), "down": (mlp, d),
        }  # fmt: skip
    pairs = zip(sizes.items(), adapters.adapted, strict=True)
    return {name: (*size, adapted) for (name, size), adapted in pairs}


def _lora_block(spec: ModelSpec, shape: Shape, adapters: Adapters, wants: bool) -> Work:
    """One block forward and backward. `wants`: its input wants a gradient."""
    products = flops.block_products(spec, shape)
    linears = _widths(spec, adapters)
    work = flops.total(products)

    def linear(name: str, wants: bool) -> bool:
        """The linear layer on an input that wants a gradient or not; returns whether its output does."""
        nonlocal work
        inside, outside, adapted = linears[name]
        if wants:
            work += sum((products[part] for part in name.split() if part in products), NOTHING)
        if adapted:  # forward and the gradient of the weight; A's input is the layer's, B's always wants a gradient
            work += product(shape.tokens, inside, adapters.rank, FLOAT32) * (3 if wants else 2)
            work += product(shape.tokens, adapters.rank, outside, FLOAT32) * 3
        return wants or adapted

    if "q" in linears:
        q, k, v = (linear(name, wants) for name in "qkv")
    else:
        q = k = v = linear("q k v", wants)
    mixed = q or k or v
    if shape.kernel == "fused":
        work += (products["scores"] * 3 + products["values"] * 2) * mixed
    else:
        work += products["scores"] * (q + k) + products["values"] * ((q or k) + v)
    after_attention = linear("o", mixed) or wants
    into_mlp = wants if spec.parallel_attn_mlp else after_attention
    if spec.d_mlp:
        ups = [name for name in linears if name in ("gate", "up", "gate up")]
        hidden = [linear(name, into_mlp) for name in ups]
        linear("down", any(hidden))
    return work


def _recomputed(spec: ModelSpec, shape: Shape, adapters: Adapters | None, dropout: float) -> Work:
    """What of a block runs again in backward: all up to the last tensor that the block saves (early_stop).

    That is the input of the last product, which therefore does not run again, unless a norm or dropout comes after it.
    """
    products = flops.block_products(spec, shape)
    work = flops.total(products) + Work(kernels=KERNELS_PER_BLOCK)
    linears = _widths(spec, adapters) if adapters is not None else {}
    ups: dict[str, Work] = {}
    for name, (inside, outside, adapted) in linears.items():
        if adapters is not None and adapted:
            ups[name] = product(shape.tokens, adapters.rank, outside, FLOAT32)
            work += product(shape.tokens, inside, adapters.rank, FLOAT32) + ups[name]
    if dropout or spec.norm_placement in ("both", "post"):
        return work
    return work - ups.get("down", products["down"])


def optimizer_step(optimizer: str, tensors: Iterable[tuple[int, int]], state: int) -> Work:
    """One step of the optimizer: it reads weights, gradients and state, and writes weights and state.

    Args:
        tensors: elements and bytes per element of each trained tensor.
        state: bytes of the optimizer's state.
    """
    trained = sum(elements * width for elements, width in tensors)
    # Adam's foreach variant writes and reads a list of square roots besides
    roots = 2 * trained if optimizer in ("adamw", "adam") else 0
    return Work(moved=3 * trained + 2 * state + roots, kernels=KERNELS_PER_OPTIMIZER_STEP)

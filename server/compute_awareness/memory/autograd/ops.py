"""Operators on symbolic tensors: what each allocates and saves, and what torch 2.13's backward of it allocates.

All of them under one name, as a transcription writes `ops.linear`; by kind they are in `elementwise`, `reductions`,
`products`, `attention` and `casting`, views in `views`.
"""

from __future__ import annotations

from .attention import efficient_attention, flash_attention, math_attention
from .casting import all_lowered, cast, lowered, raised
from .elementwise import (
    add,
    clamp_,
    div,
    dropout,
    gelu,
    mul,
    neg,
    power,
    relu,
    rsqrt,
    saves_input,
    saves_output,
    sigmoid,
    silu,
    sqrt,
    sub,
    tanh,
    where,
)
from .products import baddbmm, bmm, conv1d, linear, matmul, mm
from .reductions import cross_entropy, embedding, layer_norm, mean, softmax, sum_to, total

__all__ = [
    "add", "all_lowered", "baddbmm", "bmm", "cast", "clamp_", "conv1d", "cross_entropy", "div", "dropout",
    "efficient_attention", "embedding", "flash_attention", "gelu", "layer_norm", "linear", "lowered", "math_attention",
    "matmul", "mean", "mm", "mul", "neg", "power", "raised", "relu", "rsqrt", "saves_input", "saves_output", "sigmoid",
    "silu", "softmax", "sqrt", "sub", "sum_to", "tanh", "total", "where",
]  # fmt: skip

"""Operators on symbolic tensors: what each allocates and saves, and what torch 2.13's backward of it allocates.

All of them under one name, as a transcription writes `ops.linear`; by kind they are in `elementwise`, `reductions`,
`selection`, `products`, `attention` and `casting`, views in `views`.
"""

from __future__ import annotations

from .attention import efficient_attention, flash_attention, math_attention
from .casting import all_lowered, cast, lowered, raised
from .elementwise import (
    absolute,
    add,
    clamp_,
    compared,
    div,
    dropout,
    exp,
    gelu,
    mul,
    neg,
    power,
    reciprocal,
    relu,
    rsqrt,
    saves_input,
    saves_output,
    sigmoid,
    silu,
    sqrt,
    squared_error,
    sub,
    tanh,
    where,
)
from .products import baddbmm, bmm, conv1d, linear, matmul, mm
from .reductions import average, cross_entropy, embedding, layer_norm, mean, norm, softmax, sum_over, sum_to, total
from .selection import gather, scatter, scatter_, scatter_add_, topk

__all__ = [
    "absolute", "add", "all_lowered", "average", "baddbmm", "bmm", "cast", "clamp_", "compared", "conv1d",
    "cross_entropy", "div", "dropout", "efficient_attention", "embedding", "exp", "flash_attention", "gather", "gelu",
    "layer_norm", "linear", "lowered", "math_attention", "matmul", "mean", "mm", "mul", "neg", "norm", "power",
    "raised", "reciprocal", "relu", "rsqrt", "saves_input", "saves_output", "scatter", "scatter_", "scatter_add_",
    "sigmoid", "silu", "softmax", "sqrt", "squared_error", "sub", "sum_over", "sum_to", "tanh", "topk", "total",
    "where",
]  # fmt: skip

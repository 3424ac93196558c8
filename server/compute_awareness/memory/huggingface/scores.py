"""Attention functions of Hugging Face transformers 5.23 and torch 2.13, as what they allocate and free.

Between the projections: scores, softmax and weighted values of eager attention, and the kernels behind sdpa. What
`torch.matmul` copies to merge batch and heads depends on how its operands lie in memory, so that is followed too.
"""

from __future__ import annotations

from typing import Literal

from ..tape import Tensor
from .parts import FLOAT32, Pass

Layout = Literal["heads", "tokens", "fused"]
"""How [b, heads, s, d_head] lies in memory: heads outermost; tokens outermost, as a projection leaves it; or tokens
outermost inside the wider rows of one projection for q, k and v."""


def merging_copies(p: Pass, layout: Layout) -> bool:
    """Whether merging batch and heads into one dimension, as matmul and reshape do, copies the tensor."""
    if p.b == 1 or p.spec.n_heads == 1 or layout == "heads":
        return False
    return layout == "fused" or p.s > 1


def sdpa(p: Pass, q: Layout) -> Tensor:
    """sdpa_attention_forward with a fused kernel: the output, and the logarithms of the sums in float32.

    A mask rules out the kernel's own grouping of heads, so keys and values are repeated, and becomes a float tensor.
    Flash and cuDNN attention, which CUDA takes in 16 bit without a mask, lay the output out as the queries are (an
    H100's history shows the copy that follows); the memory-efficient kernel and the CPU's put tokens outermost.
    """
    tape, held = p.tape, []
    if p.masked:
        if p.spec.n_heads > p.spec.n_kv_heads > 1:
            held += [tape.new(p.Q, "activations"), tape.new(p.Q, "activations")]
        bias = tape.new(p.w * p.b * p.s * p.s)
    else:
        bias = tape.new(0)
    out = tape.new(p.Q, "activations")
    tape.touch(FLOAT32 * p.b * p.spec.n_heads * p.s)
    tape.drop(bias, *held)
    return heads_to_tokens(p, out) if q == "heads" and p.w != FLOAT32 and not p.masked else out


def in_math_kernel(p: Pass) -> bool:
    """Whether this layer's sdpa call runs unfused; a mask makes transformers repeat the heads, and then it need not."""
    return p.math_kernel and not p.masked and p.spec.n_heads > p.spec.n_kv_heads


def math_sdpa(p: Pass, q: Layout) -> Tensor:
    """_scaled_dot_product_attention_math of torch 2.13 (ATen/native/transformers/attention.cpp).

    Repeats the grouped heads itself, and holds scores and softmax as eager attention does, all of it in float32: in
    16 bit it upcasts q, k and v first, and casts the output and the weights back.
    """
    tape = p.tape
    half = p.w != FLOAT32
    wide_q, wide_s = p.as_float32(p.Q), p.as_float32(p.S)
    held = [tape.new(n) for n in (wide_q, p.as_float32(p.K), p.as_float32(p.K))] if half else []
    held.append(tape.new(wide_q))  # the scaled queries
    if p.s > 1:
        ones, causal = tape.new(p.s * p.s), tape.new(p.s * p.s)
        tape.drop(ones)
        held.append(tape.new(FLOAT32 * p.s * p.s))
        tape.drop(causal)
    held += [tape.new(wide_q), tape.new(wide_q)]
    scaled_keys = tape.new(wide_q)
    scores = matmul(p, wide_q, 0, wide_s, merging_copies(p, q), False)
    tape.drop(scaled_keys)
    weights = tape.new(wide_s, "activations")
    tape.touch(p.S // p.w)  # _safe_softmax: which rows are masked throughout
    tape.drop(scores)
    if half:
        held.append(tape.new(p.S))  # the weights are given back, too
    out = tape.new(wide_q, "activations")
    if half:
        out = rebind(p, out, p.Q)
    tape.drop(weights, *held)
    return heads_to_tokens(p, out)


def eager(p: Pass, q: Layout, k: Layout, v: Layout) -> tuple[Tensor, Tensor]:
    """eager_attention_forward: scores, scaling, soft cap, mask, softmax, weighted values, each a new tensor."""
    tape, spec, repeated = p.tape, p.spec, []
    k_copies, v_copies = merging_copies(p, k), merging_copies(p, v)
    if spec.n_heads > spec.n_kv_heads:
        if spec.n_kv_heads > 1:
            repeated = [tape.new(p.Q, "activations"), tape.new(p.Q, "activations")]
            k_copies = v_copies = False
        else:
            # one head expands without a copy, but then batch and heads can only be merged by making one
            k_copies = v_copies = p.b > 1
    scores = matmul(p, p.Q, p.Q, p.S, merging_copies(p, q), k_copies)
    for _ in range(1 + 3 * spec.attn_softcap + 1):
        scores = rebind(p, scores, p.S)
    weights = softmax(p, scores, upcast=spec.architecture != "GPT2LMHeadModel")
    mixed = matmul(p, 0, p.Q, p.Q, False, v_copies)
    mixed = heads_to_tokens(p, mixed)
    tape.drop(*repeated)
    return mixed, weights


def matmul(p: Pass, left: int, right: int, out: int, copy_left: bool, copy_right: bool) -> Tensor:
    operands = [p.tape.new(n) for n, copies in ((left, copy_left), (right, copy_right)) if copies]
    result = p.tape.new(out, "activations")
    p.tape.drop(*operands)
    return result


def rebind(p: Pass, old: Tensor, nbytes: int) -> Tensor:
    """`x = f(x)`: the new tensor exists before the old one goes."""
    new = p.tape.new(nbytes, "activations")
    p.tape.drop(old)
    return new


def softmax(p: Pass, scores: Tensor, upcast: bool) -> Tensor:
    """`softmax(scores, dtype=float32).to(dtype)`: in 16 bit an upcast copy, the float32 result and the cast back.

    torch 2.13 fuses the upcast on CUDA for float16 only; this is the path of bfloat16 and of the CPU.
    """
    if not upcast or p.w == FLOAT32:
        return rebind(p, scores, p.S)
    upcast_scores = p.tape.new(p.as_float32(p.S))
    result = p.tape.new(p.as_float32(p.S))
    p.tape.drop(upcast_scores)
    weights = p.tape.new(p.S, "activations")
    p.tape.drop(result, scores)
    return weights


def heads_to_tokens(p: Pass, mixed: Tensor) -> Tensor:
    """transpose(1, 2).contiguous(): a copy unless one of the two dimensions is 1."""
    return rebind(p, mixed, p.Q) if p.spec.n_heads > 1 and p.s > 1 else mixed

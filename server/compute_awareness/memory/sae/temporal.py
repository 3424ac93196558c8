"""SAELens' TemporalSAE: codes predicted by attention over the sequence, and a sparse code of what they miss.

Read off sae_lens 6.54.12, saes/temporal_sae.py. Inference only: SAELens has no training class for it. Its attention
has queries and keys of another width than its values, which of torch 2.13's fused kernels only the memory-efficient one
takes (ATen/native/transformers/cuda/sdp_utils.cpp), and only where the widths are multiples of 16 bytes; else, and on
the CPU always, the scores of all heads are made.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..tape import Tape, Tensor
from .frame import Frame

FLOAT, INDEX = 4, 8
_ALIGNMENT = 16  # bytes: what the memory-efficient kernel reads at once from compute capability 8.0 on


@dataclass(frozen=True)
class Temporal:
    """Options of TemporalSAEConfig. `batch_size` sequences of `seq_len` tokens; `active`: kval_topk where
    sae_diff_type is topk, else None."""

    batch_size: int
    seq_len: int
    n_heads: int = 8
    n_attn_layers: int = 1
    bottleneck_factor: int = 64
    active: int | None = None
    tied_weights: bool = True

    def params(self, d_in: int, d_sae: int) -> int:
        """`initialize_weights` and ManualAttention: k_ctx, q_target [d_sae / bottleneck_factor, d_sae], v_ctx, c_proj
        [d_sae, d_sae], each with a bias."""
        narrow = d_sae // self.bottleneck_factor
        attention = 2 * (narrow + d_sae) * (d_sae + 1)
        return (1 if self.tied_weights else 2) * d_in * d_sae + d_in + self.n_attn_layers * attention

    def fused(self, d_sae: int, width: int) -> bool:
        """Whether torch's memory-efficient kernel on CUDA takes the attention (queries' and values' width per head)."""
        widths = (d_sae // self.bottleneck_factor, d_sae)
        return all(n // self.n_heads * width % _ALIGNMENT == 0 for n in widths)


def encode(
    tape: Tape, sae_in: Tensor, width: int, d_in: int, d_sae: int, options: Temporal, cpu_kernels: bool
) -> tuple[Tensor, Tensor]:
    """encode_with_predictions from process_sae_in's result on: (z_novel, z_pred); the caller holds `sae_in`."""
    tokens = options.batch_size * options.seq_len
    wide, narrow = tokens * d_sae * width, tokens * d_in * width
    frame = Frame(tape)
    frame.assign("x_residual", tape.hold(sae_in))
    z_pred = tape.new(wide)

    def pre_activations() -> Tensor:
        """torch.matmul(x_residual * lam, W_enc)"""
        scaled = tape.new(narrow)
        product = tape.new(wide)
        tape.drop(scaled)
        return product

    for _ in range(options.n_attn_layers):
        product = pre_activations()
        z_input = tape.new(wide)
        tape.drop(product)
        frame.assign("z_input", z_input)
        first, others = tape.new(wide // options.seq_len), tape.new(wide - wide // options.seq_len)
        z_ctx = tape.new(wide)
        tape.drop(first, others)
        frame.assign("z_ctx", z_ctx)
        frame.assign("z_pred_", _attention(tape, d_sae, width, options, cpu_kernels))
        frame.assign("z_pred_", tape.new(wide))  # relu
        frame.assign("Dz_pred_", tape.new(narrow))
        norms = tape.new(tokens * width)
        frame.assign("Dz_norm_", tape.new(tokens * width))
        tape.drop(norms)
        product = tape.new(narrow)
        sums = tape.new(tokens * width)
        tape.drop(product)
        squares = tape.new(tokens * width)
        frame.assign("proj_scale", tape.new(tokens * width))
        tape.drop(sums, squares)
        scaled = tape.new(wide)
        total = tape.new(wide)
        tape.drop(scaled, z_pred)
        z_pred = total
        scaled = tape.new(narrow)
        residual = tape.new(narrow)
        tape.drop(scaled)
        frame.assign("x_residual", residual)
    frame.assign("hidden_pre", pre_activations())
    z_novel = tape.new(wide)
    if options.active is not None:
        frame.assign("topk", tape.new(tokens * options.active * width), tape.new(tokens * options.active * INDEX))
        mask = tape.new(wide)
        if cpu_kernels and width < FLOAT:  # 16-bit numbers are scattered in a float32 copy
            tape.touch(FLOAT * tokens * d_sae)
        frame.assign("mask", mask)
        masked = tape.new(wide)
        tape.drop(z_novel)
        z_novel = masked
    frame.leave()
    return z_novel, z_pred


def _attention(tape: Tape, d_sae: int, width: int, options: Temporal, cpu_kernels: bool) -> Tensor:
    """ManualAttention.forward, without its attention map."""
    narrow = d_sae // options.bottleneck_factor
    tokens, heads, length = options.batch_size * options.seq_len, options.n_heads, options.seq_len
    keys, wide = tokens * narrow, tokens * d_sae
    held = [tape.new(keys * width), tape.new(wide * width), tape.new(keys * width)]  # k, v, q
    fused = options.fused(d_sae, width) and not cpu_kernels
    if fused:
        out = tape.new(wide * width)
        # the kernel sums wide values in float32 (mem_eff_attention/kernel_forward.h, kNeedsOutputAccumulatorBuffer)
        tape.touch(wide * FLOAT if width < FLOAT else 0)
    else:
        out = _unfused(tape, keys, wide, tokens * heads * length, width, options)
    copied = out if fused or heads == 1 or length == 1 else tape.new(wide * width)
    result = tape.new(wide * width)  # c_proj
    tape.drop(*held, *dict.fromkeys((out, copied)))  # in the same order each time
    return result


def _unfused(tape: Tape, keys: int, values: int, scores: int, width: int, options: Temporal) -> Tensor:
    """_scaled_dot_product_attention_math of torch 2.13 (ATen/native/transformers/attention.cpp): float32 throughout."""
    held = [tape.new(n * FLOAT) for n in (keys, keys, values)] if width < FLOAT else []
    held.append(tape.new(keys * FLOAT))  # the scaled queries
    tape.touch(2 * options.seq_len**2)
    held.append(tape.new(FLOAT * options.seq_len**2))  # the causal mask
    # queries, keys and values lie token by token: matmul copies them to merge batch and heads
    merges = options.batch_size > 1 and options.n_heads > 1 and options.seq_len > 1
    scaled_keys = tape.new(keys * FLOAT)
    copies = [tape.new(keys * FLOAT), tape.new(keys * FLOAT)] if merges else []
    product = tape.new(scores * FLOAT)
    tape.drop(*copies, scaled_keys)
    masked = tape.new(scores * FLOAT)
    tape.drop(product)
    # _safe_softmax: which scores are minus infinity, and in which rows all of them
    infinite = [tape.new(scores), tape.new(scores // options.seq_len), tape.new(FLOAT)]
    held.append(tape.new(scores * FLOAT))
    tape.drop(masked, *infinite)
    # its second result, the weights in the dtype of the queries, is made before the first
    held.append(tape.new(scores * width if width < FLOAT else 0))
    copies = [tape.new(values * FLOAT)] if merges else []
    out = tape.new(values * FLOAT)
    tape.drop(*copies)
    if width < FLOAT:
        lowered = tape.new(values * width)
        tape.drop(out)
        out = lowered
    tape.drop(*held)
    return out

"""Attention of a HookedTransformer: from the normed inputs to the output, scores and pattern on the way.

Read off transformer_lens 3.9.0, components/abstract_attention.py and grouped_query_attention.py.
"""

from __future__ import annotations

from ..tape import Tensor
from ..weights import tl_rotary_table_bytes
from .parts import add_bias, norm, project, rotary, softcap
from .run import Pass


def causal_mask(p: Pass, local: bool) -> Tensor:
    """_make_causal_mask: [query, key] of bool, combined with the window of a local layer."""
    s = p.run.seq_len
    if p.run.release.stored_masks:
        return p.new(0, 1)  # a view of the block's buffer
    mask = p.new(s * s, 1)
    if local:
        inside = p.new(s * s, 1)
        both = p.new(s * s, 1)
        p.tape.drop(mask, inside)
        mask = both
    return mask


def _qk_norm(p: Pass, name: str, x: Tensor, heads: int, *, copied: bool) -> Tensor:
    """RMSNorm of q or k, per head or over all heads. Takes over `x`; heads projected one by one are laid out
    so that flattening them copies."""
    t, spec = p.tape, p.run.spec
    width = heads * spec.d_head
    flat = p.new(p.tokens * width) if copied else t.hold(x)
    rows, length = (p.tokens * heads, spec.d_head) if spec.qk_norm == "head" else (p.tokens, width)
    out = norm(p, name, flat, rows, length, pre=False, rms=True)
    t.drop(flat, x)
    return out


def _per_head(p: Pass, z: Tensor, heads: int) -> Tensor:
    """What each head adds, [b, s, head, d_model]."""
    p.save(z)
    if p.run.release.contracted_results:  # head by head, for which z is laid out as [head, b, s, d_head]
        flat_z = p.new(p.tokens * p.run.spec.q_width if p.run.batch_size > 1 and p.run.seq_len > 1 else 0)
        out = p.new(p.tokens * heads * p.run.spec.d_model)
        p.tape.drop(flat_z)
        return out
    product = p.new(p.tokens * p.run.spec.q_width * p.run.spec.d_model)
    out = p.new(p.tokens * heads * p.run.spec.d_model)
    p.tape.drop(product)
    return out


def _output_einsum(p: Pass, z: Tensor) -> Tensor:
    """Up to 2.1: einsum of z, which lies in memory as [b, head, d_head, s], with W_O. It sums over d_head and head in
    this order, so both are copied unless there is one head. The caller keeps `z`."""
    t, run, spec = p.tape, p.run, p.run.spec
    copied = spec.n_heads > 1 or (run.batch_size > 1 and run.seq_len > 1)
    flat_z = p.new(p.tokens * spec.q_width) if copied else t.hold(z)
    weight = p.new(spec.q_width * spec.d_model if spec.n_heads > 1 else 0)
    out = p.new(p.tokens * spec.d_model)
    t.drop(flat_z, weight)
    return add_bias(p, out)


def attention(p: Pass, inputs: tuple[Tensor, Tensor, Tensor], local: bool, grouped: bool) -> Tensor:
    """AbstractAttention.forward. The caller keeps `inputs`; gives back the owned output [b, s, d]."""
    t, run, spec = p.tape, p.run, p.run.spec
    b, s, heads, kv = run.batch_size, run.seq_len, spec.n_heads, spec.n_kv_heads
    per_head = run.use_split_qkv_input or run.use_attn_in
    q_elements, kv_elements, square = p.tokens * spec.q_width, p.tokens * spec.kv_width, b * heads * s * s
    split_heads = b > 1 and s > 1 and heads > 1

    q = p.hook("attn.hook_q", project(p, inputs[0], heads, per_head))
    k = p.hook("attn.hook_k", project(p, inputs[1], kv, per_head))
    v = p.hook("attn.hook_v", project(p, inputs[2], kv, per_head))
    if spec.qk_norm is not None:
        q = _qk_norm(p, "attn.q_norm", q, heads, copied=per_head)
        k = _qk_norm(p, "attn.k_norm", k, kv, copied=per_head)
    if spec.clip_qkv:
        clamped = []
        for tensor, elements in ((q, q_elements), (k, kv_elements), (v, kv_elements)):
            p.save(tensor)
            clamped.append(p.new(elements))
            t.drop(tensor)
        q, k, v = clamped
    if spec.positional == "rotary":
        fresh = tl_rotary_table_bytes(spec, run.width)
        grows = tl_rotary_table_bytes(spec, run.width, s) > fresh and not run.release.whole_rotary_tables
        table = t.adopt(fresh, "buffers") if grows else None
        rotated = p.hook("attn.hook_rot_q", rotary(p, q, heads, table))
        t.drop(q)
        q = rotated
        rotated = p.hook("attn.hook_rot_k", rotary(p, k, kv, None))
        t.drop(k)
        k = rotated

    score_width = run.width
    if run.release.float32_scores and run.width < 4:
        score_width = 4
        upcast = p.new(q_elements, 4)
        t.drop(q)
        q = upcast
        upcast = p.new(kv_elements, 4)
        t.drop(k)
        k = upcast

    # calculate_attention_scores: matmul flattens batch and heads, which copies q and k unless the batch is 1.
    k_all = p.new(q_elements, score_width) if grouped else t.hold(k)
    flat_q = p.new(q_elements, score_width) if split_heads else t.hold(q)
    flat_k = p.new(q_elements, score_width) if split_heads else t.hold(k_all)
    scores = p.new(square, score_width)
    p.save(flat_q, flat_k)
    t.drop(flat_q, flat_k)
    divided = p.new(square, score_width)
    t.drop(scores)
    scores = divided
    if spec.attn_softcap:
        scores = softcap(p, scores, square, score_width)
    t.drop(k_all)
    if spec.positional == "alibi":
        slope = p.new(s * s, 4)
        t.new(4 * heads * s * s, "buffers")  # built at the first forward, kept by the module ever after
        t.drop(slope)
    mask = causal_mask(p, local)
    masked = p.new(square, score_width)
    p.save(mask)
    t.drop(scores, mask)
    scores = p.hook("attn.hook_attn_scores", masked)

    softmax = p.new(square, score_width)
    p.save(softmax)
    is_nan = p.new(square, 1)
    zeros = p.new(square, score_width)
    pattern = p.new(square, score_width)
    p.save(is_nan)
    t.drop(softmax, is_nan, zeros)
    p.hook("attn.hook_pattern", pattern)
    if score_width != run.width:
        cast = p.new(square)
        t.drop(pattern)
        pattern = cast

    v_all = p.new(q_elements) if grouped else t.hold(v)
    flat_v = p.new(q_elements) if split_heads else t.hold(v_all)
    z = p.new(q_elements)
    p.save(pattern, flat_v)
    t.drop(flat_v)
    p.hook("attn.hook_z", z)
    t.drop(v_all)

    if run.use_attn_result:
        per_head_out = _per_head(p, z, heads)
        p.hook("attn.hook_result", per_head_out)
        summed = p.new(p.tokens * spec.d_model)
        out = p.new(p.tokens * spec.d_model)
        t.drop(summed, per_head_out)
    elif run.release.added_biases:
        out = _output_einsum(p, z)
    else:
        weight = p.new(0 if run.release.plain_products else spec.q_width * spec.d_model)
        kept_z = t.hold(z) if run.release.keeps_z else p.new(0)
        if heads > 1 and s > 1:
            flat_z = p.new(q_elements)
            t.drop(z)
            z = flat_z
        out = p.new(p.tokens * spec.d_model)
        p.save(z, weight)
        t.drop(weight, kept_z)
    t.drop(z, pattern, scores, q, k, v)
    return out

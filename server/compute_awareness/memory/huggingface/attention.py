"""Attention of Hugging Face transformers 5.23, as what it allocates and frees.

Three things decide more than the formula of attention does: which Python names still point at a storage (a view keeps
all of it), whether `torch.matmul` must copy its operands to merge batch and heads, and that eager attention returns
its weights [b, heads, s, s], which the layer holds until it returns.

Sources: `models/*/modeling_*.py`, `cache_utils.py` (DynamicCache), `integrations/sdpa_attention.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from ..tape import Tensor
from .parts import FLOAT32, INT64, Pass, norm
from .scores import (
    Layout,
    eager,
    heads_to_tokens,
    in_math_kernel,
    math_sdpa,
    matmul,
    merging_copies,
    rebind,
    sdpa,
    softmax,
)


class Attended(NamedTuple):
    """What an attention module returns: its output [b, s, d_model], and eager's weights."""

    out: Tensor
    weights: Tensor | None


_FLOAT32_ROTARY = frozenset({"OlmoForCausalLM", "Olmo2ForCausalLM", "Olmo3ForCausalLM"})


def rotary_width(p: Pass) -> int:
    """Bytes per element of the sine and cosine tables; the OLMo family leaves them in float32."""
    return FLOAT32 if p.spec.architecture in _FLOAT32_ROTARY else p.w


def attend(p: Pass) -> Attended:
    """The attention module of the model's layer; its input is held by the caller."""
    attended = _attend(p)
    p.gives("attn", attended.out)
    if attended.weights is not None:
        p.gives("weights", attended.weights)
        if p.leaves_weights:
            p.tape.hold(attended.weights)
    return attended


def _attend(p: Pass) -> Attended:
    match p.spec.architecture:
        case "GPT2LMHeadModel":
            return _gpt2(p)
        case "GPTNeoXForCausalLM" | "Phi3ForCausalLM":
            return _fused_rotary(p)
        case "PhiForCausalLM":
            return _phi(p)
        case "GPTNeoForCausalLM":
            return _gpt_neo(p)
        case "GPTJForCausalLM":
            return _gptj(p)
        case "BloomForCausalLM":
            return _bloom(p)
        case "OPTForCausalLM":
            return _opt(p)
        case _:
            return _llama(p)


def _cache(p: Pass, *replaced: Tensor) -> Layout | None:
    """DynamicCache.update: keys and values are copied with torch.cat; `replaced` are what the names pointed at.

    Returns the layout of the copies, None without a cache. A sliding layer keeps a view, so all of the first pass.
    """
    if not p.kv_cache:
        return None
    p.tape.new(p.K, "kv_cache")
    p.tape.new(p.K, "kv_cache")
    p.tape.drop(*replaced)
    return "heads"


def _core(p: Pass, q: Layout, k: Layout, v: Layout) -> Attended:
    """The attention function and the output projection; q, k and v are held by the caller."""
    if p.attention == "sdpa":
        mixed, weights = (math_sdpa(p, q) if in_math_kernel(p) else sdpa(p, q)), None
    else:
        mixed, weights = eager(p, q, k, v)
    return Attended(_project(p, mixed), weights)


def _projections(p: Pass) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v, each of a linear layer of its own."""
    q, k, v = (p.gives(role, p.tape.new(n, "activations")) for role, n in (("q", p.Q), ("k", p.K), ("v", p.K)))
    return q, k, v


def _project(p: Pass, mixed: Tensor) -> Tensor:
    out = p.gives("o", p.tape.new(p.X, "activations"))
    p.tape.drop(mixed)
    return out


def _rotate(p: Pass, nbytes: int) -> Tensor:
    """`(x * cos) + (rotate_half(x) * sin)` of a tensor of `nbytes`."""
    tape, product = p.tape, nbytes * rotary_width(p) // p.w
    by_cos = tape.new(product)
    half = tape.new(nbytes // 2)
    rotated = tape.new(nbytes)
    tape.drop(half)
    by_sin = tape.new(product)
    tape.drop(rotated)
    out = tape.new(product, "activations")
    tape.drop(by_cos, by_sin)
    return out


def _llama(p: Pass) -> Attended:
    """LlamaAttention and its copies: Mistral, Qwen 2 and 3, Gemma 1 to 3, OLMo 1 to 3."""
    tape, spec = p.tape, p.spec

    def normed(raw: Tensor, role: str) -> Tensor:
        rows = p.tokens if spec.qk_norm == "full" else raw.bytes // (p.w * spec.d_head)
        out = p.gives(role, norm(p, raw.bytes, rows))
        tape.drop(raw)
        return out

    late = spec.architecture == "Gemma3ForCausalLM"
    q = p.gives("q", tape.new(p.Q, "activations"))
    if spec.qk_norm and not late:
        q = normed(q, "q_norm")
    k = p.gives("k", tape.new(p.K, "activations"))
    if spec.qk_norm and not late:
        k = normed(k, "k_norm")
    v = p.gives("v", tape.new(p.K, "activations"))
    if spec.qk_norm and late:
        q, k = normed(q, "q_norm"), normed(k, "k_norm")
    q_rotated, k_rotated = _rotate(p, p.Q), _rotate(p, p.K)
    if rotary_width(p) != p.w:
        q_wide, k_wide = q_rotated, k_rotated
        q_rotated, k_rotated = tape.new(p.Q, "activations"), tape.new(p.K, "activations")
        tape.drop(q_wide, k_wide)
    tape.drop(q, k)
    kept = _cache(p, k_rotated, v)
    result = _core(p, "tokens", kept or "tokens", kept or "tokens")
    tape.drop(q_rotated)
    if not kept:
        tape.drop(k_rotated, v)
    return result


def _fused_rotary(p: Pass) -> Attended:
    """GPTNeoXAttention and Phi3Attention: one projection for q, k and v; rotated and unrotated parts concatenated."""
    tape, spec = p.tape, p.spec
    qkv = p.gives("qkv", tape.new(p.Q + 2 * p.K, "activations"))
    q_part, k_part = (n * (spec.rotary_dim or spec.d_head) // spec.d_head for n in (p.Q, p.K))
    if spec.architecture == "Phi3ForCausalLM":
        q = rebind(p, _rotate(p, q_part), p.Q)
        k = rebind(p, _rotate(p, k_part), p.K)
        v_layout: Layout = "fused"
    else:
        q_rotated, k_rotated = _rotate(p, q_part), _rotate(p, k_part)
        q, k = rebind(p, q_rotated, p.Q), rebind(p, k_rotated, p.K)
        v_layout = "tokens"
    kept = _cache(p, k)
    result = _core(p, "heads", "heads", kept or v_layout)
    tape.drop(q, qkv)
    if not kept:
        tape.drop(k)
    return result


def _phi(p: Pass) -> Attended:
    """PhiAttention: the names of the rotated and the unrotated parts live to the end, and with them q and k."""
    tape, spec = p.tape, p.spec
    q, k, v = _projections(p)
    q_part, k_part = (n * (spec.rotary_dim or spec.d_head) // spec.d_head for n in (p.Q, p.K))
    q_rotated, k_rotated = _rotate(p, q_part), _rotate(p, k_part)
    q_whole, k_whole = tape.new(p.Q, "activations"), tape.new(p.K, "activations")
    kept = _cache(p, k_whole, v)
    result = _core(p, "heads", "heads", kept or "tokens")
    tape.drop(q, k, q_rotated, k_rotated, q_whole)
    if not kept:
        tape.drop(k_whole, v)
    return result


def _gpt2(p: Pass) -> Attended:
    """GPT2Attention: q, k and v are slices of one projection."""
    qkv = p.gives("qkv", p.tape.new(3 * p.X, "activations"))
    kept = _cache(p)
    result = _core(p, "fused", kept or "fused", kept or "fused")
    p.tape.drop(qkv)
    return result


def _opt(p: Pass) -> Attended:
    """OPTAttention: the queries are scaled beforehand, in a second tensor."""
    tape = p.tape
    q = rebind(p, p.gives("q", tape.new(p.Q, "activations")), p.Q)
    k, v = p.gives("k", tape.new(p.K, "activations")), p.gives("v", tape.new(p.K, "activations"))
    kept = _cache(p, k, v)
    result = _core(p, "tokens", kept or "tokens", kept or "tokens")
    tape.drop(q)
    if not kept:
        tape.drop(k, v)
    return result


def _gpt_neo(p: Pass) -> Attended:
    """GPTNeoSelfAttention."""
    tape = p.tape
    q, k, v = _projections(p)
    kept = _cache(p, k, v)
    result = _float32_scores(p, kept or "tokens")
    tape.drop(q)
    if not kept:
        tape.drop(k, v)
    return result


def _gptj(p: Pass) -> Attended:
    """GPTJAttention: every layer copies the whole position table, for each row of position ids, and keeps each stage of
    q and k to the end."""
    tape, spec = p.tape, p.spec
    rotary = spec.rotary_dim or spec.d_head
    q, k, v = _projections(p)
    table = tape.new(FLOAT32 * p.position_rows * spec.n_ctx * rotary)
    indices = tape.new(INT64 * p.position_rows * p.s * rotary)
    sincos = tape.new(FLOAT32 * p.position_rows * p.s * rotary)
    expanded = p.w * p.position_rows * p.s * rotary
    if p.w != FLOAT32:
        sincos = rebind(p, sincos, expanded)
    part = p.X * rotary // spec.d_head

    def rotate() -> Tensor:
        sin, cos = tape.new(expanded), tape.new(expanded)
        out = _rotate(p, part)
        tape.drop(sin, cos)
        return out

    k_rotated, q_rotated = rotate(), rotate()
    k_whole, q_whole = tape.new(p.X, "activations"), tape.new(p.X, "activations")
    kept = _cache(p, k_whole, v)
    result = _float32_scores(p, kept or "tokens")
    tape.drop(q, k, table, indices, sincos, q_rotated, k_rotated, q_whole)
    if not kept:
        tape.drop(k_whole, v)
    return result


def _float32_scores(p: Pass, kv: Layout) -> Attended:
    """`_attn` of GPT-Neo and GPT-J: q and k upcast, scores and softmax in float32; merging heads; the projection."""
    tape = p.tape
    wide_q, wide_s = p.as_float32(p.Q), p.as_float32(p.S)
    upcast = [tape.new(wide_q), tape.new(wide_q)] if p.w != FLOAT32 else []
    scores = matmul(p, wide_q, wide_q, wide_s, merging_copies(p, "tokens"), merging_copies(p, kv))
    for _ in range(3):  # local mask or scaling, causal mask, softmax
        scores = rebind(p, scores, wide_s)
    if p.w != FLOAT32:
        scores = rebind(p, scores, p.S)
    mixed = matmul(p, 0, p.Q, p.Q, False, merging_copies(p, kv))
    tape.drop(*upcast)
    return Attended(_project(p, heads_to_tokens(p, mixed)), scores)


def _bloom(p: Pass) -> Attended:
    """BloomAttention: scores before and after the mask keep their names beside the weights; adds the residual."""
    tape = p.tape
    qkv = p.gives("qkv", tape.new(3 * p.X, "activations"))
    kept = _cache(p)
    merged = [tape.new(p.X) for layout in ("tokens", kept or "tokens", kept or "tokens") if merging_copies(p, layout)]
    raw = tape.new(p.S, "activations")
    scores = tape.hold(tape.new(p.S, "activations"))
    weights = softmax(p, scores, upcast=True)
    mixed = heads_to_tokens(p, tape.new(p.X, "activations"))
    out = p.gives("o", tape.new(p.X, "activations"))
    added = tape.new(p.X, "activations")
    tape.drop(out, mixed, raw, scores, qkv, *merged)
    return Attended(added, weights)

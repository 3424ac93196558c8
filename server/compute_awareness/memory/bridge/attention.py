"""Attention of a TransformerBridge, as what it allocates and which hooks see it.

The Bridge computes attention itself where queries, keys and values come from one joint matrix (GPT-2, GPT-NeoX) and
where positions are rotary; in OPT, GPT-Neo and GPT-J the model's own module does, on matrices that are LinearBridges.
Scores and pattern always exist, because the Bridge forces eager attention.

Read off transformer_lens 3.9.0, model_bridge/generalized_components/{attention,joint_qkv_attention,
joint_qkv_position_embeddings_attention,position_embeddings_attention}.py, and transformers 5.23.
"""

from __future__ import annotations

from ..tape import Tensor
from .parts import norm
from .run import FLOAT32, INT64, Pass

JOINT = frozenset({"GPT2LMHeadModel", "GPTNeoXForCausalLM"})
"""The Bridge splits their joint matrix, and keeps each layer's pattern until the next forward."""
DELEGATED = frozenset({"OPTForCausalLM", "GPTNeoForCausalLM", "GPTJForCausalLM"})
"""The Hugging Face module computes attention; every layer's pattern is part of its output."""


def attention(p: Pass, x: Tensor) -> tuple[Tensor, Tensor]:
    """The block's attention module on `x`, which the caller keeps: its output and the pattern, both owned.

    The pattern is held by who keeps it longer, besides.
    """
    p.hook("attn.hook_in", x)
    if p.spec.architecture in JOINT:
        return _joint(p, x)
    if p.spec.architecture in DELEGATED:
        return _delegated(p, x)
    return _rotary(p, x)


def _linear(p: Pass, name: str, x: Tensor, nbytes: int) -> Tensor:
    """LinearBridge q, k or v."""
    p.hook(f"attn.{name}.hook_in", x)
    return p.hook(f"attn.{name}.hook_out", p.new(nbytes))


def _output(p: Pass, mixed: Tensor) -> Tensor:
    """LinearBridge o on the merged heads; takes over `mixed`."""
    p.hook("attn.o.hook_in", mixed)
    out = p.hook("attn.o.hook_out", p.new(p.X))
    p.tape.drop(mixed)
    return out


def _cached(p: Pass, width: int, *replaced: Tensor) -> None:
    """DynamicCache.update: keys and values are copied with torch.cat; `replaced` are what the names pointed at."""
    size = p.K * width // p.w
    p.returned += [p.new(size, "kv_cache"), p.new(size, "kv_cache")]
    p.tape.drop(*replaced)


def _merging_copies(p: Pass) -> bool:
    """Whether matmul must copy a transposed projection [b, heads, s, d_head] to merge batch and heads."""
    return p.b > 1 and p.spec.n_heads > 1 and p.s > 1


def _matmul(p: Pass, out: int, *copies: int) -> Tensor:
    operands = [p.tape.new(nbytes) for nbytes in copies]
    result = p.new(out)
    p.tape.drop(*operands)
    return result


def _heads_to_tokens(p: Pass, mixed: Tensor) -> Tensor:
    """transpose(1, 2).contiguous(): a copy unless one of the two dimensions is 1."""
    return p.replace(mixed, mixed.bytes) if p.spec.n_heads > 1 and p.s > 1 else mixed


def _mask(p: Pass, scores: Tensor) -> Tensor:
    """_apply_reconstruct_attention_mask with the model's own mask [b, 1, s, s]."""
    width = scores.bytes * p.w // p.S
    square = p.b * p.s * p.s
    mask = None
    if p.run.compatibility_mode:
        below = p.tape.new(square)
        mask = p.tape.new(p.w * square)
        p.tape.drop(below)
    if width != p.w:
        wide = p.tape.new(width * square)
        if mask is not None:
            p.tape.drop(mask)
        mask = wide
    masked = p.new(scores.bytes)
    if mask is not None:
        p.tape.drop(mask)
    p.tape.drop(scores)
    return p.hook("attn.hook_attn_scores", masked)


def _softmax(p: Pass, scores: Tensor, upcast: bool) -> Tensor:
    """Softmax of `scores`, which the caller keeps, in float32 if `upcast`.

    In 16 bit that is an upcast copy, the float32 result and the cast back; torch 2.13 fuses the upcast on CUDA for
    float16 only.
    """
    if not upcast or scores.bytes == p.as_float32(p.S):
        return p.new(scores.bytes)
    wide = p.tape.new(p.as_float32(p.S))
    wide = p.replace(wide, p.as_float32(p.S))
    return p.replace(wide, p.S)


def _pattern(p: Pass, scores: Tensor, upcast: bool) -> Tensor:
    """Softmax, and in compatibility mode torch.where(isnan(pattern), zeros_like(pattern), pattern)."""
    pattern = _softmax(p, scores, upcast)
    if p.run.compatibility_mode:
        nan = p.tape.new(p.S // p.w)
        zeros = p.tape.new(pattern.bytes)
        scrubbed = p.new(pattern.bytes)
        p.tape.drop(nan, zeros, pattern)
        pattern = scrubbed
    return p.hook("attn.hook_pattern", pattern)


def _rotate(p: Pass, nbytes: int, width: int) -> Tensor:
    """`(x * cos) + (rotate_half(x) * sin)` of a tensor of `nbytes`, with tables of `width` bytes per element."""
    t, product = p.tape, nbytes * width // p.w
    by_cos = p.new(product)
    half = p.new(nbytes // 2)
    turned = p.replace(half, nbytes)
    by_sin = p.replace(turned, product)
    out = p.new(product)
    t.drop(by_cos, by_sin)
    return out


def table_width(p: Pass) -> int:
    """Bytes per element of the sine and cosine tables; OLMo leaves them in float32."""
    return FLOAT32 if p.spec.architecture == "OlmoForCausalLM" else p.w


def hook_tables(p: Pass) -> None:
    """hook_cos and hook_sin of a block: entries of tensors that the model made once, for all blocks.

    The storages are the embedding section's; what they add is decided there.
    """
    assert p.spec.rotary_dim is not None
    entry = table_width(p) * p.s * p.spec.rotary_dim
    for name in ("attn.hook_cos", "attn.hook_sin"):
        p.hook(name, p.tape.adopt(0, "activation_cache"), entry)


def _partly_rotated(p: Pass, nbytes: int) -> int:
    """Bytes of the rotated part of q or k."""
    assert p.spec.rotary_dim is not None
    return nbytes * p.spec.rotary_dim // p.spec.d_head


def _joint(p: Pass, x: Tensor) -> tuple[Tensor, Tensor]:
    """JointQKVAttentionBridge and, with rotary positions, JointQKVPositionEmbeddingsAttentionBridge."""
    t = p.tape
    raw = [_linear(p, name, x, p.X) for name in "qkv"]
    q = None
    if p.spec.positional == "rotary":
        hook_tables(p)
        part = _partly_rotated(p, p.X)
        q, k = _rotate(p, part, p.w), _rotate(p, part, p.w)
        if part < p.X:
            whole = p.new(p.X), p.new(p.X)
            t.drop(q, k)
            q, k = whole
        _cached(p, p.w, k)
    else:
        _cached(p, p.w)
    lies_by_tokens = p.spec.positional != "rotary" or _partly_rotated(p, p.X) == p.X
    scores = _matmul(p, p.S, *([p.X] if lies_by_tokens and _merging_copies(p) else []))
    scores = _mask(p, p.replace(scores, p.S))
    pattern = _pattern(p, scores, upcast=False)
    mixed = _heads_to_tokens(p, _matmul(p, p.X))
    out = _output(p, mixed)
    t.drop(scores)
    if q is not None:
        t.drop(q)
    t.hold(pattern)  # self._pattern, for the next forward to replace
    if p.run.after_another:
        t.drop(t.adopt(p.S, "activations"))
    p.hook("attn.hook_hidden_states", out)
    p.hook("attn.hook_out", out)
    t.drop(*raw)
    return out, pattern


def _rotary(p: Pass, x: Tensor) -> tuple[Tensor, Tensor]:
    """PositionEmbeddingsAttentionBridge.forward."""
    t, spec = p.tape, p.spec
    q, k, v = (_linear(p, name, x, size) for name, size in (("q", p.Q), ("k", p.K), ("v", p.K)))
    if spec.clip_qkv:
        q, k, v = (p.replace(each, each.bytes) for each in (q, k, v))
    if spec.qk_norm:
        normed = norm(p, "attn.q_norm", q, p.tokens * spec.n_heads)
        p.hook("attn.hook_q_normed", normed)
        t.drop(q)
        q = normed
        normed = norm(p, "attn.k_norm", k, p.tokens * spec.n_kv_heads)
        p.hook("attn.hook_k_normed", normed)
        t.drop(k)
        k = normed
    hook_tables(p)
    width = table_width(p)
    held: list[Tensor] = []
    partial = spec.rotary_dim != spec.d_head
    if partial:  # names of the parts live to the end, and with them what they are views of
        parts = _rotate(p, _partly_rotated(p, p.Q), width), _rotate(p, _partly_rotated(p, p.K), width)
        held += [*parts, q, k]
        q, k = p.new(p.Q), p.new(p.K)
    else:
        rotated = _rotate(p, p.Q, width), _rotate(p, p.K, width)
        t.drop(q, k)
        q, k = rotated
    p.hook("attn.hook_rot_q", q)
    p.hook("attn.hook_rot_k", k)
    _cached(p, width, k, v)
    q_copy = [q.bytes] if not partial and _merging_copies(p) else []
    kv_copy: list[int] = []
    if spec.n_heads > spec.n_kv_heads > 1:
        held += [p.new(q.bytes), p.new(q.bytes)]
    elif spec.n_heads > spec.n_kv_heads and p.b > 1:
        kv_copy = [q.bytes]  # one head expands without a copy, but is copied where matmul merges batch and heads
    size = p.S * width // p.w
    scores = _matmul(p, size, *q_copy, *kv_copy)
    for _ in range(1 + 3 * spec.attn_softcap):  # scaled; divided, tanh, multiplied
        scores = p.replace(scores, size)
    scores = _mask(p, scores)
    pattern = _pattern(p, scores, upcast=True)
    mixed = _heads_to_tokens(p, _matmul(p, q.bytes, *kv_copy))
    if width != p.w:
        mixed = p.replace(mixed, p.Q)
    out = p.hook("attn.hook_out", _output(p, mixed))
    t.drop(q, scores, *held)
    return out, pattern


def _delegated(p: Pass, x: Tensor) -> tuple[Tensor, Tensor]:
    """AttentionBridge around OPTAttention, GPTNeoSelfAttention or GPTJAttention."""
    t = p.tape
    q = _linear(p, "q", x, p.X)
    if p.spec.architecture == "OPTForCausalLM":
        q = p.replace(q, p.X)  # scaled beforehand
    k, v = _linear(p, "k", x, p.X), _linear(p, "v", x, p.X)
    if p.spec.architecture == "GPTJForCausalLM":
        held = _gptj_positions(p, q, k)
        q, k = p.new(p.X), p.new(p.X)
        held.append(q)
    else:
        held = [q]
    _cached(p, p.w, k, v)
    if p.spec.architecture == "OPTForCausalLM":
        scores = _matmul(p, p.S, *([p.X] if _merging_copies(p) else []))
        for _ in range(2):  # scaled, masked
            scores = p.replace(scores, p.S)
        pattern = _softmax(p, scores, upcast=True)
        t.drop(scores)
        mixed = _matmul(p, p.X)
    else:
        pattern, mixed = _float32_scores(p)
    out = _output(p, _heads_to_tokens(p, mixed))
    t.drop(*held)
    p.hook("attn.hook_out", out)
    p.hook("attn.hook_pattern", pattern)
    p.hook("attn.hook_attn_scores", pattern)
    p.returned.append(t.hold(pattern))
    return out, pattern


def _gptj_positions(p: Pass, q: Tensor, k: Tensor) -> list[Tensor]:
    """Every layer copies the whole position table, and keeps each stage of q and k to the end."""
    assert p.spec.rotary_dim is not None
    t, rotary = p.tape, p.spec.rotary_dim
    table = p.new(FLOAT32 * p.spec.n_ctx * rotary)
    indices = p.new(INT64 * p.s * rotary)
    sincos = p.new(FLOAT32 * p.s * rotary)
    if p.half:
        sincos = p.replace(sincos, p.w * p.s * rotary)
    rotated = []
    for _ in "kq":
        sin, cos = p.new(p.w * p.s * rotary), p.new(p.w * p.s * rotary)
        rotated.append(_rotate(p, _partly_rotated(p, p.X), p.w))
        t.drop(sin, cos)
    return [q, k, table, indices, sincos, *rotated]


def _float32_scores(p: Pass) -> tuple[Tensor, Tensor]:
    """`_attn` of GPT-Neo and GPT-J: q and k upcast, scores and softmax in float32. The pattern and the mixed values."""
    wide_q, wide_s = p.as_float32(p.X), p.as_float32(p.S)
    upcast = [p.new(wide_q), p.new(wide_q)] if p.half else []
    scores = _matmul(p, wide_s, *([wide_q] if _merging_copies(p) else []))
    lowest = p.new(FLOAT32 if p.spec.architecture == "GPTNeoForCausalLM" else 0)
    for _ in range(3):  # causal and local mask or scaling, mask, softmax
        scores = p.replace(scores, wide_s)
    if p.half:
        scores = p.replace(scores, p.S)
    mixed = _matmul(p, p.X)
    p.tape.drop(*upcast, lowest)
    return scores, mixed

"""HookedTransformer transcribed with symbolic operators: embedding, block, unembedding, loss.

Read off transformer_lens 3.9.0, the same sources as `hooked_parts` and `hooked_attention`, line by line and with the
same local names, because how long a tensor lives is decided by which names hold it.
"""

from __future__ import annotations

from ..autograd.graph import Var
from ..autograd.ops import (
    add,
    all_lowered,
    bmm,
    cast,
    div,
    embedding,
    gelu,
    linear,
    matmul,
    mean,
    mm,
    mul,
    neg,
    power,
    raised,
    relu,
    saves_output,
    silu,
    softmax,
    sqrt,
    sub,
    sum_over,
    tanh,
    total,
    where,
)  # fmt: skip
from ..autograd.views import contiguous, expand, narrow, permute, reshape, unsqueeze, view
from .backward import Section
from .backward_ops import (
    causal_mask,
    clamp,
    copy,
    gather_next,
    last_position,
    repeat_interleave,
    rotary,
    same,
)  # fmt: skip

FLOAT = 4


def norm(p: Section, name: str, x: Var, *, pre: bool, rms: bool) -> Var:
    """LayerNorm, LayerNormPre, RMSNorm, RMSNormPre: float32 inside."""
    length = x.shape[-1]
    if p.run.width != FLOAT:  # cfg.dtype is asked, not x, which is 16 bit in autocast
        x = cast(x, FLOAT)
    if not rms:
        x = sub(x, mean(x))
    scale = p.hook(f"{name}.hook_scale", sqrt(add(mean(power(x)), 1e-5)))
    if pre:
        return cast(p.hook(f"{name}.hook_normalized", div(x, scale)), p.run.width)
    x = cast(p.hook(f"{name}.hook_normalized", div(x, scale)), p.run.width)
    scaled = mul(x, p.parameter(length, name=f"{name}.w"))  # one expression with the bias: x stays until it returns
    return scaled if rms else add(scaled, p.parameter(length, name=f"{name}.b"))


def block_norm(p: Section, name: str, x: Var, *, foldable: bool = True) -> Var:
    """ln1, ln2, ln1_post or ln2_post; x itself for a model without norms."""
    spec = p.run.spec
    if spec.norm == "none":
        return x
    pre = p.run.folded and foldable and spec.folds_norms_tl
    return norm(p, name, x, pre=pre, rms=spec.norm == "rmsnorm")


def softcap(x: Var) -> Var:
    return mul(tanh(div(x, 1.0)), 1.0)


def activation(p: Section, x: Var) -> Var:
    """utilities/activation_functions.py"""
    match p.run.spec.act_fn:
        case "gelu_new":
            return mul(mul(x, 0.5), add(tanh(mul(add(x, mul(power(x), 0.044715)), 0.8)), 1.0))
        case "gelu_fast":
            return mul(
                mul(x, 0.5), add(tanh(mul(mul(x, 0.8), add(mul(mul(x, 0.044715), x), 1.0))), 1.0)
            )  # fmt: skip
        case "solu" | "solu_ln":
            return mul(x, softmax(x))
        case "relu":
            return relu(x)
        case "silu":
            return silu(x)
        case _:
            return gelu(x)


def mlp(p: Section, x: Var) -> Var:
    """MLP.forward or GatedMLP.forward."""
    spec = p.run.spec
    d, m = spec.d_model, spec.d_mlp
    if spec.gated_mlp:
        pre_act = p.hook("mlp.hook_pre", linear(x, contiguous(permute(p.parameter(d, m), 1, 0))))
        pre_linear = p.hook("mlp.hook_pre_linear", linear(x, contiguous(permute(p.parameter(d, m), 1, 0))))
        post_act = p.hook("mlp.hook_post", add(mul(activation(p, pre_act), pre_linear), p.parameter(m)))
        return linear(post_act, contiguous(permute(p.parameter(m, d), 1, 0)), p.parameter(d))
    pre_act = p.hook("mlp.hook_pre", _addmm(p, x, d, m))
    if spec.act_fn == "solu_ln":
        mid_act = p.hook("mlp.hook_mid", activation(p, pre_act))
        pre = p.run.folded and spec.folds_norms_tl
        post_act = p.hook("mlp.hook_post", norm(p, "mlp.ln", mid_act, pre=pre, rms=False))
    else:
        post_act = p.hook("mlp.hook_post", activation(p, pre_act))
    return _addmm(p, post_act, m, d)


def _addmm(p: Section, x: Var, inner: int, outer: int) -> Var:
    """batch_addmm"""
    weight, bias = p.parameter(inner, outer), p.parameter(outer)
    bias, rows, weight = all_lowered(bias, view(x, -1, inner), weight)
    out = mm(rows, weight, bias)
    return view(out, *x.shape[:-1], outer)


def project(p: Section, x: Var, heads: int, per_head: bool, repeats: int = 1) -> Var:
    """simple_attn_linear, or complex_attn_linear where each head has its own input; `repeats`: query heads of one
    key head whose weights are repeated for them."""
    d, d_head = p.run.spec.d_model, p.run.spec.d_head
    weight, bias = p.parameter(heads // repeats, d, d_head), p.parameter(heads // repeats, d_head)
    if repeats > 1:
        weight, bias = repeat_interleave(weight, repeats, 0), repeat_interleave(bias, repeats, 0)
    if per_head:
        b, s = x.shape[:2]
        left = reshape(permute(x, 2, 0, 1, 3), heads, b * s, d)
        result = permute(view(bmm(left, weight), heads, b, s, d_head), 1, 2, 0, 3)
        del left
        return add(result, bias)
    w = reshape(permute(weight, 0, 2, 1), heads * d_head, d)
    out = linear(x, w, view(bias, heads * d_head))
    return reshape(out, x.shape[0], x.shape[1], heads, d_head)


def _qk_norm(p: Section, name: str, x: Var) -> Var:
    """RMSNorm of q or k, per head or over all heads."""
    if p.run.spec.qk_norm == "head":
        return reshape(norm(p, name, reshape(x, -1, x.shape[-1]), pre=False, rms=True), *x.shape)
    flat = reshape(x, x.shape[0], x.shape[1], x.shape[2] * x.shape[3])
    return reshape(norm(p, name, flat, pre=False, rms=True), *x.shape)


def attention(p: Section, inputs: tuple[Var, Var, Var], local: bool, grouped: bool) -> Var:
    """AbstractAttention.forward"""
    run, spec = p.run, p.run.spec
    heads, kv, d, d_head = spec.n_heads, spec.n_kv_heads, spec.d_model, spec.d_head
    per_head = run.use_split_qkv_input or run.use_attn_in
    q = p.hook("attn.hook_q", project(p, inputs[0], heads, per_head))
    k = p.hook("attn.hook_k", project(p, inputs[1], kv, per_head, p.repeats))
    v = p.hook("attn.hook_v", project(p, inputs[2], kv, per_head, p.repeats))
    if spec.qk_norm is not None:
        q = _qk_norm(p, "attn.q_norm", q)
        k = _qk_norm(p, "attn.k_norm", k)
    if spec.clip_qkv:
        q, k, v = clamp(q), clamp(k), clamp(v)
    if spec.positional == "rotary":
        assert spec.rotary_dim is not None
        table = p.constant(1, run.seq_len, 1, spec.rotary_dim)
        q = p.hook("attn.hook_rot_q", rotary(q, spec.rotary_dim, table))
        k = p.hook("attn.hook_rot_k", rotary(k, spec.rotary_dim, table))

    attn_scores = _scores(p, q, k, grouped)
    attn_scores = _mask(attn_scores, local)
    attn_scores = p.hook("attn.hook_attn_scores", attn_scores)
    pattern = softmax(attn_scores)
    pattern = where(p.new(pattern.shape, 1), p.new(pattern.shape, pattern.width), pattern)
    pattern = cast(p.hook("attn.hook_pattern", pattern), v.width)
    z = _values(p, v, pattern, grouped)
    b, s = z.shape[:2]
    if not run.use_attn_result:
        w = contiguous(reshape(permute(p.parameter(heads, d_head, d), 2, 0, 1), d, heads * d_head))
        z = cast(z, run.width)  # the weight's dtype, which it has but under autocast
        z = reshape(z, b, s, heads * d_head)
        out = linear(z, w, p.parameter(d))
    else:
        w = unsqueeze(unsqueeze(p.parameter(heads, d_head, d), 0), 0)
        z = unsqueeze(z, 4)
        unhooked_result = sum_over(mul(z, w), -2)
        result = p.hook("attn.hook_result", unhooked_result)
        out = add(sum_over(result, 2), p.parameter(d))
    return out


def _scores(p: Section, q: Var, k: Var, grouped: bool) -> Var:
    if grouped:
        k = repeat_interleave(k, p.run.spec.n_heads // p.run.spec.n_kv_heads)
    q_ = permute(q, 0, 2, 1, 3)
    k_ = permute(k, 0, 2, 3, 1)
    attn_scores = div(matmul(q_, k_), 1.0)
    if p.run.spec.attn_softcap:
        attn_scores = softcap(attn_scores)
    return attn_scores


def _mask(attn_scores: Var, local: bool) -> Var:
    return where(causal_mask(attn_scores, local), attn_scores)


def _values(p: Section, v: Var, pattern: Var, grouped: bool) -> Var:
    if grouped:
        v = repeat_interleave(v, p.run.spec.n_heads // p.run.spec.n_kv_heads)
    v_ = permute(v, 0, 2, 1, 3)
    return p.hook("attn.hook_z", permute(matmul(pattern, v_), 0, 2, 1, 3))


def _apply_mlp(p: Section, normalized: Var) -> Var:
    """TransformerBlock.apply_mlp"""
    placement = p.run.spec.norm_placement
    mlp_out = mlp(p, normalized)
    if placement in ("both", "post"):
        mlp_out = block_norm(p, "ln2_post" if placement == "both" else "ln2", mlp_out, foldable=False)
    return p.hook("hook_mlp_out", mlp_out)


def _per_head(p: Section, name: str, x: Var, heads: int) -> Var:
    """repeat_along_head_dimension, hooked."""
    b, s, d = x.shape
    return p.hook(name, copy(expand(unsqueeze(x, 2), b, s, heads, d)))


def block(p: Section, owned: list[Var], local: bool) -> Var:
    """TransformerBlock.forward"""
    run, spec = p.run, p.run.spec
    resid_pre = owned.pop()
    grouped = spec.grouped_attention_tl
    post = spec.norm_placement == "post"
    resid_pre = p.hook("hook_resid_pre", resid_pre)
    query_input = key_input = value_input = resid_pre
    if run.use_attn_in:
        query_input = key_input = value_input = _per_head(p, "hook_attn_in", resid_pre, spec.n_heads)
    if run.use_split_qkv_input:
        query_input = _per_head(p, "hook_q_input", resid_pre, spec.n_heads)
        key_input = _per_head(p, "hook_k_input", resid_pre, spec.n_kv_heads)
        value_input = _per_head(p, "hook_v_input", resid_pre, spec.n_kv_heads)
    if post:
        attn_out = attention(p, (query_input, key_input, value_input), local, grouped)
    else:
        attn_out = attention(
            p,
            (
                add(block_norm(p, "ln1", query_input), 0.0),
                add(block_norm(p, "ln1", key_input), 0.0),
                block_norm(p, "ln1", value_input),
            ),
            local,
            grouped,
        )
    if spec.norm_placement in ("both", "post"):
        attn_out = block_norm(p, "ln1" if post else "ln1_post", attn_out, foldable=False)
    attn_out = p.hook("hook_attn_out", attn_out)
    if spec.d_mlp == 0:
        return p.hook("hook_resid_post", add(resid_pre, attn_out))
    if not spec.parallel_attn_mlp:
        resid_mid = p.hook("hook_resid_mid", add(resid_pre, attn_out))
        mlp_in = p.hook("hook_mlp_in", copy(resid_mid)) if run.use_hook_mlp_in else resid_mid
        if post:
            mlp_out = _apply_mlp(p, mlp_in)
        else:
            normalized_resid_mid = block_norm(p, "ln2", mlp_in)
            mlp_out = _apply_mlp(p, normalized_resid_mid)
        return p.hook("hook_resid_post", add(resid_mid, mlp_out))
    normalized_resid_pre_2 = block_norm(
        p, "ln2", p.hook("hook_mlp_in", copy(resid_pre)) if run.use_hook_mlp_in else resid_pre
    )
    mlp_out = _apply_mlp(p, normalized_resid_pre_2)
    return p.hook("hook_resid_post", add(add(resid_pre, attn_out), mlp_out))


def embed(p: Section) -> Var:
    """HookedTransformer.input_to_embed; the tokens are counted elsewhere."""
    x = embed_tokens(p)
    if not p.run.trainable:  # gradients of activations alone begin at the embedding
        x.needs_grad = p.graph.enabled
        x = same(x)
    return embed_positions(p, p.hook("hook_embed", x))


def embed_tokens(p: Section) -> Var:
    """Embed.forward"""
    run, spec = p.run, p.run.spec
    tokens = p.constant(run.batch_size, run.seq_len)
    x = embedding(tokens, p.parameter(spec.d_vocab, spec.d_model))
    return norm(p, "embed.ln", x, pre=False, rms=False) if spec.embed_norm else x


def embed_positions(p: Section, x: Var) -> Var:
    """The residual stream from the embedded tokens."""
    run, spec = p.run, p.run.spec
    if spec.positional != "learned":
        return x
    rows = narrow(p.parameter(spec.context_tl, spec.d_model), 0, run.seq_len)
    pos_embed = p.hook("hook_pos_embed", copy(expand(unsqueeze(rows, 0), run.batch_size, run.seq_len, spec.d_model)))
    return add(x, pos_embed)


def unembed(p: Section, owned: list[Var]) -> tuple[Var, Var]:
    """ln_final, Unembed.forward and the logit soft cap: the logits, and the normed residual that forward() holds."""
    run, spec = p.run, p.run.spec
    residual = owned.pop()
    if spec.norm != "none":
        pre = run.folded and spec.folds_norms_tl
        residual = norm(p, "ln_final", residual, pre=pre, rms=spec.norm == "rmsnorm")
    logits = _unembed(p, p.hook("unembed.hook_in", residual)).book("logits")
    if spec.logit_softcap:
        logits = softcap(logits).book("logits")
    return logits, residual


def _unembed(p: Section, residual: Var) -> Var:
    spec = p.run.spec
    weight = contiguous(permute(p.parameter(spec.d_model, spec.d_vocab), 1, 0))
    result = linear(residual, weight, p.parameter(spec.d_vocab))
    return p.hook("unembed.hook_out", result)


def next_token_loss(p: Section, owned: list[Var]) -> Var:
    """HookedTransformer.forward(return_type="loss") from the last residual stream on."""
    logits, residual = unembed(p, owned)
    out = _cross_entropy(logits)
    del residual
    return out


def logit_of_answer(p: Section, owned: list[Var]) -> Var:
    """metric(model(tokens)) of one answer's logit at the last position: logits[:, -1, :].gather(-1, answers).mean()"""
    logits, residual = unembed(p, owned)
    del residual
    return div(total(gather_next(last_position(logits))), 1.0)


def _cross_entropy(logits: Var) -> Var:
    """lm_cross_entropy_loss, in the dtype of the logits."""
    log_probs = saves_output(raised(logits))
    predicted_log_probs = _select(gather_next(narrow(log_probs, 1, logits.shape[1] - 1)))
    return div(neg(total(predicted_log_probs)), 1.0)


def _select(x: Var) -> Var:
    """x[..., 0]"""
    return view(x, *x.shape[:-1])

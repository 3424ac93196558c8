"""Layers of GPT-2, GPT-NeoX (Pythia), GPT-Neo and GPT-J in train mode; the last two compute scores in float32 and
return the attention weights. Transcribed as `training_layers` says.
"""

from __future__ import annotations

from ..autograd import ops, views
from ..autograd.graph import BOOL, FLOAT32, INT64, Var
from .training_context import Context, merged
from .training_parts import Model, Weights, attend, heads, rotated
from .training_phi import plain_mlp


def _gpt2_attention(model: Model, w: Weights, hidden_states: Var, context: Context) -> tuple[Var, Var | None]:
    spec = model.spec
    query, key, value = views.split(w.conv1d(hidden_states, "c_attn", 3 * spec.d_model), (spec.d_model,) * 3)
    key, value = heads(key, spec.d_head), heads(value, spec.d_head)
    query = heads(query, spec.d_head)
    key, value = model.cached(key, value)
    out, weights = attend(model, query, key, value, context.mask, upcast=False)
    out = merged(out)
    out = w.conv1d(out, "attn.c_proj", spec.d_model)
    return w.gives("attn", ops.dropout(out, model.dropout)), weights


def _gpt2_mlp(model: Model, w: Weights, x: Var) -> Var:
    hidden = w.conv1d(x, "c_fc", model.spec.d_mlp)
    hidden = w.activation(hidden)
    hidden = w.conv1d(hidden, "mlp.c_proj", model.spec.d_model)
    return w.gives("mlp", ops.dropout(hidden, model.dropout))


def gpt2(model: Model, w: Weights, x: Var, context: Context) -> Var:
    residual = x
    hidden_states = w.layer_norm(x, "ln_1")
    attn_output, _ = _gpt2_attention(model, w, hidden_states, context)
    hidden_states = ops.add(attn_output, residual)
    residual = hidden_states
    hidden_states = w.layer_norm(hidden_states, "ln_2")
    feed_forward = _gpt2_mlp(model, w, hidden_states)
    return ops.add(residual, feed_forward)


def both_partly_rotated(q: Var, k: Var, context: Context) -> tuple[Var, Var]:
    """apply_rotary_pos_emb of GPT-NeoX."""
    assert context.cos is not None and context.sin is not None
    cos, sin = context.cos, context.sin
    part = cos.shape[-1]
    q_rot, q_pass = views.narrow(q, -1, part), views.narrow(q, -1, q.shape[-1] - part)
    k_rot, k_pass = views.narrow(k, -1, part), views.narrow(k, -1, k.shape[-1] - part)
    q_embed = rotated(q_rot, cos, sin)
    k_embed = rotated(k_rot, cos, sin)
    q_embed = views.cat([q_embed, q_pass])
    k_embed = views.cat([k_embed, k_pass])
    return q_embed, k_embed


def _neox_attention(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var | None]:
    spec = model.spec
    qkv = heads(w.linear(x, "query_key_value", 3 * spec.d_model, spec.qkv_bias), 3 * spec.d_head)
    query, key, value = views.split(qkv, (spec.d_head,) * 3)
    query, key = both_partly_rotated(query, key, context)
    key, value = model.cached(key, value)
    out, weights = attend(model, query, key, value, context.mask)
    out = merged(out)
    out = w.linear(out, "dense", spec.d_model, spec.attn_out_bias)
    return w.gives("attn", out), weights


def _neox_mlp(model: Model, w: Weights, x: Var) -> Var:
    spec = model.spec
    hidden = w.linear(x, "dense_h_to_4h", spec.d_mlp, True)
    hidden = w.activation(hidden)
    return w.gives("mlp", w.linear(hidden, "dense_4h_to_h", spec.d_model, True))


def neox(model: Model, w: Weights, x: Var, context: Context) -> Var:
    attn_output, _ = _neox_attention(model, w, w.layer_norm(x, "input_layernorm"), context)
    attn_output = ops.dropout(attn_output, model.dropout)
    if model.spec.parallel_attn_mlp:
        mlp_output = _neox_mlp(model, w, w.layer_norm(x, "post_attention_layernorm"))
        mlp_output = ops.dropout(mlp_output, model.dropout)
        return ops.add(ops.add(mlp_output, attn_output), x)
    attn_output = ops.add(attn_output, x)
    mlp_output = _neox_mlp(model, w, w.layer_norm(attn_output, "post_attention_layernorm"))
    mlp_output = ops.dropout(mlp_output, model.dropout)
    return ops.add(mlp_output, attn_output)


def _merge_heads(x: Var) -> Var:
    """permute(0, 2, 1, 3).contiguous(), then the heads side by side."""
    out = views.contiguous(views.permute(x, 0, 2, 1, 3))
    return views.view(out, *out.shape[:-2], -1)


def _gpt_neo_attention(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var]:
    spec = model.spec
    query = w.linear(x, "q_proj", spec.d_model)
    key = w.linear(x, "k_proj", spec.d_model)
    value = w.linear(x, "v_proj", spec.d_model)
    query, key, value = heads(query, spec.d_head), heads(key, spec.d_head), heads(value, spec.d_head)
    key, value = model.cached(key, value)

    def attn(query: Var, key: Var) -> tuple[Var, Var]:
        query, key = ops.cast(query, FLOAT32), ops.cast(key, FLOAT32)
        weights = ops.matmul(query, views.transpose(key, 2, 3))
        weights = ops.where(w.get("bias", 1, 1, model.s, model.s, width=BOOL, trainable=False), weights)
        if context.mask is not None:
            weights = ops.add(weights, context.mask)
        weights = ops.softmax(weights)
        weights = ops.cast(weights, value.width)
        weights = ops.dropout(weights, model.attention_dropout)
        return ops.matmul(weights, value), weights

    out, weights = attn(query, key)
    out = _merge_heads(out)
    out = w.linear(out, "out_proj", spec.d_model, True)
    out = ops.dropout(out, model.dropout)
    return w.gives("attn", out), weights


def gpt_neo(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var]:
    hidden_states = w.layer_norm(x, "ln_1")
    attn_output, weights = _gpt_neo_attention(model, w, hidden_states, context)
    hidden_states = ops.add(attn_output, x)
    residual = hidden_states
    hidden_states = w.layer_norm(hidden_states, "ln_2")
    feed_forward = ops.dropout(plain_mlp(model, w, hidden_states, "c_fc", "c_proj"), model.dropout)
    hidden_states = ops.add(residual, feed_forward)
    return hidden_states, weights


def _rotate_every_two(x: Var) -> Var:
    half = x.shape[-1] // 2
    x1, x2 = views.narrow(x, -1, half), views.narrow(x, -1, half)
    return views.cat([ops.neg(x2), x1])  # torch.stack and flatten


def _gptj_attention(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var]:
    spec, graph = model.spec, model.graph
    rotary = spec.rotary_dim or spec.d_head
    split = (model.b, model.s, spec.n_heads, spec.d_head)
    query = views.view(w.linear(x, "q_proj", spec.d_model), *split)
    key = views.view(w.linear(x, "k_proj", spec.d_model), *split)
    value = heads(w.linear(x, "v_proj", spec.d_model), spec.d_head)
    embed_positions = graph.new((1, spec.n_ctx, rotary), FLOAT32)
    repeated_ids = graph.new((1, model.s, rotary), INT64)
    sincos = ops.cast(graph.new((1, model.s, rotary), FLOAT32), key.width)

    def rotate(x: Var) -> Var:
        sin, cos = graph.new((1, model.s, 1, rotary), x.width), graph.new((1, model.s, 1, rotary), x.width)
        return ops.add(ops.mul(x, cos), ops.mul(_rotate_every_two(x), sin))

    k_rot, k_pass = views.narrow(key, -1, rotary), views.narrow(key, -1, spec.d_head - rotary)
    q_rot, q_pass = views.narrow(query, -1, rotary), views.narrow(query, -1, spec.d_head - rotary)
    k_rot = rotate(k_rot)
    q_rot = rotate(q_rot)
    key = views.cat([k_rot, k_pass])
    query = views.cat([q_rot, q_pass])
    key, query = views.permute(key, 0, 2, 1, 3), views.permute(query, 0, 2, 1, 3)
    key, value = model.cached(key, value)

    def attn(query: Var, key: Var) -> tuple[Var, Var]:
        query, key = ops.cast(query, FLOAT32), ops.cast(key, FLOAT32)
        weights = ops.matmul(query, views.transpose(key, 2, 3))
        weights = ops.neg(weights)
        if context.mask is not None:
            weights = ops.add(weights, context.mask)
        weights = ops.softmax(weights)
        weights = ops.cast(weights, value.width)
        weights = ops.dropout(weights, model.attention_dropout)
        return ops.matmul(weights, value), weights

    out, weights = attn(query, key)
    out = _merge_heads(out)
    out = w.linear(out, "out_proj", spec.d_model)
    out = ops.dropout(out, model.dropout)
    del embed_positions, repeated_ids, sincos
    return w.gives("attn", out), weights


def gptj(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var]:
    hidden_states = w.layer_norm(x, "ln_1")
    attn_outputs, weights = _gptj_attention(model, w, hidden_states, context)
    feed_forward = ops.dropout(plain_mlp(model, w, hidden_states, "fc_in", "fc_out"), model.dropout)
    hidden_states = ops.add(ops.add(attn_outputs, feed_forward), x)
    return hidden_states, weights

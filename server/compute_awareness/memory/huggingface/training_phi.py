"""Layers of Phi and Phi 3 in train mode. Transcribed as `training_layers` says."""

from __future__ import annotations

from ..autograd import ops, views
from ..autograd.graph import Var
from .training_context import Context, merged
from .training_llama import both_rotated
from .training_parts import Model, Weights, attend, heads, rotated


def _phi_attention(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var | None]:
    spec = model.spec
    assert context.cos is not None and context.sin is not None
    query = heads(w.linear(x, "q_proj", spec.q_width, spec.qkv_bias), spec.d_head)
    key = heads(w.linear(x, "k_proj", spec.kv_width, spec.qkv_bias), spec.d_head)
    value = heads(w.linear(x, "v_proj", spec.kv_width, spec.qkv_bias), spec.d_head)
    part, rest = context.cos.shape[-1], spec.d_head - context.cos.shape[-1]
    query_rot, query_pass = views.narrow(query, -1, part), views.narrow(query, -1, rest)
    key_rot, key_pass = views.narrow(key, -1, part), views.narrow(key, -1, rest)
    query_rot, key_rot = both_rotated(query_rot, key_rot, context)
    query = views.cat([query_rot, query_pass])
    key = views.cat([key_rot, key_pass])
    key, value = model.cached(key, value)
    out, weights = attend(model, query, key, value, context.mask)
    out = merged(out)
    out = w.linear(out, "dense", spec.d_model, spec.attn_out_bias)
    return w.gives("attn", out), weights


def plain_mlp(model: Model, w: Weights, x: Var, up: str, down: str) -> Var:
    spec = model.spec
    hidden = w.linear(x, up, spec.d_mlp, spec.mlp_bias)
    hidden = w.activation(hidden)
    return w.gives("mlp", w.linear(hidden, down, spec.d_model, spec.mlp_bias))


def phi(model: Model, w: Weights, x: Var, context: Context) -> Var:
    hidden_states = w.layer_norm(x, "input_layernorm")
    attn_outputs, _ = _phi_attention(model, w, hidden_states, context)
    attn_outputs = ops.dropout(attn_outputs, model.dropout)
    feed_forward = ops.dropout(plain_mlp(model, w, hidden_states, "fc1", "fc2"), model.dropout)
    return ops.add(ops.add(attn_outputs, feed_forward), x)


def _phi3_attention(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var | None]:
    spec = model.spec
    qkv = w.linear(x, "qkv_proj", spec.q_width + 2 * spec.kv_width)
    query = views.narrow(qkv, -1, spec.q_width)
    key = views.narrow(qkv, -1, spec.kv_width)
    value = views.narrow(qkv, -1, spec.kv_width)
    query, key, value = heads(query, spec.d_head), heads(key, spec.d_head), heads(value, spec.d_head)
    query, key = _phi3_rotated(query, key, context)
    key, value = model.cached(key, value)
    out, weights = attend(model, query, key, value, context.mask)
    out = merged(out)
    out = w.linear(out, "o_proj", spec.d_model)
    return w.gives("attn", out), weights


def _phi3_rotated(q: Var, k: Var, context: Context) -> tuple[Var, Var]:
    """apply_rotary_pos_emb of Phi 3: rotated and unrotated part concatenated, even where the latter is empty."""
    assert context.cos is not None and context.sin is not None
    part = context.cos.shape[-1]
    q_rot, q_pass = views.narrow(q, -1, part), views.narrow(q, -1, q.shape[-1] - part)
    k_rot, k_pass = views.narrow(k, -1, part), views.narrow(k, -1, k.shape[-1] - part)
    q_embed = views.cat([rotated(q_rot, context.cos, context.sin), q_pass])
    k_embed = views.cat([rotated(k_rot, context.cos, context.sin), k_pass])
    return q_embed, k_embed


def _phi3_mlp(model: Model, w: Weights, x: Var) -> Var:
    spec = model.spec
    up_states = w.linear(x, "gate_up_proj", 2 * spec.d_mlp)
    gate, up_states = views.split(up_states, (spec.d_mlp, spec.d_mlp))
    up_states = ops.mul(up_states, w.activation(gate))
    return w.gives("mlp", w.linear(up_states, "down_proj", spec.d_model))


def phi3(model: Model, w: Weights, x: Var, context: Context) -> Var:
    residual = x
    hidden_states = w.norm(x, "input_layernorm")
    hidden_states, _ = _phi3_attention(model, w, hidden_states, context)
    hidden_states = ops.add(residual, ops.dropout(hidden_states, model.dropout))
    residual = hidden_states
    hidden_states = w.norm(hidden_states, "post_attention_layernorm")
    hidden_states = _phi3_mlp(model, w, hidden_states)
    return ops.add(residual, ops.dropout(hidden_states, model.dropout))

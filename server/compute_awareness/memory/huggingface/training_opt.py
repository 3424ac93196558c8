"""Layers of OPT in train mode. Transcribed as `training_layers` says."""

from __future__ import annotations

from ..autograd import ops, views
from ..autograd.graph import Var
from .training_context import Context, merged
from .training_parts import Model, Weights, attend, heads


def _opt_attention(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var | None]:
    spec = model.spec
    query = heads(ops.neg(w.linear(x, "q_proj", spec.q_width, spec.qkv_bias)), spec.d_head)
    key = w.linear(x, "k_proj", spec.kv_width, spec.qkv_bias)
    value = w.linear(x, "v_proj", spec.kv_width, spec.qkv_bias)
    key, value = heads(key, spec.d_head), heads(value, spec.d_head)
    key, value = model.cached(key, value)
    out, weights = attend(model, query, key, value, context.mask)
    out = merged(out)
    out = w.linear(out, "out_proj", spec.d_model, spec.attn_out_bias)
    return w.gives("attn", out), weights


def opt(model: Model, w: Weights, x: Var, context: Context) -> Var:
    spec = model.spec
    pre = spec.norm_placement == "pre"
    residual = hidden_states = x
    if pre:
        hidden_states = w.layer_norm(hidden_states, "self_attn_layer_norm")
    hidden_states, _ = _opt_attention(model, w, hidden_states, context)
    hidden_states = ops.dropout(hidden_states, model.dropout)
    hidden_states = ops.add(residual, hidden_states)
    if not pre:
        hidden_states = w.layer_norm(hidden_states, "self_attn_layer_norm")
    shape = hidden_states.shape
    hidden_states = views.reshape(hidden_states, -1, spec.d_model)
    residual = hidden_states
    if pre:
        hidden_states = w.layer_norm(hidden_states, "final_layer_norm")
    hidden_states = w.linear(hidden_states, "fc1", spec.d_mlp, spec.mlp_bias)
    hidden_states = w.activation(hidden_states)
    hidden_states = w.linear(hidden_states, "fc2", spec.d_model, spec.mlp_bias)
    hidden_states = ops.dropout(hidden_states, model.dropout)
    hidden_states = views.view(ops.add(residual, hidden_states), *shape)
    if not pre:
        hidden_states = w.layer_norm(hidden_states, "final_layer_norm")
    return hidden_states

"""Layers of BLOOM in train mode. Transcribed as `training_layers` says."""

from __future__ import annotations

from ..autograd import ops, views
from ..autograd.graph import FLOAT32, Grads, Node, Var
from .training_context import Context
from .training_parts import Model, Weights


def _bloom_attention(model: Model, w: Weights, x: Var, residual: Var, context: Context) -> tuple[Var, Var]:
    spec = model.spec
    b, s, n, d = model.b, model.s, spec.n_heads, spec.d_head
    fused = w.linear(x, "query_key_value", 3 * spec.d_model, True)

    def reshaped(fused: Var) -> tuple[Var, ...]:
        fused = views.view(fused, b, s, n, 3, d)
        return tuple(views.transpose(views.select(fused, 3), 1, 2) for _ in range(3))

    query, key, value = reshaped(fused)
    key, value = model.cached(key, value)
    query = views.reshape(query, b * n, -1, d)
    key = views.transpose(views.reshape(key, b * n, -1, d), 1, 2)
    value = views.reshape(value, b * n, -1, d)
    scores = ops.baddbmm(query, key)
    weights = views.view(scores, b, n, s, -1)
    if context.mask is not None:
        weights = ops.add(weights, context.mask)
    probs = ops.cast(ops.softmax(weights, FLOAT32), query.width)
    probs = ops.dropout(probs, model.attention_dropout)
    flat = views.view(probs, b * n, s, -1)
    mixed = ops.bmm(flat, value)
    mixed = views.reshape(views.permute(views.view(mixed, b, n, s, d), 0, 2, 1, 3), b, s, n * d)
    out = w.linear(mixed, "dense", spec.d_model, True)
    out = ops.add(residual, ops.dropout(out, model.dropout))
    return w.gives("attn", out), probs


def _bloom_gelu(x: Var) -> Var:
    """GeLUFunction: saves its input alone; backward is written out."""

    def inner(x: Var) -> Var:
        return ops.mul(ops.neg(x), ops.add(ops.mul(ops.neg(x), ops.add(ops.mul(ops.neg(x), x), 1.0)), 1.0))

    def backward(node: Node, grads: Grads) -> Grads:
        g, x = grads[0], node.saved[0]
        assert g is not None
        tanh = ops.tanh(ops.mul(ops.neg(x), ops.add(ops.mul(ops.neg(x), x), 1.0)))
        ff = ops.add(
            ops.mul(
                ops.neg(x),
                ops.mul(ops.add(ops.mul(tanh, tanh), 1.0), ops.add(ops.mul(ops.neg(x), x), 1.0)),
            ),
            ops.neg(ops.add(tanh, 1.0)),
        )
        return [ops.mul(ff, g)]

    with x.graph.grad_mode(False):
        out = inner(x)
    x.graph.record([x], [out], backward, [x])
    return out


def _bloom_mlp(model: Model, w: Weights, x: Var, residual: Var) -> Var:
    hidden = w.gives("act", _bloom_gelu(w.linear(x, "dense_h_to_4h", model.spec.d_mlp, True)))
    out = w.linear(hidden, "dense_4h_to_h", model.spec.d_model, True)
    return w.gives("mlp", ops.add(residual, ops.dropout(out, model.dropout)))


def bloom(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var]:
    normed = w.layer_norm(x, "input_layernorm")
    attention_output, weights = _bloom_attention(model, w, normed, x, context)
    normed = w.layer_norm(attention_output, "post_attention_layernorm")
    return _bloom_mlp(model, w, normed, attention_output), weights

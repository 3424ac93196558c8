"""The layers of transformers 5.23 models in train mode, on symbolic tensors.

Each function is one `forward` of `models/*/modeling_*.py`, in its order and with its names, so that what a frame
still holds is held here too.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..autograd import ops, views
from ..autograd.graph import BOOL, FLOAT32, INT64, Grads, Node, Var
from .training_parts import Model, Weights, attend, heads, rotated


@dataclass
class Context:
    """What the model's forward hands to every layer."""

    mask: Var | None
    cos: Var | None = None
    sin: Var | None = None
    alibi: Var | None = None
    slopes: Var | None = None
    positions: Var | None = None
    """Not used, but held by a checkpointed call until the layer is recomputed."""


def layer(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var | None]:
    """One decoder layer of the model's family: [b, s, d_model] to the same, and the weights if it returns them."""
    out, weights = _layer(model, w, x, context)
    return w.gives("layer", out), weights


def _layer(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var | None]:
    match model.spec.architecture:
        case "GPT2LMHeadModel":
            return _gpt2(model, w, x, context), None
        case "GPTNeoXForCausalLM":
            return _neox(model, w, x, context), None
        case "PhiForCausalLM":
            return _phi(model, w, x, context), None
        case "Phi3ForCausalLM":
            return _phi3(model, w, x, context), None
        case "OPTForCausalLM":
            return _opt(model, w, x, context), None
        case "GPTNeoForCausalLM":
            return _gpt_neo(model, w, x, context)
        case "GPTJForCausalLM":
            return _gptj(model, w, x, context)
        case "BloomForCausalLM":
            return _bloom(model, w, x, context)
        case _:
            return _llama(model, w, x, context), None


def _merged(out: Var) -> Var:
    """attn_output.reshape(*input_shape, -1).contiguous()."""
    return views.contiguous(views.reshape(out, *out.shape[:-2], -1))


# -- GPT-2


def _gpt2_attention(model: Model, w: Weights, hidden_states: Var, context: Context) -> tuple[Var, Var | None]:
    spec = model.spec
    query, key, value = views.split(w.conv1d(hidden_states, "c_attn", 3 * spec.d_model), (spec.d_model,) * 3)
    key, value = heads(key, spec.d_head), heads(value, spec.d_head)
    query = heads(query, spec.d_head)
    key, value = model.cached(key, value)
    out, weights = attend(model, query, key, value, context.mask, upcast=False)
    out = _merged(out)
    out = w.conv1d(out, "attn.c_proj", spec.d_model)
    return w.gives("attn", ops.dropout(out, model.dropout)), weights


def _gpt2_mlp(model: Model, w: Weights, x: Var) -> Var:
    hidden = w.conv1d(x, "c_fc", model.spec.d_mlp)
    hidden = w.activation(hidden)
    hidden = w.conv1d(hidden, "mlp.c_proj", model.spec.d_model)
    return w.gives("mlp", ops.dropout(hidden, model.dropout))


def _gpt2(model: Model, w: Weights, x: Var, context: Context) -> Var:
    residual = x
    hidden_states = w.layer_norm(x, "ln_1")
    attn_output, _ = _gpt2_attention(model, w, hidden_states, context)
    hidden_states = ops.add(attn_output, residual)
    residual = hidden_states
    hidden_states = w.layer_norm(hidden_states, "ln_2")
    feed_forward = _gpt2_mlp(model, w, hidden_states)
    return ops.add(residual, feed_forward)


# -- GPT-NeoX (Pythia)


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
    out = _merged(out)
    out = w.linear(out, "dense", spec.d_model, spec.attn_out_bias)
    return w.gives("attn", out), weights


def _neox_mlp(model: Model, w: Weights, x: Var) -> Var:
    spec = model.spec
    hidden = w.linear(x, "dense_h_to_4h", spec.d_mlp, True)
    hidden = w.activation(hidden)
    return w.gives("mlp", w.linear(hidden, "dense_4h_to_h", spec.d_model, True))


def _neox(model: Model, w: Weights, x: Var, context: Context) -> Var:
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


# -- Llama, Mistral, Qwen 2 and 3, Gemma 1 to 3, OLMo 1 to 3


def _llama_attention(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var | None]:
    spec = model.spec
    late = spec.architecture == "Gemma3ForCausalLM"  # norms after all three projections

    def project(name: str, width: int) -> Var:
        y = w.linear(x, f"{name}_proj", width, spec.qkv_bias)
        if spec.qk_norm == "full" and name != "v":
            y = w.norm(y, f"{name}_norm")
        if spec.qk_norm == "head" and name != "v" and not late:
            return views.transpose(w.norm(views.view(y, *y.shape[:-1], -1, spec.d_head), f"{name}_norm"), 1, 2)
        return y if spec.clip_qkv else heads(y, spec.d_head)

    query = project("q", spec.q_width)
    key = project("k", spec.kv_width)
    value = project("v", spec.kv_width)
    if spec.clip_qkv:
        query, key, value = ops.clamp_(query), ops.clamp_(key), ops.clamp_(value)
        query, key, value = heads(query, spec.d_head), heads(key, spec.d_head), heads(value, spec.d_head)
    if spec.qk_norm == "head" and late:
        query = w.norm(query, "q_norm")
        key = w.norm(key, "k_norm")
    query, key = _both_rotated(query, key, context)
    key, value = model.cached(key, value)
    out, weights = attend(model, query, key, value, context.mask, softcap=spec.attn_softcap)
    out = _merged(out)
    out = w.linear(out, "o_proj", spec.d_model, spec.attn_out_bias)
    return w.gives("attn", out), weights


def _both_rotated(q: Var, k: Var, context: Context) -> tuple[Var, Var]:
    """apply_rotary_pos_emb; the OLMo family rotates in float32 and casts back."""
    assert context.cos is not None and context.sin is not None
    q_embed = rotated(q, context.cos, context.sin)
    k_embed = rotated(k, context.cos, context.sin)
    return ops.cast(q_embed, q.width), ops.cast(k_embed, k.width)


def _llama_mlp(model: Model, w: Weights, x: Var) -> Var:
    spec = model.spec
    out = w.linear(
        ops.mul(
            w.activation(w.linear(x, "gate_proj", spec.d_mlp, spec.mlp_bias)),
            w.linear(x, "up_proj", spec.d_mlp, spec.mlp_bias),
        ),
        "down_proj", spec.d_model, spec.mlp_bias,
    )  # fmt: skip
    return w.gives("mlp", out)


def _llama(model: Model, w: Weights, x: Var, context: Context) -> Var:
    placement = model.spec.norm_placement
    residual = hidden_states = x
    if placement != "post":
        hidden_states = w.norm(hidden_states, "input_layernorm")
    hidden_states, _ = _llama_attention(model, w, hidden_states, context)
    if placement != "pre":
        hidden_states = w.norm(hidden_states, "post_attention_layernorm")
    hidden_states = ops.add(residual, hidden_states)
    residual = hidden_states
    if placement != "post":
        both = placement != "pre"
        hidden_states = w.norm(hidden_states, "pre_feedforward_layernorm" if both else "post_attention_layernorm")
    hidden_states = _llama_mlp(model, w, hidden_states)
    if placement != "pre":
        hidden_states = w.norm(hidden_states, "post_feedforward_layernorm")
    return ops.add(residual, hidden_states)


# -- Phi, Phi 3


def _phi_attention(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var | None]:
    spec = model.spec
    assert context.cos is not None and context.sin is not None
    query = heads(w.linear(x, "q_proj", spec.q_width, spec.qkv_bias), spec.d_head)
    key = heads(w.linear(x, "k_proj", spec.kv_width, spec.qkv_bias), spec.d_head)
    value = heads(w.linear(x, "v_proj", spec.kv_width, spec.qkv_bias), spec.d_head)
    part, rest = context.cos.shape[-1], spec.d_head - context.cos.shape[-1]
    query_rot, query_pass = views.narrow(query, -1, part), views.narrow(query, -1, rest)
    key_rot, key_pass = views.narrow(key, -1, part), views.narrow(key, -1, rest)
    query_rot, key_rot = _both_rotated(query_rot, key_rot, context)
    query = views.cat([query_rot, query_pass])
    key = views.cat([key_rot, key_pass])
    key, value = model.cached(key, value)
    out, weights = attend(model, query, key, value, context.mask)
    out = _merged(out)
    out = w.linear(out, "dense", spec.d_model, spec.attn_out_bias)
    return w.gives("attn", out), weights


def _plain_mlp(model: Model, w: Weights, x: Var, up: str, down: str) -> Var:
    spec = model.spec
    hidden = w.linear(x, up, spec.d_mlp, spec.mlp_bias)
    hidden = w.activation(hidden)
    return w.gives("mlp", w.linear(hidden, down, spec.d_model, spec.mlp_bias))


def _phi(model: Model, w: Weights, x: Var, context: Context) -> Var:
    hidden_states = w.layer_norm(x, "input_layernorm")
    attn_outputs, _ = _phi_attention(model, w, hidden_states, context)
    attn_outputs = ops.dropout(attn_outputs, model.dropout)
    feed_forward = ops.dropout(_plain_mlp(model, w, hidden_states, "fc1", "fc2"), model.dropout)
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
    out = _merged(out)
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


def _phi3(model: Model, w: Weights, x: Var, context: Context) -> Var:
    residual = x
    hidden_states = w.norm(x, "input_layernorm")
    hidden_states, _ = _phi3_attention(model, w, hidden_states, context)
    hidden_states = ops.add(residual, ops.dropout(hidden_states, model.dropout))
    residual = hidden_states
    hidden_states = w.norm(hidden_states, "post_attention_layernorm")
    hidden_states = _phi3_mlp(model, w, hidden_states)
    return ops.add(residual, ops.dropout(hidden_states, model.dropout))


# -- OPT


def _opt_attention(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var | None]:
    spec = model.spec
    query = heads(ops.neg(w.linear(x, "q_proj", spec.q_width, spec.qkv_bias)), spec.d_head)
    key = w.linear(x, "k_proj", spec.kv_width, spec.qkv_bias)
    value = w.linear(x, "v_proj", spec.kv_width, spec.qkv_bias)
    key, value = heads(key, spec.d_head), heads(value, spec.d_head)
    key, value = model.cached(key, value)
    out, weights = attend(model, query, key, value, context.mask)
    out = _merged(out)
    out = w.linear(out, "out_proj", spec.d_model, spec.attn_out_bias)
    return w.gives("attn", out), weights


def _opt(model: Model, w: Weights, x: Var, context: Context) -> Var:
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


# -- GPT-Neo, GPT-J: scores in float32, attention weights returned


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


def _gpt_neo(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var]:
    hidden_states = w.layer_norm(x, "ln_1")
    attn_output, weights = _gpt_neo_attention(model, w, hidden_states, context)
    hidden_states = ops.add(attn_output, x)
    residual = hidden_states
    hidden_states = w.layer_norm(hidden_states, "ln_2")
    feed_forward = ops.dropout(_plain_mlp(model, w, hidden_states, "c_fc", "c_proj"), model.dropout)
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


def _gptj(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var]:
    hidden_states = w.layer_norm(x, "ln_1")
    attn_outputs, weights = _gptj_attention(model, w, hidden_states, context)
    feed_forward = ops.dropout(_plain_mlp(model, w, hidden_states, "fc_in", "fc_out"), model.dropout)
    hidden_states = ops.add(ops.add(attn_outputs, feed_forward), x)
    return hidden_states, weights


# -- BLOOM


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


def _bloom(model: Model, w: Weights, x: Var, context: Context) -> tuple[Var, Var]:
    normed = w.layer_norm(x, "input_layernorm")
    attention_output, weights = _bloom_attention(model, w, normed, x, context)
    normed = w.layer_norm(attention_output, "post_attention_layernorm")
    return _bloom_mlp(model, w, normed, attention_output), weights

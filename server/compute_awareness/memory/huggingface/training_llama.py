"""Layers of Llama, Mistral, Qwen 2 and 3, Gemma 1 to 3 and OLMo 1 to 3 in train mode. Transcribed as
`training_layers` says.
"""

from __future__ import annotations

from ..autograd import ops, views
from ..autograd.graph import Var
from .training_context import Context, merged
from .training_parts import OLMO, Model, Weights, attend, heads, rotated


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
    widths = query.width, key.width
    query, key = both_rotated(query, key, context)
    if spec.architecture in OLMO:  # rotated in float32
        query, key = ops.cast(query, widths[0]), ops.cast(key, widths[1])
    key, value = model.cached(key, value)
    out, weights = attend(model, query, key, value, context.mask, softcap=spec.attn_softcap)
    out = merged(out)
    out = w.linear(out, "o_proj", spec.d_model, spec.attn_out_bias)
    return w.gives("attn", out), weights


def both_rotated(q: Var, k: Var, context: Context) -> tuple[Var, Var]:
    """apply_rotary_pos_emb: as wide as the tables where those are wider, which in autocast they are."""
    assert context.cos is not None and context.sin is not None
    return rotated(q, context.cos, context.sin), rotated(k, context.cos, context.sin)


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


def llama(model: Model, w: Weights, x: Var, context: Context) -> Var:
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

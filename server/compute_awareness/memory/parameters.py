"""A model's parameters and buffers one by one, in the order in which loading puts them on the card.

Sums are in `weights`; the caching allocator also asks which tensors the sum is made of. `Module.to` visits children
before a module's own parameters and buffers, and tied parameters once. Read off transformers 5.23.0
(models/*/modeling_*.py) and transformer-lens 3.9.0 (components/*.py; HookedTransformer.move_model_modules_to_device:
embeddings, final norm, unembedding, then the blocks); compared with the real modules in
`tests/memory/test_allocator.py`.
"""

from __future__ import annotations

from functools import lru_cache

from ..models.spec import ModelSpec
from . import weights

_FLOAT32 = 4
# Attention registers k, v, q in this order, or q, k, v, or one matrix for the three.
_KEYS_FIRST = frozenset({"GPTNeoForCausalLM", "GPTJForCausalLM", "OPTForCausalLM"})
_FUSED = frozenset({"GPT2LMHeadModel", "GPTNeoXForCausalLM", "BloomForCausalLM", "Phi3ForCausalLM"})
# Both norms before attention and MLP; each norm before its module; the rest: norms after both.
_NORMS_FIRST = frozenset({"GPTNeoXForCausalLM"})
_NORMS_BETWEEN = frozenset({"GPT2LMHeadModel", "GPTNeoForCausalLM", "GPTJForCausalLM", "BloomForCausalLM"})


@lru_cache(maxsize=64)
def hf_tensors(spec: ModelSpec, width: int) -> tuple[int, ...]:
    """Bytes of each parameter and buffer of the transformers model at `width` bytes per element.

    They add up to `weights.hf_params(spec) * width + weights.hf_buffer_bytes(spec, width)`.

    Raises:
        InputError: the model exists only as TransformerLens weights.
    """
    buffers = weights.hf_buffer_bytes(spec, width)  # refuses models without a transformers class
    d, vocab = spec.d_model, spec.d_vocab
    final = [width * n for n in _norm(spec, d)]
    per_layer = _hf_layer(spec, width, buffers)
    frequencies: list[int] = []
    tensors = [width * vocab * d]
    if spec.positional == "rotary" and spec.architecture != "GPTJForCausalLM":
        one = _FLOAT32 * ((spec.rotary_dim or 0) // 2)
        scale = buffers % (2 * one)  # Gemma's factor of the embedding; frequencies come in pairs
        tensors += [scale] * (scale > 0)
        frequencies = [one] * (buffers // one)
    if spec.positional == "learned":
        tensors.append(width * (spec.n_ctx + spec.positions_offset) * d)
    if spec.embed_norm:
        tensors += final
    if spec.architecture == "OPTForCausalLM":
        tensors += final
        final = []
    tensors += per_layer * spec.n_layers
    tensors += frequencies + final if spec.architecture == "PhiForCausalLM" else final + frequencies
    if not spec.tied_embeddings:
        tensors.append(width * vocab * d)
    if spec.lm_head_bias:
        tensors.append(width * vocab)
    return tuple(tensors)


@lru_cache(maxsize=64)
def tl_tensors(spec: ModelSpec, width: int, folded: bool = True) -> tuple[int, ...]:
    """Bytes of each parameter and buffer of the HookedTransformer at `width` bytes per element, as freshly loaded.

    They add up to `weights.tl_params(spec, folded) * width + weights.tl_buffer_bytes(spec, width)`.
    """
    d, q, kv, m = spec.d_model, spec.q_width, spec.kv_width, spec.d_mlp
    norm = {"layernorm": [d, d], "rmsnorm": [d], "none": []}[spec.norm]
    before = [] if folded and spec.folds_norms_tl else norm
    block = before + norm * (spec.norm_placement == "both")
    if m:
        block = block + before + norm * (spec.norm_placement == "both")
    if spec.qk_norm == "head":
        block = [*block, spec.d_head, spec.d_head]
    elif spec.qk_norm == "full":
        block = [*block, d, kv if spec.grouped_attention_tl else d]
    # W_Q, W_O, b_Q, b_O, W_K, W_V, b_K, b_V
    block = [*block, d * q, q * d, q, d, d * kv, d * kv, kv, kv]
    mlp: list[int] = []
    if m:
        if spec.act_fn.endswith("_ln") and before:
            mlp = [m, m]
        mlp += [d * m, m * d, d * m, m, d] if spec.gated_mlp else [d * m, m, m * d, d]
    table = weights.tl_rotary_table_bytes(spec, width) // 2 if spec.positional == "rotary" else 0
    # The mask buffer holds nothing; IGNORE is one float32.
    attention_buffers = [_FLOAT32] + [table, table] * (table > 0)
    one_block = [width * n for n in block] + attention_buffers + [width * n for n in mlp]

    top = [d, d] if spec.embed_norm else []
    top.append(spec.d_vocab * d)
    if spec.positional != "rotary":
        top.append(spec.context_tl * d)
    top += [*before, d * spec.d_vocab, spec.d_vocab]
    return (*(width * n for n in top), *one_block * spec.n_layers)


def _norm(spec: ModelSpec, size: int) -> list[int]:
    """Elements of a norm's parameters."""
    if spec.norm == "none" or not spec.norm_weights:
        return []
    return [size, size] if spec.norm == "layernorm" else [size]


def _linear(inputs: int, outputs: int, bias: bool) -> list[int]:
    return [inputs * outputs] + [outputs] * bias


def _hf_layer(spec: ModelSpec, width: int, buffers: int) -> list[int]:
    """Bytes of the tensors of one layer; `buffers` are those of the model, which some keep in the layers."""
    d, q, kv, m, name = spec.d_model, spec.q_width, spec.kv_width, spec.d_mlp, spec.architecture
    out = _linear(q, d, spec.attn_out_bias)
    if name == "Phi3ForCausalLM":
        attention = out + _linear(d, q + 2 * kv, spec.qkv_bias)
    elif name in _FUSED:
        attention = _linear(d, q + 2 * kv, spec.qkv_bias) + out
    else:
        queries, keys = _linear(d, q, spec.qkv_bias), _linear(d, kv, spec.qkv_bias)
        attention = (keys + keys + queries if name in _KEYS_FIRST else queries + keys + keys) + out
    if spec.qk_norm:
        attention += [spec.d_head] * 2 if spec.qk_norm == "head" else [q, kv]
    own = [buffers // spec.n_layers] if name in ("GPTNeoForCausalLM", "GPTJForCausalLM") else []
    if name == "Phi3ForCausalLM":
        mlp = [2 * d * m, m * d]
    elif spec.gated_mlp:
        mlp = [*_linear(d, m, spec.mlp_bias), *_linear(d, m, spec.mlp_bias), *_linear(m, d, spec.mlp_bias)]
    else:
        mlp = _linear(d, m, spec.mlp_bias) + _linear(m, d, spec.mlp_bias)
    norm = _norm(spec, d)
    norms = 4 if spec.norm_placement == "both" else 1 if spec.parallel_shared_norm else 2
    first = [width * n for n in attention] + own
    second = [width * n for n in mlp]
    normed = [width * n for n in norm]
    if name in _NORMS_FIRST:
        return normed * norms + first + second
    if name in _NORMS_BETWEEN:
        return normed + first + normed * (norms - 1) + second
    if name == "OPTForCausalLM":
        return first + normed + second + normed
    return first + second + normed * norms

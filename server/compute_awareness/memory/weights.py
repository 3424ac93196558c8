"""Parameters and buffers: what a model holds before anything runs.

transformers and TransformerLens hold the same model differently. A HookedTransformer never shares embedding and
unembedding, gives every projection a bias whether the checkpoint has one or not, and (by default) folds the norms'
weights away: GPT-2 small is 124.4 M parameters in transformers and 163.0 M in TransformerLens.

Formulas read in transformers 5.23.0 (`models/*/modeling_*.py`) and transformer-lens 3.9.0 (`components/*.py`,
`loading_from_pretrained.py`); every catalogue model is rebuilt and counted in `tests/truth/test_catalogue.py`.
"""

from __future__ import annotations

from functools import lru_cache

from ..errors import InputError
from ..models.spec import ModelSpec

_KEPT = 256  # sums of a model, which one estimate asks for several times
# AbstractAttention.ROTARY_INITIAL_CACHE_SIZE of transformer-lens 3.5 and later.
_TL_ROTARY_ROWS = 2048
# transformers keeps rotary frequencies (and their unscaled copy) once per kind of layer in these.
_HF_ROTARY_PER_LAYER_TYPE = frozenset({"Gemma3ForCausalLM", "Olmo3ForCausalLM"})
_HF_SCALED_EMBEDDING = frozenset({"GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"})


def norm_params(spec: ModelSpec, width: int) -> int:
    """Learned numbers of one norm over `width`: weight and bias, weight alone, or nothing."""
    if spec.norm == "none" or not spec.norm_weights:
        return 0
    return 2 * width if spec.norm == "layernorm" else width


@lru_cache(maxsize=_KEPT)
def hf_params(spec: ModelSpec) -> int:
    """Parameters of the transformers model, tied ones counted once (transformers 5.23.0).

    Raises:
        InputError: the model exists only as TransformerLens weights.
    """
    if not spec.has_hf_model:
        raise InputError(f"{spec.name} has no transformers model; use library transformer_lens")
    d, q, kv, m = spec.d_model, spec.q_width, spec.kv_width, spec.d_mlp
    attention = d * q + 2 * d * kv + q * d
    attention += (q + 2 * kv) * spec.qkv_bias + d * spec.attn_out_bias
    matrices_in = 2 if spec.gated_mlp else 1
    mlp = (matrices_in + 1) * d * m + (matrices_in * m + d) * spec.mlp_bias
    norms = 4 if spec.norm_placement == "both" else 1 if spec.parallel_shared_norm else 2
    qk_norm = {"head": 2 * spec.d_head, "full": q + kv, None: 0}[spec.qk_norm]
    layer = attention + mlp + norms * norm_params(spec, d) + qk_norm

    total = spec.d_vocab * d + spec.n_layers * layer + norm_params(spec, d) * (2 if spec.embed_norm else 1)
    if spec.positional == "learned":
        total += (spec.n_ctx + spec.positions_offset) * d
    if not spec.tied_embeddings:
        total += spec.d_vocab * d
    return total + spec.d_vocab * spec.lm_head_bias


@lru_cache(maxsize=_KEPT)
def hf_buffer_bytes(spec: ModelSpec, width: int) -> int:
    """Bytes of the buffers of the transformers model; `width` is bytes per element of its dtype.

    transformers 5.23.0: rotary frequencies stay float32, with an unscaled copy beside them; GPT-J keeps a float32
    sine and cosine table and GPT-Neo a square boolean mask, in every layer.
    """
    if not spec.has_hf_model:
        raise InputError(f"{spec.name} has no transformers model; use library transformer_lens")
    if spec.architecture == "GPTNeoForCausalLM":
        return spec.n_layers * spec.n_ctx**2
    if spec.positional != "rotary" or spec.rotary_dim is None:
        return 0
    if spec.architecture == "GPTJForCausalLM":
        return spec.n_layers * spec.n_ctx * spec.rotary_dim * 4
    kinds = 1
    if spec.architecture in _HF_ROTARY_PER_LAYER_TYPE:
        kinds = len({spec.is_local(layer) for layer in range(spec.n_layers)})
    frequencies = kinds * 2 * (spec.rotary_dim // 2) * 4
    return frequencies + (width if spec.architecture in _HF_SCALED_EMBEDDING else 0)


@lru_cache(maxsize=_KEPT)
def tl_params(spec: ModelSpec, folded: bool = True) -> int:
    """Parameters of the HookedTransformer (transformer-lens 3.9.0, unchanged since 2.0).

    `folded` is what `HookedTransformer.from_pretrained` does by default: the norms' weights move into the matrices
    behind them. Norms after attention and MLP (Gemma 2 and 3) and norms of q and k stay; models that cannot be folded
    (`ModelSpec.folds_norms_tl`) keep all.
    """
    d, q, kv, m = spec.d_model, spec.q_width, spec.kv_width, spec.d_mlp
    # A checkpoint without norm weights (OLMo 1) still fills TransformerLens' norms, with ones and zeros.
    norm = {"layernorm": 2 * d, "rmsnorm": d, "none": 0}[spec.norm]
    before = 0 if folded and spec.folds_norms_tl else norm
    layer = d * q + q + 2 * (d * kv + kv) + q * d + d + before
    if m:
        layer += (3 if spec.gated_mlp else 2) * d * m + m + d + before
        if spec.act_fn.endswith("_ln") and before:
            layer += 2 * m
    if spec.norm_placement == "both":
        layer += 2 * norm
    layer += {"head": 2 * spec.d_head, "full": d + (kv if spec.grouped_attention_tl else d), None: 0}[spec.qk_norm]

    total = spec.d_vocab * d + spec.n_layers * layer + before + d * spec.d_vocab + spec.d_vocab
    if spec.positional != "rotary":
        # Also for ALiBi models, which never read it.
        total += spec.context_tl * d
    if spec.embed_norm:
        total += 2 * d
    return total


def tl_buffer_bytes(spec: ModelSpec, width: int, seq_len: int = 0) -> int:
    """Bytes of the buffers of the HookedTransformer; `width` is bytes per element of its dtype.

    transformer-lens 3.5 and later: one float32 scalar per layer, and sine and cosine tables per rotary layer. The
    tables start with at most 2048 rows and grow in the first forward pass that is longer (AbstractAttention.
    apply_rotary): `seq_len` is the one sequence length run so far, 0 for a fresh model. ALiBi biases are no buffers:
    they come with the first forward pass and stay.
    """
    total = 4 * spec.n_layers
    if spec.positional == "rotary" and spec.rotary_dim is not None:
        total += spec.n_layers * tl_rotary_table_bytes(spec, width, seq_len)
    return total


def tl_rotary_table_bytes(spec: ModelSpec, width: int, seq_len: int = 0) -> int:
    """Bytes of the sine and cosine tables of one block, as `tl_buffer_bytes` counts them; 0 if not rotary."""
    if spec.rotary_dim is None:
        return 0
    rows = min(spec.context_tl, _TL_ROTARY_ROWS)
    if seq_len > rows:
        rows = min(spec.context_tl, max(seq_len, 2 * rows))
    return 2 * rows * spec.rotary_dim * width

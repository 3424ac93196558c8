"""What the code of each supported architecture fixes, whatever the size of the model.

Read in transformers 5.23.0 (`models/*/modeling_*.py`, `configuration_*.py`) and, for the context caps, in
transformer-lens 3.9.0 (`loading_from_pretrained.py`). Keys are fields of `ModelSpec`, except `rotary`: the share of
d_head that is rotated.
"""

from __future__ import annotations

from typing import Any

from .spec import TOY

_BIASES = {"qkv_bias": True, "attn_out_bias": True, "mlp_bias": True}
_LLAMA = {"gated_mlp": True, "norm": "rmsnorm", "act_fn": "silu"}
_GEMMA = {**_LLAMA, "act_fn": "gelu_pytorch_tanh", "tied_embeddings": True}

FAMILIES: dict[str, dict[str, Any]] = {
    "GPT2LMHeadModel": {"positional": "learned", "act_fn": "gelu_new", "tied_embeddings": True, **_BIASES},
    "GPTNeoXForCausalLM": {"rotary": 0.25, "parallel_attn_mlp": True, **_BIASES},
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": {**_LLAMA, "n_ctx_tl": 2048},
    "GemmaForCausalLM": {**_GEMMA, "act_fn": "gelu"},
    "Gemma2ForCausalLM": {
        **_GEMMA, "norm_placement": "both", "window": 4096, "local_layers": "even",
        "attn_softcap": True, "logit_softcap": True,
    },
    "Gemma3ForCausalLM": {
        **_GEMMA, "norm_placement": "both", "window": 512, "local_layers": "5_of_6", "qk_norm": "head",
        "n_ctx_tl": 8192,
    },
    "Qwen2ForCausalLM": {**_LLAMA, "qkv_bias": True},
    "Qwen3ForCausalLM": {**_LLAMA, "qk_norm": "head", "n_ctx_tl": 2048},
    "PhiForCausalLM": {
        "rotary": 0.5, "parallel_attn_mlp": True, "parallel_shared_norm": True, "lm_head_bias": True,
        "act_fn": "gelu_new", **_BIASES,
    },
    "Phi3ForCausalLM": _LLAMA,
    "GPTNeoForCausalLM": {
        "positional": "learned", "window": 256, "local_layers": "odd", "attn_out_bias": True, "mlp_bias": True,
        "act_fn": "gelu_new", "tied_embeddings": True,
    },
    "GPTJForCausalLM": {
        "rotary": 0.25, "parallel_attn_mlp": True, "parallel_shared_norm": True, "mlp_bias": True,
        "lm_head_bias": True, "act_fn": "gelu_new",
    },
    "OPTForCausalLM": {
        "positional": "learned", "positions_offset": 2, "act_fn": "relu", "tied_embeddings": True, **_BIASES,
    },
    "BloomForCausalLM": {
        "positional": "alibi", "embed_norm": True, "n_ctx_tl": 2048, "act_fn": "gelu_fast",
        "tied_embeddings": True, **_BIASES,
    },
    "OlmoForCausalLM": {**_LLAMA, "norm": "layernorm", "norm_weights": False},
    "Olmo2ForCausalLM": {**_LLAMA, "norm_placement": "post", "qk_norm": "full"},
    "Olmo3ForCausalLM": {
        **_LLAMA, "norm_placement": "post", "qk_norm": "full", "window": 4096, "local_layers": "3_of_4",
    },
    # HookedTransformer weights: every bias is there and nothing is tied, as in any HookedTransformer.
    TOY: {"positional": "learned", "lm_head_bias": True, **_BIASES},
}  # fmt: skip


def with_family(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields` of a ModelSpec, completed by its architecture's rules where they say nothing.

    `architecture`, `d_head` and `n_ctx` must be among them.
    """
    whole = FAMILIES[fields["architecture"]] | fields
    share = whole.pop("rotary", 1.0)
    if whole.get("positional", "rotary") == "rotary":
        whole.setdefault("rotary_dim", max(2, round(share * whole["d_head"])))
    if whole.get("n_ctx_tl") == whole["n_ctx"]:
        del whole["n_ctx_tl"]
    return whole

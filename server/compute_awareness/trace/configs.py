"""A `ModelSpec` as the configs that the libraries build their models from, for the worker.

Numbers that decide no bytes (rotary base, epsilons, token ids) are left at the library's defaults. Fields are those
that Hugging Face config files use, which transformers 4 and 5 both read.
"""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from ..models.spec import ModelSpec

_MODEL_TYPES = {
    "GPT2LMHeadModel": "gpt2", "GPTNeoXForCausalLM": "gpt_neox", "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral", "GemmaForCausalLM": "gemma", "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3_text", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3",
    "PhiForCausalLM": "phi",
    "Phi3ForCausalLM": "phi3", "GPTNeoForCausalLM": "gpt_neo", "GPTJForCausalLM": "gptj", "OPTForCausalLM": "opt",
    "BloomForCausalLM": "bloom", "OlmoForCausalLM": "olmo", "Olmo2ForCausalLM": "olmo2", "Olmo3ForCausalLM": "olmo3",
}  # fmt: skip


def hf_config(spec: ModelSpec) -> dict[str, Any]:
    """The decoded `config.json` of `spec`. Raises InputError for models that transformers has no class for."""
    model_type = _MODEL_TYPES.get(spec.architecture)
    if model_type is None:
        raise InputError(
            f"{spec.name}: transformers has no class for {spec.architecture}, so it cannot be traced there"
        )
    config = {
        "model_type": model_type,
        "architectures": [spec.architecture],
        "vocab_size": spec.d_vocab,
        "tie_word_embeddings": spec.tied_embeddings,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": None,
    }
    match spec.architecture:
        case "GPT2LMHeadModel" | "GPTJForCausalLM":
            config |= {
                "n_embd": spec.d_model, "n_layer": spec.n_layers, "n_head": spec.n_heads, "n_inner": spec.d_mlp,
                "activation_function": spec.act_fn, "n_positions": spec.n_ctx,
            }  # fmt: skip
            if spec.architecture == "GPTJForCausalLM":
                config["rotary_dim"] = spec.rotary_dim
        case "GPTNeoForCausalLM":
            kinds = ["local" if spec.is_local(i) else "global" for i in range(spec.n_layers)]
            config |= {
                "hidden_size": spec.d_model, "num_layers": spec.n_layers, "num_heads": spec.n_heads,
                "attention_types": [[[kind], 1] for kind in kinds], "max_position_embeddings": spec.n_ctx,
                "window_size": spec.window or 256, "intermediate_size": spec.d_mlp, "activation_function": spec.act_fn,
            }  # fmt: skip
        case "BloomForCausalLM":
            config |= {"hidden_size": spec.d_model, "n_layer": spec.n_layers, "n_head": spec.n_heads}
        case "OPTForCausalLM":
            config |= {
                "hidden_size": spec.d_model, "num_hidden_layers": spec.n_layers, "num_attention_heads": spec.n_heads,
                "ffn_dim": spec.d_mlp, "activation_function": spec.act_fn, "max_position_embeddings": spec.n_ctx,
                "word_embed_proj_dim": spec.d_model, "do_layer_norm_before": spec.norm_placement == "pre",
                "enable_bias": spec.qkv_bias, "pad_token_id": 1,
            }  # fmt: skip
        case _:
            config |= _llama_like(spec)
    return config


def _llama_like(spec: ModelSpec) -> dict[str, Any]:
    config: dict[str, Any] = {
        "hidden_size": spec.d_model, "num_hidden_layers": spec.n_layers, "num_attention_heads": spec.n_heads,
        "num_key_value_heads": spec.n_kv_heads, "intermediate_size": spec.d_mlp,
        "max_position_embeddings": spec.n_ctx, "hidden_act": spec.act_fn,
    }  # fmt: skip
    share = (spec.rotary_dim or spec.d_head) / spec.d_head
    layer_types = ["sliding_attention" if spec.is_local(i) else "full_attention" for i in range(spec.n_layers)]
    match spec.architecture:
        case "GPTNeoXForCausalLM":
            del config["num_key_value_heads"]
            config |= {"rotary_pct": share, "use_parallel_residual": spec.parallel_attn_mlp}
            config["attention_bias"] = spec.qkv_bias
        case "LlamaForCausalLM":
            config |= {"head_dim": spec.d_head, "attention_bias": spec.qkv_bias, "mlp_bias": spec.mlp_bias}
        case "MistralForCausalLM":
            config |= {"head_dim": spec.d_head, "sliding_window": spec.window}
        case "Qwen3ForCausalLM" | "GemmaForCausalLM":
            config["head_dim"] = spec.d_head
        case "Gemma2ForCausalLM":
            config |= {
                "head_dim": spec.d_head, "query_pre_attn_scalar": spec.d_head, "hidden_activation": spec.act_fn,
                "sliding_window": spec.window or 4096, "layer_types": layer_types,
                "attn_logit_softcapping": 50.0 if spec.attn_softcap else None,
                "final_logit_softcapping": 30.0 if spec.logit_softcap else None,
            }  # fmt: skip
        case "Gemma3ForCausalLM":
            config |= {
                "head_dim": spec.d_head, "query_pre_attn_scalar": spec.d_head, "hidden_activation": spec.act_fn,
                "sliding_window": spec.window or 512, "layer_types": layer_types,
            }  # fmt: skip
        case "PhiForCausalLM":
            config["partial_rotary_factor"] = share
        case "Phi3ForCausalLM":
            config |= {"sliding_window": spec.window, "pad_token_id": 0}
        case "OlmoForCausalLM":
            config["clip_qkv"] = 8.0 if spec.clip_qkv else None
        case "Olmo3ForCausalLM":
            config |= {"sliding_window": spec.window or 4096, "layer_types": layer_types}
    return config


def hooked_config(spec: ModelSpec, folded: bool) -> dict[str, Any]:
    """Arguments of HookedTransformerConfig for `spec`; dtype and device are the worker's.

    `folded` as `HookedTransformer.from_pretrained` does by default (OLMo 2 and 3 and shortformer models refuse it).
    Only what differs from the defaults is given, so that older TransformerLens versions accept it.
    """
    norm = {"layernorm": "LN", "rmsnorm": "RMS", "none": None}[spec.norm]
    if norm and folded and spec.folds_norms_tl:
        norm += "Pre"
    config: dict[str, Any] = {
        "model_name": spec.name,
        "original_architecture": spec.architecture,
        "n_layers": spec.n_layers,
        "d_model": spec.d_model,
        "n_heads": spec.n_heads,
        "d_head": spec.d_head,
        "d_vocab": spec.d_vocab,
        "n_ctx": spec.context_tl,
        "act_fn": spec.act_fn,
        "normalization_type": norm,
        "final_rms": spec.norm == "rmsnorm",
        "positional_embedding_type": "standard" if spec.positional == "learned" else spec.positional,
        "use_attn_scale": spec.architecture != "GPTNeoForCausalLM",
    }
    if spec.local_layers != "none":
        config["use_local_attn"] = True
        config["window_size"] = spec.window
        config["attn_types"] = ["local" if spec.is_local(i) else "global" for i in range(spec.n_layers)]
    optional: dict[str, Any] = {
        "d_mlp": spec.d_mlp or None,
        "attn_only": spec.d_mlp == 0,
        "n_key_value_heads": spec.n_kv_heads if spec.grouped_attention_tl else None,
        "gated_mlp": spec.gated_mlp,
        "use_normalization_before_and_after": spec.norm_placement == "both",
        "parallel_attn_mlp": spec.parallel_attn_mlp,
        "use_qk_norm": spec.qk_norm == "head",
        "post_embedding_ln": spec.embed_norm,
        "rotary_dim": spec.rotary_dim,
        "rotary_adjacent_pairs": spec.architecture == "GPTJForCausalLM",
        "attn_scores_soft_cap": 50.0 if spec.attn_softcap else None,
        "output_logits_soft_cap": 30.0 if spec.logit_softcap else None,
        "clip_qkv": 8.0 if spec.clip_qkv else None,
    }
    return config | {key: value for key, value in optional.items() if value not in (None, False)}

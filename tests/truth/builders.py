"""The real libraries' models, built from nothing but the numbers of a `ModelSpec`.

No network, no pretrained weights and not TransformerLens' own converter: if a number of the spec is wrong, the model
built from it is wrong too, and the tests that compare counts and bytes say so.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import transformers

from compute_awareness.models.spec import ModelSpec

_TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# transformers 5.23: these classes have no scaled-dot-product attention and refuse it.
EAGER_ONLY = frozenset({"Gemma2ForCausalLM", "GPTNeoForCausalLM", "GPTJForCausalLM", "BloomForCausalLM"})


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what transformers and TransformerLens say while building; the tests run with warnings as errors."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def torch_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """`"bfloat16"` or `torch.bfloat16` as a torch dtype."""
    return _TORCH_DTYPES[dtype] if isinstance(dtype, str) else dtype


def _layer_types(spec: ModelSpec, n_layers: int) -> list[str]:
    return ["sliding_attention" if spec.is_local(i) else "full_attention" for i in range(n_layers)]


def _llama_like(spec: ModelSpec, n_layers: int) -> dict[str, Any]:
    return {
        "hidden_size": spec.d_model,
        "num_hidden_layers": n_layers,
        "num_attention_heads": spec.n_heads,
        "num_key_value_heads": spec.n_kv_heads,
        "intermediate_size": spec.d_mlp,
        "vocab_size": spec.d_vocab,
        "max_position_embeddings": spec.n_ctx,
        "tie_word_embeddings": spec.tied_embeddings,
        "hidden_act": spec.act_fn,
    }


def _partial(spec: ModelSpec) -> dict[str, Any]:
    factor = (spec.rotary_dim or spec.d_head) / spec.d_head
    return {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": factor}


def hf_config(spec: ModelSpec, n_layers: int | None = None) -> Any:
    """The transformers config of `spec`, with `n_layers` blocks instead of all if given."""
    with quiet():
        config = _config(spec, n_layers or spec.n_layers)
    config.architectures = [spec.architecture]
    return config


def _config(spec: ModelSpec, n: int) -> Any:
    llama = _llama_like(spec, n)
    match spec.architecture:
        case "GPT2LMHeadModel":
            return transformers.GPT2Config(
                n_embd=spec.d_model, n_layer=n, n_head=spec.n_heads, n_inner=spec.d_mlp,
                activation_function=spec.act_fn, vocab_size=spec.d_vocab, n_positions=spec.n_ctx, n_ctx=spec.n_ctx,
                tie_word_embeddings=spec.tied_embeddings,
            )  # fmt: skip
        case "GPTNeoXForCausalLM":
            del llama["num_key_value_heads"]
            return transformers.GPTNeoXConfig(
                **llama, rope_parameters=_partial(spec),
                use_parallel_residual=spec.parallel_attn_mlp, attention_bias=spec.qkv_bias,
            )  # fmt: skip
        case "LlamaForCausalLM":
            return transformers.LlamaConfig(
                **llama, head_dim=spec.d_head, attention_bias=spec.qkv_bias, mlp_bias=spec.mlp_bias
            )
        case "MistralForCausalLM":
            return transformers.MistralConfig(**llama, head_dim=spec.d_head, sliding_window=spec.window)
        case "Qwen2ForCausalLM":
            return transformers.Qwen2Config(**llama)
        case "Qwen3ForCausalLM":
            return transformers.Qwen3Config(**llama, head_dim=spec.d_head)
        case "GemmaForCausalLM":
            return transformers.GemmaConfig(**llama, head_dim=spec.d_head)
        case "Gemma2ForCausalLM":
            return transformers.Gemma2Config(
                **llama, head_dim=spec.d_head,
                query_pre_attn_scalar=spec.d_head, sliding_window=spec.window or 4096,
                layer_types=_layer_types(spec, n),
                attn_logit_softcapping=50.0 if spec.attn_softcap else None,
                final_logit_softcapping=30.0 if spec.logit_softcap else None,
            )  # fmt: skip
        case "Gemma3ForCausalLM":
            return transformers.Gemma3TextConfig(
                **llama, head_dim=spec.d_head,
                query_pre_attn_scalar=spec.d_head, sliding_window=spec.window or 512,
                layer_types=_layer_types(spec, n),
            )  # fmt: skip
        case "PhiForCausalLM":
            return transformers.PhiConfig(**llama, rope_parameters=_partial(spec))
        case "Phi3ForCausalLM":
            return transformers.Phi3Config(
                **llama, sliding_window=spec.window, pad_token_id=0, bos_token_id=1, eos_token_id=2
            )
        case "GPTNeoForCausalLM":
            return transformers.GPTNeoConfig(
                hidden_size=spec.d_model, num_layers=n, num_heads=spec.n_heads, vocab_size=spec.d_vocab,
                attention_types=[[["local" if spec.is_local(i) else "global"], 1] for i in range(n)],
                max_position_embeddings=spec.n_ctx, window_size=spec.window or 256, intermediate_size=spec.d_mlp,
                activation_function=spec.act_fn, tie_word_embeddings=spec.tied_embeddings,
            )  # fmt: skip
        case "GPTJForCausalLM":
            return transformers.GPTJConfig(
                n_embd=spec.d_model, n_layer=n, n_head=spec.n_heads, n_inner=spec.d_mlp,
                activation_function=spec.act_fn, n_positions=spec.n_ctx,
                rotary_dim=spec.rotary_dim, vocab_size=spec.d_vocab, tie_word_embeddings=spec.tied_embeddings,
            )  # fmt: skip
        case "OPTForCausalLM":
            return transformers.OPTConfig(
                hidden_size=spec.d_model, num_hidden_layers=n, num_attention_heads=spec.n_heads,
                ffn_dim=spec.d_mlp, activation_function=spec.act_fn, vocab_size=spec.d_vocab,
                max_position_embeddings=spec.n_ctx,
                word_embed_proj_dim=spec.d_model, do_layer_norm_before=spec.norm_placement == "pre",
                enable_bias=spec.qkv_bias, tie_word_embeddings=spec.tied_embeddings,
            )  # fmt: skip
        case "BloomForCausalLM":
            return transformers.BloomConfig(
                hidden_size=spec.d_model, n_layer=n, n_head=spec.n_heads, vocab_size=spec.d_vocab,
                tie_word_embeddings=spec.tied_embeddings,
            )  # fmt: skip
        case "OlmoForCausalLM":
            return transformers.OlmoConfig(**llama, clip_qkv=8.0 if spec.clip_qkv else None)
        case "Olmo2ForCausalLM":
            return transformers.Olmo2Config(**llama)
        case "Olmo3ForCausalLM":
            return transformers.Olmo3Config(
                **llama, sliding_window=spec.window or 4096, layer_types=_layer_types(spec, n)
            )
    raise LookupError(f"{spec.name}: no transformers class for {spec.architecture}")


def hf_model(
    spec: ModelSpec,
    device: str = "meta",
    dtype: str | torch.dtype = "float32",
    attention: str = "sdpa",
    n_layers: int | None = None,
) -> Any:
    """The transformers model of `spec` in eval mode, weights random (on meta: none).

    `attention` is `eager` or `sdpa`; classes without sdpa in transformers 5.23 get `eager`.
    """
    config = hf_config(spec, n_layers)
    if spec.architecture in EAGER_ONLY:
        attention = "eager"
    with quiet(), torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch_dtype(dtype), attn_implementation=attention
        )
        model.tie_weights()
    return model.eval()


def tl_config(
    spec: ModelSpec,
    device: str = "meta",
    dtype: str | torch.dtype = "float32",
    n_layers: int | None = None,
    folded: bool = True,
    **overrides: Any,
) -> Any:
    """The HookedTransformerConfig of `spec`, written from its numbers.

    `folded` is what `HookedTransformer.from_pretrained` does by default; models that it refuses to fold stay as they
    are (OLMo 2 and 3, shortformer positions).
    """
    from transformer_lens import HookedTransformerConfig

    n = n_layers or spec.n_layers
    norm = {"layernorm": "LN", "rmsnorm": "RMS", "none": None}[spec.norm]
    if folded and norm and spec.folds_norms_tl:
        norm += "Pre"
    fields: dict[str, Any] = {
        "model_name": spec.name,
        "original_architecture": spec.architecture,
        "n_layers": n,
        "d_model": spec.d_model,
        "n_heads": spec.n_heads,
        "n_key_value_heads": spec.n_kv_heads if spec.grouped_attention_tl else None,
        "d_head": spec.d_head,
        "d_mlp": spec.d_mlp or None,
        "attn_only": spec.d_mlp == 0,
        "d_vocab": spec.d_vocab,
        "n_ctx": spec.context_tl,
        "act_fn": spec.act_fn,
        "gated_mlp": spec.gated_mlp,
        "normalization_type": norm,
        "final_rms": spec.norm == "rmsnorm",
        "use_normalization_before_and_after": spec.norm_placement == "both",
        "parallel_attn_mlp": spec.parallel_attn_mlp,
        "use_qk_norm": spec.qk_norm == "head",
        "post_embedding_ln": spec.embed_norm,
        "positional_embedding_type": "standard" if spec.positional == "learned" else spec.positional,
        "rotary_dim": spec.rotary_dim,
        "rotary_adjacent_pairs": spec.architecture == "GPTJForCausalLM",
        "use_attn_scale": spec.architecture != "GPTNeoForCausalLM",
        "use_local_attn": spec.local_layers != "none",
        "window_size": spec.window,
        "attn_types": [("local" if spec.is_local(i) else "global") for i in range(n)],
        "attn_scores_soft_cap": 50.0 if spec.attn_softcap else -1.0,
        "output_logits_soft_cap": 30.0 if spec.logit_softcap else -1.0,
        "clip_qkv": 8.0 if spec.clip_qkv else None,
        "dtype": torch_dtype(dtype),
        "device": device,
        "init_weights": False,
    }
    with quiet():
        return HookedTransformerConfig(**(fields | overrides))


def _keep_aliases_on_meta() -> None:
    """On the meta device TransformerLens asks for `meta:0`, so every `.to()` copies and shared storages come apart.

    A real single device has no such copy, so plain `meta` is the truth.
    """
    import importlib

    module = importlib.import_module("transformer_lens.HookedTransformer")
    original = module.get_device_for_block_index
    if getattr(original, "keeps_aliases", False):
        return

    def device_for_block(index: int, cfg: Any, device: Any = None) -> Any:
        if str(cfg.device).startswith("meta"):
            return torch.device("meta")
        return original(index, cfg, device)

    device_for_block.keeps_aliases = True  # type: ignore[attr-defined]
    module.get_device_for_block_index = device_for_block


def hooked_transformer(
    spec: ModelSpec,
    device: str = "meta",
    dtype: str | torch.dtype = "float32",
    n_layers: int | None = None,
    folded: bool = True,
    **cfg_overrides: Any,
) -> Any:
    """TransformerLens' HookedTransformer of `spec` in eval mode; on a real device with small random weights."""
    from transformer_lens import HookedTransformer

    _keep_aliases_on_meta()
    cfg = tl_config(spec, device, dtype, n_layers, folded, **cfg_overrides)
    with quiet(), torch.device(device):
        model = HookedTransformer(cfg, move_to_device=False)
    if device != "meta":
        generator = torch.Generator(device).manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.02, generator=generator)
    return model.eval()


def held_tensors(model: Any) -> list[torch.Tensor]:
    """Parameters and buffers of `model`: the baseline of a measurement."""
    return [*model.parameters(), *model.buffers()]

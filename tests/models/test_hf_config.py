"""Configs as they are published, including what older files leave out, and configs that no model has."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_awareness.errors import InputError
from compute_awareness.memory.weights import hf_buffer_bytes, hf_params, tl_buffer_bytes, tl_params
from compute_awareness.models import catalogue
from compute_awareness.models.hf_config import spec_from_config
from compute_awareness.models.spec import ModelSpec

# Files as they lie on the hub (written by transformers 4.x), cut down to what describes the architecture.
PUBLISHED: dict[str, dict[str, Any]] = {
    "gpt2": {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_ctx": 1024,
        "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257,
    },
    "pythia-2.8b": {
        "architectures": ["GPTNeoXForCausalLM"], "hidden_act": "gelu", "hidden_size": 2560,
        "intermediate_size": 10240, "max_position_embeddings": 2048, "model_type": "gpt_neox",
        "num_attention_heads": 32, "num_hidden_layers": 32, "rotary_emb_base": 10000, "rotary_pct": 0.25,
        "tie_word_embeddings": False, "torch_dtype": "float16", "use_parallel_residual": True, "vocab_size": 50304,
    },
    "llama-2-7b": {  # without num_key_value_heads, as the first Llama files were
        "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008,
        "max_position_embeddings": 4096, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
        "pretraining_tp": 1, "rope_scaling": None, "tie_word_embeddings": False, "torch_dtype": "float16",
        "vocab_size": 32000,
    },
    "mistral-7b": {
        "architectures": ["MistralForCausalLM"], "hidden_act": "silu", "hidden_size": 4096,
        "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "sliding_window": 4096,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vocab_size": 32000,
    },
    "gemma-2-2b": {
        "architectures": ["Gemma2ForCausalLM"], "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
        "head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "hidden_size": 2304, "intermediate_size": 9216,
        "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 8, "num_hidden_layers": 26,
        "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "sliding_window": 4096, "torch_dtype": "float32",
        "vocab_size": 256000,
    },
    "gpt-neo-125m": {
        "activation_function": "gelu_new", "architectures": ["GPTNeoForCausalLM"],
        "attention_types": [[["global", "local"], 6]], "hidden_size": 768, "intermediate_size": None,
        "max_position_embeddings": 2048, "model_type": "gpt_neo", "num_heads": 12, "num_layers": 12,
        "vocab_size": 50257, "window_size": 256,
    },
    "gpt-j-6b": {
        "activation_function": "gelu_new", "architectures": ["GPTJForCausalLM"], "model_type": "gptj", "n_embd": 4096,
        "n_head": 16, "n_inner": None, "n_layer": 28, "n_positions": 2048, "rotary_dim": 64,
        "tie_word_embeddings": False, "vocab_size": 50400,
    },
    "phi-2": {
        "architectures": ["PhiForCausalLM"], "hidden_act": "gelu_new", "hidden_size": 2560,
        "intermediate_size": 10240, "max_position_embeddings": 2048, "model_type": "phi", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 32, "partial_rotary_factor": 0.4, "qk_layernorm": False,
        "tie_word_embeddings": False, "torch_dtype": "float16", "vocab_size": 51200,
    },
    "bloom-560m": {
        "architectures": ["BloomForCausalLM"], "model_type": "bloom", "n_head": 16, "n_layer": 24,
        "hidden_size": 1024, "vocab_size": 250880,
    },
}  # fmt: skip
NAMING = {"name", "hf_id", "tl_name", "aliases", "source", "gated_repo", "checkpoint_dtype", "n_ctx_tl"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs(name: str) -> None:
    known = catalogue.find(name)
    assert known is not None
    read = spec_from_config(PUBLISHED[name], name)
    assert read.model_dump(exclude=NAMING) == known.model_dump(exclude=NAMING)


def test_a_base_model_without_head_class_is_its_causal_model() -> None:
    config = PUBLISHED["gpt2"]
    for architectures in (["GPT2Model"], [], None):
        assert spec_from_config(config | {"architectures": architectures}, "x").architecture == "GPT2LMHeadModel"


def test_context_cap_of_a_family() -> None:
    assert spec_from_config(PUBLISHED["mistral-7b"], "x").n_ctx_tl == 2048
    assert spec_from_config(PUBLISHED["llama-2-7b"], "x").n_ctx_tl is None


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"architectures": ["MixtralForCausalLM"], "num_local_experts": 8}, "mixture of experts"),
        ({"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe"}, "mixture of experts"),
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "encoder"),
        ({"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}, "encoder-decoder"),
        ({"architectures": ["LlavaForConditionalGeneration"], "text_config": {}, "vision_config": {}}, "multimodal"),
        ({"architectures": ["MambaForCausalLM"], "model_type": "mamba"}, "state-space"),
        (PUBLISHED["llama-2-7b"] | {"quantization_config": {"quant_method": "awq"}}, "quantised"),
        ({"architectures": ["OPTForCausalLM"], "hidden_size": 1024, "word_embed_proj_dim": 512,
          "num_hidden_layers": 24, "num_attention_heads": 16}, "opt-350m"),
    ],
)  # fmt: skip
def test_recognised_but_not_covered(config: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match="recognised but not covered yet") as caught:
        spec_from_config(config, "x")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({}, "not a model config"),
        ([], "not a model config"),
        ("llama", "not a model config"),
        (None, "not a model config"),
        (
            {"architectures": ["FalconForCausalLM"], "model_type": "falcon"},
            "FalconForCausalLM is not covered; covered: ",
        ),
        ({"architectures": ["LlamaForSequenceClassification"], "model_type": "llama"}, "is not covered"),
        ({"architectures": ["NeelToy"]}, "NeelToy is not covered"),
        ({"architectures": ["LlamaForCausalLM"]}, "num_hidden_layers"),
        (PUBLISHED["llama-2-7b"] | {"num_attention_heads": 33}, "no multiple"),
        (PUBLISHED["llama-2-7b"] | {"num_key_value_heads": 5}, "n_kv_heads 5"),
        (PUBLISHED["llama-2-7b"] | {"num_hidden_layers": 1001}, "1000 accepted"),
        (PUBLISHED["llama-2-7b"] | {"vocab_size": "32000"}, "vocab_size must be a whole number"),
        (PUBLISHED["pythia-2.8b"] | {"rotary_pct": 7}, "rotary_pct must be above 0"),
        (PUBLISHED["gpt-neo-125m"] | {"attention_types": 3}, "attention_types"),
        (PUBLISHED["gpt-neo-125m"] | {"attention_types": [[["global"], 3], [["local"], 9]]}, "arrangement"),
        (PUBLISHED["gemma-2-2b"] | {"layer_types": ["full_attention"]}, "layer_types must list all 26 layers"),
    ],
)
def test_no_model_config(config: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        spec_from_config(config, "x")
    assert says in str(caught.value)


hostile = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.just(10**6000), st.floats(), st.text(max_size=20),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
    st.just([[["global", "local"], 10**9]]), st.just({"a": {"b": [{}]}}),
)  # fmt: skip
keys = sorted({key for config in PUBLISHED.values() for key in config} | {
    "attention_layers", "layer_types", "attention_bias", "mlp_bias", "rope_parameters", "num_experts", "dtype",
    "clip_qkv", "text_config", "is_encoder_decoder", "n_inner", "head_dim", "seq_length", "hidden_activation",
})  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(PUBLISHED)), st.dictionaries(st.sampled_from(keys), hostile, min_size=1, max_size=4))
def test_hostile_values_give_a_model_or_one_line(base: str, changes: dict[str, Any]) -> None:
    try:
        spec = spec_from_config(PUBLISHED[base] | changes, "x")
    except InputError as error:
        assert "\n" not in str(error)
        assert 0 < len(str(error)) < 700
        return
    assert isinstance(spec, ModelSpec)
    assert min(hf_params(spec), tl_params(spec), tl_params(spec, folded=False)) > 0
    assert min(hf_buffer_bytes(spec, 2), tl_buffer_bytes(spec, 2, 9)) >= 0
    json.dumps(spec.model_dump(mode="json"))

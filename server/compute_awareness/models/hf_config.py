"""A Hugging Face `config.json` as a `ModelSpec`, for the architectures whose memory is known."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from ..errors import InputError, NotCovered, shown
from ..workload import explain
from .families import FAMILIES, with_family
from .spec import MOST_LAYERS, TOY, ModelSpec

# The causal language model of each model_type, for configs without a usable `architectures`.
_BY_MODEL_TYPE = {
    "gpt2": "GPT2LMHeadModel", "gpt_neox": "GPTNeoXForCausalLM", "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM", "gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
    "phi": "PhiForCausalLM", "phi3": "Phi3ForCausalLM", "gpt_neo": "GPTNeoForCausalLM", "gptj": "GPTJForCausalLM",
    "opt": "OPTForCausalLM", "bloom": "BloomForCausalLM", "olmo": "OlmoForCausalLM", "olmo2": "Olmo2ForCausalLM",
    "olmo3": "Olmo3ForCausalLM",
}  # fmt: skip

# Configs of one number under different names; the first present wins.
_N_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
_D_MODEL = ("hidden_size", "n_embd", "n_embed")
_N_HEADS = ("num_attention_heads", "n_head", "num_heads")
_D_MLP = ("intermediate_size", "ffn_dim", "n_inner")
_N_CTX = ("max_position_embeddings", "n_positions", "seq_length", "n_ctx")
_ACT_FN = ("hidden_act", "hidden_activation", "activation_function")

# Defaults of the config classes for what older files leave out (transformers 5.23.0).
_DEFAULT_D_HEAD = {"GemmaForCausalLM": 256, "Gemma2ForCausalLM": 256, "Gemma3ForCausalLM": 256, "Qwen3ForCausalLM": 128}
_DEFAULT_N_CTX = {"BloomForCausalLM": 2048}
# TransformerLens sets these itself, whatever the config says.
_ACT_FN_OF_TL = frozenset({"BloomForCausalLM", "GemmaForCausalLM"})
_MLP_IS_4_D = frozenset({"GPT2LMHeadModel", "GPTNeoForCausalLM", "GPTJForCausalLM", "BloomForCausalLM"})
_BIAS_SWITCH = {  # attention_bias and its default; None: no such switch, the family's rule stands
    "LlamaForCausalLM": (False, ("qkv_bias", "attn_out_bias")),
    "Qwen3ForCausalLM": (False, ("qkv_bias", "attn_out_bias")),
    "GemmaForCausalLM": (False, ("qkv_bias", "attn_out_bias")),
    "Gemma2ForCausalLM": (False, ("qkv_bias", "attn_out_bias")),
    "Gemma3ForCausalLM": (False, ("qkv_bias", "attn_out_bias")),
    "OlmoForCausalLM": (False, ("qkv_bias", "attn_out_bias")),
    "Olmo2ForCausalLM": (False, ("qkv_bias", "attn_out_bias")),
    "Olmo3ForCausalLM": (False, ("qkv_bias", "attn_out_bias")),
    "GPTNeoXForCausalLM": (True, ("qkv_bias", "attn_out_bias")),
}  # fmt: skip
_DTYPES = ("float32", "float16", "bfloat16")


def _count(config: dict[str, Any], keys: tuple[str, ...]) -> int | None:
    """The first of `keys` that is present, as a positive int; None if none is."""
    for key in keys:
        value = config.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10_000_000:
            raise InputError(f"config: {key} must be a whole number from 1 to 10000000, not {shown(value)}")
        return value
    return None


def _needed(config: dict[str, Any], keys: tuple[str, ...]) -> int:
    value = _count(config, keys)
    if value is None:
        raise InputError(f"not the config of a covered model: {' or '.join(keys)} is missing")
    return value


def _flag(config: dict[str, Any], key: str, default: bool) -> bool:
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InputError(f"config: {key} must be true or false, not {shown(value)}")
    return value


def _fraction(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise InputError(f"config: {key} must be above 0 and at most 1, not {shown(value)}")
    return float(value)


class Uncovered(NotCovered):
    """A model config that no closed form covers; a trace may. `config` is the whole of it."""

    def __init__(self, message: str, config: dict[str, Any] | None = None, name: str = "") -> None:
        super().__init__(message)
        self.config = config or {}
        self.name = name


def _not_covered(what: str) -> Uncovered:
    return Uncovered(f"recognised but not covered yet: {what}")


def _architecture(config: dict[str, Any]) -> str:
    """The supported model class of a config. Raises InputError saying what it is instead."""
    listed = config.get("architectures")
    listed = listed[0] if isinstance(listed, list) and listed else None
    named = listed if isinstance(listed, str) else ""
    model_type = config.get("model_type")
    model_type = model_type if isinstance(model_type, str) else ""
    if not named and not model_type:
        raise InputError("not a model config: neither 'architectures' nor 'model_type' says what it is")
    label = (named or model_type)[:80]
    both = f"{named} {model_type}".lower()
    experts = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    if any(config.get(key) for key in experts) or any(s in both for s in ("moe", "mixtral", "gptoss", "gpt_oss")):
        raise _not_covered(f"mixture of experts ({label})")
    if any(key in config for key in ("vision_config", "audio_config", "text_config")):
        raise _not_covered(f"multimodal model ({label})")
    if config.get("is_encoder_decoder") or any(s in both for s in ("t5", "bart", "seq2seq", "whisper")):
        raise _not_covered(f"encoder-decoder ({label})")
    if "bert" in both or "maskedlm" in both or "deberta" in both:
        raise _not_covered(f"encoder ({label})")
    if any(s in both for s in ("mamba", "rwkv", "jamba", "recurrent")):
        raise _not_covered(f"state-space or recurrent model ({label})")
    _quantization(config)
    # A base class without a head ("GPT2Model") is loaded as its causal model; a classifier is another model.
    base_only = not named or named.endswith("Model")
    architecture = named if named in FAMILIES else _BY_MODEL_TYPE.get(model_type) if base_only else None
    if architecture is None or architecture == TOY:
        covered = ", ".join(sorted(a for a in FAMILIES if a != TOY))
        raise Uncovered(f"{label} is not covered; covered: {covered}")
    return architecture


def _quantization(config: dict[str, Any]) -> str | None:
    """How the stored weights are quantised. Raises Uncovered for a way that is not covered."""
    said = config.get("quantization_config")
    if not said:
        return None
    method = str(said.get("quant_method", "")) if isinstance(said, dict) else ""
    bits = said.get("bits") if isinstance(said, dict) else None
    if method in ("gptq", "awq") and bits == 4:
        return f"{method}_4bit"
    if method == "fp8":
        return "fp8"
    if method == "bitsandbytes" and isinstance(said, dict):
        if said.get("load_in_4bit"):
            return "bitsandbytes_4bit"
        if said.get("load_in_8bit"):
            return "bitsandbytes_8bit"
    raise _not_covered(f"weights quantised by {method[:40] or 'an unnamed method'}")


def _local_layers(pattern: list[bool]) -> str:
    """The name of the pattern of windowed layers. Raises InputError if it has none."""
    for name in ("none", "all", "odd", "even", "5_of_6", "3_of_4"):
        probe = ModelSpec.model_construct(local_layers=name)
        if all(probe.is_local(layer) == local for layer, local in enumerate(pattern)):
            return name
    raise _not_covered("this arrangement of sliding-window layers")


def _windows(config: dict[str, Any], architecture: str, n_layers: int) -> dict[str, Any]:
    """`window` and `local_layers`."""
    if architecture == "GPTNeoForCausalLM":
        types = config.get("attention_layers")
        if types is None:
            types = []
            groups = config.get("attention_types", [[["global", "local"], n_layers // 2]])
            try:
                for kinds, times in groups:
                    types += list(kinds) * min(int(times), n_layers)
            except (TypeError, ValueError):
                raise InputError("config: attention_types must be a list of [kinds, repeats]") from None
        if not isinstance(types, list) or len(types) < n_layers:
            raise InputError(f"config: attention_types must name the attention of all {n_layers} layers")
        local = _local_layers([kind == "local" for kind in types[:n_layers]])
        return {"window": _count(config, ("window_size",)) or 256, "local_layers": local}
    rules = FAMILIES[architecture]
    window = _count(config, ("sliding_window",)) or rules.get("window")
    if architecture in ("MistralForCausalLM", "Phi3ForCausalLM"):
        return {"window": window, "local_layers": "all" if window else "none"}
    if "local_layers" not in rules:
        return {}
    types = config.get("layer_types")
    if types is None:
        return {"window": window}
    if not isinstance(types, list) or len(types) != n_layers:
        raise InputError(f"config: layer_types must list all {n_layers} layers")
    return {"window": window, "local_layers": _local_layers([kind == "sliding_attention" for kind in types])}


def _rotary_dim(config: dict[str, Any], architecture: str, d_head: int) -> dict[str, int]:
    if architecture == "GPTJForCausalLM":
        return {"rotary_dim": _needed(config, ("rotary_dim",))}
    if architecture not in ("GPTNeoXForCausalLM", "PhiForCausalLM", "Phi3ForCausalLM"):
        return {}
    parameters = config.get("rope_parameters")
    places = [config, parameters if isinstance(parameters, dict) else {}]
    for place in places:
        for key in ("partial_rotary_factor", "rotary_pct"):
            if place.get(key) is not None:
                return {"rotary_dim": max(2, int(d_head * _fraction(place[key], key)))}
    return {}


def _refuse_variants(config: dict[str, Any], architecture: str, d_model: int) -> None:
    """Switches of covered classes that make another model of them."""
    if architecture == "OPTForCausalLM":
        if config.get("word_embed_proj_dim") not in (None, d_model) or not _flag(config, "do_layer_norm_before", True):
            raise _not_covered("OPT with projected embeddings or norms after the layers (opt-350m)")
        if not _flag(config, "enable_bias", True) or not _flag(config, "layer_norm_elementwise_affine", True):
            raise _not_covered("OPT without biases")
    if architecture == "PhiForCausalLM" and _flag(config, "qk_layernorm", False):
        raise _not_covered("Phi with norms of q and k")
    if architecture == "GPT2LMHeadModel" and _flag(config, "add_cross_attention", False):
        raise _not_covered("GPT-2 with cross-attention")


def spec_from_config(config: Any, name: str, hf_id: str | None = None, source: str = "") -> ModelSpec:
    """The ModelSpec of a decoded `config.json`.

    The context that TransformerLens configures (`n_ctx_tl`) is set only where its converter caps the whole family.

    Raises:
        InputError: not a model config, or a value out of range.
        Uncovered: an architecture or a variant of one that no closed form covers.
    """
    if not isinstance(config, dict):
        raise InputError(f"not a model config: a JSON object is needed, not {shown(config)}")
    try:
        return _covered_spec(config, name, hf_id, source)
    except Uncovered as error:
        raise Uncovered(str(error), config, name) from None


def _covered_spec(config: dict[str, Any], name: str, hf_id: str | None, source: str) -> ModelSpec:
    architecture = _architecture(config)
    rules = FAMILIES[architecture]
    n_layers, d_model, n_heads = _needed(config, _N_LAYERS), _needed(config, _D_MODEL), _needed(config, _N_HEADS)
    if n_layers > MOST_LAYERS:
        raise InputError(f"config: {n_layers} layers are more than any model has ({MOST_LAYERS} accepted)")
    _refuse_variants(config, architecture, d_model)
    d_head = _count(config, ("head_dim",)) or _DEFAULT_D_HEAD.get(architecture)
    if d_head is None:
        if d_model % n_heads:
            raise InputError(f"config: width {d_model} is no multiple of its {n_heads} heads, and head_dim is missing")
        d_head = d_model // n_heads
    d_mlp = _count(config, _D_MLP)
    if d_mlp is None or architecture == "BloomForCausalLM":
        if architecture not in _MLP_IS_4_D:
            raise InputError(f"not the config of a covered model: {' or '.join(_D_MLP[:2])} is missing")
        d_mlp = 4 * d_model
    grouped = rules.get("gated_mlp", False)
    n_ctx = _count(config, _N_CTX) or _DEFAULT_N_CTX.get(architecture)
    if n_ctx is None:
        raise InputError(f"not the config of a covered model: {' or '.join(_N_CTX[:2])} is missing")
    dtype = config.get("dtype", config.get("torch_dtype"))
    act_fn = next((config[key] for key in _ACT_FN if isinstance(config.get(key), str)), None)
    fields: dict[str, Any] = {
        "name": name,
        "hf_id": hf_id,
        "architecture": architecture,
        "n_layers": n_layers,
        "d_model": d_model,
        "n_heads": n_heads,
        "n_kv_heads": (_count(config, ("num_key_value_heads",)) if grouped else None) or n_heads,
        "d_head": d_head,
        "d_mlp": d_mlp,
        "d_vocab": _needed(config, ("vocab_size",)),
        "n_ctx": n_ctx,
        "tied_embeddings": _flag(config, "tie_word_embeddings", rules.get("tied_embeddings", False)),
        "checkpoint_dtype": dtype if isinstance(dtype, str) and dtype in _DTYPES else None,
        "quantization": _quantization(config),
        "source": source,
        **_windows(config, architecture, n_layers),
        **_rotary_dim(config, architecture, d_head),
    }
    if act_fn and architecture not in _ACT_FN_OF_TL:
        fields["act_fn"] = act_fn[:40]
    if architecture in _BIAS_SWITCH:
        default, switched = _BIAS_SWITCH[architecture]
        fields |= dict.fromkeys(switched, _flag(config, "attention_bias", default))
    if architecture == "LlamaForCausalLM":
        fields["mlp_bias"] = _flag(config, "mlp_bias", False)
    if architecture == "GPTNeoXForCausalLM":
        fields["parallel_attn_mlp"] = _flag(config, "use_parallel_residual", True)
    if architecture == "OlmoForCausalLM":
        fields["clip_qkv"] = config.get("clip_qkv") is not None
    if architecture == "Gemma2ForCausalLM":
        for ours, theirs in (("attn_softcap", "attn_logit_softcapping"), ("logit_softcap", "final_logit_softcapping")):
            fields[ours] = theirs not in config or config[theirs] is not None
    try:
        return ModelSpec(**with_family(fields))
    except ValidationError as error:
        raise InputError(f"config: {explain(error, ModelSpec)}") from None

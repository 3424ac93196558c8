"""Models built from a configuration, with random weights: `GPT2LMHeadModel(GPT2Config(...))`, `HookedTransformer(cfg)`.

The defaults are those of the libraries (transformers 5.23, configuration_*.py of each model).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..values import Args, Bound, Dict, Known, Source, Thing, Unknown, is_none, known
from .models import Model
from .registry import class_method, function
from .torch_modes import device_of, dtype_of
from .transformer_lens import HookedModel
from .transformers import HuggingFaceModel

if TYPE_CHECKING:
    from ..reader import Reader

_DEFAULTS: dict[str, dict[str, Any]] = {
    "GPT2Config": {
        "model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12,
    },
    "LlamaConfig": {
        "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    },
    "GPTNeoXConfig": {
        "model_type": "gpt_neox", "vocab_size": 50432, "hidden_size": 6144, "num_hidden_layers": 44,
        "num_attention_heads": 64, "intermediate_size": 24576, "max_position_embeddings": 2048, "rotary_pct": 0.25,
        "tie_word_embeddings": False,
    },
}  # fmt: skip
_CLASS_OF = {"GPT2LMHeadModel": "GPT2Config", "LlamaForCausalLM": "LlamaConfig", "GPTNeoXForCausalLM": "GPTNeoXConfig"}
_HOOKED = ("n_layers", "d_model", "n_heads", "d_head", "d_mlp", "d_vocab", "n_ctx", "act_fn")
_NORMS = {"LN": "layernorm", "LNPre": "layernorm", "RMS": "rmsnorm", "RMSPre": "rmsnorm"}


class ModelConfig(Thing):
    """A configuration object and the numbers in it."""

    label = "configuration"

    def __init__(self, kind: str, values: dict[str, Any], more: bool) -> None:
        self.kind, self.values, self.more = kind, values, more

    def attribute(self, name: str, reader: Reader) -> Any:
        return self.values.get(name, Bound(self, name))

    def set_attribute(self, name: str, value: Any, reader: Reader) -> None:
        self.values[name] = value

    def plain(self) -> Any:
        """The numbers as one value, Unknown where one of them is not known."""
        numbers: dict[str, Any] = {}
        for name, value in self.values.items():
            if isinstance(value, Known):
                numbers[name] = value.value
            elif isinstance(value, Unknown):
                return Unknown(f"{name} of its configuration: {value.why}")
        if self.more:
            return Unknown("a part of its configuration is not known")
        return numbers


def _config(kind: str) -> Any:
    def made(reader: Reader, args: Args, path: str) -> Any:
        defaults = {name: Known(v, Source("library_default", args.line, kind)) for name, v in _DEFAULTS[kind].items()}
        return ModelConfig(kind, defaults | args.keywords, args.more)

    return made


for _kind in _DEFAULTS:
    function(_kind)(_config(_kind))


@function("HookedTransformerConfig")
def _hooked_config(reader: Reader, args: Args, path: str) -> Any:
    return ModelConfig("HookedTransformerConfig", dict(args.keywords), args.more)


def _loaded(reader: Reader, args: Args, model: Model, path: str) -> Model:
    model.load = reader.record("load", path, args, model.common() | {"device": model.device}, subject=model)
    return model


def _built(kind: str) -> Any:
    def made(reader: Reader, args: Args, path: str) -> Any:
        config = args.get(0, "config")
        if not isinstance(config, ModelConfig):
            return Unknown("a model of a configuration that is not known")
        name = config.plain()
        if isinstance(name, dict):
            name = Known(name, Source("computed", args.line))
        default = Known("float32", Source("library_default", args.line, "transformers"))
        given = args.get(None, "dtype", "torch_dtype")
        device = Known("cpu", Source("library_default", args.line, "transformers"))
        model = HuggingFaceModel(name, default if is_none(given) else dtype_of(given), device)
        return _loaded(reader, args, model, kind)

    return made


for _class in _CLASS_OF:
    function(_class)(_built(_class))


@class_method("from_config", "AutoModelForCausalLM", "AutoModel")
def _from_config(reader: Reader, args: Args, path: str) -> Any:
    return _built("AutoModelForCausalLM.from_config")(reader, args, path)


@function("HookedTransformer", "HookedSAETransformer")
def _hooked(reader: Reader, args: Args, path: str) -> Any:
    config = args.get(0, "cfg")
    values = config.values if isinstance(config, ModelConfig) else config.items if isinstance(config, Dict) else None
    if values is None:
        return Unknown("a model of a configuration that is not known")
    dtype = values.get("dtype")
    device = values.get("device")
    default = Known("float32", Source("library_default", args.line, "TransformerLens"))
    where = Unknown("the library chooses it") if is_none(device) else device_of(device)
    model = HookedModel(
        "transformer_lens", hooked_numbers(values), default if is_none(dtype) else dtype_of(dtype), where,
        no_processing=Known(not str(known(values.get("normalization_type"))).endswith("Pre")),
    )  # fmt: skip
    for name in ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in"):
        if known(values.get(name)) is True:
            model.switch(name, values[name])
    return _loaded(reader, args, model, "HookedTransformer")


def hooked_numbers(values: dict[str, Any]) -> Any:
    """A HookedTransformerConfig as a model's numbers (3.9.0, HookedTransformerConfig.py)."""
    numbers: dict[str, Any] = {"architecture": "NeelToy", "positional": "learned", "gated_mlp": False}
    for name in _HOOKED:
        value = values.get(name)
        if isinstance(value, Unknown):
            return Unknown(f"{name} of its configuration: {value.why}")
        if not is_none(value):
            numbers[name] = known(value)
    if known(values.get("attn_only")) is True:
        numbers["d_mlp"] = 0
    if "n_heads" not in numbers and isinstance(numbers.get("d_model"), int) and isinstance(numbers.get("d_head"), int):
        numbers["n_heads"] = numbers["d_model"] // numbers["d_head"]
    norm = known(values.get("normalization_type", Known("LNPre")))
    numbers["norm"] = _NORMS.get(str(norm), "none")
    kind = known(values.get("positional_embedding_type", Known("standard")))
    if kind != "standard":
        numbers["positional"] = "rotary" if kind == "rotary" else str(kind)
    if known(values.get("gated_mlp")) is True:
        numbers["gated_mlp"] = True
    return Known(numbers, Source("computed"))

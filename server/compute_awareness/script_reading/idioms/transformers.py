"""transformers: models, forward passes, generation, pipelines. Defaults are those of 5.x."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..operations import binary, truthy
from ..values import Args, Bound, Choice, Dict, Items, Known, Source, Thing, Unknown, is_none, known
from .models import Model, Module
from .registry import class_method, function, method
from .tokens import Text, Tokenizer, token_ids
from .torch_modes import device_of, dtype_of
from .torch_tensors import Tensor
from .transformer_lens import Logits

if TYPE_CHECKING:
    from ..events import Event
    from ..reader import Reader

_METHODS = frozenset(("generate", "forward", "parameters", "named_parameters", "to", "eval", "train", "state_dict"))
_CONFIG = {
    "hidden_size": "d_model", "n_embd": "d_model", "num_hidden_layers": "n_layers", "n_layer": "n_layers",
    "num_attention_heads": "n_heads", "n_head": "n_heads", "vocab_size": "d_vocab", "intermediate_size": "d_mlp",
    "max_position_embeddings": "n_ctx", "n_positions": "n_ctx", "head_dim": "d_head",
    "num_key_value_heads": "n_kv_heads",
}  # fmt: skip
_QUANTISED = {"load_in_4bit": "bitsandbytes_4bit", "load_in_8bit": "bitsandbytes_8bit"}


class Config(Thing):
    """`model.config`."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def attribute(self, name: str, reader: Reader) -> Any:
        spec = self.model.spec()
        if spec is None:
            return Unknown("the model is not known")
        return Known(getattr(spec, _CONFIG[name]), Source("model")) if name in _CONFIG else Unknown(f"config.{name}")

    def set_attribute(self, name: str, value: Any, reader: Reader) -> None:
        if name in ("output_hidden_states", "output_attentions"):
            self.model.fields[name] = value


class Output(Thing):
    """What a forward pass returns."""

    label = "output"

    def __init__(self, model: Model, event: Event | None, batch: Any, seq_len: Any) -> None:
        self.model, self.event, self.batch, self.seq_len = model, event, batch, seq_len

    def held(self) -> Iterable[Any]:
        return (self.attribute("logits", None), self.states())

    def states(self) -> Any:
        return Hidden(self.event) if known_true(self.event, "output_hidden_states") else None

    def attribute(self, name: str, reader: Reader | None) -> Any:
        spec = self.model.spec()
        dtype = str(known(self.model.dtype) or "float32")
        if name == "logits":
            vocabulary = Known(spec.d_vocab, Source("model")) if spec else Unknown("the vocabulary")
            return Logits(self.event, [self.batch, self.seq_len, vocabulary], dtype)
        if name == "loss":
            return Logits(self.event, [], "float32")
        if name in ("hidden_states", "attentions"):
            width = Known(spec.d_model, Source("model")) if spec else Unknown("the width")
            count = spec.n_layers + 1 if spec else None
            states = [
                Tensor([self.batch, self.seq_len, width], dtype, None, [Hidden(self.event)])
                for _ in range(min(count or 1, 200))
            ]
            for at, state in enumerate(states):
                state.graph, state.share = self.event, at / max(1, len(states) - 1)
            return Items("tuple", states, count is None)
        if name in ("last_hidden_state",):
            width = Known(spec.d_model, Source("model")) if spec else Unknown("the width")
            state = Tensor([self.batch, self.seq_len, width], dtype)
            state.graph = self.event
            return state
        return Unknown(f"output.{name}")

    def item(self, index: Any, reader: Reader) -> Any:
        if isinstance(known(index), str):
            return self.attribute(known(index), reader)
        return self.attribute("logits", reader) if known(index) == 0 else Unknown("a part of the output")


class Hidden(Thing):
    """The hidden states of a pass, alive together."""

    label = "hidden states"

    def __init__(self, event: Event | None) -> None:
        self.event = event


def known_true(event: Event | None, name: str) -> bool:
    return event is not None and known(event.fields.get(name)) is True


class HuggingFaceModel(Model):
    """A model of transformers."""

    label = "model"
    library = "transformers"

    def attribute(self, name: str, reader: Reader) -> Any:
        if name == "config":
            return Config(self)
        if name in ("device", "dtype", "tokenizer"):
            return super().attribute(name, reader)
        return Bound(self, name) if name in _METHODS else Module(self, name)

    def context(self) -> int | None:
        spec = self.spec()
        return None if spec is None else spec.n_ctx

    def sizes(self, args: Args, reader: Reader, place: int | None = 0) -> tuple[Any, Any]:
        given = args.get(place, "input_ids", "inputs", "inputs_embeds", "decoder_input_ids")
        if isinstance(given, Dict):
            given = given.items.get("input_ids")
        if given is None or isinstance(given, Unknown):
            why = Unknown("the input is not known")
            return why, self.capped(why, self.context())
        if isinstance(given, Choice):
            batch, seq_len = self.merged([self.input_shape(option, reader) for option in given.options])
        else:
            batch, seq_len = self.input_shape(given, reader)
        return batch, self.capped(seq_len, self.context())

    def switch(self, name: str, args: Args) -> Known:
        """A switch of the call, else of the model's configuration, else off."""
        given = args.get(None, name)
        if given is None or isinstance(given, Unknown):
            given = self.fields.get(name, Known(False))
        return Known(truthy(given) is True, Source("computed"))

    def call(self, args: Args, reader: Reader) -> Any:
        batch, seq_len = self.sizes(args, reader)
        fields = self.common() | {
            "batch_size": batch, "seq_len": seq_len,
            "output_hidden_states": self.switch("output_hidden_states", args),
            "output_attentions": self.switch("output_attentions", args),
            "with_gradients": Known(reader.with_gradients and self.requires_gradients, Source("computed")),
            "autocast": Known(reader.autocast[-1]) if reader.autocast[-1] else self.fields.get("autocast", Known(None)),
        }  # fmt: skip
        if not is_none(used := args.get(None, "use_cache")) and isinstance(known(used), bool):
            fields["kv_cache"] = used
        event = reader.record("inference", f"{self.label}.forward", args, fields, subject=self)
        return Output(self, event, batch, seq_len)

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        match name:
            case "generate":
                return self.generate(args, reader)
            case "gradient_checkpointing_enable":
                self.fields["gradient_checkpointing"] = Known(True, Source("literal", args.line))
                return Known(None)
            case "save_pretrained" | "push_to_hub" | "resize_token_embeddings" | "state_dict" | "load_state_dict":
                return Unknown(f"model.{name}()")
            case "get_input_embeddings" | "get_output_embeddings":
                return Module(self, "embed_tokens")
            case "merge_and_unload" | "enable_input_require_grads" | "disable_adapter":
                return self
        return super().method(name, args, reader)

    def generate(self, args: Args, reader: Reader) -> Any:
        batch, seq_len = self.sizes(args, reader)
        kept = truthy(args.get(None, "use_cache", default=Known(True)))
        fields = self.common() | {
            "batch_size": batch, "seq_len": seq_len, "new_tokens": self.new_tokens(args, seq_len),
            "kv_cache": Known(kept is not False),
        }  # fmt: skip
        reader.record("generation", f"{self.label}.generate", args, fields, subject=self)
        total = binary(ast.Add, seq_len, fields["new_tokens"], args.line)
        return Tensor([batch, total], "int64")

    def new_tokens(self, args: Args, seq_len: Any) -> Any:
        """`max_new_tokens`, or `max_length` less the prompt, or the default of 20."""
        config = args.get(None, "generation_config")
        given = args.get(None, "max_new_tokens")
        if given is None and isinstance(config, Dict):
            given = config.items.get("max_new_tokens")
        if not is_none(given):
            return given
        whole = args.get(None, "max_length")
        if not is_none(whole):
            return binary(ast.Sub, whole, seq_len, args.line)
        if args.more or not is_none(config):
            return Unknown("the generation's configuration is not known")
        return Known(20, Source("library_default", args.line, "transformers"))


@function("BitsAndBytesConfig", "GenerationConfig")
def _settings(reader: Reader, args: Args, path: str) -> Any:
    return Dict(dict(args.keywords), args.more)


def quantization(args: Args) -> Any:
    """The quantisation that a load asks for; None where it asks for none."""
    config = args.get(None, "quantization_config")
    given = config.items if isinstance(config, Dict) else {}
    for name, kind in _QUANTISED.items():
        if truthy(args.keywords.get(name, given.get(name, Known(False)))) is True:
            return Known(kind, Source("literal", args.line))
    return None if is_none(config) or isinstance(config, Dict) else Unknown("the quantisation is not known")


def _max_memory(args: Args) -> Known | None:
    """Limits of `device_map="auto"` for one card; None where there are none, or for several cards."""
    given = args.get(None, "max_memory")
    if not isinstance(given, Dict) or given.more or known(args.get(None, "device_map")) not in ("auto", "balanced"):
        return None
    sizes = {str(device): known(size) for device, size in given.items.items()}
    if "0" not in sizes or sizes.keys() - {"0", "cpu"} or None in sizes.values():
        return None
    return Known(sizes, Source("literal", args.line))


def load(reader: Reader, args: Args, path: str, kind: type[HuggingFaceModel], name: Any) -> HuggingFaceModel:
    """A model of `from_pretrained`, or of nnsight's `LanguageModel`."""
    given = args.get(None, "dtype", "torch_dtype")
    default = Known("auto", Source("library_default", args.line, "transformers 5"))
    mapped = args.get(None, "device_map", "device")
    device = (
        Known("cpu", Source("library_default", args.line, "transformers")) if is_none(mapped) else device_of(mapped)
    )
    fields: dict[str, Any] = {}
    attention = args.get(None, "attn_implementation")
    if isinstance(plain := known(attention), str):
        fields["attention"] = Known("eager" if plain == "eager" else "sdpa", Source("literal", args.line))
    if (quantised := quantization(args)) is not None:
        fields["quantization"] = quantised
    for switch in ("output_hidden_states", "output_attentions"):
        if switch in args.keywords:
            fields[switch] = args.keywords[switch]
    if (limits := _max_memory(args)) is not None:
        fields["max_memory"] = limits
    model = kind(name, default if is_none(given) else dtype_of(given), device, **fields)
    event = reader.record("load", path, args, model.common() | {"device": device}, subject=model)
    model.load = event
    return model


@class_method("from_pretrained", "ForCausalLM", "LMHeadModel", "Model", "ForConditionalGeneration", "ForMaskedLM",
              "ForSequenceClassification", "ForImageTextToText", "ForSeq2SeqLM")  # fmt: skip
def _from_pretrained(reader: Reader, args: Args, path: str) -> Any:
    name = args.get(0, "pretrained_model_name_or_path", default=Unknown("no name is given"))
    return load(reader, args, ".".join(path.split(".")[-2:]), HuggingFaceModel, name)


class Pipeline(Thing):
    """`pipeline("text-generation", model=...)`."""

    label = "pipeline"

    def __init__(self, model: HuggingFaceModel) -> None:
        self.model = model

    def held(self) -> Iterable[Any]:
        return (self.model,)

    def attribute(self, name: str, reader: Reader) -> Any:
        if name == "model":
            return self.model
        return Tokenizer(self.model.name) if name == "tokenizer" else Bound(self, name)

    def call(self, args: Args, reader: Reader) -> Any:
        ids = token_ids(args.get(0), reader)
        given = Args((ids,), {k: v for k, v in args.keywords.items() if k != "batch_size"}, args.node, args.more)
        self.model.generate(given, reader)
        return Text(ids.dim(0))


@function("transformers.pipeline", "pipeline")
def _pipeline(reader: Reader, args: Args, path: str) -> Any:
    task = known(args.get(0, "task"))
    held = args.get(1, "model")
    if task not in (None, "text-generation") or held is None:
        return Unknown("a pipeline")
    if isinstance(held, HuggingFaceModel):
        return Pipeline(held)
    return Pipeline(load(reader, args, "pipeline", HuggingFaceModel, held))


@method("generate")
def _generate_of_unknown(reader: Reader, owner: Any, args: Args) -> Any:
    """`model.generate(...)` where the model is an argument that nobody gives."""
    if not isinstance(owner, Unknown | Bound) or "max_new_tokens" not in args.keywords:
        return None
    why = Unknown("the model is not known")
    return HuggingFaceModel(why, why, why).generate(args, reader)

"""TransformerLens: HookedTransformer and TransformerBridge. Defaults are those of 3.9.0 (HookedTransformer.py)."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..operations import binary, truthy
from ..values import Args, Choice, Dict, Items, Known, Source, Thing, Unknown, is_none, known
from .activation_cache import Cache
from .hook_filter import names_filter
from .models import Model
from .registry import function, method
from .tokens import Text, token_ids
from .torch_modes import device_of, dtype_of
from .torch_tensors import Tensor

if TYPE_CHECKING:
    from ..events import Event
    from ..reader import Reader

_CLASSES = (
    "HookedTransformer",
    "HookedSAETransformer",
    "TransformerBridge",
    "SAETransformerBridge",
    "HookedRootModule",
)
SWITCHES = ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in")
_CFG = {
    "d_model": "d_model", "n_layers": "n_layers", "n_heads": "n_heads", "d_head": "d_head", "d_mlp": "d_mlp",
    "d_vocab": "d_vocab", "n_key_value_heads": "n_kv_heads", "d_vocab_out": "d_vocab",
}  # fmt: skip


class Logits(Tensor):
    """What a forward pass returns; it may hold the graph for backward."""

    def __init__(self, event: Event | None, shape: Iterable[Any] | None, dtype: str) -> None:
        super().__init__(shape, dtype)
        self.event = self.graph = event


class Config(Thing):
    """`model.cfg`."""

    def __init__(self, model: HookedModel) -> None:
        self.model = model

    def attribute(self, name: str, reader: Reader) -> Any:
        if name in SWITCHES:
            return self.model.fields.get(name, Known(False))
        if name == "device":
            return self.model.device
        if name == "dtype":
            return self.model.dtype
        if name == "model_name":
            return self.model.name
        spec = self.model.spec()
        if spec is None:
            return Unknown("the model is not known")
        source = Source("model", 0, spec.name)
        if name in ("n_ctx", "n_positions"):
            return Known(spec.n_ctx_tl or spec.n_ctx, source)
        return Known(getattr(spec, _CFG[name]), source) if name in _CFG else Unknown(f"cfg.{name}")

    def set_attribute(self, name: str, value: Any, reader: Reader) -> None:
        if name in SWITCHES:
            self.model.switch(name, value)

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        return Unknown(f"cfg.{name}()")


class HookedModel(Model):
    """HookedTransformer or TransformerBridge."""

    label = "HookedTransformer"

    def __init__(self, library: str, name: Any, dtype: Any, device: Any, **fields: Any) -> None:
        super().__init__(name, dtype, device, **fields)
        self.library = library

    def switch(self, name: str, value: Any) -> None:
        line = value.source.line if isinstance(value, Known) else 0
        self.fields[name] = Known(truthy(value) is not False, Source("literal", line))

    def common(self) -> dict[str, Any]:
        return super().common() | {name: self.fields.get(name, Known(False)) for name in SWITCHES}

    def context(self) -> int | None:
        spec = self.spec()
        return None if spec is None else spec.n_ctx_tl or spec.n_ctx

    def sizes(self, value: Any, reader: Reader) -> tuple[Any, Any]:
        if isinstance(value, Dict):
            value = next((value.items[n] for n in ("input_ids", "tokens", "input") if n in value.items), value)
        if isinstance(value, Choice):
            return self.merged([self.sizes(option, reader) for option in value.options])
        if not isinstance(value, Tensor):  # HookedTransformer tokenizes: BOS and at most a token a byte
            ids = token_ids(value, reader, special=1)
            batch, seq_len = ids.dim(0), ids.dim(1)
        else:
            batch, seq_len = self.input_shape(value, reader)
        return batch, self.capped(seq_len, self.context())

    def attribute(self, name: str, reader: Reader) -> Any:
        if name in ("cfg", "config"):
            return Config(self)
        if name[:2] in ("W_", "b_"):
            return Tensor(None, str(known(self.dtype) or "float32"))
        return super().attribute(name, reader)

    def call(self, args: Args, reader: Reader) -> Any:
        return self.forward(args, reader, "forward")

    def forward(self, args: Args, reader: Reader, name: str) -> Any:
        batch, seq_len = self.sizes(args.get(0, "input"), reader)
        stop = args.get(None, "stop_at_layer")
        fields = self.common() | {"batch_size": batch, "seq_len": seq_len, "with_gradients": self.graph(reader)}
        if not is_none(stop):
            fields["stop_at_layer"] = stop
        event = reader.record("inference", f"{self.label}.{name}", args, fields, subject=self)
        spec = self.spec()
        vocabulary = Known(spec.d_vocab, Source("model")) if spec else Unknown("the vocabulary")
        kind = known(args.get(1, "return_type", default=Known("logits")))
        if kind == "both":
            return Items(
                "tuple", [Logits(event, [batch, seq_len, vocabulary], "float32"), Logits(event, [], "float32")]
            )
        if kind == "loss":
            return Logits(event, [], "float32")
        return Logits(event, [batch, seq_len, vocabulary], str(known(self.dtype) or "float32"))

    def graph(self, reader: Reader) -> Known:
        on = reader.with_gradients and self.requires_gradients
        return Known(on, Source("computed"))

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        match name:
            case "run_with_cache":
                return self.run_with_cache(args, reader)
            case "run_with_hooks" | "forward" | "loss_fn" if name != "loss_fn":
                return self.forward(args, reader, name)
            case "run_with_cache_with_saes" | "run_with_saes" | "run_with_hooks_with_saes":
                from .sae_lens import spliced

                return spliced(self, name, args, reader)
            case "generate" | "generate_stream":
                return self.generate(args, reader)
            case "to_tokens":
                return token_ids(args.get(0, "input"), reader, special=1)
            case "to_single_token" | "to_string" | "to_str_tokens":
                return Unknown(f"{name}()", line=args.line)
            case "tokenizer":
                return super().attribute(name, reader).call(args, reader)
            case "enable_compatibility_mode":
                self.fields["compatibility_mode"] = Known(True, Source("literal", args.line))
                if truthy(args.get(None, "no_processing", default=Known(False))):
                    self.fields["no_processing"] = Known(True, Source("literal", args.line))
                if self.load:
                    self.load.fields.update(self.fields)
                return Known(None)
            case "hooks" | "saes":
                return self
            case _ if name.startswith("set_use_"):
                if (switch := name.removeprefix("set_")) in SWITCHES:
                    self.switch(switch, args.get(0, default=Known(True)))
                return Known(None)
        return super().method(name, args, reader)

    def run_with_cache(self, args: Args, reader: Reader) -> Any:
        batch, seq_len = self.sizes(args.get(0, "input"), reader)
        backward = truthy(args.get(None, "incl_bwd", default=Known(False))) is True
        fields = self.common() | {
            "batch_size": batch, "seq_len": seq_len,
            "names_filter": names_filter(args.get(None, "names_filter"), self, reader),
            "with_gradients": Known(True, Source("literal", args.line)) if backward else self.graph(reader),
        }  # fmt: skip
        if not is_none(stop := args.get(None, "stop_at_layer")):
            fields["stop_at_layer"] = stop
        device = args.get(None, "device")
        if str(known(device)) == "cpu" and str(known(self.device)) != "cpu":
            fields["cache_device"] = Known("cpu", Source("literal", args.line))
        event = reader.record("activation_cache", f"{self.label}.run_with_cache", args, fields, subject=self)
        cache = Cache(event, batch, seq_len, self)
        cache.on_cpu = "cache_device" in fields
        if event is not None:
            event.result = event.result or []
            event.result.append(cache)
            if not is_none(args.get(None, "pos_slice")):
                event.notes.append("pos_slice keeps fewer positions than are counted")
        spec = self.spec()
        vocabulary = Known(spec.d_vocab, Source("model")) if spec else Unknown("the vocabulary")
        logits = Logits(event, [batch, seq_len, vocabulary], str(known(self.dtype) or "float32"))
        return Items("tuple", [logits, cache])

    def generate(self, args: Args, reader: Reader) -> Any:
        batch, seq_len = self.sizes(args.get(0, "input", default=Known("")), reader)
        tokens = args.get(1, "max_new_tokens", default=Known(10, Source("library_default", args.line, "generate")))
        kept = truthy(args.get(None, "use_past_kv_cache", default=Known(True)))
        fields = self.common() | {
            "batch_size": batch, "seq_len": seq_len, "new_tokens": tokens,
            "kv_cache": Known(True) if kept is None else Known(kept),
        }  # fmt: skip
        reader.record("generation", f"{self.label}.generate", args, fields, subject=self)
        if isinstance(args.get(0, "input"), Tensor):
            return Tensor([batch, binary(ast.Add, seq_len, tokens, args.line)], "int64")
        return Text(batch)


def short(path: str) -> str:
    """`HookedTransformer.from_pretrained` of whatever it was imported as."""
    return ".".join(path.split(".")[-2:])


def _load(reader: Reader, args: Args, path: str, library: str, **fields: Any) -> HookedModel:
    name = args.get(0, "model_name", default=Unknown("no name is given"))
    default = Known("float32", Source("library_default", args.line, "TransformerLens"))
    dtype = args.get(None, "dtype", "torch_dtype")
    given = args.get(None, "device")
    device = Unknown("the library chooses it") if is_none(given) else device_of(given)
    model = HookedModel(library, name, default if is_none(dtype) else dtype_of(dtype), device, **fields)
    event = reader.record("load", short(path), args, model.common() | {"device": device}, subject=model)
    model.load = event
    if event is not None and not is_none(args.get(None, "hf_model")):
        event.notes.append("hf_model stays alive beside it as long as the script holds it")
    if event is not None and event.subject is not model:
        event.subject = model
    return model


@function(*(f"{name}.from_pretrained" for name in _CLASSES))
def _from_pretrained(reader: Reader, args: Args, path: str) -> Any:
    return _load(reader, args, path, "transformer_lens", no_processing=Known(False))


@function(*(f"{name}.from_pretrained_no_processing" for name in _CLASSES))
def _no_processing(reader: Reader, args: Args, path: str) -> Any:
    return _load(reader, args, path, "transformer_lens", no_processing=Known(True, Source("literal", args.line)))


@function("TransformerBridge.boot_transformers", "SAETransformerBridge.boot_transformers", "TransformerBridge.boot")
def _boot(reader: Reader, args: Args, path: str) -> Any:
    return _load(reader, args, path, "transformer_bridge", compatibility_mode=Known(False))


def some_model(reader: Reader, library: str = "transformer_lens") -> HookedModel:
    """A model that is not known: an argument that nobody gives."""
    why = Unknown("the model is not known")
    return HookedModel(library, why, Unknown("the model is not known"), Unknown("the model is not known"))


@method("run_with_cache", "run_with_hooks", "run_with_cache_with_saes", "run_with_saes")
def _of_unknown(reader: Reader, owner: Any, args: Args) -> Any:
    name = args.node.func.attr if args.node and isinstance(args.node.func, ast.Attribute) else "run_with_cache"
    return some_model(reader).method(name, args, reader)


_PATCHING = (
    "get_act_patch_resid_pre", "get_act_patch_resid_mid", "get_act_patch_attn_out", "get_act_patch_mlp_out",
    "get_act_patch_attn_head_out_by_pos", "get_act_patch_attn_head_q_by_pos", "get_act_patch_attn_head_k_by_pos",
    "get_act_patch_attn_head_v_by_pos", "get_act_patch_attn_head_pattern_by_pos",
    "get_act_patch_attn_head_out_all_pos", "get_act_patch_attn_head_q_all_pos", "get_act_patch_attn_head_k_all_pos",
    "get_act_patch_attn_head_v_all_pos", "get_act_patch_attn_head_pattern_all_pos",
    "get_act_patch_attn_head_all_pos_every",
    "get_act_patch_attn_head_by_pos_every", "get_act_patch_block_every", "generic_activation_patch",
)  # fmt: skip


@function(*_PATCHING)
def _patch(reader: Reader, args: Args, path: str) -> Any:
    model = args.get(0, "model")
    for one in model.options if isinstance(model, Choice) else (model,):
        held = one if isinstance(one, HookedModel) else some_model(reader)
        batch, seq_len = held.sizes(args.get(1, "corrupted_tokens"), reader)
        cache = args.get(2, "clean_cache")
        kept = cache.event.fields.get("names_filter") if isinstance(cache, Cache) and cache.event else Known(None)
        if isinstance(cache, Cache):
            cache.read_all = True
        fields = held.common() | {
            "method": Known("activation_patching"), "batch_size": batch, "seq_len": seq_len, "names_filter": kept,
        }  # fmt: skip
        reader.record("patching", f"patching.{path.rpartition('.')[2]}", args, fields, subject=held)
    return Tensor(None)

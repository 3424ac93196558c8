"""SAELens: runner configurations, training runs, trained SAEs. Defaults are those of 6.54 (config.py)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..operations import truthy
from ..values import Args, Bound, Choice, Dict, Instance, Items, Known, Source, Thing, Unknown, is_none, known, number
from .registry import function
from .torch_modes import device_of, dtype_of
from .torch_tensors import Tensor

if TYPE_CHECKING:
    from ..reader import Reader
    from .transformer_lens import HookedModel

_ARCHITECTURES = {
    "Standard": "standard", "Gated": "gated", "TopK": "topk", "BatchTopK": "batchtopk", "JumpReLU": "jumprelu",
    "MatryoshkaBatchTopK": "matryoshka_batchtopk", "MatchingPursuit": "matching_pursuit", "AbsTopK": "abstopk",
    "Temporal": "temporal", "Transcoder": "transcoder", "SkipTranscoder": "skip_transcoder",
    "JumpReLUTranscoder": "jumprelu_transcoder",
}  # fmt: skip
_RUNNER = {
    "train_batch_size_tokens": 4096, "context_size": 128, "n_batches_in_buffer": 20, "store_batch_size_prompts": 32,
    "training_tokens": 2_000_000, "autocast": False, "autocast_lm": False,
}  # fmt: skip
_WIDTH = re.compile(r"width_(\d+)(k|m)(?![a-z0-9])")
_LOGS = {"wandb_log_frequency": 10, "eval_every_n_wandb_logs": 100}
_OF_SAE = ("d_in", "d_sae", "k", "matryoshka_widths", "dtype", "max_iterations", "residual_threshold")


def default(value: Any, line: int) -> Known:
    return Known(value, Source("library_default", line, "SAELens"))


class SaeConfig(Thing):
    """`TopKTrainingSAEConfig(...)` and the like, or `StandardSAEConfig`."""

    label = "SAE config"

    def __init__(self, architecture: str, fields: dict[str, Any]) -> None:
        self.architecture = architecture
        self.fields = fields

    def attribute(self, name: str, reader: Reader) -> Any:
        return self.fields.get(name, Bound(self, name))

    def set_attribute(self, name: str, value: Any, reader: Reader) -> None:
        self.fields[name] = value


class RunnerConfig(Thing):
    """`LanguageModelSAERunnerConfig(...)`."""

    label = "runner config"

    def __init__(self, args: Args) -> None:
        self.given = dict(args.keywords)
        self.more = args.more
        self.line = args.line
        self.node = args.node

    def attribute(self, name: str, reader: Reader) -> Any:
        if name in self.given:
            return self.given[name]
        return default(_RUNNER[name], self.line) if name in _RUNNER else Unknown(f"cfg.{name}")

    def set_attribute(self, name: str, value: Any, reader: Reader) -> None:
        self.given[name] = value

    def workload(self) -> dict[str, Any]:
        """The fields of the training run."""
        given, line = self.given, self.line
        sae = given.get("sae")
        if isinstance(sae, Choice):
            sae = next((option for option in sae.options if isinstance(option, SaeConfig)), None)
        fields: dict[str, Any] = {"library": Known("sae_lens")}
        if isinstance(sae, SaeConfig):
            fields["architecture"] = Known(sae.architecture, Source("literal", line))
            held = sae.fields
        elif sae is None:  # before 6.0 the SAE's settings stand in the configuration itself
            fields["architecture"] = given.get("architecture", default("standard", line))
            held = given
        else:
            fields["architecture"] = Unknown("the SAE's configuration is not known")
            held = {}
            fields |= {"d_sae": fields["architecture"], "d_in": fields["architecture"]}
        for name in _OF_SAE:
            if name in held and not is_none(held[name]):
                fields[name] = dtype_of(held[name]) if name == "dtype" else held[name]
        if isinstance(given.get("expansion_factor"), Known | Unknown | Choice) and "d_sae" not in fields:
            fields["expansion_factor"] = given["expansion_factor"]
        missing = Unknown("given through **") if self.more else None
        fields["model"] = given.get("model_name", missing or default("gelu-2l", line))
        fields["hook_name"] = given.get("hook_name", missing or default("blocks.0.hook_mlp_out", line))
        for name, value in _RUNNER.items():
            fields[name] = given.get(name, missing or default(value, line))
        if str(known(given.get("act_store_device"))) == "cpu":
            fields["act_store_device"] = given["act_store_device"]
        if not is_none(given.get("eval_batch_size_prompts")):
            fields["eval_batch_size_prompts"] = given["eval_batch_size_prompts"]
        kwargs = given.get("model_from_pretrained_kwargs")
        dtype = next((kwargs.items[n] for n in ("dtype", "torch_dtype") if n in kwargs.items), None) if isinstance(
            kwargs, Dict) else None  # fmt: skip
        fields["model_dtype"] = dtype_of(dtype) if dtype is not None else default("float32", line)
        fields["evaluation"] = self._evaluates()
        often = [number(self._logging(name, value)) for name, value in _LOGS.items()]
        if often[0] is not None and often[1] is not None and often[0] * often[1] >= 1:
            fields["eval_every_n_steps"] = Known(often[0] * often[1], Source("computed", line))
        return fields

    def _logging(self, name: str, value: Any) -> Any:
        logger = self.given.get("logger")
        held = logger.items if isinstance(logger, Dict) else self.given if logger is None else {}
        return held.get(name, default(value, self.line))

    def _evaluates(self) -> Any:
        """SAELens evaluates while it logs to wandb, which it does unless it is told not to."""
        logger = self.given.get("logger", self.given)
        log = logger.items.get("log_to_wandb") if isinstance(logger, Dict) else None
        if isinstance(logger, dict):
            log = logger.get("log_to_wandb")
        if log is None:
            return default(True, self.line)
        truth = truthy(log)
        return Unknown("whether it logs to wandb") if truth is None else Known(truth, Source("literal", self.line))


def _sae_config(architecture: str) -> Any:
    def made(reader: Reader, args: Args, path: str) -> Any:
        names = ("d_in", "d_sae")
        fields = dict(zip(names, args.positional, strict=False)) | args.keywords
        return SaeConfig(architecture, fields)

    return made


for _prefix, _architecture in _ARCHITECTURES.items():
    function(f"{_prefix}TrainingSAEConfig", f"{_prefix}SAEConfig", f"{_prefix}Config")(_sae_config(_architecture))


@function("LanguageModelSAERunnerConfig", "LanguageModelSAETrainingRunnerConfig")
def _runner_config(reader: Reader, args: Args, path: str) -> Any:
    return RunnerConfig(args)


@function("LoggingConfig", "sae_lens.LoggingConfig")
def _logging(reader: Reader, args: Args, path: str) -> Any:
    return Dict(dict(args.keywords), args.more)


class Runner(Thing):
    """A training run that is ready to start."""

    label = "runner"

    def __init__(self, config: Any, model: Any) -> None:
        self.config, self.model = config, model

    def held(self) -> Iterable[Any]:
        return (self.config, self.model)

    def attribute(self, name: str, reader: Reader) -> Any:
        return self.config if name in ("cfg", "config") else Bound(self, name)

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        if name != "run":
            return Unknown(f"runner.{name}()", line=args.line)
        for config in self.config.options if isinstance(self.config, Choice) else (self.config,):
            if isinstance(config, RunnerConfig):
                fields = config.workload()
            else:
                why = Unknown("the runner's configuration is not known")
                fields = {"library": Known("sae_lens"), "model": why, "d_in": why, "d_sae": why, "hook_name": why,
                          "train_batch_size_tokens": why, "architecture": why}  # fmt: skip
            event = reader.record(
                "sae_training", "LanguageModelSAETrainingRunner.run", args, fields, subject=self.model
            )
            if event is not None and isinstance(config, RunnerConfig) and config.node is not None:
                event.nodes["config"] = config.node
            if event is not None and self.model is None:
                event.notes.append("the runner loads the language model itself")
        return TrainedSae({}, None)


@function("LanguageModelSAETrainingRunner", "SAETrainingRunner", "LanguageModelSAERunner")
def _runner(reader: Reader, args: Args, path: str) -> Any:
    model = args.get(1, "override_model")
    return Runner(args.get(0, "cfg", default=Unknown("no configuration")), None if is_none(model) else model)


@function("language_model_sae_runner")
def _old_runner(reader: Reader, args: Args, path: str) -> Any:
    return Runner(args.get(0, "cfg"), None).method("run", args, reader)


class TrainedSae(Thing):
    """An SAE of SAELens: from a release, or built from a configuration."""

    label = "SAE"

    def __init__(self, fields: dict[str, Any], device: Any) -> None:
        self.fields = fields
        self.device = device

    def attribute(self, name: str, reader: Reader) -> Any:
        if name in ("cfg", "metadata"):
            return self
        if name in ("hook_name", "d_in", "d_sae"):
            return self.fields.get(name, Unknown(f"the SAE's {name}"))
        if name in ("W_dec", "W_enc", "b_dec", "b_enc"):
            return Tensor(None)
        return Bound(self, name)

    def iterate(self, reader: Reader) -> Items:
        return Items("tuple", [self, Dict({}, True), Unknown("sparsity")])

    def item(self, index: Any, reader: Reader) -> Any:
        return self if known(index) == 0 else Unknown("what comes with an SAE")

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        match name:
            case "to" | "eval" | "cuda" | "cpu" | "train" | "requires_grad_" | "half" | "fold_W_dec_norm":
                for value in args.positional:
                    plain = known(dtype_of(value))
                    if plain in ("float32", "bfloat16", "float16"):
                        self.fields["dtype"] = Known(plain, Source("literal", args.line))
                return self
            case "encode" | "forward" | "__call__" | "encode_with_hidden_pre":
                return self.run(args, reader, name)
            case "decode":
                return Tensor(None)
            case "parameters":
                from .models import Parameters

                return Parameters(self)
        return Unknown(f"SAE.{name}()", line=args.line)

    def call(self, args: Args, reader: Reader) -> Any:
        return self.run(args, reader, "forward")

    def run(self, args: Args, reader: Reader, name: str) -> Any:
        batch, seq_len, width = sizes_of(args.get(0, "x"))
        fields = self.common() | {"batch_size": batch, "seq_len": seq_len}
        if isinstance(fields["d_in"], Unknown) and isinstance(width, Known):
            fields["d_in"] = width
        reader.record("sae_inference", f"SAE.{name}", args, fields, subject=self)
        return Tensor([batch, seq_len, fields["d_sae"]])

    def common(self) -> dict[str, Any]:
        missing = Unknown("stands in the SAE's checkpoint")
        fields = {"library": Known("sae_lens"), "d_in": missing, "d_sae": missing} | self.fields
        fields.pop("hook_name", None)
        return fields


def sizes_of(value: Any) -> tuple[Any, Any, Any]:
    """Batch, length and width of activations."""
    unknown = Unknown("the shape of the activations is not known")
    shape = value.shape if isinstance(value, Tensor) else None
    if not shape:
        return unknown, unknown, unknown
    if len(shape) == 1:
        return Known(1), Known(1), shape[0]
    if len(shape) == 2:
        return Known(1), shape[0], shape[1]
    return shape[0], shape[1], shape[2] if len(shape) == 3 else unknown


@function("SAE.from_pretrained", "SAE.from_pretrained_with_cfg_and_sparsity", "SAE.load_from_pretrained",
          "SAE.load_from_disk", "TrainingSAE.load_from_disk", "Transcoder.from_pretrained",
          "SparseAutoencoder.from_pretrained", "SparseAutoencoder.load_from_pretrained")  # fmt: skip
def _pretrained(reader: Reader, args: Args, path: str) -> Any:
    fields: dict[str, Any] = {}
    sae_id = args.get(1, "sae_id")
    if isinstance(plain := known(sae_id), str) and "hook_" in plain and "/" not in plain:
        fields["hook_name"] = sae_id
    if isinstance(plain := known(sae_id), str) and (width := _WIDTH.search(plain)):
        # Gemma Scope and those that follow it: width_16k is 2**14 features, width_1m 2**20.
        size = int(width.group(1)) * {"k": 1000, "m": 10**6}[width.group(2)]
        fields["d_sae"] = Known(1 << round(math.log2(size)), Source("computed", args.line))
    given = args.get(None, "dtype")
    fields["dtype"] = default("float32", args.line) if is_none(given) else dtype_of(given)
    device = args.get(2, "device")
    sae = TrainedSae(fields, default("cpu", args.line) if is_none(device) else device_of(device))
    reader.record(
        "load_sae", path, args, {"release": args.get(0, "release"), "sae_id": sae_id, **sae.common()}, subject=sae
    )
    return sae


_KINDS = ("Standard", "TopK", "BatchTopK", "JumpReLU", "Gated")


@function("SAE", "TrainingSAE", "SAE.from_dict", *(f"{kind}{of}" for kind in _KINDS for of in ("SAE", "TrainingSAE")))
def _built(reader: Reader, args: Args, path: str) -> Any:
    config = args.get(0, "cfg")
    if not isinstance(config, SaeConfig):
        return Unknown("an SAE of a configuration that is not known") if not isinstance(config, Instance) else (
            TrainedSae({}, None))  # fmt: skip
    fields = {name: config.fields[name] for name in ("d_in", "d_sae", "k") if name in config.fields}
    fields["architecture"] = Known(config.architecture)
    sae = TrainedSae(fields, config.fields.get("device"))
    reader.record("load_sae", path, args, sae.common(), subject=sae)
    return sae


def spliced(model: HookedModel, name: str, args: Args, reader: Reader) -> Any:
    """`run_with_cache_with_saes(tokens, saes=[...])`: the reconstruction stands in the model's pass."""
    from .activation_cache import Cache
    from .transformer_lens import Logits

    batch, seq_len = model.sizes(args.get(0, "input"), reader)
    held = args.get(None, "saes")
    saes = reader.items_of(held) if held is not None and not isinstance(held, TrainedSae) else Items("list", [held])
    first = next((one for one in saes.items if isinstance(one, TrainedSae)), None)
    of_sae = dict(first.fields) if first else {}
    missing = Unknown("stands in the SAE's checkpoint")
    fields = {
        "library": Known("sae_lens"), "model": model.name, "model_dtype": model.dtype, "batch_size": batch,
        "seq_len": seq_len, "splice": Known(True), "keep_features": Known("cache" in name), "d_sae": missing,
        "hook_name": missing, **of_sae,
    }  # fmt: skip
    error = args.get(None, "use_error_term")
    if truthy(error) is True if error is not None else False:
        fields["use_error_term"] = Known(True)
    event = reader.record("sae_inference", f"HookedSAETransformer.{name}", args, fields, subject=model)
    cache = Cache(event, batch, seq_len, model)
    logits = Logits(event, [batch, seq_len, Unknown("the vocabulary")], "float32")
    return Items("tuple", [logits, cache]) if "cache" in name else logits

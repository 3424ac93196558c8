"""The vocabulary of experiments: what is to be run, as one discriminated union on `task`."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .errors import InputError, nearest

Dtype = Literal["float32", "bfloat16", "float16"]
DTYPE_BYTES: dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
_DTYPE_SPELLINGS = {
    "fp32": "float32", "f32": "float32", "float": "float32", "full": "float32",
    "bf16": "bfloat16", "fp16": "float16", "f16": "float16", "half": "float16",
}  # fmt: skip


def _dtype(value: Any) -> Any:
    """`torch.bfloat16`, `bf16`, `BF16` all mean bfloat16."""
    if not isinstance(value, str):
        return value
    name = value.strip().lower().removeprefix("torch.")
    return _DTYPE_SPELLINGS.get(name, name)


def _one_or_many(value: Any) -> Any:
    """A lone string or number stands for a list of one."""
    return [value] if isinstance(value, str | int) and not isinstance(value, bool) else value


DtypeField = Annotated[Dtype, BeforeValidator(_dtype)]
BatchSize = Annotated[int, Field(ge=1, le=1_000_000)]
SeqLen = Annotated[int, Field(ge=1, le=10_000_000)]
Tokens = Annotated[int, Field(ge=1, le=10**15)]
Width = Annotated[int, Field(ge=1, le=10**8)]
ModelRef = Annotated[
    str | dict[str, Any],
    Field(
        description="Catalogue name or alias, Hugging Face id, path of a config.json or model folder, "
        "or an object of architecture numbers",
        examples=["pythia-2.8b", "meta-llama/Llama-2-7b-hf"],
    ),
]
LibraryVersion = Annotated[
    str | None,
    Field(description="Version of `library` in the experiment's Python; null = read from there, else newest verified"),
]


class _Workload(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)


class _ModelWorkload(_Workload):
    """What every task that runs one language model has."""

    model: ModelRef
    batch_size: BatchSize = Field(default=1, description="Sequences per forward pass")
    seq_len: SeqLen = Field(default=1024, description="Tokens per sequence, BOS included")
    dtype: DtypeField = Field(default="float32", description="Dtype of weights and activations")
    no_processing: bool = Field(
        default=False, description="TransformerLens: loaded with from_pretrained_no_processing (norms not folded)"
    )


class Inference(_ModelWorkload):
    """One forward pass without gradients."""

    task: Literal["inference"] = "inference"
    library: Literal["transformer_lens", "transformers"] = Field(
        default="transformer_lens", description="transformer_lens = HookedTransformer"
    )
    library_version: LibraryVersion = None
    kv_cache: bool | None = Field(
        default=None, description="The pass fills a key/value cache; null = the library's default (transformers: yes)"
    )
    attention: Literal["eager", "sdpa"] | None = Field(
        default=None, description="transformers: attention implementation; null = sdpa where the model has it"
    )

    @model_validator(mode="after")
    def _fits_library(self) -> Inference:
        if self.library == "transformer_lens":
            if self.attention == "sdpa":
                raise ValueError("attention 'sdpa' is of transformers; HookedTransformer always computes the scores")
            if self.kv_cache:
                raise ValueError("kv_cache is of transformers here; HookedTransformer keeps none in a plain forward")
        elif self.no_processing:
            raise ValueError("no_processing is of transformer_lens")
        return self


class ActivationCache(_ModelWorkload):
    """TransformerLens `run_with_cache`."""

    task: Literal["activation_cache"] = "activation_cache"
    library: Literal["transformer_lens"] = Field(
        default="transformer_lens", description="transformer_lens = HookedTransformer"
    )
    library_version: LibraryVersion = None
    names_filter: Annotated[list[str] | None, BeforeValidator(_one_or_many)] = Field(
        default=None,
        description="Globs on full hook names, any of them matches; null = every hook",
        examples=[["*hook_resid_post"]],
    )
    layers: Annotated[list[int] | None, BeforeValidator(_one_or_many)] = Field(
        default=None, description="Keep only hooks of these blocks (0-based, negative from the end) of what matches"
    )
    cache_device: Literal["cpu"] | None = Field(
        default=None, description="'cpu' moves each activation to host memory; null = stays with the model"
    )
    stop_at_layer: int | None = Field(
        default=None, description="Stop before this block (negative from the end): no later blocks, no logits"
    )
    with_gradients: bool = Field(default=False, description="Run without torch.no_grad: the autograd graph is kept too")
    use_attn_result: bool = Field(default=False, description="cfg.use_attn_result: per-head outputs")
    use_split_qkv_input: bool = Field(default=False, description="cfg.use_split_qkv_input: inputs per head")
    use_hook_mlp_in: bool = Field(default=False, description="cfg.use_hook_mlp_in")
    use_attn_in: bool = Field(default=False, description="cfg.use_attn_in: attention input per head")


SaeArchitecture = Literal["standard", "topk", "batchtopk", "jumprelu", "gated"]


class SaeTraining(_Workload):
    """An SAELens training run: the SAE step, its activation store, and the language model where one is named."""

    task: Literal["sae_training"] = "sae_training"
    library: Literal["sae_lens"] = "sae_lens"
    library_version: LibraryVersion = None
    architecture: SaeArchitecture = Field(default="standard", description="SAE architecture")
    model: ModelRef | None = Field(
        default=None, description="Language model the activations come from; null = cached activations, d_in is needed"
    )
    hook_name: str | None = Field(
        default=None, description="Hook the SAE reads; its width is d_in", examples=["blocks.6.hook_resid_pre"]
    )
    d_in: Width | None = Field(default=None, description="Width of the SAE's input; null = width of hook_name in model")
    d_sae: Width | None = Field(default=None, description="Number of SAE features; or give expansion_factor")
    expansion_factor: Annotated[float, Field(gt=0, le=100_000)] | None = Field(
        default=None, description="d_sae / d_in; used where d_sae is null"
    )
    k: Annotated[int, Field(ge=1, le=10**6)] = Field(
        default=100, description="Active features per token (topk, batchtopk)"
    )
    train_batch_size_tokens: Tokens = Field(default=4096, description="Tokens per SAE step")
    context_size: SeqLen = Field(default=128, description="Tokens per prompt of the activation store")
    n_batches_in_buffer: Annotated[int, Field(ge=1, le=10**9)] = Field(
        default=20, description="The store's buffer holds n_batches_in_buffer * context_size tokens (SAELens >= 6.27.3)"
    )
    store_batch_size_prompts: BatchSize = Field(
        default=32, description="Prompts per language-model forward of the store"
    )
    training_tokens: Tokens = Field(default=2_000_000, description="Tokens of the whole run (for time, not memory)")
    dtype: Literal["float32"] = Field(default="float32", description="Dtype of the SAE")
    model_dtype: DtypeField = Field(
        default="float32", description="Dtype of the language model (SAELens default: float32)"
    )
    act_store_device: Literal["cpu"] | None = Field(
        default=None, description="'cpu' keeps the activation store in host memory; null = with the SAE"
    )
    autocast: bool = Field(default=False, description="Mixed precision of the SAE step")
    optimizer: Literal["adam"] = Field(default="adam", description="SAELens trains with Adam")

    @model_validator(mode="after")
    def _whole(self) -> SaeTraining:
        if self.autocast:
            raise ValueError("autocast of SAE training is not covered yet; give autocast false")
        if self.model is None and self.d_in is None:
            raise ValueError("give d_in, or model and hook_name")
        if self.model is not None and self.hook_name is None:
            raise ValueError("hook_name is needed with a model, e.g. blocks.6.hook_resid_pre")
        if self.d_sae is None and self.expansion_factor is None:
            raise ValueError("give d_sae or expansion_factor")
        return self


Workload = Annotated[Inference | ActivationCache | SaeTraining, Field(discriminator="task")]
TASKS: dict[str, type[Inference] | type[ActivationCache] | type[SaeTraining]] = {
    "inference": Inference,
    "activation_cache": ActivationCache,
    "sae_training": SaeTraining,
}
PLANNED_TASKS = ("generation", "training", "patching")
PLANNED_LIBRARIES = ("transformer_bridge", "nnsight")
AnyWorkload = Inference | ActivationCache | SaeTraining


def parse_workload(data: Any) -> AnyWorkload:
    """A workload from decoded JSON.

    Raises:
        InputError: one line naming the field, what was given, what is accepted and the nearest match.
    """
    if not isinstance(data, dict):
        raise InputError(f"a workload is a JSON object with a 'task', not {type(data).__name__}")
    task = data.get("task")
    if not isinstance(task, str):
        raise InputError(f"'task' is missing; one of: {', '.join(TASKS)}")
    kind = TASKS.get(task)
    if kind is None:
        if task in PLANNED_TASKS:
            raise InputError(f"task {task!r} is not covered yet; covered: {', '.join(TASKS)}")
        close = nearest(task, TASKS, 1)
        hint = f" (nearest: {close[0]})" if close else ""
        raise InputError(f"unknown task {task!r}{hint}; one of: {', '.join(TASKS)}")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise InputError(explain(error, kind)) from None


def decode_json(text: str) -> Any:
    """What JSON text says. Raises InputError, with the place, for what is not JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON at line {error.lineno} column {error.colno}: {error.msg}") from None
    except (RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else "a number has too many digits"
        raise InputError(f"not valid JSON: {reason}") from None


def load_workload(text: str) -> AnyWorkload:
    """A workload from JSON text. Raises InputError, also for broken JSON."""
    return parse_workload(decode_json(text))


def explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """One line for the first problem pydantic found in a `kind`; says how many more there are."""
    problems = error.errors(include_url=False)
    first = problems[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    given = first.get("input")
    shown = repr(given) if isinstance(given, str | int | float | bool | None) else type(given).__name__
    if len(shown) > 80:
        shown = shown[:77] + "..."
    if first["type"] == "extra_forbidden":
        close = nearest(field, kind.model_fields, 1)
        hint = f"; nearest: {close[0]}" if close else ""
        line = f"unknown field {field[:80]!r}{hint}; accepted: {', '.join(kind.model_fields)}"
    elif first["type"] == "missing":
        line = f"{field!r} is missing"
    elif first["type"] == "literal_error":
        accepted = first.get("ctx", {}).get("expected", "")
        values = [v for v in accepted.replace(" or ", ", ").replace("'", "").split(", ") if v]
        close = nearest(given, values, 1) if isinstance(given, str) else []
        hint = f"; nearest: {close[0]}" if close else ""
        later = " is not covered yet" if given in PLANNED_LIBRARIES else " is not accepted"
        line = f"{field}: {shown}{later}; accepted: {', '.join(values)}{hint}"
    elif first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        line = f"{field}: {message}" if field else message
    else:
        line = f"{field}: {first['msg'].lower()}, not {shown}"
    more = len(problems) - 1
    return line + (f" (and {more} more problem{'s' * (more > 1)})" if more else "")


def field_names() -> list[str]:
    """Every field of every task, in first-seen order: what the command line and the tools offer."""
    seen: dict[str, None] = {}
    for kind in get_args(get_args(Workload)[0]):
        seen.update(dict.fromkeys(kind.model_fields))
    return list(seen)

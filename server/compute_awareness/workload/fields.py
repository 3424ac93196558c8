"""The types that fields of several tasks share, with the spellings they accept and the limits they have."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Dtype = Literal["float32", "bfloat16", "float16"]
DTYPE_BYTES: dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
_MOST_ENTRIES, _LONGEST_ENTRY = 1_000, 300
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


def _not_endless(value: list[Any]) -> list[Any]:
    """What is longer names no hooks, and its pattern would take minutes to compile."""
    if len(value) > _MOST_ENTRIES or any(isinstance(entry, str) and len(entry) > _LONGEST_ENTRY for entry in value):
        raise ValueError(f"at most {_MOST_ENTRIES} entries of at most {_LONGEST_ENTRY} characters")
    return value


DtypeField = Annotated[Dtype, BeforeValidator(_dtype)]
BatchSize = Annotated[int, Field(ge=1, le=1_000_000)]
SeqLen = Annotated[int, Field(ge=1, le=10_000_000)]
Tokens = Annotated[int, Field(ge=1, le=10**15)]
NDevices = Annotated[int, Field(ge=1, le=4096)]
Width = Annotated[int, Field(ge=1, le=10**8)]
Strings = Annotated[list[str], BeforeValidator(_one_or_many), AfterValidator(_not_endless)]
Integers = Annotated[list[int], BeforeValidator(_one_or_many), AfterValidator(_not_endless)]
Reads = Annotated[
    Strings | None,
    Field(
        description="Hooks that the experiment reads of the cache afterwards, by name or glob as in names_filter: with "
        "a names_filter of these nothing is lost. It changes no byte of the run as it stands; null = not known",
        examples=[["*hook_resid_post"]],
    ),
]
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
Attention = Annotated[
    Literal["eager", "sdpa"] | None,
    Field(description="transformers: attention implementation; null = sdpa where the model has it"),
]
Quantization = Annotated[
    Literal["bitsandbytes_8bit", "bitsandbytes_4bit", "gptq_4bit", "awq_4bit", "fp8"] | None,
    Field(description="transformers: how the linear layers are quantised on loading; null = not quantised"),
]

Offload = Annotated[
    Literal["cpu", "disk"] | None,
    Field(
        description="transformers: all weights wait there and come to the card module by module (accelerate); null = no"
    ),
]

Method = Annotated[
    Literal["auto", "closed_form", "trace"],
    Field(
        description="How it is estimated: closed_form = arithmetic; trace = the experiment's own library is run "
        "without weights, in seconds; auto = closed_form, and trace where none covers it"
    ),
]


class Task(BaseModel):
    """The base of every workload."""

    model_config = ConfigDict(extra="forbid", defer_build=True)
    method: Method = "auto"

    @property
    def estimated_by(self) -> Method:
        """How it is to be estimated, under whatever name the task has the field."""
        return self.method


class ModelTask(Task):
    """What every task that runs one language model has."""

    model: ModelRef
    batch_size: BatchSize = Field(default=1, description="Sequences per forward pass")
    seq_len: SeqLen = Field(default=1024, description="Tokens per sequence, BOS included")
    dtype: DtypeField = Field(default="float32", description="Dtype of weights and activations")
    no_processing: bool = Field(
        default=False, description="TransformerLens: loaded with from_pretrained_no_processing (norms not folded)"
    )

"""Training of sparse autoencoders."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from .fields import BatchSize, SeqLen, Tokens, Width
from .libraries import of_task
from .sae_fields import OF_MATCHING_PURSUIT, SaeTask

SaeArchitecture = Literal[
    "standard", "topk", "abstopk", "batchtopk", "matryoshka_batchtopk", "jumprelu", "gated", "matching_pursuit"
]
_INFERENCE_ONLY = "SAELens 6.54 registers it for inference only (no training class); see sae_inference"
_NOT_TRAINED = {
    "transcoder": _INFERENCE_ONLY,
    "skip_transcoder": _INFERENCE_ONLY,
    "jumprelu_transcoder": _INFERENCE_ONLY,
    "jumprelu_skip_transcoder": _INFERENCE_ONLY,
    "temporal": _INFERENCE_ONLY,
    "p_anneal": "not covered yet (PAnnealTrainer of dictionary_learning)",
    "gated_anneal": "not covered yet (GatedAnnealTrainer of dictionary_learning)",
    "standard_april_update": "not covered yet (StandardTrainerAprilUpdate of dictionary_learning)",
}


def _trainable(value: Any) -> Any:
    """Names that SAELens knows but does not train get their reason."""
    if isinstance(value, str) and value in _NOT_TRAINED:
        raise ValueError(f"{value!r} cannot be estimated for training: {_NOT_TRAINED[value]}")
    return value


# Fields of SAELens' activation store and evaluation.
_OF_SAELENS = (
    "context_size", "n_batches_in_buffer", "store_batch_size_prompts", "act_store_device", "evaluation",
    "eval_batch_size_prompts", "eval_every_n_steps", "hook_name", "autocast_lm",
)  # fmt: skip


# Arguments of dictionary_learning's ActivationBuffer.
_OF_BUFFER = ("submodule", "d_submodule", "n_ctxs", "ctx_len", "refresh_batch_size", "out_batch_size")

_SAME = {"d_submodule": "d_in", "out_batch_size": "train_batch_size_tokens"}


class SaeTraining(SaeTask):
    """An SAE training run: the step; where a language model is named, it and what its activations are kept in."""

    task: Literal["sae_training"] = "sae_training"
    library: Annotated[Literal["sae_lens", "dictionary_learning"], of_task("sae_training")] = Field(
        default="sae_lens",
        description="dictionary_learning: trainSAE on activations at hand (d_in), or on an ActivationBuffer (model, "
        "submodule)",
    )
    architecture: Annotated[SaeArchitecture, BeforeValidator(_trainable)] = Field(
        default="standard", description="SAE architecture"
    )
    matryoshka_widths: Annotated[list[Width], Field(max_length=64)] | None = Field(
        default=None,
        description="matryoshka_batchtopk: nested widths, rising; d_sae is added at the end (dictionary_learning: "
        "the running sums of group_fractions * d_sae)",
    )
    n_saes: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=1, description="dictionary_learning: trainers of this shape in trainer_configs; all stay in memory"
    )
    train_batch_size_tokens: Tokens = Field(
        default=4096, description="Tokens per SAE step (dictionary_learning: out_batch_size)"
    )
    submodule: str | None = Field(
        default=None,
        description="dictionary_learning: block of the transformers model, or its MLP, whose output is read",
        examples=["transformer.h.6", "model.layers.6.mlp"],
    )
    d_submodule: Width | None = Field(default=None, description="dictionary_learning: its name for d_in")
    n_ctxs: Annotated[int, Field(ge=1, le=10**9)] = Field(
        default=30_000, description="dictionary_learning: its buffer holds n_ctxs * ctx_len activations"
    )
    ctx_len: SeqLen = Field(default=128, description="dictionary_learning: tokens per text")
    refresh_batch_size: BatchSize = Field(
        default=512, description="dictionary_learning: texts per language-model forward while the buffer refreshes"
    )
    out_batch_size: Tokens | None = Field(
        default=None, description="dictionary_learning: its name for train_batch_size_tokens"
    )
    context_size: SeqLen = Field(default=128, description="Tokens per prompt of the activation store")
    n_batches_in_buffer: Annotated[int, Field(ge=1, le=10**9)] = Field(
        default=20, description="The store's buffer holds n_batches_in_buffer * context_size tokens (SAELens >= 6.27.3)"
    )
    store_batch_size_prompts: BatchSize = Field(
        default=32, description="Prompts per language-model forward of the store"
    )
    training_tokens: Tokens = Field(default=2_000_000, description="Tokens of the whole run (for time, not memory)")
    act_store_device: Literal["cpu"] | None = Field(
        default=None, description="'cpu' keeps the activation store in host memory; null = with the SAE"
    )
    autocast: bool = Field(default=False, description="bfloat16 autocast of the SAE step; it hardly lowers the peak")
    autocast_lm: bool = Field(
        default=False,
        description="bfloat16 autocast of the language model while it fills the "
        "activation store (not in the evaluation)",
    )
    evaluation: bool = Field(
        default=True,
        description="Count SAELens' evaluation: LanguageModelSAETrainingRunner does it while logging to wandb (its "
        "default); false = log_to_wandb false, or SAETrainer without an evaluator",
    )
    eval_batch_size_prompts: BatchSize | None = Field(
        default=None, description="Prompts per evaluation batch; null = store_batch_size_prompts"
    )
    eval_every_n_steps: Annotated[int, Field(ge=1, le=10**9)] = Field(
        default=1000, description="wandb_log_frequency * eval_every_n_wandb_logs (SAELens: 10 * 100)"
    )
    optimizer: Literal["adam"] = Field(default="adam", description="SAELens trains with Adam")

    @model_validator(mode="before")
    @classmethod
    def _in_one_word(cls, data: Any) -> Any:
        """out_batch_size and d_submodule are dictionary_learning's words for fields that SAELens has, too."""
        if not isinstance(data, dict) or data.get("library") != "dictionary_learning":
            return data
        data = dict(data)
        for theirs, ours in _SAME.items():
            value = data.pop(theirs, None)
            if value is not None and data.setdefault(ours, value) != value:
                raise ValueError(f"{ours} {data[ours]} and {theirs} {value} are the same thing and differ")
        return data

    @property
    def hooked(self) -> bool:
        return self.model is not None and self.library == "sae_lens"

    @model_validator(mode="after")
    def _whole(self) -> SaeTraining:
        if self.library == "dictionary_learning":
            self._dictionary_learning()
        elif self.n_saes > 1:
            raise ValueError("n_saes is for library dictionary_learning; SAELens trains one SAE at a time")
        else:
            self.only_for("dictionary_learning", self.library, *_OF_BUFFER)
        if self.autocast_lm and self.model is None:
            raise ValueError("autocast_lm is of the language model, and none is given; autocast is of the SAE's step")
        if self.autocast_lm and self.model_dtype != "float32":
            raise ValueError(
                f"autocast_lm with model_dtype {self.model_dtype} is not covered yet; give model_dtype float32, or "
                "autocast_lm false: the model's weights are in 16 bit then anyway"
            )
        if self.dtype != "float32" and self.autocast:
            raise ValueError(f"autocast of a {self.dtype} SAE is not covered yet; give dtype float32")
        if self.dtype != "float32" and self.architecture == "gated":
            raise ValueError(
                f"SAELens cannot train a gated SAE in {self.dtype}: SAELens 6.54 itself stops with a RuntimeError, as "
                "its auxiliary loss multiplies the float32 activations by weights of another dtype; give dtype float32"
            )
        self.only_for("matryoshka_batchtopk", self.architecture, "matryoshka_widths")
        self.only_for("matching_pursuit", self.architecture, *OF_MATCHING_PURSUIT)
        if self.architecture == "matryoshka_batchtopk" and not self.matryoshka_widths:
            raise ValueError(
                "matryoshka_batchtopk needs matryoshka_widths (the libraries have no default): a list of widths that "
                "rise strictly up to d_sae, which may be left out, e.g. [512, 2048, 8192]"
            )
        return self

    def _dictionary_learning(self) -> None:
        """What of the fields that library does not have, or is not covered with it."""
        for name in _OF_SAELENS:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for library sae_lens, not dictionary_learning")
        if self.architecture in ("abstopk", "matching_pursuit"):
            raise ValueError(
                f"dictionary_learning has no trainer for {self.architecture}; try topk, or library sae_lens"
            )
        if self.model is None:
            for name in (*_OF_BUFFER, "model_dtype"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is of an ActivationBuffer, which needs a model and submodule")
        elif self.submodule is None:
            raise ValueError("submodule is needed with a model in dictionary_learning, e.g. transformer.h.6")
        if self.dtype != "float32" or self.autocast:
            raise ValueError(
                "dictionary_learning's trainers are built in float32; autocast_dtype is not covered yet: give dtype "
                "float32 and autocast false"
            )

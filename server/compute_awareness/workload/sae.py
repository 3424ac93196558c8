"""Training of sparse autoencoders."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from .fields import BatchSize, DtypeField, LibraryVersion, ModelRef, SeqLen, Task, Tokens, Width
from .libraries import of_task

SaeArchitecture = Literal["standard", "topk", "abstopk", "batchtopk", "matryoshka_batchtopk", "jumprelu", "gated"]
_INFERENCE_ONLY = "SAELens 6.54 registers it for inference only (no training class); see sae_inference"
_NOT_TRAINED = {
    "transcoder": _INFERENCE_ONLY,
    "skip_transcoder": _INFERENCE_ONLY,
    "jumprelu_transcoder": _INFERENCE_ONLY,
    "jumprelu_skip_transcoder": _INFERENCE_ONLY,
    "temporal": "SAELens 6.54 registers it for inference only (no training class)",
    "p_anneal": "not covered yet (PAnnealTrainer of dictionary_learning)",
    "gated_anneal": "not covered yet (GatedAnnealTrainer of dictionary_learning)",
    "standard_april_update": "not covered yet (StandardTrainerAprilUpdate of dictionary_learning)",
    "matching_pursuit": "not covered yet: its memory grows with every iteration of the encoder, and the data decide "
    "how many there are (up to d_in)",
}


def _trainable(value: Any) -> Any:
    """Names that SAELens knows but does not train get their reason."""
    if isinstance(value, str) and value in _NOT_TRAINED:
        raise ValueError(f"{value!r} cannot be estimated for training: {_NOT_TRAINED[value]}")
    return value


# Fields of SAELens' activation store and evaluation.
_OF_SAELENS = (
    "context_size", "n_batches_in_buffer", "store_batch_size_prompts", "act_store_device", "model_dtype", "evaluation",
    "eval_batch_size_prompts", "eval_every_n_steps",
)  # fmt: skip


class SaeTraining(Task):
    """An SAE training run: the step; with SAELens its activation store and the language model where one is named."""

    task: Literal["sae_training"] = "sae_training"
    library: Annotated[Literal["sae_lens", "dictionary_learning"], of_task("sae_training")] = Field(
        default="sae_lens", description="dictionary_learning: trainSAE on activations at hand (d_in); no model yet"
    )
    library_version: LibraryVersion = None
    architecture: Annotated[SaeArchitecture, BeforeValidator(_trainable)] = Field(
        default="standard", description="SAE architecture"
    )
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
        default=100, description="Active features per token (top-k family)"
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
    context_size: SeqLen = Field(default=128, description="Tokens per prompt of the activation store")
    n_batches_in_buffer: Annotated[int, Field(ge=1, le=10**9)] = Field(
        default=20, description="The store's buffer holds n_batches_in_buffer * context_size tokens (SAELens >= 6.27.3)"
    )
    store_batch_size_prompts: BatchSize = Field(
        default=32, description="Prompts per language-model forward of the store"
    )
    training_tokens: Tokens = Field(default=2_000_000, description="Tokens of the whole run (for time, not memory)")
    dtype: DtypeField = Field(default="float32", description="Dtype of the SAE; its activations are stored in float32")
    model_dtype: DtypeField = Field(
        default="float32", description="Dtype of the language model (SAELens default: float32)"
    )
    act_store_device: Literal["cpu"] | None = Field(
        default=None, description="'cpu' keeps the activation store in host memory; null = with the SAE"
    )
    autocast: bool = Field(default=False, description="bfloat16 autocast of the SAE step; it hardly lowers the peak")
    autocast_lm: bool = Field(default=False, description="bfloat16 autocast of the language model; not covered yet")
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

    @model_validator(mode="after")
    def _whole(self) -> SaeTraining:
        if self.library == "dictionary_learning":
            self._dictionary_learning()
        elif self.n_saes > 1:
            raise ValueError("n_saes is for library dictionary_learning; SAELens trains one SAE at a time")
        if self.autocast_lm:
            raise ValueError(
                "autocast_lm is not covered yet; model_dtype bfloat16 halves the weights, autocast_lm does not"
            )
        if self.dtype != "float32" and self.autocast:
            raise ValueError(f"autocast of a {self.dtype} SAE is not covered yet; give dtype float32")
        if self.dtype != "float32" and self.architecture == "gated":
            raise ValueError(
                f"SAELens cannot train a gated SAE in {self.dtype}: its auxiliary loss multiplies the float32 "
                "activations by weights of another dtype; give dtype float32"
            )
        if self.matryoshka_widths is not None and self.architecture != "matryoshka_batchtopk":
            raise ValueError(f"matryoshka_widths is for matryoshka_batchtopk, not {self.architecture}")
        if self.architecture == "matryoshka_batchtopk" and not self.matryoshka_widths:
            raise ValueError(
                "matryoshka_batchtopk needs matryoshka_widths (the libraries have no default): a list of widths that "
                "rise strictly up to d_sae, which may be left out, e.g. [512, 2048, 8192]"
            )
        if self.model is None and self.d_in is None:
            raise ValueError("give d_in, or model and hook_name")
        if self.model is not None and self.hook_name is None:
            raise ValueError("hook_name is needed with a model, e.g. blocks.6.hook_resid_pre")
        if self.d_sae is None and self.expansion_factor is None:
            raise ValueError("give d_sae or expansion_factor")
        return self

    def _dictionary_learning(self) -> None:
        """What of the fields that library does not have, or is not covered with it."""
        for name in _OF_SAELENS:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for library sae_lens; of dictionary_learning the step alone is covered")
        if self.architecture == "abstopk":
            raise ValueError("dictionary_learning has no trainer for abstopk; try topk, or library sae_lens")
        if self.model is not None:
            raise ValueError(
                "a model with library dictionary_learning is not covered yet (its ActivationBuffer runs nnsight); "
                "give d_in alone for the training step, and add the model and n_ctxs * ctx_len * d_in numbers of buffer"
            )
        if self.dtype != "float32" or self.autocast:
            raise ValueError(
                "dictionary_learning's trainers are built in float32; autocast_dtype is not covered yet: give dtype "
                "float32 and autocast false"
            )

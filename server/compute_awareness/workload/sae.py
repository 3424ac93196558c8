"""Training of sparse autoencoders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .fields import BatchSize, DtypeField, LibraryVersion, ModelRef, SeqLen, Task, Tokens, Width

SaeArchitecture = Literal["standard", "topk", "batchtopk", "jumprelu", "gated"]


class SaeTraining(Task):
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

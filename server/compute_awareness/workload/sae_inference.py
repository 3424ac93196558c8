"""Use of a trained sparse autoencoder or transcoder."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from .fields import BatchSize, DtypeField, LibraryVersion, ModelRef, SeqLen, Task, Width
from .libraries import of_task

SaeInferenceArchitecture = Literal[
    "standard", "topk", "abstopk", "batchtopk", "matryoshka_batchtopk", "jumprelu", "gated",
    "transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder",
]  # fmt: skip
_NOT_COVERED = {
    "temporal": "its attention over the sequence is not written down",
    "matching_pursuit": "its encoder iterates until the data are matched (up to d_in times)",
}


def _covered(value: Any) -> Any:
    if isinstance(value, str) and value in _NOT_COVERED:
        raise ValueError(f"{value!r} is not covered yet: {_NOT_COVERED[value]}")
    return value


class SaeInference(Task):
    """Features of a batch of activations, or a language model's forward pass with the SAE's reconstruction in it."""

    task: Literal["sae_inference"] = "sae_inference"
    library: Annotated[Literal["sae_lens"], of_task("sae_inference")] = "sae_lens"
    library_version: LibraryVersion = None
    architecture: Annotated[SaeInferenceArchitecture, BeforeValidator(_covered)] = Field(
        default="standard", description="SAE architecture (batchtopk and matryoshka_batchtopk are saved as jumprelu)"
    )
    model: ModelRef | None = Field(
        default=None, description="Language model the activations come from; null = activations are at hand"
    )
    hook_name: str | None = Field(
        default=None, description="Hook the SAE reads; its width is d_in", examples=["blocks.6.hook_resid_pre"]
    )
    d_in: Width | None = Field(default=None, description="Width of the SAE's input; null = width of hook_name in model")
    d_out: Width | None = Field(default=None, description="Transcoders: width of the output; null = d_in")
    d_sae: Width | None = Field(default=None, description="Number of SAE features; or give expansion_factor")
    expansion_factor: Annotated[float, Field(gt=0, le=100_000)] | None = Field(
        default=None, description="d_sae / d_in; used where d_sae is null"
    )
    k: Annotated[int, Field(ge=1, le=10**6)] = Field(default=100, description="Active features per token (top-k)")
    batch_size: BatchSize = Field(default=1, description="Sequences at once")
    seq_len: SeqLen = Field(default=128, description="Tokens per sequence")
    dtype: DtypeField = Field(default="float32", description="Dtype of the SAE (SAE.from_pretrained: float32)")
    model_dtype: DtypeField = Field(default="float32", description="Dtype of the language model and its activations")
    n_saes: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=1, description="SAEs of this shape in memory, used one after the other; the features of all are kept"
    )
    splice: bool = Field(
        default=False,
        description="true: the reconstruction takes the hook's place (HookedSAETransformer); "
        "false: run_with_cache of that hook, then sae.encode",
    )
    stop_after_hook: bool = Field(
        default=False, description="Without splice: run_with_cache stops after the hook's block (no logits)"
    )
    keep_features: bool = Field(
        default=True,
        description="With splice: run_with_cache_with_saes keeps the features; false = run_with_saes, nothing is kept",
    )
    use_error_term: bool = Field(default=False, description="With splice: add what the SAE misses; it runs twice")

    @model_validator(mode="after")
    def _whole(self) -> SaeInference:
        if self.model is None and self.d_in is None:
            raise ValueError("give d_in, or model and hook_name")
        if self.model is not None and self.hook_name is None:
            raise ValueError("hook_name is needed with a model, e.g. blocks.6.hook_resid_pre")
        if self.d_sae is None and self.expansion_factor is None:
            raise ValueError("give d_sae or expansion_factor")
        transcodes = "transcoder" in self.architecture
        if self.d_out is not None and not transcodes:
            raise ValueError(f"d_out is for transcoders, not {self.architecture}")
        if self.splice and self.model is None:
            raise ValueError("splice needs a model and hook_name")
        if self.splice and (transcodes or self.n_saes > 1):
            what = "transcoders" if transcodes else "more than one SAE"
            raise ValueError(f"splice is not covered yet for {what}; give splice false")
        if self.use_error_term and not self.splice:
            raise ValueError("use_error_term is for splice true; encode alone needs none")
        return self

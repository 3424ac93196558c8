"""Use of a trained sparse autoencoder or transcoder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .fields import BatchSize, SeqLen, Width
from .libraries import of_task
from .sae_fields import OF_MATCHING_PURSUIT, SaeTask

SaeInferenceArchitecture = Literal[
    "standard", "topk", "abstopk", "batchtopk", "matryoshka_batchtopk", "jumprelu", "gated",
    "transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder", "matching_pursuit", "temporal",
]  # fmt: skip
_OF_TEMPORAL = ("n_heads", "n_attn_layers", "bottleneck_factor", "sae_diff_type", "kval_topk", "tied_weights")
Count = Annotated[int, Field(ge=1, le=10**6)]


class SaeInference(SaeTask):
    """Features of a batch of activations, or a language model's forward pass with the SAE's reconstruction in it."""

    task: Literal["sae_inference"] = "sae_inference"
    library: Annotated[Literal["sae_lens"], of_task("sae_inference")] = "sae_lens"
    architecture: SaeInferenceArchitecture = Field(
        default="standard", description="SAE architecture (batchtopk and matryoshka_batchtopk are saved as jumprelu)"
    )
    hook_name_out: str | None = Field(
        default=None,
        description="Transcoders: hook whose activation they write, in the block of hook_name; null = hook_name",
        examples=["blocks.6.hook_mlp_out"],
    )
    d_out: Width | None = Field(
        default=None, description="Transcoders: width of the output; null = width of hook_name_out, else d_in"
    )
    n_heads: Count = Field(default=8, description="temporal: attention heads")
    n_attn_layers: Count = Field(default=1, description="temporal: attention layers")
    bottleneck_factor: Count = Field(default=64, description="temporal: d_sae / width of queries and keys")
    sae_diff_type: Literal["relu", "topk"] = Field(default="topk", description="temporal: code of what is novel")
    kval_topk: Count | None = Field(
        default=None, description="temporal: active novel features per token with sae_diff_type topk; null = all"
    )
    tied_weights: bool = Field(default=True, description="temporal: the encoder is the decoder transposed")
    batch_size: BatchSize = Field(default=1, description="Sequences at once")
    seq_len: SeqLen = Field(default=128, description="Tokens per sequence")
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
        transcodes = "transcoder" in self.architecture
        for name in ("d_out", "hook_name_out"):
            if getattr(self, name) is not None and not transcodes:
                raise ValueError(f"{name} is for transcoders, not {self.architecture}")
        self.only_for("matching_pursuit", self.architecture, *OF_MATCHING_PURSUIT)
        self.only_for("temporal", self.architecture, *_OF_TEMPORAL)
        if self.kval_topk is not None and self.sae_diff_type != "topk":
            raise ValueError(f"kval_topk is for sae_diff_type topk, not {self.sae_diff_type}")
        if self.splice and self.model is None:
            raise ValueError("splice needs a model and hook_name")
        if self.splice and self.n_saes > 1:
            raise ValueError("splice is not covered yet for more than one SAE; give splice false")
        if self.use_error_term and not self.splice:
            raise ValueError("use_error_term is for splice true; encode alone needs none")
        return self

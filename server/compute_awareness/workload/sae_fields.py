"""What the training and the use of a sparse autoencoder have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from .fields import DtypeField, LibraryVersion, ModelRef, Task, Width

OF_MATCHING_PURSUIT = ("max_iterations", "residual_threshold", "stop_on_duplicate_support")


class SaeTask(Task):
    """An SAE by its sizes, and the language model and hook that it belongs to."""

    library_version: LibraryVersion = None
    model: ModelRef | None = Field(
        default=None, description="Language model the activations come from; null = activations are at hand (d_in)"
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
    max_iterations: Annotated[int, Field(ge=1, le=10**6)] | None = Field(
        default=None, description="matching_pursuit: iterations of the encoder, all of them are counted; null = d_in"
    )
    residual_threshold: Annotated[float, Field(ge=0)] = Field(
        default=0.01, description="matching_pursuit: norm of the residual at which a token is done; 0 = never"
    )
    stop_on_duplicate_support: bool = Field(
        default=True, description="matching_pursuit: a token is done when an iteration adds no feature to it"
    )
    dtype: DtypeField = Field(default="float32", description="Dtype of the SAE; its training activations are float32")
    model_dtype: DtypeField = Field(
        default="float32", description="Dtype of the language model and its activations (SAELens default: float32)"
    )

    @property
    def hooked(self) -> bool:
        """Whether the activations of a model come from a hook of TransformerLens."""
        return self.model is not None

    @model_validator(mode="after")
    def _sizes(self) -> SaeTask:
        if self.model is None and self.d_in is None:
            raise ValueError("give d_in, or model and hook_name")
        if self.hooked and self.hook_name is None:
            raise ValueError("hook_name is needed with a model, e.g. blocks.6.hook_resid_pre")
        if self.d_sae is None and self.expansion_factor is None:
            raise ValueError("give d_sae or expansion_factor")
        return self

    def only_for(self, wanted: str, architecture: str, *names: str) -> None:
        """Raises ValueError where one of these fields is given and `architecture` is not the `wanted` one."""
        for name in names:
            if architecture != wanted and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for {wanted}, not {architecture}")

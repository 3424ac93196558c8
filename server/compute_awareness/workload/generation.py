"""Text generation: a prompt, then new tokens one by one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .fields import Attention, LibraryVersion, ModelTask, Quantization


class Generation(ModelTask):
    """`model.generate`: `seq_len` prompt tokens and `new_tokens` more, greedy or sampled, without gradients."""

    task: Literal["generation"] = "generation"
    library: Literal["transformer_lens", "transformers"] = Field(
        default="transformers", description="transformers: model.generate; transformer_lens: HookedTransformer.generate"
    )
    library_version: LibraryVersion = None
    new_tokens: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        default=128, description="Tokens made after the prompt of seq_len tokens (max_new_tokens)"
    )
    kv_cache: bool = Field(
        default=True, description="Keys and values of earlier tokens are kept (use_cache, use_past_kv_cache)"
    )
    attention: Attention = None
    quantization: Quantization = None

    @model_validator(mode="after")
    def _fits_library(self) -> Generation:
        if self.library == "transformer_lens":
            if self.attention == "sdpa":
                raise ValueError("attention 'sdpa' is of transformers; HookedTransformer always computes the scores")
            if self.quantization is not None:
                raise ValueError("quantization is of transformers")
        elif self.no_processing:
            raise ValueError("no_processing is of transformer_lens")
        return self

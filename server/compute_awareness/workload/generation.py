"""Text generation: a prompt, then new tokens one by one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .fields import Attention, LibraryVersion, ModelTask, Quantization
from .libraries import of_task
from .passes import check_library


class Generation(ModelTask):
    """`model.generate`: `seq_len` prompt tokens and `new_tokens` more, greedy or sampled, without gradients."""

    task: Literal["generation"] = "generation"
    library: Annotated[Literal["transformer_lens", "transformer_bridge", "transformers"], of_task("generation")] = (
        Field(
            default="transformers",
            description="transformers: model.generate; transformer_lens: HookedTransformer.generate; "
            "transformer_bridge: TransformerBridge.generate, traced",
        )
    )
    library_version: LibraryVersion = None
    new_tokens: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        default=128, description="Tokens made after the prompt of seq_len tokens (max_new_tokens)"
    )
    kv_cache: bool = Field(
        default=True, description="Keys and values of earlier tokens are kept (use_cache, use_past_kv_cache)"
    )
    attention: Attention = None
    compatibility_mode: bool = Field(
        default=False, description="TransformerBridge: enable_compatibility_mode() was called (weights are copied)"
    )
    quantization: Quantization = None

    @model_validator(mode="after")
    def _fits_library(self) -> Generation:
        check_library(self, self.library, self.attention, self.compatibility_mode)
        if self.library != "transformers" and self.quantization is not None:
            raise ValueError("quantization is of transformers")
        return self

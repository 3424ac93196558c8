"""One forward pass: plain, or with a cache of activations."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from .fields import Attention, Integers, LibraryVersion, ModelTask, Quantization, Strings

Library = Literal["transformer_lens", "transformer_bridge", "transformers", "nnsight"]
_LIBRARY: Any = Field(
    default="transformer_lens",
    description="transformer_lens = HookedTransformer; transformer_bridge = TransformerBridge (TransformerLens 3, 4)",
)


class Inference(ModelTask):
    """One forward pass without gradients."""

    task: Literal["inference"] = "inference"
    library: Library = _LIBRARY
    library_version: LibraryVersion = None
    kv_cache: bool | None = Field(
        default=None, description="The pass fills a key/value cache; null = the library's default (transformers: yes)"
    )
    attention: Attention = None
    output_hidden_states: bool = Field(default=False, description="transformers: every layer's output is returned")
    output_attentions: bool = Field(default=False, description="transformers: every layer's pattern is returned")
    compatibility_mode: bool = Field(
        default=False, description="TransformerBridge: enable_compatibility_mode() was called (weights are copied)"
    )
    quantization: Quantization = None

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


class ActivationCache(ModelTask):
    """TransformerLens `run_with_cache`."""

    task: Literal["activation_cache"] = "activation_cache"
    library: Library = _LIBRARY
    library_version: LibraryVersion = None
    attention: Attention = None
    compatibility_mode: bool = Field(
        default=False, description="TransformerBridge: enable_compatibility_mode() was called (weights are copied)"
    )
    names_filter: Strings | None = Field(
        default=None,
        description="Globs on full hook names, any of them matches; null = every hook",
        examples=[["*hook_resid_post"]],
    )
    layers: Integers | None = Field(
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

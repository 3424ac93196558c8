"""Causal interventions: activation patching, attribution patching, edge attribution patching."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .fields import Integers, LibraryVersion, ModelTask, SeqLen, Strings, Tokens

PatchingMethod = Literal["activation_patching", "attribution_patching", "eap", "eap_ig"]


class Patching(ModelTask):
    """Which activations matter: patched one by one, or all at once through gradients."""

    task: Literal["patching"] = "patching"
    library: Literal["transformer_lens"] = Field(default="transformer_lens", description="HookedTransformer")
    library_version: LibraryVersion = None
    method: PatchingMethod = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default="activation_patching",
        description="activation_patching: one forward per patch; attribution_patching: one forward and backward with "
        "every activation and gradient cached; eap, eap_ig: edge attribution, with integrated gradients",
    )
    names_filter: Strings | None = Field(
        default=None,
        description="Globs on full hook names that the caches keep, any of them matches; null = every hook",
        examples=[["*hook_resid_pre"], ["*hook_z", "*hook_mlp_out"]],
    )
    layers: Integers | None = Field(
        default=None, description="Keep only hooks of these blocks (0-based, negative from the end) of what matches"
    )
    positions: SeqLen | None = Field(
        default=None, description="activation_patching: positions swept (time, not memory); null = all of seq_len"
    )
    n_prompts: Tokens | None = Field(
        default=None, description="Prompt pairs of the whole run (time, not memory); null = batch_size"
    )
    ig_steps: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=5, description="eap_ig: steps of the integral (time, not memory)"
    )
    parameter_gradients: bool = Field(
        default=True, description="Parameters require gradients (the default of torch): backward allocates them all"
    )
    use_attn_result: bool = Field(default=False, description="cfg.use_attn_result: per-head outputs; eap needs it")
    use_split_qkv_input: bool = Field(
        default=False, description="cfg.use_split_qkv_input: inputs per head; eap needs it"
    )
    use_hook_mlp_in: bool = Field(default=False, description="cfg.use_hook_mlp_in; eap needs it")

    @model_validator(mode="after")
    def _fits_method(self) -> Patching:
        if self.method in ("eap", "eap_ig"):
            if self.names_filter is not None or self.layers is not None:
                raise ValueError(f"names_filter and layers are not of method {self.method}: it uses every edge")
            if self.method == "eap" and not self.parameter_gradients:
                raise ValueError("parameter_gradients: eap needs true (nothing else requires a gradient), eap_ig not")
            self.use_attn_result = self.use_split_qkv_input = self.use_hook_mlp_in = True
        if self.positions is not None and self.positions > self.seq_len:
            raise ValueError(f"positions: {self.positions} is more than seq_len {self.seq_len}")
        return self

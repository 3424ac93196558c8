"""Causal interventions: activation patching, attribution patching, edge attribution patching."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from .fields import Integers, LibraryVersion, Method, ModelTask, Reads, SeqLen, Strings, Tokens
from .libraries import of_task
from .passes import check_library


def _kind(value: Any) -> Any:
    """`method` is the kind of patching here; elsewhere it is how the estimate is made."""
    if value in get_args(get_args(Method)[0]):
        raise ValueError(f"{value!r} is how it is estimated: give estimate_method {value!r}; method is the patching's")
    return value


PatchingMethod = Annotated[
    Literal["activation_patching", "attribution_patching", "eap", "eap_ig"], BeforeValidator(_kind)
]


class Patching(ModelTask):
    """Which activations matter: patched one by one, or all at once through gradients."""

    task: Literal["patching"] = "patching"
    library: Annotated[Literal["transformer_lens", "transformer_bridge"], of_task("patching")] = Field(
        default="transformer_lens", description="transformer_lens = HookedTransformer; transformer_bridge is traced"
    )
    library_version: LibraryVersion = None
    method: PatchingMethod = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default="activation_patching",
        description="activation_patching: one forward per patch; attribution_patching: one forward and backward with "
        "every activation and gradient cached; eap, eap_ig: edge attribution, with integrated gradients",
    )
    estimate_method: Method = Field(
        default="auto",
        description="patching: what method is for other tasks; closed_form = arithmetic, trace = the library is run "
        "without weights, auto = trace where no closed form covers it",
    )
    names_filter: Strings | None = Field(
        default=None,
        description="Globs on full hook names that the caches keep, any of them matches; null = every hook",
        examples=[["*hook_resid_pre"], ["*hook_z", "*hook_mlp_out"]],
    )
    reads: Reads = None
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
    compatibility_mode: bool = Field(
        default=False, description="TransformerBridge: enable_compatibility_mode() was called (weights are copied)"
    )
    use_attn_result: bool = Field(default=False, description="cfg.use_attn_result: per-head outputs; eap needs it")
    use_split_qkv_input: bool = Field(
        default=False, description="cfg.use_split_qkv_input: inputs per head; eap needs it"
    )
    use_hook_mlp_in: bool = Field(default=False, description="cfg.use_hook_mlp_in; eap needs it")

    @property
    def estimated_by(self) -> Method:
        return self.estimate_method

    @model_validator(mode="after")
    def _fits_method(self) -> Patching:
        check_library(self, self.library, None, self.compatibility_mode)
        if self.method in ("eap", "eap_ig"):
            if self.names_filter is not None or self.layers is not None or self.reads is not None:
                raise ValueError(f"names_filter, layers and reads are not of method {self.method}: it uses every edge")
            if self.method == "eap" and not self.parameter_gradients:
                raise ValueError("parameter_gradients: eap needs true (nothing else requires a gradient), eap_ig not")
            self.use_attn_result = self.use_split_qkv_input = self.use_hook_mlp_in = True
            if self.library == "transformer_bridge":
                raise ValueError(
                    f"method {self.method} is of HookedTransformer (hannamw/EAP-IG runs no TransformerBridge): give "
                    "library transformer_lens with TransformerLens before 4.0, or method attribution_patching"
                )
        if self.positions is not None and self.positions > self.seq_len:
            raise ValueError(f"positions: {self.positions} is more than seq_len {self.seq_len}")
        return self

"""One forward pass: plain, or with a cache of activations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .fields import Attention, Integers, LibraryVersion, ModelTask, NDevices, Offload, Quantization, Reads, Strings
from .libraries import of_task
from .max_memory import MaxMemory

Library = Literal["transformer_lens", "transformer_bridge", "transformers", "nnsight"]
_LIBRARY: Any = Field(
    default="transformer_lens",
    description="transformer_lens = HookedTransformer; transformer_bridge = TransformerBridge (TransformerLens 3, 4)",
)


_N_DEVICES: Any = Field(
    default=1,
    description="transformers, nnsight: cards that device_map='auto' splits the layers over; peak stays per card",
)


class Inference(ModelTask):
    """One forward pass without gradients."""

    task: Literal["inference"] = "inference"
    library: Annotated[Library, of_task("inference")] = _LIBRARY
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
    n_devices: NDevices = _N_DEVICES
    offload: Offload = None
    max_memory: MaxMemory = None

    @model_validator(mode="after")
    def _fits_library(self) -> Inference:
        check_library(self, self.library, self.attention, self.compatibility_mode)
        _check_devices(self)
        _check_offload(self)
        if self.library == "transformer_lens" and self.kv_cache:
            raise ValueError("kv_cache is of transformers here; HookedTransformer keeps none in a plain forward")
        if self.library != "transformers":
            for name in ("output_hidden_states", "output_attentions", "quantization"):
                if getattr(self, name):
                    raise ValueError(f"{name} is of transformers")
        return self


class ActivationCache(ModelTask):
    """TransformerLens `run_with_cache`, hooks on a transformers model's modules, nnsight's `save()`."""

    task: Literal["activation_cache"] = "activation_cache"
    library: Annotated[Library, of_task("activation_cache")] = _LIBRARY
    library_version: LibraryVersion = None
    attention: Attention = None
    compatibility_mode: bool = Field(
        default=False, description="TransformerBridge: enable_compatibility_mode() was called (weights are copied)"
    )
    names_filter: Strings | None = Field(
        default=None,
        description="Globs on full hook names, any of them matches; transformers, nnsight: on module paths; "
        "null = every hook (there: every layer's output)",
        examples=[["*hook_resid_post"]],
    )
    reads: Reads = None
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
    n_devices: NDevices = _N_DEVICES
    offload: Offload = None
    max_memory: MaxMemory = None

    @model_validator(mode="after")
    def _fits_library(self) -> ActivationCache:
        check_library(self, self.library, self.attention, self.compatibility_mode)
        _check_devices(self)
        _check_offload(self)
        return self


def check_library(workload: ModelTask, library: str, attention: str | None, compatibility_mode: bool) -> None:
    """Switches that only one library has."""
    if attention == "sdpa" and library.startswith("transformer_"):
        always = "HookedTransformer" if library == "transformer_lens" else "TransformerBridge"
        raise ValueError(f"attention 'sdpa' is of transformers; {always} always computes the scores")
    if compatibility_mode and library != "transformer_bridge":
        raise ValueError("compatibility_mode is of transformer_bridge")
    if workload.no_processing and not library.startswith("transformer_"):
        raise ValueError("no_processing is of transformer_lens")


def _check_devices(workload: Inference | ActivationCache) -> None:
    """Several cards, where a library splits a model over them in a way that is estimated."""
    n = workload.n_devices
    if n == 1 or workload.library in ("transformers", "nnsight"):
        if n > 1 and getattr(workload, "quantization", None):
            raise ValueError(f"n_devices {n} with quantization is not covered yet")
        return
    if workload.library == "transformer_lens":
        raise ValueError(
            f"n_devices {n} of HookedTransformer is not estimated: 3.9 puts blocks where memory is free, but sends "
            "activations by the block's number (utilities/multi_gpu.py), so they can meet on different cards and the "
            "run fail; estimate one card, or give library transformers, whose device_map is estimated"
        )
    raise ValueError(
        f"n_devices {n} of TransformerBridge is not covered yet; give library transformers, whose device_map it uses"
    )


def _check_offload(workload: Inference | ActivationCache) -> None:
    """Weights that wait beside the card, where that is estimated."""
    given = [name for name in ("offload", "max_memory") if getattr(workload, name) is not None]
    if not given:
        return
    name = given[0]
    if len(given) > 1:
        raise ValueError("offload (all weights wait) and max_memory (some do) exclude each other; give one of them")
    if workload.library != "transformers":
        raise ValueError(
            f"{name} is of transformers (accelerate's hooks); {workload.library} is estimated with all its weights on "
            "the card"
        )
    if workload.n_devices > 1:
        raise ValueError(f"{name} with n_devices {workload.n_devices} is not covered yet; give one of them")
    if getattr(workload, "quantization", None):
        raise ValueError(f"{name} of a quantised model is not covered yet; give {name} or quantization")
    if getattr(workload, "with_gradients", False):
        raise ValueError(f"{name} with with_gradients: autograd would keep every weight on the card, so it saves none")

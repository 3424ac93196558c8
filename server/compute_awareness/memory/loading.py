"""What loading the weights takes at its worst moment, in RAM and on the device."""

from __future__ import annotations

from dataclasses import dataclass

from ..models.spec import ModelSpec
from ..workload import DTYPE_BYTES
from . import weights

# RAM at the worst moment of loading, as a multiple of the library's own weights, the Hugging Face copy included.
# Measured on transformer_lens 3.9.0 with gpt2, pythia-160m and qwen2.5-0.5b: processing works on float32 copies.
_FACTORS = {
    ("transformer_lens", False, 4): 4.8,
    ("transformer_lens", False, 2): 9.3,
    ("transformer_lens", True, 4): 2.0,
    ("transformer_lens", True, 2): 3.2,
}


@dataclass(frozen=True)
class Loading:
    """The worst moment of loading. Bytes of tensors."""

    host_bytes: int
    """RAM, where the model ends up on a GPU."""
    device_bytes: int
    """On the GPU, the finished weights and buffers included."""
    detail: str = ""
    """What is alive at that moment, in words."""


def loading(
    library: str,
    version: str | None,
    spec: ModelSpec,
    dtype: str,
    *,
    no_processing: bool = False,
    compatibility_mode: bool = False,
    quantization: str | None = None,
) -> Loading:
    """The worst moment of loading `spec` with `library` at `version` (None = the newest verified one).

    Args:
        dtype: the model's dtype after loading.
        no_processing: TransformerLens: from_pretrained_no_processing; Bridge: enable_compatibility_mode(no_processing).
        compatibility_mode: Bridge: enable_compatibility_mode() was called.
        quantization: transformers: how the linear layers are quantised.
    """
    width = DTYPE_BYTES[dtype]
    if library == "transformer_lens":
        ours = weights.tl_params(spec, not no_processing) * width
        factor = _FACTORS["transformer_lens", no_processing, width]
        return Loading(int(factor * ours), ours + weights.tl_buffer_bytes(spec, width))
    ours = weights.hf_params(spec) * width
    return Loading(ours, ours + weights.hf_buffer_bytes(spec, width))

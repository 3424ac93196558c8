"""What loading the weights takes at its worst moment, in RAM and on the device."""

from __future__ import annotations

from dataclasses import dataclass

from ..models.spec import ModelSpec
from ..units import gib
from ..versions import parse
from ..workload import DTYPE_BYTES
from . import weights
from .bridge.weights import boot_peak
from .hooked import loading as loading_hooked
from .hooked import versions as hooked_versions
from .quantization import linear_layers, quantized_weight_bytes


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
    keeps_hf_model: bool = False,
) -> Loading:
    """The worst moment of loading `spec` with `library` at `version` (None = the newest verified one).

    Args:
        dtype: the model's dtype after loading.
        no_processing: TransformerLens: from_pretrained_no_processing; Bridge: enable_compatibility_mode(no_processing).
        compatibility_mode: Bridge: enable_compatibility_mode() was called.
        quantization: transformers: how the linear layers are quantised.
        keeps_hf_model: TransformerLens: `hf_model=` was passed (on the CPU) and lives on.
    """
    width = DTYPE_BYTES[dtype]
    if library == "transformer_lens":
        release = hooked_versions.release(parse(version) if version else None)
        return _hooked(spec, width, no_processing, keeps_hf_model, release)
    if library == "transformer_bridge":
        return _bridge(spec, dtype, width, compatibility_mode, no_processing)
    return _transformers(spec, dtype, width, quantization)


def _hooked(
    spec: ModelSpec, width: int, no_processing: bool, keeps_hf_model: bool, release: hooked_versions.Release
) -> Loading:
    """HookedTransformer converts and processes on the CPU and moves the finished model, parameter by parameter."""
    tape = loading_hooked.play(spec, width, no_processing=no_processing, keeps_hf_model=keeps_hf_model, release=release)
    finished = width * weights.tl_params(spec, not no_processing)
    finished += hooked_versions.buffer_bytes(spec, width, release)
    parts = [f"the new model {gib(tape.at_peak['weights'])}"]
    if tape.at_peak["hugging_face"]:
        parts.append(f"Hugging Face's {gib(tape.at_peak['hugging_face'])}")
    if tape.at_peak["temporaries"]:
        parts.append(f"state dicts and copies of the conversion {gib(tape.at_peak['temporaries'])}")
    early = loading_hooked.early_on_device(spec, no_processing, release)
    return Loading(tape.peak, finished + early, "RAM: " + ", ".join(parts))


def _transformers(spec: ModelSpec, dtype: str, width: int, quantization: str | None = None) -> Loading:
    """transformers 5.23.0 (modeling_utils.py, core_model_loading.py): the model is built on meta and filled tensor by
    tensor from the memory-mapped checkpoint, so there is never a second copy.

    Where it quantises on the way, it loads one tensor at a time so that the card never holds more than one that is
    not quantised yet (has_on_the_fly_quantization there; read, not run on a card).
    """
    ours = weights.hf_params(spec) * width + weights.hf_buffer_bytes(spec, width)
    if quantization is not None:
        whole = max(rows * columns for rows, columns in linear_layers(spec)) * width
        card = quantized_weight_bytes(spec, quantization, width) + weights.hf_buffer_bytes(spec, width) + whole
        return Loading(ours, card, "RAM: the weights before they are quantised; on the device one matrix of them")
    if spec.checkpoint_dtype == dtype:
        detail = "RAM: the weights, pages of the checkpoint file mapped into memory; none with device_map"
    else:
        detail = "RAM: the weights, converted tensor by tensor; none with device_map"
    return Loading(ours, ours, detail)


def _bridge(spec: ModelSpec, dtype: str, width: int, compatibility_mode: bool, no_processing: bool) -> Loading:
    """TransformerBridge wraps the Hugging Face model where it is, so what it copies is on the device."""
    host, device = boot_peak(spec, width, compatibility_mode, no_processing)
    detail = _transformers(spec, dtype, width).detail
    if compatibility_mode and not no_processing:
        detail += "; on the device: float32 copies of all weights made by enable_compatibility_mode"
    return Loading(host, device, detail)

"""The estimate of one forward pass of a transformers model."""

from __future__ import annotations

from ..memory import parameters, transformers_forward, weights
from ..memory.estimate import Estimate
from ..memory.loading import loading
from ..models.resolve import resolve
from ..runtime.flops import forward_flops
from ..versions import check, is_verified
from ..workload import DTYPE_BYTES, ActivationCache, Inference
from .assemble import assemble, download_bytes, largest_and_peak, millions, repeatable


def transformers_pass(workload: Inference | ActivationCache, capability: str | None) -> Estimate:
    assert isinstance(workload, Inference)
    spec = resolve(workload.model)
    verified, warnings = check("transformers", workload.library_version)
    width = DTYPE_BYTES[workload.dtype]
    assumptions = [f"one forward pass at a time on one device; {verified}"]
    if not is_verified("transformers", workload.library_version):
        assumptions.append(f"measured on {verified} only; {workload.library_version} is taken to allocate the same")
    attention = workload.attention or transformers_forward.default_attention(spec)
    kv_cache = workload.kv_cache is not False
    grouped = spec.n_kv_heads != spec.n_heads
    old_card = capability is not None and float(capability) < 8.0
    unfused = attention == "sdpa" and (transformers_forward.needs_math_kernel(spec, width) or (old_card and grouped))
    tape = transformers_forward.forward(
        spec, workload.batch_size, workload.seq_len, width, attention, kv_cache=kv_cache, math_kernel=unfused
    )
    if unfused:
        assumptions.append("sdpa with grouped heads runs unfused on this card or dtype: the scores are counted")
    assumptions.append(f"attention implementation: {attention}; model in eval mode, torch.no_grad")
    if "dtype" not in workload.model_fields_set and spec.checkpoint_dtype not in (None, workload.dtype):
        assumptions.append(
            f"dtype float32, as none was given; transformers 5 loads {spec.checkpoint_dtype} unless told otherwise"
        )
    if workload.seq_len > spec.n_ctx:
        fails = ": its positions end there, the run fails" if spec.positional in ("learned", "shortformer") else ""
        warnings.append(f"seq_len {workload.seq_len} is beyond transformers' context of {spec.n_ctx} tokens{fails}")
    at_peak, largest = largest_and_peak(
        tape, {"weights": weights.hf_params(spec) * width, "buffers": weights.hf_buffer_bytes(spec, width)}
    )
    details = {
        "weights": f"{millions(weights.hf_params(spec))} parameters in {workload.dtype}",
        "logits": f"[{workload.batch_size}, {workload.seq_len}, {spec.d_vocab}]",
        "activations": "the residual stream and what the running layer works on",
        "temporaries": "alive at the peak besides all that: intermediate results, copies of weights",
        "kv_cache": "keys and values the pass returns",
        "buffers": "rotary tables, masks and the like",
    }
    return assemble(
        workload.model_dump()
        | {"attention": attention, "kv_cache": kv_cache, "model": repeatable(workload.model, spec)},
        at_peak,
        largest,
        details,
        capability,
        # CUDA's fused attention kernels are not the ones that were measured.
        precision="exact" if is_verified("transformers", workload.library_version) and attention != "sdpa" else "close",
        verified_on=f"{verified}, torch 2.13 (CPU and meta device; no GPU measurement)",
        loading=loading("transformers", workload.library_version, spec, workload.dtype),
        download_bytes=download_bytes(spec),
        flops=forward_flops(spec, workload.batch_size, workload.seq_len, layers=None, logits=True),
        assumptions=assumptions,
        warnings=warnings,
        events=tape,
        standing=parameters.hf_tensors(spec, width),
    )

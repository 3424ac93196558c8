"""The estimate of one forward pass of a HookedTransformer, with or without a cache."""

from __future__ import annotations

from .. import hook_names
from ..errors import InputError, NotCovered
from ..memory import parameters, weights
from ..memory.estimate import Component, Estimate, HookFamily
from ..memory.hooked import transformer as hooked_transformer
from ..memory.hooked import versions as hooked_versions
from ..memory.hooked.transformer import Forward, Run
from ..memory.loading import loading
from ..models.resolve import resolve
from ..models.spec import ModelSpec
from ..runtime import flops
from ..runtime.work import part
from ..versions import check, is_verified, parse, span_of
from ..workload import DTYPE_BYTES, ActivationCache, Inference
from .assemble import assemble, download_bytes, largest_and_peak, millions, repeatable


def hooked_pass(workload: ActivationCache | Inference, capability: str | None) -> Estimate:
    spec = resolve(workload.model)
    verified, warnings = check(workload.library, workload.library_version)
    width = DTYPE_BYTES[workload.dtype]
    assumptions = [f"one forward pass at a time on one device; {verified}"]
    if not is_verified(workload.library, workload.library_version):
        assumptions.append(f"measured on {verified} only; {workload.library_version} is taken to allocate the same")
    hooks: list[HookFamily] = []
    host_bytes = 0
    folded = not workload.no_processing
    run = _run(workload, spec, width)
    if not run.release.newest:
        assumptions.append(
            f"unlike transformer_lens 3.9: {span_of(workload.library, workload.library_version).differs}"
        )
    played = hooked_transformer.forward(run)
    tape = played.tape
    filled = workload.model_dump()
    if isinstance(workload, ActivationCache):
        if not sum(played.hook_counts.values()):
            raise InputError(hook_names.no_hook(workload, spec, run))
        warnings = hook_names.unread(workload, spec, run) + warnings
        hooks = _families(played)
        host_bytes = played.host_bytes
        filled["stop_at_layer"] = workload.stop_at_layer
        if not workload.with_gradients:
            assumptions.append("run under torch.no_grad(); without it the autograd graph is kept (with_gradients)")
    else:
        assumptions.append("torch.no_grad")
    if workload.seq_len > spec.context_tl:
        # HookedTransformer's rotary tables end at its n_ctx, too; those of transformers are computed as needed.
        fails = ": its positions end there, the run fails" if spec.positional != "alibi" else ""
        warnings.append(
            f"seq_len {workload.seq_len} is beyond transformer_lens's context of {spec.context_tl} tokens{fails}"
        )
    at_peak, largest = largest_and_peak(
        tape,
        {
            "weights": weights.tl_params(spec, folded) * width,
            "buffers": hooked_versions.buffer_bytes(spec, width, run.release),
        },
    )
    details = {
        "weights": _tl_params_detail(spec, folded, workload.dtype),
        "activation_cache": "distinct storages the returned cache keeps alive",
        "logits": f"[{workload.batch_size}, {workload.seq_len}, {spec.d_vocab}]",
        "activations": "kept by autograd for a backward pass",
        "temporaries": "alive at the peak besides all that: intermediate results, copies of weights",
        "buffers": "rotary tables, masks and the like",
    }
    extra = []
    if isinstance(workload, ActivationCache) and host_bytes:
        extra.append(
            Component(
                name="activation_cache", bytes=host_bytes, at_peak=False, bytes_at_peak=0, where="host",
                detail="copied to RAM hook by hook; copies share nothing",
            )
        )  # fmt: skip
    layers = run.stop_at_layer
    shape = flops.Shape(workload.batch_size, workload.seq_len, width)
    work = flops.forward(spec, shape, layers=layers, logits=None if layers is None else 0, elementwise=run.elementwise)
    return assemble(
        filled | {"model": repeatable(workload.model, spec)},
        at_peak,
        largest,
        details,
        capability,
        precision="exact" if is_verified(workload.library, workload.library_version) else "close",
        verified_on=f"{verified}, torch 2.13 (CPU, meta device) and 2.11 (H100)",
        hooks=hooks,
        host_bytes=host_bytes,
        loading=loading(
            "transformer_lens", workload.library_version, spec, workload.dtype, no_processing=workload.no_processing
        ),
        download_bytes=download_bytes(spec),
        work=[part("forward pass", work, workload.dtype)],
        assumptions=assumptions,
        warnings=warnings,
        extra=extra,
        events=tape,
        standing=parameters.tl_tensors(spec, width, folded),
    )


def _run(workload: ActivationCache | Inference, spec: ModelSpec, width: int) -> Run:
    """The call to play, with layers and filters checked against the model."""
    base = {
        "spec": spec,
        "batch_size": workload.batch_size,
        "seq_len": workload.seq_len,
        "width": width,
        "folded": not workload.no_processing,
        "release": _release(workload, spec),
    }
    if isinstance(workload, Inference):
        return Run(**base)
    if workload.use_hook_mlp_in and not spec.d_mlp:
        raise InputError(f"use_hook_mlp_in: {spec.name} has attention only")
    if workload.use_attn_in and spec.grouped_attention_tl:
        raise InputError(f"use_attn_in: TransformerLens refuses it with grouped-query attention ({spec.name})")
    stop = workload.stop_at_layer
    if stop is not None:
        if not -spec.n_layers <= stop <= spec.n_layers:
            raise InputError(f"stop_at_layer: {stop} is outside the {spec.n_layers} blocks of {spec.name}")
        stop = stop + spec.n_layers if stop < 0 else stop
    return Run(
        **base,
        selects=hook_names.selector(workload, spec),
        cache_on_host=workload.cache_device == "cpu",
        gradients=workload.with_gradients,
        stop_at_layer=stop,
        use_attn_result=workload.use_attn_result,
        use_split_qkv_input=workload.use_split_qkv_input,
        use_hook_mlp_in=workload.use_hook_mlp_in,
        use_attn_in=workload.use_attn_in,
    )


def _release(workload: ActivationCache | Inference, spec: ModelSpec) -> hooked_versions.Release:
    """What the workload's TransformerLens does otherwise than the newest.

    Raises:
        InputError: what was not looked at in that release.
    """
    version = workload.library_version
    release = hooked_versions.release(parse(version) if version else None)
    if release.newest:
        return release
    asked = f"with transformer-lens {version}"
    if release.stored_masks and isinstance(workload, ActivationCache) and workload.with_gradients:
        raise NotCovered(f"with_gradients: not covered yet {asked}; covered from 3.5 on")
    if release.stored_masks and workload.seq_len > spec.context_tl:
        raise NotCovered(f"seq_len: {workload.seq_len} is beyond the context of {spec.context_tl}: not covered {asked}")
    missing = hooked_versions.missing(spec, version or "")
    if missing:
        raise InputError(f"model: {spec.name} is not covered {asked}: {missing}")
    return release


def _families(played: Forward) -> list[HookFamily]:
    return [
        HookFamily(hook=hook, count=count, bytes=played.hook_bytes[hook]) for hook, count in played.hook_counts.items()
    ]


def _tl_params_detail(spec: ModelSpec, folded: bool, dtype: str) -> str:
    ours = weights.tl_params(spec, folded)
    text = f"{millions(ours)} parameters in {dtype} as HookedTransformer"
    if not spec.has_hf_model:
        return text
    theirs = weights.hf_params(spec)
    why = ", the unembedding is not tied" if spec.tied_embeddings else ""
    return f"{text} (Hugging Face: {millions(theirs)}{why})"

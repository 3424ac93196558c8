"""The estimate of one forward pass, with or without a cache, in TransformerLens or transformers."""

from __future__ import annotations

from collections import Counter

from . import hook_names
from .errors import InputError
from .memory import hooked_transformer, weights
from .memory.assemble import LOADING, assemble, download_bytes, millions, repeatable
from .memory.estimate import Component, Estimate, HookFamily
from .memory.hooked_transformer import Forward, Run
from .models.resolve import resolve
from .models.spec import ModelSpec
from .runtime.flops import forward_flops
from .versions import check, is_verified
from .workload import DTYPE_BYTES, ActivationCache, Inference


def one_pass(workload: ActivationCache | Inference, capability: str | None) -> Estimate:
    spec = resolve(workload.model)
    verified, warnings = check(workload.library, workload.library_version)
    width = DTYPE_BYTES[workload.dtype]
    assumptions = [f"one forward pass at a time on one device; {verified}"]
    if not is_verified(workload.library, workload.library_version):
        assumptions.append(f"measured on {verified} only; {workload.library_version} is taken to allocate the same")
    hooks: list[HookFamily] = []
    host_bytes = 0
    kv_cache = False
    if workload.library == "transformers":
        assert isinstance(workload, Inference)
        from .memory import transformers_forward

        attention = workload.attention or transformers_forward.default_attention(spec)
        kv_cache = workload.kv_cache is not False
        grouped = spec.n_kv_heads != spec.n_heads
        old_card = capability is not None and float(capability) < 8.0
        unfused = attention == "sdpa" and (
            transformers_forward.needs_math_kernel(spec, width) or (old_card and grouped)
        )
        tape = transformers_forward.forward(
            spec, workload.batch_size, workload.seq_len, width, attention, kv_cache=kv_cache, math_kernel=unfused
        )
        if unfused:
            assumptions.append("sdpa with grouped heads runs unfused on this card or dtype: the scores are counted")
        weight_bytes = weights.hf_params(spec) * width
        buffer_bytes = weights.hf_buffer_bytes(spec, width)
        params_detail = f"{millions(weights.hf_params(spec))} parameters in {workload.dtype}"
        assumptions.append(f"attention implementation: {attention}; model in eval mode, torch.no_grad")
        if "dtype" not in workload.model_fields_set and spec.checkpoint_dtype not in (None, workload.dtype):
            assumptions.append(
                f"dtype float32, as none was given; transformers 5 loads {spec.checkpoint_dtype} unless told otherwise"
            )
        filled = workload.model_dump() | {"attention": attention, "kv_cache": kv_cache}
        folded, layers = True, None
        n_ctx = spec.n_ctx
    else:
        folded = not workload.no_processing
        run = _run(workload, spec, width)
        played = hooked_transformer.forward(run)
        tape = played.tape
        weight_bytes = weights.tl_params(spec, folded) * width
        buffer_bytes = weights.tl_buffer_bytes(spec, width)
        params_detail = _tl_params_detail(spec, folded, workload.dtype)
        filled = workload.model_dump()
        layers = run.stop_at_layer
        n_ctx = spec.context_tl
        if isinstance(workload, ActivationCache):
            if not sum(played.hook_counts.values()):
                raise InputError(hook_names.no_hook(workload, spec, run))
            hooks = _families(played)
            host_bytes = played.host_bytes
            filled["stop_at_layer"] = workload.stop_at_layer
            if not workload.with_gradients:
                assumptions.append("run under torch.no_grad(); without it the autograd graph is kept (with_gradients)")
        else:
            assumptions.append("torch.no_grad")
    if workload.seq_len > n_ctx:
        # HookedTransformer's rotary tables end at its n_ctx, too; those of transformers are computed as needed.
        ends = {"learned", "shortformer"} | ({"rotary"} if workload.library == "transformer_lens" else set())
        fails = ": its positions end there, the run fails" if spec.positional in ends else ""
        warnings.append(f"seq_len {workload.seq_len} is beyond {workload.library}'s context of {n_ctx} tokens{fails}")

    at_peak = Counter({"weights": weight_bytes, "buffers": buffer_bytes})
    at_peak.update(tape.at_peak)
    largest = Counter({"weights": weight_bytes, "buffers": buffer_bytes})
    largest.update({name: max(tape.by_component[name], tape.at_peak[name]) for name in tape.by_component})
    largest["temporaries"] = tape.at_peak["temporaries"]
    details = {
        "weights": params_detail,
        "activation_cache": "distinct storages the returned cache keeps alive",
        "logits": f"[{workload.batch_size}, {workload.seq_len}, {spec.d_vocab}]",
        "activations": "kept by autograd for a backward pass"
        if workload.library == "transformer_lens"
        else "the residual stream and what the running layer works on",
        "temporaries": "alive at the peak besides all that: intermediate results, copies of weights",
        "kv_cache": "keys and values the pass returns",
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
    loading = LOADING[workload.library, workload.library == "transformer_lens" and workload.no_processing, width]
    return assemble(
        filled | {"model": repeatable(workload.model, spec)},
        at_peak,
        largest,
        details,
        capability,
        # CUDA's fused attention kernels are not the ones that were measured.
        precision="exact"
        if is_verified(workload.library, workload.library_version) and filled.get("attention") != "sdpa"
        else "close",
        verified_on=f"{verified}, torch 2.13 (CPU and meta device; no GPU measurement)",
        hooks=hooks,
        host_bytes=host_bytes,
        loading_host_bytes=int(loading * weight_bytes),
        download_bytes=download_bytes(spec),
        flops=forward_flops(spec, workload.batch_size, workload.seq_len, layers=layers, logits=layers is None),
        assumptions=assumptions,
        warnings=warnings,
        extra=extra,
    )


def _run(workload: ActivationCache | Inference, spec: ModelSpec, width: int) -> Run:
    """The call to play, with layers and filters checked against the model."""
    base = {
        "spec": spec,
        "batch_size": workload.batch_size,
        "seq_len": workload.seq_len,
        "width": width,
        "folded": not workload.no_processing,
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

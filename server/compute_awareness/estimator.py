"""From a workload to an estimate: reads the model, plays the memory of the run, says how sure."""

from __future__ import annotations

from collections import Counter
from typing import Any, get_args

from . import hook_names
from .errors import InputError
from .memory import device, hooked_transformer, weights
from .memory.estimate import Component, ComponentName, Estimate, HookFamily, Peak, Precision, Range
from .memory.hooked_transformer import Forward, Run
from .models.resolve import resolve
from .models.spec import ModelSpec
from .runtime.flops import forward_flops
from .units import gib
from .versions import check, is_verified
from .workload import DTYPE_BYTES, ActivationCache, AnyWorkload, Inference, SaeTraining

# RAM at the worst moment of loading, as a multiple of the library's own weights, the Hugging Face copy included.
# Measured on transformer_lens 3.9.0 with gpt2, pythia-160m and qwen2.5-0.5b: processing works on float32 copies.
_LOADING = {
    ("transformer_lens", False, 4): 4.8,
    ("transformer_lens", False, 2): 9.3,
    ("transformer_lens", True, 4): 2.0,
    ("transformer_lens", True, 2): 3.2,
    ("transformers", False, 4): 1.0,
    ("transformers", False, 2): 1.0,
}


def estimate(workload: AnyWorkload, compute_capability: str | None = None) -> Estimate:
    """What the workload takes.

    Args:
        workload: what is to be run.
        compute_capability: of the card it will run on (e.g. "8.0"), for the CUDA context; None = a typical card.

    Returns:
        The estimate; bytes as integers. `peak.tensors` is exact for what `precision` says so.
    Raises:
        InputError: unknown model, hooks that match nothing, layers outside the model, versions not covered.
    """
    match workload:
        case ActivationCache() | Inference():
            return _one_pass(workload, compute_capability)
        case SaeTraining():
            return _sae_training(workload, compute_capability)


def _one_pass(workload: ActivationCache | Inference, capability: str | None) -> Estimate:
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
        params_detail = f"{_millions(weights.hf_params(spec))} parameters in {workload.dtype}"
        assumptions.append(f"attention implementation: {attention}; model in eval mode, torch.no_grad")
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
        where = f"{workload.library}'s context of {n_ctx} tokens"
        if spec.positional == "learned":
            warnings.append(f"seq_len {workload.seq_len} is beyond {where}: learned positions end there, the run fails")
        else:
            warnings.append(f"seq_len {workload.seq_len} is beyond {where}")

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
    loading = _LOADING[workload.library, workload.library == "transformer_lens" and workload.no_processing, width]
    result = _assemble(
        filled | {"model": spec.name},
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
        download_bytes=_download(spec),
        flops=forward_flops(spec, workload.batch_size, workload.seq_len, layers=layers, logits=layers is None),
        assumptions=assumptions,
        warnings=warnings,
        extra=extra,
    )
    result.summary = _summary(workload, spec, result)
    return result


def _sae_training(workload: SaeTraining, capability: str | None) -> Estimate:
    from .memory import activation_store, sae

    verified, warnings = check("sae_lens", workload.library_version)
    lm = None
    spec = None
    d_in = workload.d_in
    lm_flops = 0
    if workload.model is not None:
        assert workload.hook_name is not None
        spec = resolve(workload.model)
        width = DTYPE_BYTES[workload.model_dtype]
        layer = hook_names.layer_of(workload.hook_name)
        run = Run(
            spec, workload.store_batch_size_prompts, workload.context_size, width, folded=False,
            selects=lambda name: name == workload.hook_name,
            stop_at_layer=None if layer is None else layer + 1,
        )  # fmt: skip
        if layer is not None and layer >= spec.n_layers:
            raise InputError(f"hook_name: block {layer} is outside the {spec.n_layers} blocks of {spec.name}")
        played = hooked_transformer.forward(run)
        if not played.hook_counts:
            raise InputError(hook_names.no_such_hook(workload.hook_name, run))
        width_of_hook = hook_names.hook_width(spec, workload.hook_name)
        if width_of_hook is None:
            raise InputError(f"hook_name: {workload.hook_name} is not an activation an SAE can be trained on")
        if d_in is not None and d_in != width_of_hook:
            raise InputError(f"d_in: {d_in} given, but {workload.hook_name} of {spec.name} is {width_of_hook} wide")
        d_in = width_of_hook
        tokens = workload.store_batch_size_prompts * workload.context_size
        lm = sae.LanguageModelPart(
            weights=weights.tl_params(spec, False) * width,
            buffers=weights.tl_buffer_bytes(spec, width),
            forward_peak=played.tape.peak,
            retained=played.tape.by_component["activation_cache"],
        )
        lm_flops = (
            forward_flops(spec, workload.store_batch_size_prompts, workload.context_size, layers=run.stop_at_layer,
                          logits=run.stop_at_layer is None)
            * -(-workload.training_tokens // tokens)
        )  # fmt: skip
    assert d_in is not None
    d_sae = workload.d_sae or round((workload.expansion_factor or 0) * d_in)
    if d_sae < 1:
        raise InputError(f"expansion_factor {workload.expansion_factor} of d_in {d_in} makes no feature")
    if workload.d_sae and workload.expansion_factor and workload.d_sae != round(workload.expansion_factor * d_in):
        raise InputError(
            f"d_sae {workload.d_sae} and expansion_factor {workload.expansion_factor} x d_in {d_in} differ"
        )
    if workload.k > d_sae and workload.architecture in ("topk", "batchtopk"):
        raise InputError(f"k {workload.k} is more than the {d_sae} features")
    if d_sae > 256 * d_in:
        warnings.append(f"d_sae is {d_sae / d_in:.0f} times d_in; was expansion_factor given the hidden size?")
    memory = sae.training_memory(
        workload.architecture, d_in, d_sae, workload.k, workload.train_batch_size_tokens, workload.context_size,
        workload.n_batches_in_buffer, workload.store_batch_size_prompts, lm,
        store_on_host=workload.act_store_device == "cpu",
    )  # fmt: skip
    if lm is not None:
        complaint = activation_store.check_store(
            workload.train_batch_size_tokens, workload.context_size, workload.n_batches_in_buffer,
            workload.store_batch_size_prompts,
        )  # fmt: skip
        if complaint:
            warnings.append(complaint)
    params = sae.sae_params(workload.architecture, d_in, d_sae)
    details = {
        "sae_weights": f"{_millions(params)} parameters, d_in {d_in} x d_sae {d_sae}, float32",
        "optimizer_state": "Adam's two moments",
        "gradients": "of the SAE's parameters",
        "sae_activations": "pre-activations, features and reconstruction, with those of the step before",
        "activations": "the language model's forward pass that fills the store",
        "buffers": "rotary tables, masks and the like",
        "temporaries": "scratch of the step: gradients of activations, Adam's foreach lists",
        "activation_store": f"buffer of {workload.n_batches_in_buffer} x {workload.context_size} tokens in float32",
        "weights": f"{spec.name} in {workload.model_dtype}" if spec else "",
    }
    filled = workload.model_dump() | {"d_in": d_in, "d_sae": d_sae, "model": spec.name if spec else None}
    filled["expansion_factor"] = d_sae / d_in
    assumptions = [
        f"worst moment: {memory.phase}; {verified}",
        "Adam with foreach, as torch chooses on CUDA; checkpoints and evaluation are not counted",
    ]
    if memory.dead_latents_extra:
        assumptions.append(
            f"the range includes {gib(memory.dead_latents_extra)} for the auxiliary loss once many latents are dead"
        )
    if lm is None:
        assumptions.append("activations come from disk: no language model and no activation store are counted")
    result = _assemble(
        filled,
        Counter(memory.at_peak),
        Counter(memory.components),
        details,
        capability,
        precision="close",
        verified_on=f"{verified}, torch 2.13 (CPU; no GPU measurement)",
        host_bytes=memory.host_bytes,
        loading_host_bytes=int(_LOADING["transformer_lens", True, DTYPE_BYTES[workload.model_dtype]] * lm.weights)
        if lm
        else 0,
        download_bytes=_download(spec) if spec else None,
        flops=sae.training_flops(workload.architecture, d_in, d_sae, workload.training_tokens) + lm_flops,
        assumptions=assumptions,
        warnings=warnings,
        extra_high=memory.dead_latents_extra,
    )
    result.summary = _summary(workload, spec, result)
    return result


def _assemble(
    filled: dict[str, Any],
    at_peak: Counter[str],
    largest: Counter[str],
    details: dict[str, str],
    capability: str | None,
    *,
    precision: Precision,
    verified_on: str,
    hooks: list[HookFamily] | None = None,
    host_bytes: int = 0,
    loading_host_bytes: int = 0,
    download_bytes: int | None = None,
    flops: int = 0,
    assumptions: list[str],
    warnings: list[str],
    extra: list[Component] | None = None,
    extra_high: int = 0,
) -> Estimate:
    components = [
        Component(
            name=name, bytes=largest[name], at_peak=at_peak[name] > 0, bytes_at_peak=at_peak[name],
            detail=details.get(name, ""),
        )
        for name in get_args(ComponentName)
        if largest[name] or at_peak[name]
    ]  # fmt: skip
    tensors = sum(at_peak.values())
    low, high = device.device_range(tensors, capability)
    if extra_high:
        high = max(high, device.device_range(tensors + extra_high, capability)[1])
    return Estimate(
        workload=filled,
        components=components + (extra or []),
        peak=Peak(
            tensors=tensors,
            reserved=device.reserved_bytes(tensors, capability),
            device=device.device_bytes(tensors, capability),
        ),
        range=Range(low=low, high=high),
        precision=precision,
        verified_on=verified_on,
        hooks=hooks or [],
        host_bytes=host_bytes,
        loading_host_bytes=loading_host_bytes,
        download_bytes=download_bytes,
        flops=flops,
        assumptions=assumptions,
        warnings=warnings,
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
    text = f"{_millions(ours)} parameters in {dtype} as HookedTransformer"
    if not spec.has_hf_model:
        return text
    theirs = weights.hf_params(spec)
    why = ", the unembedding is not tied" if spec.tied_embeddings else ""
    return f"{text} (Hugging Face: {_millions(theirs)}{why})"


def _millions(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"


def _download(spec: ModelSpec) -> int | None:
    if spec.checkpoint_dtype is None or not spec.has_hf_model:
        return None
    return weights.hf_params(spec) * DTYPE_BYTES[spec.checkpoint_dtype]


def _summary(workload: AnyWorkload, spec: ModelSpec | None, result: Estimate) -> str:
    match workload:
        case ActivationCache():
            what = "run_with_cache" if workload.names_filter is None and workload.layers is None else "a filtered cache"
            size = f"{workload.batch_size} x {workload.seq_len} tokens"
            subject = f"{what} of {spec.name if spec else ''} ({workload.dtype}, {size})"
        case Inference():
            subject = (
                f"a forward pass of {spec.name if spec else ''} in {workload.library} "
                f"({workload.dtype}, {workload.batch_size} x {workload.seq_len} tokens)"
            )
        case SaeTraining():
            on = f" on {spec.name}" if spec else ""
            filled = result.workload
            size = f"d_in {filled['d_in']}, d_sae {filled['d_sae']}, batch {workload.train_batch_size_tokens}"
            subject = f"training a {workload.architecture} SAE{on} ({size})"
    biggest = sorted((c for c in result.components if c.where == "device"), key=lambda c: -c.bytes_at_peak)[:3]
    parts = ", ".join(f"{c.name.replace('_', ' ')} {gib(c.bytes_at_peak)}" for c in biggest if c.bytes_at_peak)
    tensors = f"{gib(result.peak.tensors)} of tensors: {parts}"
    return f"{subject} needs about {gib(result.peak.device)} of GPU memory ({tensors})."

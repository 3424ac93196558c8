"""The estimate of one forward pass of a TransformerBridge, with or without a cache."""

from __future__ import annotations

from dataclasses import replace

from ..errors import InputError, NotCovered
from ..hook_names import near
from ..memory import parameters, weights
from ..memory.bridge import forward as bridge_forward
from ..memory.bridge import names as bridge_names
from ..memory.bridge import processing
from ..memory.bridge import weights as bridge_weights
from ..memory.bridge.forward import Forward
from ..memory.bridge.later import late_segments
from ..memory.bridge.later import loaded as large_pool
from ..memory.bridge.run import FLOAT32, Run
from ..memory.card import device
from ..memory.card.pool import Pool
from ..memory.estimate import Component, Estimate, HookFamily
from ..memory.loading import loading
from ..models.resolve import resolve
from ..models.spec import ModelSpec
from ..reads import not_kept
from ..runtime import flops
from ..runtime.work import part
from ..units import gib
from ..versions import check, is_verified, parse
from ..workload import DTYPE_BYTES, ActivationCache, Inference
from .assemble import assemble, download_bytes, largest_and_peak, millions, repeatable

_NEWEST = "4.3.0"
_NOT_YET = (
    "with_gradients", "use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in",
    "output_hidden_states", "quantization",
)  # fmt: skip


def bridge_pass(workload: ActivationCache | Inference, capability: str | None) -> Estimate:
    """What `bridge(tokens)` or `bridge.run_with_cache(tokens)` takes, after `boot_transformers` and, with
    `compatibility_mode`, `enable_compatibility_mode(no_processing=...)`.

    Raises:
        InputError: model, version or option that is not covered, hooks that match nothing.
    """
    spec = resolve(workload.model)
    verified, warnings = check(workload.library, workload.library_version)
    known = is_verified(workload.library, workload.library_version)
    width = DTYPE_BYTES[workload.dtype]
    assumptions = [
        f"one forward pass at a time on one device, under torch.no_grad(); {verified}",
        "loaded with TransformerBridge.boot_transformers: eager attention, key/value cache on",
    ]
    if not known:
        assumptions.append(f"measured on {verified} only; {workload.library_version} is taken to allocate the same")
    run = _run(workload, spec, width)
    played = bridge_forward.forward(run)
    tape = played.tape
    if isinstance(workload, ActivationCache) and not sum(played.hook_counts.values()):
        raise InputError(_no_hook(workload, played))
    if isinstance(workload, ActivationCache):
        warnings = _unread(workload, spec, run) + warnings
    late_bytes = 0
    pattern = run.width * run.batch_size * spec.n_heads * run.seq_len**2
    if played.patterns_kept:
        patterns = played.patterns_kept * pattern
        again = bridge_forward.forward(replace(run, after_another=True)).tape.peak
        late_bytes = max(0, again - tape.peak)
        warnings.append(
            f"the Bridge keeps every layer's attention pattern ({gib(patterns)}) until its next forward pass, also "
            "after the outputs are deleted; later passes start with them"
        )
    float32_biases = _release(workload) < (4, 3, 0)
    if float32_biases and run.processed and width < FLOAT32 and bridge_weights.new_biases(spec):
        warnings.append(
            f"before 4.3 enable_compatibility_mode() gives {spec.name} biases in float32, which {workload.dtype} "
            "layers refuse: the run fails (use float32, or no_processing)"
        )
    if workload.seq_len > spec.n_ctx:
        fails = ": its positions end there, the run fails" if spec.positional == "learned" else ""
        warnings.append(f"seq_len {workload.seq_len} is beyond the model's context of {spec.n_ctx} tokens{fails}")
    standing = {
        "weights": bridge_weights.bridge_bytes(spec, width, run.processed, float32_biases),
        "buffers": weights.hf_buffer_bytes(spec, width),
    }
    at_peak, largest = largest_and_peak(tape, standing)
    reserved = None
    workspace = device.cublas_workspace(capability)
    requests = tape.requests((), workspace) if run.processed or played.patterns_kept else []
    if run.processed:
        reserved = processing.processed(spec, width).played(requests).peak_reserved
    if played.patterns_kept:
        loaded = parameters.hf_tensors(spec, width)
        more = sum(standing.values()) - sum(loaded)
        pool = Pool.large_of(processing.processed(spec, width)) if run.processed else large_pool((*loaded, more))
        late_bytes = max(late_bytes, late_segments(pool, requests, pattern, played.patterns_kept, workspace))
    extra = []
    if played.host_bytes:
        extra.append(
            Component(
                name="activation_cache", bytes=played.host_bytes, at_peak=False, bytes_at_peak=0, where="host",
                detail="copied to RAM name by name; aliases are copies of their own",
            )
        )  # fmt: skip
    layers = run.stop_at_layer
    shape = flops.Shape(workload.batch_size, workload.seq_len, width)
    work = flops.forward(spec, shape, layers=layers, logits=None if layers is None else 0)
    return assemble(
        workload.model_dump() | {"model": repeatable(workload.model, spec)},
        at_peak,
        largest,
        _details(workload, spec, run),
        capability,
        precision="exact" if known else "close",
        verified_on=f"{verified}, torch 2.13 (CPU) and 2.11 (H100)",
        hooks=[HookFamily(hook=h, count=n, bytes=played.hook_bytes[h]) for h, n in played.hook_counts.items()],
        host_bytes=played.host_bytes,
        loading=loading(
            "transformer_bridge", workload.library_version, spec, workload.dtype,
            compatibility_mode=workload.compatibility_mode, no_processing=workload.no_processing,
        ),
        download_bytes=download_bytes(spec),
        work=[part("forward pass", work, workload.dtype)],
        assumptions=assumptions,
        warnings=warnings,
        extra=extra,
        late_bytes=late_bytes,
        events=tape,
        standing=parameters.hf_tensors(spec, width),
        reserved=reserved,
    )  # fmt: skip


def _release(workload: ActivationCache | Inference) -> tuple[int, int, int]:
    return parse(workload.library_version or _NEWEST)


def _run(workload: ActivationCache | Inference, spec: ModelSpec, width: int) -> Run:
    """The call to play, with options, layers and filters checked."""
    for name in _NOT_YET:
        if getattr(workload, name, None):
            raise NotCovered(f"{name}: not covered yet for the Bridge")
    if workload.attention == "sdpa":
        raise InputError("attention: the Bridge forces 'eager', so that hooks see the scores")
    if isinstance(workload, Inference) and workload.kv_cache is False:
        raise NotCovered("kv_cache: a pass without is not covered yet for the Bridge; its default is with")
    bridge_forward.check_covered(spec)
    run = Run(
        spec=spec,
        batch_size=workload.batch_size,
        seq_len=workload.seq_len,
        width=width,
        compatibility_mode=workload.compatibility_mode,
        processed=workload.compatibility_mode and not workload.no_processing,
        mirrored=spec.architecture == "OPTForCausalLM" and _release(workload) >= (4, 0, 0),
    )
    if isinstance(workload, Inference):
        return run
    stop = workload.stop_at_layer
    if stop is not None:
        if not -spec.n_layers <= stop <= spec.n_layers:
            raise InputError(f"stop_at_layer: {stop} is outside the {spec.n_layers} blocks of {spec.name}")
        # At n_layers no block stops the Bridge: it computes the logits, too.
        stop = None if stop == spec.n_layers else stop % spec.n_layers
    selects = bridge_names.selector(spec, workload.names_filter, workload.layers, workload.compatibility_mode)
    return replace(run, selects=selects, cache_on_host=workload.cache_device == "cpu", stop_at_layer=stop)


def _unread(workload: ActivationCache, spec: ModelSpec, run: Run) -> list[str]:
    """The warning that the cache lacks something that `reads` names. Raises InputError for what no hook is called."""
    if workload.reads is None or run.selects is None:
        return []
    stopped = replace(run, batch_size=1, seq_len=1, selects=lambda name: False)
    whole = bridge_forward.forward(replace(stopped, stop_at_layer=None))
    fires = whole.hook_names if run.stop_at_layer is None else bridge_forward.forward(stopped).hook_names

    def refuse(pattern: str) -> str:
        asked = workload.model_copy(update={"names_filter": [pattern], "layers": None, "stop_at_layer": None})
        return _no_hook(asked, whole)

    return not_kept(workload, spec.n_layers, whole.hook_names, fires, run.selects, refuse)


def _no_hook(workload: ActivationCache, played: Forward) -> str:
    """The one line for a filter that keeps nothing."""
    wanted = workload.names_filter or ["*"]
    shown = ", ".join(repr(pattern) for pattern in wanted[:3])
    hint = near(wanted, played.hook_names, bridge_names.family)
    where = f" (layers {workload.layers})" if workload.layers is not None else ""
    where += f" (stop_at_layer {workload.stop_at_layer})" if workload.stop_at_layer is not None else ""
    return f"names_filter: {shown} matches no hook that fires in the Bridge{where}; {hint}"


def _details(workload: ActivationCache | Inference, spec: ModelSpec, run: Run) -> dict[str, str]:
    ours, theirs = bridge_weights.bridge_params(spec, run.processed), weights.hf_params(spec)
    return {
        "weights": f"{millions(ours)} parameters in {workload.dtype} as TransformerBridge "
        f"(Hugging Face: {millions(theirs)})",
        "activation_cache": "distinct storages the returned cache keeps alive",
        "logits": f"[{workload.batch_size}, {workload.seq_len}, {spec.d_vocab}]",
        "activations": "the residual stream, what the running block works on, and patterns that are kept",
        "temporaries": "alive at the peak besides all that: masks, copies of operands",
        "kv_cache": "keys and values, until the Bridge has taken the logits out of the model's output",
        "buffers": "rotary tables, masks and the like",
    }

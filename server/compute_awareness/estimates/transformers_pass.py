"""The estimate of one forward pass of a transformers model, plain or with activations kept; also as nnsight runs it."""

from __future__ import annotations

from dataclasses import replace

from ..errors import InputError
from ..memory import parameters, weights
from ..memory.estimate import Component, Estimate, HookFamily, Precision
from ..memory.huggingface import forward as transformers_forward
from ..memory.huggingface import outputs as transformers_outputs
from ..memory.huggingface.device_map import fullest_card
from ..memory.huggingface.forward import Played
from ..memory.huggingface.graph_pass import keeping_graph
from ..memory.huggingface.outputs import Selection
from ..memory.huggingface.parts import INT64
from ..memory.loading import loading
from ..memory.quantization import quantized_weight_bytes, scratch_bytes
from ..models.resolve import resolve
from ..models.spec import ModelSpec
from ..precision import earned, weaker
from ..reads import not_kept
from ..runtime import flops
from ..runtime.work import Work, part
from ..versions import check, is_verified
from ..workload import DTYPE_BYTES, ActivationCache, Inference
from .assemble import assemble, download_bytes, largest_and_peak, millions, repeatable
from .offloaded import offloaded

_NOT_YET = (
    "stop_at_layer", "use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in",
    "compatibility_mode",
)  # fmt: skip


def transformers_pass(workload: Inference | ActivationCache, capability: str | None) -> Estimate:
    """What `model(input_ids)` takes, with what `output_hidden_states`, `output_attentions` or forward hooks keep: under
    torch.no_grad(), or with the autograd graph (`with_gradients`). Also for nnsight, whose trace is the same pass, and
    whose `save()` is such a hook.

    Raises:
        InputError: model, version or option that is not covered, modules that match nothing.
    """
    library = workload.library
    for name in _NOT_YET:
        if getattr(workload, name, None) not in (None, False):
            raise InputError(f"{name}: not covered yet for {library}")
    spec = resolve(workload.model)
    verified, warnings = check(library, workload.library_version)
    known = is_verified(library, workload.library_version)
    width = DTYPE_BYTES[workload.dtype]
    assumptions = [f"one forward pass at a time on one device; {verified}"]
    if not known:
        assumptions.append(f"measured on {verified} only; {workload.library_version} is taken to allocate the same")
    attention = workload.attention or transformers_forward.default_attention(spec)
    kv_cache = not (isinstance(workload, Inference) and workload.kv_cache is False)
    unfused = attention == "sdpa" and transformers_forward.needs_math_kernel(spec, width, capability)
    selection, keeps = None, None
    if isinstance(workload, ActivationCache):
        selection = transformers_outputs.select(
            spec, workload.names_filter, workload.layers, workload.cache_device == "cpu"
        )
        keeps = selection.keeps
        warnings = _unread(workload, spec) + warnings
        assumptions.append("a module that returns a tuple is kept by its first element; in globs * stops at dots")
    elif workload.output_hidden_states or workload.output_attentions:
        if workload.output_attentions and attention == "sdpa":
            warnings.append(
                "output_attentions: with sdpa transformers returns no attention weights; load the model with "
                "attn_implementation='eager' to get them (attention 'eager' here)"
            )
        weighed = workload.output_attentions and attention == "eager"
        keeps = transformers_outputs.hidden_states(spec, weighed, workload.output_hidden_states)
    quantization = (workload.quantization if isinstance(workload, Inference) else None) or spec.quantization
    with_graph = isinstance(workload, ActivationCache) and workload.with_gradients
    if with_graph and quantization is not None:
        raise InputError(f"with_gradients: not covered yet for a quantised model ({quantization})")
    for name in ("offload", "max_memory"):
        if getattr(workload, name) and quantization is not None:
            raise InputError(f"{name}: not covered yet for a quantised model ({quantization})")
    beside = offloaded(workload, spec)
    shape = spec, workload.batch_size, workload.seq_len, width, attention, kv_cache, unfused
    if with_graph and keeps is not None:
        played = keeping_graph(*shape, keeps)
    else:
        played = transformers_forward.keeping(*shape, keeps, beside.waiting if beside else None)
    tape = played.tape
    if unfused:
        assumptions.append("sdpa with grouped heads runs unfused on this card or dtype: the scores are counted")
    assumptions.append(f"attention implementation: {attention}; model in eval mode")
    _say_gradients(workload, with_graph, assumptions, warnings)
    if library == "nnsight":
        assumptions.append("the trace runs locally; with remote=True it takes none of this here")
    if "dtype" not in workload.model_fields_set and spec.checkpoint_dtype not in (None, workload.dtype):
        assumptions.append(
            f"dtype float32, as none was given; transformers 5 loads {spec.checkpoint_dtype} unless told otherwise"
        )
    if workload.seq_len > spec.n_ctx:
        fails = ": its positions end there, the run fails" if spec.positional in ("learned", "shortformer") else ""
        warnings.append(f"seq_len {workload.seq_len} is beyond transformers' context of {spec.n_ctx} tokens{fails}")
    weight_bytes = weights.hf_params(spec) * width
    if quantization is not None:
        weight_bytes = quantized_weight_bytes(spec, quantization, width)
    if workload.n_devices > 1:
        weight_bytes = min(weight_bytes, fullest_card(spec, width, workload.n_devices))
        assumptions.append(
            f"device_map='auto' over {workload.n_devices} cards: the fullest card's weights at most, and all else that "
            "one card would hold, as if it all lay there; placement compared with transformers' own on the meta "
            "device, no run on several cards"
        )
    if beside is not None:
        weight_bytes = beside.weights.held["card"]
    standing = {"weights": weight_bytes, "buffers": weights.hf_buffer_bytes(spec, width)}
    if library == "nnsight":  # LanguageModel's attention mask, and ids put together from several prompts, int64
        standing["activations"] = (1 + (workload.batch_size > 1)) * INT64 * workload.batch_size * workload.seq_len
    at_peak, largest = largest_and_peak(tape, standing)
    if beside is not None:
        largest["weights"] = weight_bytes + beside.waiting.largest
        assumptions += beside.assumptions()
        warnings += beside.warnings()
    elif workload.max_memory:
        assumptions.append("max_memory has room for all weights on the card")
    precision: Precision = "exact" if known and attention != "sdpa" else "close"  # CUDA's fused kernels were not run
    if quantization is not None:
        tokens = workload.batch_size * workload.seq_len
        scratch = scratch_bytes(spec, quantization, tokens, width)
        at_peak["temporaries"] += scratch
        largest["temporaries"] += scratch
        precision = "close" if quantization.startswith("bitsandbytes") else "rough"
        run = "weights as bitsandbytes stores them" if precision == "close" else "sizes and kernels were read, not run"
        assumptions.append(
            f"linear layers of the blocks in {quantization}, the rest and all computing in {workload.dtype}; {run}; "
            "the scratch of the hungriest layer is added to the peak"
        )
    if workload.n_devices > 1:
        precision = "rough"
    if beside is not None:
        precision = weaker(precision, earned("transformers", "inference_offload", spec.architecture, workload.dtype))
    if beside is not None and beside.converted:
        precision = weaker(precision, "close")
    share = f", the fullest of {workload.n_devices} cards" if workload.n_devices > 1 else ""
    if beside is not None:
        share = beside.share
    details = {
        "weights": f"{millions(weights.hf_params(spec))} parameters in {quantization or workload.dtype}{share}",
        "activation_cache": "distinct storages that outlive the pass because they were asked for",
        "logits": f"[{workload.batch_size}, {workload.seq_len}, {spec.d_vocab}]",
        "activations": "kept by autograd for a backward pass"
        if with_graph
        else "the residual stream and what the running layer works on",
        "temporaries": "alive at the peak besides all that: intermediate results, copies of weights",
        "kv_cache": "keys and values the pass returns",
        "buffers": "rotary tables, masks and the like",
    }
    loaded = loading(
        "transformers",
        workload.library_version if library == "transformers" else None,
        spec,
        workload.dtype,
        quantization=quantization,
    )
    kernel = "fused" if attention == "sdpa" and not unfused else "products"
    work = flops.forward(spec, flops.Shape(workload.batch_size, workload.seq_len, width, kernel=kernel))
    if quantization is not None:  # the weights are read as they are stored
        work -= Work(moved=weights.hf_params(spec) * width - weight_bytes)
    forward_work = part("forward pass", work, workload.dtype)
    hooks, host_bytes = _hooks(selection, played)
    extra = []
    if host_bytes:
        extra.append(
            Component(
                name="activation_cache", bytes=host_bytes, at_peak=False, bytes_at_peak=0, where="host",
                detail="copied to RAM module by module; copies share nothing",
            )
        )  # fmt: skip
    parts = [forward_work]
    if beside is not None:
        parts = beside.add_crossing(forward_work)
        extra += beside.components()
        host_bytes += beside.weights.held["cpu"]
        loaded = beside.loading(loaded, standing["buffers"])
    filled = {"attention": attention, "model": repeatable(workload.model, spec)}
    if isinstance(workload, Inference):
        filled |= {"kv_cache": kv_cache, "quantization": quantization}
    return assemble(
        workload.model_dump() | filled,
        at_peak,
        largest,
        details,
        capability,
        precision=precision,
        verified_on=f"{verified}, torch 2.13 (CPU, meta device"
        + (") and 2.11 (H100)" if library == "transformers" and isinstance(workload, Inference) else "; not on a GPU)"),
        hooks=hooks,
        host_bytes=host_bytes,
        loading=loaded if workload.n_devices == 1 else replace(loaded, device_bytes=weight_bytes + standing["buffers"]),
        download_bytes=download_bytes(spec),
        work=parts,
        assumptions=assumptions,
        warnings=warnings,
        extra=extra,
        events=tape,
        standing=() if beside or quantization or workload.n_devices > 1 else parameters.hf_tensors(spec, width),
    )


def _unread(workload: ActivationCache, spec: ModelSpec) -> list[str]:
    """The warning that a module that `reads` names is not hooked. Raises InputError for what no module is called."""
    try:
        if workload.reads:
            transformers_outputs.select(spec, workload.reads, None, False)
    except InputError as error:
        raise InputError(str(error).replace("names_filter:", "reads:", 1)) from None
    every = transformers_outputs.paths(spec, ["*"])
    kept = frozenset(transformers_outputs.paths(spec, workload.names_filter, workload.layers))

    def refuse(pattern: str) -> str:
        return f"reads: {pattern!r} matches no module of {spec.name} in transformers"

    return not_kept(workload, spec.n_layers, every, every, kept.__contains__, refuse, transformers_outputs.module_regex)


def _say_gradients(
    workload: Inference | ActivationCache, with_graph: bool, assumptions: list[str], warnings: list[str]
) -> None:
    """Whether the graph is counted, and what keeps it."""
    saves = "save()" if workload.library == "nnsight" else "a hook"
    if not with_graph:
        assumptions.append("run under torch.no_grad()")
        if workload.library == "nnsight":
            warnings.append(
                "an nnsight trace builds the autograd graph and keeps it with what is saved, unless it runs inside "
                "torch.no_grad(), as is assumed here (with_gradients counts the graph)"
            )
        elif isinstance(workload, ActivationCache):
            assumptions[-1] += "; without it the autograd graph is kept (with_gradients)"
        return
    assumptions.append(
        f"gradients are enabled and every weight wants one: the autograd graph is kept as long as the model's output "
        f"or anything {saves} keeps; no backward pass is counted"
    )
    if isinstance(workload, ActivationCache) and workload.cache_device == "cpu":
        warnings.append(
            f"copies in RAM still hold the autograd graph on the device: detach() what {saves} keeps, or run under "
            "torch.no_grad()"
        )


def _hooks(selection: Selection | None, played: Played) -> tuple[list[HookFamily], int]:
    """What each family of modules keeps, and how many bytes of it are in RAM."""
    if selection is None:
        return [], 0
    families = selection.by_family(played.sizes)
    host_bytes = sum(nbytes for _, _, nbytes in families) if selection.keeps.on_host else 0
    return [HookFamily(hook=path, count=count, bytes=nbytes) for path, count, nbytes in families], host_bytes

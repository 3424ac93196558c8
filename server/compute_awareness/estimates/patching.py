"""The estimate of activation patching, attribution patching and edge attribution patching with a HookedTransformer."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from typing import TYPE_CHECKING

from .. import hook_names
from ..errors import InputError
from ..memory import parameters, weights
from ..memory.card.staging import WORKSPACE
from ..memory.estimate import Estimate
from ..memory.hooked import edges as hooked_edges
from ..memory.hooked import patching as memory
from ..memory.hooked.run import Run
from ..memory.hooked.transformer import family
from ..memory.loading import loading
from ..memory.tape import Tape
from ..models.resolve import resolve
from ..models.spec import ModelSpec
from ..runtime import patching as effort
from ..runtime.flops import Shape
from ..runtime.work import part
from ..versions import check, is_verified
from ..workload import DTYPE_BYTES, ActivationCache
from .assemble import assemble, download_bytes, largest_and_peak, millions, repeatable
from .hooked_training import refuse_uncovered, standing_buffers

if TYPE_CHECKING:
    from ..workload.patching import Patching

_PER_HEAD = ("attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z", "attn.hook_result", "attn.hook_pattern")


def patching(workload: Patching, capability: str | None) -> Estimate:
    """What a patching experiment takes: the clean cache, and the patched runs or the run with gradients.

    Raises:
        InputError: unknown model, hooks that match nothing, layers outside the model, what is not covered.
    """
    edges = workload.method in ("eap", "eap_ig")
    spec = resolve(workload.model)
    verified, warnings = check("transformer_lens", workload.library_version)
    refuse_uncovered(spec, workload.library_version, workload.seq_len, "patching")
    hook_mlp_in = workload.use_hook_mlp_in and not (edges and not spec.d_mlp)
    if hook_mlp_in and not spec.d_mlp:
        raise InputError(f"use_hook_mlp_in: {spec.name} has attention only")
    width, folded = DTYPE_BYTES[workload.dtype], not workload.no_processing
    cached = _as_cache(workload)
    run = Run(
        spec, workload.batch_size, workload.seq_len, width, folded=folded,
        selects=hook_names.selector(cached, spec), trainable=workload.parameter_gradients,
        use_attn_result=workload.use_attn_result, use_split_qkv_input=workload.use_split_qkv_input,
        use_hook_mlp_in=hook_mlp_in,
    )  # fmt: skip
    batches = -(-(workload.n_prompts or workload.batch_size) // workload.batch_size)
    assumptions = [
        verified if edges else f"{verified}; the clean cache is made under torch.no_grad(), its logits are kept"
    ]
    shape = Shape(workload.batch_size, workload.seq_len, width)
    frozen = not workload.parameter_gradients
    hooked = True
    requests: Tape | None = None  # of a sweep of patches only the peak is known
    if edges:
        steps = workload.ig_steps if workload.method == "eap_ig" else 1
        integrated, several = workload.method == "eap_ig", batches > 1
        tape = hooked_edges.edge_attribution(run, steps * batches, integrated, several=several)
        requests = hooked_edges.edge_requests(run, steps * batches, integrated, capability, several)
        work = effort.edge_attribution(spec, shape, steps, frozen)
        assumptions.append(
            "as in hannamw/EAP-IG: activation_difference of all nodes, two passes under torch.inference_mode(), then "
            f"{steps} forward and backward; ungroup_grouped_query_attention; a metric of one logit per prompt"
        )
        if not spec.d_mlp:
            assumptions.append(
                "an attention-only model: heads, input and logits are the only nodes; EAP-IG itself names an MLP node "
                "per layer, whose hooks such a model has not"
            )
        assumptions.append("prompts of equal length: no attention_mask is passed")
        if workload.parameter_gradients:
            assumptions.append("backward allocates the gradients of all parameters and nobody frees them")
            warnings.append("edge attribution reads no parameter gradients; they take as much as the weights")
    elif workload.method == "activation_patching":
        patches = _patches(workload, spec, run.selects)
        tape, clean = memory.activation_patching(run, patches)
        hooked = sum(clean.hook_counts.values()) > 0
        work = effort.activation_patching(spec, shape, patches, run.elementwise)
        assumptions.append(f"{patches} patched forward passes per batch of prompts, one after the other, no gradients")
        warnings.append("transformer_lens.patching does not switch gradients off; run it under torch.no_grad()")
    else:
        tape, clean = memory.attribution_patching(run)
        hooked = sum(clean.hook_counts.values()) > 0
        requests = memory.attribution_requests(run, capability)
        work = effort.attribution_patching(spec, shape, frozen, run.elementwise)
        assumptions.append(
            "activations and gradients of the corrupted run are cached by hooks, model(tokens) goes straight into a "
            "metric of one logit per prompt, then backward()"
        )
        assumptions.append(
            "backward allocates the gradients of all parameters, though nobody reads them (parameter_gradients)"
            if workload.parameter_gradients
            else "parameters do not require gradients; those of activations begin at hook_embed"
        )
    if not hooked:
        raise InputError(hook_names.no_hook(cached, spec, run))
    warnings = hook_names.unread(cached, spec, run) + warnings
    if workload.n_prompts is None:
        assumptions.append("work and time are those of one batch of prompts: n_prompts is not given")
    at_peak, largest = largest_and_peak(
        tape, {"weights": weights.tl_params(spec, folded) * width, "buffers": standing_buffers(spec, run)}
    )
    details = {
        "weights": f"{millions(weights.tl_params(spec, folded))} parameters in {workload.dtype} as HookedTransformer",
        "activation_cache": f"activation_difference [{workload.batch_size}, {workload.seq_len}, "
        f"{hooked_edges.n_forward(run)} nodes, {spec.d_model}]"
        if edges
        else "the clean cache"
        if workload.method == "activation_patching"
        else "clean activations, corrupted activations and their gradients",
        "gradients": "of every parameter: allocated by backward, not used"
        if workload.parameter_gradients
        else "of hook_embed",
        "activations": "kept by autograd for the backward pass",
        "logits": f"[{workload.batch_size}, {workload.seq_len}, {spec.d_vocab}], clean and of a patched run",
        "temporaries": "alive at the peak besides all that: intermediate results, copies of weights",
        "buffers": "rotary tables, masks and the like",
    }
    return assemble(
        workload.model_dump() | {"model": repeatable(workload.model, spec)},
        at_peak,
        largest,
        details,
        capability,
        # With frozen parameters tiny runs came out some kilobytes low: by 14,400 bytes through which torch's CPU copies
        # a transposed matrix. Short ones are not among the comparisons that are kept.
        precision="exact"
        if is_verified("transformer_lens", workload.library_version) and workload.parameter_gradients
        else "close",
        verified_on=f"{verified}, torch 2.13 (CPU{'; no GPU measurement)' if edges else ') and 2.11 (H100)'}",
        backward=workload.method != "activation_patching",
        events=requests,
        standing=parameters.tl_tensors(spec, width, folded),
        listed=tape.peak,
        buffers=max(0, requests.peak - requests.at_peak[WORKSPACE] - tape.peak) if requests is not None else 0,
        second_workspace="on the tape",
        loading=loading(
            "transformer_lens", workload.library_version, spec, workload.dtype, no_processing=workload.no_processing
        ),
        download_bytes=download_bytes(spec),
        work=[part(f"{workload.method.replace('_', ' ')} of a batch of prompts", work, workload.dtype, batches)],
        assumptions=assumptions,
        warnings=warnings,
    )


def _as_cache(workload: Patching) -> ActivationCache:
    """The clean run_with_cache as a workload of its own."""
    return ActivationCache(
        model=workload.model, batch_size=workload.batch_size, seq_len=workload.seq_len, dtype=workload.dtype,
        no_processing=workload.no_processing, names_filter=workload.names_filter, layers=workload.layers,
        reads=workload.reads, use_attn_result=workload.use_attn_result,
        use_split_qkv_input=workload.use_split_qkv_input, use_hook_mlp_in=workload.use_hook_mlp_in,
    )  # fmt: skip


def _patches(workload: Patching, spec: ModelSpec, selects: Callable[[str], bool] | None) -> int:
    """Forward passes of the sweep: layers x positions, x heads where the filter names an activation per head."""
    assert selects is not None
    layers = len({layer % spec.n_layers for layer in workload.layers}) if workload.layers else spec.n_layers
    positions = workload.positions or workload.seq_len
    patterns = [re.compile(translate(pattern)) for pattern in workload.names_filter or ()]
    per_head = any(p.match(f"blocks.0.{hook}") for p in patterns for hook in _PER_HEAD)
    residual = any(p.match(f"blocks.0.{family(hook)}") for p in patterns for hook in ("hook_resid_pre",))
    return layers * positions * (spec.n_heads if per_head and not residual else 1)

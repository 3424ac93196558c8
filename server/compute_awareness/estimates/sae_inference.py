"""The estimate of using an SAE: features of a batch of activations, or its reconstruction in the model."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from .. import hook_names
from ..errors import InputError
from ..memory import parameters
from ..memory.estimate import Estimate
from ..memory.hooked import transformer as hooked_transformer
from ..memory.loading import loading
from ..memory.sae import inference as sae
from ..memory.sae.inference import Use
from ..memory.sae.splice import Splice, with_sae
from ..memory.sae.step import Ledger
from ..memory.sae.temporal import Temporal
from ..runtime import flops
from ..runtime import sae as effort
from ..runtime.work import WorkPart, part
from ..versions import check
from ..workload import DTYPE_BYTES
from ..workload.sae_inference import SaeInference
from .assemble import assemble, download_bytes, millions, repeatable
from .sae_parts import HookedModel, features, hooked_model, pursuit


def sae_inference(workload: SaeInference, capability: str | None) -> Estimate:
    """What it takes, under torch.no_grad(). Bytes as integers.

    Raises:
        InputError: unknown model or hook, sizes that do not agree, more than d_sae active features.
    """
    verified, warnings = check("sae_lens", workload.library_version)
    model = None
    d_in = workload.d_in
    model_width = DTYPE_BYTES[workload.model_dtype]
    if workload.model is not None:
        assert workload.hook_name is not None
        model = hooked_model(
            workload.model, workload.hook_name, workload.batch_size, workload.seq_len, model_width, d_in
        )
        d_in = model.width_of_hook
    assert d_in is not None
    d_sae = features(workload.d_sae, workload.expansion_factor, d_in, warnings)
    architecture = "jumprelu" if workload.architecture in sae.SAVED_AS_JUMPRELU else workload.architecture
    if workload.k > d_sae and "topk" in architecture:
        raise InputError(f"k {workload.k} is more than the {d_sae} features")
    one_dtype = workload.dtype == workload.model_dtype
    if workload.architecture.endswith("skip_transcoder") and not workload.splice and not one_dtype:
        warnings.append(
            f"calling a {workload.dtype} {workload.architecture} on {workload.model_dtype} activations fails in "
            "SAELens (x @ W_skip wants one dtype); encode() works. Give both the same dtype"
        )
    tokens = workload.batch_size * workload.seq_len
    use = Use(
        architecture, d_in, d_sae, _width_out(workload, model, d_in), workload.k, tokens, DTYPE_BYTES[workload.dtype],
        model_width, pursuit=pursuit(workload, d_in), temporal=_temporal(workload, d_sae),
    )  # fmt: skip
    tape = Ledger()
    weights = Counter(sae_weights=workload.n_saes * use.params * use.width)
    standing = use.tensors * workload.n_saes
    if model is not None:
        weights |= Counter(weights=model.part.weights, buffers=model.part.buffers)
        standing = [*parameters.tl_tensors(model.spec, model_width, folded=False), *standing]
    if workload.splice:
        assert model is not None
        _splice(tape, workload, model, use)
    else:
        _encode(tape, workload, model, use)
    spec = model.spec if model else None
    work = _work(workload, use)
    if spec is not None:
        layers = model.run.stop_at_layer if model and workload.stop_after_hook and not workload.splice else None
        shape = flops.Shape(workload.batch_size, workload.seq_len, model_width)
        once = flops.forward(spec, shape, layers=layers, logits=None if layers is None else 0)
        work.append(part("forward pass of the language model", once, workload.model_dtype))
    assumptions = [f"under torch.no_grad(), one batch at a time; {verified}"]
    if workload.architecture != architecture:
        assumptions.append(f"a {workload.architecture} SAE is saved and loaded as {architecture}")
    if use.pursuit is not None:
        assumptions.append(
            f"up to {use.pursuit.iterations} iterations of the encoder; without gradients none of them leaves anything"
        )
    if use.temporal is not None:
        fused = use.temporal.fused(d_sae, use.width)
        how = "in torch's memory-efficient kernel (not run here)" if fused else "unfused: all scores in float32"
        assumptions.append(f"the temporal SAE's attention runs {how}")
    if workload.splice and workload.architecture in ("skip_transcoder", "jumprelu_skip_transcoder", "temporal"):
        lost = "predicted codes" if workload.architecture == "temporal" else "skip connection"
        warnings.append(
            f"spliced in, a {workload.architecture} loses its {lost}: HookedSAETransformer calls encode and decode, "
            "not the SAE itself"
        )
    if workload.splice:
        assumptions.append("HookedSAETransformer; only the features are cached, not the model's other hooks")
    elif model is not None:
        assumptions.append("run_with_cache of that hook alone; logits and cache are still held while the SAE encodes")
    return assemble(
        workload.model_dump()
        | {"d_in": d_in, "d_sae": d_sae, "expansion_factor": d_sae / d_in, "model": repeatable(workload.model, spec)},
        tape.at_peak + weights,
        tape.largest + weights,
        {
            "sae_weights": f"{workload.n_saes} x {millions(use.params)} parameters, d_in {d_in} x d_sae {d_sae}, "
            f"{workload.dtype}",
            "sae_activations": "feature activations that are kept",
            "weights": f"{spec.name} in {workload.model_dtype}" if spec else "",
            "activation_cache": "what the cache holds",
            "temporaries": "intermediate results of the SAE and the model",
            "buffers": "rotary tables, masks and the like",
            "activations": "the activations to encode",
        },
        capability,
        precision="close",
        verified_on=f"{verified}, torch 2.13 (CPU) and 2.11 (H100)",
        loading=loading("transformer_lens", None, spec, workload.model_dtype, no_processing=True) if spec else None,
        download_bytes=download_bytes(spec) if spec else None,
        work=work,
        assumptions=assumptions,
        warnings=warnings,
        events=tape,
        standing=standing,
    )


def _work(workload: SaeInference, use: Use) -> list[WorkPart]:
    """What the SAEs do."""
    if not workload.splice:
        return [part("encoding with an SAE", effort.encode(use), workload.dtype, workload.n_saes)]
    times = 2 if workload.use_error_term else 1
    return [part("encoding and decoding with the SAE", effort.encode(use) + effort.decode(use), workload.dtype, times)]


def _encode(tape: Ledger, workload: SaeInference, model: HookedModel | None, use: Use) -> None:
    """run_with_cache of the hook, then each SAE encodes it; features are kept."""
    tape.phase = "language model"
    if model is None:
        source = tape.new(use.rows * use.d_in * use.input_width, "activations")
    else:
        call = model.played if workload.stop_after_hook else hooked_transformer.forward(
            replace(model.run, stop_at_layer=None)
        )  # fmt: skip
        tape.append(call.tape)
        source = tape.new(0)
    tape.phase = "SAE"
    for _ in range(min(workload.n_saes, 2)):
        acts = sae.encode(tape, use, source)
        tape.book(acts, "sae_activations")
        if workload.n_saes > 2:  # all but the last are alike: they leave their features behind
            tape.new((workload.n_saes - 2) * acts.bytes, "sae_activations")
            workload = workload.model_copy(update={"n_saes": 2})


def _splice(tape: Ledger, workload: SaeInference, model: HookedModel, use: Use) -> None:
    """run_with_saes or run_with_cache_with_saes: the SAE's output goes on through the model."""
    assert workload.hook_name is not None
    run = replace(model.run, selects=None, stop_at_layer=None)
    played = with_sae(
        Splice(
            run, workload.hook_name_out or workload.hook_name, use, workload.hook_name, workload.keep_features,
            workload.use_error_term,
        )
    )  # fmt: skip
    tape.phase = "spliced forward"
    tape.append(played)
    for name, size in Counter(played.by_component).items():
        tape.largest[name] = max(tape.largest[name], size)


def _width_out(workload: SaeInference, model: HookedModel | None, d_in: int) -> int:
    """d_out of the SAE; where it is spliced in, of the hook it writes to.

    Raises:
        InputError: a hook_name_out that does not exist, is no later hook of the same block, or has another width.
    """
    hook = workload.hook_name_out
    if hook is None or model is None or workload.hook_name is None:
        d_out = workload.d_out or d_in
        if workload.splice and d_out != d_in:
            raise InputError(f"d_out: {d_out} given, but {workload.hook_name}, where it is spliced in, is {d_in} wide")
        return d_out
    names = hooked_transformer.forward(replace(model.run, selects=None, stop_at_layer=None)).hook_names
    if hook not in names:
        raise InputError(hook_names.no_such_hook(hook, model.run).replace("hook_name:", "hook_name_out:", 1))
    layers = {hook_names.layer_of(name) for name in (hook, workload.hook_name)}
    if len(layers) > 1 or None in layers or names.index(hook) < names.index(workload.hook_name):
        raise InputError(f"hook_name_out: {hook} is no later hook of the block of {workload.hook_name}")
    width = hook_names.hook_width(model.spec, hook)
    if width is None:
        raise InputError(f"hook_name_out: {hook} is not an activation that a transcoder can write")
    if workload.d_out is not None and workload.d_out != width:
        raise InputError(f"d_out: {workload.d_out} given, but {hook} of {model.spec.name} is {width} wide")
    return width


def _temporal(workload: SaeInference, d_sae: int) -> Temporal | None:
    """Of a temporal SAE; None for the others.

    Raises:
        InputError: heads that d_sae does not divide into, as SAELens asserts; more active features than there are.
    """
    if workload.architecture != "temporal":
        return None
    if d_sae % (workload.bottleneck_factor * workload.n_heads):
        raise InputError(
            f"d_sae {d_sae} is no multiple of bottleneck_factor * n_heads = {workload.bottleneck_factor} * "
            f"{workload.n_heads}, as SAELens demands"
        )
    active = workload.kval_topk if workload.sae_diff_type == "topk" else None
    if active is not None and active > d_sae:
        raise InputError(f"kval_topk {active} is more than the {d_sae} features")
    return Temporal(
        workload.batch_size, workload.seq_len, workload.n_heads, workload.n_attn_layers, workload.bottleneck_factor,
        active, workload.tied_weights,
    )  # fmt: skip

"""The estimate of an SAE training run: the SAE's step, its activation store, the language model behind it."""

from __future__ import annotations

from collections import Counter

from .. import hook_names
from ..errors import InputError
from ..memory import activation_store, hooked_transformer, sae, weights
from ..memory.estimate import Estimate
from ..memory.hooked_transformer import Run
from ..memory.loading import loading
from ..models.resolve import resolve
from ..runtime.flops import forward_flops
from ..units import gib
from ..versions import check
from ..workload import DTYPE_BYTES, SaeTraining
from .assemble import assemble, download_bytes, millions, repeatable


def sae_training(workload: SaeTraining, capability: str | None) -> Estimate:
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
        "sae_weights": f"{millions(params)} parameters, d_in {d_in} x d_sae {d_sae}, float32",
        "optimizer_state": "Adam's two moments",
        "gradients": "of the SAE's parameters",
        "sae_activations": "pre-activations, features and reconstruction, with those of the step before",
        "activations": "the language model's forward pass that fills the store",
        "buffers": "rotary tables, masks and the like",
        "temporaries": "scratch of the step: gradients of activations, Adam's foreach lists",
        "activation_store": f"buffer of {workload.n_batches_in_buffer} x {workload.context_size} tokens in float32",
        "weights": f"{spec.name} in {workload.model_dtype}" if spec else "",
    }
    filled = workload.model_dump() | {"d_in": d_in, "d_sae": d_sae, "model": repeatable(workload.model, spec)}
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
    return assemble(
        filled,
        Counter(memory.at_peak),
        Counter(memory.components),
        details,
        capability,
        precision="close",
        verified_on=f"{verified}, torch 2.13 (CPU; no GPU measurement)",
        host_bytes=memory.host_bytes,
        loading=loading("transformer_lens", None, spec, workload.model_dtype, no_processing=True) if spec else None,
        download_bytes=download_bytes(spec) if spec else None,
        flops=sae.training_flops(workload.architecture, d_in, d_sae, workload.training_tokens) + lm_flops,
        assumptions=assumptions,
        warnings=warnings,
        late_bytes=memory.dead_latents_extra,
    )

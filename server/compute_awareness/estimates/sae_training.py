"""The estimate of an SAE training run: the SAE's step, its activation store, the language model behind it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from .. import hook_names
from ..errors import InputError
from ..memory import weights
from ..memory.estimate import Estimate
from ..memory.hooked import transformer as hooked_transformer
from ..memory.hooked.transformer import Run
from ..memory.loading import loading
from ..memory.sae import activation_store, dictionary_learning_run
from ..memory.sae import evaluation as sae_evaluation
from ..memory.sae import training as sae
from ..memory.sae.inference import Use
from ..memory.sae.matching_pursuit import Pursuit, bytes_per_iteration
from ..memory.tape import Tape
from ..models.resolve import resolve
from ..models.spec import ModelSpec
from ..runtime.flops import forward_flops
from ..units import gib
from ..versions import check
from ..workload import DTYPE_BYTES, SaeTraining
from ..workload.sae_inference import SaeInference
from .assemble import assemble, download_bytes, millions, repeatable


@dataclass(frozen=True)
class HookedModel:
    """The language model of an SAE task: the call that reaches the hook, what it takes, the hook's width."""

    spec: ModelSpec
    run: Run
    played: hooked_transformer.Forward
    width_of_hook: int

    @property
    def part(self) -> sae.LanguageModelPart:
        """Weights, buffers and the call, as the activation store sees them. Bytes."""
        return sae.LanguageModelPart(
            weights=weights.tl_params(self.spec, False) * self.run.width,
            buffers=weights.tl_buffer_bytes(self.spec, self.run.width),
            forward_peak=self.played.tape.peak,
            retained=self.played.tape.by_component["activation_cache"],
        )


def hooked_model(
    model: str | dict[str, Any], hook_name: str, batch_size: int, seq_len: int, width: int, d_in: int | None
) -> HookedModel:
    """The model run up to the block of `hook_name`, which is cached, loaded with from_pretrained_no_processing.

    Raises:
        InputError: unknown model or hook, a hook that is no vector per token, a d_in that is not its width.
    """
    spec = resolve(model)
    layer = hook_names.layer_of(hook_name)
    run = Run(
        spec, batch_size, seq_len, width, folded=False,
        selects=lambda name: name == hook_name,
        stop_at_layer=None if layer is None else layer + 1,
    )  # fmt: skip
    if layer is not None and layer >= spec.n_layers:
        raise InputError(f"hook_name: block {layer} is outside the {spec.n_layers} blocks of {spec.name}")
    played = hooked_transformer.forward(run)
    if not played.hook_counts:
        raise InputError(hook_names.no_such_hook(hook_name, run))
    width_of_hook = hook_names.hook_width(spec, hook_name)
    if width_of_hook is None:
        raise InputError(f"hook_name: {hook_name} is not an activation an SAE can be trained on")
    if d_in is not None and d_in != width_of_hook:
        raise InputError(f"d_in: {d_in} given, but {hook_name} of {spec.name} is {width_of_hook} wide")
    return HookedModel(spec, run, played, width_of_hook)


def features(d_sae: int | None, expansion_factor: float | None, d_in: int, warnings: list[str]) -> int:
    """d_sae, from itself or the expansion factor; adds a warning where it looks mistaken.

    Raises:
        InputError: no feature at all, or the two given do not agree.
    """
    size = d_sae or round((expansion_factor or 0) * d_in)
    if size < 1:
        raise InputError(f"expansion_factor {expansion_factor} of d_in {d_in} makes no feature")
    if d_sae and expansion_factor and d_sae != round(expansion_factor * d_in):
        raise InputError(f"d_sae {d_sae} and expansion_factor {expansion_factor} x d_in {d_in} differ")
    if size > 256 * d_in:
        warnings.append(f"d_sae is {size / d_in:.0f} times d_in; was expansion_factor given the hidden size?")
    return size


def pursuit(workload: SaeTraining | SaeInference, d_in: int) -> Pursuit | None:
    """How a matching pursuit SAE iterates, every iteration that is allowed among them; None for the others."""
    if workload.architecture != "matching_pursuit":
        return None
    return Pursuit(workload.max_iterations or d_in, workload.stop_on_duplicate_support, workload.residual_threshold > 0)


def _widths(workload: SaeTraining, d_sae: int) -> tuple[int, ...]:
    """matryoshka_widths as SAELens completes them (_validate_matryoshka_config)."""
    if not workload.matryoshka_widths:
        return ()
    widths = list(workload.matryoshka_widths)
    if widths[-1] != d_sae:
        widths.append(d_sae)
    if sorted(set(widths)) != widths:
        raise InputError(f"matryoshka_widths: {workload.matryoshka_widths} must rise strictly and end at d_sae {d_sae}")
    return tuple(widths)


def sae_training(workload: SaeTraining, capability: str | None) -> Estimate:
    verified, warnings = check(workload.library, workload.library_version)
    if workload.library == "dictionary_learning":
        return _dictionary_learning(workload, capability, verified, warnings)
    model = lm = spec = None
    d_in = workload.d_in
    width = DTYPE_BYTES[workload.dtype]
    lm_flops = 0
    if workload.model is not None:
        assert workload.hook_name is not None
        model = hooked_model(
            workload.model, workload.hook_name, workload.store_batch_size_prompts, workload.context_size,
            DTYPE_BYTES[workload.model_dtype], d_in,
        )  # fmt: skip
        spec, run, lm, d_in = model.spec, model.run, model.part, model.width_of_hook
        tokens = workload.store_batch_size_prompts * workload.context_size
        lm_flops = (
            forward_flops(spec, workload.store_batch_size_prompts, workload.context_size, layers=run.stop_at_layer,
                          logits=run.stop_at_layer is None)
            * -(-workload.training_tokens // tokens)
        )  # fmt: skip
    assert d_in is not None
    d_sae = features(workload.d_sae, workload.expansion_factor, d_in, warnings)
    if workload.k > d_sae and workload.architecture in sae.TOP_K_FAMILY:
        raise InputError(f"k {workload.k} is more than the {d_sae} features")
    shape = sae.Shape(
        workload.architecture, d_in, d_sae, workload.k, workload.train_batch_size_tokens, width=width,
        autocast=workload.autocast, matryoshka_widths=_widths(workload, d_sae), pursuit=pursuit(workload, d_in),
        logs=workload.evaluation,
    )  # fmt: skip
    assumptions: list[str] = []
    evaluation = _evaluation(workload, model, shape, assumptions)
    memory = sae.training_memory(
        shape, workload.context_size, workload.n_batches_in_buffer, workload.store_batch_size_prompts, lm,
        store_on_host=workload.act_store_device == "cpu", evaluation=evaluation,
    )  # fmt: skip
    if lm is not None:
        complaint = activation_store.check_store(
            workload.train_batch_size_tokens, workload.context_size, workload.n_batches_in_buffer,
            workload.store_batch_size_prompts,
        )  # fmt: skip
        if complaint:
            warnings.append(complaint)
    if memory.phase == "evaluation":
        warnings.append(
            f"the worst moment is SAELens' evaluation, after step {workload.eval_every_n_steps}, well into the "
            "run: three times full-vocabulary logits; eval_batch_size_prompts makes it smaller"
        )
    if shape.pursuit is not None:
        warnings.append(_iterations(shape, shape.pursuit, workload.max_iterations))
    if workload.autocast:
        assumptions.append("autocast rounds the matrix products to bfloat16; it does not lower the peak")
    params = sae.sae_params(workload.architecture, d_in, d_sae)
    details = {
        "sae_weights": f"{millions(params)} parameters, d_in {d_in} x d_sae {d_sae}, {workload.dtype}",
        "optimizer_state": "Adam's two moments",
        "gradients": "of the SAE's parameters",
        "sae_activations": "pre-activations, features and reconstruction, with those of the step before",
        "activations": "the language model's forward pass that fills the store",
        "buffers": "rotary tables, masks and the like",
        "temporaries": "scratch of the step: gradients of activations, Adam's foreach lists",
        "activation_store": f"buffer of {workload.n_batches_in_buffer} x {workload.context_size} tokens in float32",
        "weights": f"{spec.name} in {workload.model_dtype}" if spec else "",
        "logits": "of SAELens' evaluation",
    }
    filled = workload.model_dump() | {"d_in": d_in, "d_sae": d_sae, "model": repeatable(workload.model, spec)}
    filled["expansion_factor"] = d_sae / d_in
    assumptions = [
        f"worst moment: {memory.phase}; {verified}",
        "Adam with foreach, as torch chooses on CUDA; checkpoints are not counted",
        *assumptions,
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
        flops=lm_flops
        + sae.training_flops(workload.architecture, d_in, d_sae, workload.training_tokens, shape.pursuit),
        assumptions=assumptions,
        warnings=warnings,
        late_bytes=memory.dead_latents_extra,
    )


def _iterations(shape: sae.Shape, pursuit: Pursuit, given: int | None) -> str:
    """What the number of iterations means for the memory of matching pursuit."""
    each = bytes_per_iteration(shape.batch, shape.d_in, shape.width)
    counted = "max_iterations" if given else "as many as d_in, SAELens' limit where max_iterations is not given"
    return (
        f"matching_pursuit keeps {gib(each)} more for the backward pass with each iteration of "
        f"its encoder, and the activations decide how many run: counted are {pursuit.iterations} ({counted}); a batch "
        "that converges earlier takes less"
    )


def _evaluation(
    workload: SaeTraining, model: HookedModel | None, shape: sae.Shape, assumptions: list[str]
) -> Tape | None:
    """One evaluation, if the run is long enough to reach the first; says in `assumptions` what was taken."""
    if model is None:
        return None
    if not workload.evaluation:
        assumptions.append("no evaluation (log_to_wandb false, or no evaluator)")
        return None
    step = sae_evaluation.first_evaluation(
        workload.training_tokens, workload.train_batch_size_tokens, workload.eval_every_n_steps
    )
    if step is None:
        assumptions.append(f"the run is shorter than {workload.eval_every_n_steps} steps, so SAELens never evaluates")
        return None
    prompts = workload.eval_batch_size_prompts or workload.store_batch_size_prompts
    assumptions.append(f"evaluation at {prompts} prompts counted, as with log_to_wandb; first after step {step}")
    run = replace(model.run, batch_size=prompts, selects=None, stop_at_layer=None)
    assert workload.hook_name is not None
    use = Use(
        shape.architecture, shape.d_in, shape.d_sae, shape.d_in, shape.k, prompts * workload.context_size,
        width=shape.width, input_width=run.width, training=True, pursuit=shape.pursuit,
    )  # fmt: skip
    return sae_evaluation.evaluation(run, workload.hook_name, use)


def _dictionary_learning(workload: SaeTraining, capability: str | None, verified: str, warnings: list[str]) -> Estimate:
    """trainSAE of dictionary_learning on activations that are at hand."""
    d_in = workload.d_in
    assert d_in is not None
    d_sae = features(workload.d_sae, workload.expansion_factor, d_in, warnings)
    if workload.k > d_sae and workload.architecture in sae.TOP_K_FAMILY:
        raise InputError(f"k {workload.k} is more than the {d_sae} features")
    shape = sae.Shape(
        workload.architecture, d_in, d_sae, workload.k, workload.train_batch_size_tokens,
        matryoshka_widths=_widths(workload, d_sae),
    )  # fmt: skip
    memory = dictionary_learning_run.training_memory(shape, workload.n_saes)
    if workload.n_saes > 1:
        warnings.append(
            f"trainSAE keeps all {workload.n_saes} trainers of trainer_configs in memory, with Adam's state; one run "
            "per trainer takes less"
        )
    assumptions = [
        f"worst moment: {memory.phase}; {verified}",
        "Adam with foreach, as torch chooses on CUDA; no autocast, no logging, no resampling; checkpoints not counted",
        "activations are at hand: no language model and no ActivationBuffer are counted. An ActivationBuffer holds "
        "n_ctxs * ctx_len * d_in numbers of the model's dtype, and 1.5 times that while it refreshes",
    ]
    if memory.dead_latents_extra:
        assumptions.append(
            f"the range includes {gib(memory.dead_latents_extra)} for the auxiliary loss once latents are dead "
            "(10M tokens without firing)"
        )
    params = sae.sae_params(workload.architecture, d_in, d_sae)
    several = f"{workload.n_saes} x " if workload.n_saes > 1 else ""
    return assemble(
        workload.model_dump() | {"d_in": d_in, "d_sae": d_sae, "expansion_factor": d_sae / d_in},
        Counter(memory.at_peak),
        Counter(memory.components),
        {
            "sae_weights": f"{several}{millions(params)} parameters, d_in {d_in} x d_sae {d_sae}, float32",
            "optimizer_state": "Adam's two moments",
            "gradients": "of the SAE's parameters",
            "sae_activations": "the batch, features and what the backward pass needs",
            "temporaries": "scratch of the step: gradients of activations, the decoder's unit vectors, Adam's lists",
        },
        capability,
        precision="close",
        verified_on=f"{verified}, torch 2.13 (CPU; no GPU measurement)",
        loading=None,
        download_bytes=None,
        flops=workload.n_saes
        * dictionary_learning_run.training_flops(workload.architecture, d_in, d_sae, workload.training_tokens),
        assumptions=assumptions,
        warnings=warnings,
        late_bytes=memory.dead_latents_extra,
    )

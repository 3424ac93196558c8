"""The estimate of an SAE training run: the SAE's step, its activation store, the language model behind it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ..errors import InputError
from ..memory import parameters
from ..memory.card import device
from ..memory.card.playback import reserved as reserved_by
from ..memory.estimate import Estimate, Precision
from ..memory.loading import loading
from ..memory.sae import activation_store
from ..memory.sae import evaluation as sae_evaluation
from ..memory.sae import training as sae
from ..memory.sae.first_steps import first_steps
from ..memory.sae.inference import Use
from ..memory.sae.matching_pursuit import Pursuit, bytes_per_iteration
from ..memory.tape import Tape
from ..models.spec import ModelSpec
from ..precision import earned, weaker
from ..runtime import flops, training
from ..runtime import sae as effort
from ..runtime.work import WorkPart, part
from ..units import gib
from ..versions import check
from ..workload import DTYPE_BYTES, SaeTraining
from .assemble import assemble, download_bytes, millions, repeatable
from .hooked_training import refuse_uncovered
from .sae_dictionary_learning import dictionary_learning
from .sae_parts import HookedModel, features, hooked_model, pursuit, widths

EVAL_BATCHES = 10
"""n_eval_batches of LanguageModelSAERunnerConfig, its default in sae_lens 6.54."""


def sae_training(workload: SaeTraining, capability: str | None) -> Estimate:
    verified, warnings = check(workload.library, workload.library_version)
    if workload.library == "dictionary_learning":
        return dictionary_learning(workload, capability, verified, warnings)
    model = lm = spec = None
    d_in = workload.d_in
    width = DTYPE_BYTES[workload.dtype]
    if workload.model is not None:
        assert workload.hook_name is not None
        model = hooked_model(
            workload.model, workload.hook_name, workload.store_batch_size_prompts, workload.context_size,
            DTYPE_BYTES[workload.model_dtype], d_in,
        )  # fmt: skip
        spec, d_in = model.spec, model.width_of_hook
        lm = _under_autocast(model) if workload.autocast_lm else model.part
    assert d_in is not None
    d_sae = features(workload.d_sae, workload.expansion_factor, d_in, warnings)
    if workload.k > d_sae and workload.architecture in sae.TOP_K_FAMILY:
        raise InputError(f"k {workload.k} is more than the {d_sae} features")
    shape = sae.Shape(
        workload.architecture, d_in, d_sae, workload.k, workload.train_batch_size_tokens, width=width,
        autocast=workload.autocast, matryoshka_widths=widths(workload, d_sae), pursuit=pursuit(workload, d_in),
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
    if workload.autocast_lm:
        assumptions.append(
            "autocast_lm: torch.autocast('cuda', dtype=torch.bfloat16) around the language model where it fills the "
            "store, by CUDA's list of operators (compared on the CPU, with that list's casts done by hand), and its "
            "bfloat16 copies of weights until the call is over; SAELens' evaluation runs without it"
        )
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
    standing = [
        *shape.tensors,
        *(parameters.tl_tensors(spec, DTYPE_BYTES[workload.model_dtype], folded=False) if spec else ()),
    ]
    begin = first_steps(shape, lm, memory.refill, capability)
    if evaluation is not None:
        begin.append(evaluation)
    workspaces = 2 * device.cublas_workspace(capability)  # on the tape of the first steps, as are the buffers
    return assemble(
        filled,
        Counter(memory.at_peak),
        Counter(memory.components),
        details,
        capability,
        precision=_precision(workload, spec),
        verified_on=f"{verified}, torch 2.13 (CPU) and 2.11 (H100)",
        host_bytes=memory.host_bytes,
        loading=loading("transformer_lens", None, spec, workload.model_dtype, no_processing=True) if spec else None,
        download_bytes=download_bytes(spec) if spec else None,
        work=_work(workload, model, shape, assumptions),
        assumptions=assumptions,
        warnings=warnings,
        late_bytes=memory.dead_latents_extra,
        reserved=reserved_by(begin, standing),
        backward=True,
        buffers=max(0, begin.peak + sum(standing) - memory.peak - workspaces),
    )


def _work(workload: SaeTraining, model: HookedModel | None, shape: sae.Shape, assumptions: list[str]) -> list[WorkPart]:
    """The steps of the run, the language model's passes that fill the store, and the evaluations."""
    steps = -(-workload.training_tokens // shape.batch)
    step = effort.Step(
        shape.architecture, shape.d_in, shape.d_sae, shape.batch, shape.matryoshka_widths,
        shape.pursuit.iterations if shape.pursuit is not None else 0, 2 if workload.autocast else shape.width,
    )  # fmt: skip
    params = sae.sae_params(shape.architecture, shape.d_in, shape.d_sae)
    adam = training.optimizer_step("adam", [(params, shape.width)], 2 * params * shape.width)
    dtype = "bfloat16" if workload.autocast else workload.dtype
    parts = [part("SAE training step", step.in_saelens() + adam, dtype, steps)]
    if step.of_dead_latents().flops:
        more = step.of_dead_latents().flops / step.in_saelens().flops
        assumptions.append(f"work without dead latents: once many are dead, each SAE step takes {more:.0%} more")
    if model is None:
        return parts
    spec, context = model.spec, workload.context_size
    lm_width, lm_dtype = model.run.width, workload.model_dtype
    prompts = workload.store_batch_size_prompts
    store_width, store_dtype = (2, "bfloat16") if workload.autocast_lm else (lm_width, lm_dtype)
    stop = model.run.stop_at_layer
    ends = None if stop is None else 0
    fill = flops.forward(spec, flops.Shape(prompts, context, store_width), layers=stop, logits=ends)
    buffer = workload.n_batches_in_buffer * context
    batches = effort.store_batches(steps, shape.batch, max(buffer, shape.batch), prompts * context)
    parts.append(part("forward pass of the language model that fills the store", fill, store_dtype, batches))
    rounds = steps // workload.eval_every_n_steps if workload.evaluation else 0
    if rounds:
        prompts = workload.eval_batch_size_prompts or prompts
        whole = flops.Shape(prompts, context, lm_width)
        use = Use(
            shape.architecture, shape.d_in, shape.d_sae, shape.d_in, shape.k, prompts * context, width=shape.width,
            input_width=lm_width, training=True, pursuit=shape.pursuit,
        )  # fmt: skip
        once = flops.forward(spec, whole) * 3 + flops.forward(spec, whole, layers=stop, logits=ends)
        parts.append(part("batch of SAELens' evaluation, language model", once, lm_dtype, rounds * EVAL_BATCHES))
        both = (effort.encode(use) + effort.decode(use)) * 2
        parts.append(part("batch of SAELens' evaluation, SAE", both, workload.dtype, rounds * EVAL_BATCHES))
        assumptions.append(f"{rounds} evaluations of n_eval_batches = {EVAL_BATCHES} batches, SAELens' default")
    return parts


def _under_autocast(model: HookedModel) -> sae.LanguageModelPart:
    """The language model's part with autocast_lm.

    Raises:
        NotCovered: a model that is not transcribed for it.
        InputError: context_size is longer than the model's context.
    """
    refuse_uncovered(model.spec, None, model.run.seq_len, "autocast_lm")
    return model.part_under_autocast()


def _precision(workload: SaeTraining, spec: ModelSpec | None) -> Precision:
    """autocast_lm was compared under a task of its own, with the casts of CUDA's list done by hand."""
    if workload.autocast_lm and spec is not None:
        return weaker("close", earned("sae_lens", "store_autocast", spec.architecture, workload.model_dtype))
    return "close"


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

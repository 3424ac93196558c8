"""The estimate of SAE training with dictionary_learning: trainSAE, its ActivationBuffer, the model behind that."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..errors import InputError
from ..memory import weights
from ..memory.estimate import Estimate, WorkPart
from ..memory.huggingface import forward as transformers_forward
from ..memory.huggingface import outputs as transformers_outputs
from ..memory.loading import loading
from ..memory.sae import dictionary_learning_run
from ..memory.sae import training as sae
from ..memory.sae.activation_buffer import ActivationBuffer
from ..models.resolve import resolve
from ..models.spec import ModelSpec
from ..runtime import flops, training
from ..runtime import sae as effort
from ..runtime.work import Work, part
from ..units import gib
from ..workload import DTYPE_BYTES, SaeTraining
from .assemble import assemble, download_bytes, millions, repeatable
from .sae_parts import features, widths

FLOAT = 4
INT64 = 8
_READ = ("layer", "mlp")


@dataclass(frozen=True)
class _Behind:
    """The language model behind an ActivationBuffer."""

    spec: ModelSpec
    part: sae.LanguageModelPart
    buffer: ActivationBuffer
    attention: str
    work: Work
    """Of one forward pass."""


def _behind(workload: SaeTraining, capability: str | None) -> _Behind | None:
    """The model of the run, as nnsight runs it up to `submodule`; None where the activations are at hand.

    Raises:
        InputError: unknown model or module, a module that is neither a block nor its MLP, a d_in that is not its width.
    """
    if workload.model is None:
        return None
    spec = resolve(workload.model)
    width, texts, length = DTYPE_BYTES[workload.model_dtype], workload.refresh_batch_size, workload.ctx_len
    if length > spec.n_ctx:
        raise InputError(f"ctx_len: {length} is beyond the context of {spec.name}, {spec.n_ctx} tokens")
    try:
        selected = transformers_outputs.select(spec, [workload.submodule or ""], None, False)
    except InputError as error:
        raise InputError(str(error).replace("names_filter:", "submodule:", 1)) from None
    roles = selected.keeps.layers
    layers = [i for i, role in enumerate(roles) if role]
    if len(layers) != 1 or selected.keeps.ends or not roles[layers[0]] <= {*_READ}:
        raise InputError(
            f"submodule: {workload.submodule} is not covered yet; give one block of {spec.name} or its MLP, e.g. "
            f"{transformers_outputs.layout(spec).layers}.0"
        )
    if workload.d_in not in (None, spec.d_model):
        raise InputError(f"d_in: {workload.d_in} given, but {workload.submodule} is {spec.d_model} wide")
    # nnsight stops after the submodule: the blocks behind it, the last norm and the head never run
    blocks = layers[0] + 1
    short = spec.model_copy(update={"n_layers": blocks, "d_vocab": 1})
    attention = transformers_forward.default_attention(spec)
    unfused = attention == "sdpa" and transformers_forward.needs_math_kernel(spec, width, capability)
    keeps = transformers_forward.Keeps(roles[:blocks])
    tape = transformers_forward.keeping(short, texts, length, width, attention, True, unfused, keeps).tape
    tokens = texts * length
    prepared = 4 * INT64 * tokens  # ids and mask, as the tokenizer gives them and as nnsight puts the batch together
    beside = prepared - INT64 * tokens  # the pass counts its ids
    if spec.architecture == "OPTForCausalLM":
        beside -= FLOAT * tokens  # and a mask of floats, which OPT makes where none is given
    lm = sae.LanguageModelPart(
        weights=weights.hf_params(spec) * width,
        buffers=weights.hf_buffer_bytes(spec, width),
        forward_peak=tape.peak + beside,
        retained=width * tokens * spec.d_model + prepared,
    )
    batch = workload.train_batch_size_tokens
    buffer = ActivationBuffer(workload.n_ctxs, length, texts, batch, spec.d_model, width)
    kernel = "fused" if attention == "sdpa" and not unfused else "products"
    shape = flops.Shape(texts, length, width, kernel=kernel)
    return _Behind(spec, lm, buffer, attention, flops.forward(spec, shape, layers=blocks, logits=0))


def _work(workload: SaeTraining, behind: _Behind | None, shape: sae.Shape) -> list[WorkPart]:
    """The trainers' steps, and the language model's passes that fill the buffer."""
    steps = -(-workload.training_tokens // shape.batch)
    step = effort.Step(shape.architecture, shape.d_in, shape.d_sae, shape.batch).in_dictionary_learning()
    params = sae.sae_params(shape.architecture, shape.d_in, shape.d_sae)
    adam = training.optimizer_step("adam", [(params, FLOAT)], 2 * params * FLOAT)
    parts = [part("training step of one SAE", step + adam, "float32", steps * workload.n_saes)]
    if behind is not None:
        batches = effort.buffer_batches(steps + 1, behind.buffer)
        parts.append(
            part("forward pass of the language model that fills the buffer", behind.work, workload.model_dtype, batches)
        )
    return parts


def dictionary_learning(workload: SaeTraining, capability: str | None, verified: str, warnings: list[str]) -> Estimate:
    """trainSAE on an ActivationBuffer, or on activations that are at hand.

    Raises:
        InputError: unknown model or submodule, sizes that do not agree.
    """
    behind = _behind(workload, capability)
    d_in = behind.spec.d_model if behind is not None else workload.d_in
    assert d_in is not None
    spec = behind.spec if behind is not None else None
    batch = workload.train_batch_size_tokens
    d_sae = features(workload.d_sae, workload.expansion_factor, d_in, warnings)
    if workload.k > d_sae and workload.architecture in sae.TOP_K_FAMILY:
        raise InputError(f"k {workload.k} is more than the {d_sae} features")
    shape = sae.Shape(
        workload.architecture, d_in, d_sae, workload.k, behind.buffer.batch if behind is not None else batch,
        matryoshka_widths=widths(workload, d_sae),
    )  # fmt: skip
    memory = dictionary_learning_run.training_memory(
        shape, workload.n_saes, behind and behind.buffer, behind and behind.part
    )
    if workload.n_saes > 1:
        warnings.append(
            f"trainSAE keeps all {workload.n_saes} trainers of trainer_configs in memory, with Adam's state; one run "
            "per trainer takes less"
        )
    assumptions = [
        f"worst moment: {memory.phase}; {verified}",
        "Adam with foreach, as torch chooses on CUDA; no autocast, no logging, no resampling; checkpoints not counted",
    ]
    if behind is None:
        assumptions.append("activations are at hand: no language model and no ActivationBuffer are counted")
    else:
        assumptions += [
            f"ActivationBuffer on the SAE's device, io 'out', every text {workload.ctx_len} tokens long; while it "
            f"refreshes, {behind.buffer.unread} unread activations are copied beside the old or the new buffer",
            f"the model runs in transformers by nnsight, up to {workload.submodule}, attention {behind.attention}",
        ]
    if memory.dead_latents_extra:
        assumptions.append(
            f"the range includes {gib(memory.dead_latents_extra)} for the auxiliary loss once latents are dead "
            "(10M tokens without firing)"
        )
    params = sae.sae_params(workload.architecture, d_in, d_sae)
    several = f"{workload.n_saes} x " if workload.n_saes > 1 else ""
    return assemble(
        workload.model_dump()
        | {
            "d_in": d_in,
            "d_sae": d_sae,
            "expansion_factor": d_sae / d_in,
            "model": repeatable(workload.model, spec),
        },
        Counter(memory.at_peak),
        Counter(memory.components),
        {
            "sae_weights": f"{several}{millions(params)} parameters, d_in {d_in} x d_sae {d_sae}, float32",
            "optimizer_state": "Adam's two moments",
            "gradients": "of the SAE's parameters",
            "sae_activations": "the batch, features and what the backward pass needs",
            "weights": f"{spec.name} in {workload.model_dtype}" if spec else "",
            "buffers": "rotary tables, masks and the like",
            "activations": "the language model's forward pass that fills the buffer",
            "kv_cache": "keys and values of that pass",
            "activation_store": f"the buffer of {workload.n_ctxs} x {workload.ctx_len} activations, and copies of it",
            "temporaries": "scratch of the step: gradients of activations, the decoder's unit vectors, Adam's lists",
        },
        capability,
        precision="close",
        verified_on=f"{verified}, torch 2.13 (CPU; no GPU measurement)",
        loading=loading("transformers", None, spec, workload.model_dtype) if spec else None,
        download_bytes=download_bytes(spec) if spec else None,
        work=_work(workload, behind, shape),
        assumptions=assumptions,
        warnings=warnings,
        late_bytes=memory.dead_latents_extra,
    )

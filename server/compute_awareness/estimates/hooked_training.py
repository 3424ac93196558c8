"""The estimate of training a HookedTransformer: one optimizer step, all parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import InputError, NotCovered
from ..memory import optimizer, parameters, weights
from ..memory.estimate import Estimate, Precision
from ..memory.hooked import training as memory
from ..memory.hooked import versions as hooked_versions
from ..memory.hooked.run import Run
from ..memory.loading import loading
from ..models.resolve import resolve
from ..models.spec import ModelSpec
from ..precision import earned, weaker
from ..runtime import flops, training
from ..runtime.work import part
from ..versions import check, is_verified, parse
from ..workload import DTYPE_BYTES
from .assemble import assemble, download_bytes, largest_and_peak, millions, repeatable

if TYPE_CHECKING:
    from ..workload.training import Training


def hooked_training(workload: Training, capability: str | None) -> Estimate:
    """What a training step of a HookedTransformer takes: forward to the loss, backward, optimizer.

    Raises:
        InputError: unknown model; what HookedTransformer cannot do; what is not covered.
    """
    spec = resolve(workload.model)
    verified, warnings = check("transformer_lens", workload.library_version)
    refuse_uncovered(spec, workload.library_version, workload.seq_len, "training")
    if workload.gradient_checkpointing:
        raise InputError("gradient_checkpointing: HookedTransformer has none; use library transformers")
    if workload.trainable != "all":
        raise InputError("trainable: only 'all' is covered with transformer_lens; for LoRA use library transformers")
    if workload.autocast and workload.dtype != "float32":
        raise InputError(f"autocast with dtype {workload.dtype}: not covered yet; dtype float32 with autocast is")
    if workload.optimizer == "adamw_8bit" and capability is None:
        warnings.append("adamw_8bit needs bitsandbytes and an NVIDIA GPU")
    width, folded = DTYPE_BYTES[workload.dtype], not workload.no_processing
    batches = workload.gradient_accumulation or 1
    params = weights.tl_params(spec, folded)
    run = Run(
        spec,
        workload.batch_size,
        workload.seq_len,
        width,
        folded=folded,
        gradients=True,
        autocast=bool(workload.autocast),
    )
    step = memory.step(run, workload.optimizer, batches)
    at_peak, largest = largest_and_peak(
        step.tape,
        {
            "weights": params * width,
            "buffers": standing_buffers(spec, run),
            "optimizer_state": optimizer.state_bytes(workload.optimizer, step.trained),
        },
    )
    for counted in (at_peak, largest):  # what an answer has no component of its own for
        counted["activations"] += counted.pop("weight_copies", 0)
    assumptions = [
        f"{verified}; loss = model(tokens, return_type='loss'), no output kept, zero_grad(set_to_none=True)",
        "every parameter is trained; the optimizer is torch's foreach variant, as torch chooses on CUDA",
    ]
    if folded:
        warnings.append(
            "norm weights are folded away by from_pretrained, so they are not trained; to fine-tune use "
            "from_pretrained_no_processing (no_processing)"
        )
    if workload.autocast:
        scaler = "; GradScaler's scalars are not counted" if workload.autocast == "float16" else ""
        assumptions.append(
            f"torch.autocast('cuda', dtype=torch.{workload.autocast}) around the forward with its loss only, by CUDA's "
            "list of operators (compared on the CPU, with that list's casts done by hand); weights, gradients and "
            f"optimizer state stay float32{scaler}"
        )
    if width < 4:
        assumptions.append(f"parameters, gradients and optimizer state are {workload.dtype}, as the model is")
    details = {
        "weights": f"{millions(params)} parameters in {workload.dtype} as HookedTransformer",
        "gradients": "of every parameter",
        "optimizer_state": workload.optimizer,
        "activations": "kept by autograd for the backward pass, copies of the weight matrices among them",
        "logits": f"[{workload.batch_size}, {workload.seq_len}, {spec.d_vocab}]",
        "temporaries": "alive at the peak besides all that: gradients of activations, the optimizer's lists",
        "buffers": "rotary tables, masks and the like",
    }
    shape = flops.Shape(workload.batch_size, workload.seq_len, 2 if workload.autocast else width)
    passes, steps, said = training.length(
        workload.training_tokens, workload.batch_size * workload.seq_len, workload.gradient_accumulation
    )
    assumptions.append(said)
    requests = memory.requests(run, workload.optimizer, batches, capability)
    update = training.optimizer_step(workload.optimizer, step.trained, largest["optimizer_state"])
    return assemble(
        workload.model_dump() | {"model": repeatable(workload.model, spec)},
        at_peak,
        largest,
        details,
        capability,
        precision=_precision(workload, spec),
        verified_on=f"{verified}, torch 2.13 (CPU) and 2.11 (H100)",
        backward=True,
        events=requests,
        standing=_standing(spec, width, folded, workload.optimizer, step.trained),
        listed=step.tape.peak,
        buffers=max(0, requests.peak - step.tape.peak),
        second_workspace="before",
        loading=loading(
            "transformer_lens", workload.library_version, spec, workload.dtype, no_processing=workload.no_processing
        ),
        download_bytes=download_bytes(spec),
        work=[
            part(training.PASS, training.step(spec, shape), workload.autocast or workload.dtype, passes),
            part("optimizer step", update, workload.dtype, steps),
        ],
        assumptions=assumptions,
        warnings=warnings,
    )


def _standing(
    spec: ModelSpec, width: int, folded: bool, adam: optimizer.Optimizer, trained: Sequence[tuple[int, int]]
) -> list[int]:
    """Bytes of each tensor that stands through a step: weights and buffers, the optimizer's state."""
    return [*parameters.tl_tensors(spec, width, folded), *optimizer.state_tensors(adam, trained)]


def _precision(workload: Training, spec: ModelSpec) -> Precision:
    """Autocast was compared under a task of its own, with the casts of CUDA's list done by hand."""
    if workload.autocast:
        return weaker("close", earned("transformer_lens", "training_autocast", spec.architecture, workload.dtype))
    return "exact" if is_verified("transformer_lens", workload.library_version) else "close"


def refuse_uncovered(spec: ModelSpec, version: str | None, seq_len: int, what: str) -> None:
    """InputError for models, releases and lengths whose backward pass was not transcribed."""
    if spec.positional == "shortformer":
        raise NotCovered(f"model: {what} of {spec.name} (shortformer positions) is not covered yet")
    if not hooked_versions.release(parse(version) if version else None).newest:
        raise NotCovered(f"library_version: {what} is covered from transformer-lens 3.5.1 on, not {version}")
    if spec.positional != "alibi" and seq_len > spec.context_tl:
        raise InputError(
            f"seq_len: {seq_len} is beyond transformer_lens's context of {spec.context_tl} tokens; the run fails"
        )


def standing_buffers(spec: ModelSpec, run: Run) -> int:
    """Bytes of the buffers once a first pass has run: grown rotary tables, ALiBi's biases, of the blocks it went
    through."""
    blocks = spec.n_layers if run.stop_at_layer is None else run.stop_at_layer
    total = weights.tl_buffer_bytes(spec, run.width)
    if spec.positional == "alibi":
        total += blocks * 4 * spec.n_heads * run.seq_len**2
    elif spec.positional == "rotary":
        grown = weights.tl_rotary_table_bytes(spec, run.width, run.seq_len)
        total += blocks * (grown - weights.tl_rotary_table_bytes(spec, run.width))
    return total

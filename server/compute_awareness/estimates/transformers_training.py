"""The estimate of training a transformers model: one optimizer step, all parameters or LoRA adapters."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from ..errors import InputError, NotCovered
from ..memory import data_parallel, optimizer, parameters, sharded, weights
from ..memory.estimate import Estimate, Precision
from ..memory.huggingface import forward as transformers_forward
from ..memory.huggingface.training import ARCHITECTURES, Step, default_dropout, play
from ..memory.huggingface.training_lora import lora
from ..memory.huggingface.training_parts import Lora
from ..memory.loading import loading
from ..models.resolve import resolve
from ..models.spec import ModelSpec
from ..precision import earned, weaker
from ..runtime import flops, training
from ..runtime.work import Work, part
from ..units import gib
from ..versions import check, is_verified
from ..workload import DTYPE_BYTES
from .assemble import assemble, download_bytes, largest_and_peak, millions, repeatable

if TYPE_CHECKING:
    from ..workload.training import Training


def transformers_training(workload: Training, capability: str | None) -> Estimate:
    """What a training step of a Hugging Face model takes: forward with labels, backward, optimizer.

    Raises:
        InputError: unknown model; attention or LoRA targets it does not have; what is not covered.
    """
    spec = resolve(workload.model)
    verified, warnings = check("transformers", workload.library_version)
    if workload.autocast and workload.dtype != "float32":
        raise InputError(f"autocast with dtype {workload.dtype}: not covered yet; dtype float32 with autocast is")
    width = DTYPE_BYTES[workload.dtype]
    attention = workload.attention or transformers_forward.default_attention(spec)
    _check(spec, attention)
    dropout, attention_dropout = default_dropout(spec)
    step = Step(
        spec, workload.batch_size, workload.seq_len, width, attention, dropout, attention_dropout,
        gradient_checkpointing=workload.gradient_checkpointing, accumulation=min(workload.gradient_accumulation, 2),
        math_kernel=attention == "sdpa"
        and transformers_forward.needs_math_kernel(spec, 2 if workload.autocast else width, capability),
        autocast="cuda" if workload.autocast else None,
        bucket_views=workload.gradient_as_bucket_view,
        shards=workload.n_devices if workload.parallel == "fsdp" else 1,
    )  # fmt: skip
    if workload.trainable == "lora":
        step = replace(step, lora=_lora(workload, step))
    played = play(step, workload.optimizer)
    fsdp = workload.parallel == "fsdp"
    params = weights.hf_params(spec)
    trained = sum(elements for elements, _ in played.trained)
    adapters = sum(elements * size for elements, size in played.trained) if step.lora else 0
    buckets = data_parallel.bucket_bytes(played.trained) if workload.n_devices > 1 and not fsdp else 0
    if workload.gradient_as_bucket_view:
        played.tape.touch(buckets)  # two sets while they are rebuilt; without views gradients take as much later
    states = _states(workload.optimizer, tuple(played.trained))
    at_peak, largest = largest_and_peak(
        played.tape,
        {
            "weights": sum(elements * size for elements, size in played.shared) if fsdp else params * width + adapters,
            "buffers": weights.hf_buffer_bytes(spec, width),
            "optimizer_state": optimizer.state_bytes(workload.optimizer, played.shared),
            "gradients": buckets,
        },
    )
    for counted in (at_peak, largest):  # what an answer has no component of its own for
        counted["activations"] += counted.pop("weight_copies", 0)
    logits = workload.batch_size * workload.seq_len * spec.d_vocab * (2 if workload.autocast else width)
    assumptions = [
        f"{verified}; model.train(), loss = model(input_ids, labels=labels, use_cache=False).loss, "
        "zero_grad(set_to_none=True)",
        f"the output object is not kept: a loop that keeps it (outputs = model(...)) holds the logits, {gib(logits)}, "
        "through the backward pass and the next forward",
        f"attention implementation: {attention}; torch's optimizers run foreach, as they do on CUDA by default",
    ]
    if step.math_kernel:
        assumptions.append("sdpa with grouped heads runs unfused on this card or dtype: the scores are counted")
    if dropout:
        assumptions.append(f"dropout {dropout} is active, as the published config asks for in train mode")
    if workload.autocast:
        scaler = "; GradScaler's scalars are not counted" if workload.autocast == "float16" else ""
        assumptions.append(
            f"torch.autocast('cuda', dtype=torch.{workload.autocast}) around the forward with its loss only, by CUDA's "
            f"list of operators (compared on the CPU, with that list's casts done by hand); weights, gradients and "
            f"optimizer state stay float32{scaler}"
        )
    if width < 4:
        text = f"weights, gradients and optimizer state are {workload.dtype}, as the model is"
        if step.lora:  # peft's autocast_adapter_dtype
            text = f"the model's weights are {workload.dtype}; adapters, their gradients and optimizer state float32"
        assumptions.append(text)
    if workload.optimizer == "adamw_8bit":
        assumptions.append(
            "bitsandbytes' AdamW8bit on its own; Hugging Face's Trainer keeps the moments of embeddings in float32"
        )
    if "dtype" not in workload.model_fields_set and spec.checkpoint_dtype not in (None, workload.dtype):
        assumptions.append(
            f"dtype float32, as none was given; transformers 5 loads {spec.checkpoint_dtype} unless told otherwise"
        )
    if workload.dtype == "float16" and workload.trainable == "all":
        warnings.append("training in pure float16 overflows and its Adam diverges; use bfloat16 or float32")
    if workload.seq_len > spec.n_ctx:
        fails = ": its positions end there, the run fails" if spec.positional == "learned" else ""
        warnings.append(f"seq_len {workload.seq_len} is beyond transformers' context of {spec.n_ctx} tokens{fails}")
    loaded = loading("transformers", workload.library_version, spec, workload.dtype)
    stranded = 0
    if (shards := played.shards) is not None:
        stranded = sharded.stranded_bytes(shards.root, shards.block)
        assumptions += _sharded_cards(workload, stranded)
        loaded = replace(loaded, device_bytes=sharded.loading_bytes(shards.root, shards.block, spec.n_layers))
    elif workload.n_devices > 1:
        assumptions += _several_cards(workload)
        sent = data_parallel.broadcast_bytes(parameters.hf_tensors(spec, width))
        loaded = replace(loaded, device_bytes=loaded.device_bytes + adapters + sent)
    details = {
        "weights": f"{millions(params)} parameters in {workload.dtype}"
        + (f", adapters of {millions(trained)} in float32" if step.lora else ""),
        "gradients": f"of {millions(trained)} trained parameters" + _buckets_detail(workload, buckets),
        "optimizer_state": workload.optimizer,
        "activations": "kept by autograd for the backward pass"
        + (f", the weights' copies in {workload.autocast} among them" if workload.autocast else ""),
        "logits": f"[{workload.batch_size}, {workload.seq_len}, {spec.d_vocab}]",
        "temporaries": "alive at the peak besides all that: gradients of activations, the optimizer's lists",
        "buffers": "rotary tables, masks and the like",
    }
    passes, steps, said = training.length(
        workload.training_tokens,
        workload.batch_size * workload.seq_len * workload.n_devices,
        workload.gradient_accumulation,
    )
    assumptions.append(said)
    update = training.optimizer_step(workload.optimizer, played.shared, largest["optimizer_state"])
    known = is_verified("transformers", workload.library_version)
    return assemble(
        workload.model_dump() | {"attention": attention, "model": repeatable(workload.model, spec)},
        at_peak,
        largest,
        details,
        capability,
        precision=_precision(workload, known and attention == "eager" and not dropout and workload.n_devices == 1),
        verified_on=f"{verified}, torch 2.13 (CPU) and 2.11 (H100)",
        loading=loaded,
        download_bytes=download_bytes(spec),
        work=[
            part(training.PASS, _pass(workload, step, played.linears), workload.autocast or workload.dtype, passes),
            part("optimizer step", update, workload.dtype, steps),
        ],
        assumptions=assumptions,
        warnings=warnings,
        late_bytes=stranded,
        n_gpus=workload.n_devices,
        events=None if fsdp else played.tape,
        standing=[*parameters.hf_tensors(spec, width), *(states if step.lora else ())],
        made_later=() if step.lora else states,
        order="checkpointing" if workload.gradient_checkpointing else "unknown",
        backward=True,
    )


@lru_cache(maxsize=64)
def _states(kind: optimizer.Optimizer, trained: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """Bytes of each tensor of the optimizer's state."""
    return tuple(optimizer.state_tensors(kind, trained))


def _several_cards(workload: Training) -> list[str]:
    """What is assumed of DistributedDataParallel."""
    accumulated = ", all but the last batch of a step in no_sync()" if workload.gradient_accumulation > 1 else ""
    return [
        f"{workload.n_devices} cards, a process with the whole model and a batch of {workload.batch_size} on each; "
        "every figure (peak, FLOPs, time) is of one card, and the reduction of gradients is not timed",
        f"DistributedDataParallel without find_unused_parameters or a communication hook{accumulated}; compared with "
        "two processes on the CPU (gloo); NCCL's own buffers are taken from others' reports, see overheads",
    ]


def _sharded_cards(workload: Training, stranded: int) -> list[str]:
    """What is assumed of fully_shard."""
    return [
        f"{workload.n_devices} cards, a process with its share of the model and a batch of {workload.batch_size} on "
        "each; every figure is of one card, and what is gathered and reduced is not timed",
        "FSDP2: fully_shard on every block, then on the model, with its defaults and without MixedPrecisionPolicy or "
        "CPU offload; compared with torch 2.13 on the CPU in float32 (a process that believes to have others); on CUDA "
        f"buffers are gathered on a stream of their own, whose freed memory the others get only once the card is full: "
        f"the high end has {gib(stranded)} for it",
        "each process loads the whole model into RAM before it is sharded",
    ]


def _buckets_detail(workload: Training, buckets: int) -> str:
    if not buckets:
        return ""
    if workload.gradient_as_bucket_view:
        return ": they are views of DistributedDataParallel's buckets, which always stay"
    return (
        f", and DistributedDataParallel's buckets, {gib(buckets)}: a second copy of them, which always stays "
        "(gradient_as_bucket_view=True does without)"
    )


def _pass(workload: Training, step: Step, linears: list[str]) -> Work:
    """Forward and backward of one batch."""
    kernel = "fused" if step.attention == "sdpa" and not step.math_kernel else "products"
    shape = flops.Shape(step.batch_size, step.seq_len, 2 if step.autocast else step.width, kernel=kernel)
    again = workload.gradient_checkpointing
    if step.lora is None:
        return training.step(step.spec, shape, checkpointing=again, dropout=step.dropout)
    adapters = training.Adapters(step.lora.rank, [step.lora.adapts(name) for name in linears])
    return training.lora_step(step.spec, shape, adapters, checkpointing=again, dropout=step.dropout)


def _precision(workload: Training, as_measured: bool) -> Precision:
    """How sure. The fused kernels and the dropout of CUDA, and bitsandbytes', were read, not run. Autocast was compared
    under a task of its own ("training_autocast" in the table), with the casts of CUDA's list done by hand."""
    if workload.parallel == "fsdp":
        return "close"
    if workload.autocast:
        autocast = earned("transformers", "training_autocast", resolve(workload.model).architecture, workload.dtype)
        return weaker("close", autocast)
    return "exact" if as_measured and workload.optimizer != "adamw_8bit" else "close"


def _check(spec: ModelSpec, attention: str) -> None:
    """InputError for what transformers refuses and for what was not transcribed."""
    if not spec.has_hf_model:
        raise InputError(f"{spec.name} has no transformers model; use library transformer_lens")
    if spec.architecture not in ARCHITECTURES:
        raise NotCovered(f"{spec.name}: training of {spec.architecture} is not covered yet")
    if attention == "sdpa" and not transformers_forward.supports_sdpa(spec.architecture):
        raise InputError(f"{spec.name}: {spec.architecture} has no sdpa in transformers 5.23; use attention 'eager'")


def _lora(workload: Training, step: Step) -> Lora:
    """peft's adapters; the names of the model's linear layers come from playing one tiny block."""
    tiny = replace(step, spec=step.spec.model_copy(update={"n_layers": 1}), batch_size=1, seq_len=1, accumulation=1)
    return lora(step.spec, workload.lora_rank, workload.lora_targets, _linears(tiny))


@lru_cache(maxsize=64)
def _linears(step: Step) -> list[str]:
    return play(step).linears

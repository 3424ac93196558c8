"""The estimate of text generation: a prompt, then new tokens one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError, NotCovered
from ..memory import parameters, weights
from ..memory.card import device
from ..memory.card.growing import Taken
from ..memory.card.room import Requests
from ..memory.estimate import Estimate, Precision, WorkPart
from ..memory.hooked import generate as hooked_generate
from ..memory.hooked import versions as hooked_versions
from ..memory.hooked.generate_steps import HookedPasses, is_played
from ..memory.huggingface import forward as transformers_forward
from ..memory.huggingface import generate as transformers_generate
from ..memory.huggingface.embedding import slides
from ..memory.huggingface.steps import Passes
from ..memory.loading import loading
from ..memory.quantization import quantized_weight_bytes, scratch_bytes
from ..memory.tape import Tape
from ..models.resolve import resolve
from ..models.spec import ModelSpec
from ..runtime import generation as effort
from ..runtime.flops import Shape
from ..runtime.work import Work, part
from ..units import gib
from ..versions import check, is_verified, parse
from ..workload import DTYPE_BYTES
from ..workload.generation import Generation
from .assemble import assemble, download_bytes, largest_and_peak, millions, repeatable


def _check_hooked(workload: Generation, spec: ModelSpec) -> None:
    """What generation with HookedTransformer was not compared for."""
    if spec.positional == "shortformer":
        raise NotCovered(f"generation with HookedTransformer is not covered yet for {spec.positional} positions")
    version = workload.library_version
    if version is not None and not hooked_versions.release(parse(version)).newest:
        raise NotCovered(f"library_version: generation is covered from transformer-lens 3.5.1 on, not {version}")


def generation(workload: Generation, capability: str | None) -> Estimate:
    """What `generate` takes from the prompt to the last new token.

    Raises:
        InputError: unknown model, versions not covered, a model without sdpa, quantised weights outside transformers.
    """
    if workload.quantization is not None and workload.library != "transformers":
        raise InputError(f"quantization: {workload.quantization!r} is of transformers, not of {workload.library}")
    spec = resolve(workload.model)
    quantization = (workload.quantization or spec.quantization) if workload.library == "transformers" else None
    verified, warnings = check(workload.library, workload.library_version)
    same_source = is_verified(workload.library, workload.library_version)
    width = DTYPE_BYTES[workload.dtype]
    assumptions = [f"one call of generate on one device, every new token is made; {verified}"]
    if not same_source:
        assumptions.append(f"measured on {verified} only; {workload.library_version} is taken to allocate the same")
    lens = workload.library == "transformer_lens"
    if lens:
        _check_hooked(workload, spec)
    play = _hooked if lens else _transformers
    played = play(workload, spec, width, capability)
    tape, attention, said = played.tape, played.attention, played.said
    assumptions += said
    if workload.kv_cache:
        assumptions.append("every new token reads all weights and the cache once: decoding is bound by bandwidth")
    total = workload.seq_len + workload.new_tokens
    if total - 1 > played.context:  # the last new token is never read
        ends = spec.positional != "alibi" if lens else spec.positional in ("learned", "shortformer")
        fails = ": its positions end there, the run fails" if ends else ""
        warnings.append(
            f"seq_len {workload.seq_len} + new_tokens {workload.new_tokens} is beyond {workload.library}'s context "
            f"of {played.context} tokens{fails}"
        )
    weight_bytes = quantized_weight_bytes(spec, quantization, width) if quantization else played.parameters * width
    at_peak, largest = largest_and_peak(tape, {"weights": weight_bytes, "buffers": played.buffers})
    precision: Precision = "exact" if same_source and attention != "sdpa" else "close"  # CUDA's kernels were not run
    if quantization:
        scratch = scratch_bytes(spec, quantization, workload.batch_size * workload.seq_len, width)
        at_peak["temporaries"] += scratch
        largest["temporaries"] += scratch
        precision = "close" if quantization.startswith("bitsandbytes") else "rough"
        assumptions.append(
            f"linear layers of the blocks in {quantization}, the rest and all computing in {workload.dtype}; the "
            "scratch of the hungriest layer is added to the peak"
        )
    alive = sum(at_peak.values())
    taken = None if quantization else taken_by(played, alive, capability)
    if taken is not None and taken.later > alive // 10:
        assumptions.append(
            f"{gib(taken.later)} of what torch reserves comes after the prompt's pass: blocks of shorter passes that "
            "longer ones do not fit in stay reserved, and are given back only where the card has nothing left"
        )
        taken, whole = _counted(taken, alive), taken
        if taken != whole:
            assumptions[-1] += f"; {gib(taken.later)} of it is counted, as it is no need"
    fused = attention == "sdpa" and not any("runs unfused" in line for line in said)
    work = generation_work(workload, spec, width, fused, played.parameters * width - weight_bytes)
    details = {
        "weights": f"{millions(played.parameters)} parameters in {quantization or workload.dtype}",
        "kv_cache": f"keys and values of {total - 1} tokens for each of {workload.batch_size} sequences",
        "logits": "of the next token" + (", and of every position of the prompt" if lens else ""),
        "activations": "the residual stream and what the running layer works on",
        "temporaries": "alive at the peak besides all that: intermediate results, copies of weights",
        "buffers": "rotary tables, masks and the like",
    }
    made = assemble(
        workload.model_dump() | {"attention": attention, "model": repeatable(workload.model, spec)},
        at_peak,
        largest,
        details,
        capability,
        precision=precision,
        verified_on=f"{verified}, torch 2.13 (CPU) and 2.11 (H100)",
        loading=loading(
            workload.library,
            workload.library_version,
            spec,
            workload.dtype,
            no_processing=workload.no_processing,
            quantization=quantization,
        ),
        download_bytes=download_bytes(spec),
        work=work,
        assumptions=assumptions,
        warnings=warnings,
        order="generation" if workload.kv_cache is not False else "generation_uncached",
        reserved=taken.reserved if taken else None,
        # Passes are left out; how far that is off: `card.turning_points`.
        unsure=taken.later // 4 if taken else 0,
    )
    if taken is not None and played.passes is not None:  # 2 %: what is left out there may be in the way, too
        made.asks_for(
            Requests(made.peak.tensors, played.standing, _beside(played, made.peak.tensors), played.passes,
                     unsure=made.peak.tensors // 50)
        )  # fmt: skip
    return made


@dataclass(frozen=True)
class _Played:
    """A call of a library's `generate`."""

    tape: Tape
    attention: str
    parameters: int
    buffers: int
    """Bytes."""
    context: int
    """Tokens."""
    said: list[str]
    passes: Passes | HookedPasses | None = None
    """What it asks the allocator for, where that is played."""
    standing: Sequence[int] = ()
    """Bytes of each tensor of the model."""


def _beside(played: _Played, tensors: int) -> int:
    """Bytes at the peak that are neither the model's nor the tape's."""
    return tensors - sum(played.standing) - played.tape.peak


def _counted(taken: Taken, alive: int) -> Taken:
    """With no more idle after the prompt's pass than what reserved comes to twice the bytes that are alive: without a
    cache, hundreds of passes leave many times that behind where there is room, and get by without it."""
    idle = max(0, taken.reserved - max(taken.reserved - taken.later, 2 * alive))
    return Taken(taken.reserved - idle, taken.later - idle)


def taken_by(played: _Played, tensors: int, capability: str | None) -> Taken | None:
    """What the allocator reserves; None where the order of the allocations is not played."""
    beside = _beside(played, tensors)
    if played.passes is None or beside < 0:
        return None
    workspace = device.cublas_workspace(capability)
    return played.passes.growing(workspace).reserved(played.standing, beside, tensors + workspace)


def _transformers(workload: Generation, spec: ModelSpec, width: int, capability: str | None) -> _Played:
    """`model.generate`."""
    attention = workload.attention or transformers_forward.default_attention(spec)
    unfused = attention == "sdpa" and transformers_forward.needs_math_kernel(spec, width, capability)
    run = transformers_generate.Generate(
        spec, workload.batch_size, workload.seq_len, workload.new_tokens, width, attention, workload.kv_cache, unfused
    )
    said = [f"attention implementation: {attention}; model in eval mode, do_sample=False, prompts without padding"]
    if unfused:
        said.append("sdpa with grouped heads runs unfused on this card or dtype: the scores are counted")
    if "dtype" not in workload.model_fields_set and spec.checkpoint_dtype not in (None, workload.dtype):
        said.append(
            f"dtype float32, as none was given; transformers 5 loads {spec.checkpoint_dtype} unless told otherwise"
        )
    made, buffers = transformers_generate.generate(run), weights.hf_buffer_bytes(spec, width)
    return _Played(
        made.tape, attention, weights.hf_params(spec), buffers, spec.n_ctx, said, Passes(run, made),
        parameters.hf_tensors(spec, width),
    )  # fmt: skip


def _hooked(workload: Generation, spec: ModelSpec, width: int, capability: str | None) -> _Played:
    """`HookedTransformer.generate`."""
    folded = not workload.no_processing
    run = hooked_generate.Generate(
        spec, workload.batch_size, workload.seq_len, workload.new_tokens, width, folded, workload.kv_cache
    )
    said = ["HookedTransformer.generate with its default sampling (do_sample, temperature 1), a tokenizer is attached"]
    buffers = weights.tl_buffer_bytes(spec, width)
    made = hooked_generate.generate(run)
    passes = HookedPasses(run, made) if is_played(run) else None
    return _Played(
        made.tape, "eager", weights.tl_params(spec, folded), buffers, spec.context_tl, said, passes,
        parameters.tl_tensors(spec, width, folded),
    )  # fmt: skip


def generation_work(
    workload: Generation, spec: ModelSpec, width: int, fused: bool, not_stored: int = 0
) -> list[WorkPart]:
    """The prompt's pass and the passes after it.

    Args:
        fused: attention runs in a fused kernel.
        not_stored: bytes that quantised weights are smaller by; they are read as they are stored.
    """
    lens = workload.library != "transformers"
    shape = Shape(workload.batch_size, workload.seq_len, width, kernel="fused" if fused else "products")
    smaller = Work(moved=not_stored)
    parts = [part("the prompt's pass", effort.prompt(spec, shape, lens) - smaller, workload.dtype)]
    steps = workload.new_tokens - 1
    if not steps:
        return parts
    if workload.kv_cache:
        sliding = 0 if lens else sum(slides(spec, layer) for layer in range(spec.n_layers))
        rest = effort.decoding(spec, shape, workload.new_tokens, sliding)
    else:
        rest = effort.recomputing(spec, shape, workload.new_tokens, lens)
    return [*parts, part(f"{steps} passes, one for each further token", rest - smaller * steps, workload.dtype)]

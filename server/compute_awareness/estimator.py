"""From a workload to an estimate: the one function, and the sentence that sums it up."""

from __future__ import annotations

from .errors import InputError
from .memory.estimate import Estimate
from .runtime.duration import estimate_time
from .units import gib
from .workload import ActivationCache, AnyWorkload, Inference, SaeTraining


def estimate(workload: AnyWorkload, compute_capability: str | None = None) -> Estimate:
    """What the workload takes.

    Args:
        workload: what is to be run.
        compute_capability: of the card it will run on (e.g. "8.0"), for the CUDA context; None = a typical card.

    Returns:
        The estimate; bytes as integers. `peak.tensors` is exact for what `precision` says so.
    Raises:
        InputError: unknown model, hooks that match nothing, layers outside the model, versions not covered.
    """
    match workload:
        case ActivationCache() | Inference():
            result = _one_pass(workload, compute_capability)
        case SaeTraining():
            from .estimates.sae_training import sae_training

            result = sae_training(workload, compute_capability)
    result.time = estimate_time(result.flops, result.peak.tensors, None, workload.dtype, "unknown", None)
    result.summary = _summary(workload, result)
    return result


def _one_pass(workload: ActivationCache | Inference, compute_capability: str | None) -> Estimate:
    """The pass in the library that the workload names."""
    if workload.library == "transformer_lens":
        from .estimates.hooked_pass import hooked_pass

        return hooked_pass(workload, compute_capability)
    if workload.library == "transformers" and isinstance(workload, Inference):
        from .estimates.transformers_pass import transformers_pass

        return transformers_pass(workload, compute_capability)
    raise InputError(f"library: {workload.library!r} is not covered yet for {workload.task}")


def _summary(workload: AnyWorkload, result: Estimate) -> str:
    model = result.workload["model"]
    if isinstance(model, dict):
        model = model.get("name", "the given model")
    match workload:
        case ActivationCache():
            what = "run_with_cache" if workload.names_filter is None and workload.layers is None else "a filtered cache"
            size = f"{workload.batch_size} x {workload.seq_len} tokens"
            subject = f"{what} of {model} ({workload.dtype}, {size})"
        case Inference():
            subject = (
                f"a forward pass of {model} in {workload.library} "
                f"({workload.dtype}, {workload.batch_size} x {workload.seq_len} tokens)"
            )
        case SaeTraining():
            on = f" on {model}" if model else ""
            filled = result.workload
            size = f"d_in {filled['d_in']}, d_sae {filled['d_sae']}, batch {workload.train_batch_size_tokens}"
            subject = f"training a {workload.architecture} SAE{on} ({size})"
    biggest = sorted((c for c in result.components if c.where == "device"), key=lambda c: -c.bytes_at_peak)[:3]
    parts = ", ".join(f"{c.name.replace('_', ' ')} {gib(c.bytes_at_peak)}" for c in biggest if c.bytes_at_peak)
    tensors = f"{gib(result.peak.tensors)} of tensors: {parts}"
    return f"{subject} needs about {gib(result.peak.device)} of GPU memory ({tensors})."

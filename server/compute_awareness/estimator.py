"""From a workload to an estimate: the one function, and the sentence that sums it up."""

from __future__ import annotations

from typing import Any

from .errors import InputError, NotCovered
from .memory.estimate import ROUGH_MARGIN, Estimate, Precision
from .models.hf_config import Uncovered
from .models.resolve import resolve
from .precision import earned, weaker
from .runtime.duration import TIMED, estimate_time
from .units import gib
from .workload import ActivationCache, AnyWorkload, Generation, Inference, Patching, SaeInference, SaeTraining, Training


def estimate(
    workload: AnyWorkload, compute_capability: str | None = None, *, python: str | None = None, may_trace: bool = True
) -> Estimate:
    """What the workload takes.

    `workload.estimated_by` says how: `closed_form` is arithmetic; `trace` runs the experiment's own library without
    weights in a child process (seconds); `auto` takes the closed form, and traces what none covers where a Python with
    the libraries is at hand.

    Args:
        workload: what is to be run.
        compute_capability: of the card it will run on (e.g. "8.0"), for the CUDA context; None = a typical card.
        python: the experiment's interpreter, for a trace; None = found by the usual signs.
        may_trace: whether `auto` may trace what no closed form covers; else NotCovered is raised for it.

    Returns:
        The estimate; bytes as integers. `peak.tensors` is exact for what `precision` says so.
    Raises:
        InputError: unknown model, hooks that match nothing, layers outside the model, versions not covered, a trace
            that cannot be made.
    """
    if workload.estimated_by == "trace":
        from .trace.estimate import traced

        result = traced(workload, compute_capability, python)
    else:
        try:
            result = _closed_form(workload, compute_capability)
        except NotCovered as error:
            if workload.estimated_by == "closed_form" or not may_trace:
                raise
            result = _traced_instead(workload, compute_capability, python, error)
    if result.method == "closed_form" and result.precision != "rough":
        result.precision = weaker(result.precision, _earned(workload))
    if result.precision == "rough":
        result.range.high += int(ROUGH_MARGIN * result.peak.tensors)
    result.time = estimate_time(result.work, None, "unknown", None)
    result.assumptions.append(f"time: {TIMED}; the rates are in time.basis")
    result.summary = _summary(workload, result)
    return result


def _earned(workload: AnyWorkload) -> Precision:
    """What the comparisons with the real library allow this kind of estimate to be called."""
    if isinstance(workload, SaeTraining | SaeInference):
        return earned(workload.library, workload.task, workload.architecture, workload.dtype)
    return earned(workload.library, workload.task, resolve(workload.model).architecture, workload.dtype)


def _closed_form(workload: AnyWorkload, capability: str | None) -> Estimate:
    """By arithmetic. The modules are imported when they are needed: a command should not wait for the others."""
    match workload:
        case ActivationCache() | Inference():
            return _one_pass(workload, capability)
        case Generation(library="transformer_bridge") | Training(library="transformer_bridge"):
            raise _no_bridge(workload.task)
        case Patching(library="transformer_bridge"):
            raise _no_bridge(workload.method)
        case Generation():
            from .estimates.generation import generation

            return generation(workload, capability)
        case Training(library="transformers"):
            from .estimates.transformers_training import transformers_training

            return transformers_training(workload, capability)
        case Training():
            from .estimates.hooked_training import hooked_training

            return hooked_training(workload, capability)
        case Patching():
            from .estimates.patching import patching

            return patching(workload, capability)
        case SaeInference():
            from .estimates.sae_inference import sae_inference

            return sae_inference(workload, capability)
        case SaeTraining():
            from .estimates.sae_training import sae_training

            return sae_training(workload, capability)


def _no_bridge(what: str) -> NotCovered:
    return NotCovered(f"{what} has no closed form for transformer_bridge; it is traced (transformer-lens 3.8 or later)")


def _one_pass(workload: ActivationCache | Inference, capability: str | None) -> Estimate:
    """The pass in the library that the workload names."""
    match workload.library:
        case "transformer_lens":
            from .estimates.hooked_pass import hooked_pass

            return hooked_pass(workload, capability)
        case "transformer_bridge":
            from .estimates.bridge_pass import bridge_pass

            return bridge_pass(workload, capability)
        case "transformers" | "nnsight":
            from .estimates.transformers_pass import transformers_pass

            return transformers_pass(workload, capability)


def _traced_instead(
    workload: AnyWorkload, capability: str | None, python: str | None, uncovered: NotCovered
) -> Estimate:
    """The trace of what no closed form covers; of a multimodal model, its text model alone.

    Raises:
        InputError: with both reasons where there is no trace either.
    """
    config = uncovered.config if isinstance(uncovered, Uncovered) else None
    text = (config or {}).get("text_config")
    if isinstance(text, dict) and text.get("model_type"):
        return _text_model(workload, capability, python, text)
    from .trace.estimate import traced

    try:
        return traced(workload, capability, python, config=config, only_version=True)
    except InputError as error:
        raise InputError(f"{uncovered}; and it cannot be traced: {error}") from None


def _text_model(workload: AnyWorkload, capability: str | None, python: str | None, text: dict[str, Any]) -> Estimate:
    """The text model of a multimodal one; the other towers are not counted, so the figure is rough."""
    only_text = workload.model_copy(update={"model": text})
    try:
        result = _closed_form(only_text, capability)
    except NotCovered as error:
        result = _traced_instead(only_text, capability, python, error)
    result.workload["model"] = workload.model
    result.precision = "rough"
    result.warnings.append("multimodal model: its text model alone is counted, not the vision or audio towers")
    return result


def _summary(workload: AnyWorkload, result: Estimate) -> str:
    biggest = sorted((c for c in result.components if c.where == "device"), key=lambda c: -c.bytes_at_peak)[:3]
    parts = ", ".join(f"{c.name.replace('_', ' ')} {gib(c.bytes_at_peak)}" for c in biggest if c.bytes_at_peak)
    tensors = f"{gib(result.peak.tensors)} of tensors: {parts}"
    each = ""
    if getattr(workload, "n_devices", 1) > 1:
        each = " on each card" if isinstance(workload, Training) else " on the fullest card"
    return f"{_subject(workload, result)} needs about {gib(result.peak.device)} of GPU memory{each} ({tensors})."


def _subject(workload: AnyWorkload, result: Estimate) -> str:
    model = result.workload.get("model")
    if isinstance(model, dict):
        model = model.get("name", "the given model")
    filled = result.workload
    if isinstance(workload, SaeTraining):
        on = f" on {model}" if model else ""
        size = f"d_in {filled['d_in']}, d_sae {filled['d_sae']}, batch {workload.train_batch_size_tokens}"
        return f"training a {workload.architecture} SAE{on} ({size})"
    size = f"{workload.batch_size} x {workload.seq_len} tokens"
    if isinstance(workload, SaeInference):
        on = f" on {model}" if model else ""
        return f"using a {workload.architecture} SAE{on} (d_in {filled['d_in']}, d_sae {filled['d_sae']}, {size})"
    match workload:
        case ActivationCache():
            full = workload.names_filter is None and workload.layers is None
            what = {
                "transformer_lens": "run_with_cache" if full else "a filtered cache",
                "transformer_bridge": "run_with_cache (bridge)" if full else "a filtered cache (bridge)",
            }.get(workload.library, f"saved activations in {workload.library}")
            return f"{what} of {model} ({workload.dtype}, {size})"
        case Inference():
            return f"a forward pass of {model} in {workload.library} ({workload.dtype}, {size})"
        case Generation():
            return f"generating {workload.new_tokens} tokens with {model} ({workload.dtype}, prompt {size})"
        case Training():
            how = "fine-tuning LoRA adapters of" if workload.trainable == "lora" else "training"
            where = f" on each of {workload.n_devices} cards" if workload.n_devices > 1 else ""
            return f"{how} {model} with {workload.optimizer} ({workload.dtype}, {size} a pass{where})"
        case Patching():
            return f"{workload.method.replace('_', ' ')} in {model} ({workload.dtype}, {size})"

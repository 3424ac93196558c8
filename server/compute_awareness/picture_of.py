"""The picture of an answer: an estimate alone, or a preflight against the card that it was held to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .picture import capacity, memory_svg

if TYPE_CHECKING:
    from .memory.estimate import Estimate
    from .preflight import Preflight

STATUS = {"fits": "FITS", "tight": "TIGHT", "does_not_fit": "DOES NOT FIT", "unknown": "CANNOT SAY YET"}
"""A verdict's status for people."""


def workload_line(workload: dict[str, Any]) -> str:
    """The workload in a few words: `activation_cache of pythia-2.8b, 4 x 1024 tokens, float32`."""
    model = workload.get("model")
    of = "" if model is None else f" of {model.get('name', 'a model') if isinstance(model, dict) else model}"
    shape = f", {workload['batch_size']} x {workload['seq_len']} tokens" if "batch_size" in workload else ""
    if "train_batch_size_tokens" in workload:
        shape = f", {workload['train_batch_size_tokens']} tokens a step"
    return f"{workload.get('task', 'workload')}{of}{shape}, {workload.get('dtype', '')}".rstrip(", ")


def estimate_svg(answer: Estimate) -> str:
    """Of an estimate, which knows no card."""
    return memory_svg(
        answer, workload_line(answer.workload), needed=answer.peak.device, where="the device", words=answer.summary
    )


def preflight_svg(answer: Preflight) -> str:
    """Of a preflight."""
    verdict = answer.verdict
    return memory_svg(
        answer.estimate,
        workload_line(answer.estimate.workload),
        needed=verdict.needed_bytes,
        where=verdict.device,
        free=verdict.free_bytes,
        room=capacity(answer.compute, verdict),
        words=f"{STATUS[verdict.status]}. {verdict.why}",
    )

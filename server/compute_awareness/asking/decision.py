"""Whether to ask the user, and in which words."""

from __future__ import annotations

from collections.abc import Sequence

from ..advice.answers import Change, GpuChoice, Verdict
from ..hardware.compute import Compute
from ..memory.estimate import Estimate
from ..units import GIB
from ..workload import AnyWorkload
from .policy import CONDITIONS, QUICK_CPU_HOURS, SMALL_DEVICE_BYTES
from .question import Decision, Question, Trigger
from .triggers import Situation, fired, is_small, place_of, quick_on_cpu
from .words import write


def decide(
    workload: AnyWorkload,
    estimate: Estimate,
    compute: Compute | None,
    verdict: Verdict,
    changes: Sequence[Change],
    *,
    gpu_named: bool = False,
    where_unknown: bool = False,
    params: int | None = None,
    n_layers: int | None = None,
    hours_high: float | None = None,
    hours_on: str = "",
    hours_allowed: float | None = None,
    gpus: Sequence[GpuChoice] = (),
) -> Question:
    """Ask, tell or stay silent, by the table of `policy.py`; never raises for valid arguments.

    `compute` is the report of the machine in sight, None if it is not the one. `gpu_named`: the caller named the
    card, or said that there is none. `where_unknown`: the caller said that the machine in sight is not the one.
    `params` is the language model's parameter count as Hugging Face counts it, None without a language model;
    `n_layers` its blocks, with which `stop_at_layer` is judged. `hours_high` is the upper end of the duration on
    `hours_on`: the device in question, or a typical data-centre card where none is known. `hours_allowed`: what the
    user said a run may take without a question. `changes` and `gpus` are
    what advice found, `gpus` the smallest first.
    """
    situation = Situation(
        workload=workload,
        estimate=estimate,
        compute=compute,
        verdict=verdict,
        place=place_of(compute, verdict, gpu_named, where_unknown),
        params=params,
        n_layers=n_layers,
        hours_high=hours_high,
        hours_on=hours_on,
        hours_allowed=hours_allowed,
    )
    triggers = fired(situation)
    decision, template, reason = _outcome(situation, triggers)
    if template is None:
        return Question(decision=decision, text="", reason=reason)
    words = write(template, situation, triggers, changes, gpus)
    return Question(decision=decision, triggers=triggers, reason=reason, **words._asdict())


def _outcome(situation: Situation, triggers: list[Trigger]) -> tuple[Decision, str | None, str]:
    """The decision, the template of its words (None where there are none), and the reason."""
    status, place = situation.verdict.status, situation.place
    if is_small(situation):
        return _small(situation)
    if place == "unknown":
        return "ask", "which_gpu", "Where it will run is not known, and a laptop may not do. " + _why(triggers)
    if place in ("no_gpu", "unclear"):
        return _no_gpu_seen(situation, triggers)
    if status == "does_not_fit":
        return "ask", "does_not_fit", "The device is known and does not suffice. " + _why(triggers)
    if status == "tight":
        return "tell", "tight", "The device is known and barely suffices: a warning; it would fail in the first steps."
    if status == "unknown":
        return "tell", "cannot_say", "The device is known, but not what it has free; asking which it is would not help."
    if place == "cpu":
        return "tell", "on_cpu", "The run is meant for a machine without a GPU, and fits its RAM."
    if triggers:
        return "tell", "fits", "The card is known and suffices: nothing to ask. " + _why(triggers)
    return "silent", None, "The card is known and suffices, and nothing about the run is unusual."


def _small(situation: Situation) -> tuple[Decision, str | None, str]:
    reason = (
        f"Any laptop can do it: less than {SMALL_DEVICE_BYTES / GIB:g} GiB, and a CPU needs at most "
        f"{QUICK_CPU_HOURS * 60:.0f} minutes"
    )
    if situation.verdict.status == "does_not_fit":
        return "tell", "small_does_not_fit", f"{reason}; but the device in question is nearly full."
    if situation.verdict.status == "tight":
        return "tell", "tight", f"{reason}; but there is little to spare on the device in question."
    return "silent", None, f"{reason}."


def _no_gpu_seen(situation: Situation, triggers: list[Trigger]) -> tuple[Decision, str, str]:
    status = situation.verdict.status
    if status == "fits" and quick_on_cpu(situation):
        return "tell", "on_cpu", "No GPU is seen, and none is needed: it fits the RAM and is quick on the CPU."
    if triggers:
        return "ask", "which_gpu", "No GPU that it could use is seen here. " + _why(triggers)
    if status == "fits":
        return "tell", "on_cpu", "No GPU is seen; the run fits the RAM and is not long on the CPU."
    if status == "tight":
        return "tell", "tight", "No GPU is seen; the run barely fits the RAM."
    return "tell", "cannot_say", "No GPU is seen, and whether the RAM suffices is not known."


def _why(triggers: list[Trigger]) -> str:
    """The conditions that fired, with why they matter."""
    parts = [f"{c.trigger}: {c.why}" for c in CONDITIONS if c.trigger in triggers]
    return "; ".join(parts) + "." if parts else ""

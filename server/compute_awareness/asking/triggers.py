"""Evaluates the conditions of `policy.py` on one situation."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..advice.answers import Verdict
from ..hardware.compute import Compute
from ..memory.estimate import Estimate
from ..workload import ActivationCache, AnyWorkload, Patching, SaeInference, SaeTraining
from .policy import (
    CONDITIONS,
    FULL_CACHE_BLOCKS,
    FULL_CACHE_TOKENS,
    LAPTOP_FLOPS,
    LAPTOP_HALF_FLOPS,
    LARGE_MODEL_PARAMS,
    LONG_HOURS,
    QUICK_CPU_HOURS,
    SMALL_DEVICE_BYTES,
    SMALL_HOST_BYTES,
)
from .question import Trigger

Place = Literal["card", "cpu", "no_gpu", "unclear", "unknown"]


@dataclass(frozen=True)
class Situation:
    """All that the decision is made on.

    `place`: `card` = the GPU is known; `cpu` = the caller says there is none; `no_gpu` = none is seen and runs are
    plainly here; `unclear` = none is seen and runs may be elsewhere; `unknown` = the machine is not in sight.
    """

    workload: AnyWorkload
    estimate: Estimate
    compute: Compute | None
    verdict: Verdict
    place: Place
    params: int | None
    n_layers: int | None
    hours_high: float | None
    hours_on: str
    hours_allowed: float | None = None


def place_of(compute: Compute | None, verdict: Verdict, gpu_named: bool, where_unknown: bool) -> Place:
    """What is known of the place. 'Not this machine' goes before all, a named GPU before what is seen."""
    if where_unknown:
        return "unknown"
    if gpu_named:
        return "cpu" if _names_cpu(verdict.device) else "card"
    if compute is None:
        return "unknown"
    if compute.usable():
        return "card"
    return "no_gpu" if compute.environment.clear else "unclear"


def fired(situation: Situation) -> list[Trigger]:
    """The triggers that fire, strongest first."""
    return [condition.trigger for condition in CONDITIONS if _FIRES[condition.trigger](situation)]


def is_small(situation: Situation) -> bool:
    """Whether any laptop can do the run: little memory, little RAM beside it, and quick on a CPU.

    This depends on the run alone, never on the machine in sight, so that learning more about the machine cannot
    turn a run that needed no question into one that does. Where the work is not counted, a forward pass that is
    small in memory passes for quick: the logits bound it to some 20 thousand tokens through at most a billion
    float32 parameters. SAE training has no such bound.
    """
    estimate = situation.estimate
    device = max(estimate.range.high, estimate.peak.device)
    host = max(estimate.host_bytes, estimate.loading_host_bytes)
    # A small model can run in float32 there, whatever dtype a card would be given.
    hours = _laptop_hours(estimate, LAPTOP_FLOPS)
    quick = situation.workload.task != "sae_training" if hours is None else hours <= QUICK_CPU_HOURS
    return device < SMALL_DEVICE_BYTES and host <= SMALL_HOST_BYTES and quick


def quick_on_cpu(situation: Situation) -> bool:
    """Whether the CPU in question is good enough; not if the time is unknown."""
    hours = cpu_hours(situation)
    return hours is not None and hours <= QUICK_CPU_HOURS


def cpu_hours(situation: Situation) -> float | None:
    """Hours on a CPU: the caller's figure where it is for one, else the work at a laptop's pace; null if unknown."""
    if situation.hours_high is not None and _names_cpu(situation.hours_on):
        return situation.hours_high
    return _laptop_hours(situation.estimate, _pace(situation.workload))


def _pace(workload: AnyWorkload) -> float:
    dtype = workload.model_dtype if isinstance(workload, SaeTraining | SaeInference) else workload.dtype
    return LAPTOP_FLOPS if dtype == "float32" else LAPTOP_HALF_FLOPS


def _laptop_hours(estimate: Estimate, pace: float) -> float | None:
    return estimate.flops / pace / 3600 if estimate.flops else None


def on_cpu(situation: Situation) -> bool:
    """Whether the run would be on a CPU, as far as is known."""
    return situation.place in ("cpu", "no_gpu", "unclear")


def hours(situation: Situation) -> float | None:
    """Upper end of the run's duration in hours, where it would run as far as is known; null if not known.

    Where runs may be elsewhere, that is the caller's figure for a card, not the time on the CPU in sight.
    """
    return cpu_hours(situation) if _bound_to_cpu(situation) else situation.hours_high


def hours_device(situation: Situation) -> str:
    """The device that `hours` is for, in words."""
    if _bound_to_cpu(situation):
        return cpu_device(situation)
    return situation.hours_on or "a data-centre GPU"


def cpu_device(situation: Situation) -> str:
    """The CPU that `cpu_hours` is for, in words."""
    return situation.hours_on if _names_cpu(situation.hours_on) else "a laptop's CPU"


def _bound_to_cpu(situation: Situation) -> bool:
    elsewhere = situation.place == "unclear" and situation.hours_high is not None
    return on_cpu(situation) and not (elsewhere and not _names_cpu(situation.hours_on))


def _names_cpu(device: str) -> bool:
    return re.search(r"\b(CPU|RAM)\b", device, re.IGNORECASE) is not None


def _does_not_fit(situation: Situation) -> bool:
    return situation.verdict.status == "does_not_fit"


def _large_model(situation: Situation) -> bool:
    return situation.params is not None and situation.params >= LARGE_MODEL_PARAMS


def _sae_training(situation: Situation) -> bool:
    return situation.workload.task == "sae_training"


def _full_activation_cache(situation: Situation) -> bool:
    workload = situation.workload
    if not isinstance(workload, ActivationCache | Patching) or workload.seq_len < FULL_CACHE_TOKENS:
        return False
    filtered = workload.names_filter is not None and "*" not in workload.names_filter
    return not filtered and workload.layers is None and _blocks_kept(workload, situation.n_layers) > FULL_CACHE_BLOCKS


def _blocks_kept(workload: ActivationCache | Patching, n_layers: int | None) -> float:
    """Share of the blocks that run; 1 where the number of blocks is not known, so that doubt counts as full."""
    if isinstance(workload, Patching) or workload.stop_at_layer is None or not n_layers:
        return 1.0
    stop = workload.stop_at_layer + (n_layers if workload.stop_at_layer < 0 else 0)
    return min(max(stop, 0), n_layers) / n_layers


def _long_running(situation: Situation) -> bool:
    duration = hours(situation)
    return duration is not None and duration > (situation.hours_allowed or LONG_HOURS)


def _unclear_environment(situation: Situation) -> bool:
    return situation.place in ("unclear", "unknown")


_FIRES: dict[Trigger, Callable[[Situation], bool]] = {
    "does_not_fit": _does_not_fit,
    "large_model": _large_model,
    "sae_training": _sae_training,
    "full_activation_cache": _full_activation_cache,
    "long_running": _long_running,
    "unclear_environment": _unclear_environment,
}

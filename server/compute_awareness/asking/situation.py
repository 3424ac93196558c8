"""All that the decision is made on, and what follows from it about place and time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..advice.answers import ClusterPath, Verdict
from ..advice.cost import Cost
from ..hardware.compute import Accelerator, Compute
from ..memory.estimate import Estimate
from ..workload import AnyWorkload, SaeInference, SaeTraining

Place = Literal["card", "cpu", "no_gpu", "unclear", "unknown"]


@dataclass(frozen=True)
class Figures:
    """Floating-point operations per second assumed of a laptop's CPU; `half`: in bfloat16 or float16."""

    laptop_flops: float
    laptop_half_flops: float


@dataclass(frozen=True)
class Situation:
    """All that the decision is made on.

    `place`: `card` = the GPU is known; `cpu` = the caller says there is none; `no_gpu` = none is seen and runs are
    plainly here; `unclear` = none is seen and runs may be elsewhere; `unknown` = the machine is not in sight.
    `in_sight`: the report is of the machine that will run it, as far as is known.
    """

    workload: AnyWorkload
    estimate: Estimate
    compute: Compute | None
    verdict: Verdict
    place: Place
    in_sight: bool
    said_elsewhere: bool
    params: int | None
    n_layers: int | None
    hours_high: float | None
    hours_on: str
    hours_allowed: float | None
    cost: Cost | None
    usd_allowed: float | None
    to_download: int | None
    paths: Sequence[ClusterPath]
    figures: Figures
    costless: bool = False
    """A change that takes no time and loses nothing that is read makes it fit."""


def kind_of_place(compute: Compute | None, verdict: Verdict, gpu_named: bool, where_unknown: bool) -> Place:
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


def card_in_sight(situation: Situation) -> Accelerator | None:
    """The card that the verdict is about, where it was seen: the usable one of its name, and with the memory that the
    verdict found free if there is one."""
    if situation.place != "card" or not situation.in_sight or situation.compute is None:
        return None
    cards, verdict = situation.compute.usable(), situation.verdict
    named = [card for card in cards if verdict.device.endswith(card.name)]
    return next((card for card in named if card.free_bytes == verdict.free_bytes), next(iter(named or cards), None))


def on_login_node(situation: Situation) -> bool:
    """Whether the machine in sight is a cluster's login node."""
    if not situation.in_sight or situation.compute is None:
        return False
    environment = situation.compute.environment
    first = next((layer for layer in environment.layers if layer.id == environment.primary), None)
    return first is not None and first.id == "slurm_login_node" and first.confidence != "low"


def cpu_hours(situation: Situation) -> float | None:
    """Hours on a CPU: the caller's figure where it is for one, else the work at a laptop's pace; None if unknown."""
    if situation.hours_high is not None and _names_cpu(situation.hours_on):
        return situation.hours_high
    workload, figures = situation.workload, situation.figures
    dtype = workload.model_dtype if isinstance(workload, SaeTraining | SaeInference) else workload.dtype
    return _hours_at(situation, figures.laptop_flops if dtype == "float32" else figures.laptop_half_flops)


def laptop_hours(situation: Situation) -> float | None:
    """Hours on a laptop's CPU in float32, whatever dtype a card would be given; None where the work is not counted."""
    return _hours_at(situation, situation.figures.laptop_flops)


def _hours_at(situation: Situation, pace: float) -> float | None:
    return situation.estimate.flops / pace / 3600 if situation.estimate.flops else None


def on_cpu(situation: Situation) -> bool:
    """Whether the run would be on a CPU, as far as is known."""
    return situation.place in ("cpu", "no_gpu", "unclear")


def hours(situation: Situation) -> float | None:
    """Upper end of the run's duration in hours, where it would run as far as is known; None if not known.

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

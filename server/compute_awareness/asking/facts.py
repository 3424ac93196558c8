"""The vocabulary of the trigger table: what can be known of a situation, by name.

A fact that is not known is None. Numbers are in the unit of their name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..advice.answers import Status
from ..advice.cards import held_by_others
from ..hardware.finding import Finding
from ..hardware.torch_findings import torch_findings
from ..units import GIB
from ..workload import TASKS, ActivationCache, Patching
from .situation import Place, Situation, card_in_sight, cpu_hours, hours, laptop_hours, on_login_node

Kind = Literal["number", "flag", "choice"]
# Findings about a Python that is not ready yet, rather than about a torch that passes the card by.
_NOT_READY = ("no_torch", "python_problem")


@dataclass(frozen=True)
class Fact:
    """One thing that a condition can ask for. `choices`: what a choice may be."""

    kind: Kind
    about: str
    value: Callable[[Situation], Any]
    choices: tuple[str, ...] = ()


def torch_finding(situation: Situation) -> Finding | None:
    """What keeps the experiment's torch from the card in sight; None if nothing is known to."""
    card = card_in_sight(situation)
    if card is None or situation.compute is None:
        return None
    # The verdict is about this card alone: that torch can use another one is no comfort.
    alone = situation.compute.model_copy(update={"accelerators": [card]})
    errors = (f for f in torch_findings(alone) if f.severity == "error" and f.id not in _NOT_READY)
    return next(errors, None)


def others_bytes(situation: Situation) -> int | None:
    """Bytes that other users' processes hold on the card in sight; None where that is not told."""
    card = card_in_sight(situation)
    return None if card is None or card.free_without_others_bytes is None else held_by_others(card)


def gpu_shares(situation: Situation) -> int | None:
    """Shares of a GPU that the job in sight has, where it has no whole card."""
    limits = situation.compute.limits if situation.compute else None
    return limits.job.gpu_shares if card_in_sight(situation) and limits and limits.job else None


def free_disk(situation: Situation) -> int | None:
    """Bytes free for downloads on the machine that will run it; None where that is not known."""
    return situation.compute.host.disk_free_bytes if situation.in_sight and situation.compute else None


def ram_times_need(situation: Situation) -> float | None:
    """The RAM that is free in sight, in multiples of what the run needs on the device."""
    if situation.compute is None or not situation.in_sight or situation.verdict.needed_bytes <= 0:
        return None
    return situation.compute.host.ram_available_bytes / situation.verdict.needed_bytes


def _free_disk_below_download(situation: Situation) -> bool | None:
    free = free_disk(situation)
    return None if free is None or situation.to_download is None else free < situation.to_download


def _keeps_every_hook(situation: Situation) -> bool:
    workload = situation.workload
    if not isinstance(workload, ActivationCache | Patching):
        return False
    filtered = workload.names_filter is not None and "*" not in workload.names_filter
    return not filtered and workload.layers is None


def _share_of_blocks(situation: Situation) -> float:
    """1 where the number of blocks is not known, so that doubt counts as all of them."""
    workload, n_layers = situation.workload, situation.n_layers
    if not isinstance(workload, ActivationCache) or workload.stop_at_layer is None or not n_layers:
        return 1.0
    stop = workload.stop_at_layer + (n_layers if workload.stop_at_layer < 0 else 0)
    return min(max(stop, 0), n_layers) / n_layers


def _device_gib(situation: Situation) -> float:
    return max(situation.estimate.range.high, situation.estimate.peak.device) / GIB


def _host_gib(situation: Situation) -> float:
    return max(situation.estimate.host_bytes, situation.estimate.loading_host_bytes) / GIB


def _others_gib(situation: Situation) -> float | None:
    held = others_bytes(situation)
    return None if held is None else held / GIB


def _usd(situation: Situation) -> float | None:
    return None if situation.cost is None else situation.cost.usd


def _within(spent: float | None, allowed: float | None) -> bool:
    return spent is not None and allowed is not None and spent <= allowed


def _over(spent: float | None, allowed: float | None) -> bool:
    return spent is not None and allowed is not None and spent > allowed


FACTS: dict[str, Fact] = {
    "task": Fact("choice", "what is to be run", lambda s: s.workload.task, tuple(TASKS)),
    "billion_params": Fact(
        "number", "parameters of the language model, in 10^9", lambda s: None if s.params is None else s.params / 1e9
    ),
    "seq_len": Fact("number", "tokens per sequence", lambda s: getattr(s.workload, "seq_len", None)),
    "keeps_every_hook": Fact("flag", "the cache is not filtered by hook or layer", _keeps_every_hook),
    "share_of_blocks": Fact("number", "share of the model's blocks that run (stop_at_layer)", _share_of_blocks),
    "device_gib": Fact("number", "upper end of the memory on the device, GiB", _device_gib),
    "host_gib": Fact("number", "RAM for loading and for what is kept beside the device, GiB", _host_gib),
    "work_counted": Fact("flag", "the floating-point operations are known", lambda s: s.estimate.flops > 0),
    "laptop_hours": Fact("number", "hours on a laptop's CPU in float32 ([figures])", laptop_hours),
    "cpu_hours": Fact("number", "hours on the CPU in sight, else on a laptop's", cpu_hours),
    "hours": Fact("number", "upper end of the hours, where it would run as far as is known", hours),
    "over_time_budget": Fact("flag", "more hours than the profile allows", lambda s: _over(hours(s), s.hours_allowed)),
    "within_time_budget": Fact(
        "flag", "the profile allows so many hours", lambda s: _within(hours(s), s.hours_allowed)
    ),
    "usd": Fact("number", "upper end of what it costs, USD", _usd),
    "over_money_budget": Fact("flag", "more USD than the profile allows", lambda s: _over(_usd(s), s.usd_allowed)),
    "within_money_budget": Fact("flag", "the profile allows so many USD", lambda s: _within(_usd(s), s.usd_allowed)),
    "place": Fact(
        "choice",
        "card: the GPU is known; cpu: the caller says there is none; no_gpu: none is seen and runs are plainly here; "
        "unclear: none is seen and runs may be elsewhere; unknown: the machine is not in sight",
        lambda s: s.place,
        get_args(Place),
    ),
    "verdict": Fact("choice", "whether it fits there", lambda s: s.verdict.status, get_args(Status)),
    "costless_change": Fact(
        "flag", "it fits with a change that takes no time and loses nothing that is read", lambda s: s.costless
    ),
    "said_elsewhere": Fact(
        "flag", "the caller says that the machine in sight is not the one", lambda s: s.said_elsewhere
    ),
    "login_node": Fact("flag", "the machine in sight is a cluster's login node", on_login_node),
    "cluster_path": Fact("flag", "a cluster in sight has a GPU that holds it", lambda s: bool(s.paths)),
    "others_gib": Fact("number", "held by other users' processes on the card in sight, GiB", _others_gib),
    "share_of_a_card": Fact("flag", "the job in sight has a share of a GPU only", lambda s: bool(gpu_shares(s))),
    "free_disk_below_download": Fact("flag", "the weights do not fit the disk in sight", _free_disk_below_download),
    "torch_ignores_gpu": Fact(
        "flag", "the experiment's torch cannot use the card in sight", lambda s: torch_finding(s) is not None
    ),
    "ram_times_need": Fact("number", "free RAM in sight, in multiples of what the run needs", ram_times_need),
}
A_TRIGGER_FIRED = "a_trigger_fired"
"""The flag that the engine sets itself, for the rows of `otherwise`."""


def facts_of(situation: Situation) -> dict[str, Any]:
    """Every fact of a situation by name; None = not known."""
    return {name: fact.value(situation) for name, fact in FACTS.items()}

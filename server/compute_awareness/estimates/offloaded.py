"""What an estimate has of weights that wait beside the card while a transformers model runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from ..memory.estimate import Component, WorkPart
from ..memory.huggingface import placement
from ..memory.huggingface.parts import Waiting
from ..memory.huggingface.placement import Placement, Weights
from ..memory.loading import Loading
from ..models.spec import ModelSpec
from ..units import gib
from ..workload import DTYPE_BYTES, ActivationCache, Inference
from ..workload.max_memory import memory_bytes

_BESIDE: tuple[Literal["cpu", "disk"], ...] = ("cpu", "disk")


@dataclass(frozen=True)
class Offloaded:
    """Where a workload's weights are, with bytes of them."""

    placement: Placement
    weights: Weights
    waiting: Waiting
    converted: bool
    """Weights on disk have another dtype, and both copies are on the card for a moment."""
    partly: bool
    """By `max_memory`; else all of them wait."""
    no_ram: bool = False
    """`max_memory` has no "cpu"."""

    @property
    def where(self) -> list[Literal["cpu", "disk"]]:
        """Where they wait, in the order in which they come to the card."""
        return [where for where in _BESIDE if self.weights.crossing[where]]

    @property
    def share(self) -> str:
        """For the words on the component."""
        if not self.partly:
            return f", of which one module's are on the card at a time; the rest waits ({', '.join(self.where)})"
        layers = f"{self.placement.layers_on_card} of {len(self.placement.layers)} layers"
        held = gib(self.weights.held["card"])
        return f", {layers} on the card ({held}); what waits ({', '.join(self.where)}) comes module by module"

    def assumptions(self) -> Iterable[str]:
        """What is assumed of accelerate's hooks."""
        crossing = gib(sum(self.weights.crossing.values()))
        places = {
            "cpu": "RAM" if self.partly else "RAM (accelerate.cpu_offload)",
            "disk": "the checkpoint's safetensors files (device_map 'disk', read in place; a .bin is written out anew)",
        }
        waits = "weights wait" if not self.partly else "the other weights wait"
        if self.partly:
            yield (
                f"device_map='auto' with max_memory puts {self.placement.layers_on_card} of "
                f"{len(self.placement.layers)} layers on the card, as transformers 5.23 works it out; max_memory is "
                "for weights alone, all else comes on top"
            )
        yield (
            f"{waits} in {' and '.join(places[where] for where in self.where)}, and come to the card for their linear "
            f"layer, norm or embedding alone, {crossing} in every pass; buffers stay there, and the input is on the "
            "card; compared with accelerate 1.15 on the CPU"
        )

    def warnings(self) -> Iterable[str]:
        if self.no_ram:
            yield "max_memory has no 'cpu': what is not on the card waits on disk, not in RAM"

    def add_crossing(self, work: WorkPart) -> list[WorkPart]:
        """The pass, with the weights that come to the card in it."""
        parts = [work]
        for where in self.where:
            if work.crossing_bytes:
                parts.append(work.model_copy(update={"what": f"weights from {where}", "flops": 0, "moved_bytes": 0,
                                                     "activation_bytes": 0, "kernels": 0}))  # fmt: skip
            parts[-1].crossing_bytes, parts[-1].crossing_from = self.weights.crossing[where], where
        return parts

    def components(self) -> list[Component]:
        """The weights in RAM."""
        held = self.weights.held["cpu"]
        detail = "what is not on the card" if self.partly else "all of them, in RAM"
        if not held:
            return []
        return [
            Component(name="weights", bytes=held, at_peak=False, bytes_at_peak=0, where="host", detail=detail)
        ]  # fmt: skip

    def loading(self, loaded: Loading, buffers: int) -> Loading:
        """The worst moment of loading, where `loaded` is that of the model on one device."""
        host = self.weights.held["cpu"] or self.waiting.largest
        if not self.partly and self.weights.held["cpu"]:
            host = loaded.host_bytes  # from_pretrained puts all of it in RAM
        return replace(loaded, host_bytes=host, device_bytes=self.weights.held["card"] + buffers)


def offloaded(workload: Inference | ActivationCache, spec: ModelSpec) -> Offloaded | None:
    """Where the weights are, if any of them wait beside the card.

    Raises:
        InputError: `max_memory` leaves no room on the card.
    """
    width = DTYPE_BYTES[workload.dtype]
    if workload.offload:
        placed = placement.all_of(spec, workload.offload)
    elif workload.max_memory:
        ram = workload.max_memory.get("cpu")
        placed = placement.within(
            spec, width, memory_bytes(workload.max_memory["0"]), None if ram is None else memory_bytes(ram)
        )
    else:
        return None
    stored = DTYPE_BYTES[spec.checkpoint_dtype or workload.dtype]
    converted = spec.checkpoint_dtype not in (None, workload.dtype)
    weights = placement.weights_of(spec, width, placed, stored)
    if not any(weights.crossing.values()):
        return None
    return Offloaded(
        placed, weights, placement.waiting(spec, width, placed, stored if converted else 0),
        converted and weights.crossing["disk"] > 0, partly=not workload.offload,
        no_ram=workload.max_memory is not None and "cpu" not in workload.max_memory,
    )  # fmt: skip

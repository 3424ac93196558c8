"""Where the run would happen, and what it takes there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..hardware.compute import Accelerator, Compute
from ..hardware.torch_findings import has_no_code
from ..memory.card import device
from ..memory.estimate import ROUGH_MARGIN, Estimate
from ..units import GIB
from .cards import Cards, cards_of
from .gpus import Gpu, GpuRequest, all_gpus


@dataclass(frozen=True)
class Place:
    """One device to run on. `free_bytes` None = not known."""

    kind: Literal["gpu", "mps", "cpu", "unknown"]
    name: str
    free_bytes: int | None
    compute_capability: str | None = None
    gpu: Gpu | None = None
    """The card's row in the table, where it has one."""
    count: int = 1
    """Cards that the run may be spread over: as many as were named, or those of `cards` that nobody else uses."""
    cards: Cards | None = None
    """The cards of a machine that was seen, each with its own free memory; None = `count` cards alike."""
    index: int | None = None
    """The number of this card among `cards`; None where it is none of them, as a MIG slice."""
    machine: str | None = None
    """The name of the machine that was seen, where it is another one."""
    host_free_bytes: int | None = None
    """RAM beside the card; None = not known."""
    cpus: float | None = None
    named: bool = False
    """The caller named it, nothing was looked at."""
    bf16: bool | None = None
    """bfloat16 in hardware, as the report of the machine says; None = by the table or the compute capability."""

    counts: Literal["process", "tensors"] = "process"
    """What is held against `free_bytes`: all that the process has there, or its tensors alone, as
    `torch.cuda.max_memory_allocated` counts them: no allocator, context or other overhead."""

    @property
    def torch_device(self) -> str:
        """torch's name of the device, for code."""
        return self.kind if self.kind in ("cpu", "mps") else "cuda"

    @property
    def has_bfloat16(self) -> bool:
        """Whether bfloat16 runs natively; taken for granted where nothing is known."""
        if self.bf16 is not None:
            return self.bf16
        if self.gpu is not None:
            return self.gpu.bf16_native
        return self.compute_capability is None or float(self.compute_capability) >= 8.0


def named_place(request: GpuRequest) -> Place:
    """An otherwise empty card of the table that the caller named."""
    gpu = request.gpu
    many = f"{request.count} x " if request.count > 1 else ""
    return Place(
        kind="mps" if gpu.vendor == "apple" else "gpu",
        name=f"{many}{gpu.name}",
        free_bytes=gpu.usable_bytes,
        compute_capability=gpu.compute_capability,
        gpu=gpu,
        count=request.count,
        named=True,
    )


def seen_place(compute: Compute, *, use_gpu: bool = True) -> Place:
    """The usable card with the most free memory, or the machine's CPU and RAM; another machine's bear its name.

    Cards that the torch of the experiment's Python can use go before those it cannot. TPUs and Intel's GPUs are never
    the place: the report says of them that nothing is estimated.
    """
    return seen_places(compute, use_gpu=use_gpu)[0]


def seen_places(compute: Compute, *, use_gpu: bool = True) -> list[Place]:
    """What `seen_place` chooses from, its choice first: of cards that are alike the one with the most free memory.

    Where there is one that torch can use, only such ones.
    """
    host, elsewhere = compute.host, compute.elsewhere()
    cards = sorted(compute.usable(), key=lambda card: not _torch_can_use(card, compute)) if use_gpu else []
    if not cards:
        return [
            Place(
                kind="cpu",
                name=f"{elsewhere}'s CPU (RAM)" if elsewhere else "the CPU (RAM)",
                free_bytes=host.ram_available_bytes,
                host_free_bytes=host.ram_available_bytes,
                cpus=host.cpus,
            )
        ]
    able = _torch_can_use(cards[0], compute)
    first: dict[tuple[str, str | None], Accelerator] = {}
    for card in cards:
        if _torch_can_use(card, compute) == able:
            first.setdefault((card.name, card.compute_capability), card)
    return [_at_card(card, compute) for card in first.values()]


def _at_card(card: Accelerator, compute: Compute) -> Place:
    host, elsewhere = compute.host, compute.elsewhere()
    every = cards_of(compute, card, lambda one: _torch_can_use(one, compute))
    return Place(
        kind="mps" if card.kind == "mps" else "gpu",
        name=f"{elsewhere}'s {card.name}" if elsewhere else card.name,
        free_bytes=card.free_bytes,
        compute_capability=card.compute_capability,
        gpu=_row_of(card, host.ram_total_bytes),
        count=max(1, len(every.free)),
        cards=every,
        index=card.index if card.mig_of is None else None,
        machine=elsewhere,
        bf16=card.supports.bf16 if card.supports else None,
        host_free_bytes=host.ram_available_bytes,
        cpus=host.cpus,
    )


def _torch_can_use(card: Accelerator, compute: Compute) -> bool:
    """False where the build of torch is for another maker's cards, or has no code for this one; nothing is known of a
    build without any."""
    torch = compute.python.torch if compute.python else None
    if torch is None or card.kind not in ("cuda", "rocm"):
        return True
    if torch.cuda_build is not None:
        return card.kind == "cuda" and not has_no_code(torch, card, compute)
    return card.kind == "rocm" or "rocm" not in torch.version


def _row_of(card: Accelerator, ram_bytes: int) -> Gpu | None:
    """The card's row in the table. Apple's chips have one for each size of the RAM: the nearest is theirs."""
    rows = [gpu for gpu in all_gpus() if gpu.id == card.gpu_id]
    if card.kind == "mps" and card.gpu_id:
        named = [gpu for gpu in all_gpus() if gpu.id.startswith(f"{card.gpu_id}-")]
        sized = [gpu for gpu in named if gpu.id == f"{card.gpu_id}-{gpu.sold_as_gb:g}gb"]
        rows = sorted(sized, key=lambda gpu: abs(gpu.sold_as_gb * GIB - ram_bytes))
    return rows[0] if rows else None


UNKNOWN = Place(kind="unknown", name="the machine it will run on", free_bytes=None)


def needed(estimate: Estimate, place: Place) -> tuple[int, int, int]:
    """(expected, low, high) bytes of the device's memory that the run takes there, loading its weights included.

    Where a card has less than the high end, but the run gets by with it (`memory.card.room`), the high end is what the
    card has.
    """
    expected, low, high = takes(estimate, place)
    limit = place.free_bytes
    if limit is None and place.gpu is not None:
        limit = place.gpu.usable_bytes
    if place.kind == "gpu" and limit is not None and low <= limit < high and _gets_by(estimate, place, limit):
        return min(expected, limit), low, limit
    return expected, low, high


def loads_most(estimate: Estimate, place: Place) -> bool:
    """Whether the worst moment there is while the weights are loaded, not the run itself."""
    if place.kind == "cpu":
        run = device.cpu_process_bytes(estimate.peak.tensors) + estimate.host_bytes
        return device.cpu_process_bytes(estimate.loading_host_bytes) > run
    return place.kind != "mps" and estimate.loading_device_bytes > estimate.peak.tensors


def _gets_by(estimate: Estimate, place: Place, limit: int) -> bool:
    tensors, capability = estimate.peak.tensors, place.compute_capability
    if place.counts == "tensors" or estimate.loading_device_bytes > tensors:
        return False
    terms = device.own_overheads(tensors, 0, capability, estimate.overheads)
    room, most = device.left_for_allocator(limit, tensors, terms)
    return estimate.runs_in(room, device.cublas_workspace(capability), most)


def takes(estimate: Estimate, place: Place) -> tuple[int, int, int]:
    """As `needed`, where there is room for all that torch reserves."""
    tensors, late = estimate.peak.tensors, estimate.late_bytes
    if estimate.precision == "rough":
        late += int(ROUGH_MARGIN * tensors)
    if place.counts == "tensors":
        expected = max(tensors, estimate.loading_device_bytes)
        return expected, expected, max(expected, tensors + late)
    if place.kind == "mps":
        expected = device.mps_process_bytes(tensors) + estimate.host_bytes
        low, high = device.mps_process_range(tensors)[0], device.mps_process_range(tensors + late)[1]
        return expected, low + estimate.host_bytes, high + estimate.host_bytes
    if place.kind == "cpu":
        expected = device.cpu_process_bytes(tensors) + estimate.host_bytes
        low = device.cpu_process_range(tensors)[0] + estimate.host_bytes
        high = device.cpu_process_range(tensors + late)[1] + estimate.host_bytes
        loading = device.cpu_process_bytes(estimate.loading_host_bytes)
        return max(expected, loading), low, max(high, loading)
    run = device.on_card(tensors, late, place.compute_capability, estimate.overheads)
    if estimate.loading_device_bytes <= tensors:
        return run
    load = device.on_card(estimate.loading_device_bytes, 0, place.compute_capability)
    return max(run[0], load[0]), max(run[1], load[1]), max(run[2], load[2])

"""Where the run would happen, and whether it fits there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..hardware.compute import Accelerator, Compute
from ..memory.card import device
from ..memory.estimate import ROUGH_MARGIN, Estimate
from ..units import GIB, gib
from .answers import Verdict
from .gpus import UNEVEN_SPLIT, Gpu, GpuRequest, all_gpus
from .several import splits, why_not
from .verdict import judge


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
    """Cards of this kind that the run may be spread over."""
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
    host, elsewhere = compute.host, compute.elsewhere()
    cards = sorted(compute.usable(), key=lambda card: not _torch_can_use(card, compute))
    for card in cards if use_gpu else []:
        return Place(
            kind="mps" if card.kind == "mps" else "gpu",
            name=f"{elsewhere}'s {card.name}" if elsewhere else card.name,
            free_bytes=card.free_bytes,
            compute_capability=card.compute_capability,
            gpu=_row_of(card, host.ram_total_bytes),
            bf16=card.supports.bf16 if card.supports else None,
            host_free_bytes=host.ram_available_bytes,
            cpus=host.cpus,
        )
    return Place(
        kind="cpu",
        name=f"{elsewhere}'s CPU (RAM)" if elsewhere else "the CPU (RAM)",
        free_bytes=host.ram_available_bytes,
        host_free_bytes=host.ram_available_bytes,
        cpus=host.cpus,
    )


def _torch_can_use(card: Accelerator, compute: Compute) -> bool:
    """False where the build of torch is for another maker's cards; nothing is known of a build without any."""
    torch = compute.python.torch if compute.python else None
    if torch is None or card.kind not in ("cuda", "rocm"):
        return True
    if torch.cuda_build is not None:
        return card.kind == "cuda"
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
    """(expected, low, high) bytes of the device's memory that the run takes there, loading its weights included."""
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


def verdict_at(estimate: Estimate, place: Place) -> Verdict:
    """Whether the estimate fits the place. Green only where loading the weights fits the RAM as well."""
    expected, low, high = needed(estimate, place)
    filled, cards = estimate.workload, estimate.workload.get("n_devices", 1)
    if place.count > 1 and cards > place.count:
        return Verdict(
            status="does_not_fit", device=place.name, free_bytes=place.free_bytes, needed_bytes=expected,
            headroom_bytes=None if place.free_bytes is None else place.free_bytes - expected,
            why=f"It is to run on {cards} cards (n_devices), and {place.name} are {place.count}.",
        )  # fmt: skip
    several = place.count > 1 and cards == 1 and place.free_bytes is not None and high > place.free_bytes
    if several and splits(filled) == "rough":
        return _over_several(expected, low, high, place)
    verdict = judge(expected, low, high, place.free_bytes, f"one of {place.name}" if place.count > 1 else place.name)
    verdict.device = place.name
    if several:
        verdict.why += (
            f" As given it uses one card; n_devices {place.count} (device_map='auto') splits the layers over them."
            if splits(filled) == "estimated"
            else f" {why_not(filled)}"
        )
    if place.kind == "gpu" and estimate.loading_device_bytes > estimate.peak.tensors:
        verdict.why += " Its worst moment is while the weights are loaded, not the run itself."
    if verdict.status == "fits" and place.kind != "cpu" and place.host_free_bytes is not None:
        beside = estimate.host_bytes
        if filled.get("offload") == "cpu" or filled.get("max_memory"):  # what was loaded is what waits there
            beside = max(0, beside - estimate.loading_host_bytes)
        ram = device.cpu_process_bytes(estimate.loading_host_bytes + beside)
        if ram > place.host_free_bytes:
            verdict.status = "tight"
            verdict.why += (
                f" But loading takes about {gib(ram)} of RAM at its worst moment (rough) and "
                f"{gib(place.host_free_bytes)} is free: it may die while loading."
            )
    return verdict


def _over_several(expected: int, low: int, high: int, place: Place) -> Verdict:
    """Several cards: never green, since no estimate is made of how the layers fall on them."""
    assert place.free_bytes is not None
    share = int(expected / place.count * UNEVEN_SPLIT)
    free = place.free_bytes
    if share <= free:
        status, why = (
            "tight",
            (
                f"It needs {gib(expected)}, more than one card's {gib(free)}; split by layers over {place.count} cards "
                f"the fullest holds roughly {gib(share)}. No estimate is made of the split."
            ),
        )
    else:
        status, why = (
            "does_not_fit",
            (
                f"It needs {gib(expected)}: even split over {place.count} cards the fullest would hold roughly "
                f"{gib(share)} of {gib(free)}."
            ),
        )
    return Verdict(
        status=status, device=place.name, free_bytes=free * place.count, needed_bytes=expected,
        headroom_bytes=free * place.count - expected, why=why,
    )  # fmt: skip

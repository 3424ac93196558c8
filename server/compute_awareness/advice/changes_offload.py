"""The weights of a transformers model in RAM or on disk: as many as must, or all of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, Literal

from ..errors import InputError
from ..memory.card import device
from ..memory.estimate import Estimate
from ..memory.huggingface.placement import room_for, room_in_ram
from ..models.resolve import resolve
from ..runtime.duration import CROSSING_GB_S
from ..units import gib, span
from ..workload import DTYPE_BYTES, ActivationCache, Inference
from ..workload.max_memory import size_between
from .answers import Change
from .attempt import Attempt

_WAIT = {"cpu": "RAM", "disk": "their files on disk"}
_LONGER = {"cpu": 10.0, "disk": 40.0}
"""Times as long with few tokens in a pass; the more tokens, the less (the cost says what a pass takes). Not the ratio
of this batch: with a smaller one, which may come with it, the weights cross as many times more."""


def offload_weights(attempt: Attempt, workload: Inference) -> Change:
    """As many layers on the card as fit; where that is not enough, or the card is not known, none of the weights."""
    if workload.library != "transformers":
        return attempt.no(
            "offloading", "HookedTransformer keeps all its weights on the device; transformers can offload"
        )
    part = partly(attempt, workload)
    return part if part.fits else offload(attempt, workload, "cpu")


def further_offloads(attempt: Attempt, workload: ActivationCache | Inference) -> Iterator[Change]:
    """What is not among the usual changes: a part of the weights for a cache, all of them to RAM, and to disk where the
    RAM does not hold them."""
    if attempt.place.kind not in ("gpu", "unknown") or workload.offload or workload.max_memory:
        return
    in_ram = offload(attempt, workload, "cpu")
    if not isinstance(workload, Inference) or workload.output_hidden_states:
        yield partly(attempt, workload)
        yield in_ram
    elif partly(attempt, workload).fits:  # which is the usual change then
        yield in_ram
    ram = attempt.place.host_free_bytes
    if in_ram.applies and in_ram.fits is False and ram is not None and in_ram.host_bytes > ram:
        yield offload(attempt, workload, "disk")


def partly(attempt: Attempt, workload: Inference | ActivationCache) -> Change:
    """As many layers on the card as fit, the rest beside it (`max_memory`): half of them where the place is not known
    or all fit already."""
    if (why := _cannot(attempt, workload)) is not None:
        return attempt.no("offloading", why)
    spec, width = resolve(workload.model), DTYPE_BYTES[workload.dtype]
    try:
        rooms = {count: room_for(spec, width, count) for count in range(spec.n_layers)}
    except InputError as error:
        return attempt.no("offloading", f"a part of the weights to RAM: {error}")
    counts = [count for count, (least, too_much) in rooms.items() if least < too_much]

    def limits(count: int) -> dict[str, Any]:
        need = room_in_ram(spec, width, count)
        given: dict[str, Any] = {"0": size_between(*rooms[count])}
        ram = attempt.place.host_free_bytes
        if ram is None or device.cpu_process_bytes(need + attempt.before.host_bytes) <= ram:
            given["cpu"] = size_between(need, 4 * need)
        return {"max_memory": given}

    most = len(counts) // 2
    if attempt.place.free_bytes is not None and not attempt.fits(attempt.before):
        most = bisect_left(counts, True, key=lambda count: not attempt.fits_with(limits(count))) - 1
        if most < 0:
            return attempt.no("offloading", "even with none of its layers on the card it does not fit")
    count = counts[most]
    try:
        cost, share = _cost(attempt, after := attempt.patched(limits(count)))
    except InputError as error:
        return attempt.no("offloading", f"a part of the weights to RAM: {error}")
    where = after.work[0].crossing_from
    title = f"{count} of {spec.n_layers} layers on the card, the other weights in {_WAIT[where]} (max_memory)"
    return attempt.change(
        "offloading", title, limits(count), "equivalent",
        detail="same weights, same arithmetic",
        cost=cost,
        slowdown=1 + (_LONGER[where] - 1) * share,
    )  # fmt: skip


def offload(attempt: Attempt, workload: Inference | ActivationCache, where: Literal["cpu", "disk"]) -> Change:
    """All the weights of a transformers model in RAM or on disk, on the card module by module."""
    if (why := _cannot(attempt, workload)) is not None:
        return attempt.no("offloading", why)
    patch = {"offload": where}
    try:
        cost, _ = _cost(attempt, attempt.patched(patch))
    except InputError as error:
        return attempt.no("offloading", f"weights to {_WAIT[where]}: {error}")
    return attempt.change(
        "offloading", f"weights in {_WAIT[where]}, one module's at a time on the card (accelerate)", patch,
        "equivalent",
        detail="same weights, same arithmetic",
        cost=cost,
        slowdown=_LONGER[where],
    )  # fmt: skip


def _cannot(attempt: Attempt, workload: Inference | ActivationCache) -> str | None:
    """Why no weights can be moved from here."""
    if attempt.place.kind in ("cpu", "mps"):
        return "there is no separate memory to move the weights to"
    if workload.offload is not None:
        return f"the weights are offloaded already ({workload.offload})"
    if workload.max_memory is not None:
        return "the weights are divided already (max_memory)"
    return None


def _cost(attempt: Attempt, after: Estimate) -> tuple[str, float]:
    """What crosses the bus in words, and its share of all the weights."""
    crossing = sum(part.times * part.crossing_bytes for part in after.work)
    low = sum(part.times * part.crossing_bytes / CROSSING_GB_S[part.crossing_from][1] / 1e9 for part in after.work)
    high = sum(part.times * part.crossing_bytes / CROSSING_GB_S[part.crossing_from][0] / 1e9 for part in after.work)
    slow, fast = CROSSING_GB_S[after.work[0].crossing_from]
    weights = sum(c.bytes for c in attempt.before.components if c.name == "weights" and c.where == "device")
    words = (
        f"{gib(crossing)} of weights cross to the card in every pass, at {fast:g} to {slow:g} GB/s (assumed) "
        f"{span(low, high)}"
    )
    return words, min(1.0, crossing / weights) if weights else 1.0

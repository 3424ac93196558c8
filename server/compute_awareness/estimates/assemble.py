"""Puts an estimate together: components, the three peaks, the range."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, get_args

from ..memory import weights
from ..memory.card import device
from ..memory.card.playback import reserved as reserved_by
from ..memory.card.room import Requests
from ..memory.estimate import Component, ComponentName, Estimate, HookFamily, Peak, Precision, Range, WorkPart
from ..memory.loading import Loading
from ..memory.tape import Tape
from ..models.catalogue import find
from ..models.spec import ModelSpec
from ..workload import DTYPE_BYTES


def assemble(
    filled: dict[str, Any],
    at_peak: Counter[str],
    largest: Counter[str],
    details: dict[str, str],
    capability: str | None,
    *,
    precision: Precision,
    verified_on: str,
    hooks: list[HookFamily] | None = None,
    host_bytes: int = 0,
    loading: Loading | None = None,
    download_bytes: int | None = None,
    work: Sequence[WorkPart] = (),
    assumptions: list[str],
    warnings: list[str],
    extra: list[Component] | None = None,
    late_bytes: int = 0,
    events: Tape | None = None,
    standing: Sequence[int] = (),
    made_later: Sequence[int] = (),
    n_gpus: int = 1,
    reserved: int | None = None,
    backward: bool = False,
    buffers: int = 0,
    order: str = "unknown",
    unsure: int = 0,
    listed: int | None = None,
    second_workspace: Literal["segment", "before", "on the tape"] = "segment",
) -> Estimate:
    """An Estimate from bytes by component.

    Args:
        filled: the workload with every default filled in.
        at_peak: bytes alive at the worst moment; their sum is peak.tensors.
        largest: each component at its own largest.
        details: a word on each component.
        capability: compute capability of the card, for the context; None = a typical card.
        loading: the worst moment of loading the weights.
        extra: components in host memory.
        late_bytes: bytes that may come on top late in the run, in tensors or segments; they widen the range.
        work: what the run does (`runtime`).
        events: the tape whose order of allocations the caching allocator is simulated with; None = a rule of thumb.
        standing: with `events`, bytes of each tensor that is on the card before the tape begins and stays
            (`memory.parameters`). What they and the tape fall short of `at_peak` counts as one tensor more; where they
            are more than that, the rule of thumb remains.
        made_later: with `events`, bytes of each tensor that the tape leaves behind and that stays when it is played
            again, as the first step of a training makes the optimizer's state.
        n_gpus: cards that torch.distributed spans.
        reserved: what the simulated allocator took, workspaces among it, where the caller has played it.
        backward: a backward pass is run.
        buffers: bytes that CUDA's kernels take at the peak.
        order: without a sequence of allocations, what is known of it (see `device.overheads`).
        unsure: bytes that `reserved` may be low by (see `device.overheads`).
        listed: bytes that `events` has at its peak without what CUDA's kernels take; None = it has nothing of theirs.
        second_workspace: where cuBLAS's workspace of the backward pass's thread comes from. "before": an earlier step
            took both, they stand beside the tape; "on the tape": it is among the events; "segment": it is not, and is
            taken to open a segment of its own.
    """
    components = [
        Component(
            name=name, bytes=largest[name], at_peak=at_peak[name] > 0, bytes_at_peak=at_peak[name],
            detail=details.get(name, ""),
        )
        for name in get_args(ComponentName)
        if largest[name] or at_peak[name]
    ]  # fmt: skip
    tensors = sum(at_peak.values())
    requests = None
    if reserved is None and events is not None:
        unlisted = tensors - sum(standing) - sum(made_later) - (events.peak if listed is None else listed)
        if unlisted >= 0:
            second = second_workspace if backward else "on the tape"
            reserved = _played(events, standing, unlisted, capability, second, made_later)
            requests = None if backward else Requests(tensors, standing, unlisted, events)
    terms = device.overheads(
        tensors,
        capability,
        reserved,
        late_bytes,
        n_gpus,
        backward=backward,
        buffers=buffers,
        order=order,
        unsure=unsure,
    )
    low, high = device.spread(tensors, terms, late_bytes)
    from_allocator = ("allocator_rounding", "cublas_workspace", "backward_workspace", "kernel_buffers")
    allocator = sum(term.bytes for term in terms if term.name in from_allocator)
    made = Estimate(
        workload=filled,
        components=components + (extra or []),
        peak=Peak(
            tensors=tensors,
            reserved=tensors + allocator,
            device=tensors + sum(term.bytes for term in terms),
        ),
        range=Range(low=low, high=high),
        overheads=terms,
        precision=precision,
        verified_on=verified_on,
        hooks=hooks or [],
        late_bytes=late_bytes,
        host_bytes=host_bytes,
        loading_host_bytes=loading.host_bytes if loading else 0,
        loading_device_bytes=loading.device_bytes if loading else 0,
        download_bytes=download_bytes,
        work=list(work),
        flops=sum(part.times * part.flops for part in work),
        moved_bytes=sum(part.times * part.moved_bytes for part in work),
        assumptions=assumptions,
        warnings=warnings,
    )
    if requests is not None:
        made.asks_for(requests)
    return made


def _played(
    events: Tape,
    standing: Sequence[int],
    unlisted: int,
    capability: str | None,
    second: str,
    made_later: Sequence[int],
) -> int:
    """What the simulated allocator takes, with cuBLAS's workspaces; see `assemble`."""
    workspace = device.cublas_workspace(capability)
    if second == "before":
        return reserved_by(events, (workspace, workspace, *standing), 0, unlisted, made_later)
    alone = device.workspace_segment(capability) if second == "segment" else 0
    return reserved_by(events, standing, workspace, unlisted, made_later) + alone


def largest_and_peak(tape: Tape, standing: dict[str, int]) -> tuple[Counter[str], Counter[str]]:
    """(bytes alive at the peak, each component at its largest) of a played tape beside what stands all the while.

    A component's largest is where it stood at the end or at the peak, whichever is more; temporaries count at the
    peak only.
    """
    at_peak, largest = Counter(standing), Counter(standing)
    highest, left = tape.at_peak, tape.by_component
    at_peak.update(highest)
    largest.update({name: max(nbytes, highest[name]) for name, nbytes in left.items()})
    largest["temporaries"] = highest["temporaries"]
    return at_peak, largest


def millions(count: int) -> str:
    """A parameter count for a person: `163.0 M`, `2.77 B`."""
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"


def download_bytes(spec: ModelSpec) -> int | None:
    """Bytes of the published weights: by their files' headers, else in their published dtype; None if not known."""
    if spec.checkpoint is not None:
        return spec.checkpoint.stored_bytes
    if spec.checkpoint_dtype is None or not spec.has_hf_model:
        return None
    return weights.hf_params(spec) * DTYPE_BYTES[spec.checkpoint_dtype]


def repeatable(given: str | dict[str, Any] | None, spec: ModelSpec | None) -> str | dict[str, Any] | None:
    """How the answer names the model, so that its workload can be run again: the catalogue's name where it has one."""
    known = spec is not None and find(spec.name) is spec
    return spec.name if spec is not None and known else given

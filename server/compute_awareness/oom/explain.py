"""Why memory ran out, and what cures it."""

from __future__ import annotations

import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..advice.answers import Change, NextStep
from ..advice.gpus import find_gpu
from ..advice.place import Place, needed
from ..advice.strategies import best, changes
from ..advice.verdict import verdict_at
from ..asking.known import card_by_name
from ..asking.profile_file import read_profile
from ..estimator import estimate
from ..memory.estimate import Estimate
from ..models.hf_config import Uncovered
from ..models.resolve import resolve
from ..units import GIB, MIB, gib
from ..workload import DTYPE_BYTES, AnyWorkload, SaeTraining
from .message import OomMessage, read_message
from .tensors import Candidate, matches, model_tensors, sae_tensors

_CHANGES = 3


class TensorMatch(BaseModel):
    """A tensor of the workload that has the size of the failed request."""

    model_config = ConfigDict(extra="forbid")
    tensor: str = Field(description="What it is")
    shape: str = Field(description="Its dimensions by name, and its dtype")
    product: str = Field(description="The size as a product")
    bytes: int
    instead: dict[str, int] = Field(
        default_factory=dict, description="Sizes that differ from the workload given; empty where it matches as given"
    )


class Finding(BaseModel):
    """One cause, with what to do about it."""

    model_config = ConfigDict(extra="forbid")
    cause: str
    cure: str = ""


class OomReport(BaseModel):
    """What an out-of-memory message says, why it happened, and what cures it."""

    model_config = ConfigDict(extra="forbid")
    message: OomMessage
    findings: list[Finding] = Field(description="Most likely cause first")
    matches: list[TensorMatch] = Field(default_factory=list)
    workload: dict[str, Any] | None = None
    expected_bytes: int | None = Field(default=None, description="peak.tensors of the workload, by our estimate")
    available_bytes: int | None = Field(default=None, description="What the run could have had on that device")
    changes: list[Change] = Field(default_factory=list, description="Changes to the workload, re-estimated")
    next_steps: list[NextStep] = Field(default_factory=list, description="Calls that may follow, from the MCP server")
    summary: str


def explain_oom(text: str, workload: AnyWorkload | None = None, *, gpu: str | None = None) -> OomReport:
    """Explain an out-of-memory message or traceback.

    Args:
        text: the message, with the traceback and the lines around it if at hand.
        workload: what was run; without it no tensor can be matched and no change be estimated.
        gpu: the card it ran on, as in `preflight`: CUDA context and workspaces are then that card's, and the figures
            are those of the preflight. A message does not name it; None = a typical card's.
    Raises:
        InputError: the text holds no out-of-memory message, the workload is not one, or the card is not known.
    """
    message = read_message(text)
    available = _available(message)
    place = _place(message, available, gpu)
    expected = estimate(workload, place.compute_capability) if workload is not None else None
    found = _matches(message, workload, expected)
    findings = _findings(message, available, expected, place)
    cures: list[Change] = []
    # A trace takes seconds, and a change is tried many times.
    if workload is not None and expected is not None and expected.method == "closed_form" and _covered(workload):
        cures = _cures(workload, expected, place)
    return OomReport(
        message=message,
        findings=findings,
        matches=found,
        workload=expected.workload if expected else None,
        expected_bytes=expected.peak.tensors if expected else None,
        available_bytes=available,
        changes=cures,
        summary=_summary(message, findings, found, cures),
    )


def _place(message: OomMessage, available: int | None, gpu: str | None) -> Place:
    """The device that ran out, with what the process could have had there. Raises InputError for an unknown card."""
    kind: Literal["gpu", "mps", "cpu"] = message.backend if message.backend in ("mps", "cpu") else "gpu"
    named, _ = card_by_name(gpu, read_profile(), datetime.date.today())
    if kind == "cpu" or named is None or named.strip().lower() in ("none", "unknown"):
        return Place(kind, "the device of the message", available)
    card = find_gpu(named).gpu
    return Place(kind, card.name, available, card.compute_capability, card)


def _covered(workload: AnyWorkload) -> bool:
    """Whether the model is one that changes can be estimated for."""
    try:
        return workload.model is None or resolve(workload.model) is not None
    except Uncovered:
        return False


def _available(message: OomMessage) -> int | None:
    """Bytes that this process could have had: what it held and what was free, or its cap."""
    if message.backend == "mps":
        return None if message.allowed_bytes is None else message.allowed_bytes - (message.other_bytes or 0)
    if message.capacity_bytes is None:
        return None
    others = sum(process.used_bytes for process in message.processes)
    held = message.process_bytes
    if held is None and message.allocated_bytes is not None:
        held = message.allocated_bytes + (message.cached_bytes or 0)
    if held is not None and message.free_bytes is not None:
        room = held + message.free_bytes
    else:
        room = message.capacity_bytes - others
    if message.allowed_bytes is not None:
        room = min(room, message.allowed_bytes + (message.other_bytes or 0))
    return min(room, message.capacity_bytes)


def _matches(message: OomMessage, workload: AnyWorkload | None, expected: Estimate | None) -> list[TensorMatch]:
    if message.requested_bytes is None or workload is None or expected is None:
        return []
    found = matches(
        message.requested_bytes, message.requested_step, message.backend, list(_tensors(workload, expected)),
        solve=("batch", "seq", "tokens"),
    )  # fmt: skip
    return [
        TensorMatch(
            tensor=match.tensor.what, shape=match.tensor.shown(), product=match.tensor.product(),
            bytes=match.tensor.bytes, instead=match.instead,
        )
        for match in found
    ]  # fmt: skip


def _tensors(workload: AnyWorkload, expected: Estimate) -> list[Candidate]:
    filled = expected.workload
    found: list[Candidate] = []
    if isinstance(workload, SaeTraining):
        buffer = workload.n_batches_in_buffer * workload.context_size if workload.model is not None else None
        found += sae_tensors(filled["d_in"], filled["d_sae"], workload.train_batch_size_tokens, buffer)
        batch, seq, dtype = workload.store_batch_size_prompts, workload.context_size, workload.model_dtype
    else:
        batch, seq = filled.get("batch_size", 1), filled.get("seq_len", 1)
        dtype = filled.get("dtype", "float32")
        if filled.get("d_sae"):
            found += sae_tensors(filled["d_in"], filled["d_sae"], batch * seq, None, DTYPE_BYTES[dtype])
    if workload.model is not None:
        try:
            spec = resolve(workload.model)
        except Uncovered:  # traced: its tensors have no names here
            return found
        found += model_tensors(spec, batch, seq, DTYPE_BYTES[dtype], workload.library)
    return found


def _findings(message: OomMessage, available: int | None, expected: Estimate | None, place: Place) -> list[Finding]:
    found: list[Finding] = []
    requested = message.requested_bytes or 0
    others = sum(process.used_bytes for process in message.processes)
    if message.capacity_bytes is not None and requested > message.capacity_bytes:
        found.append(
            Finding(
                cause=f"One tensor of {gib(requested)} was asked for, more than the whole card "
                f"({gib(message.capacity_bytes)}): freeing memory cannot help, the tensor must become smaller.",
                cure="smaller batch_size or seq_len, or an operation that does not build this tensor",
            )
        )
    if others and message.capacity_bytes and others > message.capacity_bytes // 10:
        pids = ", ".join(str(process.pid) for process in message.processes[:4])
        found.append(
            Finding(
                cause=f"Other processes hold {gib(others)} of the card (pid {pids}); in a container one of them may "
                "be this one.",
                cure="look with nvidia-smi; end what is stale (a notebook kernel, a dead run), or choose another card "
                "with CUDA_VISIBLE_DEVICES",
            )
        )
    elif (outside := _outside(message)) is not None:
        found.append(
            Finding(
                cause=f"{gib(outside)} of the card is held outside this process: by other runs, most likely.",
                cure="look with nvidia-smi; end what is stale (a notebook kernel, a dead run), or choose another card "
                "with CUDA_VISIBLE_DEVICES",
            )
        )
    cached = message.cached_bytes or 0
    if cached and requested and cached >= requested and message.backend in ("cuda", "hip"):
        found.append(
            Finding(
                cause=f"{gib(cached)} is reserved by torch, in pieces too small for {gib(requested)}: fragmentation.",
                cure="PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True (PYTORCH_ALLOC_CONF from torch 2.9), set before "
                "torch is imported; equal sequence lengths per batch fragment less",
            )
        )
    if message.allowed_bytes is not None and message.backend != "mps":
        free = message.free_bytes or 0
        if free > requested:
            found.append(
                Finding(
                    cause=f"The process is capped at {gib(message.allowed_bytes)}; {gib(free)} of the card is free.",
                    cure="raise or remove torch.cuda.set_per_process_memory_fraction",
                )
            )
    if message.backend == "mps" and requested and message.allowed_bytes is None:
        found.append(
            Finding(
                cause=f"One tensor of {gib(requested)} was asked for, more than Metal gives in one buffer: freeing "
                "memory cannot help, the tensor must become smaller.",
                cure="smaller batch_size or seq_len, or an operation that does not build this tensor",
            )
        )
    elif message.backend == "mps":
        found.append(
            Finding(
                cause="Metal allows a process about two thirds to three quarters of the unified memory.",
                cure="close other programs; PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 lifts the cap; the system may freeze",
            )
        )
    if message.backend == "cpu":
        loading = f"about {gib(expected.loading_host_bytes)}" if expected is not None else "several times the weights"
        found.append(
            Finding(
                cause="RAM ran out, not GPU memory." if requested else "The process was killed or refused.",
                cure=f"loading needs {loading} in RAM (estimate_memory: loading_host_bytes); keep fewer activations on "
                "the CPU",
            )
        )
    if message.phase != "unknown":
        found.append(Finding(cause=f"It happened in this phase of the run: {message.phase.replace('_', ' ')}."))
    if expected is not None and available is not None:
        peak = needed(expected, place)[0]
        where = f"on {place.name}"
        if place.kind == "gpu" and place.gpu is None:
            where = "on the card, with a typical CUDA context (give gpu for its own),"
        if peak > available:
            found.insert(
                0,
                Finding(
                    cause=f"The workload needs about {gib(peak)} {where} and could have had {gib(available)}.",
                    cure="the changes listed, or a larger card",
                ),
            )
        elif message.allocated_bytes is not None and message.allocated_bytes > expected.peak.tensors + 256 * MIB:
            found.append(
                Finding(
                    cause=f"{gib(message.allocated_bytes)} of tensors were alive, more than the "
                    f"{gib(expected.peak.tensors)} that this workload holds at its peak: something else is kept "
                    "(results of earlier batches, a second model, gradients without torch.no_grad, other sizes).",
                    cure="del what earlier iterations returned, or correct the workload",
                )
            )
    if not found:
        small = requested <= 20 * MIB and message.backend in ("cuda", "hip", "xpu")
        cause = (
            "The card was full; the request that failed was small and is only the last straw."
            if small and requested
            else "The device was full."
        )
        found.append(
            Finding(cause=cause, cure="give the workload as well, and the changes that make it fit are computed")
        )
    return found


def _outside(message: OomMessage) -> int | None:
    """Bytes of the card that neither torch in this process nor free memory accounts for, where that is much."""
    if message.capacity_bytes is None or message.free_bytes is None or message.allocated_bytes is None:
        return None
    held = message.process_bytes or message.allocated_bytes + (message.cached_bytes or 0)
    outside = message.capacity_bytes - held - message.free_bytes
    return outside if outside > max(2 * GIB, message.capacity_bytes // 10) else None


def _cures(workload: AnyWorkload, expected: Estimate, place: Place) -> list[Change]:
    if place.free_bytes is not None and verdict_at(expected, place).status == "fits":
        return []  # what is given would have fitted: the cure is elsewhere
    candidates = best(changes(workload, expected, place), _CHANGES + 2)
    if place.free_bytes is not None and needed(expected, place)[0] > place.free_bytes:
        fitting = [change for change in candidates if change.fits]
        candidates = fitting or candidates
    return candidates[:_CHANGES]


def _summary(message: OomMessage, findings: list[Finding], found: list[TensorMatch], cures: list[Change]) -> str:
    where = {"mps": "Metal (MPS) ran out of memory", "cpu": "RAM ran out"}.get(
        message.backend, "The GPU ran out of memory"
    )
    text = where
    if message.requested_bytes:
        text += f" on a request of {gib(message.requested_bytes)}"
    if message.user_frame:
        text += (
            f" at line {message.user_frame.line} of {message.user_frame.file.replace(chr(92), '/').rsplit('/', 1)[-1]}"
        )
    if found:
        text += f", the size of {found[0].tensor} ({found[0].product})"
        if found[0].instead:
            text += " if " + ", ".join(f"{name} is {value}" for name, value in found[0].instead.items())
    text += f". {findings[0].cause}"
    fitting = [change for change in cures if change.fits]
    if fitting:
        text += f" What makes it fit: {fitting[0].title}."
    elif findings[0].cure:
        text += f" Cure: {findings[0].cure}."
    return text

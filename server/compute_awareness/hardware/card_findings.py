"""What is wrong with the accelerators of a machine, or worth knowing of them: modes, other processes, other makers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from ..units import GIB, gib
from .compute import Accelerator, Compute, GpuProcess
from .finding import Finding

_WORTH_TELLING_BYTES = GIB


def card_findings(compute: Compute) -> list[Finding]:
    """Findings of the cards that the experiment could use, those of equal cards put together."""
    cards = [card for card in compute.accelerators if card.visible]
    usable = [card for card in cards if card.problem is None]
    return [
        *_modes(usable),
        *_processes(cards),
        *_asleep(usable),
        *_hidden_amd(compute),
    ]


def label(card: Accelerator) -> str:
    return f"{card.name} (card {card.index})"


def _labels(cards: Sequence[Accelerator]) -> str:
    if len(cards) == 1:
        return label(cards[0])
    numbers = ", ".join(str(card.index) for card in cards)
    return f"{cards[0].name} (cards {numbers})"


def _alike(cards: Iterable[Accelerator]) -> list[list[Accelerator]]:
    ranked = sorted(cards, key=lambda card: card.name)
    return [list(same) for _, same in groupby(ranked, key=lambda card: card.name)]


def _modes(cards: Sequence[Accelerator]) -> list[Finding]:
    findings = []
    for same in _alike(card for card in cards if card.ecc_lost_bytes):
        lost = same[0].ecc_lost_bytes or 0
        each = " of each" if len(same) > 1 else ""
        findings.append(Finding(
            id="ecc_memory", severity="info",
            message=f"{_labels(same)}: error correction (ECC) takes {gib(lost)}{each}",
            cure="On a machine of your own, nvidia-smi -e 0 and a restart give it back, without the protection.",
        ))  # fmt: skip
    alone = [card for card in cards if card.compute_mode == "exclusive_process" and not card.mps]
    findings += [
        Finding(
            id="exclusive_card",
            severity="info",
            message=f"{_labels(same)} lets one process in at a time (compute mode Exclusive_Process)",
            cure="Stop other programs on it first, notebook kernels too; a second one fails as if the card were busy.",
        )
        for same in _alike(alone)
    ]
    for same in _alike(card for card in cards if card.mps):
        text = f"{_labels(same)} is shared through the MPS daemon: all its clients take from the same memory"
        findings.append(Finding(id="mps", severity="info", message=text))
    return findings


def _processes(cards: Sequence[Accelerator]) -> list[Finding]:
    findings = []
    for card in cards:
        large = [p for p in card.processes if (p.used_bytes or 0) >= _WORTH_TELLING_BYTES]
        others = [p for p in large if p.own is False]
        if others:
            free = card.free_without_others_bytes
            would = f"; without other users' processes {gib(free)} would be free" if free is not None else ""
            findings.append(Finding(
                id="card_shared", severity="warning",
                message=f"{label(card)} is in use by others: {_listed(others)}{would}",
                cure="Take another card, wait, or ask them.",
            ))  # fmt: skip
        own = [p for p in large if p.own]
        if own:
            findings.append(Finding(
                id="own_process", severity="warning",
                message=f"{label(card)} is in use by processes of your own: {_listed(own)}",
                cure=f"If one is left over from an earlier run, end it: kill {own[0].pid}",
            ))  # fmt: skip
        if not card.processes_told and not card.unified and (card.used_bytes or 0) >= _WORTH_TELLING_BYTES:
            text = f"{label(card)}: {gib(card.used_bytes or 0)} is in use, and the driver does not tell here by which"
            findings.append(Finding(id="processes_not_told", severity="info", message=f"{text} programs"))
    return findings


def _listed(processes: Sequence[GpuProcess]) -> str:
    shown = []
    for process in processes[:3]:
        who = ", ".join(part for part in (process.name, None if process.own else process.user) if part)
        shown.append(f"process {process.pid}{f' ({who})' if who else ''} holds {gib(process.used_bytes or 0)}")
    more = f" and {len(processes) - 3} more" if len(processes) > 3 else ""
    return ", ".join(shown) + more


def _asleep(cards: Sequence[Accelerator]) -> list[Finding]:
    sleeping = [card for card in cards if card.persistence is False and card.mig_of is None]
    if len(sleeping) < 2:
        return []
    return [Finding(
        id="persistence_off", severity="info",
        message=(
            f"persistence mode is off on {len(sleeping)} cards: the driver wakes them anew for each program, "
            "which takes seconds"
        ),
        cure="An administrator turns it on: nvidia-smi -pm 1, or the nvidia-persistenced service.",
    )]  # fmt: skip


def _hidden_amd(compute: Compute) -> list[Finding]:
    amd = [card for card in compute.accelerators if card.kind == "rocm"]
    names = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
    told = [f"{name}={compute.settings[name] or '(empty)'}" for name in names if name in compute.settings]
    if not amd or not told or any(card.visible for card in amd):
        return []
    return [Finding(
        id="hidden_amd_gpus", severity="error",
        message=f"{' with '.join(told)} hides all {len(amd)} AMD card{'s' * (len(amd) > 1)}",
        cure="Unset it, or set HIP_VISIBLE_DEVICES alone to the card to use, e.g. 0.",
    )]  # fmt: skip

"""What is wrong with a machine as a place for experiments, and what mends it."""

from __future__ import annotations

from ..units import gib
from .card_findings import card_findings, label
from .compute import Compute
from .diagnose_limits import limit_findings
from .finding import Finding
from .library_findings import library_findings
from .probe.nvidia import NO_DRIVER
from .torch_findings import torch_findings

_ON = ("1", "on", "yes", "true")


def diagnose(compute: Compute, download_bytes: int | None = None) -> list[Finding]:
    """What stands in the way of running experiments on `compute`, the worst first.

    `download_bytes` is what the experiment still has to download, held against the disk of the model cache.
    """
    findings = [
        *_probes(compute),
        *torch_findings(compute),
        *_hidden_cards(compute),
        *limit_findings(compute),
        *card_findings(compute),
        *_disk(compute, download_bytes),
        *library_findings(compute),
        *_offline(compute),
    ]
    rank = {"error": 0, "warning": 1, "info": 2}
    return sorted(findings, key=lambda finding: rank[finding.severity])


def _probes(compute: Compute) -> list[Finding]:
    findings = []
    for problem in compute.problems:
        # No NVIDIA card is nothing wrong; the report says so once and that is enough.
        severity = "info" if problem.reason == NO_DRIVER else "warning"
        findings.append(Finding(id=f"probe_{problem.probe}", severity=severity, message=problem.reason))
    for card in compute.accelerators:
        if card.problem:
            text = f"{label(card)}: {card.problem}"
            covered = card.kind not in ("xpu", "tpu")
            findings.append(Finding(
                id="card_unusable" if covered else "card_not_covered", severity="warning" if covered else "info",
                message=text,
            ))  # fmt: skip
    return findings


def _hidden_cards(compute: Compute) -> list[Finding]:
    cards = [card for card in compute.accelerators if card.kind == "cuda"]
    value = compute.settings.get("CUDA_VISIBLE_DEVICES")
    if value is None or not cards or any(card.visible for card in cards):
        return []
    shown = f"'{value}'" if value else "empty"
    count = sum(card.mig_of is None for card in cards)
    return [Finding(
        id="hidden_gpus", severity="error",
        message=f"CUDA_VISIBLE_DEVICES is {shown}, which hides all {count} NVIDIA card{'s' * (count > 1)}",
        cure="Unset CUDA_VISIBLE_DEVICES, or set it to the card to use, e.g. 0.",
    )]  # fmt: skip


def _disk(compute: Compute, download_bytes: int | None) -> list[Finding]:
    free = compute.host.disk_free_bytes
    if not download_bytes or free is None or free >= download_bytes:
        return []
    limited = f" ({compute.host.disk_limited_by})" if compute.host.disk_limited_by else ""
    return [Finding(
        id="disk_too_small", severity="error",
        message=f"the download needs {gib(download_bytes)}, but {compute.host.disk_path} has {gib(free)} free{limited}",
        cure="Free some space, or set HF_HOME to a folder on a larger disk.",
    )]  # fmt: skip


def _offline(compute: Compute) -> list[Finding]:
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    on = [name for name in names if compute.settings.get(name, "").lower() in _ON]
    if not on:
        return []
    return [Finding(
        id="offline", severity="warning",
        message=f"{' and '.join(on)} set: nothing that is not in the cache will be downloaded",
        cure="Unset it to download, or make sure that the model is in the cache.",
    )]  # fmt: skip

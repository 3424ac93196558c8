"""What is wrong with a machine as a place for experiments, and what mends it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ..units import gib
from .card_findings import card_findings
from .card_findings import label as _label
from .compute import Accelerator, Compute, TorchBuild
from .finding import Finding
from .probe.capability import runs_on
from .probe.nvidia import NO_DRIVER

_ON = ("1", "on", "yes", "true")


def diagnose(compute: Compute, download_bytes: int | None = None) -> list[Finding]:
    """What stands in the way of running experiments on `compute`, the worst first.

    `download_bytes` is what the experiment still has to download, held against the disk of the model cache.
    """
    findings = [
        *_probes(compute),
        *_torch(compute),
        *_hidden_cards(compute),
        *card_findings(compute),
        *_disk(compute, download_bytes),
        *_libraries(compute),
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
            text = f"{_label(card)}: {card.problem}"
            covered = card.kind not in ("xpu", "tpu")
            findings.append(Finding(
                id="card_unusable" if covered else "card_not_covered", severity="warning" if covered else "info",
                message=text,
            ))  # fmt: skip
    return findings


def _torch(compute: Compute) -> list[Finding]:
    python = compute.python
    if python is None:
        return []
    findings: list[Finding] = []
    if python.problem:
        text = f"{python.path}: {python.problem}"
        cure = "Try it by hand, or name another Python with --python."
        findings.append(Finding(id="python_problem", severity="error", message=text, cure=cure))
    torch = python.torch
    cards = [card for card in compute.accelerators if card.kind == "cuda" and card.problem is None]
    if torch is None:
        if not python.problem:
            text = f"torch is not installed in {python.path} (chosen by {python.source})"
            findings.append(Finding(
                id="no_torch", severity="error", message=text,
                cure="Install torch there, or name the experiment's Python with --python.",
            ))  # fmt: skip
        return findings
    if torch.cuda_build is None:
        # ROCm and XPU builds have no CUDA either, and say so in their version.
        cpu_only = not re.search(r"rocm|xpu", torch.version)
        if cards and cpu_only:
            text = f"torch {torch.version} is a CPU-only build, so {_label(cards[0])} will not be used"
            findings.append(Finding(
                id="cpu_only_torch", severity="error", message=text,
                cure=f"Install a CUDA build of torch{_best_build(torch, cards[0], compute)}.",
            ))  # fmt: skip
        return findings
    old_driver = _old_driver(compute, torch) if cards else None
    if old_driver:
        findings.append(old_driver)
    for card in cards:
        too_old = _unsupported_card(torch, card, compute)
        if too_old and too_old not in findings:
            findings.append(too_old)
    broken = not torch.cuda_available and not python.problem and any(card.visible for card in cards)
    if broken and not any(finding.severity == "error" for finding in findings):
        text = f"torch {torch.version} sees no CUDA card, though the driver shows {_label(cards[0])}"
        cure = "Run torch.cuda.init() in that Python: its error names the reason."
        findings.append(Finding(id="cuda_unavailable", severity="error", message=text, cure=cure))
    return findings


def _old_driver(compute: Compute, torch: TorchBuild) -> Finding | None:
    """Within a CUDA major any driver of that major does (minor-version compatibility); an older major does not."""
    build = (torch.cuda_build or "").split(".")[0]
    floor = _wheels()["drivers"].get(build)
    if compute.driver_cuda_version:
        too_old = build.isdigit() and int(compute.driver_cuda_version.split(".")[0]) < int(build)
    elif compute.driver_version and floor:
        too_old = _numbers(compute.driver_version) < _numbers(floor)
    else:
        too_old = False
    if not too_old:
        return None
    highest = compute.driver_cuda_version
    upto = f" (CUDA up to {highest})" if highest else ""
    driver = compute.driver_version or "of unknown version"
    downgrade = f", or install a torch built for CUDA {highest.split('.')[0]}" if highest else ""
    return Finding(
        id="driver_too_old",
        severity="error",
        message=(
            f"the NVIDIA driver {driver}{upto} is too old for torch {torch.version}, built for CUDA {torch.cuda_build}"
        ),
        cure=f"Upgrade the driver{f' to {floor} or newer' if floor else ''}{downgrade}.",
    )


def _unsupported_card(torch: TorchBuild, card: Accelerator, compute: Compute) -> Finding | None:
    if card.compute_capability is None:
        return None
    arches = torch.arch_list or _table_arches(torch.version, torch.cuda_build, compute)
    if not arches or any(runs_on(card.compute_capability, arch) for arch in arches):
        return None
    oldest = min((_arch_number(arch) for arch in arches), default=0)
    age = "old" if _arch_number("sm_" + card.compute_capability.replace(".", "")) < oldest else "new"
    built = ", ".join(arches)
    return Finding(
        id="card_too_old" if age == "old" else "card_too_new",
        severity="error",
        message=(
            f"{_label(card)} (compute capability {card.compute_capability}) is too {age} for torch {torch.version}: "
            f"that build has code for {built} only"
        ),
        cure=f"Install another CUDA build of torch{_best_build(torch, card, compute)}.",
    )


def _best_build(torch: TorchBuild, card: Accelerator, compute: Compute) -> str:
    """` (cu126: …)`: the newest CUDA build of this torch release that the card and the driver can run."""
    if card.compute_capability is None:
        return ""
    release = _release(torch.version)
    rows = [row for row in _wheels()["wheels"] if row["torch"] == release]
    fitting = [
        row["cuda"]
        for row in rows
        if any(runs_on(card.compute_capability, f"sm_{sm}") for sm in row["sm"])
        and _driver_allows(compute, row["cuda"])
    ]
    if not fitting or not _is_x86_linux(compute):
        return ""
    best = max(fitting, key=_numbers)
    return f" {release}: the cu{best.replace('.', '')} build has code for this card"


def _driver_allows(compute: Compute, cuda: str) -> bool:
    highest = compute.driver_cuda_version
    return highest is None or int(cuda.split(".")[0]) <= int(highest.split(".")[0])


def _table_arches(version: str, cuda: str | None, compute: Compute) -> list[str]:
    if not _is_x86_linux(compute):
        return []
    for row in _wheels()["wheels"]:
        if row["torch"] == _release(version) and row["cuda"] == cuda:
            return [f"sm_{sm}" for sm in row["sm"]]
    return []


def _is_x86_linux(compute: Compute) -> bool:
    """The wheel table is of Linux x86_64: the wheels of other systems are compiled for other cards."""
    return compute.host.os.startswith("Linux") and compute.host.os.endswith("x86_64")


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
    return [Finding(
        id="disk_too_small", severity="error",
        message=f"the download needs {gib(download_bytes)}, but {compute.host.disk_path} has {gib(free)} free",
        cure="Free some space, or set HF_HOME to a folder on a larger disk.",
    )]  # fmt: skip


def _libraries(compute: Compute) -> list[Finding]:
    version = compute.python.libraries.get("transformer-lens", "") if compute.python else ""
    if not version or _numbers(version)[:1] < [4]:
        return []
    return [Finding(
        id="no_hooked_transformer", severity="warning",
        message=f"TransformerLens {version} is installed: HookedTransformer was removed in 4.0",
        cure="Write the experiment for TransformerBridge, or install 'transformer-lens<4'.",
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


def _release(version: str) -> str:
    return ".".join(version.split("+")[0].split(".")[:2])


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def _arch_number(arch: str) -> int:
    return next(iter(_numbers(arch)), 0)


def _wheels() -> dict[str, Any]:
    path = Path(__file__).parent.parent / "facts" / "torch_wheels.json"
    return json.loads(path.read_text(encoding="utf-8"))

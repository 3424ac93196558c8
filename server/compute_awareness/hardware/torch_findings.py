"""Whether the torch of the experiment's Python can use the cards that are here."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from .card_findings import label
from .compute import Accelerator, Compute, Interpreter, TorchBuild
from .finding import Finding
from .probe.capability import JETSON, runs_on


def torch_findings(compute: Compute) -> list[Finding]:
    """What keeps torch from a card: no torch, another maker's build, an old driver, no code for the chip."""
    python = compute.python
    if python is None:
        return []
    findings = _python(python)
    torch = python.torch
    if torch is None:
        if not python.problem:
            other = next((entry.path for entry in compute.interpreters if entry.has_torch and not entry.chosen), None)
            named = f", e.g. {other}" if other else ""
            findings.append(Finding(
                id="no_torch", severity="error",
                message=f"torch is not installed in {python.path} (chosen by {python.source})",
                cure=f"Install torch there, or name the experiment's Python with --python{named}.",
            ))  # fmt: skip
        return findings
    cards = [card for card in compute.accelerators if card.problem is None and card.visible]
    nvidia = [card for card in cards if card.kind == "cuda"]
    amd, intel = ([card for card in cards if card.kind == kind] for kind in ("rocm", "xpu"))
    # On a machine with cards of two makers, a build for one of them is a choice.
    chosen = (amd and _is_rocm(torch)) or (intel and _is_xpu(torch))
    if nvidia and torch.cuda_build is None and not chosen:
        findings.append(_build_without_cuda(torch, nvidia[0], compute))
    elif nvidia and torch.cuda_build is not None:
        findings += _cuda(torch, nvidia, compute, python)
    if not nvidia:
        findings += _xpu(torch, intel)
    return [*findings, *_rocm(torch, amd, nvidia)]


def _python(python: Interpreter) -> list[Finding]:
    findings = []
    if python.problem:
        findings.append(Finding(
            id="python_problem", severity="error", message=f"{python.path}: {python.problem}",
            cure="Try it by hand, or name another Python with --python.",
        ))  # fmt: skip
    if python.doubt:
        findings.append(Finding(
            id="python_not_clear", severity="warning",
            message=f"{python.path} is taken as the experiment's Python ({python.source}); {python.doubt}",
            cure="Name the one that is meant with --python.",
        ))  # fmt: skip
    return findings


def _build_without_cuda(torch: TorchBuild, card: Accelerator, compute: Compute) -> Finding:
    maker = "AMD's ROCm" if _is_rocm(torch) else "Intel's XPU" if _is_xpu(torch) else None
    if maker:
        text = f"torch {torch.version} is built for {maker}, so {label(card)} will not be used"
    else:
        text = f"torch {torch.version} is a CPU-only build, so {label(card)} will not be used"
    cure = f"Install a CUDA build of torch{_best_build(torch, card, compute)}."
    if compute.host.os.startswith("Windows"):
        cure += " The wheel that pip takes by default on Windows is CPU-only; use PyTorch's own index of a CUDA build."
    return Finding(id="no_cuda_torch" if maker else "cpu_only_torch", severity="error", message=text, cure=cure)


def _cuda(torch: TorchBuild, cards: Sequence[Accelerator], compute: Compute, python: Interpreter) -> list[Finding]:
    findings: list[Finding] = []
    old_driver = _old_driver(compute, torch)
    if old_driver:
        findings.append(old_driver)
    without = [card for card in cards if has_no_code(torch, card, compute)]
    for card in without:
        # A card beside it that works makes this one a thing to know, no obstacle.
        found = _unsupported_card(torch, card, compute, "error" if len(without) == len(cards) else "warning")
        if not any((other.id, other.message) == (found.id, found.message) for other in findings):
            findings.append(found)
    if torch.cuda_available or python.problem or any(finding.severity == "error" for finding in findings):
        return findings
    return [*findings, Finding(
        id="cuda_unavailable", severity="error",
        message=f"torch {torch.version} sees no CUDA card, though the driver shows {label(cards[0])}",
        cure="Run torch.cuda.init() in that Python: its error names the reason.",
    )]  # fmt: skip


def _old_driver(compute: Compute, torch: TorchBuild) -> Finding | None:
    """Within a CUDA major any driver of that major does (minor-version compatibility); an older major does not."""
    build = (torch.cuda_build or "").split(".")[0]
    floor = _table()["drivers"].get(build)
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


def has_no_code(torch: TorchBuild, card: Accelerator, compute: Compute) -> bool:
    """Whether the build has no kernels for that card of NVIDIA's; False where it is not known."""
    capability, arches = card.compute_capability, _arches(torch, compute)
    return capability is not None and bool(arches) and not any(runs_on(capability, arch) for arch in arches)


def _unsupported_card(torch: TorchBuild, card: Accelerator, compute: Compute, severity: Any) -> Finding:
    arches = _arches(torch, compute)
    number = _arch_number("sm_" + str(card.compute_capability).replace(".", ""))
    age = "old" if number < min(_arch_number(arch) for arch in arches) else "new"
    cure = f"Install another CUDA build of torch{_best_build(torch, card, compute)}."
    if number in JETSON:
        cure = "Jetson's chips need the torch that NVIDIA builds for its JetPack release."
    return Finding(
        id=f"card_too_{age}",
        severity=severity,
        message=(
            f"torch {torch.version}{_named_build(torch)} has no kernels for {label(card)}, which is too {age} for it: "
            f"the card has compute capability {card.compute_capability}, the build has code for {', '.join(arches)}"
        ),
        cure=cure,
    )


def _named_build(torch: TorchBuild) -> str:
    """` (CUDA 13.2)` where the version does not say so: the default wheels' metadata have no `+cu132`."""
    return "" if "+cu" in torch.version or not torch.cuda_build else f" (CUDA {torch.cuda_build})"


def _best_build(torch: TorchBuild, card: Accelerator, compute: Compute) -> str:
    """` 2.15: the cu126 build has …`: the newest CUDA build that the card and the driver can run, of this release
    of torch where it has one, else of the newest release that has."""
    capability = card.compute_capability
    if capability is None:
        return ""
    fitting = [
        row
        for row in _rows(compute)
        if any(runs_on(capability, f"sm_{sm}") for sm in row["sm"]) and _driver_allows(compute, row["cuda"])
    ]
    if not fitting:
        return ""
    release = _release(torch.version)
    same = [row for row in fitting if row["torch"] == release]
    best = max(same or fitting, key=lambda row: (_numbers(row["torch"]), _numbers(row["cuda"])))
    return f" {best['torch']}: the cu{best['cuda'].replace('.', '')} build has code for this card"


def _driver_allows(compute: Compute, cuda: str) -> bool:
    highest = compute.driver_cuda_version
    return highest is None or int(cuda.split(".")[0]) <= int(highest.split(".")[0])


def _arches(torch: TorchBuild, compute: Compute) -> list[str]:
    """What the build says of itself, else what is known of the wheel."""
    if torch.arch_list:
        return torch.arch_list
    for row in _rows(compute):
        if row["torch"] == _release(torch.version) and row["cuda"] == torch.cuda_build:
            return [f"sm_{sm}" for sm in row["sm"]]
    return []


def _rows(compute: Compute) -> list[dict[str, Any]]:
    """The wheels for this kind of machine: those of each are compiled for other cards."""
    os = compute.host.os
    if not os.startswith("Linux"):
        return []
    return (
        _table()["wheels" if os.endswith("x86_64") else "wheels_aarch64"] if os.endswith(("x86_64", "aarch64")) else []
    )


def _rocm(torch: TorchBuild, cards: Sequence[Accelerator], nvidia: Sequence[Accelerator]) -> list[Finding]:
    """AMD cards by the targets that the ROCm build says it has code for, else by those of the usual wheels."""
    if not cards:
        return []
    if not _is_rocm(torch):
        # Beside a card that a CUDA build is for, that build is a choice.
        return [] if nvidia else [Finding(
            id="torch_without_rocm", severity="error",
            message=f"torch {torch.version} is not built for ROCm, so {label(cards[0])} will not be used",
            cure="Install a ROCm build of torch.",
        )]  # fmt: skip
    built = {target.split(":")[0] for target in torch.arch_list}
    for card in cards:
        if built and card.arch and card.arch not in built:
            return [Finding(
                id="rocm_without_card", severity="error",
                message=(
                    f"torch {torch.version} has no kernels for {label(card)}: the card is {card.arch}, the build has "
                    f"code for {', '.join(sorted(built))}"
                ),
                cure="Install a torch built for this card's target.",
            )]  # fmt: skip
        if not built and card.supports and card.supports.torch.startswith("not"):
            return [Finding(
                id="rocm_without_card", severity="warning",
                message=f"{label(card)}: torch's ROCm wheels have no code for {card.arch}",
                cure="HSA_OVERRIDE_GFX_VERSION may let it run code of a near relative; nobody promises it is right.",
            )]  # fmt: skip
    if torch.cuda_available:
        return []
    return [Finding(
        id="rocm_unavailable", severity="error",
        message=f"torch {torch.version} sees no AMD card, though the system has {label(cards[0])}",
        cure="Join the groups that may open /dev/kfd and /dev/dri (render, video), or pass both into the container.",
    )]  # fmt: skip


def _xpu(torch: TorchBuild, cards: Sequence[Accelerator]) -> list[Finding]:
    if not cards or torch.xpu_available:
        return []
    if not _is_xpu(torch):
        return [Finding(
            id="torch_without_xpu", severity="error",
            message=f"torch {torch.version} is not built for Intel's XPU, so {label(cards[0])} will not be used",
            cure="Install an XPU build of torch.",
        )]  # fmt: skip
    return [Finding(
        id="xpu_unavailable", severity="error",
        message=f"torch {torch.version} sees no XPU, though the system has {label(cards[0])}",
        cure="Install Intel's GPU driver (level-zero) and join the group that may open /dev/dri (render).",
    )]  # fmt: skip


def _is_rocm(torch: TorchBuild) -> bool:
    return bool(torch.hip_build) or "rocm" in torch.version


def _is_xpu(torch: TorchBuild) -> bool:
    return bool(torch.xpu_build) or "xpu" in torch.version


def _release(version: str) -> str:
    return ".".join(version.split("+")[0].split(".")[:2])


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def _arch_number(arch: str) -> int:
    return next(iter(_numbers(arch)), 0)


@cache
def _table() -> dict[str, Any]:
    path = Path(__file__).parent.parent / "facts" / "torch_wheels.json"
    return json.loads(path.read_text(encoding="utf-8"))

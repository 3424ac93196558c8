"""NVIDIA cards: NVML through nvidia-ml-py, `nvidia-smi` where that cannot load, files where no driver answers."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from .capability import cuda_supports
from .nvidia_cards import NvidiaReport, mps_daemon, under_wsl
from .nvidia_files import cards_in_proc, jetson, pci_nvidia_cards
from .nvidia_nvml import ask_nvml
from .nvidia_smi import ask_smi
from .processes import name_processes
from .sysfs import entries
from .visible import visible_cards

NVML_LIMIT_S = 10.0  # a box of eight cards without persistence mode takes seconds to wake them
SMI_LIMIT_S = 5.0
NO_DRIVER = "no NVIDIA driver here (libnvidia-ml not found), so no NVIDIA GPU can be used"


def probe_nvidia(
    environ: Mapping[str, str],
    root: Path = Path("/"),
    nvml_limit_s: float = NVML_LIMIT_S,
    smi_limit_s: float = SMI_LIMIT_S,
) -> NvidiaReport:
    """NVIDIA's cards with memory in bytes, and which of them CUDA_VISIBLE_DEVICES lets through.

    Both programs asked run under a limit in seconds. `root` holds /proc, /dev and `sys/bus/pci`, which still show a
    card when no driver answers for it.
    """
    report = NvidiaReport(mps=mps_daemon(environ, root))
    if not ask_nvml(report, environ, nvml_limit_s):
        ask_smi(report, environ, smi_limit_s)
    if not report.cards and not report.problems:
        _without_a_driver(report, root)
    if under_wsl(root):
        for card in report.cards:
            card.processes_told = bool(card.processes)
    name_processes(report.cards, root)
    for card in report.cards:
        card.supports = cuda_supports(card.compute_capability)
    order, doubts = visible_cards(report.cards, environ)
    for position, card in enumerate(report.cards):
        card.visible = position in order
    for doubt in doubts:
        report.add_problem(doubt)
    return report


def _without_a_driver(report: NvidiaReport, root: Path) -> None:
    board = jetson(root)
    if board is not None:
        report.cards.append(board)
        return
    cards_in_proc(report, root)
    on_bus = pci_nvidia_cards(root)
    if report.cards:
        return
    if on_bus:
        plural = "s are" if on_bus > 1 else " is"
        report.add_problem(
            f"{on_bus} NVIDIA card{plural} in the machine (PCI) but no NVIDIA driver answers; install the "
            "driver, or start the container with access to the GPU (docker --gpus all, apptainer --nv)"
        )
    elif any(re.fullmatch(r"nvidia\d{1,3}", path.name) for path in entries(root / "dev")):
        report.add_problem(
            "an NVIDIA device file (/dev/nvidia0) is here, but no NVIDIA library and no nvidia-smi to ask about it; "
            "in a container the NVIDIA container toolkit puts them there (docker --gpus all)"
        )
    elif report.driver_version is not None:
        report.add_problem("the NVIDIA driver is loaded but has no card for this program")
    elif sys.platform != "darwin":
        report.add_problem(NO_DRIVER)

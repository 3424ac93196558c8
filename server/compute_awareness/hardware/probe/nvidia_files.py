"""NVIDIA's cards by the files of Linux alone: where neither NVML nor nvidia-smi answers, and on Jetson boards."""

from __future__ import annotations

import re
from pathlib import Path

from .nvidia_cards import NvidiaReport
from .report import Accelerator
from .sysfs import display_devices, entries, read

# Jetson's chips: compute capability and name, by the device tree's `compatible` (CUDA programming guide, appendix).
_JETSON = {
    "tegra210": ("5.3", "Jetson Nano / TX1"),
    "tegra186": ("6.2", "Jetson TX2"),
    "tegra194": ("7.2", "Jetson Xavier"),
    "tegra234": ("8.7", "Jetson Orin"),
    "tegra264": ("11.0", "Jetson Thor"),
}


def pci_nvidia_cards(root: Path) -> int:
    """Display controllers and 3D accelerators of vendor 0x10de on the PCI bus (Linux sysfs)."""
    # The same vendor sells the sound function and bridges beside the card.
    return len(display_devices(root, "0x10de"))


def cards_in_proc(report: NvidiaReport, root: Path) -> None:
    """The cards of /proc/driver/nvidia, whose memory it does not tell, and the driver's version."""
    version = re.search(r"NVRM version:.*?\s(\d+(?:\.\d+)+)\s", read(root / "proc/driver/nvidia/version") + " ")
    for index, folder in enumerate(entries(root / "proc/driver/nvidia/gpus")):
        told = dict(re.findall(r"^([\w ]+?):[ \t]*(.*)$", read(folder / "information"), re.MULTILINE))
        minor = told.get("Device Minor", "").strip()
        there = not minor.isdigit() or (root / f"dev/nvidia{minor}").exists()
        uuid = told.get("GPU UUID", "").strip()
        report.cards.append(Accelerator(
            index=index,
            kind="cuda",
            name=told.get("Model", "").strip() or "NVIDIA GPU",
            uuid=uuid if re.fullmatch(r"GPU-[0-9a-f-]+", uuid) else None,
            pci=folder.name,
            problem=(
                "its memory cannot be read: neither nvidia-ml-py nor nvidia-smi is here (in a container: "
                "NVIDIA_DRIVER_CAPABILITIES without utility)"
                if there
                else f"the driver has it, but /dev/nvidia{minor} is not here: this container may not use it"
            ),
        ))  # fmt: skip
    if report.cards and version:
        report.driver_version = version.group(1)


def jetson(root: Path) -> Accelerator | None:
    """The GPU of a Jetson board, which has no PCI address and, before JetPack 6, no NVML. Its memory is the RAM."""
    compatible = read(root / "proc/device-tree/compatible").split("\0")
    chip = next((part[7:] for part in compatible if part.startswith("nvidia,tegra") and part[7:] in _JETSON), None)
    if chip is None:
        return None
    capability, family = _JETSON[chip]
    model = read(root / "proc/device-tree/model").strip("\0 ")
    return Accelerator(
        index=0,
        kind="cuda",
        name=model[:80] or f"NVIDIA {family}",
        compute_capability=capability,
        unified=True,
        processes_told=False,
    )

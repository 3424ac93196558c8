"""Intel's graphics cards: seen on the PCI bus, their memory by xpu-smi where that is installed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .child import run_child
from .gpu_table import row_by_pci
from .report import Accelerator
from .sysfs import display_devices, driver_of, number, read
from .visible import leading_int

SMI_LIMIT_S = 5.0
NOT_COVERED = "not covered: no estimate is made of memory on Intel GPUs (torch device xpu)"


def probe_intel(environ: Mapping[str, str], root: Path = Path("/"), limit_s: float = SMI_LIMIT_S) -> list[Accelerator]:
    """Intel's cards with the driver i915 or xe; graphics within a processor (always device 00:02.0) are left out.

    Memory in bytes, None where xpu-smi is not there or does not tell it.
    """
    devices = [
        device
        for device in display_devices(root, "0x8086")
        if driver_of(device) in ("i915", "xe") and not device.name.endswith(":00:02.0")
    ]
    cards = [_card(index, device) for index, device in enumerate(devices)]
    if cards:
        _ask_smi(cards, environ, limit_s)
        shown = visible_intel(len(cards), environ.get("ZE_AFFINITY_MASK"))
        for position, card in enumerate(cards):
            card.visible = position in shown
    return cards


def _card(index: int, device: Path) -> Accelerator:
    device_id = read(device / "device")
    row = row_by_pci(device_id, read(device / "revision"))
    name = f"Intel {row['name']}" if row else f"Intel GPU {device_id}"
    return Accelerator(index=index, kind="xpu", name=name, pci=device.name, gpu_id=row.get("id"), problem=NOT_COVERED)


def visible_intel(count: int, mask: str | None) -> list[int]:
    """Which of `count` cards ZE_AFFINITY_MASK names: `0,1`, or parts of cards as `0.1` (Level Zero specification)."""
    if not mask:
        return list(range(count))
    named = {leading_int(entry.strip().split(".")[0]) for entry in mask.split(",")}
    return [index for index in range(count) if index in named]


def _ask_smi(cards: Sequence[Accelerator], environ: Mapping[str, str], limit_s: float) -> None:
    smi = shutil.which("xpu-smi", path=environ.get("PATH", os.defpath))
    if smi is None:
        return
    for index in range(min(len(cards), 16)):
        try:
            done = run_child([smi, "discovery", "-d", str(index), "-j"], environ, limit_s / min(len(cards), 16))
        except OSError:
            return
        if done.timed_out:
            return
        told = read_discovery(done.out)
        card = next((card for card in cards if card.pci == told.get("pci")), None)
        if card is not None:
            card.total_bytes, card.free_bytes = told["total"], told["free"]
            card.used_bytes = told["total"] - told["free"] if told["free"] is not None else None
            card.name = told["name"] or card.name


def read_discovery(text: str) -> dict[str, Any]:
    """Address, name and memory in bytes from `xpu-smi discovery -d N -j`; empty where it tells no size."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(told, dict):
        return {}
    total = number(str(told.get("memory_physical_size_byte", "")))
    free = number(str(told.get("memory_free_size_byte", "")))
    if not total:
        return {}
    name, pci = told.get("device_name"), told.get("pci_bdf_address")
    return {
        "name": name[:80] if isinstance(name, str) else "",
        "pci": pci.lower() if isinstance(pci, str) else None,
        "total": total,
        "free": free if free is not None and free <= total else None,
    }

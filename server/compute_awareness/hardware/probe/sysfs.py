"""Small files of Linux's /sys and /proc, read so that a missing or unreadable one is nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path


def read(path: Path) -> str:
    """The stripped text of a file; empty where it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(65536).strip()
    except (OSError, ValueError):
        return ""


def number(text: str) -> int | None:
    """A whole number in decimal or `0x…` form, below 2^64; None for anything else."""
    if not re.fullmatch(r"0x[0-9a-f]{1,16}|[0-9]{1,20}", text):
        return None
    value = int(text, 16 if text.startswith("0x") else 10)
    return value if value < 1 << 64 else None


def fields(text: str) -> dict[str, int]:
    """`name value` lines, as KFD writes them; lines that are not so are left out."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        known = number(value.strip())
        if known is not None:
            found[name] = known
    return found


def entries(folder: Path) -> list[Path]:
    """What is in a folder, numbers in their order; empty where it cannot be read."""
    try:
        found = list(folder.iterdir())
    except OSError:
        return []
    return sorted(found, key=lambda path: (len(path.name), path.name))


def driver_of(device: Path) -> str:
    """Name of the kernel driver that a PCI device in /sys is bound to; empty where there is none."""
    try:
        return Path(os.readlink(device / "driver")).name
    except OSError:
        return ""


def display_devices(root: Path, vendor: str) -> list[Path]:
    """PCI devices of a vendor (`0x1002`) that are display controllers or 3D accelerators, in the order of the bus."""
    return [
        device
        for device in entries(root / "sys/bus/pci/devices")
        if read(device / "vendor") == vendor and read(device / "class").startswith(("0x03", "0x12"))
    ]

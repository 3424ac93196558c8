"""The table of cards, as the probe reads it: which row a name, a memory size or a PCI id means."""

from __future__ import annotations

import re
from typing import Any

from ...units import MIB
from .embedded import table


def gpu_rows() -> list[dict[str, Any]]:
    """The rows of `facts/gpus.json`."""
    return table("gpus.json")["gpus"]


def gpu_row(gpu_id: str | None) -> dict[str, Any]:
    """The row with this key; empty where there is none."""
    return next((row for row in gpu_rows() if row["id"] == gpu_id), {})


def gpu_id(name: str, total_bytes: int | None) -> str | None:
    """Key of the GPU table for an NVML name; of cards sold in two sizes under one name, the one nearest in memory.

    None where the name is not in the table, or fits two sizes and the memory is not known.
    """
    rows = [row for row in gpu_rows() if name.lower() in (n.lower() for n in row.get("nvml_names", []))]
    if len(rows) <= 1:
        return rows[0]["id"] if rows else None
    if total_bytes is None:
        return None
    return min(rows, key=lambda row: abs(_memory_mib(row) * MIB - total_bytes))["id"]


def _memory_mib(row: dict[str, Any]) -> float:
    """NVML's total of a row of the GPU table, or the seller's figure where NVML's was never seen."""
    return row.get("nvml_total_mib") or 1024 * max(row.get("sold_as_gb") or [0])


def shares_ram(name: str) -> bool:
    """Whether the card has no memory of its own (GB10, Jetson): NVML then answers NotSupported for memory."""
    known = (row for row in gpu_rows() if row.get("kind") == "unified")
    if any(name.lower() in (n.lower() for n in row.get("nvml_names", [])) for row in known):
        return True
    return any(word in name for word in ("GB10", "Orin", "Thor", "Xavier", "Tegra", "nvgpu"))


def ecc_lost_bytes(gpu_id: str | None, total_bytes: int | None, ecc: bool | None) -> int | None:
    """What error correction takes of a card's memory: GDDR6 keeps its check bits there, a sixteenth of it.

    Cards with HBM keep them elsewhere and lose nothing. From the two totals seen of the card, with and without;
    None where one of them was never seen, the mode is not told, or the total is neither of them.
    """
    row = gpu_row(gpu_id)
    seen = [int(row[key]) for key in ("nvml_total_mib", "nvml_total_mib_other_ecc") if row.get(key)]
    if ecc is None or total_bytes is None or len(seen) < 2:
        return None
    if not ecc:
        return 0
    with_ecc, without = min(seen) * MIB, max(seen) * MIB
    near = abs(total_bytes - with_ecc) < 0.01 * with_ecc
    return without - total_bytes if near else None


def row_by_pci(device: str, revision: str) -> dict[str, Any]:
    """The row of an AMD or Intel card by its PCI device id and revision (`0x74a1`, `0x00`); empty where not known.

    A row names ids as `74a1`, or `744c:c8` where several cards share a chip and differ in revision.
    """
    both = [re.sub("^0x", "", text.strip().lower()) for text in (device, revision)]
    for wanted in (":".join(both), both[0]):
        for row in gpu_rows():
            if wanted in row.get("pci_ids", []):
                return row
    return {}

"""Machines with a simulated NVIDIA driver: from a JSON description to what `simulated_nvml.c` reads.

`machines/README.md` tells what a description holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MACHINES = Path(__file__).with_name("machines")


def machine_names() -> list[str]:
    return sorted(path.stem for path in MACHINES.glob("*.json"))


def load(name: str) -> dict[str, Any]:
    return json.loads((MACHINES / f"{name}.json").read_text(encoding="utf-8"))


def repeated(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each entry as often as its `times` says."""
    return [{k: v for k, v in entry.items() if k != "times"} for entry in entries for _ in range(entry.get("times", 1))]


def cards_of(machine: dict[str, Any]) -> list[dict[str, Any]]:
    """The cards with the identity that each has where the description names none."""
    cards = repeated(machine.get("cards", []))
    for index, card in enumerate(cards):
        card.setdefault("uuid", f"GPU-{index}0000000-1111-2222-3333-444444444444")
        card.setdefault("pci", f"00000000:{index + 1:02X}:00.0")
        slices = []
        for position, part in enumerate(card.get("slices", [])):
            uuid = f"MIG-{index}{position}000000-aaaa-bbbb-cccc-000000000000"
            slices.append({"uuid": uuid, "at": position, **part})
        if slices:
            card["slices"] = slices
    return cards


def flat(value: Any, path: str = "") -> Iterator[str]:
    """Lines `path<TAB>value` of decoded JSON; null is left out, true is 1, a list tells its length too."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from flat(entry, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        yield f"{path}.length\t{len(value)}"
        for index, entry in enumerate(value):
            yield from flat(entry, f"{path}.{index}")
    elif value is not None and value is not False:
        yield f"{path}\t{int(value) if value is True else value}"


def write_driver(machine: dict[str, Any], folder: Path) -> Path:
    """The file for SIMULATED_NVML that makes the driver play `machine`."""
    told = {"driver": machine.get("driver", {}), "cards": cards_of(machine), "links": machine.get("links", [])}
    path = folder / "driver.txt"
    path.write_text("\n".join(flat(told)) + "\n", encoding="utf-8")
    return path


def write_files(machine: dict[str, Any], root: Path) -> None:
    """The files of `machine` below `root`: text by path, a symbolic link as `-> target`, a folder ends in `/`."""
    for name, text in machine.get("files", {}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        elif text.startswith("-> "):
            path.symlink_to(text[3:])
        else:
            path.write_text(text, encoding="utf-8")

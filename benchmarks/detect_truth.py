"""The detected report of a real machine, field by field against `nvidia-smi` and torch's device properties.

    python benchmarks/detect_truth.py --out FILE [--python PATH]

FILE is one JSON document: the report, what the two others say, and a row for each field of each card with the three
figures and whether they agree (null where neither of the others tells it). Memory in use moves between two looks, so
used and free bytes agree within 2 % of the card or 512 MiB; all else must be equal. Exit status 1 where a field does
not agree, or where a card is missing on either side; 2 where nobody sees a card.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MIB = 1024**2
SMI_FIELDS = (
    "index", "name", "uuid", "pci.bus_id", "driver_version", "memory.total", "memory.reserved", "memory.used",
    "memory.free", "compute_cap", "ecc.mode.current", "persistence_mode", "compute_mode",
)  # fmt: skip
TORCH = """
import json, torch
rows = []
for i in range(torch.cuda.device_count()):
    p = torch.cuda.get_device_properties(i)
    uuid = str(getattr(p, "uuid", "")) or None
    rows.append({"name": p.name, "total_memory": p.total_memory, "capability": f"{p.major}.{p.minor}", "uuid": uuid})
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "cards": rows}))
"""
MODES = {"Exclusive_Process": "exclusive_process", "Prohibited": "prohibited", "Default": None}


def ask_smi(environ: Mapping[str, str]) -> list[dict[str, str]]:
    """A row of strings for each card by `nvidia-smi --query-gpu`; empty where it is not there or fails."""
    smi = shutil.which("nvidia-smi", path=environ.get("PATH", os.defpath))
    if smi is None:
        return []
    command = [smi, f"--query-gpu={','.join(SMI_FIELDS)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=dict(environ), check=False)
    if done.returncode:
        return []
    rows = [[cell.strip() for cell in row] for row in csv.reader(done.stdout.splitlines())]
    return [dict(zip(SMI_FIELDS, row, strict=True)) for row in rows if len(row) == len(SMI_FIELDS)]


def ask_torch(python: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Version and cards of the torch of `python`; {"failed": reason} where it has none or fails."""
    command = [python, "-c", TORCH]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(environ), check=False)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:300]}
    return json.loads(done.stdout)


def compare(
    report: Mapping[str, Any], smi: Sequence[Mapping[str, str]], torch: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Rows `{card, field, detected, nvidia_smi, torch, agree}`, sizes in bytes.

    Cards are matched with nvidia-smi's by index, with torch's by UUID, or by their order among the visible ones where
    torch tells no UUID. torch's total is the card's less what the driver keeps.
    """
    whole = [card for card in report["accelerators"] if card["kind"] == "cuda" and card["mig_of"] is None]
    seen = [card for card in report["accelerators"] if card["kind"] == "cuda" and card["visible"] and not _cut(card)]
    mine = {card.get("uuid"): card for card in torch.get("cards", []) if card.get("uuid")}
    rows = [_row(None, "cards", len(whole), len(smi), None), _row(None, "visible", len(seen), None, _count(torch))]
    for card in whole:
        told = next((row for row in smi if row["index"] == str(card["index"])), {})
        rows.append(_row(None, "driver_version", report["driver_version"], told.get("driver_version"), None))
        rows += _by_smi(card, told)
    for position, card in enumerate(seen):
        bare = (card["uuid"] or "").removeprefix("GPU-")
        others = torch.get("cards", [])
        other = mine.get(bare) or (others[position] if not mine and position < len(others) else {})
        usable = None if card["total_bytes"] is None else card["total_bytes"] - (card["reserved_bytes"] or 0)
        for field, value, key in (
            ("name", card["name"], "name"),
            ("compute_capability", card["compute_capability"], "capability"),
            ("total_bytes less reserved_bytes", usable, "total_memory"),
        ):
            if not card["unified"] or key != "total_memory":
                rows.append(_row(card["index"], field, value, None, other.get(key)))
    return [row for position, row in enumerate(rows) if row not in rows[:position]]


def _by_smi(card: Mapping[str, Any], told: Mapping[str, str]) -> list[dict[str, Any]]:
    def cell(name: str) -> str | None:
        value = told.get(name, "")
        return None if not value or value.startswith("[") or value == "N/A" else value

    def size(name: str) -> int | None:
        value = cell(name)
        return int(value) * MIB if value and value.isdigit() else None

    def on(name: str) -> bool | None:
        return {"Enabled": True, "Disabled": False}.get(cell(name) or "")

    index, total = card["index"], card["total_bytes"] or 0
    margin = max(int(0.02 * total), 512 * MIB)
    pci = (cell("pci.bus_id") or "").lower().removeprefix("0000") or None
    rows = [
        _row(index, "name", card["name"], cell("name"), None),
        _row(index, "uuid", card["uuid"], cell("uuid"), None),
        _row(index, "pci", card["pci"], pci, None),
        _row(index, "compute_capability", card["compute_capability"], cell("compute_cap"), None),
        _row(index, "ecc", card["ecc"], on("ecc.mode.current"), None),
        _row(index, "persistence", card["persistence"], on("persistence_mode"), None),
    ]
    mode = cell("compute_mode")
    if mode is not None:
        rows.append(_row(index, "compute_mode", card["compute_mode"] or "none", MODES.get(mode, mode) or "none", None))
    if not card["unified"]:
        rows.append(_row(index, "total_bytes", card["total_bytes"], size("memory.total"), None))
        # Each is rounded to MiB by nvidia-smi.
        rows.append(_row(index, "reserved_bytes", card["reserved_bytes"], size("memory.reserved"), None, MIB))
        rows.append(_row(index, "used_bytes", card["used_bytes"], size("memory.used"), None, margin))
        rows.append(_row(index, "free_bytes", card["free_bytes"], size("memory.free"), None, margin))
    return rows


def _row(card: int | None, field: str, detected: Any, smi: Any, torch: Any, margin: int = 0) -> dict[str, Any]:
    others = [value for value in (smi, torch) if value is not None]
    agree = all(_equal(detected, value, margin) for value in others) if others else None
    return {"card": card, "field": field, "detected": detected, "nvidia_smi": smi, "torch": torch, "agree": agree}


def _equal(mine: Any, other: Any, margin: int) -> bool:
    if isinstance(mine, int) and isinstance(other, int) and not isinstance(mine, bool):
        return abs(mine - other) <= margin
    return mine == other


def _cut(card: Mapping[str, Any]) -> bool:
    return (card["problem"] or "").startswith("MIG is on")


def _count(torch: Mapping[str, Any]) -> int | None:
    return len(torch["cards"]) if "cards" in torch and torch.get("cuda") else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON document to write")
    parser.add_argument("--python", default=sys.executable, help="the Python whose torch is asked")
    given = parser.parse_args()
    from compute_awareness.hardware.detect import detect

    report = detect(given.python).model_dump(mode="json")
    smi, torch = ask_smi(os.environ), ask_torch(given.python, os.environ)
    rows = compare(report, smi, torch)
    document = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "rows": rows, "report": report, "nvidia_smi": smi, "torch": torch,
    }  # fmt: skip
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8", newline="\n")
    for row in rows:
        if row["agree"] is False:
            others = f"nvidia-smi {row['nvidia_smi']}, torch {row['torch']}"
            print(f"card {row['card']}: {row['field']} is {row['detected']} here; {others}", file=sys.stderr)
    agreed = sum(row["agree"] is True for row in rows)
    print(f"{agreed} of {sum(row['agree'] is not None for row in rows)} fields agree", file=sys.stderr)
    if not smi and not report["accelerators"] and not torch.get("cards"):
        return 2
    return int(any(row["agree"] is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())

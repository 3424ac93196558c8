"""NVIDIA cards: NVML through nvidia-ml-py, `nvidia-smi` where that cannot load, PCI where no driver answers."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...units import MIB
from .child import run_child
from .embedded import program, table
from .report import Accelerator, GpuProcess, ProbeProblem
from .visible import visible_cards

NVML_LIMIT_S = 10.0  # a box of eight cards without persistence mode takes seconds to wake them
SMI_LIMIT_S = 5.0
_SMI_FIELDS = "index,name,uuid,memory.total,memory.reserved,memory.used,memory.free,compute_cap,driver_version"
# NVML error codes, nvidia-ml-py 13.615.71 pynvml.py
_NO_PERMISSION, _DRIVER_NOT_LOADED, _LIBRARY_NOT_FOUND, _GPU_IS_LOST, _VERSION_MISMATCH = 4, 9, 12, 15, 18
NO_DRIVER = "no NVIDIA driver here (libnvidia-ml not found), so no NVIDIA GPU can be used"
_ADVICE = {
    _DRIVER_NOT_LOADED: (
        "the NVIDIA library is here but its kernel driver is not loaded; in a container start it with access to the "
        "GPU (docker --gpus all, apptainer --nv), on a machine load or reinstall the driver"
    ),
    _VERSION_MISMATCH: (
        "the NVIDIA driver was upgraded while the old one is still loaded (driver/library version mismatch); "
        "restart the machine, until then no program can use the GPU"
    ),
    _NO_PERMISSION: "no permission to ask the NVIDIA driver; this user or container may not use the GPU",
    _GPU_IS_LOST: "the card fell off the bus (GPU is lost); restart the machine",
}


@dataclass
class NvidiaReport:
    """What was learnt about NVIDIA cards; `cards` in NVML's order, each MIG slice right after its parent."""

    cards: list[Accelerator] = field(default_factory=list)
    driver_version: str | None = None
    driver_cuda_version: str | None = None
    problems: list[ProbeProblem] = field(default_factory=list)

    def add_problem(self, reason: str) -> None:
        self.problems.append(ProbeProblem(probe="nvidia", reason=reason))


def probe_nvidia(
    environ: Mapping[str, str],
    root: Path = Path("/"),
    nvml_limit_s: float = NVML_LIMIT_S,
    smi_limit_s: float = SMI_LIMIT_S,
) -> NvidiaReport:
    """NVIDIA's cards with memory in bytes, and which of them CUDA_VISIBLE_DEVICES lets through.

    Both programs asked run under a limit in seconds. `root` holds `sys/bus/pci`, which still shows a card
    when no driver answers for it.
    """
    report = NvidiaReport()
    if not _ask_nvml(report, environ, nvml_limit_s):
        _ask_smi(report, environ, smi_limit_s)
    if not report.cards:
        on_bus = pci_nvidia_cards(root)
        if report.problems:
            pass
        elif on_bus:
            plural = "s are" if on_bus > 1 else " is"
            report.add_problem(
                f"{on_bus} NVIDIA card{plural} in the machine (PCI) but no NVIDIA driver answers; install the "
                "driver, or start the container with access to the GPU (docker --gpus all, apptainer --nv)"
            )
        elif sys.platform != "darwin":
            report.add_problem(NO_DRIVER)
    order, doubts = visible_cards(report.cards, environ)
    for position, card in enumerate(report.cards):
        card.visible = position in order
    for doubt in doubts:
        report.add_problem(doubt)
    return report


def pci_nvidia_cards(root: Path) -> int:
    """Display controllers and 3D accelerators of vendor 0x10de on the PCI bus (Linux sysfs)."""
    count = 0
    try:
        devices = sorted((root / "sys/bus/pci/devices").iterdir())
    except OSError:
        return 0
    for device in devices:
        try:
            vendor = (device / "vendor").read_text().strip()
            kind = (device / "class").read_text().strip()
        except OSError:
            continue
        # The same vendor sells the sound function and bridges beside the card; class 0x03 is display.
        count += vendor == "0x10de" and kind.startswith("0x03")
    return count


def gpu_id(name: str, total_bytes: int | None) -> str | None:
    """Key of the GPU table for an NVML name; of cards sold in two sizes under one name, the one nearest in memory.

    None where the name is not in the table, or fits two sizes and the memory is not known.
    """
    rows = [row for row in _gpu_table() if name.lower() in (n.lower() for n in row.get("nvml_names", []))]
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
    known = (row for row in _gpu_table() if row.get("kind") == "unified")
    if any(name.lower() in (n.lower() for n in row.get("nvml_names", [])) for row in known):
        return True
    return any(word in name for word in ("GB10", "Orin", "Thor", "Xavier", "Tegra", "nvgpu"))


def _gpu_table() -> list[dict[str, Any]]:
    return table("gpus.json")["gpus"]


def _ask_nvml(report: NvidiaReport, environ: Mapping[str, str], limit_s: float) -> bool:
    """Fill `report` from NVML. False where the binding or library could not be loaded or crashed."""
    spec = importlib.util.find_spec("pynvml")
    if spec is None or not spec.origin or not sys.executable:
        return False
    try:
        done = run_child(
            [sys.executable, "-I", "-S", "-c", program("nvml_reader.py"), str(Path(spec.origin).parent)],
            environ,
            limit_s,
        )
    except OSError:
        return False
    started: int | None = None
    count = 0
    answered: set[int] = set()
    spoke = False
    for text in done.out.splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # the last line of a killed reader may be cut
        if not isinstance(line, dict):
            continue
        if "count" in line:
            spoke = True
            count = line["count"]
            report.driver_version = line["driver"]
            if line["cuda"]:
                report.driver_cuda_version = f"{line['cuda'] // 1000}.{line['cuda'] % 1000 // 10}"
        elif "start" in line:
            started = line["start"]
        elif "card" in line:
            answered.add(line["card"])
            report.cards += _cards(line)
        elif "error" in line:
            if line["error"] == _LIBRARY_NOT_FOUND:
                return False
            report.add_problem(_ADVICE.get(line["error"], f"NVML: {line['text']}"))
            return True
    if done.timed_out:
        where = f" at card {started} of {count}" if spoke and started is not None else ""
        report.add_problem(
            f"the NVIDIA driver did not answer within {limit_s:g} s{where} and was given up on; "
            "a card may be hung: check it with nvidia-smi, restart the machine if that hangs too"
        )
    elif done.code != 0 and not spoke:
        return False
    elif done.code != 0:
        report.add_problem("the NVIDIA library crashed while it was being asked; reinstall the driver")
    for index in range(count):
        if index not in answered:
            why = "the driver did not answer for it"
            report.cards.append(Accelerator(index=index, kind="cuda", name="NVIDIA GPU", problem=why))
    return spoke or done.timed_out


def _cards(line: dict[str, Any]) -> list[Accelerator]:
    index = line["card"]
    if "error" in line:
        reason = _ADVICE.get(line["error"], f"NVML: {line['text']}")
        return [Accelerator(index=index, kind="cuda", name="NVIDIA GPU", problem=reason)]
    card = _card(index, line)
    if not line["mig"]:
        return [card]
    card.problem = "MIG is on: a process gets one slice of this card, not the card" + (
        "" if line["slices"] else "; no slice has been made yet (nvidia-smi mig -cgi … -C)"
    )
    # A slice has part of the card's speed: it is not the card of the table.
    return [card, *(_card(index, part, mig_of=index) for part in line["slices"])]


def _card(index: int, line: dict[str, Any], mig_of: int | None = None) -> Accelerator:
    name = line["name"] or "NVIDIA GPU"
    total = line["total"]
    unified = total is None and shares_ram(name)
    return Accelerator(
        index=index,
        kind="cuda",
        name=name,
        uuid=line["uuid"],
        gpu_id=gpu_id(name, total) if mig_of is None else None,
        total_bytes=total,
        reserved_bytes=line["reserved"],
        used_bytes=line["used"],
        free_bytes=line["free"],
        compute_capability=line["capability"],
        mig_of=mig_of,
        unified=unified,
        processes=[GpuProcess(pid=pid, used_bytes=used) for pid, used in line["processes"]],
        problem=None if total is not None or unified else "the driver does not tell this card's memory",
    )


def _ask_smi(report: NvidiaReport, environ: Mapping[str, str], limit_s: float) -> None:
    """Fill `report` from `nvidia-smi`, where there is one: its own copy of NVML may load where ours did not."""
    smi = shutil.which("nvidia-smi", path=environ.get("PATH", os.defpath))
    if smi is None:
        return
    query = [smi, f"--query-gpu={_SMI_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = run_child(query, environ, limit_s)
    except OSError as error:
        report.add_problem(f"nvidia-smi cannot be started: {error.strerror}")
        return
    if done.timed_out:
        report.add_problem(f"nvidia-smi did not answer within {limit_s:g} s and was stopped; a card may be hung")
        return
    for line in done.out.splitlines() if done.code == 0 else []:
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != len(_SMI_FIELDS.split(",")) or not cells[0].isdigit():
            continue
        total, reserved, used, free = (int(cell) * MIB if cell.isdigit() else None for cell in cells[3:7])
        entry = {
            "name": cells[1], "uuid": cells[2] if cells[2].startswith("GPU-") else None, "total": total,
            "reserved": reserved, "used": used, "free": free, "processes": [],
            "capability": cells[7] if cells[7].replace(".", "").isdigit() else None,
        }  # fmt: skip
        report.cards.append(_card(int(cells[0]), entry))
        report.driver_version = cells[8]
    if not report.cards:
        said = (done.err or done.out).strip().splitlines()
        report.add_problem(f"nvidia-smi found no card: {said[0][:200] if said else f'exit code {done.code}'}")

"""What NVML or nvidia-smi said of NVIDIA's cards, as cards of the report."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .gpu_table import ecc_lost_bytes, gpu_id, shares_ram
from .report import Accelerator, GpuLinks, GpuProcess, ProbeProblem

_COMPUTE_MODES: dict[Any, Literal["exclusive_process", "prohibited"]] = {
    1: "exclusive_process",  # exclusive thread, of drivers before R384
    2: "prohibited",
    3: "exclusive_process",
}
_VIRTUALIZATION: dict[Any, Literal["passthrough", "vgpu"]] = {1: "passthrough", 2: "vgpu"}
_WAYS = {
    "nvlink": "nvlink",
    "nvswitch": "nvswitch",
    # NVML's levels of the PCIe tree, as `nvidia-smi topo -m` abbreviates them: -, PIX, PXB, PHB, NODE, SYS
    0: "board",
    10: "pcie_switch",
    20: "pcie_switches",
    30: "pcie_host_bridge",
    40: "numa_node",
    50: "between_sockets",
}


@dataclass
class NvidiaReport:
    """What was learnt about NVIDIA cards; `cards` in NVML's order, each MIG slice right after its parent."""

    cards: list[Accelerator] = field(default_factory=list)
    links: list[GpuLinks] = field(default_factory=list)
    driver_version: str | None = None
    driver_cuda_version: str | None = None
    mps: bool = False
    """The MPS daemon runs here."""
    problems: list[ProbeProblem] = field(default_factory=list)

    def add_problem(self, reason: str) -> None:
        self.problems.append(ProbeProblem(probe="nvidia", reason=reason))


def cards_of(line: Mapping[str, Any], mps: bool) -> list[Accelerator]:
    """A card as `nvml_reader` describes it, with bytes, and its MIG slices after it.

    `mps`: the MPS daemon runs, so that one process in the driver's eyes may be many.
    """
    card = _card(line["card"], line)
    card.pci = _pci(line["pci"])
    card.ecc = None if line["ecc"] is None else bool(line["ecc"])
    card.ecc_lost_bytes = ecc_lost_bytes(card.gpu_id, card.total_bytes, card.ecc)
    card.persistence = None if line["persistence"] is None else bool(line["persistence"])
    card.compute_mode = _COMPUTE_MODES.get(line["compute_mode"])
    card.virtual = _VIRTUALIZATION.get(line["virtualization"])
    card.mps = mps or card.mps
    _judge(card, line)
    if not line["mig"]:
        return [card]
    card.problem = "MIG is on: a process gets one slice of this card, not the card" + (
        "" if line["slices"] else "; no slice has been made yet (nvidia-smi mig -cgi … -C)"
    )
    slices = []
    for part in line["slices"]:
        # A slice has part of the card's speed: it is not the card of the table.
        found = _card(line["card"], part, mig_of=line["card"])
        found.mig_profile = _profile(part)
        found.mig_instance = "/".join(map(str, part["instance"])) if part["instance"] else None
        found.ecc = card.ecc
        slices.append(found)
    return [card, *slices]


def _card(index: int, line: Mapping[str, Any], mig_of: int | None = None) -> Accelerator:
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
        mps=any(letter == "M" for _, _, letter in line["processes"] or []),
        processes=[GpuProcess(pid=pid, used_bytes=used) for pid, used, _ in line["processes"] or []],
        processes_told=line["processes"] is not None,
        problem=None if total is not None or unified else "the driver does not tell this card's memory",
    )


def _judge(card: Accelerator, line: Mapping[str, Any]) -> None:
    """What keeps a process from using the card at all."""
    share = re.search(r"-\d+([AB])\d?$", card.name)
    if card.virtual == "vgpu" and share:
        # NVIDIA's vGPU guide: CUDA is there on Q and C profiles only.
        card.problem = f"a vGPU of the {share.group(1)} series, which has no CUDA; it takes one of the Q or C series"
    elif card.compute_mode == "prohibited":
        card.problem = (
            "its compute mode is Prohibited: no program may use it for CUDA; "
            "an administrator sets it back with nvidia-smi -c DEFAULT"
        )
    elif card.compute_mode == "exclusive_process" and not card.mps:
        computing = [pid for pid, _, letter in line["processes"] or [] if letter == "C"]
        if computing:
            card.problem = (
                f"its compute mode is Exclusive_Process and process {computing[0]} has it: "
                "it can be used again when that ends"
            )


def _pci(address: str | None) -> str | None:
    """`00000000:81:00.0`, as NVML writes it, in the form of Linux: `0000:81:00.0`."""
    if not address:
        return None
    found = re.match(r"(?:0000)?([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])$", address.strip().lower())
    return found.group(1) if found else address.strip().lower()


def _profile(part: Mapping[str, Any]) -> str | None:
    """`3g.40gb`: the end of the slice's name, or made from its shares of the chip (memory rounded up to GB)."""
    named = re.search(r"MIG (\d+c\.)?(\d+g\.\d+gb\S*)$", part["name"] or "")
    if named:
        return (named.group(1) or "") + named.group(2)
    if not part["parts"]:
        return None
    chip, compute, megabytes = part["parts"]
    return (f"{compute}c." if compute < chip else "") + f"{chip}g.{math.ceil(megabytes / 1024)}gb"


def links_of(pairs: Sequence[Sequence[Any]], cards: int) -> list[GpuLinks]:
    """Pairs `[first, second, way, lanes]` of `cards` GPUs, put together by how they are connected."""
    groups: dict[tuple[str, int | None], list[str]] = {}
    for one, other, way, lanes in pairs:
        groups.setdefault((_WAYS.get(way, "unknown"), lanes), []).append(f"{one}-{other}")
    whole = cards * (cards - 1) // 2
    return [
        GpuLinks(link=link, lanes=lanes, pairs=["all"] if len(named) == whole else named)
        for (link, lanes), named in groups.items()
    ]


def mps_daemon(environ: Mapping[str, str], root: Path) -> bool:
    """Whether the MPS control daemon runs here: its pipe folder (CUDA_MPS_PIPE_DIRECTORY) holds `control`."""
    folder = environ.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps"
    return (root / folder.lstrip("/") / "control").exists()


def under_wsl(root: Path) -> bool:
    """Whether this is Linux within Windows: its driver gives memory of the whole card, but no list of processes."""
    if (root / "dev/dxg").exists():
        return True
    try:
        return "microsoft" in (root / "proc/sys/kernel/osrelease").read_text().lower()
    except OSError:
        return False

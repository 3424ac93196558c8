"""AMD's GPUs by Linux's sysfs: the compute driver's own topology (KFD) and the graphics driver's memory figures.

`amdsmi` is not used: importing it without ROCm prints to standard output.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .capability import rocm_supports
from .gpu_table import row_by_pci
from .processes import name_processes
from .report import Accelerator, GpuLinks, GpuProcess, ProbeProblem
from .sysfs import display_devices, driver_of, entries, fields, number, read
from .visible_amd import visible_amd

_NODES = "sys/class/kfd/kfd/topology/nodes"
_XGMI = 11  # link type in Linux drivers/gpu/drm/amd/amdkfd/kfd_crat.h, CRAT_IOLINK_TYPE_XGMI
# Graphics in a processor: they have the machine's RAM.
_INTEGRATED = re.compile(r"gfx(902|909|90c|1013|1033|1035|1036|1037|1103|115[0-3])")


@dataclass
class AmdReport:
    """What was learnt about AMD's GPUs, in the order in which ROCm numbers them."""

    cards: list[Accelerator] = field(default_factory=list)
    links: list[GpuLinks] = field(default_factory=list)
    problems: list[ProbeProblem] = field(default_factory=list)


@dataclass
class _Node:
    """A GPU of KFD's topology: `number` is the node's own, which links name; `gpu_id` names its process files."""

    number: int
    gpu_id: str
    told: dict[str, int]
    folder: Path


def probe_amd(environ: Mapping[str, str], root: Path = Path("/")) -> AmdReport:
    """AMD's GPUs with memory in bytes, and which of them ROCR_, HIP_ and CUDA_VISIBLE_DEVICES let through.

    ROCm itself is not asked and need not be installed. A variable alone (SLURM sets ROCR_VISIBLE_DEVICES on machines
    with NVIDIA cards too) shows no card: only what is in /sys does.
    """
    report = AmdReport()
    nodes = _gpu_nodes(root)
    for index, node in enumerate(nodes):
        report.cards.append(_card(index, node, root))
    if not nodes:
        _without_kfd(report, root)
    report.links = _links(nodes)
    name_processes(report.cards, root)
    order, doubts = visible_amd(report.cards, environ)
    for position, card in enumerate(report.cards):
        card.visible = position in order
    report.problems += [ProbeProblem(probe="amd", reason=doubt) for doubt in doubts]
    return report


def gfx_name(target_version: int) -> str:
    """`gfx942` of KFD's `gfx_target_version` 90402: major, minor and step, the last two in hexadecimal."""
    return f"gfx{target_version // 10000}{target_version // 100 % 100:x}{target_version % 100:x}"


def _gpu_nodes(root: Path) -> list[_Node]:
    found = []
    for folder in entries(root / _NODES):
        told = fields(read(folder / "properties"))
        # Nodes of processors have no SIMDs; a GPU that the container may not use has an empty file.
        if told.get("simd_count") and told.get("gfx_target_version") and folder.name.isdigit():
            found.append(_Node(int(folder.name), read(folder / "gpu_id"), told, folder))
    return found


def _card(index: int, node: _Node, root: Path) -> Accelerator:
    told = node.told
    place = told.get("location_id", 0)
    pci = f"{told.get('domain', 0):04x}:{place >> 8 & 0xFF:02x}:{place >> 3 & 0x1F:02x}.{place & 7}"
    device = root / "sys/bus/pci/devices" / pci
    render = f"renderD{told['drm_render_minor']}" if told.get("drm_render_minor") else ""
    if not device.exists() and render:
        device = root / "sys/class/drm" / render / "device"
    arch = gfx_name(told["gfx_target_version"])
    integrated = bool(_INTEGRATED.fullmatch(arch)) or told.get("cpu_cores_count", 0) > 0
    card = _described(index, device, f"0x{told.get('device_id', 0):04x}", root)
    card.pci, card.arch, card.supports = pci, arch, rocm_supports(arch)
    card.uuid = f"GPU-{told['unique_id']:016x}" if told.get("unique_id") else None
    card.processes = _processes(node.gpu_id, root)
    bank = _own_memory(node)
    if integrated:
        _shares_ram(card, bank, device)
    elif card.total_bytes is None:
        card.total_bytes = bank
    card.problem = _problem(card, integrated, render, root)
    return card


def _described(index: int, device: Path, device_id: str, root: Path) -> Accelerator:
    """Name and memory of the card by its PCI folder."""
    total = number(read(device / "mem_info_vram_total"))
    used = number(read(device / "mem_info_vram_used"))
    if total is not None and used is not None and used > total:
        used = None
    row = row_by_pci(device_id, read(device / "revision"))
    return Accelerator(
        index=index,
        kind="rocm",
        name=_name(row, device, device_id, root),
        gpu_id=row.get("id"),
        total_bytes=total,
        used_bytes=used,
        free_bytes=None if total is None or used is None else total - used,
    )


def _name(row: Mapping[str, Any], device: Path, device_id: str, root: Path) -> str:
    told = read(device / "product_name")
    if told:
        return told[:80]
    if row:
        return f"AMD {row['name']}"
    wanted = device_id[2:].upper(), read(device / "revision")[2:].upper()
    for line in read_lines(root / "usr/share/libdrm/amdgpu.ids"):
        cells = [cell.strip() for cell in line.split(",", 2)]
        if len(cells) == 3 and (cells[0].upper(), cells[1].upper()) == wanted:
            return cells[2][:80]
    return f"AMD GPU {device_id}"


def read_lines(path: Path) -> list[str]:
    """The lines of a table of names, of which the largest known has 40 KB."""
    return read(path).splitlines()


def _own_memory(node: _Node) -> int | None:
    """Bytes of the memory banks that are the GPU's (heap type 0 is the machine's RAM)."""
    sizes = []
    for folder in entries(node.folder / "mem_banks"):
        bank = fields(read(folder / "properties"))
        if bank.get("heap_type") and bank.get("size_in_bytes"):
            sizes.append(bank["size_in_bytes"])
    return sum(sizes) or None


def _shares_ram(card: Accelerator, bank: int | None, device: Path) -> None:
    """Memory of a GPU in a processor: what the driver lets it have of the RAM, its fixed share included.

    Its own share (`vram`) may be as little as 512 MiB while ROCm gives it the rest by `gtt`; what is free of that is
    what is free of the RAM, which the caller knows.
    """
    shares = [size for size in (bank, card.total_bytes, number(read(device / "mem_info_gtt_total"))) if size]
    card.unified = True
    card.total_bytes = max(shares) if shares else None
    card.used_bytes = card.free_bytes = None


def _problem(card: Accelerator, integrated: bool, render: str, root: Path) -> str | None:
    kfd = root / "dev/kfd"
    if integrated and card.supports and card.supports.torch.startswith("not"):
        return f"graphics in the processor ({card.arch}), for which torch's ROCm wheels have no code"
    if not kfd.exists():
        return "/dev/kfd is not here: start the container with --device /dev/kfd --device /dev/dri"
    if render and not (root / "dev/dri" / render).exists():
        return f"/dev/dri/{render} is not here: this container may not use it"
    if not os.access(kfd, os.R_OK | os.W_OK):
        return "no permission for /dev/kfd: this user must be in the groups render and video"
    return None if card.total_bytes is not None else "the driver does not tell this card's memory"


def _processes(gpu_id: str, root: Path) -> list[GpuProcess]:
    found = []
    for folder in entries(root / "sys/class/kfd/kfd/proc"):
        used = number(read(folder / f"vram_{gpu_id}")) if gpu_id else None
        if used and folder.name.isdigit():
            found.append(GpuProcess(pid=int(folder.name), used_bytes=used))
    return found


def _links(nodes: list[_Node]) -> list[GpuLinks]:
    """Pairs connected by XGMI (Infinity Fabric)."""
    index = {node.number: position for position, node in enumerate(nodes)}
    pairs = set()
    for position, node in enumerate(nodes):
        for folder in entries(node.folder / "io_links"):
            link = fields(read(folder / "properties"))
            other = index.get(link.get("node_to", -1))
            if link.get("type") == _XGMI and other is not None and other != position:
                pairs.add((min(position, other), max(position, other)))
    if not pairs:
        return []
    whole = len(pairs) == len(nodes) * (len(nodes) - 1) // 2
    named = ["all"] if whole else [f"{one}-{other}" for one, other in sorted(pairs)]
    return [GpuLinks(link="xgmi", kind="rocm", pairs=named)]


def _without_kfd(report: AmdReport, root: Path) -> None:
    """Cards that ROCm cannot use as things are: the compute part of the driver is missing, or the whole driver."""
    for device in display_devices(root, "0x1002"):
        row = row_by_pci(read(device / "device"), read(device / "revision"))
        driver = driver_of(device)
        if not row and not number(read(device / "mem_info_vram_total")):
            continue  # graphics for a screen; nothing to compute with
        card = _described(len(report.cards), device, read(device / "device"), root)
        card.pci = device.name
        card.arch = row.get("arch")
        card.problem = (
            "the driver amdgpu runs without its compute part (KFD), which ROCm needs"
            if driver == "amdgpu"
            else f"its driver is {driver or 'not loaded'}; ROCm needs amdgpu"
        )
        report.cards.append(card)

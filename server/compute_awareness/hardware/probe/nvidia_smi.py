"""`nvidia-smi`: its own copy of NVML may load where ours did not, or there may be no nvidia-ml-py at all."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...units import MIB
from .child import Finished, run_child
from .gpu_table import gpu_id, gpu_row
from .nvidia_cards import NvidiaReport, cards_of, links_of

if TYPE_CHECKING:
    from xml.etree import ElementTree

_OUTPUT_CAP = 8 << 20  # about 40 KB a card, more with many processes
# Where it is when it is not on PATH: Linux within Windows, Windows.
_ELSEWHERE = (
    "/usr/lib/wsl/lib/nvidia-smi",
    "C:\\Windows\\System32\\nvidia-smi.exe",
    "C:\\Program Files\\NVIDIA Corporation\\NVSMI\\nvidia-smi.exe",
)
_COMPUTE_MODES = {"exclusive_thread": 1, "prohibited": 2, "exclusive_process": 3}
_WAYS = {"PIX": 10, "PXB": 20, "PHB": 30, "NODE": 40, "SYS": 50}
_VIRTUALIZATION = {"pass-through": 1, "vgpu": 2}


def ask_smi(report: NvidiaReport, environ: Mapping[str, str], limit_s: float) -> None:
    """Fill `report` from `nvidia-smi -q -x`, where there is one; all calls of it together run under `limit_s`."""
    smi = _find(environ)
    if smi is None:
        return
    ends = time.monotonic() + limit_s

    def run(*arguments: str) -> Finished | None:
        return _run(report, [smi, *arguments], environ, max(0.1, ends - time.monotonic()), limit_s)

    done = run("-q", "-x")
    if done is None:
        return
    lines = read_xml(done.out, report) if done.code == 0 else []
    capable = run("--query-gpu=pci.bus_id,compute_cap", "--format=csv,noheader")
    capabilities = read_capabilities(capable.out) if capable is not None and capable.code == 0 else {}
    uuids: dict[int, list[tuple[str, str]]] = {}
    if any(line["mig"] for line in lines):
        listed = run("-L")
        uuids = read_slices(listed.out) if listed is not None else {}
    for line in lines:
        # `compute_cap` is not known to nvidia-smi before R510; the table knows it of the cards it has.
        known = gpu_row(gpu_id(line["name"] or "", line["total"])).get("compute_capability")
        capability = line["capability"] or capabilities.get(line["pci"]) or known
        line["capability"] = capability
        for position, part in enumerate(line["slices"]):
            named = uuids.get(line["card"], [])
            text, part["uuid"] = named[position] if position < len(named) else ("MIG slice", None)
            part["capability"] = capability
            part["name"] = f"{line['name'] or 'NVIDIA GPU'} {text}".strip()
        report.cards += cards_of(line, report.mps)
    if len(lines) > 1:
        matrix = run("topo", "-m")
        if matrix is not None and matrix.code == 0:
            report.links = links_of(read_topology(matrix.out), len(lines))
    if not report.cards:
        said = (done.err or done.out).strip().splitlines()
        why = said[0][:200] if said and done.code != 0 else f"exit code {done.code}"
        report.add_problem(f"nvidia-smi found no card: {why}")


def _find(environ: Mapping[str, str]) -> str | None:
    found = shutil.which("nvidia-smi", path=environ.get("PATH", os.defpath))
    if found is None and (sys.platform == "win32" or Path("/dev/dxg").exists()):
        found = next((path for path in _ELSEWHERE if Path(path).is_file()), None)
    return found


def _run(
    report: NvidiaReport, argv: list[str], environ: Mapping[str, str], left_s: float, limit_s: float
) -> Finished | None:
    try:
        done = run_child(argv, environ, left_s, cap=_OUTPUT_CAP)
    except OSError as error:
        report.add_problem(f"nvidia-smi cannot be started: {error.strerror}")
        return None
    if done.timed_out:
        report.add_problem(f"nvidia-smi did not answer within {limit_s:g} s and was stopped; a card may be hung")
        return None
    return done


def read_xml(text: str, report: NvidiaReport) -> list[dict[str, Any]]:
    """The cards in the output of `nvidia-smi -q -x`, in the form that `nvml_reader` writes; empty if it is none.

    Elements as in NVIDIA's nvsmi_device_v10.dtd to v12: `N/A` or a missing element is not told. The driver's and
    CUDA's versions go into `report`.
    """
    if "<!ENTITY" in text:
        return []  # never in a real one; an expansion can fill the memory
    from xml.etree import ElementTree  # a machine without nvidia-smi does without

    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, RecursionError):
        return []
    report.driver_version = _text(root, "driver_version")
    cuda = _text(root, "cuda_version") or ""
    report.driver_cuda_version = cuda if re.fullmatch(r"\d{1,3}\.\d{1,3}", cuda) else None
    return [_card(index, gpu) for index, gpu in enumerate(root.iterfind("gpu"))]


def _card(index: int, gpu: ElementTree.Element) -> dict[str, Any]:
    mode = (_text(gpu, "compute_mode") or "").lower()
    virtual = (_text(gpu, "gpu_virtualization_mode/virtualization_mode") or "").lower()
    uuid = _text(gpu, "uuid")
    capability = _text(gpu, "compute_cap")
    return {
        "card": index,
        "name": _text(gpu, "product_name"),
        "uuid": uuid if uuid and uuid.startswith("GPU-") else None,
        "pci": (gpu.get("id") or _text(gpu, "pci/pci_bus_id") or "").lower()[:32] or None,
        "capability": capability if re.fullmatch(r"\d{1,3}\.\d{1,2}", capability or "") else None,
        **_memory(gpu),
        "processes": _processes(gpu),
        "ecc": _on(gpu, "ecc_mode/current_ecc"),
        "persistence": _on(gpu, "persistence_mode"),
        "compute_mode": _COMPUTE_MODES.get(mode),
        "virtualization": _VIRTUALIZATION.get(virtual),
        "mig": _on(gpu, "mig_mode/current_mig") or False,
        "slices": [_slice(part) for part in gpu.iterfind("mig_devices/mig_device")],
    }


def _slice(part: ElementTree.Element) -> dict[str, Any]:
    ids = [_text(part, f"{which}_instance_id") for which in ("gpu", "compute")]
    numbers = [int(number) for number in ids if number and re.fullmatch(r"\d{1,4}", number)]
    return {**_memory(part), "processes": [], "instance": numbers if len(numbers) == 2 else None, "parts": None}


def _text(element: ElementTree.Element, path: str) -> str | None:
    text = (element.findtext(path) or "").strip()
    return None if not text or text.upper() in ("N/A", "[N/A]") else text[:256]


def _on(element: ElementTree.Element, path: str) -> bool | None:
    return {"enabled": True, "disabled": False}.get((_text(element, path) or "").lower())


def _bytes(element: ElementTree.Element, path: str) -> int | None:
    found = re.fullmatch(r"(\d{1,9}) MiB", _text(element, path) or "")
    return int(found.group(1)) * MIB if found else None


def _memory(element: ElementTree.Element) -> dict[str, int | None]:
    total, reserved, used, free = (
        _bytes(element, f"fb_memory_usage/{name}") for name in ("total", "reserved", "used", "free")
    )
    if total is None or free is None or free > total:
        return {"total": total, "reserved": reserved, "used": used, "free": None}
    return {"total": total, "reserved": reserved, "used": used, "free": free}


def _processes(gpu: ElementTree.Element) -> list[list[Any]] | None:
    """`[pid, bytes, letter]` each; None where the element is missing or says N/A, as under WSL."""
    listing = gpu.find("processes")
    if listing is None or (_text(gpu, "processes") is None and "n/a" in (listing.text or "").lower()):
        return None
    found: dict[int, list[Any]] = {}
    for entry in listing.iterfind("process_info"):
        pid = _text(entry, "pid")
        if pid is None or not re.fullmatch(r"\d{1,10}", pid):
            continue
        letters = (_text(entry, "type") or "C").upper()
        letter = "M" if "M" in letters else "C" if "C" in letters else "G"
        found[int(pid)] = [int(pid), _bytes(entry, "used_memory"), letter]
    return [found[pid] for pid in sorted(found)]


def read_capabilities(text: str) -> dict[str, str]:
    """Compute capability by PCI address, from `--query-gpu=pci.bus_id,compute_cap --format=csv,noheader`."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 2 and re.fullmatch(r"\d{1,3}\.\d{1,2}", cells[1]):
            found[cells[0].lower()] = cells[1]
    return found


def read_slices(text: str) -> dict[int, list[tuple[str, str]]]:
    """Name and UUID of the MIG slices of each card, by its index, from `nvidia-smi -L`.

    Lines as `  MIG 3g.40gb     Device  0: (UUID: MIG-…)` under `GPU 0: …`.
    """
    found: dict[int, list[tuple[str, str]]] = {}
    card = None
    for line in text.splitlines():
        head = re.match(r"GPU (\d{1,4}):", line)
        part = re.match(r"\s+(MIG \S+)\s+Device\s+\d+:\s+\(UUID: (MIG-[\w/.-]+)\)", line)
        if head:
            card = int(head.group(1))
        elif part and card is not None:
            found.setdefault(card, []).append((part.group(1), part.group(2)))
    return found


def read_topology(text: str) -> list[list[Any]]:
    """Pairs `[first, second, way, lanes]` from the matrix of `nvidia-smi topo -m`, in the form of `nvml_reader`.

    `NV4` are four NVLinks, to the other card or to a switch (which the matrix does not tell apart); the other words
    are levels of the PCIe tree. Columns after the cards' (network cards, affinities) are left out.
    """
    columns: list[int] = []
    found: list[list[Any]] = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
        cells = line.split()
        heads = [re.fullmatch(r"GPU(\d{1,3})", cell) for cell in cells]
        if not columns:
            for head in heads:
                if head is None:
                    break
                columns.append(int(head.group(1)))
        elif heads and heads[0] is not None:
            one = int(heads[0].group(1))
            for other, cell in zip(columns, cells[1:]):
                lanes = re.fullmatch(r"NV(\d{1,2})", cell)
                if other > one and lanes:
                    found.append([one, other, "nvlink", int(lanes.group(1))])
                elif other > one and cell in _WAYS:
                    found.append([one, other, _WAYS[cell], None])
    return found

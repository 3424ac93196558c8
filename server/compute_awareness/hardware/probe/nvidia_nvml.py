"""NVML, asked through nvidia-ml-py in a child process."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .child import run_child
from .embedded import program
from .nvidia_cards import NvidiaReport, cards_of, links_of
from .report import Accelerator

# NVML error codes, nvidia-ml-py 13.615.71 pynvml.py
_NO_PERMISSION, _DRIVER_NOT_LOADED, _LIBRARY_NOT_FOUND, _GPU_IS_LOST, _VERSION_MISMATCH = 4, 9, 12, 15, 18
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


def ask_nvml(report: NvidiaReport, environ: Mapping[str, str], limit_s: float) -> bool:
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
    started: int | str | None = None
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
            report.cards += _cards(line, report.mps)
        elif "links" in line:
            report.links = links_of(line["links"], count)
        elif "error" in line:
            if line["error"] == _LIBRARY_NOT_FOUND:
                return False
            report.add_problem(_ADVICE.get(line["error"], f"NVML: {line['text']}"))
            return True
    if done.timed_out:
        where = f" at card {started} of {count}" if spoke and started is not None else ""
        if started == "links":
            where = " when asked how the cards are connected"
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


def _cards(line: dict[str, Any], mps: bool) -> list[Accelerator]:
    if "error" in line:
        reason = _ADVICE.get(line["error"], f"NVML: {line['text']}")
        return [Accelerator(index=line["card"], kind="cuda", name="NVIDIA GPU", problem=reason)]
    return cards_of(line, mps)

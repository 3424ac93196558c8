"""Apple's GPU: it shares the machine's RAM, so what counts is how much of it Metal will hand out."""

from __future__ import annotations

import platform
from collections.abc import Mapping

from ...units import GIB, MIB
from .capability import apple_supports
from .child import run_child
from .report import Accelerator

_KEYS = ("hw.memsize", "machdep.cpu.brand_string", "hw.optional.arm64", "sysctl.proc_translated")
_LIMIT_KEY = "iogpu.wired_limit_mb"


def probe_apple(environ: Mapping[str, str], limit_s: float = 3.0) -> list[Accelerator]:
    """The GPU of an Apple-silicon Mac; nothing on any other machine. `free_bytes` is filled by the caller."""
    if platform.system() != "Darwin":
        return []
    answers: dict[str, str] = {}
    # One call a group: sysctl of older systems stops caring about none of them, but says so on its exit code.
    for keys in (_KEYS, (_LIMIT_KEY,)):
        for line in run_child(["/usr/sbin/sysctl", *keys], environ, limit_s).out.splitlines():
            key, _, value = line.partition(":")
            answers[key.strip()] = value.strip()
    card = apple_gpu(platform.machine(), answers)
    return [card] if card else []


def apple_gpu(machine: str, sysctl: Mapping[str, str]) -> Accelerator | None:
    """The GPU that `sysctl` describes, or None on an Intel Mac.

    A Python translated by Rosetta calls the machine x86_64; torch in it has no Metal device, but another has.
    """
    if machine != "arm64" and sysctl.get("hw.optional.arm64") != "1":
        return None
    memory = sysctl.get("hw.memsize", "")
    name = sysctl.get("machdep.cpu.brand_string") or "Apple silicon"
    total = None
    if memory.isdigit():
        raised = sysctl.get(_LIMIT_KEY, "0")
        total = metal_working_set(int(memory), int(raised) if raised.isdigit() else 0)
    known = name.lower().replace(" ", "-")
    return Accelerator(
        index=0,
        kind="mps",
        name=name,
        gpu_id=known if known.startswith("apple-m") else None,
        total_bytes=total,
        unified=True,
        supports=apple_supports(name),
        problem=None if total is not None else "the system does not tell its memory",
    )


def metal_working_set(ram_bytes: int, wired_limit_mb: int = 0) -> int:
    """Bytes Metal recommends as the most to use (recommendedMaxWorkingSetSize): what torch.mps reports.

    Observed on machines, not documented: two thirds of the RAM up to 36 GiB, three quarters above (48 -> 36,
    64 -> 48, 128 -> 96), unless `sysctl iogpu.wired_limit_mb` sets another figure.
    """
    if wired_limit_mb > 0:
        return min(wired_limit_mb * MIB, ram_bytes)
    return ram_bytes * 2 // 3 if ram_bytes <= 36 * GIB else ram_bytes * 3 // 4

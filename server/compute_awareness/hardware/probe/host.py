"""The machine around the accelerator: RAM, CPUs and disk, with the limits that really bind."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from ...units import KIB, MIB
from .cgroup import cpu_quota, memory_limit
from .report import Host


def probe_host(environ: Mapping[str, str], root: Path = Path("/")) -> Host:
    """RAM in bytes and CPUs this process may use. The disk is a probe of its own: a dead network disk hangs."""
    total, available = _ram(root)
    limited_by = None
    for limit, free, source in _limits(environ, root):
        if limit < total:
            total, limited_by = limit, source
        available = min(available, free)
    return Host(
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        hostname=platform.node(),
        cpus=usable_cpus(environ, root),
        ram_total_bytes=total,
        ram_available_bytes=max(0, min(available, total)),
        ram_limited_by=limited_by,
    )


def usable_cpus(environ: Mapping[str, str], root: Path = Path("/")) -> float:
    """The least of the CPU affinity, the container's quota (may be a fraction) and a SLURM job's share."""
    if hasattr(os, "sched_getaffinity"):
        cpus = float(len(os.sched_getaffinity(0)))
    else:
        cpus = float(os.cpu_count() or 1)
    share = _number(environ, "SLURM_CPUS_ON_NODE") if in_slurm_job(environ) else None
    return min(limit for limit in (cpus, cpu_quota(root), share) if limit)


def in_slurm_job(environ: Mapping[str, str]) -> bool:
    return bool(environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID"))


def hugging_face_cache(environ: Mapping[str, str]) -> Path:
    """Where models are downloaded to (huggingface_hub 2.4.0, constants.py): HF_HUB_CACHE, then the older
    HUGGINGFACE_HUB_CACHE, then HF_HOME/hub, with HF_HOME by default under XDG_CACHE_HOME or ~/.cache."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name):
            return _expanded(environ[name], environ)
    if environ.get("HF_HOME"):
        return _expanded(environ["HF_HOME"], environ) / "hub"
    return _expanded(environ.get("XDG_CACHE_HOME") or "~/.cache", environ) / "huggingface" / "hub"


def free_disk(folder: Path) -> int:
    """Bytes free to this user where `folder` is or will be made: its nearest existing parent. OSError if none."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def _limits(environ: Mapping[str, str], root: Path) -> list[tuple[int, int, str]]:
    """(limit, still free, what sets it) for everything that lowers the RAM."""
    limits = []
    cgroup = memory_limit(root)
    if cgroup is not None:
        limits.append((cgroup.limit_bytes, cgroup.available_bytes, cgroup.source))
    if in_slurm_job(environ):
        # A cluster without cgroup enforcement still kills a job above what it asked for. 0 means all there is.
        whole, each = _number(environ, "SLURM_MEM_PER_NODE"), _number(environ, "SLURM_MEM_PER_CPU")
        cpus = _number(environ, "SLURM_CPUS_ON_NODE")
        if whole:
            limits.append((int(whole * MIB), int(whole * MIB), "SLURM_MEM_PER_NODE"))
        elif each and cpus:
            size = int(each * cpus * MIB)
            limits.append((size, size, "SLURM_MEM_PER_CPU x SLURM_CPUS_ON_NODE"))
    return limits


def _ram(root: Path) -> tuple[int, int]:
    """(total, available) bytes of the machine itself."""
    figures: dict[str, int] = {}
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            words = value.split()
            if words and words[0].isdigit():
                figures[name] = int(words[0]) * KIB
    except OSError:
        pass
    if "MemTotal" in figures and "MemAvailable" in figures:
        return figures["MemTotal"], figures["MemAvailable"]
    import psutil

    memory = psutil.virtual_memory()
    return memory.total, memory.available


def _number(environ: Mapping[str, str], name: str) -> int | None:
    value = environ.get(name, "").strip()
    return int(value) if value.isdigit() else None


def _expanded(value: str, environ: Mapping[str, str]) -> Path:
    """`~` and `$NAME` by the experiment's variables, not by this process's."""
    filled = re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda hit: environ.get(hit[1] or hit[2], hit[0]), value)
    if filled == "~" or filled.startswith(("~/", "~\\")):
        home = environ.get("HOME") or environ.get("USERPROFILE") or str(Path.home())
        return Path(home + filled[1:])
    return Path(filled).expanduser()

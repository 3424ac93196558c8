"""The machine around the accelerator: RAM, CPUs and disk, with the limits that really bind."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from .cgroup import cpu_quota, memory_limit
from .job import job_cpus, job_memory
from .ram import machine_ram
from .report import Host


def probe_host(environ: Mapping[str, str], root: Path = Path("/")) -> Host:
    """RAM in bytes and CPUs this process may use. The disk is a probe of its own: a dead network disk hangs."""
    total, available = machine_ram(root)
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
    """The least of the CPU affinity, the container's quota (may be a fraction) and a job's share."""
    if hasattr(os, "sched_getaffinity"):
        cpus = float(len(os.sched_getaffinity(0)))
    else:
        cpus = float(os.cpu_count() or 1)
    return min(limit for limit in (cpus, cpu_quota(root), job_cpus(environ)) if limit)


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
    return shutil.disk_usage(existing(folder)).free


def free_inodes(folder: Path) -> int | None:
    """Files that can still be made there; None where the filesystem does not count them or does not tell."""
    if not hasattr(os, "statvfs"):
        return None
    figures = os.statvfs(existing(folder))
    return figures.f_favail if figures.f_files else None


def existing(folder: Path) -> Path:
    """`folder`, or the nearest of its parents that is there."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def _limits(environ: Mapping[str, str], root: Path) -> list[tuple[int, int, str]]:
    """(limit, still free, what sets it) for everything that lowers the RAM."""
    limits = []
    cgroup = memory_limit(root)
    if cgroup is not None:
        limits.append((cgroup.limit_bytes, cgroup.available_bytes, cgroup.source))
    job = job_memory(environ)
    if job is not None:
        limits.append((job[0], job[0], job[1]))
    return limits


def _expanded(value: str, environ: Mapping[str, str]) -> Path:
    """`~` and `$NAME` by the experiment's variables, not by this process's."""
    filled = re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda hit: environ.get(hit[1] or hit[2], hit[0]), value)
    if filled == "~" or filled.startswith(("~/", "~\\")):
        home = environ.get("HOME") or environ.get("USERPROFILE") or str(Path.home())
        return Path(home + filled[1:])
    return Path(filled).expanduser()

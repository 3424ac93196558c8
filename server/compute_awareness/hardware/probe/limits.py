"""Limits of a process: ulimits and the shared memory that DataLoader workers hand tensors over in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .cgroup import process_limit
from .figures import whole
from .report import Limits

# Lines of /proc/self/limits, names of the module `resource`, and what they are here.
_ULIMITS = {
    "Max address space": ("RLIMIT_AS", "address_space_bytes"),
    "Max processes": ("RLIMIT_NPROC", "processes"),
    "Max open files": ("RLIMIT_NOFILE", "open_files"),
}


def probe_limits(root: Path = Path("/"), statvfs: Callable[[Path], Any] | None = None) -> Limits:
    """The soft ulimits -v, -u and -n of this process (or its cgroup's pids.max), and the size of /dev/shm in bytes.

    A program started from here inherits them. `statvfs` answers for a folder, by default as `os.statvfs` does.
    """
    found = Limits()
    for name, limit in _ulimits(root).items():
        setattr(found, name, limit)
    in_cgroup = process_limit(root)
    if in_cgroup is not None and (found.processes is None or in_cgroup < found.processes):
        found.processes = in_cgroup
    shm = root / "dev/shm"
    ask = statvfs or getattr(os, "statvfs", None)
    try:
        if ask is not None and shm.is_dir():
            size = ask(shm)
            # A tmpfs without a size of its own counts no blocks: the RAM is its limit.
            if size.f_blocks:
                found.shm_total_bytes = size.f_blocks * size.f_frsize
                found.shm_free_bytes = size.f_bavail * size.f_frsize
    except OSError:
        pass
    return found


def soft_limits(text: str) -> dict[str, int]:
    """The soft limits that /proc/self/limits sets, by the names of `Limits`; one that is `unlimited` is not there."""
    limits = {}
    for line in text.splitlines():
        for start, (_, name) in _ULIMITS.items():
            if line.startswith(start + " "):
                number = whole((line[len(start) :].split() or [""])[0])
                if number is not None:
                    limits[name] = number
    return limits


def _ulimits(root: Path) -> dict[str, int]:
    try:
        return soft_limits((root / "proc/self/limits").read_text(errors="replace"))
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return {}  # Windows has none
    if root != Path("/"):
        return {}
    limits = {}
    for constant, name in _ULIMITS.values():
        soft, _ = resource.getrlimit(getattr(resource, constant))
        if soft != resource.RLIM_INFINITY:
            limits[name] = soft
    return limits

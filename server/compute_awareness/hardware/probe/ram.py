"""RAM of the machine itself, before any limit: /proc on Linux, the system's own tools elsewhere."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...units import KIB
from .child import run_child
from .figures import whole

_LIMIT_S = 2.0


def machine_ram(root: Path = Path("/")) -> tuple[int, int]:
    """(total, available) bytes. Available is what can be taken without swapping, page cache included.

    Raises:
        OSError: nothing here tells.
    """
    try:
        found = meminfo((root / "proc/meminfo").read_text(errors="replace"))
    except OSError:
        found = None
    if found is None:
        found = _by_psutil()
    if found is None and sys.platform == "darwin":
        found = _mac()
    if found is None and sys.platform == "win32":
        found = windows_ram()
    if found is None:
        raise OSError("the system does not tell its RAM")
    return found


def meminfo(text: str) -> tuple[int, int] | None:
    """(total, available) bytes of /proc/meminfo; None where either is missing."""
    figures: dict[str, int] = {}
    for line in text.splitlines():
        found = re.fullmatch(r"(MemTotal|MemAvailable):\s*(\S+) kB\s*", line)
        number = whole(found[2]) if found else None
        if found and number is not None:
            figures.setdefault(found[1], number * KIB)
    if len(figures) < 2 or not figures["MemTotal"]:
        return None
    return figures["MemTotal"], min(figures["MemAvailable"], figures["MemTotal"])


def vm_stat_available(text: str) -> int | None:
    """Available bytes of macOS's `vm_stat`: free, speculative and inactive pages, as psutil 7 counts them."""
    size = re.search(r"page size of ([0-9]{4,6}) bytes", text)
    pages = {name: whole(count) for name, count in re.findall(r"^Pages (\w+):\s+([0-9]+)\.$", text, re.MULTILINE)}
    counted = [pages.get(name) for name in ("free", "speculative", "inactive")]
    if size is None or None in counted:
        return None
    return sum(count for count in counted if count is not None) * int(size[1])


def windows_ram(ask: Callable[[Any], int] | None = None) -> tuple[int, int] | None:
    """(total, available) bytes as `ask` (by default kernel32's GlobalMemoryStatusEx) fills in; None if it fails."""
    import ctypes  # slow to import, and only Windows needs it

    class MemoryStatus(ctypes.Structure):
        """MEMORYSTATUSEX of sysinfoapi.h."""

        _fields_ = [
            ("length", ctypes.c_uint32), ("load", ctypes.c_uint32), ("total", ctypes.c_uint64),
            ("available", ctypes.c_uint64), ("page_file_and_virtual", ctypes.c_uint64 * 5),
        ]  # fmt: skip

    status = MemoryStatus()
    status.length = ctypes.sizeof(status)
    call: Callable[[Any], int] = ask or getattr(ctypes, "windll").kernel32.GlobalMemoryStatusEx  # noqa: B009
    if not call(ctypes.byref(status)) or not status.total:
        return None
    return status.total, min(status.available, status.total)


def _by_psutil() -> tuple[int, int] | None:
    """What psutil says, where it can be imported: the script that runs on other machines may not have it."""
    try:
        import psutil
    except ImportError:
        return None
    memory = psutil.virtual_memory()
    return memory.total, memory.available


def _mac() -> tuple[int, int] | None:
    total = whole(run_child(["/usr/sbin/sysctl", "-n", "hw.memsize"], os.environ, _LIMIT_S).out)
    available = vm_stat_available(run_child(["/usr/bin/vm_stat"], os.environ, _LIMIT_S).out)
    return (total, min(available, total)) if total and available is not None else None

"""Whose the processes on a card are: from /proc, where the driver's process numbers are those of /proc."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from .report import Accelerator, GpuProcess

_KEPT = 8
# The first process namespace has a fixed number: PROC_PID_INIT_INO in Linux include/linux/proc_ns.h.
_MACHINES_OWN_NAMESPACE = "pid:[4026531836]"


def name_processes(cards: Sequence[Accelerator], root: Path) -> None:
    """Fill in name, user and `own` of each process, and what would be free without those of others.

    The driver gives numbers of the machine; in a container /proc has other processes under them, so nothing is told
    there. A process that the machine's /proc does not show is not this user's (mounted with hidepid, or gone).
    The largest few are kept.
    """
    here = _sees_the_machine(root)
    for card in cards:
        for process in card.processes:
            if here:
                _name(process, root / "proc" / str(process.pid))
        others = [p.used_bytes for p in card.processes if p.own is False]
        if card.free_bytes is not None and any(others):
            room = (card.total_bytes or 0) - (card.reserved_bytes or 0)
            card.free_without_others_bytes = min(card.free_bytes + sum(used or 0 for used in others), room)
        card.processes.sort(key=lambda p: (-(p.used_bytes or 0), p.pid))
        card.processes_left_out = max(0, len(card.processes) - _KEPT)
        del card.processes[_KEPT:]


def _sees_the_machine(root: Path) -> bool:
    try:
        return os.readlink(root / "proc/self/ns/pid") == _MACHINES_OWN_NAMESPACE
    except OSError:
        return False


def _name(process: GpuProcess, folder: Path) -> None:
    try:
        status = (folder / "status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        process.own = False
        return
    name = re.search(r"^Name:\s*(.+)$", status, re.MULTILINE)
    uid = re.search(r"^Uid:\s*(\d{1,10})\b", status, re.MULTILINE)
    process.name = name.group(1).strip()[:64] if name else None
    if uid:
        process.own = int(uid.group(1)) == os.getuid()
        process.user = _user(int(uid.group(1)))


def _user(uid: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError, OverflowError):
        return f"uid {uid}"

"""What a quota leaves: `quota` for local and NFS filesystems, `lfs quota` for Lustre, where they are installed."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...units import KIB
from .child import run_child
from .figures import whole
from .mounts import Mount

QUOTA_LIMIT_S = 3.0  # for each of the two questions: a dead NFS server does not answer


def probe_quota(
    folder: Path, mount: Mount | None, environ: Mapping[str, str], limit_s: float = QUOTA_LIMIT_S
) -> tuple[int, str] | None:
    """(bytes still allowed, which quota) of this user, or of the group that new files in `folder` get.

    None where no quota holds, nothing tells one or the programs are missing. `mount` is what `folder` lies on.
    """
    if mount is None or os.name != "posix":
        return None
    found = []
    for who, number in (("user", os.getuid()), ("group", _group(folder))):
        for used, allowed in _asked(who, number, mount, environ, limit_s):
            found.append((max(0, allowed - used), f"{who} quota on {mount.point}"))
    return min(found, default=None)


def quota_lines(text: str) -> Iterator[tuple[str, int, int]]:
    """(filesystem, bytes used, bytes allowed) for each line of `quota -w -p` or `lfs quota` that sets a limit.

    Columns: filesystem, then blocks of 1 KiB used, soft and hard limit and grace, then the same for files; `*`
    marks what is over its limit, `[ ]` what Lustre is not sure of. 0 means no limit. The hard limit counts, or the
    soft one where it is alone. The name is empty where a long one stands on a line of its own.
    """
    for line in text.splitlines():
        words = line.split()
        used, soft, hard = (whole(word.strip("*[]")) for word in words[-8:-5]) if len(words) >= 8 else (None,) * 3
        files = [whole(word.strip("*[]")) for word in words[-4:-1]]
        if used is None or soft is None or hard is None or None in files:
            continue
        if hard or soft:
            yield " ".join(words[:-8]), used * KIB, (hard or soft) * KIB


def _asked(
    who: str, number: int, mount: Mount, environ: Mapping[str, str], limit_s: float
) -> Iterator[tuple[int, int]]:
    """(used, allowed) in bytes for each quota of `who` that holds on `mount`."""
    lustre = mount.filesystem == "lustre"
    program = shutil.which("lfs" if lustre else "quota", path=environ.get("PATH", os.defpath))
    if program is None:
        return
    if lustre:
        command = [program, "quota", "-q", f"-{who[0]}", str(number), mount.point]
    else:
        # Nobody but root may name a user, not even himself; a number is a group's where -g stands before it.
        command = [program, "-w", "-p", "-Q", *(["-g", str(number)] if who == "group" else ["-u"])]
    try:
        done = run_child(command, {**environ, "LC_ALL": "C"}, limit_s)
    except OSError:
        return
    if done.code is None:
        return  # a killed program may have been cut in the middle of a figure
    for filesystem, used, allowed in quota_lines(done.out):
        if lustre or filesystem in (mount.source, mount.point):
            yield used, allowed


def _group(folder: Path) -> int:
    """The group of files made in `folder`: the folder's own where it is set-group-id, else this process's."""
    try:
        here = folder.stat()
    except OSError:
        return os.getgid()
    return here.st_gid if here.st_mode & stat.S_ISGID else os.getgid()

"""What a container or batch job may take: memory and CPU limits of cgroups v1, v2 and both at once (Linux)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .figures import whole

# "No limit" in v1 is the largest page-aligned 63-bit number (9223372036854771712 with 4 KiB pages).
_V1_NONE = 1 << 62


@dataclass
class MemoryLimit:
    """The tightest memory limit above this process, and what can still be taken below all of them."""

    limit_bytes: int
    available_bytes: int
    source: str


def memory_limit(root: Path = Path("/")) -> MemoryLimit | None:
    """Memory limits in bytes of this process's cgroup and everything above it; None where nothing limits it.

    Page cache that can be dropped (`inactive_file`) does not count as used. v1 wins where it holds the memory
    controller: the v2 tree of a hybrid machine then has no memory files.
    """
    levels = [*_v1_memory(root), *_v2_memory(root)]
    if not levels:
        return None
    tightest = min(levels, key=lambda level: level.limit_bytes)
    available = min(level.available_bytes for level in levels)
    return MemoryLimit(tightest.limit_bytes, available, tightest.source)


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time this process's cgroups allow; None where nothing limits it."""
    quotas = []
    for folder in _v1_folders(root, "cpu"):
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota and period:
            quotas.append(quota / period)
    for folder in _v2_folders(root):
        words = _text(folder / "cpu.max").split()
        quota, period = (whole(word) for word in words) if len(words) == 2 else (None, None)
        if quota and period:
            quotas.append(quota / period)
    return min(quotas, default=None)


def process_limit(root: Path = Path("/")) -> int | None:
    """Processes and threads this process's cgroups allow (pids.max); None where nothing limits them."""
    folders = [*_v1_folders(root, "pids"), *_v2_folders(root)]
    limits = [_number(folder / "pids.max") for folder in folders]
    return min((limit for limit in limits if limit is not None), default=None)


def _v1_memory(root: Path) -> Iterator[MemoryLimit]:
    for folder in _v1_folders(root, "memory"):
        limit = _number(folder / "memory.limit_in_bytes")
        if limit is None or limit >= _V1_NONE:
            continue
        used = _number(folder / "memory.usage_in_bytes") or 0
        cache = _stat(folder / "memory.stat", "total_inactive_file")
        free = max(0, limit - max(0, used - cache))
        yield MemoryLimit(limit, free, f"cgroup v1 {_shown(folder / 'memory.limit_in_bytes', root)}")


def _v2_memory(root: Path) -> Iterator[MemoryLimit]:
    for folder in _v2_folders(root):
        used = _number(folder / "memory.current") or 0
        cache = _stat(folder / "memory.stat", "inactive_file")
        # memory.high does not kill but throttles until nothing moves, which for an experiment is no better.
        for name in ("memory.max", "memory.high"):
            limit = _number(folder / name)
            if limit is not None:
                free = max(0, limit - max(0, used - cache))
                yield MemoryLimit(limit, free, f"cgroup v2 {_shown(folder / name, root)}")


def _memberships(root: Path) -> Iterator[tuple[list[str], str]]:
    """(controllers, path) for each line of /proc/self/cgroup; no controllers means the v2 tree."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            yield [name for name in parts[1].split(",") if name], parts[2]


def _v1_folders(root: Path, controller: str) -> Iterator[Path]:
    for controllers, path in _memberships(root):
        if controller in controllers:
            base = root / "sys/fs/cgroup"
            mounts = (base / ",".join(controllers), base / controller)
            mount = next((m for m in mounts if m.is_dir()), None)
            if mount is not None:
                yield from _upwards(mount, path)


def _v2_folders(root: Path) -> Iterator[Path]:
    for controllers, path in _memberships(root):
        if not controllers:
            base = root / "sys/fs/cgroup"
            mount = base / "unified" if (base / "unified").is_dir() else base
            yield from _upwards(mount, path)


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The folder of `path` under `mount` and all above it, the mount itself included.

    Inside a container the path may be the host's and not exist here: the mount is then the cgroup itself.
    """
    names = [name for name in path.split("/") if name]
    try:
        here = ".." not in names and mount.joinpath(*names).is_dir()
    except (OSError, ValueError):
        here = False  # longer than a path can be, or with a zero byte
    names = names if here else []
    for length in range(len(names), -1, -1):
        yield mount.joinpath(*names[:length])


def _shown(path: Path, root: Path) -> str:
    return "/" + path.relative_to(root).as_posix()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    return whole(_text(path))  # None: missing, "max", or v1's -1


def _stat(path: Path, key: str) -> int:
    for line in _text(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return whole(value) or 0
    return 0

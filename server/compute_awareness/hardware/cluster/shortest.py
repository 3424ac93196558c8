"""The shortest path to a GPU that fits, on a SLURM cluster: which partition and card to ask for, with the flags.

Nothing is started or submitted: `sbatch --test-only`, where it is used, only asks the scheduler when a job would run.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..probe.child import run_child
from .asker import SLURM_FOLDERS, Asker, find_program
from .report import Cluster, ClusterUser, GpuPool, Limit, Partition
from .slurm import clean
from .slurm_text import parse_test_only

GIB = 1024**3
# Of the reasons why a GPU is not free, those that pass by themselves; the others need an administrator.
_PASSING = frozenset((
    "in use", "in use in parts", "no CPU left beside them", "no RAM left beside them", "planned for a waiting job",
    "powered down", "powering down", "starting", "rebooting", "blocked by another job",
))  # fmt: skip


@dataclass
class GpuPath:
    """One way to a GPU that fits, with the flags that ask for it."""

    partition: str
    type: str | None
    gpus: int
    memory_bytes: int | None
    memory_most_bytes: int | None
    fits: str  # yes, maybe (the name leaves open which card), unknown (memory not known)
    access: str  # yes or unknown
    free_now: bool | None
    waiting_jobs: int | None
    expected_start: str | None  # the cluster's local time, as sbatch --test-only tells it
    flags: list[str]
    why: str
    cautions: list[str] = field(default_factory=list)

    @property
    def interactive(self) -> str:
        """The command line of a shell on such a GPU."""
        return f"srun {shlex.join(self.flags)} --pty bash"

    @property
    def batch(self) -> str:
        """The command line that submits a script of the user's."""
        return f"sbatch {shlex.join(self.flags)} job.sh"


@dataclass
class GpuPaths:
    """The paths, shortest first, and why every other partition and card was left out."""

    paths: list[GpuPath]
    left_out: list[str]


def shortest_paths(
    cluster: Cluster, needed_bytes: int, hours: float | None = None, gpus: int = 1, ram_bytes: int | None = None
) -> GpuPaths:
    """Partitions and cards of a SLURM cluster on which `needed_bytes` a GPU fit, the shortest path first.

    `cluster` must have been through `name_cards`. `hours` is the run time asked for (-t); without it a job gets the
    partition's default. `gpus` are on one node. Certain before doubtful, free now before waiting, earlier expected
    start first, then the smallest card that is enough.

    Raises:
        ValueError: no SLURM cluster, or a need that is not positive.
    """
    if cluster.scheduler != "slurm":
        raise ValueError(f"paths are told for SLURM only, not for {cluster.scheduler}")
    if needed_bytes <= 0 or gpus < 1 or (hours is not None and not 0 < hours < math.inf):
        raise ValueError("needed_bytes and hours must be above 0 and gpus at least 1")
    by_name = {part.name: part for part in cluster.partitions}
    paths: list[GpuPath] = []
    left_out: list[str] = []
    for pool in cluster.pools:
        part = by_name.get(pool.partition or "")
        if part is None:
            continue
        label = f"{part.name}, {pool.type or 'GPU'}" + (f" ({pool.constraint})" if pool.constraint else "")
        why_not = _excluded(cluster, pool, part, needed_bytes, hours, gpus)
        if why_not:
            left_out.append(f"{label}: {why_not}")
        else:
            paths.append(_path(cluster, pool, part, needed_bytes, hours, gpus, ram_bytes))
    return GpuPaths(sorted(paths, key=rank), left_out)


def _excluded(
    cluster: Cluster, pool: GpuPool, part: Partition, needed: int, hours: float | None, gpus: int
) -> str | None:
    most = pool.memory_most_bytes or pool.memory_bytes
    if most is not None and needed > most:
        return f"{_gib(most)} a GPU, {_gib(needed)} needed"
    if part.access == "no":
        return part.access_why
    if hours is not None and part.max_time_s is not None and hours * 3600 > part.max_time_s:
        return f"a job may run {_time(part.max_time_s)} at most"
    if gpus > pool.most_on_a_node:
        return f"a node has {pool.most_on_a_node} at most, {gpus} needed"
    gone = {reason: count for reason, count in pool.not_free.items() if reason not in _PASSING}
    if pool.total - sum(gone.values()) < gpus:
        return "out of service: " + ", ".join(f"{count} {reason}" for reason, count in gone.items())
    for limit in cluster.user.limits if cluster.user else []:
        if part.qos and limit.source == f"QoS {part.qos}":
            if limit.gpus_per_job is not None and gpus > limit.gpus_per_job:
                return f"its QoS {part.qos} allows {limit.gpus_per_job} GPUs a job"
            if limit.max_wall_s is not None and hours is not None and hours * 3600 > limit.max_wall_s:
                return f"its QoS {part.qos} lets a job run {_time(limit.max_wall_s)} at most"
    return None


def _path(
    cluster: Cluster, pool: GpuPool, part: Partition, needed: int, hours: float | None, gpus: int,
    ram_bytes: int | None,
) -> GpuPath:  # fmt: skip
    flags = ["-p", part.name, f"--gres={pool.resource}:{pool.type}:{gpus}" if pool.type else f"--gres=gpu:{gpus}"]
    if pool.constraint:
        flags += ["-C", pool.constraint]
    if part.account:
        flags += ["-A", part.account]
    if hours is not None:
        flags += ["-t", _time(math.ceil(hours * 60) * 60)]
    if ram_bytes is not None:
        flags += [f"--mem={max(1, math.ceil(ram_bytes / GIB))}G"]
    fits = "unknown" if pool.memory_bytes is None else "yes" if needed <= pool.memory_bytes else "maybe"
    most_free = pool.most_free_on_a_node
    free_now = None if most_free is None else most_free >= gpus
    if free_now and ram_bytes is not None and pool.free_ram_bytes is not None and ram_bytes > pool.free_ram_bytes:
        free_now = False
    return GpuPath(
        partition=part.name,
        type=pool.type,
        gpus=gpus,
        memory_bytes=pool.memory_bytes,
        memory_most_bytes=pool.memory_most_bytes,
        fits=fits,
        access=part.access,
        free_now=free_now,
        waiting_jobs=part.pending_jobs,
        expected_start=None,
        flags=flags,
        why=_why(pool, needed, free_now),
        cautions=_cautions(cluster, pool, part, fits, hours, gpus),
    )


def _why(pool: GpuPool, needed: int, free_now: bool | None) -> str:
    if pool.memory_bytes is None:
        memory = f"{_gib(needed)} needed, memory not known ({pool.memory_basis or 'the type is not known'})"
    elif pool.memory_most_bytes in (None, pool.memory_bytes):
        memory = f"{_gib(needed)} needed of {_gib(pool.memory_bytes)}"
    else:
        memory = f"{_gib(needed)} needed of {_gib(pool.memory_bytes)} to {_gib(pool.memory_most_bytes or 0)}"
    count = "?" if pool.free is None else pool.free
    now = {True: "free now", False: "not free now", None: "whether free is not known"}[free_now]
    return f"{memory}; {now} ({count} of {pool.total} free)"


def _cautions(cluster: Cluster, pool: GpuPool, part: Partition, fits: str, hours: float | None, gpus: int) -> list[str]:
    found = []
    if part.access != "yes":
        found.append(f"whether you may use it is not known: {part.access_why}")
    if fits == "maybe":
        found.append(f"the card may be too small: {pool.memory_basis}; ask the administrators which it is")
    if part.pending_jobs:
        found.append(f"{part.pending_jobs} jobs wait in this partition and may come first")
    if hours is None and part.default_time_s is not None:
        found.append(f"without -t a job is stopped after {_time(part.default_time_s)}")
    own = cluster.user
    for limit in _limits_that_hold(own, part):
        if limit.gpus_per_job is not None and gpus > limit.gpus_per_job:
            found.append(f"{limit.source} allows {limit.gpus_per_job} GPUs a job")
        if limit.gpus_per_user is not None and gpus > limit.gpus_per_user:
            found.append(f"{limit.source} allows {limit.gpus_per_user} GPUs at a time")
        if limit.max_wall_s is not None and hours is not None and hours * 3600 > limit.max_wall_s:
            found.append(f"{limit.source} lets a job run {_time(limit.max_wall_s)} at most")
        if limit.running_jobs is not None and own and own.running is not None and own.running >= limit.running_jobs:
            found.append(f"{limit.source} allows {limit.running_jobs} running jobs and you have {own.running}")
    return found


def _limits_that_hold(own: ClusterUser | None, part: Partition) -> list[Limit]:
    """The limits of the account that the job would use, of the partition's QoS, and of a QoS that is the only one."""
    if own is None or own.enforced is False:
        return []
    account = part.account or own.default_account
    sources = {f"account {account}", f"account {account} in partition {part.name}", f"QoS {part.qos}"}
    if len(own.qos) == 1:
        sources.add(f"QoS {own.qos[0]}")
    return [limit for limit in own.limits if limit.source in sources]


def rank(path: GpuPath) -> tuple[object, ...]:
    """What paths are sorted by, the shortest first."""
    return (
        path.access != "yes",
        ("yes", "maybe", "unknown").index(path.fits),
        (True, None, False).index(path.free_now),
        path.expected_start or "9999",
        # In whole GiB: an H100 with 79.10 GiB is not smaller than an A100 with 79.13.
        round(path.memory_bytes / GIB) if path.memory_bytes is not None else math.inf,
        path.waiting_jobs or 0,
        path.memory_most_bytes or math.inf,
        len(path.flags),
        path.partition,
    )


def with_expected_starts(
    found: GpuPaths,
    environ: Mapping[str, str],
    limit_s: float = 10.0,
    run: Callable[..., Any] = run_child,
    most: int = 5,
) -> GpuPaths:
    """The paths with SLURM's own word on when such a job would start, for the first `most` that are not free now.

    Asked with `sbatch --test-only`, which submits nothing. A request that SLURM refuses is left out, with its reason.
    """
    sbatch = find_program("sbatch", environ, SLURM_FOLDERS)
    if sbatch is None:
        return found
    asker = Asker(clean(environ), limit_s, run)
    paths: list[GpuPath] = []
    left_out = list(found.left_out)
    asked = 0
    for path in found.paths:
        if path.free_now or asked >= most:
            paths.append(path)
            continue
        asked += 1
        argv: Sequence[str] = [sbatch, "--test-only", *path.flags, "--wrap=true"]
        text, problem = asker.listen(argv, errors_too=True)
        start, refusal = (None, None) if problem else parse_test_only(text)
        if refusal is not None:
            left_out.append(f"{path.partition}, {path.type or 'GPU'}: {os.path.basename(sbatch)} says: {refusal}")
            continue
        if problem:
            path = replace(path, cautions=[*path.cautions, f"when it would start is not known: sbatch {problem}"])
        elif start:
            path = replace(path, expected_start=start, why=f"{path.why}; expected to start at {start}")
        paths.append(path)
    return GpuPaths(sorted(paths, key=rank), left_out)


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def _time(seconds: int) -> str:
    """Seconds as SLURM's -t takes them: 04:00:00, 2-00:00:00."""
    minutes, secs = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours:02}:{minutes:02}:{secs:02}"
    return f"{days}-{clock}" if days else clock

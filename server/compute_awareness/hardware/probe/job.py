"""What a batch job or a rented flavor may take: memory, CPUs and time, as the scheduler's variables tell them."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping

from ...units import MIB
from .child import run_child
from .figures import amount, whole
from .report import JobLimits

_SQUEUE_LIMIT_S = 3.0
# A SLURM job without a time limit ends, on paper, a year from its start.
_FAR_S = 360 * 86400


def in_slurm_job(environ: Mapping[str, str]) -> bool:
    return bool(environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID"))


def job_memory(environ: Mapping[str, str]) -> tuple[int, str] | None:
    """(bytes, the variable that says so) that the job may take on this node; None where nothing tells.

    SLURM's figures are MiB per node, per CPU or per GPU, and 0 means all there is; a cluster without cgroups still
    kills a job above them. Hugging Face's Spaces and Jobs have MEMORY, e.g. `15Gi`.
    """
    if in_slurm_job(environ):
        each = (("SLURM_MEM_PER_NODE", ""), ("SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"))
        for name, counted in (*each, ("SLURM_MEM_PER_GPU", "SLURM_GPUS_ON_NODE")):
            size = whole(environ.get(name, ""))
            count = whole(environ.get(counted, "")) if counted else 1
            if size and count:
                return size * count * MIB, f"{name} x {counted}" if counted else name
        return None
    size = amount(environ.get("MEMORY", "")) if on_hugging_face(environ) else None
    # A bare number would be bytes: such a container does not exist, so it means something else.
    return (size, "MEMORY") if size is not None and size >= MIB else None


def job_cpus(environ: Mapping[str, str]) -> float | None:
    """CPUs the job has on this node: SLURM_CPUS_ON_NODE, or CPU_CORES on Hugging Face (may be a fraction)."""
    if in_slurm_job(environ):
        return whole(environ.get("SLURM_CPUS_ON_NODE", "")) or None
    text = environ.get("CPU_CORES", "").strip() if on_hugging_face(environ) else ""
    return float(text) or None if re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,3})?", text) else None


def on_hugging_face(environ: Mapping[str, str]) -> bool:
    """In a Space or a Job. Their names are generic, so several are wanted, and the form of a job's id."""
    if environ.get("SPACE_ID"):
        return any(environ.get(name) for name in ("SPACE_HOST", "SPACE_AUTHOR_NAME"))
    names = ("ACCELERATOR", "CPU_CORES", "MEMORY")
    return bool(re.fullmatch("[0-9a-f]{24}", environ.get("JOB_ID", ""))) and all(environ.get(name) for name in names)


def probe_job(
    environ: Mapping[str, str], limit_s: float = _SQUEUE_LIMIT_S, now: float | None = None
) -> JobLimits | None:
    """The limits of the job this process is in; None where it is in none that is known.

    SLURM tells the end in SLURM_JOB_END_TIME (24.11 does, 22.05 does not); else `squeue` is asked, for `limit_s`
    seconds at most. `now` is the time in seconds since 1970, by default the clock's.
    """
    memory, cpus = job_memory(environ), job_cpus(environ)
    sizes = {"memory_bytes": memory[0] if memory else None, "cpus": cpus}
    if not in_slurm_job(environ):
        if not on_hugging_face(environ):
            return None
        return JobLimits(source="Hugging Face Space" if environ.get("SPACE_ID") else "Hugging Face job", **sizes)
    number = environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID") or ""
    end = whole(environ.get("SLURM_JOB_END_TIME", ""))
    left = None
    if end:
        left = max(0, end - int(time.time() if now is None else now))
        left = left if left < _FAR_S else None
    elif whole(number) is not None:
        left = _asked(number, environ, limit_s)
    shards = whole(environ.get("SLURM_SHARDS_ON_NODE", ""))
    named = f"SLURM job {number}" if whole(number) is not None else "SLURM job"
    return JobLimits(source=named, seconds_left=left, gpu_shares=shards or None, **sizes)


def time_left(text: str) -> int | None:
    """Seconds of what `squeue -o %L` prints (`[days-]hours:minutes:seconds`); None for UNLIMITED, NOT_SET, INVALID."""
    found = re.fullmatch(r"(?:(?:([0-9]{1,6})-)?([0-9]{1,2}):)?([0-9]{1,2}):([0-9]{2})", text.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _asked(number: str, environ: Mapping[str, str], limit_s: float) -> int | None:
    squeue = shutil.which("squeue", path=environ.get("PATH", os.defpath))
    if squeue is None:
        return None
    try:
        done = run_child([squeue, "-h", "-j", number, "-o", "%L"], environ, limit_s)
    except OSError:
        return None
    lines = done.out.split()
    return time_left(lines[0]) if done.code == 0 and len(lines) == 1 else None

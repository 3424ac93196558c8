"""What is wrong with a machine's limits: shared memory, ulimits, the job's, and where the model cache lies."""

from __future__ import annotations

from ..units import MIB, duration, gib
from .compute import Compute
from .finding import Finding

# What Docker and Kubernetes give a container that asks for nothing.
_DOCKER_SHM = 64 * MIB
# A model is a few dozen files in the cache, each with a link.
_FEW_FILES = 100


def limit_findings(compute: Compute) -> list[Finding]:
    """Findings about `compute.limits` and the filesystem of the model cache, in no order."""
    return [*_address_space(compute), *_shm(compute), *_job(compute), *_place(compute), *_cache(compute)]


def _address_space(compute: Compute) -> list[Finding]:
    limit = compute.limits.address_space_bytes if compute.limits else None
    cards = [card for card in compute.accelerators if card.total_bytes and card.problem is None and card.visible]
    largest = max(cards, key=lambda card: card.total_bytes or 0, default=None)
    if limit is None or largest is None or limit >= (largest.total_bytes or 0):
        return []
    return [Finding(
        id="address_space_too_small", severity="error",
        message=(
            f"ulimit -v allows {gib(limit)} of addresses, less than the {gib(largest.total_bytes or 0)} of "
            f"{largest.name} (card {largest.index}): CUDA reserves addresses for all of it and will not start"
        ),
        cure="Run 'ulimit -v unlimited' before the experiment, or have the limit raised; jobs are limited by cgroups.",
    )]  # fmt: skip


def _shm(compute: Compute) -> list[Finding]:
    limits = compute.limits
    if limits is None or limits.shm_total_bytes is None or limits.shm_free_bytes is None:
        return []
    if min(limits.shm_total_bytes, limits.shm_free_bytes) > _DOCKER_SHM:
        return []
    return [Finding(
        id="small_shm", severity="warning",
        message=(
            f"/dev/shm has {gib(limits.shm_free_bytes)} free of {gib(limits.shm_total_bytes)}: DataLoader workers "
            "hand batches over through it and die with a bus error when it is full"
        ),
        cure=(
            "Start the container with --shm-size=8g or --ipc=host (Kubernetes: an emptyDir of medium Memory on "
            "/dev/shm), or use num_workers=0."
        ),
    )]  # fmt: skip


def _job(compute: Compute) -> list[Finding]:
    job = compute.limits.job if compute.limits else None
    findings: list[Finding] = []
    if job is not None and job.gpu_shares:
        shares = f"{job.gpu_shares} share{'s' * (job.gpu_shares > 1)}"
        findings.append(Finding(
            id="shared_gpu", severity="warning",
            message=f"{job.source} has {shares} of a GPU, not the card: other jobs may take its memory at any time",
            cure="Ask for a whole card (--gres=gpu:1) where the experiment needs most of its memory.",
        ))  # fmt: skip
    if job is not None and job.seconds_left is not None:
        findings.append(Finding(
            id="job_time", severity="info", message=f"{job.source} is ended in {duration(job.seconds_left)}",
        ))  # fmt: skip
    return findings


def _place(compute: Compute) -> list[Finding]:
    first = next((layer for layer in compute.environment.layers if layer.id == compute.environment.primary), None)
    if first is None or first.id != "slurm_login_node" or first.confidence == "low":
        return []
    return [Finding(
        id="login_node", severity="warning", message="this looks like a cluster's login node, where nothing should run",
        cure="Submit the experiment as a job, with sbatch or srun.",
    )]  # fmt: skip


def _cache(compute: Compute) -> list[Finding]:
    host = compute.host
    findings: list[Finding] = []
    if host.disk_kind == "memory":
        findings.append(Finding(
            id="cache_in_memory", severity="warning",
            message=f"{host.disk_path} is in RAM ({host.disk_filesystem}): models fill RAM and are lost on restart",
            cure="Set HF_HOME to a folder on a disk.",
        ))  # fmt: skip
    if host.disk_kind == "overlay":
        findings.append(Finding(
            id="cache_in_container", severity="info",
            message=f"{host.disk_path} is in the container's own layer: models are lost when the container is removed",
            cure="Set HF_HOME to a folder that is mounted from outside.",
        ))  # fmt: skip
    if host.disk_free_inodes is not None and host.disk_free_inodes < _FEW_FILES:
        findings.append(Finding(
            id="no_inodes", severity="error",
            message=f"only {host.disk_free_inodes} more files can be made at {host.disk_path}, whatever space is free",
            cure="Delete files there, or set HF_HOME to a folder on another filesystem.",
        ))  # fmt: skip
    return findings

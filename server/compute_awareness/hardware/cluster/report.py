"""What a scheduler tells about its GPUs: the shape of the report. Plain dataclasses, standard library only.

A figure that was not read is None, never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

_STRICT = {"extra": "forbid"}  # pydantic reads these classes as strict models
Access = Literal["yes", "no", "unknown"]


@dataclass
class GpuPool:
    """GPUs of one kind that are asked for in the same way: of one SLURM partition, or of one kind of node."""

    __pydantic_config__ = _STRICT

    partition: str | None = field(metadata={"description": "SLURM partition; null for Ray and Kubernetes"})
    type: str | None = field(
        metadata={
            "description": "As the scheduler names it: GRES type, product label, Ray's accelerator type; null = none"
        }
    )
    resource: str = field(
        metadata={"description": "What a job asks for, e.g. gpu, nvidia.com/gpu, nvidia.com/mig-1g.10gb, GPU"}
    )
    nodes: int = field(metadata={"description": "Nodes that have such GPUs"})
    total: int = field(metadata={"description": "GPUs (or MIG slices) on those nodes, in whatever state"})
    free: int | None = field(metadata={"description": "Those a job could have now; null where that was not told"})
    not_free: dict[str, int] = field(
        default_factory=dict, metadata={"description": "Why the others cannot be had now, and how many"}
    )
    most_on_a_node: int = field(default=0, metadata={"description": "Most that one node has"})
    most_free_on_a_node: int | None = field(default=None, metadata={"description": "Most that are free on one node"})
    free_cpus: int | None = field(
        default=None, metadata={"description": "CPUs left beside free GPUs, on the node with most"}
    )
    free_ram_bytes: int | None = field(
        default=None, metadata={"description": "RAM left beside free GPUs, on the node with most"}
    )
    shared: str | None = field(
        default=None, metadata={"description": "Why one of these is less than a whole card, if so"}
    )
    features: list[str] = field(
        default_factory=list, metadata={"description": "Node features or labels that all its nodes have"}
    )
    gpu_ids: list[str] = field(
        default_factory=list, metadata={"description": "Keys in the GPU table of the cards it may be"}
    )
    memory_bytes: int | None = field(
        default=None, metadata={"description": "Memory that a process can have on one, at least"}
    )
    memory_most_bytes: int | None = field(
        default=None, metadata={"description": "The same at most, where the name leaves a choice"}
    )
    memory_basis: str | None = field(
        default=None, metadata={"description": "What the memory rests on, or why it is not known"}
    )
    constraint: str | None = field(
        default=None, metadata={"description": "Feature to ask for (-C) so as to get these and not others"}
    )


@dataclass
class GpuTotal:
    """GPUs of one type in the whole cluster, each node counted once however many partitions it is in."""

    __pydantic_config__ = _STRICT

    type: str | None = field(metadata={"description": "As the scheduler names it; null = untyped"})
    nodes: int
    total: int
    free: int | None = field(metadata={"description": "Those a job could have now; null where that was not told"})
    not_free: dict[str, int] = field(
        default_factory=dict, metadata={"description": "Why the others cannot be had now, and how many"}
    )


@dataclass
class SharedGpus:
    """SLURM's parts of GPUs (shards, MPS percent) in one partition: a job with one has no card to itself."""

    __pydantic_config__ = _STRICT

    partition: str
    kind: Literal["shard", "mps"]
    type: str | None
    nodes: int
    total: int = field(metadata={"description": "Shards, or percent of a card for MPS"})
    used: int | None = field(
        metadata={"description": "Null where SLURM does not tell it rightly (before 24.11 it does not)"}
    )


@dataclass
class Partition:
    """One SLURM partition."""

    __pydantic_config__ = _STRICT

    name: str
    default: bool = field(metadata={"description": "Jobs that name no partition go here"})
    state: str | None = field(
        metadata={"description": "UP; DOWN and INACTIVE start no job, DRAIN and INACTIVE take none"}
    )
    nodes: int | None
    node_states: dict[str, int] = field(default_factory=dict, metadata={"description": "Nodes by state"})
    max_time_s: int | None = field(
        default=None, metadata={"description": "Longest a job may run, in seconds; null where unlimited or not told"}
    )
    unlimited_time: bool = field(default=False, metadata={"description": "No limit on a job's run time"})
    default_time_s: int | None = field(
        default=None, metadata={"description": "What a job gets that names no time, in seconds"}
    )
    max_nodes: int | None = field(
        default=None, metadata={"description": "Most nodes of one job; null where unlimited or not told"}
    )
    allow_accounts: list[str] = field(
        default_factory=list, metadata={"description": "Accounts that may use it; empty = all"}
    )
    qos: str | None = field(default=None, metadata={"description": "QoS whose limits hold for every job here"})
    access: Access = field(default="unknown", metadata={"description": "Whether this user's jobs may run here"})
    access_why: str = field(default="", metadata={"description": "What that rests on"})
    account: str | None = field(
        default=None, metadata={"description": "Account to name (-A), where the user's default one is not allowed"}
    )
    pending_jobs: int | None = field(default=None, metadata={"description": "Jobs waiting here, of all users"})


@dataclass
class OwnJob:
    """One of the user's own jobs."""

    __pydantic_config__ = _STRICT

    id: str
    partition: str
    state: str
    gpus: int | None = field(metadata={"description": "Whole GPUs it holds or asks for; null where not told"})
    time_left_s: int | None = field(metadata={"description": "Seconds to its limit"})
    start: str | None = field(metadata={"description": "Start, or expected start, in the cluster's local time"})
    reason: str | None = field(default=None, metadata={"description": "Why it waits"})


@dataclass
class Limit:
    """One of the limits that SLURM's accounting sets for the user. Null = no limit told."""

    __pydantic_config__ = _STRICT

    source: str = field(metadata={"description": "e.g. account physics, QoS short"})
    max_wall_s: int | None = None
    gpus_per_job: int | None = None
    gpus_per_user: int | None = field(
        default=None, metadata={"description": "GPUs of all the user's running jobs (or of the group's) together"}
    )
    running_jobs: int | None = None
    submitted_jobs: int | None = None


@dataclass
class ClusterUser:
    """What the scheduler tells about the user who asks."""

    __pydantic_config__ = _STRICT

    name: str | None
    accounts: list[str] | None = field(
        default=None, metadata={"description": "SLURM accounts of the user; null where not told"}
    )
    default_account: str | None = None
    qos: list[str] = field(default_factory=list, metadata={"description": "QoS the user may ask for"})
    enforced: bool | None = field(
        default=None, metadata={"description": "Whether jobs without an account are refused and limits hold"}
    )
    limits: list[Limit] = field(default_factory=list)
    running: int | None = field(default=None, metadata={"description": "The user's own jobs that run"})
    pending: int | None = field(default=None, metadata={"description": "The user's own jobs that wait"})
    jobs: list[OwnJob] = field(default_factory=list, metadata={"description": "The first 100 of them"})


@dataclass
class Cluster:
    """One scheduler and its GPUs. `problems` says what could not be read; the rest stands."""

    __pydantic_config__ = _STRICT

    scheduler: Literal["slurm", "ray", "kubernetes"]
    name: str | None = field(metadata={"description": "Cluster name, address or context"})
    version: str | None = None
    pools: list[GpuPool] = field(default_factory=list, metadata={"description": "GPUs by partition and type"})
    totals: list[GpuTotal] = field(default_factory=list, metadata={"description": "GPUs by type, every node once"})
    shared: list[SharedGpus] = field(
        default_factory=list, metadata={"description": "Shards and MPS, which are no whole GPUs"}
    )
    partitions: list[Partition] = field(default_factory=list)
    user: ClusterUser | None = None
    problems: list[str] = field(default_factory=list)
    summary: str = ""

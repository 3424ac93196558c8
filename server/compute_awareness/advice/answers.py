"""The shapes of a verdict and of advice."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["fits", "tight", "does_not_fit", "unknown"]
Effect = Literal["equivalent", "numerically_different", "different_experiment"]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)


class Verdict(_Answer):
    """Whether it fits."""

    status: Status
    device: str = Field(description="What it was held against, e.g. 'NVIDIA A100-SXM4-80GB' or 'CPU (RAM)'")
    free_bytes: int | None = Field(description="Free memory there; null if not known")
    needed_bytes: int = Field(description="peak.device on a GPU, or the process's RAM on a CPU")
    headroom_bytes: int | None = Field(description="free - needed; negative where it does not fit")
    why: str


class Change(_Answer):
    """One change to the workload, re-estimated."""

    strategy: Literal[
        "selective_caching", "smaller_batch", "gradient_checkpointing", "mixed_precision", "offloading",
        "layer_by_layer", "smaller_buffers", "shorter_sequences", "quantization", "low_rank", "several_gpus",
        "combination",
    ]  # fmt: skip
    title: str = Field(description="What to do, with this workload's numbers")
    applies: bool = Field(description="False where it saves nothing here; `title` says why")
    patch: dict[str, Any] = Field(default_factory=dict, description="Workload fields to change")
    peak_before: int = Field(description="peak.device now, bytes")
    peak_after: int = Field(description="peak.device with the change, bytes")
    saving: int = Field(description="Bytes saved on the device; 0 where it does not apply")
    host_bytes: int = Field(default=0, description="RAM it takes instead, bytes")
    fits: bool | None = Field(
        default=None, description="Whether it then fits the card in question; null if no card is known"
    )
    effect: Effect = Field(description="What it does to the result")
    effect_detail: str = ""
    cost: str = Field(default="", description="What it costs in time")
    slowdown: float = Field(default=1.0, description="Times as long, roughly; 1 = no cost that matters")
    costless: bool = Field(
        default=False, description="Takes no more time and loses nothing that is read (reads): no reason to ask"
    )
    code: str = Field(default="", description="The code for this library with this workload's values")


class NextStep(_Answer):
    """A call of one of the MCP server's tools that may come next."""

    tool: str
    arguments: dict[str, Any] = Field(description="All of them: the call as it is")
    when: str = Field(description="What it is for")


class GpuChoice(_Answer):
    """A GPU of the table that fits."""

    gpu_id: str
    name: str
    count: int = 1
    usable_bytes: int = Field(description="Memory a process can have on it: NVML total minus driver reserve")
    headroom_bytes: int
    usd_per_hour: float | None = Field(default=None, description="Cheapest price known; null if none")
    price_platform: str | None = None
    price_date: str | None = Field(default=None, description="When it was read; or live, with the time")
    seconds_low: float | None = Field(default=None, description="The run on it at its shortest")
    seconds_high: float | None = Field(default=None, description="The run on it at its longest")
    usd_low: float | None = Field(default=None, description="USD of that run; null if no price is known")
    usd_high: float | None = None
    note: str = ""


class PlatformChoice(_Answer):
    """A place that rents a GPU that fits."""

    platform: str
    gpu: str
    usd_per_hour: float | None
    price_date: str
    usd_low: float = Field(default=0, description="USD of the whole run at its shortest, by time's range")
    usd_high: float = Field(default=0, description="USD of the whole run at its longest")
    session_limit: str = ""
    how: str = Field(default="", description="How to start it there")
    gotchas: list[str] = Field(default_factory=list)


class ClusterPath(_Answer):
    """A way to a GPU that fits on a SLURM cluster that was seen."""

    cluster: str
    partition: str
    gpu: str | None = Field(description="As the cluster names it; null = it names no types")
    free_now: bool | None = Field(description="Whether a job would start at once; null if not known")
    interactive: str = Field(description="A shell on such a GPU")
    batch: str = Field(description="The same for a script job.sh")
    why: str
    cautions: list[str] = Field(default_factory=list)


class Advice(_Answer):
    changes: list[Change] = Field(default_factory=list)
    solutions: list[Change] = Field(
        default_factory=list,
        description="Where it does not fit: the cheapest changes, alone or together, with which it does",
    )
    largest: dict[str, int] = Field(
        default_factory=dict, description="Where it does not fit: the largest batch_size or seq_len alone that does"
    )
    gpus: list[GpuChoice] = Field(default_factory=list)
    platforms: list[PlatformChoice] = Field(default_factory=list)
    paths: list[ClusterPath] = Field(
        default_factory=list, description="On a SLURM cluster that was seen: what to ask for, the shortest way first"
    )

"""What compute there is: the whole report, read strictly wherever it was made."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from .cluster.report import Cluster
from .probe.report import (
    FORMAT,
    Accelerator,
    Environment,
    EnvironmentLayer,
    GpuLinks,
    GpuProcess,
    Host,
    Interpreter,
    JobLimits,
    Limits,
    ProbeProblem,
    Supports,
    TorchBuild,
    UnmetRequirement,
    WorkspacePython,
)

__all__ = [
    "THIS_MACHINE", "Accelerator", "Cluster", "Compute", "Environment", "EnvironmentLayer", "GpuLinks", "GpuProcess",
    "Host", "Interpreter", "JobLimits", "Limits", "ProbeProblem", "Supports", "TorchBuild", "UnmetRequirement",
    "WorkspacePython",
]  # fmt: skip

THIS_MACHINE = "this machine"


class Compute(BaseModel):
    """What there is. Bytes are integers. Made elsewhere it is read by `reading.py`."""

    # A report made here needs no validation, and building the validator takes a quarter of a cold `detect`.
    model_config = ConfigDict(extra="forbid", defer_build=True)
    format: int = Field(default=FORMAT, description="Number of this layout; a reader knows it and those below")
    host: Host
    environment: Environment
    accelerators: list[Accelerator] = Field(default_factory=list)
    links: list[GpuLinks] = Field(default_factory=list, description="How several GPUs are connected")
    driver_version: str | None = None
    driver_cuda_version: str | None = Field(
        default=None, description="Highest CUDA the NVIDIA driver supports, e.g. 13.0"
    )
    python: Interpreter | None = None
    interpreters: list[WorkspacePython] = Field(
        default_factory=list, description="Pythons at hand by their files, nearest first, at most 20"
    )
    settings: dict[str, str] = Field(
        default_factory=dict,
        description="Environment variables set here that change a run, e.g. HF_HUB_OFFLINE, CUDA_VISIBLE_DEVICES",
    )
    clusters: list[Cluster] = Field(
        default_factory=list, description="Schedulers that can be asked from here, and their GPUs"
    )
    limits: Limits | None = Field(default=None, description="null where they could not be read")
    problems: list[ProbeProblem] = Field(default_factory=list)
    seen_from: str = Field(default=THIS_MACHINE, description="Whose machine this describes")
    summary: str = ""

    def usable(self) -> list[Accelerator]:
        """Accelerators the experiment can use and whose free memory is known, most free first."""
        cards = [a for a in self.accelerators if a.visible and a.problem is None and a.free_bytes is not None]
        return sorted(cards, key=lambda a: -(a.free_bytes or 0))

    def plain(self) -> dict[str, Any]:
        """What `model_dump(mode="json")` gives, without building a serializer for it."""
        return {name: _plain(getattr(self, name)) for name in type(self).model_fields}

    def elsewhere(self) -> str | None:
        """The name of the machine this describes; None where it is the one that reads it."""
        return None if self.seen_from.startswith(THIS_MACHINE) else self.seen_from


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value

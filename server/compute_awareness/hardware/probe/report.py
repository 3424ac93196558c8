"""The parts of the report. Plain dataclasses: pydantic reads them as they stand (`hardware/compute.py`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FORMAT = 1
"""Number of the report's layout: one more in each release that adds a field or changes what one means."""


def _says(description: str) -> dict[str, str]:
    """The metadata of a field: its description, which the schemas show."""
    return {"description": description}


_STRICT = {"extra": "forbid"}


@dataclass
class GpuProcess:
    __pydantic_config__ = _STRICT
    pid: int
    used_bytes: int | None = field(
        metadata=_says("Bytes it holds on the card; null where the driver does not say"), default=None
    )


@dataclass
class Accelerator:
    """One GPU (or MIG slice, or Apple's unified memory)."""

    __pydantic_config__ = _STRICT
    index: int = field(metadata=_says("Position in NVML's order; CUDA's own order may differ"))
    kind: Literal["cuda", "mps"]
    name: str
    uuid: str | None = None
    gpu_id: str | None = field(metadata=_says("Key in the GPU table, where the name is known"), default=None)
    total_bytes: int | None = field(
        metadata=_says("Memory of the card; null where the driver does not say"), default=None
    )
    reserved_bytes: int | None = field(metadata=_says("Kept by the driver, never usable"), default=None)
    used_bytes: int | None = field(metadata=_says("In use by all processes now"), default=None)
    free_bytes: int | None = field(metadata=_says("Free now"), default=None)
    compute_capability: str | None = field(metadata=_says("e.g. 8.0"), default=None)
    visible: bool = field(metadata=_says("CUDA_VISIBLE_DEVICES lets the experiment see it"), default=True)
    mig_of: int | None = field(metadata=_says("Index of the parent card, for a MIG slice"), default=None)
    unified: bool = field(metadata=_says("Shares the machine's RAM: its figures are those of the RAM"), default=False)
    processes: list[GpuProcess] = field(default_factory=list)
    problem: str | None = field(metadata=_says("Why it cannot be used or read, if so"), default=None)


@dataclass
class Host:
    """The machine around the accelerator, with the limits that really bind."""

    __pydantic_config__ = _STRICT
    os: str = field(metadata=_says("System, release and processor, e.g. Linux 6.8.0-45-generic x86_64"))
    cpus: float = field(metadata=_says("CPUs this process may use (affinity and container quota)"))
    ram_total_bytes: int = field(metadata=_says("RAM that exists, or the container's limit where lower"))
    ram_available_bytes: int = field(metadata=_says("RAM that can still be taken"))
    hostname: str = ""
    ram_limited_by: str | None = field(
        metadata=_says("What lowers the limit, e.g. cgroup v2 /sys/fs/cgroup/memory.max"), default=None
    )
    disk_path: str = field(metadata=_says("The Hugging Face cache the disk figures are for"), default="")
    disk_free_bytes: int | None = None


@dataclass
class EnvironmentLayer:
    """One thing this environment is, with what shows it."""

    __pydantic_config__ = _STRICT
    id: str = field(metadata=_says("e.g. colab, slurm, docker, ssh_session, local"))
    layer: str = field(
        metadata=_says("platform, scheduler, framework, notebook, ci, container, vm, access, hardware or fallback")
    )
    confidence: Literal["high", "medium", "low"]
    evidence: list[str] = field(metadata=_says("The signals seen; values only where they are no secrets"))
    details: dict[str, str] = field(default_factory=dict)


@dataclass
class Environment:
    __pydantic_config__ = _STRICT
    primary: str = field(metadata=_says("Id of the first layer that tells where this is"))
    layers: list[EnvironmentLayer]
    clear: bool = field(metadata=_says("Whether it is plain that experiments run in this place"))


@dataclass
class TorchBuild:
    """torch in the experiment's Python, as it reports itself."""

    __pydantic_config__ = _STRICT
    version: str
    cuda_build: str | None = field(metadata=_says("CUDA the wheel was built for; null = CPU-only"), default=None)
    cuda_available: bool = False
    mps_available: bool = False
    allocated_bytes: int | None = field(
        metadata=_says("torch.cuda.memory_allocated in the probing process"), default=None
    )
    reserved_bytes: int | None = field(
        metadata=_says("torch.cuda.memory_reserved in the probing process"), default=None
    )
    arch_list: list[str] = field(metadata=_says("Compiled GPU architectures, e.g. sm_80"), default_factory=list)


@dataclass
class Interpreter:
    """The experiment's Python, looked at from outside in a child process."""

    __pydantic_config__ = _STRICT
    path: str
    source: str = field(metadata=_says("Why this one: --python, VIRTUAL_ENV, CONDA_PREFIX, .venv, or PATH"))
    version: str | None = None
    torch: TorchBuild | None = None
    libraries: dict[str, str] = field(metadata=_says("Installed versions by distribution name"), default_factory=dict)
    problem: str | None = None


@dataclass
class ProbeProblem:
    """A probe that failed alone; the rest of the report stands."""

    __pydantic_config__ = _STRICT
    probe: str
    reason: str

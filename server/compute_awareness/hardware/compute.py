"""What compute there is: the shape of the report."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Report(BaseModel):
    model_config = ConfigDict(extra="forbid")


class GpuProcess(_Report):
    pid: int
    used_bytes: int | None = Field(
        default=None, description="Bytes it holds on the card; null where the driver does not say"
    )


class Accelerator(_Report):
    """One GPU (or MIG slice, or Apple's unified memory)."""

    index: int = Field(description="Position in NVML's order; CUDA's own order may differ")
    kind: Literal["cuda", "mps"]
    name: str
    uuid: str | None = None
    gpu_id: str | None = Field(default=None, description="Key in the GPU table, where the name is known")
    total_bytes: int | None = Field(default=None, description="Memory of the card; null where the driver does not say")
    reserved_bytes: int | None = Field(default=None, description="Kept by the driver, never usable")
    used_bytes: int | None = Field(default=None, description="In use by all processes now")
    free_bytes: int | None = Field(default=None, description="Free now")
    compute_capability: str | None = Field(default=None, description="e.g. 8.0")
    visible: bool = Field(default=True, description="CUDA_VISIBLE_DEVICES lets the experiment see it")
    mig_of: int | None = Field(default=None, description="Index of the parent card, for a MIG slice")
    unified: bool = Field(default=False, description="Shares the machine's RAM: its figures are those of the RAM")
    processes: list[GpuProcess] = Field(default_factory=list)
    problem: str | None = Field(default=None, description="Why it cannot be used or read, if so")


class Host(_Report):
    """The machine around the accelerator, with the limits that really bind."""

    os: str = Field(description="System, release and processor, e.g. Linux 6.8.0-45-generic x86_64")
    hostname: str = ""
    cpus: float = Field(description="CPUs this process may use (affinity and container quota)")
    ram_total_bytes: int = Field(description="RAM that exists, or the container's limit where lower")
    ram_available_bytes: int = Field(description="RAM that can still be taken")
    ram_limited_by: str | None = Field(
        default=None, description="What lowers the limit, e.g. cgroup v2 /sys/fs/cgroup/memory.max"
    )
    disk_path: str = Field(default="", description="The Hugging Face cache the disk figures are for")
    disk_free_bytes: int | None = None


class EnvironmentLayer(_Report):
    """One thing this environment is, with what shows it."""

    id: str = Field(description="e.g. colab, slurm, docker, ssh_session, local")
    layer: str = Field(
        description="platform, scheduler, framework, notebook, ci, container, vm, access, hardware or fallback"
    )
    confidence: Literal["high", "medium", "low"]
    evidence: list[str] = Field(description="The signals seen; values only where they are no secrets")
    details: dict[str, str] = Field(default_factory=dict)


class Environment(_Report):
    primary: str = Field(description="Id of the first layer that tells where this is")
    layers: list[EnvironmentLayer]
    clear: bool = Field(description="Whether it is plain that experiments run in this place")


class TorchBuild(_Report):
    """torch in the experiment's Python, as it reports itself."""

    version: str
    cuda_build: str | None = Field(default=None, description="CUDA the wheel was built for; null = CPU-only")
    cuda_available: bool = False
    mps_available: bool = False
    allocated_bytes: int | None = Field(default=None, description="torch.cuda.memory_allocated in the probing process")
    reserved_bytes: int | None = Field(default=None, description="torch.cuda.memory_reserved in the probing process")
    arch_list: list[str] = Field(default_factory=list, description="Compiled GPU architectures, e.g. sm_80")


class Interpreter(_Report):
    """The experiment's Python, looked at from outside in a child process."""

    path: str
    source: str = Field(description="Why this one: --python, VIRTUAL_ENV, CONDA_PREFIX, .venv, or PATH")
    version: str | None = None
    torch: TorchBuild | None = None
    libraries: dict[str, str] = Field(default_factory=dict, description="Installed versions by distribution name")
    problem: str | None = None


class ProbeProblem(_Report):
    """A probe that failed alone; the rest of the report stands."""

    probe: str
    reason: str


class Compute(_Report):
    """What there is. Bytes are integers."""

    host: Host
    environment: Environment
    accelerators: list[Accelerator] = Field(default_factory=list)
    driver_version: str | None = None
    driver_cuda_version: str | None = Field(
        default=None, description="Highest CUDA the NVIDIA driver supports, e.g. 13.0"
    )
    python: Interpreter | None = None
    settings: dict[str, str] = Field(
        default_factory=dict,
        description="Environment variables set here that change a run, e.g. HF_HUB_OFFLINE, CUDA_VISIBLE_DEVICES",
    )
    problems: list[ProbeProblem] = Field(default_factory=list)
    seen_from: str = Field(default="this machine", description="Whose machine this describes")
    summary: str = ""

    def usable(self) -> list[Accelerator]:
        """Accelerators the experiment can use and whose free memory is known, most free first."""
        cards = [a for a in self.accelerators if a.visible and a.problem is None and a.free_bytes is not None]
        return sorted(cards, key=lambda a: -(a.free_bytes or 0))


def as_compute(data: Any) -> Compute:
    """A report made elsewhere, from decoded JSON. Raises pydantic.ValidationError."""
    return Compute.model_validate(data)

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
    """A process that has memory on a card."""

    __pydantic_config__ = _STRICT
    pid: int
    used_bytes: int | None = field(
        metadata=_says("Bytes it holds on the card; null where the driver does not say"), default=None
    )
    name: str | None = field(metadata=_says("Its program, where /proc tells"), default=None)
    user: str | None = field(metadata=_says("Whose it is, where /proc tells"), default=None)
    own: bool | None = field(
        metadata=_says("Belongs to the user who asks; null where that cannot be told, as in a container"), default=None
    )


@dataclass
class Supports:
    """What the chip can do, from the table of capabilities."""

    __pydantic_config__ = _STRICT
    bf16: bool = field(metadata=_says("bfloat16 in hardware; elsewhere torch emulates it, slowly"))
    fp8: bool = field(metadata=_says("8-bit float matrix products (torch._scaled_mm)"))
    flash_attention: bool = field(metadata=_says("torch's flash kernel for scaled_dot_product_attention"))
    torch: str = field(metadata=_says("Which torch wheels have code for it"), default="")


@dataclass
class Accelerator:
    """One GPU (or MIG slice, or Apple's unified memory, or TPU chip)."""

    __pydantic_config__ = _STRICT
    index: int = field(metadata=_says("Position among the cards of its kind, in the driver's order; CUDA's may differ"))
    kind: Literal["cuda", "rocm", "xpu", "mps", "tpu"]
    name: str
    uuid: str | None = None
    pci: str | None = field(metadata=_says("PCI address, e.g. 0000:01:00.0"), default=None)
    gpu_id: str | None = field(metadata=_says("Key in the GPU table, where the name is known"), default=None)
    total_bytes: int | None = field(
        metadata=_says("Memory of the card; null where the driver does not say"), default=None
    )
    reserved_bytes: int | None = field(metadata=_says("Kept by the driver, never usable"), default=None)
    used_bytes: int | None = field(metadata=_says("In use by all processes now"), default=None)
    free_bytes: int | None = field(metadata=_says("Free now"), default=None)
    free_without_others_bytes: int | None = field(
        metadata=_says("Free if other users' processes ended; null where there are none or it is not told"),
        default=None,
    )
    compute_capability: str | None = field(metadata=_says("NVIDIA's, e.g. 8.0"), default=None)
    arch: str | None = field(metadata=_says("AMD's compiler target, e.g. gfx942"), default=None)
    visible: bool = field(
        metadata=_says("CUDA_VISIBLE_DEVICES, or the variable of its kind, lets the experiment see it"), default=True
    )
    mig_of: int | None = field(metadata=_says("Index of the parent card, for a MIG slice"), default=None)
    mig_profile: str | None = field(metadata=_says("e.g. 3g.40gb, for a MIG slice"), default=None)
    mig_instance: str | None = field(metadata=_says("GPU instance/compute instance, for a MIG slice"), default=None)
    unified: bool = field(metadata=_says("Shares the machine's RAM: its figures are those of the RAM"), default=False)
    virtual: Literal["passthrough", "vgpu"] | None = field(
        metadata=_says("Whole card handed to a virtual machine, or a share of one"), default=None
    )
    compute_mode: Literal["exclusive_process", "prohibited"] | None = field(
        metadata=_says("Where the driver does not let any number of processes in"), default=None
    )
    mps: bool = field(metadata=_says("NVIDIA's MPS daemon shares it between processes"), default=False)
    ecc: bool | None = field(metadata=_says("Error correction of its memory is on"), default=None)
    ecc_lost_bytes: int | None = field(metadata=_says("Memory that error correction takes"), default=None)
    persistence: bool | None = field(metadata=_says("The driver stays loaded between programs"), default=None)
    processes: list[GpuProcess] = field(metadata=_says("The largest ones"), default_factory=list)
    processes_left_out: int = field(metadata=_says("Further processes on the card"), default=0)
    processes_told: bool = field(metadata=_says("False where the driver gives no list, as under WSL"), default=True)
    supports: Supports | None = field(metadata=_says("null where the chip is not known"), default=None)
    problem: str | None = field(metadata=_says("Why it cannot be used or read, if so"), default=None)


@dataclass
class GpuLinks:
    """How some pairs of GPUs are connected."""

    __pydantic_config__ = _STRICT
    link: str = field(
        metadata=_says(
            "nvlink, nvswitch, xgmi, board (two chips of one card), or the way over PCIe: pcie_switch, "
            "pcie_switches, pcie_host_bridge, numa_node, between_sockets"
        )
    )
    pairs: list[str] = field(metadata=_says("Card indices, e.g. 0-1; the one word 'all' for every pair"))
    kind: Literal["cuda", "rocm"] = "cuda"
    lanes: int | None = field(metadata=_says("NVLinks of each pair, or to the switch of each card"), default=None)


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
    disk_free_bytes: int | None = field(
        metadata=_says("Free there to this user, less where a quota leaves less"), default=None
    )
    disk_limited_by: str | None = field(
        metadata=_says("The quota that leaves less than is free, e.g. user quota on /home"), default=None
    )
    disk_filesystem: str | None = field(metadata=_says("What it lies on, e.g. ext4 on /home"), default=None)
    disk_kind: Literal["disk", "network", "memory", "overlay"] | None = field(
        metadata=_says("memory and overlay are lost with the machine or container; null = not known"), default=None
    )
    disk_free_inodes: int | None = field(
        metadata=_says("Files that can still be made there; null where none are counted"), default=None
    )


@dataclass
class JobLimits:
    """What the batch job or rented flavor around this process allows."""

    __pydantic_config__ = _STRICT
    source: str = field(metadata=_says("e.g. SLURM job 12"))
    memory_bytes: int | None = None
    cpus: float | None = None
    seconds_left: int | None = field(metadata=_says("Until it is ended; null = no limit, or not told"), default=None)
    gpu_shares: int | None = field(
        metadata=_says("Shares of a GPU (SLURM shards): others may use the same card"), default=None
    )


@dataclass
class Limits:
    """What binds a process here beside RAM and disk. Null where there is no limit or no such thing."""

    __pydantic_config__ = _STRICT
    address_space_bytes: int | None = field(metadata=_says("ulimit -v"), default=None)
    processes: int | None = field(
        metadata=_says("ulimit -u, or the cgroup's pids.max where lower; threads count"), default=None
    )
    open_files: int | None = field(metadata=_says("ulimit -n"), default=None)
    shm_total_bytes: int | None = field(
        metadata=_says("/dev/shm, through which DataLoader workers hand tensors over"), default=None
    )
    shm_free_bytes: int | None = None
    job: JobLimits | None = None


@dataclass
class EnvironmentLayer:
    """One thing this environment is, with what shows it."""

    __pydantic_config__ = _STRICT
    id: str = field(metadata=_says("e.g. colab, slurm, docker, ssh_session, local"))
    layer: str = field(
        metadata=_says("platform, scheduler, framework, notebook, ci, container, vm, access, hardware or fallback")
    )
    confidence: Literal["high", "medium", "low"]
    evidence: list[str] = field(
        metadata=_says("The signals seen; values only where they are no secrets"), default_factory=list
    )
    details: dict[str, str] = field(default_factory=dict)
    implies: dict[str, str] = field(
        metadata=_says("What follows, by subject: session, lost (by a restart), keep (caches, results), note"),
        default_factory=dict,
    )


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
    cuda_build: str | None = field(metadata=_says("CUDA the wheel was built for; null = no CUDA build"), default=None)
    hip_build: str | None = field(metadata=_says("HIP it was built for, in a build for AMD's ROCm"), default=None)
    xpu_build: str | None = field(metadata=_says("oneAPI it was built for, in a build for Intel's XPU"), default=None)
    cuda_available: bool = field(metadata=_says("torch.cuda.is_available(), true on ROCm too"), default=False)
    xpu_available: bool = False
    mps_available: bool = False
    allocated_bytes: int | None = field(
        metadata=_says("torch.cuda.memory_allocated in the probing process"), default=None
    )
    reserved_bytes: int | None = field(
        metadata=_says("torch.cuda.memory_reserved in the probing process"), default=None
    )
    arch_list: list[str] = field(metadata=_says("Compiled GPU architectures, e.g. sm_80"), default_factory=list)


@dataclass
class UnmetRequirement:
    """What an installed library asks for by its own package metadata and does not find."""

    __pydantic_config__ = _STRICT
    by: str = field(metadata=_says("The library and its version"))
    needs: str = field(metadata=_says("e.g. transformers<6.0.0,>=4.38.1"))
    found: str | None = field(metadata=_says("The version that is there; null = not installed"), default=None)


@dataclass
class Interpreter:
    """The experiment's Python, looked at from outside in a child process."""

    __pydantic_config__ = _STRICT
    path: str
    source: str = field(metadata=_says("Why this one: --python, VIRTUAL_ENV, CONDA_PREFIX, .venv, or PATH"))
    doubt: str | None = field(metadata=_says("Why another Python may be meant, if so"), default=None)
    version: str | None = None
    torch: TorchBuild | None = None
    libraries: dict[str, str] = field(metadata=_says("Installed versions by distribution name"), default_factory=dict)
    unmet: list[UnmetRequirement] = field(
        metadata=_says("Requirements of these libraries that are not met"), default_factory=list
    )
    problem: str | None = None


@dataclass
class WorkspacePython:
    """A Python at hand, by its files alone."""

    __pydantic_config__ = _STRICT
    path: str
    kind: str = field(metadata=_says("venv, uv, poetry, pipenv, conda, pixi or system"))
    source: str = field(metadata=_says("What offers it, e.g. .venv in the working folder"))
    version: str | None = None
    has_torch: bool | None = field(metadata=_says("null where no folder of packages was found"), default=None)
    torch: str | None = field(metadata=_says("torch's version"), default=None)
    chosen: bool = field(metadata=_says("It is the experiment's Python"), default=False)
    also: list[str] = field(metadata=_says("Jupyter kernels that start it"), default_factory=list)


@dataclass
class ProbeProblem:
    """A probe that failed alone; the rest of the report stands."""

    __pydantic_config__ = _STRICT
    probe: str
    reason: str

"""What a workload will take: the shape of the answer, and the one function that makes it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from .card.room import Requests

ComponentName = Literal[
    "weights", "buffers", "activation_cache", "activations", "logits", "gradients", "optimizer_state", "kv_cache",
    "sae_weights", "sae_activations", "activation_store", "temporaries",
]  # fmt: skip
OverheadName = Literal[
    "allocator_rounding",
    "cublas_workspace",
    "backward_workspace",
    "kernel_buffers",
    "cuda_context",
    "backward_handle",
    "nccl",
]
Precision = Literal["exact", "close", "rough"]
ROUGH_MARGIN = 0.15
"""A rough figure may be low by this share of the tensors; the upper end of its range has it on top."""

_STOPS = ("the run fails", "SAELens will stop")
"""How a warning says that the run as given fails for another reason than memory."""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)


class Component(_Answer):
    """One kind of memory."""

    name: ComponentName
    bytes: int = Field(description="Bytes of this component at its largest")
    at_peak: bool = Field(description="Whether any of it is alive at the peak")
    bytes_at_peak: int = Field(
        description="Bytes of it alive at the peak; over all device components these add up to peak.tensors"
    )
    where: Literal["device", "host"] = Field(default="device", description="Accelerator memory, or RAM beside it")
    detail: str = ""


class HookFamily(_Answer):
    """All hooks of one kind, e.g. attn.hook_pattern of every block."""

    hook: str = Field(description="Hook name with the block number left out")
    count: int = Field(description="How many such hooks the cache keeps")
    bytes: int = Field(
        description="Bytes of the storages they keep alive; one shared by two families counts with the first"
    )


class Peak(_Answer):
    """The worst moment, at three distances from the tensors. Bytes."""

    tensors: int = Field(description="Live tensor bytes: torch.cuda.max_memory_allocated before its rounding")
    reserved: int = Field(description="With the caching allocator's segments: torch.cuda.max_memory_reserved")
    device: int = Field(description="With CUDA context and workspaces: what nvidia-smi shows for the process")


class Overhead(_Answer):
    """Bytes on the card beside the tensors: one kind of them, with where the figure comes from."""

    name: OverheadName
    bytes: int = Field(description="Expected; over all overheads and peak.tensors these add up to peak.device")
    low: int
    high: int
    source: str = Field(description="Where the figures come from")


class Range(_Answer):
    """Bytes on the device: the true figure is expected between these."""

    low: int
    high: int


class WorkPart(_Answer):
    """One kind of work and how often the run does it: a forward pass, an optimizer step."""

    what: str
    times: int = Field(default=1, description="How often, over the whole run")
    flops: int = Field(description="Floating-point operations of its matrix products, each time")
    moved_bytes: int = Field(description="Bytes that those read and write at the least, each time")
    activation_bytes: int = Field(default=0, description="Of these bytes, those that are not weights")
    kernels: int = Field(default=0, description="Kernels started, roughly, each time")
    crossing_bytes: int = Field(default=0, description="Weights that come to the card from elsewhere, each time")
    crossing_from: Literal["cpu", "disk"] = Field(default="cpu", description="Where they come from")
    dtype: str = Field(description="Of the matrix products")


class Time(_Answer):
    """Seconds of the whole workload on one named device."""

    low: float
    high: float
    on: str = Field(description="The device these seconds are for")
    basis: str = Field(default="", description="The rates behind the range, and that no run was timed")


class Estimate(_Answer):
    """What a workload takes. Bytes are integers, GiB in words means 1024^3 bytes."""

    workload: dict[str, Any] = Field(description="The workload with every default filled in")
    components: list[Component]
    peak: Peak
    range: Range
    overheads: list[Overhead] = Field(
        default_factory=list, description="On the card beside the tensors: allocator, libraries, CUDA context"
    )
    precision: Precision = Field(
        description="exact: to the byte in tensors; close: within 2 %; rough: an order of magnitude"
    )
    method: Literal["closed_form", "trace"] = Field(
        default="closed_form", description="closed_form: arithmetic; trace: the library itself was run without weights"
    )
    verified_on: str = Field(default="", description="Library versions the figure was checked against")
    hooks: list[HookFamily] = Field(default_factory=list, description="activation_cache: bytes per hook family")
    late_bytes: int = Field(
        default=0,
        description="Bytes that may come on top of the peak late in the run: tensors, or on CUDA a segment that later "
        "passes need; in range.high",
    )
    host_bytes: int = Field(default=0, description="RAM the run needs beside the device (caches moved to the CPU)")
    loading_host_bytes: int = Field(
        default=0, description="RAM at the worst moment of loading the weights; a rough figure"
    )
    loading_device_bytes: int = Field(
        default=0,
        description="Device tensor bytes at the worst moment of loading; more than the run's where it dies there",
    )
    download_bytes: int | None = Field(
        default=None, description="Size of the published weights to download; null if not known"
    )
    work: list[WorkPart] = Field(default_factory=list, description="What the run does, each kind with how often")
    flops: int = Field(
        default=0, description="Floating-point operations of the whole run, or of one step where no length is given"
    )
    moved_bytes: int = Field(default=0, description="Bytes that must cross the device's memory for it, at the least")
    time: Time | None = Field(default=None, description="How long it takes; a wide range, held against runs on an H100")
    assumptions: list[str] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    summary: str = Field(default="", description="One sentence a person can read")

    _requests: Requests | None = PrivateAttr(default=None)

    def __eq__(self, other: object) -> bool:
        """By its fields: one that was read again from JSON, which does not know the order, is the same."""
        return isinstance(other, Estimate) and self.__dict__ == other.__dict__

    @property
    def stops(self) -> str:
        """Why the run as given does not get to its end, however much memory there is, in one clause; empty where
        nothing is known against it."""
        said = (warning for warning in self.warnings if any(mark in warning for mark in _STOPS))
        return next(said, "").split(": ")[0]

    @property
    def requests(self) -> Requests | None:
        """What it asks torch's allocator for; None where the order is not known."""
        return self._requests

    def asks_for(self, requests: Requests) -> None:
        """The order of its allocations is known. Not for a run with a backward pass: its second step, with an optimizer
        state that lies between what was free, is not among them."""
        self._requests = requests

    def runs_in(self, allocator_bytes: int, workspace: int, most: int = 0) -> bool:
        """Whether torch's allocator gets by with so many bytes, `workspace` of cuBLAS among them, and with any more up
        to `most`, when it gives back what it keeps idle; False where the order of the allocations is not known."""
        asked = self._requests
        if asked is None or asked.tensors != self.peak.tensors:
            return False
        unsure = self.late_bytes + int(ROUGH_MARGIN * asked.tensors) * (self.precision == "rough")
        return asked.run_in(allocator_bytes - unsure, workspace, most)

"""One workload in a process of its own, on one device: what it took.

`gpu_truth.py` starts `answer` in a process that has the libraries loaded already and no CUDA context yet. A cap makes
the card look that large: torch's allocator may have what the context leaves of it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import sys
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from typing import Any

LIBRARIES = ("torch", "transformer-lens", "transformers", "sae-lens", "peft", "nvidia-ml-py")
# Loaded once, before the processes are forked off.
PRELOAD = (
    "gpu_truth_child", "torch", "transformer_lens", "transformer_lens.model_bridge", "sae_lens", "peft", "datasets",
    "transformers.models.auto.modeling_auto", "experiments", "experiments_steps", "test_bridge", "test_patching",
    "test_sae_training", "test_sae_inference",
)  # fmt: skip
# What the context grows by once cuBLAS and attention kernels are loaded and a backward pass has run: the most that was
# seen on an H100. On a small card that is not there for the allocator either.
GROWTH = 148 * 1024**2
# How long and how often a workload is run again for its time.
REPEAT_SECONDS, REPEATS = 1.5, 5


class Driver:
    """What the driver says of the first card, through NVML, which needs no CUDA context."""

    def __init__(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        self._nvml, self._card = pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)

    def used(self) -> int:
        """Bytes used by everybody."""
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._card, version=self._nvml.nvmlMemory_v2).used)

    def mine(self) -> int | None:
        """Bytes of this process; None where a container hides its processes."""
        with contextlib.suppress(self._nvml.NVMLError):
            running = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._card)
            return next((p.usedGpuMemory for p in running if p.pid == os.getpid()), None)
        return None

    def about(self) -> dict[str, Any]:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(self._card, version=self._nvml.nvmlMemory_v2)
        return {
            "driver": self._nvml.nvmlSystemGetDriverVersion(),
            "nvml": {"total": memory.total, "reserved": memory.reserved},
        }


def _versions() -> dict[str, str]:
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def on_cpu(workload: dict[str, Any]) -> dict[str, Any]:
    """Peak of live tensors: what is held, and above it what the CPU allocator's own log says."""
    import torch
    from experiments import experiment, truth_module

    torch.set_num_threads(1)
    meters = truth_module("meters")
    made = experiment(workload, "cpu")
    with torch.set_grad_enabled(made.gradients):
        if made.warm_up is not None:
            made.warm_up()
        held = meters.distinct_bytes(made.held())
        begin = time.perf_counter()
        peak = held + meters.profiler_peak(made.run).bytes
    return {"allocated": peak, "held": held, "seconds": time.perf_counter() - begin, "card": "cpu"}


def _first_product() -> int:
    """Bytes that the first matrix product leaves behind: the cuBLAS workspace. They are given back, to the driver too:
    in a free segment of that size the weights would find a place that they do not find in a fresh process."""
    import torch

    small = torch.ones(64, 64, device="cuda")
    before = torch.cuda.memory_allocated()
    product = small @ small
    left = torch.cuda.memory_allocated() - before - product.numel() * product.element_size()
    del small, product
    with contextlib.suppress(AttributeError):
        torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    return left


def on_cuda(workload: dict[str, Any], cap_bytes: int | None) -> dict[str, Any]:
    """torch's counters and the driver's, for the measured part alone; the model is built before.

    `allocated`, `reserved`, `device` are of the first run; then it is run again for its time, and `again_reserved` and
    `again_device` are what the process had then, segments of earlier runs and all.
    """
    driver = Driver()
    before = driver.used()
    import torch
    from experiments import experiment

    torch.zeros(1, device="cuda")
    torch.cuda.synchronize()
    mine, reserved = driver.mine(), torch.cuda.memory_reserved()
    by_process = mine is not None

    def shown() -> int:
        return (driver.mine() or 0) if by_process else driver.used() - before

    found: dict[str, Any] = driver.about() | {
        "card": torch.cuda.get_device_name(0), "cuda": torch.version.cuda,
        "compute_capability": ".".join(map(str, torch.cuda.get_device_capability(0))),
        "total": torch.cuda.get_device_properties(0).total_memory,
        "before": before, "context": shown() - reserved, "cublas_workspace": _first_product(),
        "device_by": "NVML, this process" if by_process else "the card's used memory before and after",
    }  # fmt: skip
    if cap_bytes is not None:
        room = cap_bytes - found["context"] - GROWTH
        torch.cuda.set_per_process_memory_fraction(min(1.0, room / found["total"]), 0)
    try:
        made = experiment(workload, "cuda")
        with torch.set_grad_enabled(made.gradients):
            if made.warm_up is not None:
                made.warm_up()
            gc.collect()
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            found["held"] = torch.cuda.memory_allocated()
            begin = time.perf_counter()
            made.run()
            torch.cuda.synchronize()
    except torch.cuda.OutOfMemoryError as error:
        return found | {"oom": str(error).splitlines()[0]}
    found["first_seconds"] = time.perf_counter() - begin
    found["allocated"] = torch.cuda.max_memory_allocated()
    found["requested"] = torch.cuda.memory_stats()["requested_bytes.all.peak"]
    found["reserved"] = torch.cuda.max_memory_reserved()
    found["retries"] = torch.cuda.memory_stats()["num_alloc_retries"]
    found["device"] = shown()
    if cap_bytes is None:
        if not made.again:
            del made
            gc.collect()
            made = experiment(workload, "cuda", many_steps=True)
        found |= _timed(made, REPEAT_SECONDS, REPEATS)
        found["again_reserved"], found["again_device"] = torch.cuda.max_memory_reserved(), shown()
    return found


def _timed(made: Any, seconds: float, repeats: int) -> dict[str, Any]:
    """Median seconds of one run, kernels loaded."""
    import torch

    times: list[float] = []
    with torch.set_grad_enabled(made.gradients):
        while not times or (made.again and len(times) < repeats and sum(times) < seconds):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            made.run()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
    return {"seconds": statistics.median(times), "runs": len(times), "steps": made.steps}


def answer(to: Connection, workload: dict[str, Any], device: str, cap_bytes: int | None) -> None:
    """Sends what was found; {"failed": reason} where it did not come to an end."""
    # Progress bars and notices of the libraries go to stderr.
    os.dup2(2, 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = on_cpu(workload) if device == "cpu" else on_cuda(workload, cap_bytes)
        to.send(found | {"versions": _versions()})
    except Exception as error:  # a case that fails is a row with its reason
        to.send({"failed": f"{type(error).__name__}: {error}"[:300]})

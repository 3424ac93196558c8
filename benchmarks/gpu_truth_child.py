"""One workload, run in this process on one device; what it took, as one line of JSON on stdout.

`python gpu_truth_child.py` reads {"workload": ..., "device": "cuda" or "cpu", "cap_bytes": null or a number} on stdin.
A cap makes the card look that large: torch's allocator may have what the context leaves of it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import Any

LIBRARIES = ("torch", "transformer-lens", "transformers", "sae-lens", "peft")


def _device_used() -> int | None:
    """Bytes used on the first card by everybody, asked of the driver without a context; None where it cannot be."""
    command = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return int(done.stdout.strip()) * 1024**2
    return None


def _nvml_process() -> int | None:
    """Bytes of this process by nvmlDeviceGetComputeRunningProcesses; None where a container hides its processes."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        mine = [p for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle) if p.pid == os.getpid()]
        return mine[0].usedGpuMemory or None if mine else None
    except pynvml.NVMLError:
        return None


def _driver() -> str:
    command = ["nvidia-smi", "--id=0", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    return "unknown"


def _versions() -> dict[str, str]:
    found = {}
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
    """Bytes that the first matrix product leaves behind: the cuBLAS workspace. They are given back."""
    import torch

    small = torch.ones(64, 64, device="cuda")
    before = torch.cuda.memory_allocated()
    product = small @ small
    left = torch.cuda.memory_allocated() - before - product.numel() * product.element_size()
    del product
    with contextlib.suppress(AttributeError):
        torch._C._cuda_clearCublasWorkspaces()
    return left


def on_cuda(workload: dict[str, Any], cap_bytes: int | None) -> dict[str, Any]:
    """torch's counters and the driver's, for the measured part alone; the model is built before."""
    before = _device_used()
    import torch
    from experiments import experiment

    torch.zeros(1, device="cuda")
    torch.cuda.synchronize()
    after, process = _device_used(), _nvml_process()
    shown = process if process is not None else None if after is None or before is None else after - before
    found: dict[str, Any] = {
        "card": torch.cuda.get_device_name(0), "driver": _driver(), "cuda": torch.version.cuda,
        "compute_capability": ".".join(map(str, torch.cuda.get_device_capability(0))),
        "total": torch.cuda.get_device_properties(0).total_memory,
        "context": None if shown is None else shown - torch.cuda.memory_reserved(),
        "cublas_workspace": _first_product(),
    }  # fmt: skip
    if cap_bytes is not None:
        room = cap_bytes - (found["context"] or 0)
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
    found["seconds"] = time.perf_counter() - begin
    found["allocated"] = torch.cuda.max_memory_allocated()
    found["reserved"] = torch.cuda.max_memory_reserved()
    found["retries"] = torch.cuda.memory_stats()["num_alloc_retries"]
    process, after = _nvml_process(), _device_used()
    found["device"] = process if process is not None else None if after is None or before is None else after - before
    found["device_by"] = "NVML, this process" if process is not None else "the card's used memory before and after"
    return found


def main() -> None:
    given = json.loads(sys.stdin.read())
    # Progress bars and notices of the libraries go to stderr.
    answer_to, sys.stdout = sys.stdout, sys.stderr
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cpu = given["device"] == "cpu"
        found = on_cpu(given["workload"]) if cpu else on_cuda(given["workload"], given.get("cap_bytes"))
    print(json.dumps(found | {"versions": _versions()}), file=answer_to)


if __name__ == "__main__":
    main()

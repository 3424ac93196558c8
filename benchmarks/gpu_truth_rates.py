"""What a card does at its best: matrix products, copies, starting kernels, and bytes over its bus."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


def _seconds(run: Callable[[], Any], repeats: int = 10) -> float:
    """Median seconds of `run` by CUDA's events, after three that are not counted."""
    import torch

    times = []
    for n in range(repeats + 3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        if n >= 3:
            times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


def rates() -> dict[str, float]:
    """TFLOP/s of 8192-cubed products as torch has them by default, GB/s, and microseconds a small kernel."""
    import torch

    found: dict[str, float] = {}
    size = 8192
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
        found[f"tflops_{name}"] = 2 * size**3 / _seconds(lambda a=a, b=b: a @ b) / 1e12
        del a, b
    source = torch.randn(1 << 29, device="cuda")
    target = torch.empty_like(source)
    found["copy_gb_s"] = 2 * source.nbytes / _seconds(lambda t=target: t.copy_(source)) / 1e9
    del target
    small = torch.zeros(16, device="cuda")

    def start() -> None:
        for _ in range(2000):
            small.add_(1)

    found["us_per_small_kernel"] = _seconds(start, 5) / 2000 * 1e6
    on_host = torch.randn(1 << 28)
    room = torch.empty(1 << 28, device="cuda")
    found["host_to_device_gb_s"] = on_host.nbytes / _seconds(lambda: room.copy_(on_host), 3) / 1e9
    pinned = on_host.pin_memory()
    found["pinned_to_device_gb_s"] = on_host.nbytes / _seconds(lambda: room.copy_(pinned), 3) / 1e9
    return {name: round(value, 3) for name, value in found.items()}


def answer(to: Connection) -> None:
    """Sends `rates()`, or {"failed": reason}."""
    try:
        to.send(rates())
    except Exception as error:
        to.send({"failed": f"{type(error).__name__}: {error}"[:300]})

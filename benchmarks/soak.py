"""Many calls over stdio, and many over HTTP by 64 clients at once: errors, memory and the slowest of a hundred.

    python benchmarks/soak.py [--stdio 50000] [--http 20000] [--clients 64] [--out FILE]

The calls go through the tools that look at no hardware, each with another batch size, so that nothing is answered from
what is kept. Memory is the server's resident set after the first thousand calls and at the end; aim: within 10 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from served import Connection, Pipe, ours, over_http

WARM = 1000
OOM = "CUDA out of memory. Tried to allocate {} MiB. GPU 0 has a total capacity of 23.65 GiB of which 1.02 GiB is free."


def call_number(at: int) -> tuple[str, dict[str, Any]]:
    """The tool and the arguments of one call."""
    batch = 1 + at % 4096
    run = {"task": "inference", "model": "gpt2", "seq_len": 128, "batch_size": batch}
    cached = {"task": "activation_cache", "model": "pythia-70m", "seq_len": 64, "batch_size": batch}
    sae = {"task": "sae_training", "d_in": 512, "d_sae": 4096 + batch}
    every: list[tuple[str, dict[str, Any]]] = [
        ("estimate_memory", run),
        ("estimate_memory", cached),
        ("estimate_memory", sae | {"detail": "full"}),
        ("estimate_memory", run),
        ("explain_oom", {"message": OOM.format(batch)}),
        ("estimate_memory", run | {"seq_len": 1 + at % 512}),
        ("preflight_experiment", run | {"gpu": "RTX 4090"}),
        ("estimate_memory", cached | {"names_filter": ["*hook_resid_post"]}),
    ]
    return every[at % len(every)]


def resident(pid: int) -> int:
    """Bytes of a process and its children."""
    process = psutil.Process(pid)
    return sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])


def figures(took: list[float], errors: list[str], early: int, late: int, seconds: float) -> dict[str, Any]:
    """What is recorded of a run."""
    ranked = sorted(took)
    return {
        "calls": len(took) + len(errors), "errors": len(errors), "first_errors": errors[:3],
        "seconds": round(seconds, 1), "per_s": round(len(took) / seconds, 1),
        "median_ms": round(statistics.median(took) * 1e3, 2), "p99_ms": round(ranked[len(ranked) * 99 // 100] * 1e3, 2),
        "max_ms": round(ranked[-1] * 1e3, 2), "rss_after_1000_mib": round(early / 2**20, 1),
        "rss_at_end_mib": round(late / 2**20, 1), "growth": round(late / early - 1, 4),
    }  # fmt: skip


def over_stdio(number: int) -> dict[str, Any]:
    """One client, one call after the other."""
    server = Pipe(ours())
    took: list[float] = []
    errors: list[str] = []
    early, begin = 0, time.perf_counter()
    for at in range(number):
        start = time.perf_counter()
        try:
            server.call(*call_number(at))
            took.append(time.perf_counter() - start)
        except RuntimeError as error:
            errors.append(str(error))
        if at + 1 == WARM:
            early = resident(server.process.pid)
    seconds, late = time.perf_counter() - begin, resident(server.process.pid)
    code = server.close()
    return figures(took, errors, early or late, late, seconds) | {"exit_code": code}


async def _clients(port: int, number: int, clients: int, memory: Callable[[], int]) -> dict[str, Any]:
    took: list[float] = []
    errors: list[str] = []
    numbers = iter(range(number))
    early = 0

    async def client() -> None:
        nonlocal early
        connection = Connection(port)
        await connection.open()
        for at in numbers:
            start = time.perf_counter()
            try:
                await connection.call(*call_number(at))
                took.append(time.perf_counter() - start)
            except RuntimeError as error:
                errors.append(str(error))
            if at + 1 == WARM:
                early = memory()
        await connection.close()

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds, late = time.perf_counter() - begin, memory()
    return figures(took, errors, early or late, late, seconds) | {"clients": clients}


def main() -> None:
    """The figures on standard output, or in a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stdio", type=int, default=50_000)
    parser.add_argument("--http", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    document: dict[str, Any] = {
        "what": "soak", "python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in ("mcp", "pydantic", "uvicorn", "anyio")},
    }  # fmt: skip
    if options.stdio:
        document["stdio"] = over_stdio(options.stdio)
        print(json.dumps(document["stdio"]), file=sys.stderr)
    if options.http:
        with over_http(1) as (port, pid):
            document["http"] = asyncio.run(_clients(port, options.http, options.clients, lambda: resident(pid)))
    text = json.dumps(document, indent=2)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

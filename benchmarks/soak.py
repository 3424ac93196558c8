"""Many calls over stdio, and many over HTTP by 64 clients at once: errors, memory and the slowest of a hundred.

    python benchmarks/soak.py [--stdio 50000] [--http 20000] [--clients 64] [--out FILE]

The calls go through the tools that look at no hardware, each with another batch size, so that nothing is answered from
what is kept. Memory is the server's resident set after the first thousand calls and at the end; aim: within 10 %.

A p99 says little by itself: 64 clients wait for each other, and for whatever else runs on the machine. So a bare server
of the SDK, whose tool returns a result made before, is asked a tenth as often right after, and the processor time of
a call is recorded, which does not depend on who else runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import psutil
from served import TOOL, Connection, Pipe, bare, ours, over_http

WARM = 1000
BARE_SHARE = 10
Call = tuple[str, dict[str, Any]]
OOM = "CUDA out of memory. Tried to allocate {} MiB. GPU 0 has a total capacity of 23.65 GiB of which 1.02 GiB is free."


def call_number(at: int) -> Call:
    """The tool and the arguments of one call."""
    batch = 1 + at % 4096
    run = {"task": "inference", "model": "gpt2", "seq_len": 128, "batch_size": batch}
    cached = {"task": "activation_cache", "model": "pythia-70m", "seq_len": 64, "batch_size": batch}
    sae = {"task": "sae_training", "d_in": 512, "d_sae": 4096 + batch}
    every: list[Call] = [
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


@dataclass(frozen=True)
class Used:
    """Of a process and its children: bytes that are resident, and seconds of processor time so far."""

    resident: int
    cpu_s: float

    @staticmethod
    def by(pid: int) -> Used:
        process = psutil.Process(pid)
        every = [process, *process.children(recursive=True)]
        times = [one.cpu_times() for one in every]
        return Used(sum(one.memory_info().rss for one in every), sum(one.user + one.system for one in times))


@dataclass
class Soak:
    """One run: seconds of each call, by tool, and what the server had used at the start, after `WARM`, at the end."""

    pid: int
    took: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._start = self._early = Used.by(self.pid)
        self._begin, self._ended = time.perf_counter(), 0

    def count(self, tool: str, began: float, error: str = "") -> None:
        """A call that began then has ended."""
        self._ended += 1
        if error:
            self.errors.append(error)
        else:
            self.took.setdefault(tool, []).append(time.perf_counter() - began)
        if self._ended == WARM:
            self._early = Used.by(self.pid)

    def figures(self) -> dict[str, Any]:
        """What is recorded; to be called while the server still runs."""
        seconds, end = time.perf_counter() - self._begin, Used.by(self.pid)
        calls, every = self._ended, [one for times in self.took.values() for one in times]
        return {
            "calls": calls, "errors": len(self.errors), "first_errors": self.errors[:3],
            "seconds": round(seconds, 1), "per_s": round(calls / seconds, 1),
            "cpu_ms": round((end.cpu_s - self._start.cpu_s) / calls * 1e3, 2),
            **spread(every),
            "by_tool": {tool: spread(times) for tool, times in self.took.items()} if len(self.took) > 1 else {},
            "rss_after_1000_mib": round(self._early.resident / 2**20, 1),
            "rss_at_end_mib": round(end.resident / 2**20, 1),
            "growth": round(end.resident / self._early.resident - 1, 4),
        }  # fmt: skip


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, the slowest of a hundred and the slowest of all, in milliseconds."""
    ranked = sorted(seconds)
    found = {"median": statistics.median(ranked), "p99": ranked[len(ranked) * 99 // 100], "max": ranked[-1]}
    return {f"{name}_ms": round(value * 1e3, 2) for name, value in found.items()}


def over_stdio(command: list[str], calls: Iterator[Call]) -> dict[str, Any]:
    """One client, one call after the other."""
    server = Pipe(command)
    soak = Soak(server.process.pid)
    for tool, arguments in calls:
        began = time.perf_counter()
        try:
            server.call(tool, arguments)
            soak.count(tool, began)
        except RuntimeError as error:
            soak.count(tool, began, str(error))
    return soak.figures() | {"exit_code": server.close()}


async def by_clients(port: int, pid: int, calls: Iterator[Call], clients: int) -> dict[str, Any]:
    """As many clients at once, each with one call after the other."""
    soak = Soak(pid)

    async def client() -> None:
        connection = Connection(port)
        await connection.open()
        for tool, arguments in calls:
            began = time.perf_counter()
            try:
                await connection.call(tool, arguments)
                soak.count(tool, began)
            except RuntimeError as error:
                soak.count(tool, began, str(error))
        await connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return soak.figures() | {"clients": clients}


def bare_result(file: Path) -> Iterator[Call]:
    """Writes the result that the bare server returns; the call for it, again and again."""
    asked = {"task": "inference", "model": "gpt2", "seq_len": 128, "batch_size": 1}
    server = Pipe(ours())
    file.write_text(json.dumps(server.call(TOOL, asked)), encoding="utf-8")
    server.close()
    return repeat((TOOL, asked))


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
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        same = bare_result(result)
        if options.stdio:
            document["stdio"] = over_stdio(ours(), map(call_number, range(options.stdio)))
            document["stdio_bare"] = over_stdio(bare(result), islice(same, options.stdio // BARE_SHARE))
            print(json.dumps(document), file=sys.stderr)
        if options.http:
            for name, served, number in (("http", None, 1), ("http_bare", result, BARE_SHARE)):
                calls = islice(same, options.http // number) if served else map(call_number, range(options.http))
                with over_http(1, served) as (port, pid):
                    document[name] = asyncio.run(by_clients(port, pid, calls, options.clients))
    text = json.dumps(document, indent=2)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

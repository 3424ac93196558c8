"""What this server costs over a bare one of the SDK: its start, a call over stdio, requests per second over HTTP.

    python benchmarks/serving.py [--rounds 15] [--calls 200] [--only start|stdio|http] [--out FILE]

The bare server has one tool that returns the very result of our `estimate_memory`, made once. All cases run in turn
within each round, so that a slow moment of the machine meets all of them. Two kinds of call: `same` repeats one
workload, `other` asks for another batch size each time, as an assistant that compares settings does.
Aims, of medians: start at most 1.10 times the bare server's, a call at most 1.25 times, requests at least 0.8.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from served import TOOL, Connection, Pipe, bare, ours, over_http
from startup import COMMANDS, time_to_tools

ASKED: dict[str, Any] = {"task": "inference", "model": "gpt2", "seq_len": 128, "batch_size": 1}
CONNECTIONS = 16
AIMS = {"start": 1.10, "call": 1.25, "requests": 0.8}
_BATCH = count(2)


def arguments(kind: str) -> dict[str, Any]:
    """Of one call."""
    return ASKED if kind == "same" else ASKED | {"batch_size": next(_BATCH)}


def calls(server: Pipe, kind: str, number: int) -> float:
    """Seconds of one call, by the median of `number`."""
    took = []
    for _ in range(number):
        begin = time.perf_counter()
        server.call(TOOL, arguments(kind))
        took.append(time.perf_counter() - begin)
    return statistics.median(took)


async def requests(port: int, kind: str, number: int) -> float:
    """Requests per second with all connections busy."""
    connections = [Connection(port) for _ in range(CONNECTIONS)]
    for connection in connections:
        await connection.open()

    async def client(connection: Connection) -> None:
        for _ in range(number):
            await connection.call(TOOL, arguments(kind))

    begin = time.perf_counter()
    await asyncio.gather(*map(client, connections))
    took = time.perf_counter() - begin
    for connection in connections:
        await connection.close()
    return number * CONNECTIONS / took


def starts(rounds: int) -> dict[str, list[float]]:
    """Seconds of start by server."""
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(rounds + 2):
        for name, command in COMMANDS.items():
            took = time_to_tools(command)
            if turn >= 2:
                found[name].append(took)
    return found


def stdio(result: Path, rounds: int, number: int) -> dict[str, list[float]]:
    """Seconds of a call by case."""
    we, they = Pipe(ours()), Pipe(bare(result))
    cases = {"bare": (they, "same"), "same": (we, "same"), "other": (we, "other")}
    found: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name, (server, kind) in cases.items():
            took = calls(server, kind, number)
            if turn:
                found[name].append(took)
    we.close()
    they.close()
    return found


def http(result: Path, workers: int, rounds: int, number: int) -> dict[str, list[float]]:
    """Requests per second by case."""
    with contextlib.ExitStack() as stack:
        we, _ = stack.enter_context(over_http(workers))
        they, _ = stack.enter_context(over_http(workers, result))
        cases = {"bare": (they, "same"), "same": (we, "same"), "other": (we, "other")}
        found: dict[str, list[float]] = {name: [] for name in cases}
        for turn in range(rounds + 2):
            for name, (port, kind) in cases.items():
                rate = asyncio.run(requests(port, kind, max(1, number // CONNECTIONS)))
                if turn > 1:
                    found[name].append(rate)
    return found


def row(values: list[float], base: list[float], digits: int, best: Callable[[list[float]], float]) -> dict[str, float]:
    """Figures of a case; `ratio` is the median of the rounds' own ratios, in which the machine was as slow for both,
    `ratio_of_best` that of the rounds in which others disturbed each least."""
    ratios = [ours_ / bare_ for ours_, bare_ in zip(values, base, strict=True)]
    return {
        "min": round(min(values), digits), "median": round(statistics.median(values), digits),
        "max": round(max(values), digits), "ratio": round(statistics.median(ratios), 3),
        "ratio_of_medians": round(statistics.median(values) / statistics.median(base), 3),
        "ratio_of_best": round(best(values) / best(base), 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--only", choices=["start", "stdio", "http"], action="append")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    wanted = options.only or ["start", "stdio", "http"]
    document: dict[str, Any] = {
        "what": "our server against a bare one of the SDK", "aims": AIMS, "rounds": options.rounds,
        "python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in ("mcp", "pydantic", "uvicorn", "starlette", "anyio")},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        server = Pipe(ours())
        result.write_text(json.dumps(server.call(TOOL, ASKED)), encoding="utf-8")
        server.close()
        document["result_bytes"] = result.stat().st_size
        if "start" in wanted:
            base, *others = (found := starts(options.rounds))
            document["start_s"] = {name: row(found[name], found[base], 4, min) for name in (base, *others)}
        if "stdio" in wanted:
            found = stdio(result, options.rounds, options.calls)
            document["call_s"] = {name: row(values, found["bare"], 6, min) for name, values in found.items()}
        if "http" in wanted:
            document["requests_per_s"] = {}
            for workers in (1, 2):
                found = http(result, workers, options.rounds, options.calls)
                rows = {name: row(values, found["bare"], 1, max) for name, values in found.items()}
                document["requests_per_s"][f"{workers} worker{'s' * (workers > 1)}"] = rows
    text = json.dumps(document, indent=2)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    print("aims of ratios: " + ", ".join(f"{name} {aim}" for name, aim in AIMS.items()), file=sys.stderr)


if __name__ == "__main__":
    main()

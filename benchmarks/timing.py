"""Interleaved timing: every round runs each case once, so that a slow moment of the machine meets all of them."""

from __future__ import annotations

import json
import platform
import statistics
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any


def interleave(cases: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of each case, by name, in the order of the rounds. The warm-up (byte code, file cache) is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(warm_up + rounds):
        for name, run in cases.items():
            took = run()
            if turn >= warm_up:
                seconds[name].append(took)
    return seconds


def report(what: str, seconds: Mapping[str, list[float]], base: str, aims: Mapping[str, float]) -> dict[str, Any]:
    """Print a table on stderr and one JSON document on stdout; the document is returned too.

    Args:
        base: the case that the others are held against.
        aims: case -> largest ratio of medians to aim for.
    """
    rows = {
        name: {
            "min_s": round(min(times), 4),
            "median_s": round(statistics.median(times), 4),
            "ratio_of_minima": round(min(times) / min(seconds[base]), 3),
            "ratio_of_medians": round(statistics.median(times) / statistics.median(seconds[base]), 3),
            "aim": aims.get(name),
        }
        for name, times in seconds.items()
    }
    print(f"{what} ({len(seconds[base])} rounds)", file=sys.stderr)
    print(f"{'':40}{'min ms':>8}{'median':>8}{'x min':>7}{'x med':>7}{'aim':>6}", file=sys.stderr)
    for name, row in rows.items():
        aim = "" if row["aim"] is None else f"{row['aim']:.2f}"
        print(
            f"{name:40}{row['min_s'] * 1e3:8.0f}{row['median_s'] * 1e3:8.0f}"
            f"{row['ratio_of_minima']:7.2f}{row['ratio_of_medians']:7.2f}{aim:>6}",
            file=sys.stderr,
        )
    document = {
        "what": what,
        "base": base,
        "rounds": len(seconds[base]),
        "cases": rows,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in ("mcp", "pydantic", "click", "rich")},
    }
    print(json.dumps(document, indent=2))
    return document

"""The part of docs/accuracy.md that a card's readings make: `results/gpu_truth.json` against today's estimates."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from accuracy_words import table
from gpu_truth_cases import EDGES
from gpu_truth_edges import a_tenth_more, largest_that_fits
from gpu_truth_fit import LEVELS, compared, timed

READINGS = Path(__file__).parent / "results" / "gpu_truth.json"
MIB = 1024**2
# Below this, segments of 20 MiB and the context rule, and percents say little.
_LARGE = 400 * MIB
_GROUPS = {
    "activation_cache": "caches", "inference": "forward passes", "generation": "generation", "training": "training",
    "patching": "patching", "sae_training": "SAE training", "sae_inference": "SAEs in use",
}  # fmt: skip


def readings() -> dict[str, Any]:
    return json.loads(READINGS.read_text(encoding="utf-8"))


def part() -> str:
    """Text and tables, in Markdown."""
    document = readings()
    about = document["about"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    rows = [_held_against(row, about) for row in document["rows"]]
    large = [row for row in rows if row["large"]]
    on_the_card = sum(row["in_range"] for row in rows)
    of_time = [row["time_in_range"] for row in rows if row["time_in_range"] is not None]
    lines = [
        f"Measured {document['date']} on one {about['card']} (driver {about['driver']}, CUDA {about['cuda']};",
        f"{versions}): {len(rows)} workloads, models of random weights, each in a process of its own.",
        f"**{on_the_card} of {len(rows)} figures of the driver lie within `range`, {sum(of_time)} of {len(of_time)}",
        f"times within `time`.** Errors of the {len(large)} workloads that reserve more than {_LARGE // MIB} MiB,",
        "median and the two ends:",
    ]
    return "\n".join(
        [*lines, "", _by_task(large), "", _edges(document["edges"], document["about"]["compute_capability"])]
    )


def _held_against(row: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    found = compared(row["workload"], row["measured"], about["compute_capability"])
    took = timed(row["workload"], row["measured"], about)
    return {
        "task": row["workload"]["task"], "large": row["measured"]["reserved"] > _LARGE, "in_range": found["in_range"],
        "time_in_range": None if took is None else took["in_range"],
        "times": None if took is None else took["high"] / took["measured"],
        **{level: found[level]["error_percent"] for level in LEVELS},
    }  # fmt: skip


def _by_task(rows: list[dict[str, Any]]) -> str:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[_GROUPS[row["task"]]].append(row)
    lines = [_line(name, groups[name]) for name in _GROUPS.values() if groups[name]]
    head = ["task", "workloads", "asked of the allocator", "reserved", "shown by the driver", "high end of the time"]
    return table(head, [*lines, _line("all", rows)])


def _line(name: str, rows: list[dict[str, Any]]) -> list[str]:
    cells = [name, str(len(rows))]
    for level in LEVELS:
        errors = [row[level] for row in rows]
        cells.append(f"{statistics.median(errors):+.2f} % ({min(errors):+.1f} to {max(errors):+.1f})")
    times = [row["times"] for row in rows if row["times"] is not None]
    return [*cells, f"{statistics.median(times):.1f} times the measured"]


def _edges(edges: list[dict[str, Any]], capability: str) -> str:
    """Green, and a tenth more, on a card made smaller; and what is green today."""
    ran, died = sum(edge["green_ran"] for edge in edges), sum(edge["larger_failed"] for edge in edges)
    lines, today = [], [green_today(edge, capability) for edge in edges]
    for edge, (green, larger) in zip(edges, today, strict=True):
        outcome = "died" if edge["larger_failed"] else "ran"
        lines.append(
            [
                f"{edge['card_gb']} GB", edge["id"], f"{edge['green']:,}", "ran" if edge["green_ran"] else "died",
                f"{edge['larger']:,}", outcome, f"{green:,}", f"{larger:,}",
            ]
        )  # fmt: skip
    text = (
        "On the same card, capped to 8, 16, 24 and 40 GB: the largest size whose verdict was `fits`, and a tenth more. "
        f"**{ran} of {len(edges)} green sizes ran; a tenth more died in {died} of {len(edges)}.** In the others torch "
        "gave back what it kept idle, and went on. That is played since: the simulated allocator, given what the card "
        "gave, dies where torch died, at the same request, and runs where it ran (`tests/truth/test_at_the_edge.py`). "
        "The last two columns are today's largest green and a tenth more, for which no card was asked: for passes "
        "without gradients the simulation says that the one runs there and the other dies; of the two trainings the "
        "green one is at most 1.4 % above what ran, and a tenth more is no less than what died."
    )
    head = ["card", "workload", "green then", "", "a tenth more", "", "green today", "a tenth more"]
    return f"{text}\n\n{table(head, lines)}"


def green_today(edge: dict[str, Any], capability: str) -> tuple[int, int]:
    """The largest size of an edge's workload that is green now, and one a tenth larger."""
    field, case = next((field, case) for field, case in EDGES if case.id == edge["id"])
    green = largest_that_fits(case.workload, field, edge["card_gb"] * 1024**3, capability)
    return green, a_tenth_more(green)

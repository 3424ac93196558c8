"""Errors against the truth, one by one and per kind of figure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from accuracy_cases import KINDS


def error(figure: int, truth: int) -> float:
    """(figure - truth) / truth in percent: negative is below the truth."""
    return 100 * (figure - truth) / truth


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per kind of figure and maker (`ours`, `rough`): median and worst error in percent, and how many are below."""
    summary: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        figures = [row["figures"][kind] for row in rows if kind in row["figures"]]
        if not figures:
            continue
        summary[kind] = {"figures": len(figures)}
        for maker in ("ours", "rough"):
            errors = [error(f[maker], f["truth"]) for f in figures]
            summary[kind][maker] = {
                "median_error_percent": round(statistics.median(errors), 4),
                "median_absolute_error_percent": round(statistics.median(map(abs, errors)), 4),
                "worst_error_percent": round(max(errors, key=abs), 4),
                "below_truth": sum(f[maker] < f["truth"] for f in figures),
                "furthest_below_percent": round(max(0.0, -min(errors)), 4),
            }
    return summary

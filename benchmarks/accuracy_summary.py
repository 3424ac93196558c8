"""Errors against the truth: one by one, per kind of figure, per maker."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from accuracy_cases import KINDS

BELOW_PERCENT = 0.01
"""Further below the truth than this counts as below where makers are compared: nobody counts single numbers."""


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


PEAKS = tuple(kind for kind in KINDS if kind not in ("cache", "filtered"))


def makers(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Per maker of figures, over the peaks of all rows: `errors` in percent by row, and what was not answerable.

    `ours` and `rough` answer every row; the other tools those that are in `document["peers"]`. `seconds` are CPU
    seconds of whole processes, one per answer; None where none were timed.
    """
    truths, errors = {}, {"ours": {}, "rough": {}}
    for row in document["rows"]:
        for kind in PEAKS:
            if kind in row["figures"]:
                figures = row["figures"][kind]
                truths[row["id"]] = figures["truth"]
                for maker in ("ours", "rough"):
                    errors[maker][row["id"]] = error(figures[maker], figures["truth"])
    peers = document.get("peers", {})
    found: dict[str, dict[str, Any]] = {
        "ours": {"errors": errors["ours"], "seconds": peers.get("our_cpu_seconds"), "not_answerable": {}},
        "rough": {"errors": errors["rough"], "seconds": None, "not_answerable": {}},
    }
    for name, tool in peers.get("tools", {}).items():
        answered = {row: error(size, truths[row]) for row, size in tool["answers"].items() if row in truths}
        found[f"{name} {tool['version']}"] = {
            "errors": answered, "seconds": tool["cpu_seconds"], "not_answerable": tool["not_answerable"],
        }  # fmt: skip
    return {
        name: entry | _of(entry["errors"], _asked(entry, len(truths)), entry["seconds"])
        for name, entry in found.items()
    }


def _asked(entry: dict[str, Any], rows: int) -> int:
    """Rows that the tool was asked about: a question that went wrong on our side is none it could not answer."""
    reasons = entry.get("not_answerable", {})
    return rows - sum(len(left) for reason, left in reasons.items() if reason.startswith("was not asked"))


def _of(errors: dict[str, float], rows: int, seconds: Sequence[float] | None) -> dict[str, Any]:
    """A tensor more or less than single numbers is what counts as below: 0.01 % of the truth."""
    values = list(errors.values())
    return {
        "answered": len(values),
        "share_not_answerable": 1 - len(values) / rows,
        "median_error_percent": statistics.median(values) if values else None,
        "median_absolute_error_percent": statistics.median(map(abs, values)) if values else None,
        "worst_error_percent": max(values, key=abs) if values else None,
        "share_below": sum(value < -BELOW_PERCENT for value in values) / len(values) if values else None,
        "median_seconds": statistics.median(seconds) if seconds else None,
    }

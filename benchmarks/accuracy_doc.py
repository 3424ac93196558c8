"""Fills the generated parts of docs/accuracy.md: the committed measurements, and the tables of accuracy_rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import accuracy_rules
from accuracy_cases import KINDS
from accuracy_summary import summarize
from accuracy_words import percent, table, words

from compute_awareness.units import gib

DOC = Path(__file__).parents[1] / "docs" / "accuracy.md"


def filled(text: str, results: dict[str, Any]) -> str:
    """`text` of the document with what stands between its markers made anew.

    Raises:
        ValueError: a part that the document has no markers for.
    """
    for name, content in parts(results).items():
        pattern = re.compile(rf"(<!-- {name}:start -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        text, found = pattern.subn(lambda m, content=content: f"{m[1]}{content}\n{m[2]}", text)
        if found != 1:
            raise ValueError(f"docs/accuracy.md has {found} places for {name!r}, not one")
    return text


def parts(results: dict[str, Any]) -> dict[str, str]:
    """Every generated part by the name of its markers. `results` is what `accuracy.py` wrote."""
    return {
        "measured-on": _measured_on(results),
        "summary": _summary(results["rows"]),
        "rows": _rows(results["rows"]),
        **accuracy_rules.parts(),
    }


def _rounded(value: float) -> str:
    return f"{value:+.2f} %" if round(value, 2) else "0.00 %"


def _measured_on(results: dict[str, Any]) -> str:
    libraries = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    return (
        f"Measured {results['date']} by `{results['command']}` on {results['machine']}, "
        f"Python {results['python']}: {libraries}."
    )


def _summary(rows: list[dict[str, Any]]) -> str:
    lines = []
    for kind, entry in summarize(rows).items():
        cells = [KINDS[kind], str(entry["figures"])]
        for maker in ("ours", "rough"):
            s = entry[maker]
            cells += [_rounded(s["median_error_percent"]), _rounded(s["worst_error_percent"])]
            below = f"{s['below_truth']} of {entry['figures']}"
            cells.append(f"{below}, by {s['furthest_below_percent']:.3g} % at most" if s["below_truth"] else below)
        lines.append(cells)
    head = ["figure", "shapes", "ours: median", "worst", "below the truth", "rule: median", "worst", "below the truth"]
    return table(head, lines)


def _rows(rows: list[dict[str, Any]]) -> str:
    blocks = []
    for kind, title in KINDS.items():
        lines = []
        for row in rows:
            if kind in row["figures"]:
                f = row["figures"][kind]
                truth, ours, by_rule = f["truth"], f["ours"], f["rough"]
                cells = [words(row["workload"]), f"{truth:,}", f"{ours:,}", percent(ours, truth)]
                lines.append([*cells, gib(by_rule), percent(by_rule, truth)])
        head = ["workload", "truth, bytes", "ours, bytes", "error", "rule", "error"]
        blocks.append(f"### {title[0].upper() + title[1:]}\n\n{table(head, lines)}")
    return "\n\n".join(blocks)

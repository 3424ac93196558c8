"""Fills the generated parts of docs/accuracy.md: the committed measurements, and the tables of accuracy_rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import accuracy_rules
import gpu_truth_doc
from accuracy_cases import KINDS
from accuracy_plot import strips
from accuracy_summary import error, makers, summarize
from accuracy_verified import verified_table
from accuracy_words import percent, table, words

from compute_awareness.units import gib

DOC = Path(__file__).parents[1] / "docs" / "accuracy.md"
PLOT = DOC.with_suffix(".svg")


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
        "makers": _makers(results),
        "not-answerable": _not_answerable(results),
        "cuda": _cuda(results["rows"]),
        "verified": verified_table(),
        "gpu": gpu_truth_doc.part(),
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


def plotted(results: dict[str, Any]) -> str:
    """docs/accuracy.svg: every error of every maker as a dot."""
    return strips({_label(name): list(entry["errors"].values()) for name, entry in makers(results).items()})


def _label(maker: str) -> str:
    return {"ours": "this tool", "rough": "rules of thumb"}.get(maker, maker)


def _makers(results: dict[str, Any]) -> str:
    lines = []
    for name, entry in makers(results).items():
        seconds = entry["median_seconds"]
        cells = [_label(name), str(entry["answered"])]
        if entry["answered"]:
            cells += [_rounded(entry["median_error_percent"]), _rounded(entry["worst_error_percent"])]
            cells += [f"{entry['share_below']:.0%}"]
        else:
            cells += ["", "", ""]
        cells += [f"{entry['share_not_answerable']:.0%}", "" if seconds is None else f"{seconds:.2g} s"]
        lines.append(cells)
    head = [
        "maker",
        "answers",
        "median error",
        "worst",
        "below the truth",
        "not answerable",
        "CPU time of a cold answer",
    ]
    return table(head, lines)


def _not_answerable(results: dict[str, Any]) -> str:
    peers = results.get("peers")
    if peers is None:
        return "No other tool was asked: `python benchmarks/accuracy.py --peers`."
    lines = [f"Asked {peers['date']}."]
    for name, tool in peers["tools"].items():
        reasons = ", ".join(f"{reason} ({len(rows)})" for reason, rows in tool["not_answerable"].items())
        lines.append(f"- **{name} {tool['version']}** (compared: {tool['figure']}): {reasons}.")
    lines += [f"- **{name}** was left out: {why}." for name, why in peers["left_out"].items()]
    return "\n".join([lines[0], "", *lines[1:]])


def _cuda(rows: list[dict[str, Any]]) -> str:
    """How far what a user is told lies from the figure for the CPU, in words."""
    both = [
        (f["cuda"], f["ours"]) for row in rows for f in row["figures"].values() if f.get("cuda", f["ours"]) != f["ours"]
    ]
    if not both:
        return "In these rows it makes no difference."
    most = max(abs(error(cuda, ours)) for cuda, ours in both)
    return f"That concerns {len(both)} of the {len(rows)} rows, by {most:.1f} % at most."

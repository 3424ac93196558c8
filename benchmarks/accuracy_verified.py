"""The table of what the truth tests compared (facts/verified.json), for docs/accuracy.md."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from accuracy_words import table

import compute_awareness
from compute_awareness.precision import classify

TABLE = Path(compute_awareness.__file__).parent / "facts" / "verified.json"


def verified_table() -> str:
    """One line for each library, task and dtype: comparisons, architectures by the class they earned, the worst."""
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in json.loads(TABLE.read_text(encoding="utf-8"))["rows"]:
        found[row["library"], row["task"], row["dtype"]].append(row)
    lines = []
    for (library, task, dtype), rows in sorted(found.items()):
        classes = [classify(row["worst_bytes"], row["worst"]) for row in rows]
        worst = max(rows, key=lambda row: row["worst"])
        counts = [str(classes.count(word)) if word in classes else "" for word in ("exact", "close", "rough")]
        lowest = min(row["lowest"] for row in rows)
        lines.append(
            [
                library, f"`{task}`", dtype, str(sum(row["cases"] for row in rows)), *counts,
                f"{100 * worst['worst']:.2f} % ({worst['architecture']})" if worst["worst"] >= 5e-5 else "0.00 %",
                f"{100 * lowest:.2f} %" if lowest <= -5e-5 else "0.00 %",
            ]
        )  # fmt: skip
    head = ["library", "task", "dtype", "comparisons", "exact", "close", "rough", "worst", "furthest below"]
    return table(head, lines)

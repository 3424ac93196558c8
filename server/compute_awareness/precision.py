"""How sure an estimate may be called: what the comparisons with the real libraries came to, not what we hope.

`facts/verified.json` is made by `tools/build_verified.py` from the record of the truth tests: for each library, task,
architecture and dtype how many comparisons there were and how far the farthest was off. The tests in turn fail where
a comparison is worse than the class that its row claims.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from .memory.estimate import Precision

EXACT_BYTES = 512
"""A difference up to one block of the CUDA allocator is called exact: scalars and masks of a few elements."""
CLOSE = 0.02
"""The share that a `close` figure may be off."""
_ORDER: tuple[Precision, ...] = ("exact", "close", "rough")


class Verified(NamedTuple):
    """What was compared for one kind of estimate."""

    cases: int
    worst_bytes: int
    """Largest difference, in bytes of tensors at the peak."""
    worst: float
    """Largest difference as a share of the truth."""
    lowest: float
    """Lowest signed difference: below 0 where an estimate came out under the truth."""
    versions: tuple[str, ...]


def classify(worst_bytes: int, worst: float) -> Precision:
    """The class that comparisons as far off as this have earned."""
    if worst_bytes <= EXACT_BYTES:
        return "exact"
    return "close" if worst <= CLOSE else "rough"


@cache
def _table() -> dict[str, Any]:
    path = Path(__file__).parent / "facts" / "verified.json"
    return {key(row): row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}


def key(row: dict[str, Any]) -> str:
    """The key of a row: library, task, architecture and dtype."""
    return "|".join(str(row[name]) for name in ("library", "task", "architecture", "dtype"))


def verified(library: str, task: str, architecture: str, dtype: str) -> Verified | None:
    """The row for a kind of estimate; None where it was never compared. float16 counts as the other 16-bit dtype."""
    for name in (dtype, "bfloat16" if dtype == "float16" else dtype):
        row = _table().get(f"{library}|{task}|{architecture}|{name}")
        if row is not None:
            return Verified(row["cases"], row["worst_bytes"], row["worst"], row["lowest"], tuple(row["versions"]))
    return None


def earned(library: str, task: str, architecture: str, dtype: str) -> Precision:
    """The class that the comparisons have earned; `rough` where there were none."""
    row = verified(library, task, architecture, dtype)
    return "rough" if row is None else classify(row.worst_bytes, row.worst)


def weaker(first: Precision, second: Precision) -> Precision:
    """The less sure of two."""
    return _ORDER[max(_ORDER.index(first), _ORDER.index(second))]

"""Whether it fits."""

from __future__ import annotations

from ..units import gib
from .answers import Verdict


def judge(needed: int, low: int, high: int, free: int | None, device: str) -> Verdict:
    """Hold an estimate against free memory. All figures are bytes.

    `needed` is the figure expected, `low` and `high` the range it may lie in (low <= needed <= high). `free` is what
    the process can still take on `device`; None where that is not known. `fits` is only said where `high` fits too:
    green means it runs.
    """
    low, high = min(low, needed), max(high, needed)
    need = f"about {gib(needed)} ({gib(low)} to {gib(high)})"
    if free is None:
        return Verdict(
            status="unknown", device=device, free_bytes=None, needed_bytes=needed, headroom_bytes=None,
            why=f"It needs {need}; how much is free on {device} is not known.",
        )  # fmt: skip
    has = f"{device} has {gib(free)}"
    if high <= free:
        status, why = "fits", f"It needs {need} and {has}: room even at the high end."
    elif low > free:
        status, why = "does_not_fit", f"It needs {need} but {has}: {gib(low - free)} short even at the low end."
    elif needed <= free:
        status, why = "tight", f"It needs {need} and {has}: it should fit, but may be {gib(high - free)} short."
    else:
        status, why = "tight", f"It needs {need} but {has}: it may run out of memory, and fits only near the low end."
    return Verdict(
        status=status, device=device, free_bytes=free, needed_bytes=needed, headroom_bytes=free - needed, why=why
    )

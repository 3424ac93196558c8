"""Bytes and seconds in words. Everything inside the package is bytes and seconds as plain numbers."""

from __future__ import annotations

KIB, MIB, GIB = 1024, 1024**2, 1024**3


def gib(n: int | float) -> str:
    """A byte count for a person: `61.3 GiB`, `0.65 GiB`, `12 MiB`. Always binary units, always named."""
    if abs(n) >= 100 * GIB:
        return f"{n / GIB:.0f} GiB"
    if abs(n) >= 10 * GIB:
        return f"{n / GIB:.1f} GiB"
    if abs(n) >= GIB / 10:
        return f"{n / GIB:.2f} GiB"
    if abs(n) >= MIB:
        return f"{n / MIB:.0f} MiB"
    if abs(n) >= KIB:
        return f"{n / KIB:.0f} KiB"
    return f"{n:.0f} B"


def span(low: float, high: float) -> str:
    """A range of seconds for a person: `12 s to 2.1 h`."""
    first, last = duration(low), duration(high)
    return first if first == last else f"{first} to {last}"


def duration(seconds: float) -> str:
    """Seconds for a person: `under a second`, `40 s`, `12 min`, `3.5 h`, `2.1 days`."""
    if seconds < 1:
        return "under a second"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"

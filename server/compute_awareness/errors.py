"""What goes wrong in a caller's hands, said so that they can mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input. The message is one line for the caller: what was wrong, what is accepted, the nearest match.

    The command line prints it and exits with 2; the MCP tools return it as a tool error.
    """


class NotCovered(InputError):
    """No closed form covers this; a trace of the experiment's own library may."""


def nearest(name: str, known: Iterable[str], limit: int = 5) -> list[str]:
    """The known names closest to `name` (any case), best first, at most `limit`."""
    by_lower: dict[str, str] = {}
    for candidate in known:
        by_lower.setdefault(candidate.lower(), candidate)
    wanted = name.lower()
    hits = difflib.get_close_matches(wanted, by_lower, n=limit, cutoff=0.6)
    inside = [low for low in by_lower if wanted and (wanted in low or low in wanted) and low not in hits]
    return [by_lower[low] for low in (hits + sorted(inside, key=len))[:limit]]

"""What goes wrong in a caller's hands, said so that they can mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

LONGEST = 1_400
_LONGEST_NAME = 200


class InputError(ValueError):
    """Bad input. The message is one line for the caller: what was wrong, what is accepted, the nearest match.

    The command line prints it and exits with 2; the MCP tools return it as a tool error. What a caller gave, and gets
    back in it, may be of any length and hold anything: a message of more than `LONGEST` characters is cut, and line
    breaks and what a terminal would obey become spaces.
    """

    def __init__(self, message: str) -> None:
        line = one_line(message)
        super().__init__(line if len(line) <= LONGEST else line[: LONGEST - 3] + "...")


class NotCovered(InputError):
    """No closed form covers this; a trace of the experiment's own library may."""


def one_line(text: str) -> str:
    """`text` without line breaks and without what a terminal would obey; a run of such is one blank."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shown(value: Any, limit: int = 80) -> str:
    """A value that a caller gave, for an error message: at most `limit` characters; of a list or object its type."""
    try:
        if isinstance(value, str):
            value = value[:limit]
        text = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    except ValueError:  # Python refuses to print an int of more than 4300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def nearest(name: str, known: Iterable[str], limit: int = 5) -> list[str]:
    """The known names closest to `name` (any case), best first, at most `limit`."""
    by_lower: dict[str, str] = {}
    for candidate in known:
        by_lower.setdefault(candidate.lower(), candidate)
    wanted = name[:_LONGEST_NAME].lower()
    hits = difflib.get_close_matches(wanted, by_lower, n=limit, cutoff=0.6)
    inside = [low for low in by_lower if wanted and (wanted in low or low in wanted) and low not in hits]
    return [by_lower[low] for low in (hits + sorted(inside, key=len))[:limit]]

"""Parts of sequences: how long `x[a:b]` is, and what is in it."""

from __future__ import annotations

import re
from typing import Any

from .values import Items, Known, Source, Unknown, choose, known, number, weakest


def item_of_items(owner: Items, index: Any, line: int) -> Any:
    """An element of a list, or a part of it."""
    if isinstance(index, slice):
        parts = [None if part is None else number(part) for part in (index.start, index.stop, index.step)]
        exact = all(part is None or n is not None for part, n in zip((index.start, index.stop, index.step), parts,
                                                                     strict=True))  # fmt: skip
        length = owner.length()
        if exact and not owner.more and parts[2] != 0:
            return Items(owner.kind, owner.items[slice(*parts)])
        count = slice_length(index, length)
        return Items(owner.kind, owner.items[:1] if length is None else [], True, known(count))
    at = number(index)
    if at is not None and -len(owner.items) <= at < len(owner.items) and not (at < 0 and owner.more):
        return owner.items[at]
    if owner.items and len(owner.items) <= 6 and (not owner.more or at is not None):
        return choose(owner.items)
    return owner.items[0] if owner.more and owner.items else Unknown("an element", line=line)


def item_of_text(owner: Known, index: Any, line: int) -> Any:
    """A character of a text, or a part of it."""
    given = (index.start, index.stop, index.step) if isinstance(index, slice) else (index,)
    numbers = [None if part is None else number(part) for part in given]
    if any(part is not None and n is None for part, n in zip(given, numbers, strict=True)):
        return Unknown("a part of a text", line=line)
    try:
        return Known(owner.value[slice(*numbers) if isinstance(index, slice) else numbers[0]], owner.source)
    except (IndexError, ValueError):  # beyond its end; a step of 0
        return Unknown("a part of a text", line=line)


def slice_length(index: slice, length: int | None) -> Any:
    """How long `[a:b]` of something of `length` is, as a Known or an Unknown.

    The length of `[i : i + n]` is taken to be `n` where `i` is not known: the last piece may be shorter.
    """
    start, stop = index.start, index.stop
    first, last = number(start) if start is not None else 0, number(stop) if stop is not None else None
    if index.step is not None and number(index.step) not in (None, 1):
        step = number(index.step) or 1
        whole = slice(number(start), number(stop), step)
        return Known(len(range(length)[whole])) if length is not None and length < 10**9 else Unknown("every so many")
    if length is not None and first is not None and (stop is None or last is not None):
        return Known(len(range(min(length, 10**15))[first:last]), weakest(start, stop) if stop else Source("computed"))
    if first is not None and last is not None and (first < 0) == (last < 0) and length is None:
        return Known(max(0, last - first), weakest(start, stop))
    most = stop.at_most if isinstance(stop, Unknown) else None
    if first is not None and most is not None and 0 <= first < most:
        return Known(most - first, Source("computed"))
    if start is not None and stop is not None:
        form, other = getattr(start, "form", ""), getattr(stop, "form", "")
        if form and other:
            found = step_between(form, other)
            if isinstance(found, int):
                most = found if length is None else min(found, length)
                return Known(most, Source("computed"))
    if first is not None and first < 0 and stop is None:
        return Known(-first if length is None else min(-first, length))
    return Unknown("a part of what is not known", length if length is not None else None)


def step_between(start: str, stop: str) -> int | None:
    """`i`, `(i+16)` -> 16; `(b*8)`, `((b+1)*8)` -> 8."""
    for pattern in (rf"\({re.escape(start)}\+(\d+)\)", rf"\((\d+)\+{re.escape(start)}\)"):
        if match := re.fullmatch(pattern, stop):
            return int(match.group(1))
    if match := re.fullmatch(r"\((.+)\*(\d+)\)", start):
        name, size = match.groups()
        if re.fullmatch(rf"\(\({re.escape(name)}\+1\)\*{size}\)", stop):
            return int(size)
    return None

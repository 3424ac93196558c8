"""What an experiment reads of its cache (`reads`): whether there are such hooks, and which of them are not kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fnmatch import translate
from functools import lru_cache

from .errors import InputError
from .workload import ActivationCache, Patching

_BLOCK = re.compile(r"\.(\d{1,6})(?:\.|$)")
_WILD = re.compile(r"[*?\[]")


def not_kept(
    workload: ActivationCache | Patching,
    n_layers: int,
    every: Iterable[str],
    fires: Iterable[str],
    keeps: Callable[[str], bool],
    refuse: Callable[[str], str],
    regex: Callable[[str], str] = translate,
) -> list[str]:
    """The warning that the cache lacks something that is read; [] where it has all of it, or nothing is said.

    A glob means hooks inside of `layers` and `stop_at_layer`, as one of names_filter does; a name, and a glob that has
    none there, means what it says.

    Args:
        every: names of all hooks (or modules) of a whole pass.
        fires: those that fire in this one (stop_at_layer).
        keeps: whether names_filter and layers let a name through.
        refuse: the one line for a `names_filter` of a pattern that matches nothing.
        regex: the regular expression of a glob, to be matched as a whole.
    Raises:
        InputError: a pattern that no hook has, as for names_filter; an empty list.
    """
    if workload.reads is None:
        return []
    if not workload.reads:
        raise InputError("reads: an empty list reads nothing; leave it out where it is not known what is read")
    firing = frozenset(fires)
    blocks = None if workload.layers is None else {layer % n_layers for layer in workload.layers}
    inside = frozenset(name for name in firing if blocks is None or _block_of(name) in blocks)
    kept = frozenset(name for name in firing if keeps(name))
    unheard, lost = _lost(tuple(workload.reads), tuple(every), inside, kept, regex)
    if unheard is not None:
        raise InputError(refuse(unheard).replace("names_filter:", "reads:", 1))
    return [_warning(workload, lost)] if lost else []


@lru_cache(maxsize=64)
def _lost(
    patterns: tuple[str, ...],
    every: tuple[str, ...],
    inside: frozenset[str],
    kept: frozenset[str],
    regex: Callable[[str], str],
) -> tuple[str | None, list[str]]:
    """The first pattern that matches nothing, and the names that are read and not kept. The same for every batch size
    that an advice tries, so that it is worked out once."""
    lost: dict[str, None] = {}
    for pattern in patterns:
        matches = re.compile(regex(pattern)).fullmatch
        found = [name for name in every if matches(name)]
        if not found:
            return pattern, []
        if _WILD.search(pattern):
            found = [name for name in found if name in inside] or found
        lost |= dict.fromkeys(name for name in found if name not in kept)
    return None, list(lost)


def _block_of(name: str) -> int | None:
    """The block of a hook or module: `blocks.3.hook_z`, `model.layers.3`; None outside the blocks."""
    match = _BLOCK.search(name)
    return int(match.group(1)) if match else None


def _warning(workload: ActivationCache | Patching, lost: list[str]) -> str:
    limits = [name for name in ("names_filter", "layers", "stop_at_layer") if getattr(workload, name, None) is not None]
    more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    verb = "are" if len(lost) > 1 else "is"
    by = f" ({', '.join(limits)})" if limits else ""
    dies = "not there at run time" if workload.library == "nnsight" else "a KeyError at run time"
    return f"reads: {lost[0]}{more} {verb} read but not kept{by}: {dies}"

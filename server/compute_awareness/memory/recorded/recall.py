"""What was played for one shape is worked out for others: recorded once, then filled in.

The first call of a kind is played as it is, as most commands ask only once. The second records, which takes a few
times as long.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import TypeVar

from .program import Program
from .size import Recording, Size

Result = TypeVar("Result")
_KINDS, _REGIMES = 64, 6
_kept: OrderedDict[Hashable, list[Program]] = OrderedDict()
"""The recordings of each kind, the latest first; the kind that was recorded last at the end."""
_lock = Lock()


def recall(kind: Hashable, sizes: tuple[int, ...], play: Callable[..., Result], *, with_log: bool = False) -> Result:
    """`play(*sizes)`, played anew only where nothing that was recorded fits.

    Args:
        kind: everything else that decides the result.
        sizes: whole numbers from 1 on.
        play: computes with them as with numbers. What it returns must not change afterwards; see `Program`.
        with_log: its tapes' logs are asked for.
    """
    if Size in map(type, sizes):  # what is being recorded calls what is recorded itself
        return play(*sizes)
    programs = _kept.get(kind)
    if programs is None:
        _keep(kind, [])
        return play(*sizes)
    for program in programs:
        found = program.at(sizes)
        if found is not None:
            return found[0]
    recording = Recording(sizes)
    program = Program(recording, play(*recording.symbols), with_log)
    _keep(kind, [program, *programs[: _REGIMES - 1]])
    found = program.at(sizes)
    assert found is not None, "a recording holds for its own shape"
    return found[0]


def forget() -> None:
    """All that was recorded."""
    with _lock:
        _kept.clear()


def _keep(kind: Hashable, programs: list[Program]) -> None:
    with _lock:
        _kept[kind] = programs
        _kept.move_to_end(kind)
        while len(_kept) > _KINDS:
            _kept.popitem(last=False)

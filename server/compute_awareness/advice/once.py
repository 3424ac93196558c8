"""Estimates for one answer, each made once: a search over changes comes to the same workload by many ways."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..estimator import estimate
from ..memory.estimate import Estimate
from ..workload import AnyWorkload

_made: ContextVar[dict[tuple[str, str | None], Estimate] | None] = ContextVar("_made", default=None)


@contextmanager
def each_estimate_once() -> Iterator[None]:
    """Within it `estimated` answers the same question from memory. Not longer than one answer: the files of a model,
    and a trace's Python, may be others for the next one."""
    outer = _made.get()
    token = _made.set({} if outer is None else outer)
    try:
        yield
    finally:
        _made.reset(token)


def estimated(workload: AnyWorkload, compute_capability: str | None) -> Estimate:
    """As `estimate`; what is returned is shared, and is not to be changed.

    Raises:
        InputError: as `estimate`.
    """
    made = _made.get()
    if made is None:
        return estimate(workload, compute_capability)
    key = (workload.model_dump_json(), compute_capability)
    if key not in made:
        made[key] = estimate(workload, compute_capability)
    return made[key]

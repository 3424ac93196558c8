"""Answers given before that cannot have changed: who compares settings comes back to the first one."""

from __future__ import annotations

from collections import OrderedDict

from mcp.types import CallToolResult

from ..workload import AnyWorkload

_MOST = 256  # of at most 8 kB each
_KEPT: OrderedDict[tuple[str, str], CallToolResult] = OrderedDict()
"""Read and written on the event loop alone."""


def key_of(workload: AnyWorkload, detail: str) -> tuple[str, str] | None:
    """What an answer is kept under; None where it depends on files: a model's that the catalogue does not have."""
    from ..models import catalogue

    model = getattr(workload, "model", None)
    if isinstance(model, str) and catalogue.find(model) is None:
        return None
    return workload.model_dump_json(), detail


def kept(key: tuple[str, str] | None) -> CallToolResult | None:
    """The answer of before, if it is there still."""
    found = None if key is None else _KEPT.get(key)
    if key is None or found is None:
        return None
    _KEPT.move_to_end(key)
    return found.model_copy()


def keep(key: tuple[str, str] | None, result: CallToolResult) -> CallToolResult:
    """`result`, and from now on the answer for `key`; the one that was not asked for longest makes room."""
    if key is not None:
        _KEPT[key] = result.model_copy()
        if len(_KEPT) > _MOST:
            _KEPT.popitem(last=False)
    return result

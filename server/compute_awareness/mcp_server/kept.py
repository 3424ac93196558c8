"""Answers given before that cannot have changed: who compares settings comes back to the first one."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import pydantic_core
from mcp.types import CallToolResult

if TYPE_CHECKING:
    from ..workload import AnyWorkload

_MOST = 256  # of at most 8 kB each
_LONGEST_KEY = 4096


class Kept:
    """The answers of one tool of one server, by its arguments as they came. For the event loop alone."""

    def __init__(self) -> None:
        self._answers: OrderedDict[bytes, CallToolResult] = OrderedDict()

    def get(self, key: bytes | None) -> CallToolResult | None:
        """The answer of before, if it is there still."""
        found = None if key is None else self._answers.get(key)
        if key is None or found is None:
            return None
        self._answers.move_to_end(key)
        return found.model_copy()

    def put(self, key: bytes | None, result: Any) -> None:
        """From now on the answer for `key`; the one that was not asked for longest makes room."""
        if key is None or not isinstance(result, CallToolResult):
            return
        self._answers[key] = result.model_copy()
        if len(self._answers) > _MOST:
            self._answers.popitem(last=False)


def key_of(arguments: dict[str, Any]) -> bytes | None:
    """What an answer is kept under; None for arguments that are long, or no JSON."""
    try:
        key = pydantic_core.to_json(arguments, inf_nan_mode="constants")
    except ValueError:
        return None
    return key if len(key) <= _LONGEST_KEY else None


def depends_on_no_file(workload: AnyWorkload) -> bool:
    """Whether the model is the catalogue's or given in numbers: what is read from a file or the hub may change."""
    from ..models import catalogue

    model = getattr(workload, "model", None)
    return not isinstance(model, str) or catalogue.find(model) is not None

"""Completions of prompt arguments and of the names in resource addresses."""

from __future__ import annotations

from collections.abc import Callable

from mcp.types import Completion, CompletionArgument, CompletionContext, PromptReference, ResourceTemplateReference

_LIMIT = 100  # the protocol's own limit of values per answer


async def complete(
    ref: PromptReference | ResourceTemplateReference,
    argument: CompletionArgument,
    context: CompletionContext | None,
) -> Completion | None:
    """Known values that begin with what was typed, then those that contain it; None where there is no list."""
    if isinstance(ref, ResourceTemplateReference):
        kind = _TEMPLATES.get(ref.uri, "")
    else:
        kind = argument.name
    values_of = _VALUES.get(kind)
    if values_of is None:
        return None
    typed = argument.value.strip().lower()
    values = values_of()
    begins = [value for value in values if value.lower().startswith(typed)]
    contains = [value for value in values if typed in value.lower() and value not in begins]
    hits = begins + contains
    return Completion(values=hits[:_LIMIT], total=len(hits), has_more=len(hits) > _LIMIT)


def _models() -> list[str]:
    from ..models.catalogue import names

    return list(names())


def _gpus() -> list[str]:
    from ..advice.gpus import all_gpus

    return [*(gpu.name for gpu in all_gpus()), "none", "unknown"]


def _platforms() -> list[str]:
    from ..advice.platforms import all_platforms

    return [row.id for row in all_platforms()]


def _tasks() -> list[str]:
    from ..workload import TASKS

    return list(TASKS)


def _dtypes() -> list[str]:
    from ..workload import DTYPE_BYTES

    return list(DTYPE_BYTES)


_TEMPLATES = {
    "compute://models/{name}": "model",
    "compute://platforms/{name}": "platform",
    "compute://tasks/{task}": "task",
}
_VALUES: dict[str, Callable[[], list[str]]] = {
    "model": _models,
    "gpu": _gpus,
    "platform": _platforms,
    "task": _tasks,
    "dtype": _dtypes,
}

"""Completions of prompt arguments and of the names in resource addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
    values = values_of(context.arguments or {} if context else {})
    begins = [value for value in values if value.lower().startswith(typed)]
    contains = [value for value in values if typed in value.lower() and value not in begins]
    hits = begins + contains
    return Completion(values=hits[:_LIMIT], total=len(hits), has_more=len(hits) > _LIMIT)


Arguments = Mapping[str, str]
"""What the other arguments have so far."""

# The vectors that SAEs are trained on and caches are filtered to, the usual ones first.
_HOOKS = ("hook_resid_pre", "hook_resid_post", "hook_resid_mid", "hook_mlp_out", "hook_attn_out", "attn.hook_z",
          "mlp.hook_post")  # fmt: skip
_BLOCKS_SHOWN = 12


def _models(arguments: Arguments) -> list[str]:
    from ..models.catalogue import names

    return list(names())


def _gpus(arguments: Arguments) -> list[str]:
    from ..advice.gpus import all_gpus

    return [*(gpu.name for gpu in all_gpus()), "none", "unknown"]


def _platforms(arguments: Arguments) -> list[str]:
    from ..advice.platforms import all_platforms

    return [row.id for row in all_platforms()]


def _tasks(arguments: Arguments) -> list[str]:
    from ..workload import TASKS

    return list(TASKS)


def _dtypes(arguments: Arguments) -> list[str]:
    from ..workload import DTYPE_BYTES

    return list(DTYPE_BYTES)


def _libraries(arguments: Arguments) -> list[str]:
    from ..versions import COVERED

    return list(COVERED)


def _architectures(arguments: Arguments) -> list[str]:
    from typing import get_args

    from ..workload.sae import SaeArchitecture

    return list(get_args(SaeArchitecture))


def _hook_filters(arguments: Arguments) -> list[str]:
    return [f"*{hook}" for hook in (*_HOOKS, "attn.hook_pattern", "attn.hook_attn_scores")]


def _hook_names(arguments: Arguments) -> list[str]:
    """Hooks of every block of the model that was given; without one, of as many blocks as GPT-2 has."""
    from ..models.catalogue import find

    spec = find(arguments.get("model", ""))
    blocks = range(spec.n_layers if spec else _BLOCKS_SHOWN)
    return [f"blocks.{block}.{hook}" for hook in _HOOKS for block in blocks]


_TEMPLATES = {
    "compute://models/{name}": "model",
    "compute://platforms/{name}": "platform",
    "compute://tasks/{task}": "task",
}
_VALUES: dict[str, Callable[[Arguments], list[str]]] = {
    "model": _models,
    "gpu": _gpus,
    "platform": _platforms,
    "task": _tasks,
    "dtype": _dtypes,
    "library": _libraries,
    "architecture": _architectures,
    "hooks": _hook_filters,
    "hook_name": _hook_names,
}

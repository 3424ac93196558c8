"""The resources of the server: the policy and the tables, read-only."""

from __future__ import annotations

from typing import Any

import pydantic_core
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError

from ..errors import InputError

JSON = "application/json"


def add_resources(server: MCPServer[Any]) -> None:
    """Registers compute://policy, models, models/{name}, tasks/{task}, gpus, platforms/{name} and strategies."""
    add = server.resource
    add("compute://policy", title="When to ask about compute", mime_type="text/markdown")(policy)
    add("compute://models", title="Model catalogue", mime_type=JSON)(models)
    add("compute://models/{name}", title="One model's architecture", mime_type=JSON)(model)
    add("compute://tasks/{task}", title="Fields of one task", mime_type=JSON)(task_fields)
    add("compute://gpus", title="GPU table", mime_type=JSON)(gpus)
    add("compute://platforms/{name}", title="One place to run", mime_type=JSON)(platform)
    add("compute://strategies", title="Ways to need less memory", mime_type=JSON)(strategies)


def policy() -> str:
    """When to ask the user about compute, when to say it in one line, when to stay silent."""
    from ..prompt_files import prompt_files

    return prompt_files()["when_to_ask_about_compute"].render()


def models() -> str:
    """Every model of the catalogue: name, Hugging Face id, blocks, width and context."""
    from ..models.catalogue import rows

    kept = ("name", "hf_id", "n_layers", "d_model", "n_ctx")
    listed = [{field: row[field] for field in kept} for row in rows()]
    return _json({"count": len(listed), "models": listed})


def model(name: str) -> str:
    """The architecture numbers of one model, by catalogue name, alias or Hugging Face id (a slash as %2F)."""
    from ..models.catalogue import find, near

    spec = find(name)
    if spec is None:
        close = near(name[:200])
        hint = f"nearest: {', '.join(close)}" if close else "compute://models lists them"
        raise ResourceNotFoundError(f"unknown model {name[:80]!r}; {hint}")
    return _json(spec)


def task_fields(task: str) -> str:
    """Every field of one kind of workload: type, default, limits and what it means."""
    from ..errors import nearest
    from ..workload import TASKS

    kind = TASKS.get(task)
    if kind is None:
        close = nearest(task[:80], TASKS, 1)
        hint = f" (nearest: {close[0]})" if close else ""
        raise ResourceNotFoundError(f"unknown task {task[:80]!r}{hint}; one of: {', '.join(TASKS)}")
    return _json(kind.model_json_schema())


def gpus() -> str:
    """The GPUs known: memory that a process can have, bandwidth, compute capability, native bfloat16."""
    from ..advice.gpus import all_gpus

    kept = {"id", "name", "kind", "compute_capability", "usable_bytes", "bandwidth_gb_s", "bf16_native"}
    listed = [gpu.model_dump(mode="json", include=kept) for gpu in all_gpus()]
    return _json({"count": len(listed), "gpus": listed})


def platform(name: str) -> str:
    """What one platform offers: GPUs, prices with date, session limits, how to start, what goes wrong."""
    from ..advice.platforms import platform as find

    try:
        return _json(find(name))
    except InputError as error:
        raise ResourceNotFoundError(str(error)) from None


def strategies() -> str:
    """The five strategies that need less memory: what each does to the result and what it costs."""
    from ..advice.strategies import catalogue

    return _json(list(catalogue()))


def _json(value: Any) -> str:
    return pydantic_core.to_json(value).decode()

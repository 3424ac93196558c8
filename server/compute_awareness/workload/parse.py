"""Workloads from JSON: one discriminated union on `task`, and one-line errors that name the nearest match."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from ..errors import InputError, nearest, shown
from .generation import Generation
from .passes import ActivationCache, Inference
from .patching import Patching
from .sae import SaeTraining
from .sae_inference import SaeInference
from .training import Training

AnyWorkload = Inference | ActivationCache | Generation | Training | Patching | SaeTraining | SaeInference
Workload = Annotated[AnyWorkload, Field(discriminator="task")]
TASKS: dict[str, type[AnyWorkload]] = {
    "inference": Inference,
    "activation_cache": ActivationCache,
    "generation": Generation,
    "training": Training,
    "patching": Patching,
    "sae_training": SaeTraining,
    "sae_inference": SaeInference,
}


def parse_workload(data: Any) -> AnyWorkload:
    """A workload from decoded JSON.

    Raises:
        InputError: one line naming the field, what was given, what is accepted and the nearest match.
    """
    if not isinstance(data, dict):
        raise InputError(f"a workload is a JSON object with a 'task', not {type(data).__name__}")
    task = data.get("task")
    if not isinstance(task, str):
        raise InputError(f"'task' is missing; one of: {', '.join(TASKS)}")
    kind = TASKS.get(task)
    if kind is None:
        close = nearest(task, TASKS, 1)
        hint = f" (nearest: {close[0]})" if close else ""
        raise InputError(f"unknown task {shown(task)}{hint}; one of: {', '.join(TASKS)}")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise InputError(explain(error, kind)) from None


def decode_json(text: str) -> Any:
    """What JSON text says. Raises InputError, with the place, for what is not JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON at line {error.lineno} column {error.colno}: {error.msg}") from None
    except (RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else "a number has too many digits"
        raise InputError(f"not valid JSON: {reason}") from None


def load_workload(text: str) -> AnyWorkload:
    """A workload from JSON text. Raises InputError, also for broken JSON."""
    return parse_workload(decode_json(text))


def explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """One line for the first problem pydantic found in a `kind`; says how many more there are."""
    problems = error.errors(include_url=False)
    first = problems[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    given = first.get("input")
    if first["type"] == "extra_forbidden" and field == "sweep":
        line = "sweep is a grid of runs, not a field of one: `compute-awareness sweep`, or recommend_compute's `sweep`"
    elif first["type"] == "extra_forbidden":
        close = nearest(field, kind.model_fields, 1)
        hint = f"; nearest: {close[0]}" if close else ""
        owners = [task for task, other in TASKS.items() if field in other.model_fields]
        if owners and kind in TASKS.values():
            hint = f" of {kind.model_fields['task'].default} (a field of {', '.join(owners)})"
        line = f"unknown field {field[:80]!r}{hint}; accepted: {', '.join(kind.model_fields)}"
    elif first["type"] == "missing":
        line = f"{field!r} is missing"
    elif first["type"] == "literal_error":
        accepted = first.get("ctx", {}).get("expected", "")
        values = [v for v in accepted.replace(" or ", ", ").replace("'", "").split(", ") if v]
        close = nearest(given, values, 1) if isinstance(given, str) else []
        hint = f"; nearest: {close[0]}" if close else ""
        line = f"{field}: {shown(given)} is not accepted; accepted: {', '.join(values)}{hint}"
    elif first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        line = f"{field}: {message}" if field else message
    else:
        line = f"{field}: {first['msg'].lower()}, not {shown(given)}"
    more = len(problems) - 1
    return line + (f" (and {more} more problem{'s' * (more > 1)})" if more else "")


def field_names() -> list[str]:
    """Every field of every task, in first-seen order: what the command line and the tools offer."""
    seen: dict[str, None] = {}
    for kind in TASKS.values():
        seen.update(dict.fromkeys(kind.model_fields))
    return list(seen)

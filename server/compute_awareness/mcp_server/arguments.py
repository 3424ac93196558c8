"""The arguments of the tools that take a workload: its flat fields, as the command line's JSON has them."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ValidationError, WithJsonSchema

from ..errors import InputError
from ..workload import TASKS, AnyWorkload, explain, parse_workload

if TYPE_CHECKING:
    from ..hardware.compute import Compute

# How a field's description says which tasks have it; the description of `task` explains the marks.
_MARKS = {
    ("inference",): "inference",
    ("activation_cache",): "cache",
    ("sae_training",): "SAE",
    ("inference", "activation_cache"): "not SAE",
}
_TASK_DESCRIPTION = "activation_cache = run_with_cache. Fields marked inference, cache or SAE are for that task only"
_COSTLY = ("title", "default", "anyOf", "maximum", "minimum", "exclusiveMinimum", "additionalProperties")
_PARENTHESIS = re.compile(r" \([^()]*\)")

Detail = Annotated[
    Literal["concise", "full"],
    WithJsonSchema({"enum": ["concise", "full"], "type": "string", "description": "Default concise"}),
]
Gpu = Annotated[
    str | None,
    WithJsonSchema(
        {
            "type": "string",
            "description": "Card the run will have: RTX 4090, 2xH100, none, unknown (another machine); "
            "default: this machine's",
        }
    ),
]
Python = Annotated[
    str | None,
    WithJsonSchema(
        {"type": "string", "description": "Path of the experiment's Python; default: active or project environment"}
    ),
]
ComputeReport = Annotated[
    dict[str, Any] | None,
    WithJsonSchema({"type": "object", "description": "detect_compute report of the machine that will run it"}),
]


def workload_parameters() -> list[inspect.Parameter]:
    """One keyword parameter per field of the workload union, `task` first, with its JSON schema.

    Values are not checked here: `as_workload` gives them to the parser that the command line uses too, so that
    both give the same one-line errors.
    """
    schemas = _field_schemas()
    names = ["task", *(name for name in schemas if name != "task")]
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if name == "task" else None,
            annotation=Annotated[Any, WithJsonSchema(schemas[name])],
        )
        for name in names
    ]


def as_workload(fields: dict[str, Any]) -> AnyWorkload:
    """The workload of a call; null means the task's default. Raises InputError."""
    return parse_workload({name: value for name, value in fields.items() if value is not None})


def as_compute_report(data: dict[str, Any] | None) -> Compute | None:
    """A report made elsewhere. Raises InputError for one that detect_compute did not make."""
    if data is None:
        return None
    from ..hardware.compute import Compute

    try:
        return Compute.model_validate(data)
    except ValidationError as error:
        raise InputError(f"compute: not a detect_compute report: {explain(error, Compute)}") from None


def _field_schemas() -> dict[str, dict[str, Any]]:
    """Field name -> lean schema. A field of several tasks comes once, accepting what any of them accepts."""
    seen: dict[str, dict[str, Any]] = {}
    owners: dict[str, list[str]] = {}
    for task, kind in TASKS.items():
        for name, schema in kind.model_json_schema()["properties"].items():
            owners.setdefault(name, []).append(task)
            seen[name] = _either(seen[name], _lean(schema)) if name in seen else _lean(schema)
    for name, schema in seen.items():
        if name == "task":
            schema["description"] = _TASK_DESCRIPTION
        elif len(owners[name]) < len(TASKS):
            schema["description"] = f"{_MARKS[tuple(owners[name])]}: {schema.get('description', '')}".rstrip(": ")
    return seen


def _lean(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without what costs tokens in every tool and helps no caller.

    Generated titles; defaults, which the result's workload shows filled in (a host that fills them in itself would
    send fields of other tasks); the null arm, because absence already says "the task's default"; limits, which the
    parser checks and names; elaborations in parentheses, which the command line's help keeps.
    """
    lean = {key: value for key, value in schema.items() if key not in _COSTLY}
    arms = [_lean(arm) for arm in schema.get("anyOf", []) if arm.get("type") != "null"]
    if len(arms) == 1:
        lean = arms[0] | lean
    elif arms:
        lean["anyOf"] = arms
    if "const" in lean:
        lean["enum"] = [lean.pop("const")]
    if "description" in lean:
        lean["description"] = _PARENTHESIS.sub("", lean["description"].split("; null = ")[0])
    return lean


def _either(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    if "enum" in first and "enum" in second:
        return first | {"enum": list(dict.fromkeys([*first["enum"], *second["enum"]]))}
    return first

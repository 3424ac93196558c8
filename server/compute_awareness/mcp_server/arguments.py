"""The arguments of the tools that take a workload: its flat fields, as the command line's JSON has them."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import WithJsonSchema

from ..errors import InputError
from ..launch.answers import ENGINES
from ..workload import TASKS, AnyWorkload, parse_workload

if TYPE_CHECKING:
    from ..hardware.compute import Compute

# The fields that most calls give; the others are accepted too, by their own name or in `options`. Listing all of them
# in every tool would cost a session several thousand tokens.
SHOWN = (
    "task", "model", "library", "library_version", "batch_size", "seq_len", "dtype", "names_filter", "layers",
    "new_tokens", "method", "architecture", "hook_name", "d_in", "expansion_factor",
    "train_batch_size_tokens",
)  # fmt: skip
# How a field's description says which tasks have it.
_SHORT = {"activation_cache": "cache", "sae_training": "SAE training", "sae_inference": "SAE inference"}
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
Host = Annotated[
    str | None,
    WithJsonSchema({"type": "string", "description": "Look at another machine by ssh: alias or user@host"}),
]
Python = Annotated[
    str | None,
    WithJsonSchema(
        {"type": "string", "description": "Path of the experiment's Python; default: active or project environment"}
    ),
]
ComputeReport = Annotated[
    dict[str, Any] | str | None,
    WithJsonSchema(
        {
            "type": ["object", "string"],
            "description": "Report (or probe script output) of the machine that will run it",
        }
    ),
]


Sweep = Annotated[
    dict[str, Any] | None,
    WithJsonSchema(
        {
            "type": "object",
            "description": 'Grid of runs: field -> values, e.g. {"hook_layer": "0..11", "expansion_factor": [8, 16]}',
        }
    ),
]
LaunchFor = Annotated[
    str | None,
    WithJsonSchema({"type": "string", "enum": list(ENGINES), "description": "Write a task file; starts nothing"}),
]
Run = Annotated[
    str | None,
    WithJsonSchema({"type": "string", "description": "For launch_for: command to run, {field} = a sweep's value"}),
]

LivePrices = Annotated[
    bool, WithJsonSchema({"type": "boolean", "description": "Ask for prices online; default: dated ones"})
]


def workload_parameters(*, all_options: bool) -> list[inspect.Parameter]:
    """One keyword parameter per field of the workload union, `task` first, with its JSON schema, and `options`.

    `hidden_parameters` are accepted but not published; `all_options` names them in the description of `options`, which
    one tool may do for all.

    Values are not checked here: `as_workload` gives them to the parser that the command line uses too, so that
    both give the same one-line errors.
    """
    schemas = _field_schemas()
    described = _options_description() if all_options else "Further fields, as in preflight_experiment"
    schemas["options"] = {"type": "object", "description": described}
    names = [*(name for name in SHOWN if name in schemas), *(name for name in schemas if name not in SHOWN)]
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if name == "task" else None,
            annotation=Annotated[Any, WithJsonSchema(schemas[name])],
        )
        for name in names
    ]


def hidden_parameters() -> frozenset[str]:
    """The fields that the published schema leaves to `options`."""
    return frozenset(name for kind in TASKS.values() for name in kind.model_fields if name not in SHOWN)


def as_workload(fields: dict[str, Any]) -> AnyWorkload:
    """The workload of a call; null means the task's default. Raises InputError."""
    return parse_workload(given_fields(fields))


def given_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """What a call gives of a workload, by name and in `options`, not looked at. Raises InputError."""
    given = {name: value for name, value in fields.items() if value is not None}
    options = given.pop("options", {})
    if not isinstance(options, dict):
        raise InputError(f"options: an object of further fields, not {type(options).__name__}")
    for name, value in options.items():
        if name in given and given[name] != value:
            raise InputError(f"{name}: {given[name]!r} given beside options, which has {value!r}")
    return given | {name: value for name, value in options.items() if value is not None}


def _options_description() -> str:
    """Names the fields that are not listed, each once with the tasks that have it (compute://tasks/{task})."""
    hidden, by_tasks = hidden_parameters(), dict[tuple[str, ...], list[str]]()
    for name in dict.fromkeys(name for kind in TASKS.values() for name in kind.model_fields if name in hidden):
        tasks = tuple(task for task, kind in TASKS.items() if name in kind.model_fields)
        if len(tasks) < len(TASKS):
            by_tasks.setdefault(tasks, []).append(name)
    listed = [f"{_mark(list(tasks))}: {', '.join(names)}" for tasks, names in by_tasks.items()]
    return f"Further fields of the task, described in compute://tasks/{{task}}. {'; '.join(listed)}"


def as_compute_report(data: dict[str, Any] | str | None) -> Compute | None:
    """A report made elsewhere. Raises InputError for one that detect_compute did not make."""
    if data is None:
        return None
    from ..hardware.reading import as_compute

    try:
        return as_compute(data)
    except InputError as error:
        raise InputError(f"compute: not a detect_compute report: {error}") from None


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
            schema["description"] = "activation_cache = run_with_cache; inference = one forward pass"
        elif len(owners[name]) < len(TASKS):
            schema["description"] = f"{_mark(owners[name])}: {schema.get('description', '')}".rstrip(": ")
    return seen


def _mark(owners: list[str]) -> str:
    """`cache`, `training, patching`, or `not SAE`: whichever is shorter. Both tasks of an SAE are `SAE`."""
    others = [task for task in TASKS if task not in owners]
    names = others if len(others) < len(owners) else owners
    short = ", ".join(_SHORT.get(task, task) for task in names)
    listed = short.replace("SAE training, SAE inference", "SAE")
    return f"not {listed}" if names is others else listed


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

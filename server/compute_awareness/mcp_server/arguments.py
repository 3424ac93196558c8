"""The arguments of the tools that take a workload: its flat fields, as the command line's JSON has them."""

from __future__ import annotations

import inspect
import json
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import WithJsonSchema

from ..errors import InputError, shown
from ..launch.answers import ENGINES
from .hosting import checked_if_hosted

if TYPE_CHECKING:
    # The core is imported by the first call, not by the start of the server.
    from ..hardware.compute import Compute
    from ..workload import AnyWorkload

# The fields that most calls give; the others are accepted too, by their own name or in `options`. Listing all of them
# in every tool would cost a session several thousand tokens.
SHOWN = (
    "task", "model", "library", "batch_size", "seq_len", "dtype", "names_filter", "reads", "layers", "method",
    "architecture", "hook_name", "expansion_factor",
)  # fmt: skip
# How a field's description says which tasks have it.
_SHORT = {"activation_cache": "cache", "sae_training": "SAE training", "sae_inference": "SAE inference"}
_COSTLY = ("title", "default", "anyOf", "maximum", "minimum", "exclusiveMinimum", "additionalProperties", "examples")
_PARENTHESIS = re.compile(r" \([^()]*\)")
# In fewer words than the command line's help and compute://tasks/{task} have.
_BRIEF = {
    "task": "activation_cache = run_with_cache; inference = one forward pass",
    "model": "Name, Hugging Face id, path of a config.json, or its numbers",
    "library": "transformer_lens = HookedTransformer",
    "batch_size": "Sequences per pass",
    "seq_len": "Tokens per sequence with BOS",
    "dtype": "Of weights and activations",
    "names_filter": "Globs on full hook names",
    "reads": "Hooks the code reads afterwards",
    "layers": "Only these blocks of it",
    "method": "patching: which; else how to estimate",
    "architecture": "standard, topk, jumprelu, transcoder...",
    "hook_name": "Hook it reads, d_in wide",
    "expansion_factor": "d_sae / d_in",
}
_EXAMPLES: dict[str, Any] = {
    "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024, "names_filter": ["*hook_resid_post"],
    "reads": ["*hook_z"], "layers": [3, 4], "hook_name": "blocks.6.hook_resid_pre", "expansion_factor": 16,
}  # fmt: skip
_MOST_NAMED = 8
_OFTEN = (
    "new_tokens", "optimizer", "trainable", "d_sae",
)  # fmt: skip

OWN_DEFAULT = "default: this machine's, else the profile's"
"""What `gpu` is where nothing is said, on the user's own server; a shared one looks at nothing."""
Detail = Annotated[
    Literal["concise", "full"],
    WithJsonSchema({"enum": ["concise", "full"], "type": "string", "description": "400 tokens (default), or 2000"}),
]
PlanDetail = Annotated[
    Literal["concise", "full", "picture"],
    WithJsonSchema(
        {
            "enum": ["concise", "full", "picture"],
            "type": "string",
            "description": "400 tokens (default), 2000, or 400 and a picture",
        }
    ),
]
Gpu = Annotated[
    str | None,
    WithJsonSchema(
        {
            "type": "string",
            "description": "Card of the run, e.g. RTX 4090, 2xH100, a card with 24 GB; none; unknown = another "
            f"machine; {OWN_DEFAULT}",
        }
    ),
]
CardItRanOn = Annotated[
    str | None,
    WithJsonSchema({"type": "string", "description": "Card it ran on, e.g. RTX 4090; default: a typical one"}),
]
CardToFit = Annotated[
    str | None,
    WithJsonSchema(
        {
            "type": "string",
            "description": "Card to fit, e.g. RTX 4090, 2xH100, a card with 24 GB; none; default: compute's, else any",
        }
    ),
]
Host = Annotated[
    str | None,
    WithJsonSchema({"type": "string", "description": "Machine to look at by ssh, e.g. gpu-box"}),
]
Python = Annotated[
    str | None,
    WithJsonSchema(
        {
            "type": "string",
            "description": "Experiment's Python, e.g. .venv/bin/python; default: active or project's",
        }
    ),
]
ComputeReport = Annotated[
    dict[str, Any] | str | None,
    WithJsonSchema(
        {
            "anyOf": [{"type": "object"}, {"type": "string"}],
            "description": "detect_compute's report, or the probe script's, of where it will run",
        }
    ),
]
# Not published: the picture's own calls bear it, since a form at every move of a slider would be a nuisance.
ShowForm = Annotated[bool, WithJsonSchema({"type": "boolean", "description": "false: ask the user by no form"})]

Sweep = Annotated[
    dict[str, Any] | None,
    WithJsonSchema(
        {
            "type": "object",
            "description": 'Grid: field -> values, e.g. {"hook_layer": "0..11", "expansion_factor": [8, 16]}',
        }
    ),
]
LaunchFor = Annotated[
    str | None,
    WithJsonSchema({"type": "string", "enum": list(ENGINES), "description": "Write a task file; starts nothing"}),
]
Run = Annotated[
    str | None,
    WithJsonSchema({"type": "string", "description": "For launch_for: command, e.g. python t.py {hook_layer}"}),
]

LivePrices = Annotated[
    bool, WithJsonSchema({"type": "boolean", "description": "Ask for prices online; default: dated"})
]


def workload_parameters(*, all_options: bool) -> list[inspect.Parameter]:
    """One keyword parameter per field of the workload union, `task` first, with its JSON schema, and `options`.

    `hidden_parameters` are accepted but not published; `all_options` names those often given in the description of
    `options`, which one tool may do for all. compute://tasks/{task} describes every field.

    Values are not checked here: `as_workload` gives them to the parser that the command line uses too, so that
    both give the same one-line errors.
    """
    schemas = _field_schemas()
    often = f"Further fields, e.g. {', '.join(_OFTEN)}; all: compute://tasks/{{task}}"
    described = often if all_options else "Further fields, as in preflight_experiment"
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
    from ..workload import TASKS

    return frozenset(name for kind in TASKS.values() for name in kind.model_fields if name not in SHOWN)


def as_workload(fields: dict[str, Any]) -> AnyWorkload:
    """The workload of a call; null means the task's default. Raises InputError."""
    from ..workload import parse_workload

    return parse_workload(checked_if_hosted(given_fields(fields)))


def given_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """What a call gives of a workload, by name and in `options`, not looked at. Raises InputError."""
    given = {name: value for name, value in fields.items() if value is not None}
    options = given.pop("options", {})
    if not isinstance(options, dict):
        raise InputError(f"options: an object of further fields, not {type(options).__name__}")
    for name, value in options.items():
        if name in given and given[name] != value:
            raise InputError(f"{name}: {shown(given[name])} given beside options, which has {shown(value)}")
    return given | {name: value for name, value in options.items() if value is not None}


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
    from ..workload import TASKS

    seen: dict[str, dict[str, Any]] = {}
    owners: dict[str, list[str]] = {}
    for task, kind in TASKS.items():
        for name, schema in kind.model_json_schema()["properties"].items():
            owners.setdefault(name, []).append(task)
            seen[name] = _either(seen[name], _lean(schema)) if name in seen else _lean(schema)
    for name, schema in seen.items():
        said = _BRIEF.get(name, schema.get("description", ""))
        if len(owners[name]) < len(TASKS):
            said = f"{_mark(owners[name])}: {said}".rstrip(": ")
        example = f"e.g. {_plain(_EXAMPLES[name])}" if name in _EXAMPLES else ""
        if len(schema.get("enum", [])) > _MOST_NAMED:
            del schema["enum"]  # the parser lists them where none of them was given
        schema["description"] = ", ".join(part for part in (said, schema.pop("range", ""), example) if part)
    return seen


def _mark(owners: list[str]) -> str:
    """`cache`, `training, patching`, or `not SAE`: whichever is shorter. Both tasks of an SAE are `SAE`."""
    from ..workload import TASKS

    others = [task for task in TASKS if task not in owners]
    names = others if len(others) < len(owners) else owners
    short = ", ".join(_SHORT.get(task, task) for task in names)
    listed = short.replace("SAE training, SAE inference", "SAE")
    return f"not {listed}" if names is others else listed


def _lean(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without what costs tokens in every tool and helps no caller.

    Generated titles; defaults, which the result's workload shows filled in (a host that fills them in itself would
    send fields of other tasks); the null arm, because absence already says "the task's default"; elaborations in
    parentheses, which the command line's help keeps. Limits become `range`, a few characters of the description.
    """
    lean = {key: value for key, value in schema.items() if key not in _COSTLY}
    arms = [_lean(arm) for arm in schema.get("anyOf", []) if arm.get("type") != "null"]
    if len(arms) == 1:
        lean = arms[0] | lean
    elif arms:
        # Not a list of types: hosts that translate schemas for their model (the OpenAPI subset) refuse or drop those.
        lean["anyOf"] = arms
    least, most = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    if least is not None and most is not None:
        lean["range"] = f"{least:g} to {most:g}".replace("e+0", "e").replace("e+", "e")
    if "const" in lean:
        lean["enum"] = [lean.pop("const")]
    if "description" in lean:
        lean["description"] = _PARENTHESIS.sub("", lean["description"].split("; null = ")[0])
    return lean


def _plain(example: Any) -> str:
    return json.dumps(example) if isinstance(example, list) else str(example)


def _either(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    if "enum" in first and "enum" in second:
        return first | {"enum": list(dict.fromkeys([*first["enum"], *second["enum"]]))}
    return first

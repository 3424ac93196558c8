"""What a result may cost the reader, and what is left out first.

A concise result is at most 400 tokens and a full one at most 2000, by the rule of thumb of four bytes a token. The
steps are tried in order and no further than needed. What they leave out has a default or an empty value, so that the
rest is still an instance of the core's model; `detail: full`, or the tool for that part alone, has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

import pydantic_core

LIMIT_BYTES = {"concise": 1_600, "full": 8_000}
_GRID_BYTES = 1_200
_SCRIPT_BYTES = 1_600
"""A script has several calls, and an edit is of use only whole."""

Data = dict[str, Any]
Step = Callable[[Data], None]


def within(data: Data, kind: str, detail: str) -> Data:
    """`data` of a `kind` of result, brought within the limit of `detail` in place, as far as the steps go: an answer
    that is somewhat too long is better than none."""
    limit = LIMIT_BYTES[detail] + _asked_for(data, kind)
    for step in [None, *STEPS[kind, detail], *_LAST]:
        if step is not None:
            step(data)
        if size(data) <= limit:
            break
    return data


def _asked_for(data: Data, kind: str) -> int:
    """Bytes of a task file, which is of no use but whole, and of a grid's figures beside those of one run."""
    grid = data.get("sweep") or {}
    files = [file for file in (data.get("launch"), grid.get("launch")) if file]
    more = _SCRIPT_BYTES if kind == "ScriptReport" else _GRID_BYTES if grid else 0
    return sum(size(file) for file in files) + more


def size(data: Any) -> int:
    """Bytes of the JSON, without spaces, as UTF-8."""
    return len(pydantic_core.to_json(data))


def drop(*paths: str) -> Step:
    """Takes fields away. A path is names with dots, `*` for every item of a list."""

    def step(data: Data) -> None:
        for path in paths:
            for holder, name in _places(data, path):
                del holder[name]

    return step


def put(value: Any, *paths: str) -> Step:
    """Puts an empty value in place of a field that the model requires, where the field is there."""

    def step(data: Data) -> None:
        for path in paths:
            for holder, name in _places(data, path):
                holder[name] = copy(value)

    return step


def first(count: int, *paths: str) -> Step:
    """Keeps the first items of a list, and says in one more how many there were where the items are texts."""

    def step(data: Data) -> None:
        for path in paths:
            for holder, name in _places(data, path):
                items = holder[name]
                if isinstance(items, list) and len(items) > count:
                    more = len(items) - count
                    said = isinstance(items[0], str)
                    holder[name] = [*items[:count], *([f"... {more} more"] if said and count else [])]

    return step


def clip(most: int, *paths: str) -> Step:
    """Shortens texts, and the texts of a list, to `most` characters."""

    def step(data: Data) -> None:
        for path in paths:
            for holder, name in _places(data, path):
                holder[name] = _clipped(holder[name], most)

    return step


def _clipped(value: Any, most: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= most else value[: most - 3] + "..."
    if isinstance(value, list):
        return [_clipped(item, most) for item in value]
    return value


def _short_echo(data: Data) -> None:
    """What the caller gave and knows: long lists by their first entries, objects by their fields' names."""
    for path in ("workload", "estimate.workload"):
        for holder, name in _places(data, path):
            holder[name] = {key: _echo(value) for key, value in (holder[name] or {}).items()}
    steps = data.get("next_steps", [])
    if any(size(step) > 400 for step in steps):
        data["next_steps"] = [step for step in steps if size(step) <= 400]


def _solved(data: Data) -> None:
    """Where something makes it fit, what only saves is not worth its tokens."""
    advice = data.get("advice", {})
    most = 0 if advice.get("solutions") else 6
    advice["changes"] = [change for change in advice.get("changes", []) if change["applies"]][:most]


def _echo(value: Any) -> Any:
    if isinstance(value, dict):
        return f"given as an object: {_clipped(', '.join(map(str, value)), 80)}"
    if isinstance(value, list) and size(value) > 120:
        return [_clipped(str(value[0]), 60), f"... {len(value) - 1} more"]
    return _clipped(value, 80)


def _places(data: Any, path: str) -> Iterator[tuple[Data, str]]:
    """(the object that holds the field, its name) for every place that the path names."""
    head, _, rest = path.partition(".")
    if isinstance(data, list):
        for item in data if head == "*" else []:
            yield from _places(item, rest)
    elif isinstance(data, dict) and head in data:
        if rest:
            yield from _places(data[head], rest)
        else:
            yield data, head


def _change(*names: str) -> list[str]:
    return [f"advice.{kind}.*.{name}" for kind in ("changes", "solutions") for name in names]


_COMPUTE_CONCISE: list[Step] = [
    drop("host.disk_path", "host.disk_free_bytes", "host.disk_filesystem", "host.disk_kind", "host.disk_free_inodes"),
    first(4, "environment.layers", "problems", "python.unmet"),
    drop("links", "settings"),
    drop("environment.layers.*.implies", "environment.layers.*.details"),
    clip(160, "problems.*.reason", "summary", "environment.summary"),
    drop("python.unmet", "python.doubt"),
    first(2, "accelerators", "problems", "clusters"),
    clip(120, "clusters.*.summary"),
    drop("limits", "python.libraries", "python.torch"),
    first(1, "accelerators", "problems", "clusters"),
    drop("clusters", "python"),
    first(2, "environment.layers"),
    drop("problems"),
]
_COMPUTE_FULL: list[Step] = [
    drop("host.disk_free_inodes"),
    first(6, "interpreters", "problems", "clusters"),
    drop("accelerators.*.processes", "links"),
    first(8, "accelerators"),
    drop("environment.layers.*.implies", "environment.layers.*.evidence"),
    drop("accelerators.*.supports", "accelerators.*.ecc", "accelerators.*.persistence", "accelerators.*.pci"),
    drop("clusters.*.partitions", "clusters.*.totals", "clusters.*.user"),
    drop("clusters.*.pools", "clusters.*.shared"),
    first(4, "accelerators"),
    clip(200, "problems.*.reason", "clusters.*.summary", "summary"),
    first(2, "accelerators", "clusters", "problems", "interpreters"),
    drop("links", "settings", "limits", "interpreters"),
    drop("python.unmet", "python.libraries", "clusters"),
]
_ESTIMATE_CONCISE: list[Step] = [
    drop("overheads", "flops", "moved_bytes"),
    drop("components.*.detail"),
    _short_echo,
    first(2, "assumptions", "warnings"),
    clip(180, "assumptions"),
    drop("verified_on", "download_bytes"),
    clip(100, "assumptions"),
    first(1, "assumptions"),
    drop("hooks", "time", "loading_device_bytes", "loading_host_bytes"),
    drop("assumptions"),
    put({}, "workload"),
    first(1, "warnings"),
    clip(240, "warnings"),
    put([], "components"),
]
_ESTIMATE_FULL: list[Step] = [
    clip(300, "assumptions", "warnings"),
    put("", "overheads.*.source"),
    drop("components.*.detail"),
    first(20, "hooks"),
    _short_echo,
    first(8, "hooks", "assumptions", "warnings"),
]
_ADVICE_CONCISE: list[Step] = [
    drop("estimate.overheads", "advice.largest"),
    _short_echo,
    first(2, "estimate.assumptions", "estimate.warnings"),
    clip(160, "estimate.assumptions"),
    drop(*_change("cost")),
    put([], "estimate.components"),
    drop("estimate.assumptions", "estimate.download_bytes"),
]
_PREFLIGHT_CONCISE: list[Step] = [
    *_ADVICE_CONCISE,
    put("", "verdict.why"),
    first(1, "advice.gpus"),
    put([], "compute.environment.layers"),
    drop("compute.problems"),
    drop(*_change("effect_detail", "slowdown", "host_bytes")),
    first(1, "advice.changes", "advice.solutions", "advice.paths"),
    drop("advice.gpus"),
    first(1, "next_steps"),
    clip(160, "known", "advice.paths.*.why"),
    drop("advice.changes", "advice.solutions"),
    put({}, "workload"),
    drop("advice.paths", "asking.triggers", "compute.links", "compute.clusters"),
    drop("estimate.time"),
    first(1, "estimate.warnings", "known", "compute.accelerators"),
    drop("next_steps"),
    drop("compute.summary"),  # with paths of this machine, which may be long
    put(None, "compute"),
    clip(200, "estimate.warnings"),
    clip(110, "estimate.warnings"),
    drop("estimate.warnings", "known"),
]
_RECOMMEND_CONCISE: list[Step] = [
    *_ADVICE_CONCISE,
    first(3, "advice.gpus"),
    first(1, "advice.platforms"),
    drop(*_change("effect_detail", "slowdown", "host_bytes")),
    first(2, "advice.gpus", "advice.changes", "advice.solutions"),
    drop("advice.platforms"),
    put({}, "workload"),
    first(1, "advice.changes", "advice.solutions", "advice.paths"),
    drop("estimate.time"),
    clip(120, "advice.changes.*.title", "advice.solutions.*.title"),
    first(1, "advice.gpus", "estimate.warnings"),
    drop(*_change("code")),
    clip(200, "estimate.warnings"),
    drop("next_steps", "advice.paths"),
    clip(110, "estimate.warnings"),
    drop("estimate.warnings"),
]
_ADVICE_FULL: list[Step] = [
    put({}, "estimate.workload"),
    drop("estimate.work"),
    put("", "estimate.summary", "estimate.overheads.*.source"),
    drop("asking.message", "asking.fields"),
    drop("asking.by_trigger"),
    first(6, "estimate.hooks"),
    _solved,
    clip(80, "advice.gpus.*.note", "advice.platforms.*.how"),
    first(1, "advice.platforms.*.gotchas"),
    drop("compute.interpreters", "compute.limits", "compute.settings"),
    put([], "compute.environment.layers"),
    first(3, "advice.gpus", "advice.platforms", "advice.solutions", "advice.changes"),
    drop("advice.platforms.*.gotchas", "advice.gpus.*.note"),
    drop("estimate.components.*.detail", "estimate.hooks"),
    drop("compute.accelerators.*.processes", "compute.accelerators.*.supports", "compute.links", "compute.clusters"),
    clip(200, "estimate.assumptions", "estimate.warnings", "asking.reason", "known"),
    first(2, "compute.accelerators", "compute.problems"),
    _short_echo,
    drop("estimate.overheads", "compute.python"),
    first(2, "advice.changes", "advice.solutions", "advice.gpus", "advice.platforms", "advice.paths"),
    drop(*_change("code")),
    first(4, "estimate.assumptions", "estimate.warnings", "known"),
    drop("advice.solutions", "advice.platforms", "advice.paths"),
]
_OOM: list[Step] = [
    _short_echo,
    clip(300, "findings.*.cause", "findings.*.cure"),
    drop("changes.*.cost", "changes.*.effect_detail", "message.library_frame"),
    first(1, "next_steps", "matches"),
    first(2, "findings", "changes"),
    first(1, "changes"),
    drop("next_steps", "message.processes"),
    clip(140, "findings.*.cause", "findings.*.cure", "changes.*.title", "matches.*.product", "matches.*.tensor"),
    first(1, "findings"),
    drop("workload", "changes.*.code"),
    drop("changes", "matches", "message.user_frame", "message.shape"),
]
_SCRIPT_CONCISE: list[Step] = [
    put(None, "found.*.workload"),
    put({}, "found.*.values"),
    drop("found.*.notes", "found.*.largest", "found.*.precision", "found.*.beside"),
    first(3, "notes", "questions"),
    first(2, "findings"),
    first(4, "found"),
    clip(200, "found.*.words", "findings.*.cause", "findings.*.effect", "notes", "questions"),
    drop("found.*.unknown", "found.*.missing", "notes"),
    first(1, "findings"),
    first(2, "found"),
    first(1, "questions"),
    first(1, "found"),
    drop("findings.*.diff"),
    put([], "found"),
    drop("findings", "questions"),
]
_SCRIPT_FULL: list[Step] = [
    drop("found.*.beside", "found.*.notes"),
    clip(300, "found.*.words", "findings.*.cause", "notes", "questions"),
    put({}, "found.*.values"),
    first(12, "found"),
    first(6, "findings", "notes"),
    put(None, "found.*.workload"),
    drop("found.*.unknown", "found.*.largest"),
    first(6, "found"),
    first(3, "findings", "questions"),
    first(1, "findings", "notes"),
    clip(150, "found.*.words"),
    first(3, "found"),
    drop("findings.*.diff"),
]
# Names from outside may be of any length.
_LAST: list[Step] = [
    clip(700, "summary"),
    clip(400, "summary"),
    drop("next_steps"),
    clip(240, "summary"),
    drop("estimate.late_bytes"),
    clip(120, "summary"),
    clip(1_050, "asking.text"),
]

STEPS: dict[tuple[str, str], list[Step]] = {
    ("Compute", "concise"): _COMPUTE_CONCISE,
    ("Compute", "full"): _COMPUTE_FULL,
    ("Estimate", "concise"): _ESTIMATE_CONCISE,
    ("Estimate", "full"): _ESTIMATE_FULL,
    ("Recommendation", "concise"): _RECOMMEND_CONCISE,
    ("Recommendation", "full"): _ADVICE_FULL,
    ("Preflight", "concise"): _PREFLIGHT_CONCISE,
    ("Preflight", "full"): _ADVICE_FULL,
    ("ScriptReport", "concise"): _SCRIPT_CONCISE,
    ("ScriptReport", "full"): _SCRIPT_FULL,
    ("OomReport", "concise"): _OOM,
    ("OomReport", "full"): _OOM,
}

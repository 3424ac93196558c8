"""The points of a grid: which workload fields take which values, and the workload at each combination."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, nearest
from ..workload import TASKS, AnyWorkload, parse_workload

MOST_POINTS = 10_000
SWEEP = "sweep"
"""The key of a workload's JSON that holds its grid."""
HOOK_LAYER = "hook_layer"
"""No field of its own: the block number within `hook_name` or `submodule` (SAELens' old name for it)."""
_HOOKS = ("hook_name", "submodule")
_RANGE = re.compile(r"(-?\d{1,15})\.\.(-?\d{1,15})(?:\.\.(-?\d{1,15}))?")

Axes = dict[str, list[Any]]


@dataclass(frozen=True)
class Point:
    """One run of the grid."""

    values: dict[str, Any]
    """The swept fields with their values here."""
    workload: AnyWorkload


def axes_of_flags(over: Iterable[str]) -> Axes:
    """The grid of `--over FIELD=VALUES` options: `0..11`, `0..24..4`, `8,16,32`. Raises InputError."""
    axes: Axes = {}
    for text in over:
        name, equals, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise InputError(
                f"--over {text[:80]!r}: give FIELD=VALUES, e.g. expansion_factor=8,16,32 or hook_layer=0..11"
            )
        if name in axes:
            raise InputError(f"--over {name} is given twice; list all its values in one: {name}=1,2,3")
        axes[name] = _values(name, values)
    return axes


def axes_of_json(data: Any) -> Axes:
    """The grid of a JSON object, field -> list of values or a text such as "0..11". Raises InputError."""
    if not isinstance(data, dict):
        raise InputError(
            f'{SWEEP}: an object such as {{"expansion_factor": [8, 16, 32], "hook_layer": "0..11"}}, '
            f"not {type(data).__name__}"
        )
    axes: Axes = {}
    for name, values in data.items():
        if isinstance(values, str):
            values = _values(name, values)
        if not isinstance(values, list) or not values:
            raise InputError(f'{SWEEP}: {name}: a list of values or a range such as "0..11", not {values!r:.60}')
        axes[name] = values
    return axes


def joined(first: Mapping[str, list[Any]], second: Mapping[str, list[Any]]) -> Axes:
    """Both grids in one; a field that both have must have the same values. Raises InputError."""
    for name in first:
        if name in second and first[name] != second[name]:
            raise InputError(f"{name}: --over {name} contradicts the grid of the workload's JSON")
    return {**first, **second}


def points_of(
    base: Mapping[str, Any], axes: Mapping[str, Sequence[Any]], most: int = MOST_POINTS
) -> list[Point]:  # fmt: skip
    """Every combination of the values, the last field changing fastest.

    Args:
        base: the fields that all runs share, as a workload's JSON has them; swept fields replace theirs or add to them.
    Raises:
        InputError: no grid, an unknown field (with the nearest), a value given twice, more than `most` points,
            a combination that is no workload (which one is said).
    """
    if not axes:
        raise InputError("a sweep needs a grid, e.g. --over expansion_factor=8,16,32")
    _check_names(base, axes)
    for name, values in axes.items():
        seen: set[str] = set()
        for value in values:
            spelled = json.dumps(value, sort_keys=True, default=str)
            if spelled in seen:
                raise InputError(f"{SWEEP}: {name} has {spelled[:60]} twice")
            seen.add(spelled)
    count = math.prod(len(values) for values in axes.values())
    if count > most:
        sizes = " x ".join(str(len(values)) for values in axes.values())
        raise InputError(f"the grid has {count:,} points ({sizes}); at most {most:,} are estimated")
    found: list[Point] = []
    for combination in itertools.product(*axes.values()):
        values = dict(zip(axes, combination, strict=True))
        try:
            found.append(Point(values, parse_workload(_filled(base, values))))
        except InputError as error:
            raise InputError(f"at {spelled_point(values)}: {error}") from None
    return found


def spelled_point(values: Mapping[str, Any]) -> str:
    """`hook_layer=3, expansion_factor=16`."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _check_names(base: Mapping[str, Any], axes: Mapping[str, Any]) -> None:
    if "task" in axes:
        raise InputError(f"{SWEEP}: task cannot vary; sweep each task on its own")
    task = base.get("task")
    kind = TASKS.get(task) if isinstance(task, str) else None
    if kind is None:
        parse_workload(dict(base))  # says what is wrong with the task
        return
    known = [name for name in kind.model_fields if name != "task"]
    if any(name in known for name in _HOOKS):
        known.append(HOOK_LAYER)
    for name in axes:
        if name not in known:
            close = nearest(name, known, 1)
            hint = f"; nearest: {close[0]}" if close else ""
            raise InputError(f"{SWEEP}: {task} has no field {name[:80]!r}{hint}; accepted: {', '.join(known)}")


def _filled(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    data = {**base, **{name: value for name, value in values.items() if name != HOOK_LAYER}}
    if HOOK_LAYER not in values:
        return data
    layer = values[HOOK_LAYER]
    if not isinstance(layer, int) or isinstance(layer, bool):
        raise InputError(f"{HOOK_LAYER} is a block number, not {layer!r:.60}")
    hooks = [name for name in _HOOKS if data.get(name) is not None]
    if not hooks:
        raise InputError(
            f"{HOOK_LAYER} is the block number within hook_name: give hook_name, e.g. blocks.0.hook_resid_pre"
        )
    for name in hooks:
        data[name] = _at_layer(name, data[name], layer)
    return data


def _at_layer(name: str, hook: Any, layer: int) -> str:
    parts = str(hook).split(".")
    numbers = [at for at, part in enumerate(parts) if part.isdigit()]
    if len(numbers) != 1:
        raise InputError(f"{HOOK_LAYER} is the block number within {name}, and {hook!r:.80} does not have just one")
    parts[numbers[0]] = str(layer)
    return ".".join(parts)


def _values(name: str, text: str) -> list[Any]:
    """`0..11` (both ends included), `0..24..4`, or values with commas between them; ranges may be among them."""
    found: list[Any] = []
    for part in text.split(","):
        word = part.strip()
        if not word:
            raise InputError(f"{SWEEP}: {name}: an empty value in {text[:80]!r}; give e.g. 8,16,32 or 0..11")
        whole = _RANGE.fullmatch(word)
        found += [_scalar(word)] if whole is None else _range(name, word, whole)
        if len(found) > MOST_POINTS:
            raise InputError(
                f"{SWEEP}: {name} has more than {MOST_POINTS:,} values; at most {MOST_POINTS:,} points are estimated"
            )
    return found


def _range(name: str, word: str, found: re.Match[str]) -> list[int]:
    first, last, step = int(found[1]), int(found[2]), int(found[3] or 1)
    if step < 1 or last < first:
        raise InputError(f"{SWEEP}: {name}: {word} is empty; a range rises, e.g. 0..11 or 0..24..4")
    return list(itertools.islice(range(first, last + 1, step), MOST_POINTS + 1))


def _scalar(word: str) -> Any:
    """Numbers, true, false and null as JSON has them; all else is text."""
    try:
        value = json.loads(word, parse_constant=str)
    except ValueError:
        return word
    return value if value is None or isinstance(value, bool | int | float) else word

"""Reports that were made elsewhere: strictly read, because a machine prints what it likes."""

from __future__ import annotations

import json
import math
import platform
import re
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import ValidationError

from ..errors import InputError, nearest
from .compute import THIS_MACHINE, Compute
from .probe.report import FORMAT
from .script import BEGIN, END

_LONGEST_TEXT = 10_000  # characters of one value
_LONGEST_LIST = 10_000
_DEEPEST = 12
_MOST_BYTES = 1 << 60
_MOST_CPUS = 1 << 20


def compute_in(text: str, seen_from: str | None = None) -> Compute:
    """The report in a text: the JSON of `detect --json`, or what the probe script printed with anything around it.

    `seen_from` names the machine it came from; None = what the report itself says, but never that it is this machine
    where its host name says otherwise.

    Raises:
        InputError: there is no report in it, it is cut, or it is not what a report may be.
    """
    marked = text.rfind(BEGIN)
    if marked < 0:
        return as_compute(_decoded(text), seen_from)
    end = text.find(END, marked)
    if end < 0:
        raise InputError("the report is cut: its end mark is missing; copy all of the output")
    # A report is one line; a terminal it was copied from may have broken it.
    return as_compute(_decoded(re.sub(r"[\r\n]", "", text[marked + len(BEGIN) : end])), seen_from)


def as_compute(data: Any, seen_from: str | None = None) -> Compute:
    """A report from decoded JSON, or from the text that `compute_in` reads. Arguments and errors as there."""
    if isinstance(data, str):
        return compute_in(data, seen_from)
    if not isinstance(data, dict):
        raise InputError(f"a report is a JSON object, not {type(data).__name__}")
    if isinstance(data.get("error"), str) and "host" not in data:
        raise InputError(f"the probe could not look: {_plain(data['error'], 'error')[:300]}")
    _check_format(data)
    plain = _plain(data, "")
    try:
        compute = Compute.model_validate_json(json.dumps(plain, allow_nan=False), strict=True)
    except ValidationError as error:
        raise InputError(_explained(error)) from None
    except ValueError:
        raise InputError("it has a number that is none (NaN or infinity)") from None
    _check_figures(compute, "")
    compute.seen_from = seen_from or _seen_from(compute)
    if compute.clusters:
        from .cluster.cards import with_cards

        compute.clusters = with_cards(compute.clusters)
    return compute


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON at line {error.lineno} column {error.colno}: {error.msg}") from None
    except (RecursionError, ValueError):
        raise InputError("not valid JSON: nested too deeply, or a number with too many digits") from None


def _check_format(data: dict[str, Any]) -> None:
    """A report of a later version may have fields, and meanings, that this one does not know."""
    number = data.get("format", 1)
    if type(number) is not int or number < 1:
        raise InputError(f"format: {str(number)[:20]!r} is not the number of a report's layout")
    if number > FORMAT:
        from importlib.metadata import version

        raise InputError(
            f"it is a report of format {number}, made by a newer compute-awareness; this is version "
            f"{version('compute-awareness')}, which reads up to format {FORMAT}: update it, or make the report with it"
        )


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """`value` with control characters blanked. Raises InputError for what is larger than any report."""
    if depth > _DEEPEST:
        raise InputError("it is nested deeper than any report")
    if isinstance(value, str):
        if len(value) > _LONGEST_TEXT:
            raise InputError(f"{where}: {len(value)} characters, more than any report has there")
        return "".join(c if c.isprintable() else " " for c in value)
    if isinstance(value, (list, dict)) and len(value) > _LONGEST_LIST:
        raise InputError(f"{where}: {len(value)} entries, more than any report has there")
    if isinstance(value, dict):
        return {
            _plain(k, where, depth + 1): _plain(v, f"{where}.{k}" if where else str(k), depth + 1)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [_plain(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    return value


def _check_figures(part: Any, where: str) -> None:
    """Raises InputError for memory or CPUs that no machine has."""
    if isinstance(part, list):
        for i, item in enumerate(part):
            _check_figures(item, f"{where}[{i}]")
        return
    values: dict[str, Any]
    if is_dataclass(part):
        values = {field.name: getattr(part, field.name) for field in fields(part)}
    elif isinstance(part, Compute):
        values = {name: getattr(part, name) for name in Compute.model_fields}
    else:
        return
    for name, value in values.items():
        path = f"{where}.{name}" if where else name
        if name.endswith("_bytes") and value is not None and not 0 <= value <= _MOST_BYTES:
            raise InputError(f"{path}: {value} is no number of bytes that a machine has")
        if name == "cpus" and value is not None and not (math.isfinite(value) and 0 < value <= _MOST_CPUS):
            raise InputError(f"{path}: {value} is no number of CPUs that a machine has")
        _check_figures(value, path)
    for part_name, whole_name in (
        ("free_bytes", "total_bytes"), ("used_bytes", "total_bytes"), ("reserved_bytes", "total_bytes"),
        ("ram_available_bytes", "ram_total_bytes"),
    ):  # fmt: skip
        held, whole = values.get(part_name), values.get(whole_name)
        if held is not None and whole is not None and held > whole:
            raise InputError(f"{where}.{part_name}: {held} is more than {whole_name}, which is {whole}")


def _seen_from(compute: Compute) -> str:
    """Whose machine a report describes that was given without a name: its own word, unless it cannot be true here."""
    name = compute.host.hostname
    if compute.elsewhere() is None and name and name != platform.node():
        return name
    return compute.seen_from.strip() or THIS_MACHINE


def _explained(error: ValidationError) -> str:
    """The first problem in one line, with the path to the field."""
    problems = error.errors(include_url=False)
    first = problems[0]
    path = ".".join(str(part)[:80] for part in first["loc"])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        close = nearest(str(first["loc"][-1]), Compute.model_fields, 1)
        line = f"unknown field {path!r}" + (f"; nearest: {close[0]}" if close else "")
        if len(first["loc"]) == 1:
            line += f"; accepted: {', '.join(Compute.model_fields)}"
    elif first["type"] in ("missing", "missing_argument"):
        line = f"{path!r} is missing"
    else:
        given = first.get("input")
        shown = repr(given) if isinstance(given, str | int | float | bool | None) else type(given).__name__
        line = f"{path}: {first['msg'].lower()}, not {shown[:80]}"
    more = len(problems) - 1
    return line + (f" (and {more} more problem{'s' * (more > 1)})" if more else "")

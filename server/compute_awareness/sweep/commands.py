"""The command of each run, from one with {placeholders}."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError, nearest
from ..launch.plan import checked_command
from ..workload import field_names

INDEX = "index"
_PLACEHOLDER = re.compile(r"(?<!\$)\{([A-Za-z_]\w*)\}")  # ${HOME} is the shell's


def commands_of(run: str, points: Sequence[Mapping[str, Any]]) -> list[str]:
    """`run` with `{field}` replaced by the value at each point, quoted for a shell; `{index}` is the point's number.

    Braces around anything that is not like a swept field or a workload's (`awk '{print}'`, `${NAME}`) stay as they are.

    Raises:
        InputError: a placeholder that is not swept (with the nearest), or a run that is the same at several points.
    """
    template = checked_command(run)
    accepted = [*points[0], INDEX]
    used = _PLACEHOLDER.findall(template)
    shown = ", ".join(f"{{{name}}}" for name in accepted)
    for name in used:
        close = nearest(name, accepted, 1)
        if name not in accepted and (close or name in field_names()):
            hint = f" (nearest: {{{close[0]}}})" if close else ""
            raise InputError(
                f"run: {{{name[:60]}}} is not swept{hint}; accepted: {shown}; braces of another kind go into a script"
            )
    varies = {name for name in points[0] if any(point[name] != points[0][name] for point in points)}
    missing = sorted(varies - set(used)) if INDEX not in used else []
    if missing:
        raise InputError(
            f"run does not name {', '.join(f'{{{name}}}' for name in missing)}: runs that differ would be the same "
            f'command; e.g. "python train.py --value {{{missing[0]}}}", or {{{INDEX}}} for the number of the run'
        )
    return [checked_command(_filled(template, {**point, INDEX: at})) for at, point in enumerate(points)]


def _filled(template: str, values: Mapping[str, Any]) -> str:
    def one(found: re.Match[str]) -> str:
        return shlex.quote(_spelled(values[found[1]])) if found[1] in values else found[0]

    return _PLACEHOLDER.sub(one, template)


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

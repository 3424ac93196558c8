"""What the caller gave: a workload from a file, standard input or flags; a compute report from a file."""

from __future__ import annotations

import contextlib
import sys
import types
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import click

from ..errors import InputError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from ..hardware.compute import Compute
    from ..workload import AnyWorkload

# The workloads, and pydantic with them, are imported by the commands that take one: `detect` does not wait for them.

LARGEST_INPUT = 4 * 1024**2  # bytes; the largest real input is a model's config inside a workload, some 10 KiB


class WorkloadCommand(click.Command):
    """A command that takes a workload: WORKLOAD.json, `-`, or one flag per field.

    The flags are made when the command is used, so that no other command waits for them.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *_workload_params()]


class WithWorkloadCommand(click.Command):
    """A command about something else that may be told the workload too, by one flag per field."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *_workload_params()[1:]]


@cache
def _workload_params() -> tuple[click.Parameter, ...]:
    from ..workload import field_names

    source = click.Argument(["source"], required=False, metavar="[WORKLOAD.json | -]")
    names = sorted(field_names(), key=lambda name: name != "task")  # the task decides what the others mean
    return (source, *map(_flag, names))


def _flag(name: str) -> click.Option:
    """The option for one workload field, with the values and the tasks that its pydantic classes give it."""
    from ..workload import TASKS

    holders = {task: kind.model_fields[name] for task, kind in TASKS.items() if name in kind.model_fields}
    first = next(iter(holders.values()))
    types_ = [t for info in holders.values() for t in _plain_types(info)]
    flag = "--" + name.replace("_", "-")
    text = first.description or ("What is to be run" if name == "task" else "Which library runs it")
    if len(holders) < len(TASKS):
        text += f" [{', '.join(holders)}]"
    if bool in types_:
        off = "--" + flag[5:] if name.startswith("no_") else "--no-" + flag[2:]
        return click.Option([f"{flag}/{off}"], default=None, help=text)
    choices = [str(v) for t in types_ if get_origin(t) is Literal for v in get_args(t)]
    if choices:
        metavar = "|".join(dict.fromkeys(choices))
    elif float in types_:
        metavar = "NUMBER"
    else:
        metavar = "INTEGER" if int in types_ else "TEXT"
    many = any(get_origin(t) is list for t in types_)
    return click.Option(
        [flag], multiple=many, default=None, metavar=metavar, help=text + (" (repeatable)" if many else "")
    )


def _plain_types(info: FieldInfo) -> list[Any]:
    """The members of a field's type with None left out; a list is followed by what it holds."""
    found: list[Any] = []
    waiting: list[Any] = [info.annotation]
    while waiting:
        kind = waiting.pop(0)
        if get_origin(kind) in (Union, types.UnionType):
            waiting += get_args(kind)
        elif hasattr(kind, "__metadata__"):
            waiting.append(kind.__origin__)
        elif kind is not type(None):
            found.append(kind)
            if get_origin(kind) is list:
                waiting += get_args(kind)
    return found


def workload_from(source: str | None, flags: dict[str, Any]) -> AnyWorkload:
    """The workload that the file (or `-`) and the flags give together.

    A flag may add what the file leaves open; where both give a field they must agree.

    Raises:
        InputError: for an unreadable file, a contradiction, or what `parse_workload` refuses.
    """
    from ..workload import parse_workload

    data = fields_from(source, flags)
    if source is None or any(value not in (None, ()) for value in flags.values()):
        return parse_workload(data)
    try:
        return parse_workload(data)
    except InputError as error:
        raise InputError(f"{_called(source)}: {error}") from None


def fields_from(source: str | None, flags: dict[str, Any]) -> Any:
    """What the file (or `-`) and the flags give together, decoded and not looked at: of a sweep a part may be missing.

    Raises:
        InputError: for an unreadable file or a contradiction.
    """
    from ..workload import decode_json

    given = {name: _value(name, value) for name, value in flags.items() if value is not None and value != ()}
    if source is None:
        if not given:
            raise InputError(
                "no workload: give a file, '-' for standard input, or flags, "
                "e.g. --task activation_cache --model pythia-2.8b --batch-size 4 --seq-len 1024"
            )
        return given
    try:
        data = decode_json(read_text(source))
        if not isinstance(data, dict) or not given:
            return data
    except InputError as error:
        raise InputError(f"{_called(source)}: {error}") from None
    for name, value in given.items():
        if name in data and _spelled(data[name]) != _spelled(value):
            flag = "--" + name.replace("_", "-")
            raise InputError(
                f"{flag} {_spelled(value)} contradicts {_called(source)}, which has {_spelled(data[name])}"
            )
    return data | given


def _value(name: str, value: Any) -> Any:
    """What a flag means: lists as lists; for --model also an object in JSON. All else the one validator reads."""
    from ..workload import decode_json

    if isinstance(value, tuple):
        return list(value)
    if name == "model" and isinstance(value, str) and value.lstrip().startswith("{"):
        return decode_json(value)
    return value


def _spelled(value: Any) -> str:
    """One spelling of a value for flag and file: `4` and `"4"` are the same, so are `3` and `[3]`."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _called(source: str) -> str:
    return "standard input" if source == "-" else source


def read_text(source: str) -> str:
    """The text of a file, or of standard input for `-`; at most `LARGEST_INPUT` bytes of UTF-8.

    Raises:
        InputError: missing, a directory, not readable, too large, not UTF-8.
    """
    try:
        if source == "-":
            if sys.stdin is None:
                raise InputError("is not there")
            raw = sys.stdin.buffer.read(LARGEST_INPUT + 1)
        else:
            with Path(source).open("rb") as file:
                raw = file.read(LARGEST_INPUT + 1)
    except FileNotFoundError:
        raise InputError("no such file") from None
    except IsADirectoryError:
        raise InputError("is a directory, not a JSON file") from None
    except (OSError, ValueError) as error:
        # Windows answers PermissionError for a directory; ValueError is a NUL in the path.
        if sys.platform == "win32" and Path(source).is_dir():
            raise InputError("is a directory, not a JSON file") from None
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > LARGEST_INPUT:
        raise InputError(f"larger than {LARGEST_INPUT // 1024**2} MiB: not a workload or a report")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text (byte {error.start})") from None


def compute_from(source: str) -> Compute:
    """A compute report made elsewhere, by `detect --json` or the script of `detect --script`. Raises InputError."""
    from ..hardware.reading import compute_in

    try:
        text = read_text(source)
    except InputError as error:
        raise InputError(f"{_called(source)}: {error}") from None
    try:
        return compute_in(text)
    except InputError as error:
        raise InputError(f"{_called(source)} is not a report of `detect --json`: {error}") from None


def write_new(path: str, content: str | bytes, flag: str = "--out") -> None:
    """Write a file that is not there yet; `flag` is the option that named it.

    Raises:
        InputError: it is there, or cannot be written.
    """
    opened = False
    try:
        with Path(path).open("xb") as file:
            opened = True
            file.write(content.encode() if isinstance(content, str) else content)
    except FileExistsError:
        raise InputError(f"{path} is there already and is kept; give another name to {flag}") from None
    except OSError as error:
        if opened:  # half of a file on a full disk would be kept the next time
            with contextlib.suppress(OSError):
                Path(path).unlink()
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None

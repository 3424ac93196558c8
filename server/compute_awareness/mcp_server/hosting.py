"""A server that runs on a machine which is not the user's: what it must not look at, and what it says instead."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ..errors import InputError

_ELSEWHERE = (
    "on the machine of the experiment `compute-awareness detect --json` (or the script of `detect --script`) makes a "
    "report: pass it as compute, or name the card as gpu"
)
_PATH = re.compile(r"[.~/\\]|[A-Za-z]:[\\/]|.*\.json$")


@dataclass(frozen=True)
class Hosting:
    """How a shared server answers.

    `detect_here`: the operator says that its own hardware is what experiments run on (a server on the lab's GPU box).
    `call_limit_s`: how long the work of one call may take.
    """

    detect_here: bool = False
    call_limit_s: float = 30.0


_HOSTING: ContextVar[Hosting | None] = ContextVar("hosting", default=None)


def hosting() -> Hosting | None:
    """How the call at hand is hosted; None where the server is the user's own."""
    return _HOSTING.get()


def hosted(options: Hosting | None) -> Any:
    """Middleware that lets the tools of this server know."""

    async def middleware(ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        token = _HOSTING.set(options)
        try:
            return await call_next(ctx)
        finally:
            _HOSTING.reset(token)

    return middleware


def may_look_here() -> bool:
    """Whether what this machine can see may be used for an answer."""
    here = hosting()
    return here is None or here.detect_here


def check_looking(host: str | None, python: str | None) -> None:
    """Refuse what would look at the server's own machine, or from it.

    Raises:
        InputError: with what to pass instead.
    """
    if hosting() is None:
        return
    for name, value in (("host", host), ("python", python)):
        if value is not None:
            raise InputError(f"{name}: this server is shared and looks at no machine of yours; {_ELSEWHERE}")


def gpu_of_call(gpu: str | None, has_report: bool) -> str | None:
    """The `gpu` of a call: where nothing is said of the place, the run is somewhere this server does not see.

    Raises:
        InputError: the run is to be on a CPU of which nothing is known.
    """
    if may_look_here() or has_report:
        return gpu
    if gpu is not None and gpu.strip().lower() == "none":
        raise InputError(f"gpu: 'none' needs the machine's RAM: {_ELSEWHERE}")
    return "unknown" if gpu is None else gpu


def checked_if_hosted(fields: Mapping[str, Any], over: Mapping[str, Sequence[Any]] | None = None) -> dict[str, Any]:
    """The fields of a workload, and of a sweep of it, with nothing in them that would read the server's files or run
    its Python.

    Raises:
        InputError: a path as model, or a trace.
    """
    if hosting() is None:
        return dict(fields)
    method = "estimate_method" if fields.get("task") == "patching" else "method"
    for name, values in {**{name: [value] for name, value in fields.items()}, **(over or {})}.items():
        for value in values:
            if name == "model" and isinstance(value, str) and _PATH.match(value.strip()):
                raise InputError(
                    "model: this server is shared and reads no files; give a catalogue name, a Hugging Face id, or the "
                    "contents of config.json as an object"
                )
            if name == method and value == "trace":
                raise InputError(f"{name}: a trace runs the experiment's own Python, which a shared server has not")
    closed = fields.get(method) in (None, "auto")
    return {**fields, **({method: "closed_form"} if closed else {})}

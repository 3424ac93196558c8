"""A server that runs on a machine which is not the user's: what it must not look at, and what it says instead."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..workload import AnyWorkload

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


def place_of(gpu: str | None, has_report: bool) -> str | None:
    """The `gpu` of a call: where nothing is said of the place, the run is somewhere this server does not see.

    Raises:
        InputError: the run is to be on a CPU of which nothing is known.
    """
    here = hosting()
    if here is None or here.detect_here or has_report:
        return gpu
    if gpu is not None and gpu.strip().lower() == "none":
        raise InputError(f"gpu: 'none' needs the machine's RAM: {_ELSEWHERE}")
    return "unknown" if gpu is None else gpu


def as_hosted(workload: AnyWorkload) -> AnyWorkload:
    """The workload, with nothing in it that would read the server's files or run its Python.

    Raises:
        InputError: a path as model, or a trace.
    """
    if hosting() is None:
        return workload
    if isinstance(workload.model, str) and _PATH.match(workload.model.strip()):
        raise InputError(
            "model: this server is shared and reads no files; give a catalogue name, a Hugging Face id, or the "
            "contents of config.json as an object"
        )
    field = "estimate_method" if workload.task == "patching" else "method"
    if workload.estimated_by == "trace":
        raise InputError(f"{field}: a trace runs the experiment's own Python, which a shared server has not")
    return workload.model_copy(update={field: "closed_form"})

"""Looking at a machine for a tool: in a thread, ended with the call, and saying whose machine was seen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from mcp import MCPError
from mcp.server.mcpserver import Context

from ..errors import InputError
from .hosting import check_looking, hosting

if TYPE_CHECKING:
    from ..hardware.compute import Compute

T = TypeVar("T")
TELL_EVERY_S = 1.0
"""From progress to progress; what takes less says nothing."""

_AT_ONCE = 4
"""Long calls that are worked on side by side; the others wait their turn. More would share the interpreter's lock among
them, each with what its search keeps, and take every thread from calls of a millisecond."""
_LIMITER: RunVar[anyio.CapacityLimiter] = RunVar("_LIMITER")


@dataclass
class Call:
    """The call that is being answered, and the seconds of work that its caller was told of: they only grow."""

    context: Context[Any, Any]
    told: float = 0.0
    kept: bool = False
    """Whether the same arguments will have the same answer for as long as this process runs."""


_CALL: ContextVar[Call | None] = ContextVar("call", default=None)


@contextmanager
def in_call(context: Context[Any, Any]) -> Iterator[Call]:
    """Progress of what is done within is told to this call."""
    call = Call(context)
    token = _CALL.set(call)
    try:
        yield call
    finally:
        _CALL.reset(token)


def this_call() -> Context[Any, Any] | None:
    """The request that is being answered; None outside of one."""
    call = _CALL.get()
    return call.context if call else None


def may_be_kept() -> None:
    """The answer of the call at hand may be given again for the same arguments."""
    call = _CALL.get()
    if call is not None:
        call.kept = True


async def in_thread(call: Callable[[], T], doing: str) -> T:
    """`call` beside the event loop, with progress each second: what is being done, and for how long.

    A cancelled call is left behind with every program that it started ended.

    Raises:
        InputError: it takes longer than the operator of a shared server allows.
    """
    from ..hardware.probe.child import ended_by

    stop = threading.Event()

    def work() -> T:
        with ended_by(stop):
            return call()

    outcome: list[T] = []
    failed: list[Exception] = []
    async with anyio.create_task_group() as group:
        group.start_soon(_tell, doing)
        try:
            with _time_allowed():
                outcome.append(await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=_limiter()))
        except Exception as error:
            failed.append(error)  # as it is, not in the group's exception
        finally:
            stop.set()
            group.cancel_scope.cancel()
    if failed:
        raise failed[0]
    return outcome[0]


def _limiter() -> anyio.CapacityLimiter:
    """Of this event loop."""
    try:
        return _LIMITER.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_AT_ONCE)
        _LIMITER.set(limiter)
        return limiter


@contextmanager
def _time_allowed() -> Iterator[None]:
    here = hosting()
    try:
        with anyio.fail_after(here.call_limit_s if here else None):
            yield
    except TimeoutError:
        if here is None:
            raise
        raise InputError(f"this took longer than the {here.call_limit_s:g} s that this server gives a call") from None


async def _tell(doing: str) -> None:
    call = _CALL.get()
    while call is not None:
        await anyio.sleep(TELL_EVERY_S)
        call.told += TELL_EVERY_S
        # No progress is worth failing a call over: a client that has gone ends it in its own way.
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, MCPError):
            await call.context.report_progress(call.told, message=f"{doing}: {call.told:g} s")


async def look(host: str | None, python: str | None) -> Compute:
    """The report of `host`, or of the machine this server runs on."""
    from ..hardware.detect import detect_at

    check_looking(host, python)
    doing = f"looking at {host} by ssh" if host else "looking at this machine"
    found = await in_thread(partial(detect_at, host, python), doing)
    return found if host else seen_here(found)


async def look_elsewhere(host: str | None, compute: Compute | None, python: str | None = None) -> Compute | None:
    """The given report, or that of `host`; None where neither is given. Raises InputError where both are."""
    check_looking(host, python)
    if host is None:
        return compute
    if compute is not None:
        raise InputError("host: looks at a machine, and compute is a report of one: give one of them")
    return await look(host, python)


def seen_here(compute: Compute) -> Compute:
    """Says that it is the server's own machine: often the user's laptop, while the runs are somewhere else."""
    from ..hardware.compute import THIS_MACHINE

    if compute.seen_from != THIS_MACHINE:
        return compute
    name = f" ({compute.host.hostname})" if compute.host.hostname else ""
    return compute.model_copy(update={"seen_from": f"{THIS_MACHINE}{name}, where the server runs"})

"""Looking at a machine for a tool: in a thread, ended with the call, and saying whose machine was seen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread

from ..errors import InputError
from .hosting import check_looking, hosting

if TYPE_CHECKING:
    from ..hardware.compute import Compute

T = TypeVar("T")


async def in_thread(call: Callable[[], T]) -> T:
    """`call` beside the event loop; a cancelled call is left behind, so it must end by itself.

    Raises:
        InputError: a shared server gives no call more time than its operator allows.
    """
    here = hosting()
    try:
        with anyio.fail_after(here.call_limit_s if here else None):
            return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
    except TimeoutError:
        if here is None:
            raise
        raise InputError(f"this took longer than the {here.call_limit_s:g} s that this server gives a call") from None


async def look(host: str | None, python: str | None) -> Compute:
    """The report of `host`, or of the machine this server runs on. A cancelled call ends its ssh at once."""
    from ..hardware.detect import detect_at

    check_looking(host, python)
    stop = threading.Event()
    try:
        found = await in_thread(partial(detect_at, host, python, stop=stop))
    finally:
        stop.set()
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

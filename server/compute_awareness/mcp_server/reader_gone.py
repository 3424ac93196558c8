"""Ending with a client that stopped reading, with an output that takes nothing more, or with a signal.

The SDK (mcp 2.3, server/stdio.py) ends with its input. Where only its output is closed or full, a write fails, and it
then waits for the thread that reads the next line: for ever, where the other end of the input stays open. So it does
after an interrupt, and a termination leaves the children that a call has started.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ..hardware.probe import child

_CODE = 1
_PATIENCE_S = 5.0
"""For an orderly end, after a session that broke off."""


def end_with_reader(fd: int = 1) -> None:
    """From now on this process ends, with its children, as soon as nobody can read what it writes to `fd`.

    Does nothing where that cannot be learnt: on Windows, and for what is no pipe, socket or terminal.
    """
    if sys.platform == "win32":
        return
    try:
        own = os.dup(fd)  # the SDK points the descriptor itself somewhere else while it serves
    except OSError:
        return
    threading.Thread(target=_watch, args=(own,), name="reader gone", daemon=True).start()


@asynccontextmanager
async def ended_if_broken_off(_server: Any) -> AsyncIterator[dict[str, Any]]:
    """A server's lifespan: where the session is broken off, by a write that failed say, the process ends soon after."""
    try:
        yield {}
    except BaseException:
        last = threading.Timer(_PATIENCE_S, _end, (_CODE,))
        last.daemon = True
        last.start()
        raise


def end_with_signals() -> None:
    """From now on an interrupt and a termination end this process at once, and its children with it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: _end(128 + number))


def _end(code: int) -> None:
    child.leave_nothing()
    os._exit(code)  # a thread is waiting for input and would hold up any other end


def _watch(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, 0)  # nothing is asked for, so it wakes for a closed other end alone
    while True:
        events = poll.poll()
        if any(event & select.POLLNVAL for _, event in events):
            return
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in events):
            _end(_CODE)

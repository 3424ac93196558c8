"""Ending with a client that stopped reading, and by a host's signal, without leaving programs of a call behind.

The SDK (mcp 2.3, server/stdio.py) ends with its input. Where only its output is closed, a write fails, and it then
waits for the thread that reads the next line: for ever, where the other end of the input stays open.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from typing import Any

from ..hardware.probe import child

_CODE = 1


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


def end_by_signal() -> None:
    """From now on SIGTERM ends the programs that calls have started too: each has a session of its own and would stay.

    For the main thread. Does nothing on Windows, where nobody is told before the end.
    """
    if sys.platform != "win32":
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, _: Any) -> None:
    child.leave_nothing()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _watch(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, 0)  # nothing is asked for, so it wakes for a closed other end alone
    while True:
        events = poll.poll()
        if any(event & select.POLLNVAL for _, event in events):
            return
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in events):
            child.leave_nothing()
            os._exit(_CODE)  # a thread is waiting for input and would hold up any other end

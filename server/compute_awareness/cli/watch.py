"""`detect --watch`: the report again and again, as `top` and `nvidia-smi -l` show theirs.

On a terminal the alternate screen, which `q`, Ctrl-C and a termination give back as it was; else plain blocks one
after the other, or with --json one line a look.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..hardware.compute import Compute

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"
_TICK_S = 0.05
EXIT_TERMINATED = 143


def watch(host: str | None, python: str | None, interval_s: float, as_json: bool) -> int:
    """Look every `interval_s` seconds, or as often as a look takes, until q or Ctrl-C. The exit code.

    Raises:
        InputError: the first look does; later failures are shown, and it goes on.
    """
    from .show import screen

    to = screen()
    stop = threading.Event()
    look = _looks(host, python, stop)
    try:
        if as_json or not to.is_terminal or to.legacy_windows:
            with contextlib.suppress(KeyboardInterrupt):
                _blocks(look, interval_s, as_json)
            return 0
        return _full_screen(look, interval_s)
    finally:
        stop.set()


def _looks(host: str | None, python: str | None, stop: threading.Event) -> Callable[[], Compute]:
    """A function that looks. Here the experiment's Python is asked once: importing torch takes seconds each time."""
    from ..hardware.detect import detect, detect_at
    from ..hardware.probe.examine import summarise

    first: list[Compute] = []

    def look() -> Compute:
        if host is not None or not first:
            found = detect_at(host, python, stop=stop)
            first.append(found)
            return found
        found = detect(with_python=False)
        found.python = first[0].python
        found.problems += [p for p in first[0].problems if p.probe == "python"]
        found.summary = summarise(found.host, found.environment, found.accelerators, found.python)
        return found

    return look


def _blocks(look: Callable[[], Compute], interval_s: float, as_json: bool) -> None:
    from .show_compute import show_compute

    failed = None
    for number in range(sys.maxsize):
        begin = time.monotonic()
        try:
            compute = look()
        except InputError as error:
            if number == 0:
                raise
            compute, failed = None, str(error)
        if compute is None:
            print(f"error: {failed}", file=sys.stderr, flush=True)
        elif as_json:
            sys.stdout.write(compute.model_dump_json() + "\n")
        else:
            sys.stdout.write(f"{chr(10) if number else ''}--- {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
            show_compute(compute)
        sys.stdout.flush()
        time.sleep(max(0.0, begin + interval_s - time.monotonic()))


def _full_screen(look: Callable[[], Compute], interval_s: float) -> int:
    """Looks run beside this thread, so that a slow one delays no key. The exit code."""
    shown: Compute | None = None
    failed = ""
    results: list[Compute | BaseException] = []

    def work() -> None:
        try:
            results.append(look())
        except BaseException as error:
            results.append(error)

    worker: threading.Thread | None = None
    due = time.monotonic()
    with _terminal() as (key, ended):
        _draw(None, "looking ...", interval_s)
        while key() not in ("q", "Q") and not ended:
            if results:
                result = results.pop()
                if isinstance(result, InputError) and shown is not None:
                    failed = str(result)
                elif isinstance(result, BaseException):
                    raise result
                else:
                    shown, failed = result, ""
                worker = None
                _draw(shown, failed, interval_s)
            elif worker is None and time.monotonic() >= due:
                due = time.monotonic() + interval_s
                worker = threading.Thread(target=work, daemon=True)
                worker.start()
        return EXIT_TERMINATED if ended and ended[0] != signal.SIGINT else 0


def _draw(compute: Compute | None, note: str, interval_s: float) -> None:
    """One screenful, from the top; what does not fit below is left out, as `top` does."""
    from .show import screen, text
    from .show_compute import show_compute

    to = screen()
    with to.capture() as captured:
        head = f"compute-awareness detect, every {interval_s:g} s   {time.strftime('%H:%M:%S')}   q to quit"
        to.print(text(head, "dim"), no_wrap=True, overflow="crop")
        if note:
            to.print(text(note, "bold yellow"), no_wrap=True, overflow="crop")
        if compute is not None:
            show_compute(compute, to)
    lines = captured.get().splitlines()[: to.height - 1]
    sys.stdout.write(_HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in lines) + _CLEAR_REST)
    sys.stdout.flush()


@contextlib.contextmanager
def _terminal() -> Iterator[tuple[Callable[[], str], list[int]]]:
    """The alternate screen, with a function that waits a moment for a key and a list of the signals that asked for the
    end; all as it was at the end.

    The signals are written down and not raised: an exception that comes in the middle of a destructor is lost.
    """
    ended: list[int] = []
    with contextlib.ExitStack() as undo:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None:
                before = signal.signal(number, lambda number, _frame: ended.append(number))
                undo.callback(signal.signal, number, before)
        key = undo.enter_context(_keys())
        undo.callback(_write, _LEAVE)
        _write(_ENTER)
        yield key, ended


def _write(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(text)
        sys.stdout.flush()


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """A function that gives the key pressed within a moment, else an empty text."""
    if sys.stdin is None or not sys.stdin.isatty():

        def nothing() -> str:
            time.sleep(_TICK_S)
            return ""

        yield nothing
    elif sys.platform == "win32":
        import msvcrt

        def pressed() -> str:
            time.sleep(_TICK_S)
            return msvcrt.getwch() if msvcrt.kbhit() else ""

        yield pressed
    else:
        import termios
        import tty

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)

        def typed() -> str:
            ready, _, _ = select.select([descriptor], [], [], _TICK_S)
            # Nothing to read although ready: the terminal is gone.
            return (os.read(descriptor, 1).decode("ascii", "replace") or "q") if ready else ""

        try:
            # Single keys without an echo; Ctrl-C still interrupts.
            tty.setcbreak(descriptor)
            yield typed
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

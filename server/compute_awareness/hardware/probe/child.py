"""Running another program without letting it hang, flood, outlive the report or leave files behind."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OUTPUT_CAP = 1 << 20
# Without these Windows can start no Python and no driver tool, whatever the caller's environment is.
_WINDOWS_NEEDS = ("SYSTEMROOT", "WINDIR", "PROGRAMFILES", "PATHEXT", "TEMP", "TMP")

# What is to be ended or removed should this process have to go before the child does (a dropped connection).
_running: set[subprocess.Popen[bytes]] = set()
_folders: set[str] = set()


# Set by who may want no more of all that is begun in a context, a cancelled call of the MCP server above all.
_ended_by: ContextVar[threading.Event | None] = ContextVar("ended_by", default=None)


@contextlib.contextmanager
def ended_by(stop: threading.Event) -> Iterator[None]:
    """Every child started in this context, and in the threads that copy it, is killed once `stop` is set."""
    token = _ended_by.set(stop)
    try:
        yield
    finally:
        _ended_by.reset(token)


@dataclass
class Finished:
    """What a child left behind. `code` is None where it had to be killed."""

    out: str
    err: str
    code: int | None
    timed_out: bool = False
    flooded: bool = False


def run_child(
    argv: Sequence[str],
    environ: Mapping[str, str],
    limit_s: float,
    cwd: str | Path | None = None,
    cap: int = OUTPUT_CAP,
    stdin: bytes | None = None,
    stop: threading.Event | None = None,
) -> Finished:
    """Run `argv` for at most `limit_s` seconds, keeping at most `cap` bytes of each output stream.

    `stdin` is what it can read, by default nothing. Once `stop` (by default that of `ended_by`) is set, by another
    thread, it is killed as if its time were over, or not started.

    What was written before a kill is returned, so a program that hangs halfway still tells its first half.
    The child's own children are ended with it, except one that made a session of its own. A child stuck in the
    kernel, which no signal ends, is left behind rather than waited for.

    Raises:
        OSError: the program cannot be started.
    """
    stop = stop or _ended_by.get() or threading.Event()
    if stop.is_set():
        return Finished("", "", None, timed_out=True)
    env = dict(environ)
    if sys.platform == "win32":
        for name in _WINDOWS_NEEDS:
            if name in os.environ:
                env.setdefault(name, os.environ[name])
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        cwd=cwd,
        start_new_session=os.name == "posix",
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
    _running.add(process)
    kept: tuple[bytearray, bytearray] = (bytearray(), bytearray())
    full = threading.Event()

    def drain(stream, into: bytearray) -> None:
        with stream:
            while chunk := stream.read1(65536):
                into += chunk[: cap - len(into)]
                if len(into) >= cap:
                    full.set()
                    return

    def feed(pipe: Any, data: bytes) -> None:
        # A child that ends without reading is no fault: what it said tells why.
        with contextlib.suppress(OSError, ValueError), pipe:
            pipe.write(data)

    # Threads rather than communicate(): that would hold a flood of output in memory before any limit bites.
    readers = [
        threading.Thread(target=drain, args=pair, daemon=True) for pair in zip((process.stdout, process.stderr), kept)
    ]
    for reader in readers:
        reader.start()
    if stdin is not None:
        threading.Thread(target=feed, args=(process.stdin, stdin), daemon=True).start()
    try:
        code = _wait(process, readers, full, stop, time.monotonic() + limit_s)
    except BaseException:
        # Ctrl-C while waiting: nothing may go on behind the caller's back.
        _kill(process)
        _running.discard(process)
        raise
    if code is None:
        _kill(process)
        for reader in readers:
            reader.join(0.2)
    else:
        _kill_group(process)
    _running.discard(process)
    out, err = (bytes(part).decode("utf-8", "replace") for part in kept)
    return Finished(out, err, code, timed_out=code is None and not full.is_set(), flooded=full.is_set())


def _wait(
    process: subprocess.Popen[bytes],
    readers: Sequence[threading.Thread],
    full: threading.Event,
    stop: threading.Event,
    deadline: float,
) -> int | None:
    """The exit code; None where the time is over, the output too much, or the caller wants no more of it."""
    while any(reader.is_alive() for reader in readers) and time.monotonic() < deadline:
        if full.is_set() or stop.is_set():
            return None
        for reader in readers:
            reader.join(min(0.02, max(0.0, deadline - time.monotonic())))
        if process.poll() is not None:
            # Its own children may still hold the pipes; what it wrote itself is there within a moment.
            deadline = min(deadline, time.monotonic() + 0.2)
    while not full.is_set() and not stop.is_set():
        left = deadline - time.monotonic()
        try:
            return process.wait(min(0.05, max(0.0, left)))
        except subprocess.TimeoutExpired:
            if left <= 0:
                return None
    return None


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A fresh empty folder of this user alone, removed afterwards with whatever a child wrote into it.

    (tempfile.TemporaryDirectory cannot ignore what it fails to remove before Python 3.10.)
    """
    folder = tempfile.mkdtemp(prefix="compute-awareness-")
    _folders.add(folder)
    try:
        yield Path(folder)
    finally:
        _remove(folder)


def _remove(folder: str) -> None:
    for wait in (0.0, 0.05, 0.2):
        # A process that is being killed may still make a file, and on Windows holds its working folder.
        time.sleep(wait)
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            break
    _folders.discard(folder)


@atexit.register
def leave_nothing() -> None:
    """Ends every child and removes every folder of this process, which is about to end."""
    for process in list(_running):
        _kill(process)
    for folder in list(_folders):
        _remove(folder)


def _kill_group(process: subprocess.Popen[bytes]) -> bool:
    """End what is left of the child's session; whether there was anything."""
    if os.name != "posix":
        return False
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _kill(process: subprocess.Popen[bytes]) -> None:
    if not _kill_group(process):
        process.kill()
    try:
        process.wait(1.0)
    except subprocess.TimeoutExpired:
        # A process in an uninterruptible driver call: Popen would warn about it when collected.
        process.returncode = -int(getattr(signal, "SIGKILL", signal.SIGTERM))

"""Running another program without letting it hang, flood or outlive the report."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OUTPUT_CAP = 1 << 20
# Without these Windows can start no Python and no driver tool, whatever the caller's environment is.
_WINDOWS_NEEDS = ("SYSTEMROOT", "WINDIR", "PROGRAMFILES", "PATHEXT", "TEMP", "TMP")


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

    `stdin` is what it can read, by default nothing. Once `stop` is set, by another thread, it is killed as if its
    time were over.

    What was written before a kill is returned, so a program that hangs halfway still tells its first half.
    The child's own children are killed with it. A child stuck in the kernel, which no signal ends, is left
    behind rather than waited for.

    Raises:
        OSError: the program cannot be started.
    """
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
        code = _wait(process, readers, full, stop or threading.Event(), time.monotonic() + limit_s)
    except BaseException:
        # Ctrl-C while waiting: nothing may go on behind the caller's back.
        _kill(process)
        raise
    if code is None:
        _kill(process)
        for reader in readers:
            reader.join(0.2)
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


def _kill(process: subprocess.Popen[bytes]) -> None:
    if os.name == "posix":
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()
    else:
        process.kill()
    try:
        process.wait(1.0)
    except subprocess.TimeoutExpired:
        # A process in an uninterruptible driver call: Popen would warn about it when collected.
        process.returncode = -int(getattr(signal, "SIGKILL", signal.SIGTERM))

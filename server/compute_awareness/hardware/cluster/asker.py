"""Asking several programs within one limit of time, with what went wrong kept as data."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..probe.child import run_child

# Where sites put SLURM's programs without a word in the PATH.
SLURM_FOLDERS = ("/usr/local/slurm/bin", "/opt/slurm/bin", "/cm/shared/apps/slurm/current/bin")
OUTPUT_CAP = 64 << 20  # a thousand nodes with their labels are tens of MiB


def find_program(name: str, environ: Mapping[str, str], also: Sequence[str] = ()) -> str | None:
    """Full path of a program on the PATH of `environ`, else in one of the folders `also`."""
    paths = os.pathsep.join((environ.get("PATH", os.defpath), *also))
    return shutil.which(name, path=paths)


class Asker:
    """Runs programs one after the other; all of them together have `limit_s` seconds.

    `run` is `run_child` or a stand-in with its arguments (argv, environ, limit_s, cap) and its result.
    """

    def __init__(self, environ: Mapping[str, str], limit_s: float, run: Callable[..., Any] = run_child) -> None:
        self.environ = dict(environ)
        self.limit_s = limit_s
        self.run = run
        self.problems: list[str] = []
        self._end = time.monotonic() + limit_s

    def ask(self, argv: Sequence[str]) -> str | None:
        """What a program prints; None, and a problem noted, where it fails, hangs, floods or cannot be started."""
        out, why = self.listen(argv)
        if why is not None:
            self.problems.append(f"{os.path.basename(argv[0])}: {why}")
            return None
        return out

    def listen(self, argv: Sequence[str], errors_too: bool = False) -> tuple[str, str | None]:
        """(output, None), or ("", why there is none). With `errors_too`, all that it said, whatever its exit code."""
        left = self._end - time.monotonic()
        if left <= 0:
            return "", f"not asked: the {self.limit_s:g} s for this scheduler were over"
        try:
            done = self.run(argv, self.environ, left, cap=OUTPUT_CAP)
        except OSError as error:
            return "", f"cannot be started: {error.strerror or error}"
        if done.timed_out:
            return "", f"did not answer within {left:.0f} s and was stopped"
        if done.flooded:
            return "", f"printed more than {OUTPUT_CAP >> 20} MiB and was stopped"
        if errors_too:
            return f"{done.out}\n{done.err}", None
        if done.code != 0:
            said = [line.strip() for line in (done.err or done.out).splitlines() if line.strip()]
            # Warnings, or a traceback, come before what it comes to.
            return "", said[-1][:200] if said else f"ended with exit code {done.code}"
        return done.out, None

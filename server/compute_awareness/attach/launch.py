"""How a host is to start this server."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Literal

from ..errors import InputError
from .hosts import NAME, Scope

How = Literal["this", "uvx"]


def command_for(scope: Scope, how: How | None = None) -> tuple[str, list[str]]:
    """Command and arguments for an entry.

    `this` is the program that runs now, by its full path: no download, the fastest start. `uvx` fetches the
    package on the first start; it suits a project's file, which other people's machines read, too.

    Args:
        scope: a project's file gets `uvx`, the others `this`, where `how` does not say.
    Raises:
        InputError: `this` is wanted but is itself a passing copy in uvx's cache.
    """
    here = _this()
    if how == "this" and here is None:
        raise InputError("this copy runs out of a cache that may be cleared: `uv tool install compute-awareness` first")
    if how == "this" or (how is None and scope != "project" and here is not None):
        assert here is not None
        return here
    # Programs started from a desktop seldom have the PATH of a shell.
    uvx = "uvx" if scope == "project" else shutil.which("uvx") or "uvx"
    return uvx, [NAME]


def _this() -> tuple[str, list[str]] | None:
    """The installed program beside this interpreter; the interpreter with `-m` where there is no such program; None
    where both are a passing copy."""
    folder = Path(sys.executable).parent
    if any(part.startswith(("archive-v", "environments-v")) for part in folder.parts):
        return None
    for name in (NAME, f"{NAME}.exe"):
        if (folder / name).is_file():
            return str(folder / name), []
    return sys.executable, ["-m", "compute_awareness"]

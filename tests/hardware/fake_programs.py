"""Programs that play a scheduler's, put into a folder of their own that is the whole PATH."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins for other programs are shell scripts")


def put_program(folder: Path, name: str, script: str) -> Path:
    """A shell script `name` in `folder` that anyone may run."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def answers(cases: Mapping[str, Path | str], otherwise: str = "exit 9") -> str:
    """A script that prints a file (or runs a command) where its arguments hold a word; the first match counts."""
    lines = [
        f"*{shlex.quote(word)}*) {f'cat {shlex.quote(str(what))}' if isinstance(what, Path) else what} ;;"
        for word, what in cases.items()
    ]
    return 'case "$*" in\n' + "\n".join(lines) + f"\n*) {otherwise} ;;\nesac"


def environ_of(folder: Path) -> dict[str, str]:
    """A PATH of these programs and the system's own, for `cat` and `sleep`."""
    return {"PATH": f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin", "HOME": str(folder)}

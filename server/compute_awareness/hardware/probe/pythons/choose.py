"""Which Python an experiment would run in."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ....errors import InputError
from ..embedded import EMBEDDED
from .folders import executable, python_in
from .listing import candidates


class Choice(NamedTuple):
    """A Python and why this one; `explicit` when the caller named it."""

    path: Path
    source: str
    explicit: bool = False


def choose_python(
    python: str | None,
    environ: Mapping[str, str],
    cwd: Path,
    prefer_own: bool = False,
    root: Path = Path("/"),
) -> Choice | None:
    """The experiment's Python: the one named, else the first of `listing.candidates`, whose docstring has the rules.

    This program's own environment is taken only where it has torch, or where there is nothing else: a server
    installed by itself says nothing about the experiment. With `prefer_own` it is taken before all others, which
    is right where this code runs inside the experiment's Python, such as a notebook's kernel. None where there is
    no Python at all.

    Raises:
        InputError: `python` does not exist or cannot be executed.
    """
    if python is not None:
        return Choice(_named(python, environ, cwd), "--python", explicit=True)
    if prefer_own and sys.executable:
        return Choice(Path(sys.executable), "the Python this runs in")
    own = None
    for path, source, choosable in candidates(environ, cwd, root):
        if not choosable:
            break
        if not is_own(path):
            return Choice(path, source)
        if importlib.util.find_spec("torch") is not None:
            return Choice(path, f"{source}, where this program is installed too")
        own = own or Choice(path, f"{source}: this program's own environment, as no other Python was found")
    if own is None and sys.executable:
        own = Choice(Path(sys.executable), "this program's own Python, as no other was found")
    return own


def is_own(path: Path) -> bool:
    """Whether `path` starts the environment this program runs in (its links lead out of it, so by folder)."""
    if EMBEDDED:
        # As a script on another machine it is installed nowhere: every Python there is the user's.
        return False
    folders = {Path(sys.prefix), Path(sys.prefix) / "bin", Path(sys.prefix) / "Scripts"}
    if sys.executable:
        folders.add(Path(sys.executable).parent)
    try:
        return path.parent.resolve() in {folder.resolve() for folder in folders}
    except OSError:
        return False


def _named(python: str, environ: Mapping[str, str], cwd: Path) -> Path:
    """The file that the caller means: a path, a virtual environment's folder, or a command on PATH."""
    text = python.strip()
    if not text or "\0" in text or len(text) > 4096:
        raise InputError("the path to Python is empty or not a path; give the file, e.g. .venv/bin/python")
    given = Path(text).expanduser() if text.startswith("~") else Path(text)
    path = given if given.is_absolute() else cwd / given
    try:
        if path.is_dir():
            inside = python_in(path)
            if inside is None:
                raise InputError(f"{text!r} is a folder without a Python in it; give the file, e.g. .venv/bin/python")
            return inside
        if path.is_file():
            if not executable(path):
                raise InputError(f"{text!r} is not executable; give a Python, e.g. .venv/bin/python")
            return path
        if path.exists():
            raise InputError(f"{text!r} is not a Python: it is no ordinary file")
    except OSError as error:
        raise InputError(f"{text!r} cannot be read: {error.strerror}") from None
    if os.sep not in text and "/" not in text:
        command = shutil.which(text, path=environ.get("PATH", os.defpath))
        if command is not None:
            return Path(command)
    raise InputError(f"{text!r} is not found; give the file of a Python, e.g. .venv/bin/python")

"""The Pythons behind the kernels that Jupyter offers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from .folders import entries, executable, home_of, python_in, small_text

_MOST = 50


class Kernel(NamedTuple):
    """A kernel by the name of its folder, and the Python it starts."""

    name: str
    python: Path


def kernels(environ: Mapping[str, str], prefixes: Iterable[Path], root: Path) -> Iterator[Kernel]:
    """Kernels whose Python is on this machine, in Jupyter's own order (jupyter_core/paths.py, jupyter_path).

    `prefixes` are environments whose own `share/jupyter` is looked into. A kernel that a launcher starts elsewhere
    (a container, another machine) has no Python here and is left out.
    """
    seen = 0
    for folder, prefix in _data_folders(environ, prefixes, root):
        for entry in entries(folder / "kernels", _MOST):
            python = kernel_python(small_text(entry / "kernel.json"), prefix)
            if python is not None:
                yield Kernel(entry.name, python)
                seen += 1
                if seen >= _MOST:
                    return


def kernel_python(text: str, prefix: Path | None) -> Path | None:
    """The Python that the `argv` of a kernel.json names; None where there is none on this machine.

    The kernel that ipykernel installs with itself has a bare `python`, which is the one of its environment `prefix`
    (jupyter_client/manager.py, format_kernel_cmd). `env NAME=… /path/python …` and the like are read too.
    """
    argv = kernel_argv(text)
    for word in argv[:8]:
        name = word.replace("\\", "/").rsplit("/", 1)[-1].lower()
        if not name.startswith("python"):
            continue
        if name == word.lower():
            return python_in(prefix) if prefix is not None and word == argv[0] else None
        path = Path(word)
        return path if path.is_absolute() and executable(path) else None
    return None


def kernel_argv(text: str) -> list[str]:
    """The words of `argv` in the text of a kernel.json; none where it is not one."""
    try:
        spec = json.loads(text)
    except (ValueError, RecursionError):
        return []
    argv = spec.get("argv") if isinstance(spec, dict) else None
    if not isinstance(argv, list) or not all(isinstance(word, str) and "\0" not in word for word in argv):
        return []
    return argv


def _data_folders(
    environ: Mapping[str, str], prefixes: Iterable[Path], root: Path
) -> Iterator[tuple[Path, Path | None]]:
    """Folders with `kernels` in them, and the environment each is a part of."""
    for entry in environ.get("JUPYTER_PATH", "").split(os.pathsep):
        if entry:
            yield Path(entry), None
    home = home_of(environ)
    if environ.get("JUPYTER_DATA_DIR"):
        yield Path(environ["JUPYTER_DATA_DIR"]), None
    elif environ.get("APPDATA"):
        yield Path(environ["APPDATA"]) / "jupyter", None
    elif home is not None:
        if sys.platform == "darwin" or not environ.get("XDG_DATA_HOME"):
            yield home / "Library" / "Jupyter", None
        yield Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "jupyter", None
    for prefix in prefixes:
        yield prefix / "share" / "jupyter", prefix
    if environ.get("PROGRAMDATA"):
        yield Path(environ["PROGRAMDATA"]) / "jupyter", None
    for base in ("usr/local", "usr"):
        yield root / base / "share" / "jupyter", root / base

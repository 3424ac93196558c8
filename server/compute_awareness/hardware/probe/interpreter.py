"""The experiment's Python: which one it is, and what it has installed, asked in a child process."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from .child import Finished, run_child
from .embedded import EMBEDDED, program
from .report import Interpreter, TorchBuild

LIBRARIES = ("torch", "transformer-lens", "sae-lens", "nnsight", "transformers", "accelerate", "bitsandbytes")
ANSWER_LIMIT_S = 8.0
IMPORT_LIMIT_S = 20.0
_OLDEST = (3, 8)
# Meant for interactive use, for debugging, or for one Python only: a child of this process must not inherit them.
_DROPPED = (
    "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONVERBOSE", "PYTHONDEBUG", "PYTHONDEVMODE", "PYTHONWARNINGS",
    "PYTHONBREAKPOINT", "PYTHONPROFILEIMPORTTIME", "PYTHONHOME", "PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__",
)  # fmt: skip


class Choice(NamedTuple):
    """A Python and why this one; `explicit` when the caller named it."""

    path: Path
    source: str
    explicit: bool = False


def choose_python(python: str | None, environ: Mapping[str, str], cwd: Path) -> Choice | None:
    """The experiment's Python: the one named, else VIRTUAL_ENV, CONDA_PREFIX, `.venv` or `venv` in `cwd`, PATH.

    This program's own environment is taken only where it has torch, or where there is nothing else: a server
    installed by itself says nothing about the experiment. None where there is no Python at all.

    Raises:
        InputError: `python` does not exist or cannot be executed.
    """
    if python is not None:
        return Choice(_named(python, environ, cwd), "--python", explicit=True)
    own = None
    for path, source in _candidates(environ, cwd):
        if not _is_own(path):
            return Choice(path, source)
        if importlib.util.find_spec("torch") is not None:
            return Choice(path, f"{source}, where this program is installed too")
        own = own or Choice(path, f"{source}: this program's own environment, as no other Python was found")
    if own is None and sys.executable:
        own = Choice(Path(sys.executable), "this program's own Python, as no other was found")
    return own


def probe_python(
    choice: Choice,
    environ: Mapping[str, str],
    answer_limit_s: float = ANSWER_LIMIT_S,
    import_limit_s: float = IMPORT_LIMIT_S,
) -> Interpreter:
    """Versions of the libraries of this field, and torch as it reports itself, in `choice.path`.

    The child keeps PYTHONPATH and the user's site-packages (on clusters torch often comes by them), so it is
    not started isolated; the working folder, start-up files and this package's own folder are kept out.

    Raises:
        InputError: a Python that the caller named is none.
    """
    report = Interpreter(path=str(choice.path), source=choice.source)
    env = child_environment(environ)
    try:
        with tempfile.TemporaryDirectory(prefix="compute-awareness-", ignore_cleanup_errors=True) as clean:
            # First the version alone: to a program that is no Python, a script as argument could mean anything.
            named = run_child([str(choice.path), "--version"], env, answer_limit_s, cwd=clean)
            said = re.match(r"Python (\d+)\.(\d+)(\S*)", (named.out or named.err).strip())
            if named.timed_out:
                report.problem = f"it did not answer --version within {answer_limit_s:g} s"
                return report
            if said is None or named.code != 0:
                return _not_a_python(choice, report, "it does not answer --version as Python does")
            report.version = f"{said[1]}.{said[2]}{said[3]}"
            if (int(said[1]), int(said[2])) < _OLDEST:
                report.problem = f"Python {report.version} is too old to be asked (3.8 or newer)"
                return report
            script = program("probe_torch.py")
            limit = answer_limit_s + import_limit_s
            done = run_child([str(choice.path), "-c", script, *LIBRARIES], env, limit, cwd=clean)
    except OSError as error:
        return _not_a_python(choice, report, error.strerror or str(error))
    first = _stage(done.out, "installed")
    if first is None:
        if done.timed_out:
            report.problem = f"it did not tell what is installed within {limit:g} s"
            return report
        return _not_a_python(choice, report, "it does not run Python code")
    report.version = first.get("version", report.version)
    report.libraries = dict(first.get("libraries", {}))
    _add_torch(report, first.get("torch"), _stage(done.out, "torch"), done, limit)
    return report


def _add_torch(report: Interpreter, on_disk: Any, alive: Any, done: Finished, limit_s: float) -> None:
    version = (on_disk or {}).get("version") or report.libraries.get("torch")
    if version is None and alive is None:
        return
    if alive is None:
        how = f"was not done after {limit_s:g} s" if done.timed_out else f"ended the process (exit code {done.code})"
        report.problem = f"importing torch {how}; only what stands on disk is known"
    elif "error" in alive:
        report.problem = f"importing torch failed: {_one_line(alive['error'])}"
    if alive is None or "error" in alive:
        if version is not None:
            report.torch = TorchBuild(version=version, cuda_build=(on_disk or {}).get("cuda"))
        return
    report.torch = TorchBuild(
        version=alive["version"],
        cuda_build=alive["cuda"],
        cuda_available=alive["cuda_available"],
        mps_available=alive["mps_available"],
        allocated_bytes=alive.get("allocated"),
        reserved_bytes=alive.get("reserved"),
        arch_list=alive["arch_list"],
    )


def _not_a_python(choice: Choice, report: Interpreter, why: str) -> Interpreter:
    if choice.explicit:
        raise InputError(f"{str(choice.path)!r} is not a Python: {why}")
    report.problem = f"this is not a Python that works: {why}"
    return report


def _named(python: str, environ: Mapping[str, str], cwd: Path) -> Path:
    """The file that the caller means: a path, a virtual environment's folder, or a command on PATH."""
    import shutil

    text = python.strip()
    if not text or "\0" in text or len(text) > 4096:
        raise InputError("the path to Python is empty or not a path; give the file, e.g. .venv/bin/python")
    given = Path(text).expanduser() if text.startswith("~") else Path(text)
    path = given if given.is_absolute() else cwd / given
    try:
        if path.is_dir():
            inside = _in_environment(path)
            if inside is None:
                raise InputError(f"{text!r} is a folder without a Python in it; give the file, e.g. .venv/bin/python")
            return inside
        if path.is_file():
            if not os.access(path, os.X_OK):
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


def _candidates(environ: Mapping[str, str], cwd: Path) -> Iterator[tuple[Path, str]]:
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        folder = environ.get(name)
        found = _in_environment(Path(folder)) if folder else None
        if found is not None:
            yield found, name
    for name in (".venv", "venv"):
        found = _in_environment(cwd / name)
        if found is not None:
            yield found, f"{name} in the working folder"
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        # Windows puts stand-ins here that open the shop instead of a Python.
        if folder and "WindowsApps" not in folder:
            for name in ("python3", "python"):
                path = Path(folder) / (name + (".exe" if os.name == "nt" else ""))
                if _executable(path):
                    yield path, f"{name} on PATH"


def _in_environment(folder: Path) -> Path | None:
    for inside in ("bin/python", "bin/python3", "Scripts/python.exe", "python.exe"):
        if _executable(folder / inside):
            return folder / inside
    return None


def _executable(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.X_OK)
    except OSError:
        return False


def _is_own(path: Path) -> bool:
    """Whether `path` starts the environment this program runs in (its links lead out of it, so by folder)."""
    if EMBEDDED:
        return False  # As a script on another machine it is installed nowhere: every Python there is the user's.
    folders = {Path(sys.prefix), Path(sys.prefix) / "bin", Path(sys.prefix) / "Scripts"}
    if sys.executable:
        folders.add(Path(sys.executable).parent)
    try:
        return path.parent.resolve() in {folder.resolve() for folder in folders}
    except OSError:
        return False


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    env = {name: value for name, value in environ.items() if name not in _DROPPED}
    ours = Path(__file__).resolve().parent.parent.parent.parent
    if "PYTHONPATH" in env:
        # This package's own folder on PYTHONPATH would show the server's libraries as the experiment's.
        kept = [entry for entry in env["PYTHONPATH"].split(os.pathsep) if entry and Path(entry).resolve() != ours]
        env["PYTHONPATH"] = os.pathsep.join(kept)
        if not kept:
            del env["PYTHONPATH"]
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    # is_available() then asks NVML and makes no CUDA context on the card (torch/cuda/__init__.py, since 1.13).
    env["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    return env


def _stage(out: str, name: str) -> dict[str, Any] | None:
    found = re.search(rf"<<compute-awareness {name}>>(.*?)<<end>>", out, re.DOTALL)
    try:
        facts = json.loads(found[1]) if found else None
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


def _one_line(text: str) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 200 else line[:197] + "..."

"""The experiment's Python: what it has installed, asked in a child process."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from .child import Finished, run_child
from .embedded import program
from .pythons.choose import Choice
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

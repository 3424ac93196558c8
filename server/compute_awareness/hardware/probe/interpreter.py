"""The experiment's Python: what it has installed, asked in a child process."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from .child import Finished, run_child, scratch_folder
from .embedded import program
from .pythons.choose import Choice
from .report import Interpreter, TorchBuild, UnmetRequirement

LIBRARIES = (
    "torch", "transformer-lens", "sae-lens", "nnsight", "transformers", "accelerate", "bitsandbytes", "peft",
    "dictionary-learning", "circuit-tracer", "eai-sparsify", "pyvene", "sae-dashboard", "datasets", "huggingface-hub",
    "tokenizers", "safetensors", "numpy", "triton", "flash-attn", "xformers",
)  # fmt: skip
_UNMET_CAP = 40
ANSWER_LIMIT_S = 8.0
IMPORT_LIMIT_S = 20.0
_OLDEST = (3, 8)
# Meant for interactive use, for debugging, or for one Python only: a child of this process must not inherit them.
_DROPPED = (
    "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONVERBOSE", "PYTHONDEBUG", "PYTHONDEVMODE", "PYTHONWARNINGS",
    "PYTHONBREAKPOINT", "PYTHONPROFILEIMPORTTIME", "PYTHONHOME", "PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__",
)  # fmt: skip

# Where torch, triton, matplotlib, numba and the driver put files while they are imported or asked. torch 2.13 itself
# makes and removes one temporary file at import, by tempfile's test of its folder (seen with strace).
_KEEPING = (
    "TMPDIR", "TEMP", "TMP", "XDG_CACHE_HOME", "TORCH_HOME", "TORCHINDUCTOR_CACHE_DIR", "TORCH_EXTENSIONS_DIR",
    "TRITON_HOME", "TRITON_CACHE_DIR", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "CUDA_CACHE_PATH", "MIOPEN_USER_DB_PATH",
    "MIOPEN_CUSTOM_CACHE_DIR",
)  # fmt: skip


def probe_python(
    choice: Choice,
    environ: Mapping[str, str],
    answer_limit_s: float = ANSWER_LIMIT_S,
    import_limit_s: float = IMPORT_LIMIT_S,
) -> Interpreter:
    """Versions of the libraries of this field, and torch as it reports itself, in `choice.path`.

    The child keeps PYTHONPATH and the user's site-packages (on clusters torch often comes by them), so it is
    not started isolated; the working folder, start-up files and this package's own folder are kept out. Its output
    goes into pipes of its own. Its working folder, and every place where torch and what it imports would keep
    something, is a fresh folder that is removed afterwards, also when the child had to be killed.

    Raises:
        InputError: a Python that the caller named is none.
    """
    report = Interpreter(path=str(choice.path), source=choice.source)
    try:
        with scratch_folder() as clean:
            env = child_environment(environ, clean)
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
            limit = answer_limit_s + import_limit_s
            token = os.urandom(8).hex()
            # The child ends itself a while later should nobody be left to do so.
            argv = [str(choice.path), "-c", program("probe_torch.py"), token, str(int(limit) + 10), *LIBRARIES]
            done = run_child(argv, env, limit, cwd=clean)
    except OSError as error:
        return _not_a_python(choice, report, error.strerror or str(error))
    first = _stage(done.out, token, "installed")
    if first is None:
        if done.timed_out:
            report.problem = f"it did not tell what is installed within {limit:g} s"
            return report
        return _not_a_python(choice, report, "it does not run Python code")
    report.version = _text(first.get("version")) or report.version
    report.libraries = _texts(first.get("libraries"))
    report.unmet = _unmet(_stage(done.out, token, "unmet"))
    _add_torch(report, first.get("torch"), _stage(done.out, token, "torch"), done, limit)
    return report


def _add_torch(report: Interpreter, on_disk: Any, alive: Any, done: Finished, limit_s: float) -> None:
    on_disk = on_disk if isinstance(on_disk, dict) else {}
    version = _text(on_disk.get("version")) or report.libraries.get("torch")
    if version is None and alive is None:
        return
    if alive is None:
        how = f"ended the process (exit code {done.code})"
        if done.timed_out or done.flooded:
            how = f"was not done after {limit_s:g} s" if done.timed_out else "printed without end"
        report.problem = f"importing torch {how}; only what stands on disk is known"
    elif "error" in alive:
        report.problem = f"importing torch failed: {_one_line(alive['error'])}"
    if alive is None or "error" in alive:
        if version is not None:
            report.torch = TorchBuild(
                version=version,
                cuda_build=_text(on_disk.get("cuda")),
                hip_build=_text(on_disk.get("hip")),
                xpu_build=_text(on_disk.get("xpu")),
            )
        return
    arches = alive.get("arch_list")
    report.torch = TorchBuild(
        version=_text(alive.get("version")) or version or "unknown",
        cuda_build=_text(alive.get("cuda")),
        hip_build=_text(alive.get("hip")),
        xpu_build=_text(alive.get("xpu")),
        cuda_available=alive.get("cuda_available") is True,
        xpu_available=alive.get("xpu_available") is True,
        mps_available=alive.get("mps_available") is True,
        allocated_bytes=_count(alive.get("allocated")),
        reserved_bytes=_count(alive.get("reserved")),
        arch_list=[arch for arch in arches if isinstance(arch, str)] if isinstance(arches, list) else [],
    )


def _not_a_python(choice: Choice, report: Interpreter, why: str) -> Interpreter:
    if choice.explicit:
        raise InputError(f"{str(choice.path)!r} is not a Python: {why}")
    report.problem = f"this is not a Python that works: {why}"
    return report


def child_environment(environ: Mapping[str, str], scratch: Path | None = None) -> dict[str, str]:
    """The variables for a child that is the experiment's Python but not the experiment.

    With `scratch`, that folder is where it keeps temporary files and caches. HOME stays: the user's site-packages,
    pyenv's shims and module systems are found by it.
    """
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
    if scratch is not None:
        env.update({name: str(scratch) for name in _KEEPING})
    return env


def _stage(out: str, token: str, name: str) -> dict[str, Any] | None:
    """What the child says under `name`; the token is made for this child, so that nothing else says it."""
    found = re.search(rf"<<{token} {name}>>(.*?)<<end>>", out, re.DOTALL)
    try:
        facts = json.loads(found[1]) if found else None
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


def _text(value: Any) -> str | None:
    """A short text; None for anything else, since a package may say of itself what it likes."""
    return value if isinstance(value, str) and 0 < len(value) <= 200 else None


def _unmet(said: dict[str, Any] | None) -> list[UnmetRequirement]:
    rows = (said or {}).get("unmet")
    triples = [row for row in rows if isinstance(row, list) and len(row) == 3] if isinstance(rows, list) else []
    named = [(by, needs, found) for by, needs, found in triples if _text(by) and _text(needs)]
    return [UnmetRequirement(by, needs, _text(found)) for by, needs, found in named[:_UNMET_CAP]]


def _texts(value: Any) -> dict[str, str]:
    pairs = value.items() if isinstance(value, dict) else []
    return {name: said for name, said in pairs if _text(name) and _text(said)}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _one_line(text: str) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 200 else line[:197] + "..."

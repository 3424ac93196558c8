"""Starts the worker in the experiment's Python and reads back the one JSON document it answers with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..hardware.probe.child import Finished, run_child, scratch_folder
from ..hardware.probe.interpreter import child_environment
from ..hardware.probe.pythons.choose import Choice, choose_python

LIMIT_S = 120.0
"""Enough for imports on a slow disk and a deep training step."""
MEMORY_LIMIT = 8 << 30
"""Bytes the worker may take. Tensors take none there; the libraries' imports take about one GiB."""
HOW_TO_NAME = "name the experiment's Python with --python, e.g. .venv/bin/python"
_MARKS = ("<<compute-awareness trace>>", "<<end>>")
# Proxies would only make an offline library wait; the audit hook of the worker denies the network in any case.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


def run_worker(
    job: dict[str, Any],
    python: str | None,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    limit_s: float = LIMIT_S,
    memory_limit: int = MEMORY_LIMIT,
    script: Path | None = None,
) -> dict[str, Any]:
    """The worker's answer to `job`, with the Python it was given under `interpreter`.

    The worker and the job are put into a temporary folder, which is the child's working folder and all it may write
    to; it is removed afterwards. The child's own children end with it.

    Args:
        job: what `worker.py` reads: library, task, config, dtype, batch_size, seq_len and the task's own fields.
        python: path, folder or command of the experiment's Python; None = found as `choose_python` does.
        limit_s: seconds until the child is killed.
        memory_limit: bytes the child may take (held on Linux).
        script: another worker, for tests.
    Raises:
        InputError: no Python with torch, or the job cannot be traced; the message says why.
    """
    environ = os.environ if environ is None else environ
    choice = choose_python(python, environ, cwd or Path.cwd())
    if choice is None:
        raise InputError(f"a trace needs the experiment's Python and none was found; {HOW_TO_NAME}")
    env = {name: value for name, value in child_environment(environ).items() if name not in _PROXIES}
    # One thread: no work is done on contents, and a pool of threads costs memory and time at the start.
    env |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    source = (script or Path(__file__).with_name("worker.py")).read_text(encoding="utf-8")
    with scratch_folder() as clean:
        (clean / "worker.py").write_text(source, encoding="utf-8")
        for name in ("worker_tasks.py", "worker_work.py"):
            (clean / name).write_text(Path(__file__).with_name(name).read_text(encoding="utf-8"), encoding="utf-8")
        (clean / "job.json").write_text(json.dumps(job | {"memory_limit": memory_limit}), encoding="utf-8")
        try:
            done = run_child([str(choice.path), str(clean / "worker.py"), str(clean / "job.json")], env, limit_s, clean)
        except OSError as error:
            raise InputError(f"{_named(choice)} cannot be started: {error.strerror or error}; {HOW_TO_NAME}") from None
    answer = _answer(done.out)
    if answer is None:
        raise InputError(f"the trace in {_named(choice)} gave no answer: {_why(done, limit_s)}")
    if "error" in answer:
        raise InputError(_refusal(answer["error"], choice))
    return answer | {"interpreter": str(choice.path), "interpreter_source": choice.source}


def _named(choice: Choice) -> str:
    return f"{str(choice.path)!r} ({choice.source})"


def _answer(out: str) -> dict[str, Any] | None:
    """The document between the marks; None where there is none, or it is not the worker's."""
    start = out.rfind(_MARKS[0])
    end = out.find(_MARKS[1], start)
    if start < 0 or end < 0:
        return None
    try:
        answer = json.loads(out[start + len(_MARKS[0]) : end])
    except ValueError:
        return None
    if not isinstance(answer, dict):
        return None
    if isinstance(answer.get("error"), dict) or _has_traces(answer):
        return answer
    return None


def _has_traces(answer: dict[str, Any]) -> bool:
    traces = answer.get("traces")
    return (
        isinstance(traces, list)
        and len(traces) > 0
        and isinstance(answer.get("versions"), dict)
        and all(isinstance(t, dict) and isinstance(t.get("sections"), dict) and t["sections"] for t in traces)
    )


def _why(done: Finished, limit_s: float) -> str:
    if done.timed_out:
        return f"it was not done after {limit_s:g} s"
    if done.flooded:
        return "it wrote without end"
    last = next((line.strip() for line in reversed(done.err.splitlines()) if line.strip()), "")
    said = f": {last[:200]}" if last else ""
    return f"it ended with exit code {done.code}{said}" if done.code else f"it wrote something else{said}"


def _refusal(error: dict[str, Any], choice: Choice) -> str:
    message = " ".join(str(error.get("message", "")).split())[:400]
    match error.get("kind"):
        case "missing_library" | "old_torch":
            return f"a trace needs the experiment's libraries: in {_named(choice)} {message}; {HOW_TO_NAME}"
        case "unknown_model" | "bad_config" | "bad_job":
            return f"cannot be traced: {message}"
        case "memory":
            return f"cannot be traced: {message}"
        case _:
            return f"cannot be traced with these libraries: {message}"

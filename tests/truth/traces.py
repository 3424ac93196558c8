"""Jobs of the trace's worker, all in one child process, so that the libraries are imported there once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from compute_awareness.hardware.probe.interpreter import child_environment
from compute_awareness.trace import worker
from compute_awareness.trace.extrapolate import extend
from compute_awareness.trace.work import work_of

_ALL_AT_ONCE = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("worker", sys.argv[1])
worker = importlib.util.module_from_spec(spec); spec.loader.exec_module(worker)
answers = {}
for name, job in json.load(open(sys.argv[2])).items():
    try:
        answers[name] = worker.work(job)
    except worker.Refused as refusal:
        answers[name] = {"error": {"kind": refusal.kind, "message": str(refusal)}}
json.dump(answers, open(sys.argv[3], "w"))
"""


def run_jobs(jobs: dict[str, dict[str, Any]], folder: Path) -> dict[str, Any]:
    """The worker's answers, by the names of the jobs; what it refuses has an "error"."""
    given, answered = folder / "jobs.json", folder / "answers.json"
    given.write_text(json.dumps(jobs))
    argv = [sys.executable, "-c", _ALL_AT_ONCE, str(worker.__file__), str(given), str(answered)]
    env = child_environment(os.environ) | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, env=env, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(answered.read_text())


def ours(answer: dict[str, Any]) -> int:
    """Bytes of tensors at the peak that an answer comes to."""
    return extend(answer["traces"], answer["n_layers"]).at_peak.total()


def operations(job: dict[str, Any], answer: dict[str, Any]) -> int:
    """Floating-point operations that an answer comes to: of one pass, one step, one call, one batch of patching."""
    parts, said = work_of(job, extend(answer["traces"], answer["n_layers"]), job.get("patches", 0))
    assert "as FlopCounterMode counts" in said
    return sum(part.times * part.flops for part in parts)

"""A cold `compute-awareness detect --json` against its imports, and eight slow probes side by side.

    python benchmarks/detect.py [--rounds 15]

First: a new process that looks at a machine without a GPU, with an experiment's Python that has no torch, against
`python -c "import pydantic, psutil"` of the same Python. Aim: at most 3 times. An experiment's Python with torch (the
one that runs this, where it has it) is a row of its own: what a user waits for there is torch's import.

Second: in one process, eight probes of which each sleeps, the slowest longer than its limit. The report is ready when
the slowest limit ends, not after their sum. Aim: at most 1.15 times the slowest limit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from timing import interleave, report

BASE = 'python -c "import pydantic, psutil"'
OURS, SHOWN, WITH_TORCH = "detect --json", "detect", "detect --json, Python with torch"
SIDE_BY_SIDE, SLOWEST = "eight slow probes", "the slowest limit alone"
LIMITS_S = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)


def wall(command: list[str], environ: dict[str, str], folder: str) -> float:
    """Seconds of one whole process. Raises subprocess.CalledProcessError where it fails."""
    begin = time.perf_counter()
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, env=environ, cwd=folder)
    return time.perf_counter() - begin


def side_by_side() -> float:
    """Seconds until eight probes are told of, of which every one sleeps for just below or far above its limit."""
    from compute_awareness.hardware.probe.examine import _side_by_side

    last = LIMITS_S[-1]
    probes = {
        f"p{i}": (lambda s=10 * limit if limit == last else 0.9 * limit: time.sleep(s), limit)
        for i, limit in enumerate(LIMITS_S)
    }
    begin = time.perf_counter()
    found, problems = _side_by_side(probes)
    took = time.perf_counter() - begin
    if len(found) != len(LIMITS_S) - 1 or len(problems) != 1:
        raise RuntimeError(f"found {sorted(found)}, problems {problems}")
    return took


def the_slowest() -> float:
    begin = time.perf_counter()
    time.sleep(LIMITS_S[-1])
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare"
        venv.create(bare, with_pip=False, symlinks=os.name == "posix")
        python = str(bare / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
        # Byte code is kept, as it is for users.
        dropped = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
        environ = {k: v for k, v in os.environ.items() if k not in dropped}
        detect = [sys.executable, "-m", "compute_awareness", "detect"]
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            BASE: [sys.executable, "-c", "import pydantic, psutil"],
            OURS: [*detect, "--json", "--python", python],
            SHOWN: [*detect, "--python", python],
            WITH_TORCH: [*detect, "--json", "--python", sys.executable],
        }
        cases = {name: lambda c=command: wall(c, environ, folder) for name, command in commands.items()}
        cold = report("cold detect, no GPU", interleave(cases, rounds), BASE, {OURS: 3.0, SHOWN: 3.0})
    cases = {SLOWEST: the_slowest, SIDE_BY_SIDE: side_by_side}
    limits = report("eight slow probes", interleave(cases, max(3, rounds // 3), 0), SLOWEST, {SIDE_BY_SIDE: 1.15})
    print(json.dumps({"cold": cold["cases"][OURS], "limits": limits["cases"][SIDE_BY_SIDE]}), file=sys.stderr)


if __name__ == "__main__":
    main()

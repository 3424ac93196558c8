"""A cold `compute-awareness estimate` against `python -c "import pydantic"`.

    python benchmarks/cli.py [--rounds 15]

Each run is a new process of the same Python. The figure for a person pays for rich as well; `--json`, which scripts
and assistants use, does not. Aim: at most 3 times the import.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from timing import interleave, report

EXAMPLE = str(Path(__file__).parents[1] / "examples" / "pythia_cache.json")
BASE = 'python -c "import pydantic"'
ESTIMATE = [sys.executable, "-m", "compute_awareness", "estimate", EXAMPLE]
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    BASE: [sys.executable, "-c", "import pydantic"],
    "compute-awareness estimate --json": [*ESTIMATE, "--json"],
    "compute-awareness estimate": ESTIMATE,
}


def wall(command: list[str]) -> float:
    """Seconds of one whole process. Raises subprocess.CalledProcessError where it fails."""
    begin = time.perf_counter()
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    seconds = interleave({name: lambda c=command: wall(c) for name, command in COMMANDS.items()}, rounds)
    aims = {name: 3.0 for name in COMMANDS if name.startswith("compute-awareness")}
    report("cold start of the command line", seconds, BASE, aims)


if __name__ == "__main__":
    main()

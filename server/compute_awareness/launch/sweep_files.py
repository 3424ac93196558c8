"""The task file of a sweep: a SLURM array, or jobs of SkyPilot. Nothing here starts anything.

Formats as read by Slurm 22.05 to 25 (`sbatch --test-only`) and skypilot 0.14.1 (utils/dag_utils.py): one document is a
task; a header with `execution: parallel` and one document for each machine is a job group.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from .engines import HF, head, indented, setup, skypilot_resources, slurm_options
from .plan import Plan

MOST_RUNS = 1000
"""Of one file. SLURM's MaxArraySize is 1001 where a site did not raise it, which allows indices up to 1000."""


def slurm_array(plan: Plan, commands: Sequence[str], at_once: int) -> str:
    """An array whose task i runs `commands[i]` on one card; at most `at_once` of them run at a time."""
    listed = "\n".join(f"  {shlex.quote(command)}" for command in commands)
    return f"""#!/bin/bash
{head(plan, "#")}
{slurm_options(plan, output="%x-%A_%a.out")}
# One task for each run; the number after % is how many may run at a time.
#SBATCH --array=0-{len(commands) - 1}%{at_once}

set -euo pipefail
# Homes are often small and slow: models go to the scratch folder where there is one.
export HF_HOME="${{SCRATCH:-$HOME}}/{HF}"

runs=(
{listed}
)

# The tasks start side by side and share one environment: the first to hold the lock makes it.
(
  flock 9
  if [ ! -e .venv/ready ]; then
    [ -d .venv ] || python3 -m venv .venv
    source .venv/bin/activate
{indented(setup(plan), 4)}
    touch .venv/ready
  fi
) 9>.venv.lock
source .venv/bin/activate

nvidia-smi --query-gpu=name,memory.total --format=csv
echo "run $SLURM_ARRAY_TASK_ID: ${{runs[$SLURM_ARRAY_TASK_ID]}}"
bash -euo pipefail -c "${{runs[$SLURM_ARRAY_TASK_ID]}}"
"""


def skypilot_jobs(plan: Plan, commands: Sequence[str], shares: Sequence[Sequence[int]]) -> str:
    """A machine for each share of the runs, which it does one after the other: one task, or a job group."""
    if len(shares) == 1:
        return f"{head(plan, '#')}\n{_task(plan, plan.name, [commands[at] for at in shares[0]], alone=True)}"
    tasks = [
        _task(plan, f"{plan.name}-{number}", [commands[at] for at in share], alone=False)
        for number, share in enumerate(shares)
    ]
    separator = "---\n"
    return f"""{head(plan, "#")}
# The machines are deleted when their runs are done: let the runs write their results to a bucket (`file_mounts`).
name: {plan.name}
execution: parallel
---
{separator.join(tasks)}"""


def _task(plan: Plan, name: str, commands: Sequence[str], *, alone: bool) -> str:
    """One machine. A run that fails is told of and the next one starts; the task then ends with 1."""
    runs = "\n".join(f"one {shlex.quote(command)}" for command in commands)
    return f"""name: {name}

resources:
{skypilot_resources(plan, autostop=alone)}

workdir: .

envs:
  HF_HOME: /tmp/{HF}
  # export HF_TOKEN and add `--secret HF_TOKEN` for gated models

setup: |
{indented(setup(plan), 2)}

run: |
  nvidia-smi --query-gpu=name,memory.total --format=csv
  failed=0
  one() {{
    echo "run: $1"
    timeout --signal=INT --kill-after=120 {plan.limit_s} bash -c "$1" || {{ echo "failed: $1"; failed=1; }}
  }}
{indented(runs, 2)}
  exit $failed
"""

"""The task file of each engine, from a plan. Nothing here starts anything.

Formats as read by skypilot 0.14.1 (sky.Task.from_yaml), dstack 0.22.5 (TaskConfiguration), modal 1.6.4 and Slurm
22.05 to 25: the tests hand every file to the engine's own parser.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

from ..advice.platforms import platform
from ..units import duration, gib
from .answers import Engine
from .plan import Plan, names_of

HF = "huggingface"


def task_file(engine: Engine, plan: Plan) -> tuple[str, str]:
    """(file name, text) of the engine's task file."""
    suffix = {"skypilot": ".sky.yaml", "slurm": ".sbatch", "modal": "_modal.py", "colab": "_colab.py"}
    name = plan.name.replace("-", "_") if engine in ("modal", "colab") else plan.name
    return name + suffix.get(engine, ".dstack.yml"), _WRITERS[engine](plan)


def start_command(engine: Engine, file_name: str) -> str:
    """What the user types to start it."""
    return {
        "skypilot": f"sky launch {file_name}",
        "slurm": f"sbatch {file_name}",
        "modal": f"modal run {file_name}",
        "dstack": f"dstack apply -f {file_name}",
        "colab": "paste the file into a cell and run it",
    }[engine]


def skypilot_resources(plan: Plan, *, autostop: bool = True) -> str:
    """The fields of a task's `resources`; managed jobs need no `autostop`, their machines go when they end."""
    names = names_of(plan.gpu.id)["skypilot"]
    accelerators = "{" + ", ".join(f"{name}: {plan.count}" for name in names) + "}"
    stop = """\
  # The machine is stopped when it has been idle, so that a forgotten one costs little.
  autostop: {idle_minutes: 15, down: true}
"""
    return f"""\
  accelerators: {accelerators}
  cpus: {plan.cpus}+
  memory: {plan.ram_gib}+
  disk_size: {plan.disk_gib}
{stop if autostop else ""}\
  job_recovery:
    # A preempted machine is replaced; a command that fails, as of out-of-memory, would fail again.
    max_restarts_on_errors: 0"""


def _skypilot(plan: Plan) -> str:
    return f"""{head(plan, "#")}
name: {plan.name}

resources:
{skypilot_resources(plan)}

workdir: .

envs:
  HF_HOME: /tmp/{HF}
  # export HF_TOKEN and add `--secret HF_TOKEN` for gated models

setup: |
{indented(setup(plan), 2)}

run: |
  nvidia-smi --query-gpu=name,memory.total --format=csv
{indented(_limited(plan), 2)}
"""


def _dstack(plan: Plan) -> str:
    name, memory = names_of(plan.gpu.id)["dstack"].split(":")
    lines = [f"  - {json.dumps(line, ensure_ascii=False)}" for line in setup(plan).splitlines()]
    return f"""{head(plan, "#")}
type: task
name: {plan.name}
python: "3.12"

env:
  - HF_HOME=/root/.cache/{HF}
  # - HF_TOKEN (for gated models: exported where you run dstack)

volumes:
  # Models stay on the instance for the next run.
  - instance_path: /root/.cache/{HF}
    path: /root/.cache/{HF}
    optional: true

commands:
{chr(10).join(lines)}
  - {json.dumps(plan.run, ensure_ascii=False)}

resources:
  gpu: {name}:{memory}:{plan.count}
  cpu: {plan.cpus}..
  memory: {plan.ram_gib}GB..
  disk: {plan.disk_gib}GB..

max_duration: {plan.limit_s // 3600}h
retry:
  # Waits for a machine, and takes another when this one is interrupted; a failing command is not tried again.
  on_events: [no-capacity, interruption]
  duration: 1h
"""


def slurm_options(plan: Plan, output: str = "%x-%j.out") -> str:
    """The lines that sbatch reads; partition, card, constraint and account as the cluster in sight has them."""
    if plan.way is not None:
        said, options = f"As cluster {plan.way.cluster} has them.", plan.way.options
    else:
        gres = names_of(plan.gpu.id).get("slurm", "")
        said = 'Sites name their cards differently: `sinfo -o "%P %G %l"` lists partitions, types and time limits here.'
        options = [
            f"--gres=gpu:{gres}:{plan.count}" if gres else f"--gres=gpu:{plan.count}",
            f"--mem={plan.ram_gib}G",
            f"--time={slurm_time(plan.limit_s)}",
        ]
    asked = "\n".join(f"#SBATCH {option}" for option in options)
    return f"""\
#SBATCH --job-name={plan.name}
# {said}
{asked}
#SBATCH --cpus-per-task={plan.cpus}
#SBATCH --output={output}
# Put back into the queue after a node failure or preemption.
#SBATCH --requeue"""


def _slurm(plan: Plan) -> str:
    return f"""#!/bin/bash
{head(plan, "#")}
{slurm_options(plan)}

set -euo pipefail
# Homes are often small and slow: models go to the scratch folder where there is one.
export HF_HOME="${{SCRATCH:-$HOME}}/{HF}"

if [ ! -d .venv ]; then
  python3 -m venv .venv
fi
source .venv/bin/activate
{setup(plan)}

nvidia-smi --query-gpu=name,memory.total --format=csv
{plan.run}
"""


def _modal(plan: Plan) -> str:
    offer = next(offer for offer in platform("modal").offers if offer.gpu_id == plan.gpu.id)
    gpu = offer.request if plan.count == 1 else f"{offer.request}:{plan.count}"
    packages = ", ".join(json.dumps(package) for package in plan.packages)
    return f"""{head(plan, "#")}
import subprocess
from pathlib import Path

import modal

app = modal.App({json.dumps(plan.name)})

image = modal.Image.debian_slim(python_version="3.12")
if Path("requirements.txt").is_file():
    image = image.pip_install_from_requirements("requirements.txt")
else:
    image = image.pip_install({packages})
image = image.add_local_dir(".", remote_path="/root/project", ignore=[".git", ".venv", "**/__pycache__"])

# Kept between runs: models are downloaded once, and what the run writes to /results is not lost.
models = modal.Volume.from_name("huggingface-cache", create_if_missing=True)
results = modal.Volume.from_name({json.dumps(plan.name + "-results")}, create_if_missing=True)


@app.function(
    image=image,
    gpu={json.dumps(gpu)},
    cpu={plan.cpus},
    memory={plan.ram_gib * 1024},
    timeout={min(plan.limit_s, 24 * 3600)},
    # A preempted container is started again by itself; a command that fails would fail again.
    retries=0,
    volumes={{"/root/.cache/huggingface": models, "/results": results}},
    # secrets=[modal.Secret.from_name("huggingface")],  # for gated models
)
def run():
    subprocess.run(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv"], check=False)
    subprocess.run(["bash", "-c", {_python_text(plan.run)}], check=True, cwd="/root/project")


@app.local_entrypoint()
def main():
    run.remote()
"""


def _colab(plan: Plan) -> str:
    offer = next(offer for offer in platform("colab").offers if offer.gpu_id == plan.gpu.id)
    packages = ", ".join(json.dumps(package) for package in plan.packages)
    return f"""{head(plan, "#")}
# Runtime > Change runtime type > {offer.request} GPU, then run this cell.
import os
import shutil
import subprocess
import sys
from pathlib import Path

seen = "no NVIDIA GPU"
if shutil.which("nvidia-smi"):
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    seen = subprocess.run(query, capture_output=True, text=True).stdout.strip()
memory = max([int(line.rsplit(",", 1)[1]) for line in seen.splitlines() if "," in line], default=0)
# The type of the GPU is a wish in Colab: look before anything is downloaded.
if memory * 1024**2 < {plan.needed_bytes}:
    raise SystemExit(f"this run needs {{{plan.needed_bytes} / 1024**3:.1f}} GiB, the runtime has: {{seen}}")

# Disk and models go with the runtime: mount Drive and set HF_HOME there to keep them.
os.environ.setdefault("HF_HOME", "/content/huggingface")
requirements = ["-r", "requirements.txt"] if Path("requirements.txt").is_file() else [{packages}]
subprocess.run([sys.executable, "-m", "pip", "install", "-q", *requirements], check=True)
subprocess.run({_python_text(plan.run)}, shell=True, check=True, executable="/bin/bash")
"""


def head(plan: Plan, mark: str) -> str:
    """What the file is and what was counted, as comments."""
    card = f"{plan.count} x {plan.gpu.name}" if plan.count > 1 else plan.gpu.name
    low, high = (duration(3600 * hours) for hours in plan.hours)
    took = low if low == high else f"{low} to {high}"
    lines = [
        "Written by compute-awareness; it starts nothing by itself. Look it over before you do.",
        f"Counted: at most {gib(plan.needed_bytes)} on {card}, {took} (a wide range).",
        *plan.notes,
    ]
    return "\n".join(f"{mark} {' '.join(line.split())}" for line in lines)


def setup(plan: Plan) -> str:
    """The shell command that installs what the run needs."""
    packages = " ".join(shlex.quote(package) for package in plan.packages)
    return f"if [ -f requirements.txt ]; then pip install -r requirements.txt; else pip install {packages}; fi"


def _limited(plan: Plan) -> str:
    """The command under a limit of its own, where the engine has none."""
    return f"timeout --signal=INT --kill-after=120 {plan.limit_s} bash -c {shlex.quote(plan.run)}"


def indented(text: str, spaces: int) -> str:
    """Text as a block of YAML."""
    return "\n".join(" " * spaces + line if line else "" for line in text.splitlines())


def _python_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=True)


def slurm_time(seconds: int) -> str:
    """Seconds as SLURM's --time takes them."""
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:00"
    return f"{days}-{clock}" if days else clock


_WRITERS: dict[Engine, Callable[[Plan], str]] = {
    "skypilot": _skypilot,
    "slurm": _slurm,
    "modal": _modal,
    "colab": _colab,
    "dstack": _dstack,
}
